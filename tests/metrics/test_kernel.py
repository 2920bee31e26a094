"""Kernel distances: unbiased, and right where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from stemwise.errors import MetricError
from stemwise.metrics.kernel import cubic, gaussian, kernel_distance, median_bandwidth, squared_mmd


def sample(seed: int, n: int = 60, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3)) + shift


def test_written_out_for_two_frames_each() -> None:
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    # k(x, x') = 1, k(y, y') = 343, cross terms 1, 1, 27, 64
    assert squared_mmd(x, y) == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


@pytest.mark.parametrize("kernel", [cubic, gaussian(1.0)])
def test_unbiased_where_the_distributions_are_the_same(kernel: object) -> None:
    values = [squared_mmd(sample(i, 20), sample(1000 + i, 20), kernel) for i in range(300)]  # type: ignore[arg-type]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_gaussian_kernel_of_gaussians_has_a_closed_form() -> None:
    # N(0, 1) against N(m, 1) in d dimensions, bandwidth s: 2 c (1 - exp(-|m|² / (2 (s² + 2)))), c = (s²/(s²+2))^(d/2)
    x, y = sample(0, 1000), sample(1, 1000, 1.0)
    expected = 2 * (4 / 6) ** 1.5 * (1 - np.exp(-3 / 12))
    assert squared_mmd(x, y, gaussian(2.0)) == pytest.approx(expected, rel=0.1)


def test_against_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.image.kid")
    torch = pytest.importorskip("torch")
    x, y = sample(0, 40), sample(1, 40, 0.5)
    theirs = functional.poly_mmd(torch.from_numpy(x), torch.from_numpy(y), degree=3, gamma=None, coef=1.0)
    assert squared_mmd(x, y) == pytest.approx(float(theirs), rel=1e-9)


def test_subsets_are_seeded_and_cut_to_what_there_is() -> None:
    x, y = sample(0, 30), sample(1, 50, 1.0)
    found = kernel_distance(x, y, seed=4, subsets=10)
    assert found == kernel_distance(x, y, seed=4, subsets=10) != kernel_distance(x, y, seed=5, subsets=10)
    assert found.subset_size == 30 and found.mean > 0


def test_bandwidth() -> None:
    assert median_bandwidth([[0.0], [1.0], [3.0]]) == pytest.approx(2.0)
    with pytest.raises(MetricError, match="coincide"):
        median_bandwidth(np.zeros((5, 2)))


def test_bad_sets() -> None:
    with pytest.raises(MetricError, match="at least 2"):
        squared_mmd(sample(0, 1), sample(1))
    with pytest.raises(MetricError, match="dimensions"):
        squared_mmd(sample(0), sample(1)[:, :2])
    with pytest.raises(MetricError, match="NaN"):
        kernel_distance(sample(0), sample(1) * np.nan)
