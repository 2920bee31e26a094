"""The published sampler is replayed, and masking at every step keeps everything on the mixture."""

from __future__ import annotations

import pytest
import torch

from published_mixture2music import facts, published, tensors
from stemwise.diffusion import last, seeded
from stemwise.diffusion.schedules import linear_beta
from stemwise.systems import mixture2music as m2m

RUNS = facts("sampling")["runs"]


def test_recorded_schedule() -> None:
    recorded = tensors("schedule")
    kept = m2m.BetaSchedule().alphas_cumprod()
    before = torch.cat([torch.ones(1), kept[:-1]])
    betas = 1 - kept / before
    made = {
        "betas": betas,
        "alphas_bar": kept,
        "sqrt_alphas_bar": kept.sqrt(),
        "sqrt_one_minus_alphas_bar": (1 - kept).sqrt(),
        "sqrt_recip_alphas": (1 - betas).rsqrt(),
        "posterior_variance": betas * (1 - before) / (1 - kept),
    }
    for name, values in made.items():
        loose = name in ("sqrt_one_minus_alphas_bar", "posterior_variance")
        torch.testing.assert_close(values.float(), recorded[name], atol=1e-8, rtol=1e-3 if loose else 1e-5)
    assert torch.equal(kept, linear_beta(1000, 1e-4, 0.02))


@pytest.mark.parametrize("name", sorted(RUNS))
@torch.no_grad()
def test_recorded_sampling(name: str) -> None:
    run, behaviour = RUNS[name], name.split(".")[1]
    recorded = tensors(run["file"].removesuffix(".safetensors"))
    mixture = recorded["mixture"]
    constraint = {"reference": m2m.unmasked, "masked_each_step": m2m.masked}[behaviour](mixture, 5)
    timesteps = torch.tensor(run["timesteps"])
    state = last(m2m.ddim(published(), mixture, constraint, timesteps, seeded(0), recorded["x_T"]))
    made = m2m.preserved(state)
    torch.testing.assert_close(made, recorded[name], atol=run["atol"], rtol=run["rtol"])
    off = made[~mixture.bool().expand_as(made)]
    assert off.any() if behaviour == "reference" else not off.any()


@torch.no_grad()
def test_recorded_chain_of_sampler_and_decoder() -> None:
    recorded = tensors("decoder")
    x = tensors("sampling_consecutive")["consecutive_20.reference"]
    mixture = tensors("sampling_consecutive")["mixture"]
    decoder = published().decoder
    assert decoder is not None
    torch.testing.assert_close(decoder(x)[:, :, :16], recorded["chain.logits"], atol=1e-4, rtol=1e-5)
    labels, firm = published().decode(x, mixture), recorded["chain.firm"]
    assert torch.equal(labels[firm], recorded["chain.labels"][firm])
