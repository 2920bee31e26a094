"""Rows and frames of finished songs -> figures with confidence intervals.

Every figure is written as the mean of one value a song (its influence, shifted by the figure), so that one bootstrap over
songs gives the interval of a mean over songs, of a mean over all windows and of a distance between sets, and one paired
bootstrap compares two systems:

- mean over songs: the song's own mean;
- mean over windows, M = sum / count: M + (sum_s - M count_s) / mean(count), the linearised ratio;
- distance between sets: D + the jackknife's pseudo-value of the song minus their mean (Efron and Stein 1981). A bootstrap
  would draw songs twice, and so shrink the sets that the distance depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stemwise.evaluate.measures import Frames, Row
from stemwise.evaluate.metrics import metric
from stemwise.evaluate.results import Results
from stemwise.metrics.frechet import Gaussian, frechet_distance
from stemwise.metrics.moments import Moments
from stemwise.metrics.statistics import Interval, bootstrap

ALL = "all"
_GROUPS = 40
Floats = NDArray[np.float64]
Sides = tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]
"""Embedding frames of one song, real and made; None where the song has none of the group."""


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure of one system.

    Attributes:
        metric, stem: what it is of; the stem "all" is the mean over the stems.
        influences: values whose mean is the figure: one a song, or for distances one a group of songs.
        windows: how many values (or embedding frames of the answers) it rests on.
        songs: how many songs.
        basis: how many songs its interval rests on: `songs`; for "all", those of the stem that fewest songs have, since a
            mean over stems is no surer than its parts; 1 where nothing is known about the spread.
        without: how many windows have no value, since their reference is silent (or the other system has none there).
    """

    metric: str
    stem: str
    influences: Floats
    windows: int
    songs: int
    basis: int
    without: int = 0

    def interval(self, seed: int = 0) -> Interval:
        """The figure with its 95 % interval, which means nothing where `count`, the basis, is 1."""
        return replace(bootstrap(self.influences, seed), count=self.basis)


Table = dict[tuple[str, str], Figure]
"""Figures by metric and stem."""


def figures(
    results: Results, songs: Sequence[str], metrics: Sequence[str] | None = None, beside: Results | None = None
) -> Table:
    """The figures over the named songs, in the protocol's order, "all" last; of its metrics, or only of some.

    What is compared with another system's counts only where that one (`beside`) has a value, too.
    """
    asked = results.protocol
    found: Table = {}
    chosen = [name for name in asked.metrics if metrics is None or name in metrics]
    plain = [name for name in chosen if not metric(name).embedding]
    sets = [name for name in chosen if metric(name).embedding]
    if plain:
        found |= _means(results, songs, plain, beside)
    if sets:
        frames = [results.frames(song) for song in songs]
        for name in sets:
            found |= _distances(frames, name)
    order = {name: i for i, name in enumerate(asked.metrics)}
    stems = {name: i for i, name in enumerate([*asked.stems])}
    return dict(sorted(found.items(), key=lambda item: (order[item[0][0]], stems.get(item[0][1], len(stems)))))


def _means(results: Results, songs: Sequence[str], names: Sequence[str], beside: Results | None) -> Table:
    sums: dict[tuple[str, str], Floats] = {}
    counts: dict[tuple[str, str], Floats] = {}
    without: dict[tuple[str, str], int] = {}
    for place, song in enumerate(songs):
        also = None if beside is None else {_place(row) for row in _rows(beside, song) if row.value is not None}
        for row in _rows(results, song):
            key = (row.metric, row.stem)
            total = sums.setdefault(key, np.zeros(len(songs)))
            count = counts.setdefault(key, np.zeros(len(songs)))
            without.setdefault(key, 0)
            if row.value is None or (also is not None and _place(row) not in also):
                without[key] += 1
            else:
                total[place] += row.value
                count[place] += 1
    windows = {key: int(count.sum()) for key, count in counts.items()}
    heard_in = {key: int((count > 0).sum()) for key, count in counts.items()}
    if results.protocol.pool == "songs":
        sums = {key: np.divide(sums[key], counts[key], where=counts[key] > 0, out=np.zeros(len(songs))) for key in sums}
        counts = {key: (count > 0).astype(float) for key, count in counts.items()}
    found: Table = {}
    for name in names:
        own = [key for key in sums if key[0] == name and windows[key]]
        each = {key: _ratio(sums[key], counts[key]) for key in own}
        found |= {key: Figure(*key, each[key], windows[key], heard_in[key], heard_in[key], without[key]) for key in own}
        if len(own) > 1:
            mean = np.mean(list(each.values()), axis=0)
            songs_in = int(np.any([counts[key] > 0 for key in own], axis=0).sum())
            n, lost = sum(windows[key] for key in own), sum(without[key] for key in own)
            found[name, ALL] = Figure(name, ALL, mean, n, songs_in, min(heard_in[key] for key in own), lost)
    return found


def _rows(results: Results, song: str) -> Sequence[Row]:
    kept = results.read(song)
    return kept.rows if kept is not None else ()


def _place(row: Row) -> tuple[float | str, ...]:
    """What a value is of, the same for every system."""
    return row.metric, row.stem, row.start, row.given, row.wanted


def _ratio(sums: Floats, counts: Floats) -> Floats:
    """Values a song whose mean is sum(sums) / sum(counts); where nothing was counted, that mean itself."""
    mean = sums.sum() / counts.sum()
    return np.asarray(mean + (sums - mean * counts) / counts.mean())


def _distances(frames: Sequence[Frames], name: str) -> Table:
    groups = dict.fromkeys(
        key.removeprefix(f"{name}|").rpartition("|")[0] for song in frames for key in song if key.startswith(f"{name}|")
    )
    found: Table = {}
    for group in groups:
        pairs = [(song.get(f"{name}|{group}|real"), song.get(f"{name}|{group}|made")) for song in frames]
        sizes = [0 if made is None else len(made) for _, made in pairs]
        values = _jackknife(pairs)
        if values is not None:
            heard_in = sum(size > 0 for size in sizes)
            found[name, group] = Figure(name, group, values, sum(sizes), heard_in, heard_in if _spread(sizes) else 1)
    if len(found) > 1:
        mean = np.mean([figure.influences for figure in found.values()], axis=0)
        n, songs = sum(figure.windows for figure in found.values()), max(figure.songs for figure in found.values())
        basis = min(figure.basis for figure in found.values())
        found[name, ALL] = Figure(name, ALL, np.asarray(mean), n, songs, basis)
    return found


def _spread(sizes: Sequence[int]) -> bool:
    """Whether two frames are left, whichever group of songs is left out; else there is no jackknife."""
    count = min(len(sizes), _GROUPS)
    return sum(sizes) - max(sum(sizes[group::count]) for group in range(count)) >= 2


def _jackknife(pairs: Sequence[Sides]) -> Floats | None:
    """Values whose mean is the distance: it, plus each group's pseudo-value minus the mean of these.

    Songs are left out one by one, or in 40 groups where there are more. None where a set has fewer than two frames.
    """
    count = min(len(pairs), _GROUPS)
    real, made = _Set.of([pair[0] for pair in pairs]), _Set.of([pair[1] for pair in pairs])
    whole = _distance(real, made, range(len(pairs)))
    if whole is None:
        return None
    kept = ([song for song in range(len(pairs)) if song % count != group] for group in range(count))
    known = [value for songs in kept if (value := _distance(real, made, songs)) is not None]
    if len(known) < max(count, 2):  # too few songs to leave one out
        return np.full(count, whole)
    return np.asarray(whole + (count - 1) * (np.mean(known) - np.array(known)))


def _distance(real: _Set, made: _Set, songs: Sequence[int]) -> float | None:
    one, other = real.gaussian(songs), made.gaussian(songs)
    return None if one is None or other is None else frechet_distance(one, other)


@dataclass(frozen=True, eq=False)
class _Set:
    """Embedding frames song by song, and their moments where there are many frames: then sets of songs merge quickly."""

    frames: Sequence[NDArray[np.float32] | None]
    moments: Sequence[Moments | None] | None

    @classmethod
    def of(cls, frames: Sequence[NDArray[np.float32] | None]) -> _Set:
        some = [part for part in frames if part is not None]
        many = bool(some) and sum(map(len, some)) > 4 * some[0].shape[1]
        return cls(frames, [None if part is None else Moments.of(part) for part in frames] if many else None)

    def gaussian(self, songs: Sequence[int]) -> Gaussian | None:
        """Of some songs; None where they have fewer than two frames."""
        parts = [part for song in songs if (part := self.frames[song]) is not None]
        if sum(map(len, parts)) < 2:
            return None
        if self.moments is None:
            return Gaussian.of(np.concatenate(parts))
        return Gaussian.from_moments(Moments.pooled(m for song in songs if (m := self.moments[song]) is not None))
