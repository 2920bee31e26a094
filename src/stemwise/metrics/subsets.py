"""sub-FAD: how far songs with some generated stems are from the real songs, over all subsets of stems.

The idea is SingSong's and MSDM's (Donahue et al. 2023, Mariani et al. 2024): mix the generated stems with the real rest and
take the FAD to the real mixtures. No protocol was published to the letter; this is the definition used here:

    for every non-empty proper subset of the stems: generated stems of the subset + real stems of the rest, summed in
    float64, embedded; FAD to the embedded sums of all real stems. sub-FAD is the plain mean over these subsets. All
    stems generated is FAD proper; it is given apart and is no part of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stemwise.errors import MetricError
from stemwise.metrics.frechet import Gaussian, frechet_distance
from stemwise.metrics.moments import Moments

Embed = Callable[[NDArray[np.float64]], ArrayLike]


@dataclass(frozen=True)
class SubsetDistances:
    """FAD by the set of generated stems.

    Attributes:
        subsets: the distance for every non-empty proper subset, smaller subsets first, in the order of the stems.
        mean: sub-FAD, the plain mean of `subsets`.
        all_generated: the distance with every stem generated; not in the mean.
    """

    subsets: Mapping[tuple[str, ...], float]
    mean: float
    all_generated: float


def subset_distances(
    names: Sequence[str], songs: Iterable[tuple[ArrayLike, ArrayLike]], embed: Embed
) -> SubsetDistances:
    """sub-FAD of songs, one after the other; only statistics are kept.

    Args:
        names: of the stems, at least two.
        songs: pairs (real, generated), each (stem, ..., time) in the order of `names`, of one shape within a pair.
        embed: from a mixture (..., time) in float64 to frames (n, d); the frames of all songs are pooled.

    Raises:
        MetricError: fewer than two stems, a pair whose shapes differ, no song, or too few frames.
    """
    if len(names) < 2:
        raise MetricError(f"sub-FAD needs at least two stems; found {', '.join(names) or 'none'}")
    every = [subset for size in range(1, len(names) + 1) for subset in combinations(range(len(names)), size)]
    reference: list[Moments] = []
    gathered: dict[tuple[int, ...], Moments] = {}
    for index, (real, generated) in enumerate(songs):
        r, g = np.asarray(real, np.float64), np.asarray(generated, np.float64)
        if r.shape != g.shape or len(r) != len(names):
            raise MetricError(
                f"song {index + 1}: real stems {r.shape} and generated stems {g.shape}; both must be "
                f"({len(names)}, ..., time) for {', '.join(names)}"
            )
        reference = [Moments.pooled([*reference, Moments.of(embed(r.sum(0)))])]
        for subset in every:
            chosen = np.isin(np.arange(len(names)), subset)
            moments = Moments.of(embed(g[chosen].sum(0) + r[~chosen].sum(0)))
            gathered[subset] = gathered[subset].merge(moments) if subset in gathered else moments
    real_gaussian = Gaussian.from_moments(Moments.pooled(reference))
    distances = {
        tuple(names[i] for i in subset): frechet_distance(real_gaussian, Gaussian.from_moments(moments))
        for subset, moments in gathered.items()
    }
    all_generated = distances.pop(tuple(names))
    return SubsetDistances(distances, float(np.mean(list(distances.values()))), all_generated)
