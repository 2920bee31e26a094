"""Several data sets as one list of songs: which of their songs, under which stem names, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemwise.errors import SongError, did_you_mean
from stemwise.songs.layouts import scan_any
from stemwise.songs.scanning import describe, usable, whole
from stemwise.songs.song import Song
from stemwise.songs.splits import split


@dataclass(frozen=True)
class DataSet:
    """A directory in any layout, or shards; `split`: only these songs; `regroup` gives the stems other names.

    `renamed`: names of stems that `regroup` looks for; one that no song has is a mistake.
    `weight`: its share of the windows relative to the weights of the others; None: by length, as if all were one.
    """

    path: Path
    split: str | None = None
    regroup: Callable[[Song], Song] | None = None
    renamed: Collection[str] = ()
    weight: float | None = None


@dataclass(frozen=True)
class Corpus:
    """The songs of several data sets.

    Attributes:
        songs: of all of them.
        origins: for each song, the number of its data set.
        shares: for each data set, how often its songs are drawn relative to those of the others; None: by length.
    """

    songs: list[Song]
    origins: list[int]
    shares: list[float | None]

    @property
    def weights(self) -> list[float]:
        """How often each song is drawn relative to the others: within a data set, by its length."""
        lengths = [0.0] * len(self.shares)
        for song, origin in zip(self.songs, self.origins):
            lengths[origin] += song.seconds
        scales = [1.0 if share is None else share / (length or 1.0) for share, length in zip(self.shares, lengths)]
        return [song.seconds * scales[origin] for song, origin in zip(self.songs, self.origins)]

    def having(self, useful: Callable[[Song], bool]) -> Corpus:
        """The songs that are of use, where there are any; the shares of the data sets stay."""
        kept = [(song, origin) for song, origin in zip(self.songs, self.origins) if useful(song)]
        return Corpus([song for song, _ in kept], [origin for _, origin in kept], self.shares) if kept else self

    @property
    def hours(self) -> float:
        """Length of all songs together."""
        return sum(song.seconds for song in self.songs) / 3600


def gather(sets: Sequence[DataSet], notice: Callable[[str], None], split_seed: int = 0) -> Corpus:
    """The songs of all data sets; `notice` hears of every song that is left out. Either all sets have a weight or none.

    Splits that are not published are drawn with `split_seed`. Raises SongError for a set without a usable song, or
    without a stem that it should rename.
    """
    songs: list[Song] = []
    origins: list[int] = []
    for number, one in enumerate(sets):
        found = whole(scan_any(one.path))
        if found.problems:
            notice(describe(one.path, found.problems))
        if found.skipped:
            notice(f"{one.path}: {len(found.skipped)} song(s) left out by rule; `stemwise songs verify` names them")
        chosen = list(found.songs) or usable(one.path, found)
        _check_names(one, chosen)
        if one.split is not None:
            try:
                chosen = split(chosen, one.split, split_seed)
            except SongError as error:
                raise SongError(f"{one.path}: {error}") from error
        if one.regroup is not None:
            chosen = [one.regroup(song) for song in chosen]
        songs += chosen
        origins += [number] * len(chosen)
    return Corpus(songs, origins, [one.weight for one in sets])


def _check_names(one: DataSet, songs: Sequence[Song]) -> None:
    """Raise SongError for a name to replace that no song has: a slip would send the stem elsewhere in silence."""
    there = sorted({name for song in songs for name in song.stems})
    missing = [name for name in one.renamed if name not in there]
    if missing:
        hint = did_you_mean(missing[0], there)
        raise SongError(
            f"{one.path}: stems: no song has a stem named {', '.join(missing)}{hint}; there are: "
            f"{', '.join(there) or 'none'}. Correct the names, or leave them out"
        )
