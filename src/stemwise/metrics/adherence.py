"""Accompaniment prompt adherence (APA): do accompaniments fit their own context better than someone else's?

Grachten and Nistal 2025, "Accompaniment Prompt Adherence" (arXiv 2503.06346). Every element is the embedding of a context
mixed with an accompaniment. Reference R: real accompaniments with their own contexts; anti-reference R': the same
contexts with accompaniments of other songs; candidate C: contexts with what a system made for them.

    APA = 1/2 + (FAD(C, R') - FAD(C, R)) / (2 FAD(R, R')), clipped to [0, 1]

1 where C is as near to R as R' is far, 1/2 where C is as near to one as to the other, 0 where it is at R'.
"""

from __future__ import annotations

import numpy as np

from stemwise.errors import MetricError
from stemwise.metrics.frechet import Gaussian, frechet_distance


def prompt_adherence(candidate: Gaussian, reference: Gaussian, anti_reference: Gaussian) -> float:
    """APA, between 0 and 1, dimensionless.

    The published values are with LAION CLAP on 5 s windows, context and accompaniment brought to one loudness before
    they are mixed; how they are mixed here is the caller's.

    Raises:
        MetricError: dimensions differ, or R and R' coincide, so that there is nothing to measure against.
    """
    span = frechet_distance(reference, anti_reference)
    if span <= 1e-12 * (reference.trace + anti_reference.trace):
        raise MetricError(
            "matched and mismatched pairs have the same statistics, so adherence is undefined; give more than one "
            "song, and a context and an accompaniment that are audible together"
        )
    nearer = frechet_distance(candidate, anti_reference) - frechet_distance(candidate, reference)
    return float(np.clip(0.5 + nearer / (2 * span), 0.0, 1.0))


def mismatched(count: int, seed: int = 0) -> list[int]:
    """For every song the index of another one whose accompaniment it gets in R': a cyclic permutation, seeded.

    Raises MetricError for fewer than two songs.
    """
    if count < 2:
        raise MetricError(f"{count} song(s) cannot be mismatched; adherence needs at least two")
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, int)
    other[order] = np.roll(order, 1)
    return other.tolist()
