"""Fréchet distance against recorded values, closed forms and its laws."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from stemwise.errors import MetricError
from stemwise.metrics.frechet import (
    Gaussian,
    _by_eigenvalues,
    _rough_distance,
    frechet_audio_distance,
    frechet_distance,
    frechet_infinity,
    frechet_interval,
    per_song,
)
from stemwise.metrics.moments import Moments

FIXTURES = Path(__file__).parents[1] / "fixtures" / "fad"
CASES = json.loads((FIXTURES / "fad.json").read_text(encoding="utf-8"))["cases"]
TOLERANCE = {"full_rank": 1e-8}

shapes = st.tuples(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40), st.integers(1, 12))


def frames_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    tensors = load_file(FIXTURES / f"{name.removesuffix('_self_x')}.safetensors")
    return tensors["x"], tensors["x" if name.endswith("_self_x") else "y"]


def random_sets(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    seed, n, m, d = shape
    random = np.random.default_rng(seed)
    mix = random.standard_normal((d, d))
    return random.standard_normal((n, d)) @ mix + 1, 2 * random.standard_normal((m, d))


@pytest.mark.parametrize("name", CASES)
def test_recorded_values_from_frames(name: str) -> None:
    x, y = frames_of(name)
    case = CASES[name]
    distance = frechet_audio_distance(x, y)
    assert distance == pytest.approx(case["fad"], abs=TOLERANCE.get(name, 1e-5))
    # the factors of the frames themselves lose nothing to a singular covariance
    assert distance == pytest.approx(case.get("fad_50_digits", case["fad"]), abs=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_recorded_values_from_statistics_gathered_in_pieces(name: str) -> None:
    x, y = (Gaussian.from_moments(Moments.pooled(map(Moments.of, np.array_split(part, 3)))) for part in frames_of(name))
    assert frechet_distance(x, y) == pytest.approx(CASES[name]["fad"], abs=TOLERANCE.get(name, 1e-5))


def test_gaussians_with_a_known_distance() -> None:
    # commuting covariances: |mu|^2 + sum (sqrt a - sqrt b)^2
    a, b, mu = np.array([4.0, 1.0, 0.0]), np.array([1.0, 9.0, 2.0]), np.array([1.0, 2.0, 2.0])
    x, y = Gaussian.from_covariance(mu, np.diag(a)), Gaussian.from_covariance(np.zeros(3), np.diag(b))
    assert frechet_distance(x, y) == pytest.approx(9 + 1 + 4 + 2, abs=1e-12)
    # one dimension: (mu_x - mu_y)^2 + (s_x - s_y)^2
    x, y = Gaussian.from_covariance([3.0], [[4.0]]), Gaussian.from_covariance([1.0], [[25.0]])
    assert frechet_distance(x, y) == pytest.approx(4 + 9, abs=1e-12)
    # not commuting, 2 x 2: tr sqrt M = sqrt(tr M + 2 sqrt det M)
    p, q = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 4.0]])
    root = np.sqrt(np.trace(p @ q) + 2 * np.sqrt(np.linalg.det(p @ q)))
    x, y = Gaussian.from_covariance([0, 0], p), Gaussian.from_covariance([0, 0], q)
    assert frechet_distance(x, y) == pytest.approx(np.trace(p) + np.trace(q) - 2 * root, abs=1e-12)


@given(shapes)
@settings(max_examples=30, deadline=None)
def test_laws_of_a_distance(shape: tuple[int, int, int, int]) -> None:
    x, y = random_sets(shape)
    scale = float(np.square(x).sum() + np.square(y).sum())
    distance = frechet_audio_distance(x, y)
    assert distance >= 0
    assert frechet_audio_distance(y, x) == pytest.approx(distance, abs=1e-12 * scale)
    assert frechet_audio_distance(x, x) == pytest.approx(0, abs=1e-12 * scale)
    assert frechet_audio_distance(3 * x, 3 * y) == pytest.approx(9 * distance, abs=1e-11 * scale)


@given(shapes)
@settings(max_examples=30, deadline=None)
def test_rotation_and_shift_of_the_space_do_not_matter(shape: tuple[int, int, int, int]) -> None:
    x, y = random_sets(shape)
    rotation = np.linalg.qr(np.random.default_rng(shape[0]).standard_normal((shape[3], shape[3])))[0]
    scale = float(np.square(x).sum() + np.square(y).sum())
    moved = frechet_audio_distance(x @ rotation + 5, y @ rotation + 5)
    assert moved == pytest.approx(frechet_audio_distance(x, y), abs=1e-12 * (scale + 1000))


@given(shapes, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_merged_statistics_are_those_of_the_union(shape: tuple[int, int, int, int], pieces: int) -> None:
    x, _ = random_sets(shape)
    x = x + 1000  # a mean far above the spread
    merged = Moments.pooled(Moments.of(part) for part in np.array_split(x, min(pieces, len(x))))
    assert merged.count == len(x)
    np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.atleast_2d(np.cov(x.T)), rtol=1e-6, atol=1e-7)


def test_frames_and_their_statistics_agree() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((300, 64)), random.standard_normal((20, 64)) + 0.1
    whole = frechet_distance(Gaussian.from_moments(Moments.of(x)), Gaussian.from_moments(Moments.of(y)))
    assert frechet_audio_distance(x, y) == pytest.approx(whole, abs=1e-9)


def test_per_song_names_the_song_that_is_too_short() -> None:
    random = np.random.default_rng(0)
    reference = Gaussian.of(random.standard_normal((200, 8)))
    songs = {"a": random.standard_normal((5, 8)), "b": random.standard_normal((30, 8)) + 3}
    distances = per_song(reference, songs)
    assert list(distances) == ["a", "b"] and 0 < distances["a"] < distances["b"]
    assert distances["a"] == frechet_distance(reference, Gaussian.of(songs["a"]))
    with pytest.raises(MetricError, match=r"^c: 1 frame"):
        per_song(reference, {**songs, "c": songs["a"][:1]})


def test_infinity_removes_the_bias_of_a_finite_sample() -> None:
    random = np.random.default_rng(2)
    # the reference is the distribution itself, so that the whole bias is the sample's
    reference = Gaussian.from_covariance(np.zeros(16), np.eye(16))
    frames = random.standard_normal((4000, 16))
    found = frechet_infinity(reference, frames, seed=1, smallest=200)
    assert found == frechet_infinity(reference, frames, seed=1, smallest=200)
    assert found.r2 > 0.95 and found.slope > 0
    assert found.sizes[0] == 200 and found.sizes[-1] == 4000 and len(found.sizes) == 25
    biased = frechet_distance(reference, Gaussian.of(frames))
    assert found.distances[-1] == pytest.approx(biased, abs=1e-9)
    assert abs(found.value) < 0.5 * biased < 0.1 * found.distances[0]


def test_infinity_of_a_constant_distance() -> None:
    frames = np.tile([[1.0, 0.0], [-1.0, 0.0]], (20, 1))
    found = frechet_infinity(Gaussian.of(frames), frames + 0.0, smallest=20, steps=3)
    assert np.isfinite([found.value, found.slope, found.r2]).all()


def test_infinity_says_what_it_lacks() -> None:
    reference = Gaussian.from_covariance(np.zeros(2), np.eye(2))
    with pytest.raises(MetricError, match="at least 1000"):
        frechet_infinity(reference, np.zeros((999, 2)))
    with pytest.raises(ValueError, match="steps"):
        frechet_infinity(reference, np.zeros((999, 2)), steps=2)


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        (np.zeros((1, 4)), "1 frame"),
        (np.zeros((0, 4)), "not empty"),
        (np.zeros(4), "shape"),
        (np.array([[0.0, np.nan], [1.0, 2.0]]), "1 of 2"),
    ],
)
def test_bad_frames(frames: np.ndarray, problem: str) -> None:
    with pytest.raises(MetricError, match=problem):
        frechet_audio_distance(frames, np.random.default_rng(0).standard_normal((10, 4)))


def test_bad_statistics() -> None:
    with pytest.raises(MetricError, match="8 dimensions"):
        frechet_distance(Gaussian.of(np.eye(8)), Gaussian.of(np.eye(4)))
    with pytest.raises(MetricError, match="belong together"):
        Gaussian.from_covariance(np.zeros(3), np.eye(2))
    with pytest.raises(MetricError, match="NaN"):
        Gaussian.from_covariance(np.zeros(2), np.full((2, 2), np.nan))
    with pytest.raises(MetricError, match="symmetric"):
        Gaussian.from_covariance(np.zeros(2), [[1.0, 2.0], [0.0, 1.0]])
    with pytest.raises(MetricError, match="negative"):
        frechet_distance(Gaussian.of(np.eye(2)), Gaussian.from_covariance(np.zeros(2), np.diag([1.0, -1.0])))
    with pytest.raises(MetricError, match="negative"):
        frechet_distance(Gaussian.from_covariance([0.0], [[-1.0]]), Gaussian.from_covariance([0.0], [[1.0]]))
    with pytest.raises(MetricError, match="at least one file"):
        Moments.pooled([])
    with pytest.raises(MetricError, match="1 frame"):
        Gaussian.from_moments(Moments.of(np.zeros((1, 3))))


def test_a_single_frame_can_be_gathered() -> None:
    x = np.random.default_rng(0).standard_normal((3, 2))
    one_by_one = Moments.pooled(Moments.of(row[None]) for row in x)
    np.testing.assert_allclose(one_by_one.covariance, np.cov(x.T))


def test_interval_over_songs() -> None:
    random = np.random.default_rng(0)
    reference = Gaussian.of(random.standard_normal((300, 6)))
    songs = [random.standard_normal((12, 6)) + 0.3 * random.standard_normal(6) for _ in range(15)]
    found = frechet_interval(reference, songs, seed=3, n=60)
    assert found == frechet_interval(reference, songs, seed=3, n=60)
    assert found.mean == pytest.approx(frechet_distance(reference, Gaussian.of(np.concatenate(songs))))
    assert 0 <= found.low < found.mean < found.high < 3 * found.mean
    assert found.count == 15
    # songs that are all alike differ in nothing that a draw could change
    same = frechet_interval(reference, [songs[0]] * 5, n=20)
    assert same.high - same.low < 0.05 * same.mean


def test_interval_of_one_song_and_of_none() -> None:
    random = np.random.default_rng(0)
    reference = Gaussian.of(random.standard_normal((30, 3)))
    found = frechet_interval(reference, [random.standard_normal((9, 3))])
    assert found.low == found.mean == found.high and found.count == 1
    with pytest.raises(MetricError, match="no songs"):
        frechet_interval(reference, [])


@given(shapes)
@settings(max_examples=20, deadline=None)
def test_quick_distances_of_draws_are_close_to_the_exact_ones(shape: tuple[int, int, int, int]) -> None:
    x, y = random_sets(shape)
    reference = Gaussian.of(x)
    exact = frechet_distance(reference, Gaussian.of(y))
    scale = float(np.square(x).sum() + np.square(y).sum())
    assert _rough_distance(reference, y.astype(float)) == pytest.approx(exact, abs=1e-6 * scale)


@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-12, 0.0])
def test_both_routes_agree(smallest: float) -> None:
    # from well to badly conditioned; rotated against each other, so that the product is nothing special
    random = np.random.default_rng(0)
    rotations = [np.linalg.qr(random.standard_normal((30, 30)))[0] for _ in range(2)]
    values = np.geomspace(1, smallest, 30) if smallest else np.r_[np.ones(20), np.zeros(10)]
    x, y = (Gaussian.from_covariance(np.zeros(30), q @ np.diag(values) @ q.T) for q in rotations)
    by_values = _by_eigenvalues(x.covariance, y.covariance)
    exact = float(np.linalg.svd(x.root @ y.root.T, compute_uv=False).sum())
    assert (by_values is None) == (smallest < 1e-6)
    if by_values is not None:
        assert by_values == pytest.approx(exact, abs=1e-10)


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = frames_of("full_rank")
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    assert frechet_audio_distance(x, y) == pytest.approx(CASES["full_rank"]["fad"], abs=1e-8)
