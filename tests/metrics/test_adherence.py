"""Accompaniment prompt adherence: its anchors, its range and its scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.errors import MetricError
from stemwise.metrics.adherence import mismatched, prompt_adherence
from stemwise.metrics.frechet import Gaussian


def at(mean: float) -> Gaussian:
    return Gaussian.from_covariance([mean, 0.0], np.eye(2))


def test_anchors() -> None:
    own, others = at(0.0), at(2.0)
    assert prompt_adherence(own, own, others) == pytest.approx(1.0)
    assert prompt_adherence(others, own, others) == pytest.approx(0.0)
    assert prompt_adherence(at(1.0), own, others) == pytest.approx(0.5)
    # distances are squares: 1.5² and 0.5² against 2²
    assert prompt_adherence(at(0.5), own, others) == pytest.approx(0.5 + (2.25 - 0.25) / 8)


@given(st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_range(mean: float) -> None:
    assert 0 <= prompt_adherence(at(mean), at(0.0), at(2.0)) <= 1


def test_nothing_to_measure_against() -> None:
    with pytest.raises(MetricError, match="undefined"):
        prompt_adherence(at(1.0), at(0.0), at(0.0))


@given(st.integers(2, 30), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_every_song_gets_another_ones_accompaniment_and_each_is_used_once(count: int, seed: int) -> None:
    other = mismatched(count, seed)
    assert sorted(other) == list(range(count))
    assert all(i != j for i, j in enumerate(other))
    assert other == mismatched(count, seed)


def test_one_song_cannot_be_mismatched() -> None:
    with pytest.raises(MetricError, match="at least two"):
        mismatched(1)
