"""How sure a mean is: seeded bootstrap intervals over songs, and the paired comparison of two systems."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Resamples drawn at once: bounds the memory of a bootstrap over many values.
_BLOCK = 1 << 22
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with the percentile interval of its bootstrap distribution, in the unit of the values.

    Attributes:
        mean: of all values.
        low: lower end; means nothing where `count` is 1: one value says nothing about spread.
        high: upper end.
        count: how many values the mean is over, without those that were filled in.
        level: the share of the bootstrap distribution within the interval.
    """

    mean: float
    low: float
    high: float
    count: int
    level: float = 0.95

    def __str__(self) -> str:
        """ "12.34 [11.90, 12.81]"."""
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same songs.

    Attributes:
        difference: of a minus b, mean over songs, with its interval.
        p_value: two-sided, from the bootstrap: twice the smaller share of resampled means on one side of zero, at
            least 2 / (resamples + 1), and at least 2^(1 - songs): the least that signs of so few differences can say.
        wins: the share of songs on which a is above b; ties count one half.
    """

    difference: Interval
    p_value: float
    wins: float

    @property
    def sure(self) -> bool:
        """Whether one is better: the interval is on one side of zero, and p below 0.05 (which takes six songs)."""
        return not self.difference.low <= 0 <= self.difference.high and self.p_value < 0.05


def bootstrap(values: ArrayLike, seed: int = 0, n: int = 10_000, level: float = 0.95) -> Interval:
    """The mean over songs and its percentile bootstrap interval (Efron 1979), songs drawn with replacement.

    The same values, seed and n give the same interval.

    Args:
        values: (song,), finite; one figure a song. Average the windows of a song first: they are not independent.
        seed: of the draws.
        n: resamples.
        level: share of the bootstrap distribution inside the interval.

    Raises:
        ValueError: no value, a value that is not finite, n < 1, or a level outside (0, 1).
    """
    return _interval(_checked(values), seed, n, level)[0]


def paired(
    a: ArrayLike, b: ArrayLike, seed: int = 0, n: int = 10_000, level: float = 0.95, songs: int | None = None
) -> Comparison:
    """System a against system b on the same songs: the bootstrap of the differences, song by song.

    Args:
        a: (song,), finite.
        b: (song,), the same songs in the same order.
        seed: of the draws.
        n: resamples.
        level: share of the bootstrap distribution inside the interval.
        songs: how many of them count, where others have no value and the mean was filled in for them.

    Raises:
        ValueError: different numbers of songs, or as `bootstrap`.
    """
    first, second = _checked(a), _checked(b)
    if first.shape != second.shape:
        raise ValueError(f"a has {len(first)} songs and b {len(second)}; a paired comparison needs the same songs")
    differences = first - second
    interval, means = _interval(differences, seed, n, level)
    counted = len(differences) if songs is None else songs
    tail = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    wins = float(np.mean((differences > 0) + 0.5 * (differences == 0)))
    p_value = min(1.0, max(2 * (tail + 1) / (n + 1), 2.0 ** (1 - counted)))
    return Comparison(replace(interval, count=counted), p_value, wins)


def _interval(data: Floats, seed: int, n: int, level: float) -> tuple[Interval, Floats]:
    """The percentile interval, and the means of the resamples."""
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n = {n} must be at least 1, and level = {level} between 0 and 1")
    means = _resampled_means(data, seed, n)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    mean = float(data.mean())
    # the percentile interval of few, equal values may miss their mean by rounding
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(data), level), means


def _checked(values: ArrayLike) -> Floats:
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or not len(data):
        raise ValueError(f"a mean needs values of shape (song,) and at least one; found {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"{int(np.sum(~np.isfinite(data)))} of {len(data)} values are not finite; leave those out")
    return data


def _resampled_means(data: Floats, seed: int, n: int) -> Floats:
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(data))
    blocks = [
        data[random.integers(0, len(data), (min(rows, n - start), len(data)))].mean(1) for start in range(0, n, rows)
    ]
    return np.concatenate(blocks)
