"""How often an encoder finds what belongs to a context among K candidates: the test of COCOLA (arXiv 2404.16969).

The published test takes the other windows of a batch as they come. Here it is fixed which ones count, other windows of
the same song or windows of other songs, and the answer is exact: the mean over all draws of K - 1 of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stemwise.coherence.cocola import Cocola, PartName
from stemwise.errors import ScoreError
from stemwise.songs.song import Song
from stemwise.songs.window import WindowOptions, loud, read_at

Negatives = Literal["same song", "other songs"]
Sizes = Literal["single stems", "sub-mixes"]
_FLOOR_DB = -50.0
_BATCH = 16


@dataclass(frozen=True)
class Pairs:
    """What is tested: float32 (window, 2, time), contexts and what belongs to them, mono; the song of each window."""

    signals: NDArray[np.float32]
    songs: tuple[str, ...]


def pairs_of(songs: Sequence[Song], encoder: Cocola, sizes: Sizes = "sub-mixes", seed: int = 0) -> Pairs:
    """A pair from every window, side by side, in which two stems are louder than -50 dB.

    Either one stem against one other, or disjoint sub-mixes: U{1..N-1} stems, then U{1..} of those left (arXiv 2404.16969).
    The draw depends on the seed and the song's name alone. Raises ScoreError where no window is of use.
    """
    signals, names = [], []
    for song in songs:
        options = WindowOptions(tuple(song.stems), encoder.rate, encoder.window, channels=1)
        draw = np.random.default_rng([seed, *os.fsencode(song.name)])
        step = round(encoder.window * song.rate / encoder.rate)
        for start in range(0, song.frames - step + 1, step):
            window = read_at(song, start, options.names, options)
            order = draw.permutation(np.flatnonzero(loud(window, _FLOOR_DB)))
            if len(order) < 2:
                continue
            size = int(draw.integers(1, len(order))) if sizes == "sub-mixes" else 1
            more = int(draw.integers(1, len(order) - size + 1)) if sizes == "sub-mixes" else 1
            signals.append([window[order[:size], 0].sum(0), window[order[size : size + more], 0].sum(0)])
            names.append(song.name)
    if not signals:
        raise ScoreError(
            f"none of the {len(songs)} song(s) has a window of {encoder.config.seconds:g} s with two sounding stems"
        )
    return Pairs(np.array(signals, np.float32), tuple(names))


def k_way(
    encoder: Cocola, pairs: Pairs, k: int, negatives: Negatives = "other songs", part: PartName = "both"
) -> NDArray[np.float64]:
    """`found` for pairs: (window,)."""
    contexts, made = (embedded(encoder, list(pairs.signals[:, side]), part) for side in (0, 1))
    with torch.no_grad():
        scores = encoder.similarity(*(x.to(next(encoder.parameters()).device) for x in (contexts, made)))
    return found(scores.cpu().numpy(), pairs.songs, k, negatives)


@torch.no_grad()
def embedded(encoder: Cocola, signals: Sequence[NDArray[np.float32]], part: PartName = "both") -> Tensor:
    """Embeddings (signal, embedding) of mono windows of equal length at the encoder's rate, on the CPU."""
    device = next(encoder.parameters()).device
    rows = []
    for first in range(0, len(signals), _BATCH):
        audio = torch.from_numpy(np.stack(signals[first : first + _BATCH])).to(device)
        rows.append(encoder.embed(encoder.mask(encoder.features(audio), part)).float().cpu())
    return torch.cat(rows)


def found(scores: NDArray[np.floating], songs: Sequence[object], k: int, negatives: Negatives) -> NDArray[np.float64]:
    """For each context the chance that its own part scores highest among itself and k - 1 of the negatives.

    scores: (n, n), row i column j the score of context i with the part of window j. songs: (n,), the song of each window.
    A tie counts as not found. NaN where there are fewer than k - 1 negatives; 1 / k is a guess.
    """
    scores = np.asarray(scores, float)
    same = np.array([[a == b for b in songs] for a in songs])
    allowed = same & ~np.eye(len(songs), dtype=bool) if negatives == "same song" else ~same
    beaten = (allowed & (scores < scores.diagonal()[:, None])).sum(axis=1)
    there = allowed.sum(axis=1)
    return np.array(
        [comb(int(b), k - 1) / comb(int(m), k - 1) if m >= k - 1 else np.nan for b, m in zip(beaten, there)]
    )
