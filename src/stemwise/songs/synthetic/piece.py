"""The written song: notes in seconds, and the passage that a player is asked to fill, in beats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

STEMS = ("bass", "drums", "guitar", "piano", "other")

#: one note: start and duration in seconds, MIDI pitch and velocity
NOTE = np.dtype([("start", "f8"), ("duration", "f8"), ("pitch", "i2"), ("velocity", "i2")])

#: a note while composing: start beat, length in beats (quarter notes), MIDI pitch, velocity 1..127
Event = tuple[float, float, int, float]


@dataclass(frozen=True)
class Chord:
    """A chord in time. `root` and `bass` are pitch classes, `tones` semitones above the root; times in beats."""

    start: float
    length: float
    root: int
    tones: tuple[int, ...]
    bass: int

    @property
    def end(self) -> float:
        """The beat on which the next chord begins."""
        return self.start + self.length

    @property
    def classes(self) -> tuple[int, ...]:
        """Pitch classes, root first."""
        return tuple((self.root + t) % 12 for t in self.tones)


@dataclass(frozen=True)
class Passage:
    """What a player is told about one section: where it lies, its bars, harmony, kick pattern and energy.

    `start` and chord times are absolute beats, `beats` the bar's length in quarter notes, `unit` the length of the
    felt subdivision (0.5 for eighths), `kick` beat offsets in a bar, `energy` 0..1, `scale` pitch classes.
    """

    kind: str
    start: float
    bars: int
    beats: float
    meter: tuple[int, int]
    chords: tuple[Chord, ...]
    kick: tuple[float, ...]
    energy: float
    scale: tuple[int, ...]
    bpm: float

    @property
    def end(self) -> float:
        """The beat after the last bar."""
        return self.start + self.bars * self.beats

    @property
    def pulse(self) -> float:
        """The felt beat in quarter notes: a dotted quarter in compound metre."""
        return 1.5 if self.meter[1] == 8 else 1.0

    def bar_starts(self) -> list[float]:
        """The first beat of every bar."""
        return [self.start + i * self.beats for i in range(self.bars)]

    def chord_at(self, beat: float) -> Chord:
        """The chord that sounds at an absolute beat; the last one after the end."""
        for chord in self.chords:
            if chord.start - 1e-6 <= beat < chord.end - 1e-6:
                return chord
        return self.chords[-1] if beat >= self.start else self.chords[0]


@dataclass(frozen=True)
class Section:
    """A part of the form: its name, first bar, bars, start in seconds, tempo and the stems that play in it."""

    name: str
    first_bar: int
    bars: int
    start: float
    bpm: float
    playing: tuple[str, ...]


@dataclass(frozen=True)
class Track:
    """One instrument: the stem it belongs to, its General MIDI program (0-based) and its notes (dtype `NOTE`).

    `ways` says how it plays in each kind of section (`Section.name` to a role); `role` lists these.
    """

    stem: str
    program: int
    is_drum: bool
    role: str
    notes: NDArray[np.void]
    ways: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """A composed song. `seconds` is its exact length; notes never sound past it."""

    seed: int
    seconds: float
    style: str
    meter: tuple[int, int]
    key: str
    mode: str
    swing: float
    bars: int
    sections: tuple[Section, ...]
    tracks: tuple[Track, ...]

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that have at least one note, in the order of `STEMS`."""
        present = {track.stem for track in self.tracks if len(track.notes)}
        return tuple(name for name in STEMS if name in present)

    @property
    def tempo(self) -> float:
        """Quarter notes per minute of the first section."""
        return self.sections[0].bpm

    def transposed(self, semitones: int) -> Piece:
        """The same piece with every pitched note moved; what would leave the range of MIDI goes an octave back. `key` stays
        that of the composition.
        """
        tracks = []
        for track in self.tracks:
            notes = track.notes.copy()
            if not track.is_drum:
                moved = notes["pitch"] + semitones
                notes["pitch"] = np.where(moved > 127, moved - 12, np.where(moved < 0, moved + 12, moved))
            tracks.append(replace(track, notes=notes))
        return replace(self, tracks=tuple(tracks))
