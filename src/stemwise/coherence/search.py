"""Is a stem out of place? Coherence of a moved and transposed copy with its context, over a grid of moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stemwise.coherence.cocola import PartName
from stemwise.coherence.features import HarmonicPercussivePitch
from stemwise.coherence.scoring import AUDIBLE_DBFS, Direction, Encoder, features_of, level_dbfs, similarities

_BATCH = 16


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


def transposes(encoder: Encoder) -> bool:
    """Whether the encoder hears semitones in a channel of their own, where a stem is transposed without touching its sound."""
    return isinstance(encoder.features, HarmonicPercussivePitch)


@torch.no_grad()
def scores_of_moves(
    encoder: Encoder,
    pairs: Sequence[NDArray[np.float32]],
    grid: Grid,
    *,
    part: PartName = "both",
    direction: Direction = "context first",
) -> NDArray[np.float64]:
    """Scores (semitone, shift, pair) of the context with the moved stem; NaN where it is moved into silence.

    The encoder's own semitones are moved; where it hears none, the stem passes through librosa's phase vocoder.

    Args:
        encoder: the model.
        pairs: each (2, margin + window + margin) at the encoder's rate, context and stem; see `Grid.margin`.
        grid: the moves.
        part: which part of the sound counts.
        direction: see `scoring.Direction`.
    """
    margin = round(grid.margin * encoder.rate)
    begins = [margin - round(shift * encoder.rate) for shift in grid.shifts]
    scores = np.zeros((len(grid.semitones), len(grid.shifts), len(pairs)))
    for k, (context, stem) in enumerate(pairs):
        h, *others = (
            encoder.embed(encoder.mask(features, part)).float()
            for features in (_cut(encoder, context, [margin]), *_copies(encoder, stem, begins, grid.semitones))
        )
        for i, made in enumerate(others):
            scores[i, :, k] = similarities(encoder, h, made, direction)[0]
        levels = [level_dbfs(stem[begin : begin + encoder.window]) for begin in begins]
        scores[:, np.array(levels) < AUDIBLE_DBFS, k] = np.nan
    return scores


def _copies(
    encoder: Encoder, stem: NDArray[np.float32], begins: Sequence[int], semitones: Sequence[float]
) -> Iterator[Tensor]:
    """For every transposition the features of the windows that begin at `begins`: (window, channel, band, frame)."""
    own = encoder.features
    if isinstance(own, HarmonicPercussivePitch):
        features = _cut(encoder, stem, begins)
        yield from (own.transposed(features, higher) for higher in semitones)
    else:
        for higher in semitones:
            yield _cut(encoder, transposed(stem, encoder.rate, higher) if higher else stem, begins)


def _cut(encoder: Encoder, signal: NDArray[np.float32], begins: Sequence[int]) -> Tensor:
    """Features of the windows that begin there."""
    windows = torch.from_numpy(np.stack([signal[begin : begin + encoder.window] for begin in begins]))
    return torch.cat([features_of(encoder, batch) for batch in windows.split(_BATCH)])


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
