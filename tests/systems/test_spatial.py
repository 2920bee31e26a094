"""The spatial filter: what sits elsewhere is told apart, what does not stays a mask, and the parts sum to the mixture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stemwise.metrics.separation import si_sdr
from stemwise.systems.spatial import filtered


def panned(angles: list[float], frames: int = 40, bins: int = 48) -> Tensor:
    """Complex noise (1, stem, 2, frame, bin) of powers that change in time and frequency, each stem at its own angle."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(len(angles), frames, bins, dtype=torch.complex64, generator=generator)
    source = source * torch.rand(len(angles), frames, bins, generator=generator).add(0.02)
    gains = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
    return (gains[:, :, None, None] * source[:, None])[None]


def quality(estimate: Tensor, truth: Tensor) -> float:
    """Mean SI-SDR over stems."""
    rows = zip(torch.view_as_real(estimate[0]).flatten(1), torch.view_as_real(truth[0].contiguous()).flatten(1))
    return sum(float(si_sdr(one[None], other[None])) for one, other in rows) / len(truth[0])


def test_stems_that_leak_into_each_other_are_told_apart_by_where_they_are() -> None:
    truth = panned([0.2, 1.3])
    mix = truth.sum(1)
    confused = 0.7 * truth + 0.3 * truth.flip(1)
    assert quality(filtered(confused, mix), truth) > quality(confused, truth) + 6


def test_in_one_place_it_is_a_mask_of_the_mixture() -> None:
    """The same real gain on both channels: nothing is moved, nothing turned."""
    truth = panned([0.7, 0.7, 0.7])
    mix = truth.sum(1)
    mask = filtered(truth, mix) / mix[:, None]
    assert mask.imag.abs().amax() < 1e-2
    torch.testing.assert_close(mask[:, :, 0].real, mask[:, :, 1].real, atol=1e-2, rtol=0)


@pytest.mark.parametrize("angles", [[0.2, 1.3, 0.7], [0.7, 0.7, 0.7]])
def test_they_sum_to_the_mixture(angles: list[float]) -> None:
    truth = panned(angles)
    mix = truth.sum(1)
    assert (filtered(truth, mix).sum(1) - mix).abs().square().mean() < 1e-4 * mix.abs().square().mean()


def test_silence_and_silent_stems_stay_silent() -> None:
    truth = panned([0.2, 1.3])
    truth[:, 1] = 0
    assert not filtered(truth, truth.sum(1))[:, 1].abs().amax() > 1e-3 * truth.abs().amax()
    assert not filtered(0 * truth, 0 * truth.sum(1)).abs().amax() > 0
