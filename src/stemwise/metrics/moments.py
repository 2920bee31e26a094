"""Mean and covariance of embedding frames, in float64, gathered in pieces that merge exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stemwise.errors import MetricError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and scatter of frames: what two sets need for their union to be described.

    Merging is by Chan, Golub and LeVeque (1979), so it neither loses digits to a large mean nor depends on the pieces.

    Attributes:
        count: number of frames n.
        mean: (d,).
        scatter: (d, d), the sum over frames of the outer products of (frame - mean).
    """

    count: int
    mean: Floats
    scatter: Floats

    @classmethod
    def of(cls, frames: ArrayLike) -> Moments:
        """The moments of frames (n, d), n >= 1. Raises MetricError where they are empty or hold NaN or infinity."""
        data = checked(frames)
        mean = data.mean(0)
        centred = data - mean
        return cls(len(data), mean, centred.T @ centred)

    @classmethod
    def pooled(cls, parts: Iterable[Moments]) -> Moments:
        """The moments of all parts together. Raises MetricError where there is none."""
        found = list(parts)
        if not found:
            raise MetricError("no frames at all; statistics need at least one file with at least one frame")
        return reduce(cls.merge, found)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of frames together. Raises MetricError where their dimensions differ."""
        if self.mean.shape != other.mean.shape:
            raise MetricError(dimensions_differ(len(self.mean), len(other.mean)))
        count = self.count + other.count
        delta = other.mean - self.mean
        share = other.count / count
        scatter = self.scatter + other.scatter + np.outer(delta, delta) * (self.count * share)
        return Moments(count, self.mean + delta * share, scatter)

    @property
    def covariance(self) -> Floats:
        """(d, d), divided by n - 1. Raises MetricError for fewer than two frames."""
        if self.count < 2:
            raise MetricError(too_few(self.count))
        return self.scatter / (self.count - 1)


def checked(frames: ArrayLike) -> Floats:
    """Frames (n, d) as float64. Raises MetricError for another shape, no frame, or values that are not finite."""
    data = np.asarray(frames, np.float64)
    if data.ndim != 2 or not data.size:
        raise MetricError(f"embedding frames must have the shape (frames, dimensions), not empty; found {data.shape}")
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).any(1).sum())
        raise MetricError(f"{bad} of {len(data)} embedding frames hold NaN or infinity; look at the audio they are of")
    return data


def too_few(count: int) -> str:
    """The message for a set without a covariance."""
    return (
        f"{count} frame(s) of embedding have no covariance; at least 2 are needed. Give longer or more audio, or an "
        "embedding with shorter frames (vggish: 0.96 s, encodec-emb: 1/75 s)"
    )


def dimensions_differ(first: int, second: int) -> str:
    """The message for two sets that were not made by the same embedding."""
    return f"one side has embeddings of {first} dimensions and the other of {second}; use one embedding for both"
