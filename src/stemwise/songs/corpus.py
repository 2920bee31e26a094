"""Several data sets as one list of songs: which of their songs, under which stem names, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemwise.errors import SongError
from stemwise.songs.layouts import scan_any
from stemwise.songs.scanning import describe, usable
from stemwise.songs.song import Song
from stemwise.songs.splits import split


@dataclass(frozen=True)
class DataSet:
    """A directory in any layout, or shards; `split`: only these songs; `regroup` gives the stems other names.

    `weight`: its share of the windows relative to the weights of the others; None: by length, as if all were one.
    """

    path: Path
    split: str | None = None
    regroup: Callable[[Song], Song] | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Corpus:
    """Songs, and how often each is drawn relative to the others."""

    songs: list[Song]
    weights: list[float]

    @property
    def hours(self) -> float:
        """Length of all songs together."""
        return sum(song.seconds for song in self.songs) / 3600


def gather(sets: Sequence[DataSet], notice: Callable[[str], None], split_seed: int = 0) -> Corpus:
    """The songs of all data sets; `notice` hears of every song that is left out. Weights: either all sets have one or none.

    Splits that are not published are drawn with `split_seed`. Raises SongError for a set without a usable song.
    """
    songs: list[Song] = []
    weights: list[float] = []
    for one in sets:
        found = scan_any(one.path)
        if found.problems:
            notice(describe(one.path, found.problems))
        if found.skipped:
            notice(f"{one.path}: {len(found.skipped)} song(s) left out by rule; `stemwise songs verify` names them")
        chosen = list(found.songs) or usable(one.path, found)
        if one.split is not None:
            try:
                chosen = split(chosen, one.split, split_seed)
            except SongError as error:
                raise SongError(f"{one.path}: {error}") from error
        if one.regroup is not None:
            chosen = [one.regroup(song) for song in chosen]
        scale = 1.0 if one.weight is None else one.weight / sum(song.seconds for song in chosen)
        songs += chosen
        weights += [song.seconds * scale for song in chosen]
    return Corpus(songs, weights)
