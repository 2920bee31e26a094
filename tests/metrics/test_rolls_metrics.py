"""Figures of rolls: the recorded published ones, and that the labels' figures cannot be had for nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from published_mixture2music import facts, tensors
from stemwise.errors import MetricError
from stemwise.metrics.rolls import consistency, diversity, label_accuracy, label_f1, label_f1_by_stem


def recorded() -> dict[str, Tensor]:
    found = {name: tensor.permute(0, 3, 1, 2) for name, tensor in tensors("metrics").items()}
    truth, mixture = found["truth"], found["mixture"]
    return {
        **found,
        "prediction.truth": truth,
        "prediction.nothing": torch.zeros_like(truth),
        "prediction.mixture_in_all": mixture.expand_as(truth),
    }


@pytest.mark.parametrize("name", sorted(facts("metrics")["all_segments"]))
def test_recorded_figures(name: str) -> None:
    found = recorded()
    truth, made, mixture = found["truth"], found[f"prediction.{name}"], found["mixture"][:, 0]
    for which, segments in (("all_segments", slice(None)), ("first_segment_only", slice(1))):
        expected = facts("metrics")[which][name]
        assert consistency(made[segments], mixture[segments]) == pytest.approx(expected["consistency"], abs=1e-9)
        assert diversity(truth[segments], made[segments], mixture[segments]) == pytest.approx(
            expected["diversity"], abs=1e-9
        )


def test_labels_tell_the_truth_from_what_games_the_published_figures() -> None:
    found = recorded()
    truth, mixture = found["truth"], found["mixture"][:, 0]

    def figures(name: str) -> tuple[float, float]:
        made = found[f"prediction.{name}"]
        return label_accuracy(truth, made, mixture), label_f1(truth, made, mixture)

    assert figures("truth") == (1.0, 1.0)
    assert figures("nothing") == (0.0, 0.0)
    assert consistency(found["prediction.mixture_in_all"], mixture) == 0.0
    assert figures("mixture_in_all")[0] < 0.01
    assert figures("one_random_label")[0] < figures("noisy_then_masked")[0] < 1.0


def test_one_cell_by_hand() -> None:
    truth = torch.zeros(1, 2, 1, 3, dtype=torch.bool)
    truth[0, 0, 0, 0] = truth[0, :, 0, 1] = True
    made = torch.zeros_like(truth)
    made[0, 0, 0] = True  # also where nothing sounds, which no label counts
    mixture = truth.any(1)
    assert label_accuracy(truth, made, mixture) == 0.5
    assert label_f1(truth, made, mixture) == pytest.approx(2 * 2 / 5)
    assert label_f1_by_stem(truth, made, mixture, ("a", "b")) == {"a": 1.0, "b": 0.0}


def test_shapes_and_silence_are_refused() -> None:
    rolls = torch.zeros(1, 2, 4, 3, dtype=torch.bool)
    with pytest.raises(MetricError, match="mixtures the same without the stem"):
        consistency(rolls, rolls)
    with pytest.raises(MetricError, match="rolls are bool"):
        diversity(rolls.float(), rolls.float(), rolls[:, 0])
    with pytest.raises(MetricError, match="silent"):
        label_accuracy(rolls, rolls, rolls[:, 0])
