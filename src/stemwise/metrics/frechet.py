"""Fréchet audio distance: how far two sets of embedding frames are apart, each taken for a Gaussian.

    FAD = |mu_x - mu_y|^2 + tr C_x + tr C_y - 2 tr (C_x C_y)^(1/2)

(Dowson and Landau 1982; for audio Kilgour et al. 2019), covariances divided by n - 1. The last trace is the sum of the roots
of the eigenvalues of C_x C_y, which are those of a symmetric problem; and, with any factor R of a covariance, RᵀR = C, the
sum of the singular values of R_x R_yᵀ. The first is taken where both covariances are regular, the second keeps all digits
where one is not. So no root of a matrix product is ever taken, and fewer frames than dimensions are as good as any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from stemwise.errors import MetricError
from stemwise.metrics.moments import Floats, Moments, checked, dimensions_differ, too_few
from stemwise.metrics.statistics import Interval

#: Smallest eigenvalue, relative to the largest possible one, whose root still has an absolute error below 1e-10 of it.
_REGULAR = 1e-11


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A mean and a covariance; make one with `of`, `from_moments` or `from_covariance`.

    Attributes:
        mean: (d,).
        frames: (n, d) what it was made of, centred and divided by (n - 1)^½; None where only statistics were given.
        covariance: (d, d); None where it is of no use, n <= d.
    """

    mean: Floats
    frames: Floats | None
    covariance: Floats | None

    @classmethod
    def of(cls, frames: ArrayLike) -> Gaussian:
        """Of frames (n, d), n >= 2. Raises MetricError for a single frame, NaN or a wrong shape."""
        data = checked(frames)
        if len(data) < 2:
            raise MetricError(too_few(len(data)))
        mean = data.mean(0)
        centred = (data - mean) / np.sqrt(len(data) - 1)
        return cls(mean, centred, centred.T @ centred if len(data) > data.shape[1] else None)

    @classmethod
    def from_moments(cls, moments: Moments) -> Gaussian:
        """Of gathered statistics. Raises MetricError for fewer than two frames."""
        return cls.from_covariance(moments.mean, moments.covariance)

    @classmethod
    def from_covariance(cls, mean: ArrayLike, covariance: ArrayLike) -> Gaussian:
        """Of a mean (d,) and a covariance (d, d).

        Raises MetricError where the shapes do not fit, a value is not finite, or the matrix is not symmetric.
        """
        mu, matrix = np.atleast_1d(np.asarray(mean, np.float64)), np.atleast_2d(np.asarray(covariance, np.float64))
        if mu.ndim != 1 or matrix.shape != (len(mu), len(mu)):
            raise MetricError(f"a mean of {mu.shape} and a covariance of {matrix.shape} do not belong together")
        if not (np.isfinite(mu).all() and np.isfinite(matrix).all()):
            raise MetricError("these statistics hold NaN or infinity; compute them again from sound embeddings")
        if float((matrix - matrix.T).max()) > 1e-4 * float(np.abs(matrix.diagonal()).max()):
            raise MetricError("this matrix is not symmetric, so it is no covariance; compute the statistics again")
        return cls(mu, None, matrix)

    @property
    def trace(self) -> float:
        """Of the covariance."""
        if self.covariance is not None:
            return float(self.covariance.trace())
        assert self.frames is not None
        return float(np.sum(self.frames**2))

    @cached_property
    def root(self) -> Floats:
        """(r, d) with root.T @ root = covariance: of the frames where they are known, else of the eigenvectors.

        Eigenvalues below the rounding of the largest are taken for zero. Raises MetricError where the covariance is none,
        having clearly negative eigenvalues.
        """
        if self.frames is not None:
            return self.frames if self.covariance is None else np.asarray(np.linalg.qr(self.frames, mode="r"))
        assert self.covariance is not None
        values, vectors = np.linalg.eigh((self.covariance + self.covariance.T) / 2)
        # statistics kept in float32 have slightly negative eigenvalues; real negative ones are another matter
        if values[0] < -1e-3 * max(values[-1], 0.0):
            raise MetricError("this matrix has negative eigenvalues, so it is no covariance; compute them again")
        kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
        return np.asarray(np.sqrt(values[kept])[:, None] * vectors[:, kept].T)


@dataclass(frozen=True)
class Extrapolation:
    """FAD extrapolated to infinitely many frames: the intercept of a line through distances against 1 / n.

    Attributes:
        value: the intercept. An estimate with an error of its own: near zero it may come out slightly negative.
        slope: by how much the distance grows with 1 / n.
        r2: share of the variance that the line explains; far below 1, do not trust the value.
        sizes: the numbers of frames drawn.
        distances: the FAD at each.
    """

    value: float
    slope: float
    r2: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_distance(x: Gaussian, y: Gaussian) -> float:
    """The Fréchet distance of two Gaussians in squared embedding units, never below 0; 0 for equal ones.

    Raises MetricError where their dimensions differ.
    """
    if x.mean.shape != y.mean.shape:
        raise MetricError(dimensions_differ(len(x.mean), len(y.mean)))
    overlap = _by_eigenvalues(x.covariance, y.covariance)
    if overlap is None:
        overlap = float(np.linalg.svd(x.root @ y.root.T, compute_uv=False).sum())
    return max(0.0, float(np.sum((x.mean - y.mean) ** 2)) + x.trace + y.trace - 2 * overlap)


def frechet_audio_distance(reference: ArrayLike, generated: ArrayLike) -> float:
    """`frechet_distance` of two sets of embedding frames (n, d) and (m, d), n and m at least 2. Raises MetricError."""
    return frechet_distance(Gaussian.of(reference), Gaussian.of(generated))


def per_song(reference: Gaussian, songs: Mapping[str, ArrayLike]) -> dict[str, float]:
    """The distance of every song's own frames (n, d) from the reference (Gui et al. 2024).

    A song has few frames, so its covariance is singular and the figure is large: compare songs of one length only.
    Raises MetricError that names the song, where it has a single frame or other dimensions.
    """
    distances = {}
    for name, frames in songs.items():
        try:
            distances[name] = frechet_distance(reference, Gaussian.of(frames))
        except MetricError as error:
            raise MetricError(f"{name}: {error}") from error
    return distances


def frechet_infinity(
    reference: Gaussian, frames: ArrayLike, *, seed: int = 0, steps: int = 25, smallest: int = 500
) -> Extrapolation:
    """FAD without the bias of a finite sample (Chong and Forsyth 2020; for music Gui et al. 2024).

    At `steps` sizes, evenly spaced from `smallest` to all frames, that many are drawn without replacement and their
    distance from the reference is taken; the reference stays whole. The line is fitted by least squares against
    1 / n. That the bias is linear in 1 / n holds for sizes well above the number of dimensions.

    Args:
        reference: the Gaussian of the reference frames.
        frames: generated, (n, d), n at least 2 * smallest.
        seed: of the draws.
        steps: how many sizes, at least 3.
        smallest: the smallest size, at least 2.

    Raises:
        MetricError: fewer than 2 * smallest frames.
        ValueError: steps or smallest too small.
    """
    if steps < 3 or smallest < 2:
        raise ValueError(f"steps {steps} must be at least 3 and smallest {smallest} at least 2")
    data = checked(frames)
    if len(data) < 2 * smallest:
        raise MetricError(
            f"{len(data)} frames are too few to extrapolate from sizes of {smallest} and up; at least {2 * smallest} "
            "are needed. Give more audio, or another smallest size (--smallest)"
        )
    random = np.random.default_rng(seed)
    sizes = [round(size) for size in np.linspace(smallest, len(data), steps)]
    distances = [frechet_distance(reference, Gaussian.of(data[random.permutation(len(data))[:size]])) for size in sizes]
    inverse = 1 / np.array(sizes)
    slope, intercept = np.polyfit(inverse, distances, 1)
    spread = float(np.sum((np.array(distances) - np.mean(distances)) ** 2))
    missed = float(np.sum((np.array(distances) - intercept - slope * inverse) ** 2))
    r2 = 1 - missed / spread if spread > 0 else 1.0
    return Extrapolation(float(intercept), float(slope), r2, tuple(sizes), tuple(distances))


def frechet_interval(
    reference: Gaussian, songs: Sequence[ArrayLike], *, seed: int = 0, n: int = 100, level: float = 0.95
) -> Interval:
    """The distance of all songs' frames together from the reference, with a bootstrap interval over songs.

    Songs are drawn with replacement. Drawn sets repeat frames, so their distances lie too high as a whole; the interval is
    therefore that of their deviations from their own mean, around the distance itself, and cut off at 0.

    Args:
        reference: fixed.
        songs: frames (n_i, d) of each, all together two at least.
        seed: of the draws.
        n: draws.
        level: share of the deviations inside the interval.

    Raises:
        MetricError: no song, frames that do not fit, or too few of them.
    """
    frames = [checked(song) for song in songs]
    if not frames:
        raise MetricError("no songs; a distance needs at least one with at least two frames")
    value = frechet_distance(reference, Gaussian.of(np.concatenate(frames)))
    random = np.random.default_rng(seed)
    draws = [
        _rough_distance(reference, np.concatenate([frames[i] for i in random.integers(0, len(frames), len(frames))]))
        for _ in range(n if len(frames) > 1 else 0)
    ]
    if not draws:
        return Interval(value, value, value, len(frames), level)
    low, high = np.quantile(draws, ((1 - level) / 2, (1 + level) / 2)) - np.mean(draws)
    return Interval(value, max(0.0, value + min(0.0, float(low))), value + max(0.0, float(high)), len(frames), level)


def _by_eigenvalues(a: Floats | None, b: Floats | None) -> float | None:
    """tr (a b)^½ by the eigenvalues of the symmetric problem a b v = λ v; None where that is not exact enough.

    It is several times faster than a factorisation of both and a singular value decomposition.
    """
    if a is None or b is None:
        return None
    try:
        from scipy.linalg import eigh
    except ModuleNotFoundError:  # the other way needs numpy alone
        return None
    try:
        values = eigh(a, b, type=2, eigvals_only=True, check_finite=False, driver="gv")
    except np.linalg.LinAlgError:  # b is singular
        return None
    largest = float(a.diagonal().max() * b.diagonal().max())
    return float(np.sqrt(values).sum()) if values[0] > _REGULAR * largest else None


def _rough_distance(reference: Gaussian, frames: Floats) -> float:
    """The distance to about 1e-6, several times faster than exactly: enough for a spread."""
    mean = frames.mean(0)
    centred = (frames - mean) / np.sqrt(max(1, len(frames) - 1))
    seen = centred @ reference.root.T
    gram = seen.T @ seen if len(seen) > seen.shape[1] else seen @ seen.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum()
    shift = np.sum((reference.mean - mean) ** 2)
    return float(shift + reference.trace + np.sum(centred**2) - 2 * overlap)
