"""MSDM's evaluation protocol against values recorded from its code."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stemwise.errors import MetricError
from stemwise.metrics import msdm

FIXTURES = Path(__file__).parents[1] / "fixtures" / "msdm"
EXPECTED = json.loads((FIXTURES / "sisdr.json").read_text(encoding="utf-8"))
STEMS = EXPECTED["stems"]


def signal(salt: str, samples: int, scale: float) -> np.ndarray:
    """The recipe by which the recorded signals were made."""
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(f"signal|{salt}".encode())))
    return (scale * random.standard_normal((1, samples))).astype(np.float32)[0]


def short_tracks() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    tensors = load_file(FIXTURES / "sisdr.safetensors")
    return {name: (tensors[f"{name}.estimate"], tensors[f"{name}.reference"]) for name in EXPECTED["short"]["tracks"]}


def default_track() -> tuple[np.ndarray, np.ndarray]:
    case, salt = EXPECTED["default_windows"], EXPECTED["salt"]
    references, estimates = [], []
    for k, stem in enumerate(STEMS):
        gain = np.zeros(case["samples"], np.float32)
        for first, end, value in case["spans"][stem]:
            gain[first:end] = value
        references.append(signal(f"{salt}/sisdr_long/ref{k}", case["samples"], 1.0) * gain)
        estimates.append(references[-1] + signal(f"{salt}/sisdr_long/err{k}", case["samples"], 0.01 * (k + 1)))
    return np.stack(estimates), np.stack(references)


def check(found: list[msdm.ScoredWindow], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for window, record in zip(found, expected, strict=True):
        assert (window.start, window.end) == (record["start"], record["end"])
        assert window.active.tolist() == record["active"]
        assert (window.improvement is not None) == record["kept"]
        if window.improvement is not None:
            np.testing.assert_allclose(window.improvement, record["improvement"], rtol=0, atol=1e-6)
            np.testing.assert_allclose(window.improvement, record["improvement_reference_float32"], rtol=0, atol=2e-3)


def test_short_windows_and_means() -> None:
    case = EXPECTED["short"]
    windows = []
    for name, (estimate, reference) in short_tracks().items():
        found = msdm.score_song(estimate, reference, case["window_samples"], case["hop_samples"])
        check(found, case["windows"][name])
        windows += found
    means = msdm.means(windows)
    assert means is not None
    np.testing.assert_allclose(means, [case["mean_float64"][stem] for stem in STEMS], rtol=0, atol=1e-6)
    assert means.mean() == pytest.approx(case["mean_float64"]["all"], abs=1e-6)
    active = [case["active_only_mean_float64"][stem]["mean"] for stem in STEMS]
    np.testing.assert_allclose(np.array(msdm.active_means(windows), float), active, rtol=0, atol=1e-6)


def test_default_windows_and_means() -> None:
    case = EXPECTED["default_windows"]
    assert (case["window_samples"], case["hop_samples"]) == (msdm.WINDOW, msdm.HOP)
    found = msdm.score_song(*default_track())
    check(found, case["windows"]["track"])
    np.testing.assert_allclose(msdm.means(found), [case["mean_float64"][s] for s in STEMS], rtol=0, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", EXPECTED["edge_cases"], ids=lambda case: case["case"])
def test_edges(case: dict) -> None:
    single = signal(f"{EXPECTED['salt']}/sisdr/edge", 2000, 0.1)
    s, scaled = single.astype(np.float64), (3 * single).astype(np.float64)  # the recorded signals are float32
    zero = np.zeros_like(s)
    pairs = {
        "perfect estimate": (s, s),
        "estimate scaled by 3": (scaled, s),
        "sign flipped": (-s, s),
        "silent target and silent estimate": (zero, zero),
        "silent target, estimate rms 0.001": (0.01 * s, zero),
        "silent estimate": (zero, s),
    }
    assert float(msdm.si_sdr(*pairs[case["case"]])) == pytest.approx(case["float64"], abs=1e-6)


def test_silence_depends_on_the_length() -> None:
    for example in EXPECTED["silence_examples"]:
        constant = np.full(example["samples"], example["rms"])
        assert bool(msdm.is_active(constant)) != example["silent"]


def test_counts_of_windows_and_chunks() -> None:
    for example in EXPECTED["window_counts"]:
        assert len(msdm.starts(example["samples"])) == example["windows"]
    for example in EXPECTED["separation_chunks"]["examples"]:
        assert [list(span) for span in msdm.chunks(example["samples"])] == example["chunks"]


def test_nothing_kept_has_no_mean() -> None:
    silent = msdm.score_song(np.zeros((2, 100_000)), np.zeros((2, 100_000)))
    assert msdm.means(silent) is None and msdm.active_means(silent) == []
    with pytest.raises(MetricError, match="at least as long"):
        msdm.score_song(np.zeros((2, 9)), np.zeros((2, 8)))
