"""Whole separation and generation runs of the published MSDM, replayed from their recorded noise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from published_msdm import facts, gaussian, tensors, tiny
from stemwise.diffusion import (
    Churn,
    Denoiser,
    Edm,
    Free,
    Known,
    clamped,
    dpm2_ancestral,
    euler,
    last,
    sample,
    tape,
)
from stemwise.diffusion.constraints import Constraint
from stemwise.systems.joint import Joint
from stemwise.systems.likelihoods import Dirac, Gaussian, Likelihood
from stemwise.systems.msdm import Generation, Msdm, MsdmConfig, Separation, WeakMsdm


@cache
def network() -> Denoiser:
    return clamped(Edm(tiny(), 0.2))


def spied(denoiser: Denoiser, seen: list[tuple[Tensor, Tensor]]) -> Denoiser:
    """The denoiser, what it is given and what it answers kept in a list."""

    def spy(x: Tensor, sigma: Tensor, /) -> Tensor:
        seen.append((x, denoiser(x, sigma)))
        return seen[-1][1]

    return spy


def assert_recorded_steps(
    seen: list[tuple[Tensor, Tensor]], recorded: dict[str, Tensor], name: str, atol: float, rtol: float
) -> None:
    """Compare every evaluation of a run with what was recorded of them, if anything was."""
    for kind, made in zip(("denoiser_input", "denoised"), zip(*seen)):
        if f"{name}.{kind}" in recorded:
            expected = recorded[f"{name}.{kind}"].flatten(0, 1)
            torch.testing.assert_close(torch.stack(made), expected, atol=atol, rtol=rtol)


def recording(about: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a table of separations: results, noise, and the steps of some runs."""
    files = (about[kind].removesuffix(".safetensors") for kind in ("file", "steps") if kind in about)
    return {name: tensor for file in files for name, tensor in tensors(file).items()}


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
    case, recorded = about["cases"][name], recording(about)
    seen: list[tuple[Tensor, Tensor]] = []
    denoiser = spied(gaussian if table == "closed_form" else network(), seen)
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
        x[:, dropped] = seen[-1][0][:, dropped]
    scale = case["max_abs_final"] if "unstable" in name else 1.0
    atol = case.get("atol", 1e-10) if "unstable" not in name else 1e-9 * scale
    rtol = 1e-9 if table == "closed_form" else 1e-5
    torch.testing.assert_close(x, expected, atol=atol, rtol=rtol)
    assert_recorded_steps(seen, recorded, name, atol, rtol)


def test_whole_trajectories_of_both_likelihoods_are_compared() -> None:
    """Lest a fixture that lacks its steps goes unnoticed."""
    kept = {
        name: [n.split(".denoised")[0] for n in recording(facts("separation")[name]) if ".denoised" in n]
        for name in ("closed_form", "tiny_net")
    }
    assert sorted(kept["tiny_net"]) == ["dirac0_churn20_R1", "gaussian1_churn20_R1"]
    assert len(kept["closed_form"]) == 7


@pytest.mark.parametrize("name", ["weak_dirac0_churn20_R2", "joint_class_dirac0_churn20_R2", "dirac0_churn20_R3"])
def test_systems_replay_recorded_runs(name: str) -> None:
    """Through `Joint`, as through the released separator: the joint network, and four independent ones in one batched
    evaluation. The dropped stem is compared with what it was when the network last saw it.
    """
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
    seen: list[Tensor] = []
    prior.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        x = Joint.of(prior.eval()).posterior(recorded["mixture"][:, 0], 10, tape(draws(recorded, case)))
    x[:, 0] = seen[-1][:, 0]
    torch.testing.assert_close(x, recorded[f"{name}.final"], atol=case["atol"], rtol=1e-5)


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
    seen: list[tuple[Tensor, Tensor]] = []
    constraint: Constraint = Free(tuple(values.shape)) if given is None else Known(values, mask)
    x = last(
        sample(
            spied(gaussian if table == "closed_form" else network(), seen),
            sigmas,
            tape(order()),
            constraint=constraint,
            churn=Churn(case["s_churn"]) if case["s_churn"] else None,
            resample=resamples,
        )
    ).x
    final = torch.where(mask, values, x)
    atol, rtol = case.get("atol", 1e-10), 1e-9 if table == "closed_form" else 1e-5
    torch.testing.assert_close(final, recorded[f"{name}.final"], atol=atol, rtol=rtol)
    assert_recorded_steps(seen, recorded, name, atol, rtol)


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


def test_defaults_of_generation_stay_in_the_trained_range() -> None:
    assert Generation().sigma_max <= 1.0
