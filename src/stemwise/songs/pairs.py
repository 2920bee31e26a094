"""Pairs of disjoint sub-mixes of one window: what contrastive training hears (COCOLA, arXiv 2404.16969, section 3).

A pair is an anchor, the sum of some stems of a window, and a positive, the sum of some of the others. The other pairs
of its batch are its negatives, so a batch is planned as a whole: two of its windows that come from one song share at
most a fraction `overlap` of their span. Everything is a function of (seed, index), whatever reads it and in any order.

Rhythm alone tells these apart. A decoy, where it is asked for, is what rhythm cannot: the positive in another key.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stemwise.errors import SongError
from stemwise.songs.song import Song
from stemwise.songs.window import at_rate, loud, margins

#: Windows tried in the place planned for a pair, and songs tried after that, until two stems of the window sound.
_ATTEMPTS, _RESERVES = 8, 4
#: Seconds by which a decoy comes too early or too late.
_DECOY_SHIFT = 0.025, 1.0


@dataclass(frozen=True)
class PairOptions:
    """Shape of the pairs (`rate` in hertz, `frames` at that rate, channels) and of the batches that hold them.

    batch: how many successive pairs are negatives of each other; `per_song`: how many of them one song gives before the
    next one is drawn (1: negatives from other songs; `batch`: all from the same song). `overlap`: the largest share of
    its span, in [0, 1), that a window has in common with another of its song in the batch. A stem counts as sounding
    where its level in the window is above `floor_db` (RMS, dB full scale). `gain_db`: each stem is louder or softer by up to
    so much. `decoy`: "key" adds the positive's stems at the same time in another key, from another song of the same `work`
    with another `transposed` (metadata, as `stemwise songs make --keys` writes it); where there is none, or one side has
    unpitched stems alone, they come from 25 ms to 1 s too early or too late.
    """

    rate: int = 16_000
    frames: int = 80_000
    channels: int = 1
    batch: int = 32
    per_song: int = 1
    overlap: float = 0.5
    floor_db: float = -60.0
    gain_db: float = 0.0
    decoy: Literal["none", "key"] = "none"

    @property
    def rows(self) -> int:
        """Signals of a pair: anchor, positive, and the decoy."""
        return 2 if self.decoy == "none" else 3


@dataclass(frozen=True)
class Pair:
    """One pair: float32 signals (row, channel, frames), the song, the frame where its window starts, the stems used."""

    signals: np.ndarray
    song: Song
    start: int
    anchor: tuple[str, ...]
    positive: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """Where a pair may be taken from: a song, the first and the last frame where its window may start."""

    song: int
    first: int
    last: int


class Pairs(torch.utils.data.Dataset[Tensor]):
    """The stream: `pairs[i]` is float32 (2 or 3, channel, frames), anchor, positive and decoy, for any i >= 0.

    Every stem of a song counts by itself, whatever it is called and however many there are; songs with fewer than two are
    left out. Versions of one work count as one song, with the sum of their weights, and any of them is heard; works of
    one name in two data sets, whose numbers are `origins`, are two. Songs are drawn in proportion to `weights`, by default
    their lengths, without replacement while there are songs left for the batch. A window in which fewer than two
    stems sound is drawn again.
    """

    def __init__(
        self,
        songs: Sequence[Song],
        options: PairOptions,
        seed: int,
        weights: Sequence[float] | None = None,
        origins: Sequence[int] | None = None,
    ) -> None:
        kept = [place for place, song in enumerate(songs) if len(song.stems) > 1]
        if not kept:
            raise SongError(
                f"none of the {len(songs)} song(s) has two stems to make a pair of; use songs with more stems"
            )
        works: dict[tuple[int, str] | int, list[int]] = {}
        for place in kept:
            work = songs[place].metadata.get("work")
            key = place if work is None else (origins[place] if origins else 0, str(work))
            works.setdefault(key, []).append(place)
        self._versions = [[songs[place] for place in places] for places in works.values()]
        self.songs = [versions[0] for versions in self._versions]
        self.options = options
        self.seed = seed
        heard = [song.seconds for song in songs] if weights is None else weights
        self._weights = np.array([sum(heard[place] for place in places) for places in works.values()], float)
        self._rooms = np.array([room(song, options) for song in self.songs])
        if self._rooms.sum() < options.batch:
            raise SongError(
                f"a batch of {options.batch} pairs needs as many windows that share at most {options.overlap:.0%} of "
                f"their span; the {len(kept)} song(s) hold {self._rooms.sum()}. "
                "Add songs, or lower the batch or the length of the windows"
            )
        self._planned: tuple[int, list[list[_Place]]] = (-1, [])

    def __getitem__(self, index: int) -> Tensor:
        """The signals of pair `index`."""
        return torch.from_numpy(self.pair(index).signals)

    def pair(self, index: int) -> Pair:
        """Pair `index` with all that is known of it. Where no window tried has two sounding stems, the best is taken."""
        batch, row = divmod(index, self.options.batch)
        if self._planned[0] != batch:
            self._planned = (batch, self._plan(batch))
        draw = np.random.default_rng((self.seed, 1, index))
        best: tuple[int, list[Song], int, np.ndarray, np.ndarray] | None = None
        planned, *reserves = self._planned[1][row]
        for place in (*[planned] * _ATTEMPTS, *reserves):
            start = int(draw.integers(place.first, place.last + 1))
            versions = [self._versions[place.song][k] for k in draw.permutation(len(self._versions[place.song]))]
            block, sounding = self._read(versions[0], start)
            if best is None or sounding.sum() > best[0]:
                best = (int(sounding.sum()), versions, start, block, sounding)
            if best[0] > 1:
                break
        assert best is not None
        count, (song, *others), start, block, sounding = best
        choice = np.flatnonzero(sounding) if count > 1 else np.arange(len(song.stems))
        anchor, positive = _choose(choice, draw)
        names = tuple(song.stems)
        sides = tuple(names[k] for k in anchor), tuple(names[k] for k in positive)
        gains = 10.0 ** (draw.uniform(-self.options.gain_db, self.options.gain_db, (len(names), 1, 1)) / 20.0)
        louder = block * gains.astype(np.float32)
        rows = [louder[anchor].sum(axis=0), louder[positive].sum(axis=0)]
        if self.options.decoy == "key":
            wrong = self._wrong(song, others, start, sides, draw)
            rows.append((wrong * gains[positive].astype(np.float32)).sum(axis=0))
        signals = at_rate(np.stack(rows), song.rate, self.options)
        return Pair(signals, song, start, *sides)

    def _wrong(
        self, song: Song, others: list[Song], start: int, sides: tuple[tuple[str, ...], ...], draw: np.random.Generator
    ) -> np.ndarray:
        """The positive's stems as they do not belong: in another key, or else at another time."""
        unpitched, key = set(song.metadata.get("unpitched", ())), song.metadata.get("transposed")
        moved = [one for one in others if one.rate == song.rate and one.metadata.get("transposed") != key]
        if moved and not any(unpitched.issuperset(side) for side in sides):
            return self._stems(moved[0], start, sides[1])
        shift = round(draw.uniform(*_DECOY_SHIFT) * song.rate)
        early, late = start - shift >= 0, start + shift <= _latest(song, self.options)
        return self._stems(song, start + (shift if late and not (early and draw.random() < 0.5) else -shift), sides[1])

    def _read(self, song: Song, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Every stem around a window, at the song's rate (stem, channel, frames), and which of them sound in it."""
        block, lead = self._stems(song, start, tuple(song.stems)), margins(song.rate, self.options)[0]
        return block, loud(block[..., lead : lead + width(song, self.options)], self.options.floor_db)

    def _stems(self, song: Song, start: int, names: tuple[str, ...]) -> np.ndarray:
        """The named stems around a window, at the song's rate (stem, channel, frames)."""
        lead, frames = margins(song.rate, self.options)
        block = song.read(start - lead, frames, names)
        return block.mean(axis=1, keepdims=True) if self.options.channels == 1 else block

    def _plan(self, batch: int) -> list[list[_Place]]:
        """For each pair of a batch the place of its window, then places in songs that the batch does not use."""
        options, draw = self.options, np.random.default_rng((self.seed, 0, batch))
        # A weighted permutation: Efraimidis and Spirakis 2006, by exponential clocks.
        order = np.argsort(draw.exponential(size=len(self.songs)) / self._weights, kind="stable").tolist()
        counts: dict[int, int] = {}
        rows: list[tuple[int, int]] = []  # (song, which of its windows)
        while len(rows) < options.batch:
            for song in order:
                count = counts.get(song, 0)
                more = min(options.per_song, int(self._rooms[song]) - count, options.batch - len(rows))
                rows.extend((song, count + number) for number in range(more))
                counts[song] = count + more
                if len(rows) == options.batch:
                    break
        places = {song: self._places(song, count, draw) for song, count in counts.items() if count}
        spare = [song for song in order if not counts.get(song)][: _RESERVES * options.batch]
        reserves = [_Place(song, 0, _latest(self.songs[song], options)) for song in spare]
        return [[places[song][number], *reserves[row :: options.batch]] for row, (song, number) in enumerate(rows)]

    def _places(self, song: int, count: int, draw: np.random.Generator) -> list[_Place]:
        """`count` ranges of a song, in random order, so that windows from two of them keep the bound wherever they lie."""
        gap, latest = _gap(self.songs[song], self.options), _latest(self.songs[song], self.options)
        slack = latest - (count - 1) * gap
        cuts = [0, *np.sort(draw.integers(0, slack + 1, count - 1)).tolist(), slack]
        places = [_Place(song, low + k * gap, high + k * gap) for k, (low, high) in enumerate(itertools.pairwise(cuts))]
        return [places[k] for k in draw.permutation(count)]


def room(song: Song, options: PairOptions) -> int:
    """How many windows of a song keep the bound on their overlap (at least 1; short songs are padded)."""
    return 1 + _latest(song, options) // _gap(song, options)


def width(song: Song, options: PairOptions) -> int:
    """Length of a window in frames of the song."""
    return math.ceil(options.frames * song.rate / options.rate)


def _gap(song: Song, options: PairOptions) -> int:
    """The least distance between two windows of a song, in its frames."""
    return max(1, math.ceil((1.0 - options.overlap) * width(song, options)))


def _latest(song: Song, options: PairOptions) -> int:
    return max(0, song.frames - width(song, options))


def _choose(stems: np.ndarray, draw: np.random.Generator) -> tuple[list[int], list[int]]:
    """Disjoint parts: the anchor has U{1..N-1} stems, the positive U{1..N-|anchor|} of the others."""
    anchor = int(draw.integers(1, len(stems)))
    positive = int(draw.integers(1, len(stems) - anchor + 1))
    shuffled = draw.permutation(stems).tolist()
    return shuffled[:anchor], shuffled[anchor : anchor + positive]
