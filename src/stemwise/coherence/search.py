"""Is a stem out of place? Coherence of a moved and transposed copy with its context, over a grid of moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stemwise.coherence.cocola import PartName
from stemwise.coherence.scoring import AUDIBLE_DBFS, Direction, Encoder, embed_parts, level_dbfs, similarities

Transpose = Callable[[NDArray[np.float32], float], NDArray[np.float32]]
"""(signal (n,), semitones) -> the same length, higher by so many semitones."""


@dataclass(frozen=True)
class Grid:
    """Moves to try: seconds (positive is later) and semitones (positive is higher); (0, 0) must be among them."""

    shifts: tuple[float, ...]
    semitones: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if 0.0 not in self.shifts or 0.0 not in self.semitones:
            raise ValueError("the moves to try must include 0 seconds and 0 semitones, to compare with")

    @property
    def margin(self) -> float:
        """Seconds of signal needed on both sides of a window."""
        return max(map(abs, self.shifts))


def scores_of_moves(
    encoder: Encoder,
    pairs: Sequence[NDArray[np.float32]],
    grid: Grid,
    *,
    part: PartName = "both",
    direction: Direction = "context first",
    transpose: Transpose | None = None,
) -> NDArray[np.float64]:
    """Scores (semitone, shift, pair) of the context with the moved stem.

    Args:
        encoder: the model.
        pairs: each (2, margin + window + margin) at the encoder's rate, context and stem; see `Grid.margin`.
        grid: the moves.
        part: which part of the sound counts.
        direction: see `scoring.Direction`.
        transpose: changes the pitch; by default librosa's phase vocoder.
    """
    rate, window, margin = encoder.rate, encoder.window, round(grid.margin * encoder.rate)
    p = encoder.parts.index(part)
    change = transpose or (lambda signal, semitones: transposed(signal, rate, semitones))
    scores = np.zeros((len(grid.semitones), len(grid.shifts), len(pairs)))
    for k, (context, stem) in enumerate(pairs):
        h = embed_parts(encoder, torch.from_numpy(context[margin : margin + window])[None])[:, p]
        for i, semitones in enumerate(grid.semitones):
            moved = change(stem, semitones) if semitones else stem
            begins = [margin - round(shift * rate) for shift in grid.shifts]
            copies = torch.from_numpy(np.stack([moved[begin : begin + window] for begin in begins]))
            made = torch.cat([embed_parts(encoder, batch)[:, p] for batch in copies.split(16)])
            scores[i, :, k] = similarities(encoder, h, made, direction)[0]
    return scores


def audible_pairs(
    windows: Iterable[tuple[int, NDArray[np.float32]]], margin: int, most: int
) -> list[NDArray[np.float32]]:
    """At most about `most` pairs, evenly spread over the song, of those where both sides are audible in place."""
    kept: list[NDArray[np.float32]] = []
    stride = seen = 0
    for _, pair in windows:
        middle = pair[:, margin : pair.shape[1] - margin]
        if (level_dbfs(middle) < AUDIBLE_DBFS).any():
            continue
        if seen % (1 << stride) == 0:
            kept.append(pair)
        seen += 1
        if len(kept) > 2 * most:
            kept, stride = kept[::2], stride + 1
    return [kept[round(i)] for i in np.linspace(0, len(kept) - 1, min(most, len(kept)))]


def transposed(signal: NDArray[np.float32], rate: int, semitones: float) -> NDArray[np.float32]:
    """Higher by so many semitones at the same tempo: librosa's phase vocoder and resampling."""
    from librosa.effects import pitch_shift

    higher: NDArray[np.float32] = pitch_shift(signal, sr=rate, n_steps=semitones, res_type="soxr_hq")
    return higher.astype(np.float32)
