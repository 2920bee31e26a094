"""Guidance by coherence: exact where a closed form is known, and otherwise it does raise the score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plain_encoder import RATE, PlainEncoder, song
from stemwise.audio_io import resample
from stemwise.coherence.cocola import Cocola, CocolaConfig
from stemwise.coherence.guidance import coherence_energy, resampled
from stemwise.diffusion.constraints import Free
from stemwise.diffusion.guidance import energy, energy_at_x0
from stemwise.diffusion.sampling import heun, last, sample, tape
from stemwise.diffusion.schedules import karras
from stemwise.errors import ScoreError

F64 = torch.float64


class Linear(nn.Module):
    """An encoder whose score is linear in what was made: context^T W made."""

    rate, window, parts = 8, 12, ("both",)

    def __init__(self) -> None:
        super().__init__()
        self.bilinear = torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=F64) / 12

    def features(self, audio: Tensor) -> Tensor:
        return audio[:, None]

    def mask(self, features: Tensor, part: str) -> Tensor:
        return features

    def embed(self, features: Tensor) -> Tensor:
        return features[:, 0]

    def similarity(self, context: Tensor, made: Tensor) -> Tensor:
        return context @ self.bilinear @ made.T


def gaussian(mean: Tensor, std: Tensor):  # type: ignore[no-untyped-def]
    """E[x0 | x] for independent times x0 ~ N(mean, std^2), state (batch, 1, 1, time)."""
    return lambda x, sigma: mean + std**2 / (std**2 + sigma**2) * (x - mean)


@pytest.mark.parametrize("strength", [0.0, 0.7, 2.0])
def test_on_a_gaussian_the_score_rises_as_the_closed_form_says(strength: float) -> None:
    """The prior N(mean, C) times exp(strength w . x) is N(mean + strength C w, C): the score rises by strength w C w."""
    draw = torch.Generator().manual_seed(0)
    mean, context = (torch.randn(12, generator=draw, dtype=F64) for _ in range(2))
    std = 0.5 + torch.rand(12, generator=draw, dtype=F64)
    encoder = Linear()
    fn = coherence_energy(encoder, context, 8, lambda x0: x0, lambda sigma: torch.as_tensor(strength, dtype=F64))
    noise = torch.randn(1, 1, 1, 12, generator=draw, dtype=F64)

    def run(denoiser) -> Tensor:  # type: ignore[no-untyped-def]
        sigmas = karras(80, 0.002, 200.0).to(F64)
        return last(sample(denoiser, sigmas, tape([noise]), step=heun, constraint=Free((1, 1, 1, 12)))).x[0, 0, 0]

    prior = gaussian(mean, std)
    plain, guided = run(prior), run(energy(prior, fn))
    w = context @ encoder.bilinear
    moved = strength * std**2 * w * (1 - std / (std**2 + 200.0**2).sqrt())  # the start does not know of the guidance
    torch.testing.assert_close(guided - plain, moved, atol=1e-4, rtol=2e-3)
    rise = float(w @ (guided - plain))
    assert rise == pytest.approx(float(w @ moved), rel=2e-3, abs=1e-9)
    if strength == 0.7:  # the shortcut takes the slope for 1, so it pushes too much, in the same direction
        assert float(w @ (run(energy_at_x0(prior, fn)) - plain)) > rise


def test_the_force_through_a_codec_raises_the_score_of_a_real_encoder() -> None:
    """A small step along minus the energy's gradient, through stereo sums, resampling, features and network."""
    torch.manual_seed(0)
    encoder = Cocola(CocolaConfig(scale=0.25, seconds=1.0)).eval().requires_grad_(False)
    for layer in encoder.modules():  # running statistics of nothing would hide every input
        if isinstance(layer, nn.BatchNorm2d):
            layer.train().momentum = 1.0
    stems = song(1.2, rate=22050)
    context = torch.from_numpy(stems["bass"])
    with torch.no_grad():
        encoder.embed(encoder.features(resampled(context, 22050, RATE)[:, :RATE].repeat(2, 1)))
    encoder.eval()
    x0 = torch.from_numpy(stems["piano"])[None, None].repeat(1, 2, 2, 1).requires_grad_()
    fn = coherence_energy(encoder, context, 22050, lambda x: x, lambda sigma: torch.tensor(1.0))
    before = fn(x0, torch.tensor(0.1))
    (gradient,) = torch.autograd.grad(before.sum(), x0)
    assert gradient.isfinite().all()
    assert gradient.abs().amax() > 0
    step = 1e-4 * gradient / gradient.norm()
    assert fn(x0.detach() - step, torch.tensor(0.1)).item() < before.item()


def test_an_estimate_out_of_time_has_more_energy() -> None:
    stems = song(6.0)
    context, made = (torch.from_numpy(stems[name]) for name in ("bass", "piano"))
    fn = coherence_energy(PlainEncoder(), context, RATE, lambda x: x, lambda sigma: torch.tensor(1.0))
    in_time, late = (fn(x[None, None], torch.tensor(0.0)) for x in (made, made.roll(RATE // 4, -1)))
    assert in_time.shape == (1,)
    assert float(in_time) < float(late)


def test_items_of_a_batch_are_apart() -> None:
    stems = song(6.0)
    context, made = (torch.from_numpy(stems[name]) for name in ("bass", "piano"))
    fn = coherence_energy(PlainEncoder(), context, RATE, lambda x: x, lambda sigma: torch.tensor(1.0))
    batch = torch.stack([made, made.roll(RATE // 4, -1)])[:, None].requires_grad_()
    (gradient,) = torch.autograd.grad(fn(batch, torch.tensor(0.0))[0], batch)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_resampling_is_that_of_the_kept_library_inside_the_band() -> None:
    rate, time = 44100, np.arange(44100) / 44100
    signal = np.stack([np.sin(2 * np.pi * f * time) * np.hanning(rate) for f in (50, 440, 6000)]).astype(np.float32)
    ours = resampled(torch.from_numpy(signal), rate, RATE).numpy()
    theirs = np.concatenate([resample(row[None], rate, RATE) for row in signal])
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 2e-3


def test_lengths_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ScoreError, match="cannot be guided"):
        coherence_energy(PlainEncoder(), torch.zeros(RATE), RATE, lambda x: x, lambda sigma: sigma)
    fn = coherence_energy(PlainEncoder(), torch.randn(6 * RATE), RATE, lambda x: x, lambda sigma: sigma)
    with pytest.raises(ScoreError, match="same length"):
        fn(torch.zeros(1, 1, 1, 7 * RATE), torch.tensor(1.0))
