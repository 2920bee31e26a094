"""SDR of BSS Eval version 4 against figures recorded from museval."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stemwise.errors import MetricError
from stemwise.metrics.bsseval import bss_eval_sdr

EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures" / "museval" / "sdr.json").read_text(encoding="utf-8"))


def signals() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(EXPECTED["seed"])
    references = random.standard_normal((3, 5 * 400 + 150, 2))
    estimates = references + np.array([0.1, 0.5, 2.0])[:, None, None] * random.standard_normal(references.shape)
    estimates[1] += 0.3 * references[0]
    references[2, 400:800] = 0
    estimates[0, 1200:1600] = 0
    return estimates.transpose(0, 2, 1), references.transpose(0, 2, 1)


def test_recorded_values() -> None:
    found = bss_eval_sdr(*signals(), EXPECTED["window"])
    kept = [[value for value in row if value is not None] for row in EXPECTED["sdr"]]
    assert found.windows == 5 and len(kept[0]) == 3
    np.testing.assert_allclose(found.values, kept, atol=1e-9)
    np.testing.assert_allclose(found.medians(), np.median(kept, axis=1), atol=1e-9)  # type: ignore[arg-type]


def test_a_song_shorter_than_a_window_is_one_window() -> None:
    estimates, references = signals()
    found = bss_eval_sdr(estimates[..., :300], references[..., :300], EXPECTED["window"])
    np.testing.assert_allclose(found.values, EXPECTED["sdr_of_first_300"], atol=1e-9)


def test_silence_has_no_value_and_perfection_is_infinite() -> None:
    estimates, references = signals()
    assert bss_eval_sdr(0 * estimates, references, 400).medians() == [None] * 3
    assert bss_eval_sdr(estimates, estimates, 400).medians() == [np.inf] * 3


def test_bad_shapes() -> None:
    estimates, references = signals()
    with pytest.raises(MetricError, match="stem, channel, time"):
        bss_eval_sdr(estimates, references[:2], 400)
