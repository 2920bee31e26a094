"""Kernel distances (maximum mean discrepancy): unbiased at any sample size, and no Gaussian is assumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stemwise.errors import MetricError
from stemwise.metrics.moments import Floats, checked, dimensions_differ

#: From (n, d) and (m, d) to (n, m).
Kernel = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True)
class KernelDistance:
    """Mean of the squared MMD over random subsets of frames, and its standard deviation over them."""

    mean: float
    deviation: float
    subsets: int
    subset_size: int


def cubic(x: Floats, y: Floats) -> Floats:
    """(x·y / d + 1)³, the kernel of the kernel (Inception) distance (Bińkowski et al. 2018)."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def gaussian(bandwidth: float) -> Kernel:
    """exp(-|x - y|² / (2 bandwidth²)), the bandwidth in embedding units."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth {bandwidth} must be positive")

    def kernel(x: Floats, y: Floats) -> Floats:
        return np.asarray(np.exp(-_squared_distances(x, y) / (2 * bandwidth**2)))

    return kernel


def median_bandwidth(frames: ArrayLike) -> float:
    """The median distance between two different frames of the reference, the usual bandwidth (KAD, Chung et al. 2025).

    Raises MetricError for fewer than two frames, or where most of them coincide.
    """
    data = checked(frames)
    if len(data) < 2:
        raise MetricError("1 frame has no distances; a bandwidth needs at least 2")
    squares = _squared_distances(data, data)[np.triu_indices(len(data), 1)]
    median = float(np.sqrt(np.median(squares)))
    if median == 0:
        raise MetricError("most reference frames coincide (silence?), so their median distance is 0; give other audio")
    return median


def squared_mmd(x: ArrayLike, y: ArrayLike, kernel: Kernel = cubic) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, equation 3).

    Being unbiased it is negative about half the time where the distributions are the same.

    Args:
        x: frames (n, d), n >= 2.
        y: frames (m, d), m >= 2.
        kernel: `cubic`, or `gaussian(median_bandwidth(reference))`.

    Raises:
        MetricError: fewer than two frames on a side, dimensions that differ, or NaN.
    """
    a, b = _both(x, y)
    n, m = len(a), len(b)
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(a, a), kernel(b, b))]
    return float(sum(within) - 2 * kernel(a, b).sum() / (n * m))


def kernel_distance(
    x: ArrayLike, y: ArrayLike, kernel: Kernel = cubic, *, seed: int = 0, subsets: int = 100, subset_size: int = 1000
) -> KernelDistance:
    """`squared_mmd` averaged over seeded random subsets of both sides, without replacement (Bińkowski et al. 2018).

    `subset_size` is cut to the smaller side, so that a figure of small sets is still one. Raises MetricError.
    """
    a, b = _both(x, y)
    size = min(subset_size, len(a), len(b))
    random = np.random.default_rng(seed)
    draws = [(random.choice(len(a), size, False), random.choice(len(b), size, False)) for _ in range(subsets)]
    values = [squared_mmd(a[i], b[j], kernel) for i, j in draws]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def _both(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    a, b = checked(x), checked(y)
    if a.shape[1] != b.shape[1]:
        raise MetricError(dimensions_differ(a.shape[1], b.shape[1]))
    if min(len(a), len(b)) < 2:
        raise MetricError(f"{len(a)} and {len(b)} frames; a kernel distance needs at least 2 on both sides")
    return a, b


def _squared_distances(x: Floats, y: Floats) -> Floats:
    squares = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1) - 2 * x @ y.T
    return np.asarray(np.maximum(squares, 0))
