"""MIDI <-> piano rolls on a grid of ticks: which notes a roll shows, in which row, and what comes back.

A layout is data: which General MIDI programs belong to which stem, where drums lie, how fine time is. Rolls are lossy:
velocities, pitches outside the layout and everything finer than its grid are gone. What must not be lost is assigned
note by note instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stemwise.errors import QueryError
from stemwise.extras import needed
from stemwise.stems import Rolls

if TYPE_CHECKING:
    import symusic

SILENT, SOUNDING, ONSET = 0, 1, 2


@dataclass(frozen=True)
class RollLayout:
    """Stems in order and the programs (0-based) that each holds; `rest` takes programs that no stem names, None drops them.

    `drum_keys` maps percussion keys to rows, all others are dropped; None puts every key at its own pitch. `programs`
    that come first are the ones written. Steps are `steps` to a quarter note, row 0 is MIDI pitch `lowest`.
    """

    stems: tuple[str, ...]
    programs: Mapping[str, tuple[int, ...]]
    drums: str
    rest: str | None = None
    drum_keys: Mapping[int, int] | None = None
    steps: int = 4
    lowest: int = 24
    rows: int = 72

    def stem_of(self, program: int, is_drum: bool) -> str | None:
        """The stem of a track, None where the layout drops it."""
        if is_drum:
            return self.drums
        return next((stem for stem, its in self.programs.items() if program in its), self.rest)

    def row_of(self, pitch: np.ndarray, is_drum: bool) -> np.ndarray:
        """Rows of MIDI pitches, -1 for those that the layout drops."""
        if is_drum and self.drum_keys is not None:
            table = np.full(128, -1)
            table[list(self.drum_keys)] = list(self.drum_keys.values())
            return np.asarray(table[pitch])
        row = pitch.astype(np.int64) - self.lowest
        return np.where((row >= 0) & (row < self.rows), row, -1)


def _drum_rows() -> dict[int, int]:
    rows = {
        63: (35, 36), 64: (37, 38, 39, 40), 65: (42, 44), 66: (41, 43, 45), 67: (46,), 68: (47, 48), 69: (49, 55, 57),
        70: (50,), 71: (51, 59),
    }  # fmt: skip
    return {key: row for row, keys in rows.items() for key in keys}


#: Mixture2Music's five instruments: solo strings are not among the strings, nine kinds of drums lie where pitches 87 to
#: 95 would be, everything else is dropped. The melody, which the published preprocessing takes away, is not here.
PUBLISHED = RollLayout(
    stems=("piano", "guitar", "bass", "string", "drum"),
    programs={
        "piano": (0, *range(1, 8)),
        "guitar": (25, *range(24, 32)),
        "bass": (33, *range(32, 40)),
        "string": (49, *range(48, 56)),
    },
    drums="drum",
    drum_keys=_drum_rows(),
)

#: The stems of the built-in composer, and of the audio models; drums lie at their own keys, amid the bass.
BAND = RollLayout(
    stems=("bass", "drums", "guitar", "piano", "other"),
    programs={
        "bass": (33, *range(32, 40)),
        "guitar": (25, *range(24, 32)),
        "piano": tuple(range(8)),
        "other": (48,),
    },
    drums="drums",
    rest="other",
)

LAYOUTS: Mapping[str, RollLayout] = {"published": PUBLISHED, "band": BAND}


@dataclass(frozen=True, eq=False)
class GridNotes:
    """Notes of a song on the grid of a layout, int64 arrays of one length: stem (index), steps [start, stop), row.

    ``length`` in steps; ``bars``: the steps that begin bars.
    """

    stem: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    row: np.ndarray
    length: int
    bars: np.ndarray

    def paint(self, layout: RollLayout, first: int = 0, length: int | None = None) -> np.ndarray:
        """Steps [first, first + length) as uint8 (stem, time, pitch); a note that began before has no onset here."""
        length = self.length if length is None else length
        shape = (len(layout.stems), length + 1, layout.rows)
        heard = (self.start < first + length) & (self.stop > first)
        stem, row = self.stem[heard], self.row[heard]
        start, stop = self.start[heard] - first, np.minimum(self.stop[heard] - first, length)
        edges = np.zeros(shape, np.int32)
        np.add.at(edges, (stem, np.maximum(start, 0), row), 1)
        np.add.at(edges, (stem, stop, row), -1)
        roll = (np.cumsum(edges, axis=1) > 0)[:, :length].astype(np.uint8)
        begins = start >= 0
        roll[stem[begins], start[begins], row[begins]] = ONSET
        return roll


def on_grid(score: symusic.Score, layout: RollLayout) -> GridNotes:
    """The notes of a score that a layout shows. Starts and ends go to the nearest step, notes last at least one.

    Tempo changes do not matter: the grid is of ticks, from tick 0 to the end of the last note, shown or not.
    """
    step = score.ticks_per_quarter / layout.steps
    found, end = [np.zeros((4, 0), np.int64)], 0
    for track in score.tracks:
        notes = {name: values.astype(np.int64) for name, values in track.notes.numpy().items()}
        end = max(end, int((notes["time"] + notes["duration"]).max(initial=0)))
        stem = layout.stem_of(track.program, track.is_drum)
        if stem is None:
            continue
        start = np.round(notes["time"] / step).astype(np.int64)
        stop = np.maximum(np.round((notes["time"] + notes["duration"]) / step).astype(np.int64), start + 1)
        row = layout.row_of(notes["pitch"], track.is_drum)
        table = np.stack([np.full(len(row), layout.stems.index(stem)), start, stop, row])
        found.append(table[:, row >= 0])
    stem_index, start, stop, row = np.concatenate(found, axis=1)
    length = max(int(stop.max(initial=0)), round(end / step))
    return GridNotes(stem_index, start, stop, row, length, _bars(score, layout, length))


def to_rolls(score: symusic.Score, layout: RollLayout) -> Rolls:
    """The rolls (batch of one) of a whole score, as `on_grid` reads it."""
    data = torch.from_numpy(on_grid(score, layout).paint(layout))
    return Rolls(layout.stems, data[None], layout.steps, layout.lowest)


@dataclass(frozen=True)
class Writing:
    """How rolls become MIDI: ticks to a quarter note, quarter notes a minute, metre, velocity (stems may have their own)."""

    ticks: int = 480
    tempo: float = 120.0
    metre: tuple[int, int] = (4, 4)
    velocity: int = 80
    velocities: Mapping[str, int] = field(default_factory=dict)


def to_score(rolls: Rolls, layout: RollLayout, how: Writing | None = None) -> symusic.Score:
    """One track a stem, named so, with the layout's first program; the first item of a batch. Silent stems have none.

    Cells without an onset continue the note before them, or begin one after silence. Raises QueryError for stems that
    the layout lacks.
    """
    symusic = needed("symusic", "midi")

    how = how or Writing()
    score = symusic.Score(how.ticks)
    score.tempos.append(symusic.Tempo(0, how.tempo))
    score.time_signatures.append(symusic.TimeSignature(0, *how.metre))
    keys = None if layout.drum_keys is None else _first_keys(layout.drum_keys)
    for k, name in enumerate(rolls.names):
        if name not in layout.stems:
            raise QueryError(f"the layout has no stem {name!r}; it has {', '.join(layout.stems)}")
        is_drum = name == layout.drums
        start, stop, row = notes_of(rolls.data[0, k])
        if not len(start):
            continue
        pitch = np.array([keys.get(r, -1) for r in row.tolist()]) if is_drum and keys else row + rolls.lowest
        kept = pitch >= 0
        tick = np.round(np.stack([start, stop])[:, kept] * (how.ticks / rolls.steps)).astype(np.int32)
        program = 0 if is_drum else layout.programs.get(name, (0,))[0]
        track = symusic.Track(name, program, is_drum)
        velocity = np.full(int(kept.sum()), how.velocities.get(name, how.velocity), np.int8)
        track.notes = symusic.Note.from_numpy(tick[0], tick[1] - tick[0], pitch[kept].astype(np.int8), velocity)
        score.tracks.append(track)
    return score


def notes_of(roll: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Notes of one roll (time, pitch): first step, step after the last, row; in order of time, then pitch."""
    cells = roll.numpy()
    sounds = np.pad(cells > 0, ((1, 1), (0, 0)))
    begins = (cells == ONSET) | (sounds[1:-1] & ~sounds[:-2])
    row, start = np.nonzero(begins.T)
    after, end = np.nonzero(
        (sounds[1:-1] & (~sounds[2:] | np.pad(begins[1:], ((0, 1), (0, 0)), constant_values=True))).T
    )
    assert np.array_equal(row, after)
    order = np.lexsort((row, start))
    return start[order], end[order] + 1, row[order]


def _first_keys(drum_keys: Mapping[int, int]) -> dict[int, int]:
    """The first percussion key of every row."""
    keys: dict[int, int] = {}
    for key, row in drum_keys.items():
        keys.setdefault(row, key)
    return keys


def _bars(score: symusic.Score, layout: RollLayout, length: int) -> np.ndarray:
    """The steps that begin bars, by the score's time signatures (4/4 before the first)."""
    per_tick = layout.steps / score.ticks_per_quarter
    changes: list[tuple[float, float]] = [
        (sign.time * per_tick, 4 * layout.steps * (sign.numerator / sign.denominator if sign.denominator else 1.0))
        for sign in score.time_signatures
    ]
    if not changes or changes[0][0] > 0:
        changes.insert(0, (0.0, 4.0 * layout.steps))
    ends = [start for start, _ in changes[1:]] + [float(length)]
    bars = [np.round(np.arange(start, min(end, length), size)) for (start, size), end in zip(changes, ends) if size > 0]
    found: np.ndarray = np.unique(np.concatenate(bars)).astype(np.int64) if bars else np.zeros(0, np.int64)
    return found[found < length]
