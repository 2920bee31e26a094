"""Priors and projections that know the mean spectra of their stems, against the Wiener filter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.checkpoint import build
from stemwise.diffusion import SpectralEdm, euler, karras, last, sample, seeded
from stemwise.errors import ModelError
from stemwise.nets.unet1d import UNet1dConfig
from stemwise.systems.joint import Joint, likelihood_of
from stemwise.systems.likelihoods import Projection, SpectralProjection, gaussian_variance
from stemwise.systems.msdm import Msdm, MsdmConfig, Separation
from stemwise.systems.spectra import KNOTS, measured, powers, unmixed

RATE, FRAMES = 8000, 4096
LOW = tuple(0.2 if knot < 200 else 0.01 for knot in KNOTS)
WIDE = tuple(0.1 for knot in KNOTS)
NET = UNet1dConfig(2, 8, 2, (1, 1, 2), (2, 2), (1, 1), (False, True), 2, 4, 1, 4)
HIGH = tuple(0.01 if knot < 200 else 0.1 for knot in KNOTS)


def noise(spectra: tuple[tuple[float, ...], ...], count: int = 4, seed: int = 0) -> Tensor:
    """Stationary stems (count, stem, frames) with these spectra."""
    white = seeded(seed)((count, len(spectra), FRAMES))
    return torch.fft.irfft(torch.fft.rfft(white) * powers(spectra, RATE)(FRAMES).sqrt(), n=FRAMES)


def test_densities_are_worked_out_once() -> None:
    assert powers((LOW, HIGH), RATE)(FRAMES).data_ptr() == powers((LOW, HIGH), RATE)(FRAMES).data_ptr()


def silent(x: Tensor, label: Tensor) -> Tensor:
    return torch.zeros_like(x)


def wiener(mix: Tensor) -> Tensor:
    power = powers((LOW, HIGH), RATE)(FRAMES)
    return torch.fft.irfft(torch.fft.rfft(mix)[:, None] * (power / power.sum(0)), n=FRAMES)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_a_silent_network_leaves_the_wiener_filter_and_a_loss_of_one(sigma: float) -> None:
    clean, level = noise((LOW, HIGH), 64), torch.full((64,), sigma)
    edm = SpectralEdm(silent, powers((LOW, HIGH), RATE)(FRAMES))
    estimate = edm(clean + sigma * seeded(1)(tuple(clean.shape)), level)
    loss = (edm.weight(level)[..., None] * (estimate - clean) ** 2).mean((0, 2))
    torch.testing.assert_close(loss, torch.ones(2), atol=0.03, rtol=0)


def test_a_network_that_knows_the_noise_gives_the_signal() -> None:
    """The ideal output of the network, by the two equations of the preconditioning, is white and of unit variance."""
    clean, drawn, sigma = noise((LOW, HIGH)), seeded(1)((4, 2, FRAMES)), 0.1
    power = powers((LOW, HIGH), RATE)(FRAMES)
    x = clean + sigma * drawn
    skip, out = power / (power + sigma**2), sigma * (power / (power + sigma**2)).sqrt()
    wanted = torch.fft.irfft((torch.fft.rfft(clean) - skip * torch.fft.rfft(x)) / out, n=FRAMES)
    assert float(wanted.std()) == pytest.approx(1.0, abs=0.02)
    made = SpectralEdm(lambda z, label: wanted, power)(x, torch.full((4,), sigma))
    torch.testing.assert_close(made, clean, atol=1e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(level=st.floats(0.01, 1.0), slope=st.floats(-1.0, 1.0))
def test_measured_spectra_are_those_of_the_noise(level: float, slope: float) -> None:
    row = tuple(level * (knot / 500) ** slope for knot in KNOTS)
    found = measured(noise((row,), 64), RATE)[0]
    for knot, value, wanted in zip(KNOTS, found, row):
        if 60 <= knot < RATE / 2.5:
            assert value == pytest.approx(wanted, rel=0.2)
    assert len(found) == len(KNOTS)


def test_projection_by_spectra_of_a_prior_that_knows_no_more_is_near_the_wiener_filter() -> None:
    """Mean of eight samples of two evaluations; equal shares leave the low stem's noise in the high one."""
    truth = noise((LOW, HIGH), 2)
    mix, prior = truth.sum(1), SpectralEdm(silent, powers((LOW, HIGH), RATE)(FRAMES))

    def error(likelihood: Projection | SpectralProjection) -> float:
        made = likelihood.condition(prior, mix, 2, euler)
        draw = [
            last(sample(made.denoiser, karras(2, 0.05, 1.0), seeded(seed), constraint=made.constraint)).x
            for seed in range(8)
        ]
        mean = torch.stack(draw).mean(0)
        torch.testing.assert_close(mean.sum(1), mix, atol=1e-5, rtol=1e-4)
        return float((mean - truth).square().mean())

    best = float((wiener(mix) - truth).square().mean())
    assert error(SpectralProjection(powers((LOW, HIGH), RATE))) < 1.3 * best
    assert error(Projection(gaussian_variance(1.0, 1.0))) > 3 * best


def test_spectra_of_sources_are_found_from_mixtures_alone() -> None:
    torch.manual_seed(0)
    told = torch.rand(600, 3) < 0.6
    told = told[told.any(1)]
    sources = torch.stack([noise((row,), len(told))[:, 0] for row in (LOW, HIGH, WIDE)], 1)
    found = unmixed((sources * told[..., None]).sum(1), told, RATE)
    for row, truth in zip(found, measured(sources, RATE)):
        strong = [k for k, level in enumerate(truth) if level > 0.3 * max(truth)]
        assert all(0.7 < row[k] / truth[k] < 1.4 for k in strong)


def test_a_model_with_spectra_trains_separates_and_says_what_they_must_be() -> None:
    torch.manual_seed(0)
    how = Separation(steps=2, temperature=0.0, churn=0.0, resample=1)
    config = MsdmConfig(("bass", "drums"), RATE, FRAMES, spectra=(LOW, HIGH), net=NET, separation=how)
    prior = Msdm(config)
    loss = prior.loss(noise((LOW, HIGH))[:, :, None], torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None for p in prior.parameters())
    system, mix = Joint.of(prior.eval()), noise((LOW, HIGH)).sum(1)[:, None]
    assert system.evaluations == 2
    assert isinstance(likelihood_of(how, prior), SpectralProjection)
    stems, lacking = system.separate(mix, 2)
    torch.testing.assert_close(stems.sum(1), mix, atol=1e-6, rtol=1e-5)
    assert float(lacking.abs().max()) < 1e-5
    with pytest.raises(ModelError, match="a row of 15 numbers for each of 4 stems"):
        build("msdm", {"spectra": [[0.1] * 15]})


def test_without_noise_at_the_start_a_gaussian_prior_gives_the_wiener_filter() -> None:
    """And with it a sample, further from the truth."""
    torch.manual_seed(0)
    config = MsdmConfig(("bass", "drums"), RATE, FRAMES, spectra=(LOW, WIDE), net=NET)
    prior = Msdm(config).eval()
    for parameter in prior.net.write.parameters():
        parameter.data.zero_()
    truth = noise((LOW, WIDE))
    mix, power = truth.sum(1), powers((LOW, WIDE), RATE)(FRAMES)
    best = torch.fft.irfft(torch.fft.rfft(mix)[:, None] * (power / power.sum(0)), n=FRAMES)

    def error(temperature: float, truth: Tensor) -> float:
        how = Separation(steps=30, sigma_min=1e-3, sigma_max=3.0, temperature=temperature, churn=0.0, resample=1)
        system = Joint(prior, likelihood_of(how, prior), how, config.generation)
        with torch.no_grad():
            return float((system.posterior(mix, 30, seeded(1)) - truth).square().mean())

    assert error(0.0, best) < 0.1 * error(1.0, best)
    assert error(0.0, truth) < 0.8 * error(1.0, truth)
