"""sub-FAD against recorded values of its stated definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stemwise.errors import MetricError
from stemwise.metrics.frechet import frechet_audio_distance
from stemwise.metrics.subsets import subset_distances

FIXTURES = Path(__file__).parents[1] / "fixtures" / "fad"
EXPECTED = json.loads((FIXTURES / "fad.json").read_text(encoding="utf-8"))["sub_fad"]
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return load_file(FIXTURES / "sub_fad.safetensors")


def key_of(subset: tuple[str, ...]) -> str:
    return "_".join(str(NAMES.index(name)) for name in subset)


def test_recorded_values_from_stems(tensors: dict[str, np.ndarray]) -> None:
    projection = tensors["projection"].astype(np.float64)

    def embed(mixture: np.ndarray) -> np.ndarray:
        return np.tanh(mixture.reshape(-1, EXPECTED["frame"]) @ projection)

    found = subset_distances(NAMES, zip(tensors["real"], tensors["generated"], strict=True), embed)
    assert {key_of(subset) for subset in found.subsets} == set(EXPECTED["subsets"])
    for subset, distance in found.subsets.items():
        assert distance == pytest.approx(EXPECTED["subsets"][key_of(subset)]["fad"], abs=1e-9)
    assert found.mean == pytest.approx(EXPECTED["mean"], abs=1e-9)
    assert found.all_generated == pytest.approx(EXPECTED["all_generated_fad_not_in_mean"], abs=1e-9)


def test_recorded_values_from_stored_embeddings(tensors: dict[str, np.ndarray]) -> None:
    for key, case in EXPECTED["subsets"].items():
        distance = frechet_audio_distance(tensors["embedding.reference"], tensors[f"embedding.{key}"])
        assert distance == pytest.approx(case["fad_from_stored_float32_embeddings"], abs=1e-8)


def test_real_stems_have_distance_zero() -> None:
    songs = np.random.default_rng(0).standard_normal((2, 2, 64))
    found = subset_distances(("a", "b"), zip(songs, songs, strict=True), lambda mix: mix.reshape(-1, 4))
    assert list(found.subsets) == [("a",), ("b",)]
    assert found.mean == pytest.approx(0, abs=1e-9) and found.all_generated == pytest.approx(0, abs=1e-9)


def test_bad_songs() -> None:
    with pytest.raises(MetricError, match="two stems"):
        subset_distances(("a",), [], np.atleast_2d)
    with pytest.raises(MetricError, match="song 1"):
        subset_distances(("a", "b"), [(np.zeros((2, 8)), np.zeros((2, 7)))], np.atleast_2d)
    with pytest.raises(MetricError, match="at least one file"):
        subset_distances(("a", "b"), [], np.atleast_2d)
