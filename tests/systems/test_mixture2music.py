"""The published sampler is replayed, and masking at every step keeps everything on the mixture."""

from __future__ import annotations

import pytest
import torch

from published_mixture2music import facts, published, tensors
from stemwise.diffusion import last, seeded
from stemwise.diffusion.schedules import linear_beta
from stemwise.nets.transunet import TransUnetConfig
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


def small(*, decoder: bool = True) -> m2m.Mixture2Music:
    torch.manual_seed(0)
    net = TransUnetConfig(widths=(8, 8, 8, 8), layers=1, positions="published", bottleneck="published")
    return m2m.Mixture2Music(m2m.Mixture2MusicConfig(net=net, decoder=decoder, evaluations=3)).eval()


def windows(items: int) -> torch.Tensor:
    """Random windows (item, instrument + 1, time, pitch), a fiftieth of the cells active."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(items, 6, 64, 72, generator=generator) < 0.02).to(torch.uint8)


@torch.no_grad()
def test_noise_loss_sees_nothing_off_the_mixture() -> None:
    prior, batch = small(), windows(2)
    mixture = batch[:, :5].amax(1, keepdim=True).float()
    seen: list[torch.Tensor] = []
    prior.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    loss = prior.loss(batch, torch.Generator().manual_seed(0))
    assert not seen[0][(mixture == 0).expand_as(seen[0])].any()
    assert float(loss["loss"]) == pytest.approx(float(loss["noise"] + loss["decoder"]))
    prior.net.forward = lambda x, t: torch.zeros_like(x)  # type: ignore[method-assign]
    silent = prior.noise_loss(batch[:, :5].float(), torch.Generator().manual_seed(0))
    # E smooth-L1 of a normal variable is 0.4247, on the share of cells that the mixture has.
    assert float(silent) == pytest.approx(0.4247 * float(mixture.mean()), rel=0.05)


def test_decoder_and_network_learn_as_if_alone() -> None:
    prior, batch = small(), windows(1)
    prior.loss(batch, torch.Generator().manual_seed(0))["noise"].backward()
    assert prior.decoder is not None
    assert all(p.grad is None for p in prior.decoder.parameters())
    prior.zero_grad()
    prior.loss(batch, torch.Generator().manual_seed(0))["decoder"].backward()
    assert all(p.grad is None for p in prior.net.parameters())


@torch.no_grad()
def test_as_published_nothing_is_off_the_mixture_but_cells_may_be_left() -> None:
    prior = small(decoder=False)
    mixture = windows(1)[:, :1].float()
    made = m2m.as_published(prior, mixture, 3, seeded(0))
    assert not made[(mixture == 0).expand_as(made)].any()
    assert not torch.equal(made.any(1, keepdim=True), mixture.bool())
    assert m2m.strided(prior, 999).tolist() == list(range(999, -1, -1))
    assert m2m.strided(prior, 1000).tolist() == m2m.strided(prior, 999).tolist()


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"net\.inputs and net\.outputs must be 5"):
        m2m.Mixture2MusicConfig(net=TransUnetConfig(inputs=6))
