"""SI-SDR against its definition's consequences and an independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.metrics.separation import sdr, si_sdr, si_sdr_improvement, si_sdr_zero_mean


def noise(seed: int, shape: tuple[int, ...] = (2, 400)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_known_value() -> None:
    # e = s + n with n orthogonal to s and a tenth of its energy: exactly 10 dB
    s, n = np.array([[1.0, 0.0]]), np.array([[0.0, math.sqrt(0.1)]])
    assert si_sdr(s + n, s) == pytest.approx(10.0)


@given(st.integers(0, 1000), st.floats(0.01, 100))
@settings(max_examples=15, deadline=None)
def test_scale_of_the_estimate_does_not_matter(seed: int, scale: float) -> None:
    s, e = noise(seed), noise(seed) + 0.3 * noise(seed + 1)
    assert si_sdr(scale * e, s) == pytest.approx(si_sdr(e, s), abs=1e-6)


def test_ends_of_the_range() -> None:
    s = noise(0)
    assert si_sdr(s, s) > 250
    assert si_sdr(np.zeros_like(s), s) == -math.inf
    assert math.isnan(si_sdr(s, np.zeros_like(s)))
    with pytest.raises(ValueError, match="differ in shape"):
        si_sdr(s, s[:, 1:])


def test_improvement_is_relative_to_the_mixture() -> None:
    s, other = noise(1), noise(2)
    assert si_sdr_improvement(s + other, s, s + other) == pytest.approx(0.0)
    assert si_sdr_improvement(s + 0.1 * other, s, s + other) == pytest.approx(20, abs=1.5)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_agrees_with_torchmetrics(seed: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.audio")
    s, e = noise(seed, (1, 800)) + 0.2, noise(seed, (1, 800)) + 0.5 * noise(seed + 7, (1, 800)) + 0.4
    for ours, zero_mean in ((si_sdr, False), (si_sdr_zero_mean, True)):
        theirs = functional.scale_invariant_signal_distortion_ratio(
            torch.tensor(e), torch.tensor(s), zero_mean=zero_mean
        )
        assert ours(e, s) == pytest.approx(float(theirs), abs=1e-4)


def test_a_constant_reference_is_silent_without_its_mean() -> None:
    assert math.isnan(si_sdr_zero_mean(noise(1, (2, 1000)), np.full((2, 1000), 0.1)))


def test_what_is_no_number_has_no_value() -> None:
    s, broken = noise(1), noise(1)
    broken[0, 3] = math.nan
    for e, r in ((broken, s), (s, broken)):
        assert math.isnan(si_sdr(e, r)) and math.isnan(si_sdr_zero_mean(e, r))


def test_sdr_counts_a_wrong_gain_and_knows_its_ends() -> None:
    s = noise(3)
    assert sdr(0.5 * s, s) == pytest.approx(10 * math.log10(4))
    assert sdr(np.zeros_like(s), s) == 0.0
    assert sdr(s, s) == math.inf
    assert math.isnan(sdr(s, np.zeros_like(s)))
    with pytest.raises(ValueError, match="differ in shape"):
        sdr(s, s[:, 1:])
