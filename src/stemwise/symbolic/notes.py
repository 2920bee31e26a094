"""Notes as arrays, the bars they lie in, and what a network is told about each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: A note: onset and duration in ticks, MIDI pitch and velocity, index of the track that it was read from.
NOTE = np.dtype([("onset", "i8"), ("duration", "i8"), ("pitch", "i2"), ("velocity", "i2"), ("track", "i4")])

Notes = NDArray[np.void]
Metre = tuple[int, int, int]
"""Tick, numerator, denominator."""

FEATURES = (
    "pitch",
    "velocity",
    "duration",
    "onset",
    "beat_sin",
    "beat_cos",
    "half_sin",
    "half_cos",
    "bar_sin",
    "bar_cos",
    "bar_length",
    "since",
    "until",
    "struck",
    "struck_below",
    "struck_above",
    "sounding_below",
    "sounding_above",
    "gap_below",
    "gap_above",
    "early_sin",
    "early_cos",
    "earlier_sin",
    "earlier_cos",
    "chord",
    "chord_below",
    "chord_above",
)
_FAR = 24
_STROKE = 0.008
"""Notes at most so many quarter notes apart are one stroke of one player, unless all is on a grid."""


@dataclass(frozen=True)
class Labelled:
    """Notes (dtype `NOTE`, sorted) with the instrument of each: `labels` int8, indices into a list of instruments."""

    notes: Notes
    labels: NDArray[np.int8]
    tpq: int
    metres: tuple[Metre, ...]


def in_order(notes: Notes) -> NDArray[np.intp]:
    """The order of `Music.notes`: by onset, pitch, duration, velocity, then as they were."""
    order: NDArray[np.intp] = np.lexsort((notes["velocity"], notes["duration"], notes["pitch"], notes["onset"]))
    return order


def bar_positions(
    onsets: NDArray[np.int64], tpq: int, metres: Sequence[Metre]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place in the bar and length of the bar, in quarter notes, of each onset (ticks).

    A time signature begins a bar where it stands, so a pickup is a short first bar; before the first one, and where
    there is none, or one of no beats, the metre is 4/4.
    """
    known = [(0, 4, 4), *(one if one[1] else (one[0], 4, 4) for one in sorted(metres))]
    starts = np.array([m[0] for m in known], dtype=np.int64)
    lengths = np.array([4.0 * m[1] / m[2] for m in known])
    index = np.searchsorted(starts, onsets, side="right") - 1
    return (onsets - starts[index]) / tpq % lengths[index], lengths[index]


def features(notes: Notes, tpq: int, metres: Sequence[Metre]) -> NDArray[np.float32]:
    """What a network sees of sorted notes: float32 (note, len(FEATURES)).

    Pitch is the MIDI number, onset in quarter notes from the first one's bar; all others are scaled to about [-1, 2]. The
    cost is quadratic in the number of notes: give windows.
    """
    onset, pitch = notes["onset"], notes["pitch"].astype(np.int64)
    place, length = bar_positions(onset, tpq, metres)
    beats = onset / tpq
    ends = onset + np.maximum(notes["duration"], 1)
    distinct, chord, size = np.unique(onset, return_inverse=True, return_counts=True)
    steps = np.diff(distinct) / tpq
    since, until = np.concatenate([[4.0], steps])[chord], np.concatenate([steps, [4.0]])[chord]
    together = onset[:, None] == onset[None]
    sounding = (onset[None] <= onset[:, None]) & (ends[None] > onset[:, None])
    near = np.abs(onset[:, None] - onset[None]) <= _STROKE * tpq
    lower, higher = pitch[None] < pitch[:, None], pitch[None] > pitch[:, None]
    distance = np.abs(pitch[None] - pitch[:, None])
    gap_below = np.where(sounding & lower, distance, _FAR).min(axis=1)
    gap_above = np.where(sounding & higher, distance, _FAR).min(axis=1)
    columns = (
        pitch,
        notes["velocity"] / 64.0 - 1.0,
        _log(notes["duration"] / tpq),
        beats - (beats[0] - place[0]) if len(beats) else beats,
        *_wave(place, 1.0),
        *_wave(place, 2.0),
        *_wave(place, length),
        length / 4.0,
        _log(since),
        _log(until),
        np.log2(size[chord]) / 2.0,
        (together & lower).sum(1) / 4.0,
        (together & higher).sum(1) / 4.0,
        (sounding & lower).sum(1) / 4.0,
        (sounding & higher).sum(1) / 4.0,
        np.minimum(gap_below, _FAR) / _FAR,
        np.minimum(gap_above, _FAR) / _FAR,
        *_wave(place, 1 / 12),
        *_wave(place, 1 / 24),
        np.log2(near.sum(1)) / 2.0,
        (near & lower).sum(1) / 4.0,
        (near & higher).sum(1) / 4.0,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _log(quarters: NDArray[np.float64]) -> NDArray[np.float64]:
    """A length in quarter notes: 1/16 of one is -1, one 0, sixteen 1."""
    scaled: NDArray[np.float64] = np.log2(np.clip(quarters, 1 / 32, 32.0)) / 4.0
    return scaled


def _wave(place: NDArray[np.float64], period: NDArray[np.float64] | float) -> tuple[NDArray[np.float64], ...]:
    phase = 2.0 * np.pi * place / period
    return np.sin(phase), np.cos(phase)
