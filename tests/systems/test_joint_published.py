"""Whole separation and generation runs of the published MSDM, replayed from their recorded noise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from published_msdm import facts, tensors, tiny
from stemwise.diffusion import (
    Churn,
    Denoiser,
    Edm,
    Free,
    Known,
    clamped,
    dpm2_ancestral,
    euler,
    karras,
    last,
    sample,
    tape,
)
from stemwise.diffusion.constraints import Constraint
from stemwise.systems.joint import Joint
from stemwise.systems.likelihoods import Dirac, Gaussian, Likelihood
from stemwise.systems.msdm import Generation, Msdm, MsdmConfig, Separation, WeakMsdm, denoising_loss

STDS = (0.2, 0.05, 0.1, 0.02)


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The ideal denoiser of independent Gaussian stems."""
    power = torch.tensor(STDS, dtype=x.dtype)[:, None] ** 2
    return power / (power + sigma**2) * x


@cache
def network() -> Denoiser:
    return clamped(Edm(tiny(), 0.2))


def spied(denoiser: Denoiser, inputs: list[Tensor]) -> Denoiser:
    def spy(x: Tensor, sigma: Tensor, /) -> Tensor:
        inputs.append(x)
        return denoiser(x, sigma)

    return spy


def draws(recorded: dict[str, Tensor], case: dict[str, Any]) -> Iterator[Tensor]:
    """The recorded noise in our order; the reference draws churn noise even where the churn is 0."""
    yield recorded["start_noise"]
    for step in range(10):
        for turn in range(case["resamples"]):
            if case["s_churn"]:
                yield recorded["churn_noise"][step, turn]
            if turn + 1 < case["resamples"]:
                yield recorded["renoise"][step, turn]


def likelihood_of(case: dict[str, Any]) -> Likelihood:
    return Dirac(case["constrained"]) if case["likelihood"] == "dirac" else Gaussian(case["gamma_factor"])


CASES = [
    (table, name)
    for table in ("closed_form", "tiny_net")
    for name in facts("separation")[table]["cases"]
    if not name.startswith(("weak", "joint_class"))
]


@pytest.mark.parametrize(("table", "name"), CASES)
def test_recorded_separations(table: str, name: str) -> None:
    """Every stem as recorded. The reference does not apply the sum again after its last step, we do: the dropped stem is
    compared with what it was when the network last saw it.
    """
    about = facts("separation")[table]
    case, recorded = about["cases"][name], tensors(about["file"].removesuffix(".safetensors"))
    inputs: list[Tensor] = []
    denoiser = spied(gaussian if table == "closed_form" else network(), inputs)
    made = likelihood_of(case).condition(denoiser, recorded["mixture"][:, 0], 4, euler)
    sigmas = recorded[f"sigmas.{case['schedule']}"]
    x = last(
        sample(
            made.denoiser,
            sigmas,
            tape(draws(recorded, case)),
            constraint=made.constraint,
            step=made.step,
            churn=Churn(case["s_churn"]) if case["s_churn"] else None,
            resample=case["resamples"],
        )
    ).x
    expected = recorded[f"{name}.final"]
    if case["likelihood"] == "dirac":
        dropped = case["constrained"]
        mix = recorded["mixture"][:, 0]
        torch.testing.assert_close(x.sum(1), mix, atol=2e-6 * case["max_abs_final"] + 1e-9, rtol=1e-6)
        x[:, dropped] = inputs[-1][:, dropped]
    scale = case["max_abs_final"] if "unstable" in name else 1.0
    atol = case.get("atol", 1e-10) if "unstable" not in name else 1e-9 * scale
    torch.testing.assert_close(x, expected, atol=atol, rtol=1e-9 if table == "closed_form" else 1e-5)
    if f"{name}.denoiser_input" in recorded:
        seen = recorded[f"{name}.denoiser_input"].flatten(0, 1)
        torch.testing.assert_close(torch.stack(inputs), seen, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["weak_dirac0_churn20_R2", "dirac0_churn20_R3"])
def test_systems_replay_recorded_runs(name: str) -> None:
    """Through `Joint`: the joint network, and four independent ones in one batched evaluation."""
    case, recorded = facts("separation")["tiny_net"]["cases"][name], tensors("separation_net")
    how = Separation("dirac", "euler", 10, 0.05, 1.0, churn=20.0, resample=case["resamples"], drop="bass")
    weak = name.startswith("weak")
    config = MsdmConfig(window=256, net=tiny("one_source" if weak else "four_source").config, separation=how)
    prior: Msdm | WeakMsdm = WeakMsdm(config) if weak else Msdm(config)
    if isinstance(prior, WeakMsdm):
        for net, salt in zip(prior.nets, case["weights"].values()):
            net.load_state_dict(tiny("one_source", salt).state_dict())
    else:
        prior.net.load_state_dict(tiny().state_dict())
    with torch.no_grad():
        x = Joint.of(prior.eval()).posterior(recorded["mixture"][:, 0], 10, tape(draws(recorded, case)))
    atol = facts("separation")["tiny_net"]["cases"][name]["atol"]
    torch.testing.assert_close(x[:, 1:], recorded[f"{name}.final"][:, 1:], atol=atol, rtol=1e-5)


@pytest.mark.parametrize(
    ("table", "name"),
    [(table, name) for table in ("closed_form", "tiny_net") for name in facts("generation")[table]["cases"]],
)
def test_recorded_generations(table: str, name: str) -> None:
    """Nothing given, stems given, the first half given. The reference churns what is given as well: in our coordinates
    that is another draw of its noise.
    """
    about = facts("generation")[table]
    case, recorded = about["cases"][name], tensors(about["file"].removesuffix(".safetensors"))
    sigmas, resamples = recorded["sigmas"], case["resamples"]
    batch = case["source_batch"] or 1
    rise = 1 + case["gamma_churn"]
    given = case["given"]
    mask = torch.zeros(1, 4, recorded["source"].shape[-1], dtype=torch.bool)
    if isinstance(given, list):
        mask[:, given] = True
    elif given is not None:
        mask[..., : mask.shape[-1] // 2] = True

    def order() -> Iterator[Tensor]:
        yield recorded["start_noise"]
        for step in range(10):
            source = recorded["source_noise"][step][:batch].expand_as(recorded["start_noise"])
            for turn in range(resamples):
                churned = recorded["churn_noise"][step, turn] * (1 - rise**-2) ** 0.5
                if given is not None:
                    yield source / rise + churned
                if case["s_churn"]:
                    yield recorded["churn_noise"][step, turn]
                if turn + 1 < resamples:
                    yield recorded["renoise"][step, turn]

    values = recorded["source"][:batch].expand_as(recorded["start_noise"])
    constraint: Constraint = Free(tuple(values.shape)) if given is None else Known(values, mask)
    x = last(
        sample(
            gaussian if table == "closed_form" else network(),
            sigmas,
            tape(order()),
            constraint=constraint,
            churn=Churn(case["s_churn"]) if case["s_churn"] else None,
            resample=resamples,
        )
    ).x
    final = torch.where(mask, values, x)
    atol = case.get("atol", 1e-10)
    torch.testing.assert_close(
        final, recorded[f"{name}.final"], atol=atol, rtol=1e-9 if table == "closed_form" else 1e-5
    )


@pytest.mark.parametrize("rho", [1, 3])
def test_recorded_adpm2_runs(rho: int) -> None:
    """Every state of the library's sampler, which stops at the smallest level."""
    about, recorded = facts("generation")["adpm2"], tensors("adpm2")
    sigmas, start = recorded["adpm2_gauss.sigmas"], recorded["adpm2_gauss.start_noise"]
    states = sample(
        gaussian,
        sigmas[: about["steps"] + 1],
        tape([start, *recorded["adpm2_gauss.step_noise"]]),
        constraint=Free(tuple(start.shape)),
        step=partial(dpm2_ancestral, rho=rho),
    )
    made = torch.stack([state.x for state in states])
    expected = recorded[f"adpm2_gauss.rho{rho}.after_each_step"]
    torch.testing.assert_close(made, expected, atol=about["atol_gauss"], rtol=about["rtol_gauss"])


def test_a_recorded_adpm2_run_of_the_network() -> None:
    about, recorded = facts("generation")["adpm2"], tensors("adpm2")
    sigmas, start = recorded["adpm2_net.sigmas"], recorded["adpm2_net.start_noise"]
    noise, free = tape([start, *recorded["adpm2_net.step_noise"]]), Free(tuple(start.shape))
    x = last(sample(network(), sigmas[: about["steps"] + 1], noise, constraint=free, step=dpm2_ancestral)).x
    torch.testing.assert_close(x.clamp(-1, 1), recorded["adpm2_net.rho1.clamped"], atol=about["net_atol"], rtol=1e-5)


def test_recorded_adpm2_inpainting() -> None:
    """What is given is pasted in before every step and moves with the rest inside it, unlike `Known`: the rule alone."""
    about, recorded = facts("generation")["adpm2"], tensors("adpm2")
    sigmas, turns = recorded["adpm2_gauss.sigmas"], about["inpaint"]["resamples"]
    mask, source = recorded["adpm2_inpaint.mask"].bool(), recorded["adpm2_inpaint.source"]
    x = sigmas[0] * recorded["adpm2_inpaint.start_noise"]
    for i, (sigma, lower) in enumerate(pairwise(sigmas[: about["steps"] + 1])):
        for turn in range(turns):
            x = torch.where(mask, source + sigma * recorded["adpm2_inpaint.source_noise"][i], x)
            draw = partial(recorded["adpm2_inpaint.step_noise"].__getitem__, (i, turn))
            x, _ = dpm2_ancestral(gaussian, x, sigma, lower, draw, None)
            if turn + 1 < turns:
                x = x + (sigma**2 - lower**2).sqrt() * recorded["adpm2_inpaint.renoise"][i, turn]
    final = torch.where(mask, source, x)
    torch.testing.assert_close(
        final, recorded["adpm2_inpaint.final"], atol=about["atol_gauss"], rtol=about["rtol_gauss"]
    )


@pytest.mark.parametrize("name", ["separation", "generation", "accompaniment", "training_samples"])
def test_recorded_schedules(name: str) -> None:
    about, recorded = facts("schedules")["schedules"][name], tensors("schedules")
    made = karras(about["n"], about["sigma_min"], about["sigma_max"], about["rho"])
    torch.testing.assert_close(made, recorded[f"{name}.float64"], atol=0, rtol=1e-12)
    torch.testing.assert_close(made.float(), recorded[f"{name}.float32"], atol=0, rtol=1e-5)


def test_recorded_loss() -> None:
    """The training loss and its gradients, clipped samples included."""
    about, recorded = facts("unet_tiny")["facts"]["loss"], tensors("unet_tiny_stages")
    prior = Msdm(MsdmConfig(window=512, net=tiny().config))
    prior.net.load_state_dict(tiny().state_dict())
    drawn = iter([(recorded["loss.sigma"].log() + 3.0), recorded["loss.noise"]])
    loss = denoising_loss(
        Edm(prior.net, prior.config.sigma_data), prior.config, recorded["loss.x0"], lambda shape: next(drawn)
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(about["loss"], rel=1e-5)
    norm = torch.stack([p.grad.norm() for p in prior.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(about["gradient_norm_all"], rel=1e-4)


@pytest.mark.parametrize("name", ["two_sources_dirac0_churn0_R1_n150", "four_sources_dirac3_churn20_R2_n150"])
def test_gain_of_long_runs_without_noise(name: str) -> None:
    """The published rule on Gaussian stems: an amplitude ratio, not Wiener's power ratio, unless churn repairs it."""
    about = facts("separation")["zero_noise_gain"]
    case = about["cases"][name]
    power = torch.tensor(case["source_std"], dtype=torch.float64)[:, None] ** 2
    mix = torch.ones(1, 1, dtype=torch.float64)
    drop = int(name.split("dirac")[1][0])
    made = Dirac(drop).condition(lambda x, s: power / (power + s**2) * x, mix, len(power), euler)
    x = last(
        sample(
            made.denoiser,
            karras(case["n"], 1e-4, 1.0),
            lambda shape: torch.zeros(shape, dtype=torch.float64),
            constraint=made.constraint,
            churn=Churn(case["s_churn"]),
            resample=case["resamples"],
        )
    ).x
    free = [k for k in range(len(power)) if k != drop]
    torch.testing.assert_close(x[0, free, 0], torch.tensor(case["gain"], dtype=torch.float64)[free], atol=0, rtol=1e-7)


def test_defaults_of_generation_stay_in_the_trained_range() -> None:
    assert Generation().sigma_max <= 1.0
