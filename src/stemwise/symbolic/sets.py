"""Where labelled notes come from: the composer's songs by number, or folders of MIDI files whose tracks say who plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from stemwise.errors import MidiFileError, SongError
from stemwise.songs.lakh import lakh
from stemwise.songs.scanning import Problem
from stemwise.songs.splits import split as one_split
from stemwise.symbolic.composed import composed
from stemwise.symbolic.instruments import instrument_of
from stemwise.symbolic.midi import MIDI_SUFFIXES, read_midi
from stemwise.symbolic.notes import Labelled

#: A data set of a recipe that is no folder: composer:FIRST:LAST, the songs of these seeds, the last one excluded.
COMPOSER = "composer:"


@dataclass(frozen=True)
class NoteSets:
    """Several data sets, and how often each is drawn relative to the others."""

    sets: tuple[Songs, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(
        cls,
        entries: Sequence[tuple[str, str | None, float | None]],
        notice: Callable[[str], None],
        split_seed: int = 0,
    ) -> NoteSets:
        """From places, splits and weights (all have one, or none: then by the number of songs). Raises SongError."""
        sets = [songs_of(place, split, notice, split_seed) for place, split, _ in entries]
        return cls(tuple(sets), tuple(len(s) if w is None else w for s, (_, _, w) in zip(sets, entries, strict=True)))

    def __len__(self) -> int:
        return sum(map(len, self.sets))


class Songs(Protocol):
    """Labelled songs by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Labelled:
        """One of them."""
        ...


class Composed:
    """The composer's songs of some seeds, 40 to 100 seconds long, written when they are first asked for."""

    def __init__(self, seeds: range) -> None:
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: int) -> Labelled:
        return _written(self.seeds[number])


@lru_cache(maxsize=20_000)
def _written(seed: int) -> Labelled:
    return composed(seed, 40.0 + seed * 7919 % 61)


class Files:
    """MIDI files, read at once: track names, programs and the drum channel say which instrument plays (`instrument_of`)."""

    def __init__(self, files: Sequence[Path], notice: Callable[[str], None] = lambda _: None) -> None:
        self.songs: list[Labelled] = []
        for file in files:
            try:
                self.songs.append(labelled_file(file))
            except MidiFileError as error:
                notice(f"left out: {error}")

    def __len__(self) -> int:
        return len(self.songs)

    def __getitem__(self, number: int) -> Labelled:
        return self.songs[number]


def labelled_file(file: Path) -> Labelled:
    """A multi-track MIDI file with the instrument that each of its tracks names. Raises MidiFileError."""
    music = read_midi(file)
    tracks = music.score.tracks
    each = np.array([instrument_of(one.name, one.program, one.is_drum) for one in tracks], np.int8)
    return Labelled(music.notes, each[music.notes["track"]], music.tpq, music.metres)


def songs_of(
    place: str, split: str | None = None, notice: Callable[[str], None] = lambda _: None, split_seed: int = 0
) -> Songs:
    """The songs of a data set: composer:FIRST:LAST, or a folder (its MIDI files at any depth, each content once).

    `split` is train, validation or test, as `songs.lakh` says: by the folders, else drawn with `split_seed`; the parts and
    the versions of a song stay together. Raises SongError.
    """
    if place.startswith(COMPOSER):
        first, _, last = place.removeprefix(COMPOSER).partition(":")
        if split is None and first.isdecimal() and last.isdecimal() and int(first) < int(last):
            return Composed(range(int(first), int(last)))
        raise SongError(f"{place}: write the seeds as composer:FIRST:LAST, and choose others in place of a split")

    def left_out(problem: Problem) -> None:
        notice(f"left out: {problem.name} {problem.reason}")

    songs = lakh(place, split_seed, left_out, MIDI_SUFFIXES)
    if split is not None:
        try:
            songs = one_split(songs, split)
        except SongError as error:
            raise SongError(f"{place}: {error}") from error
    found = Files([song.file for song in songs], notice)
    if not len(found):
        raise SongError(f"{place}: none of its {len(songs)} MIDI file(s) has notes; give others")
    return found
