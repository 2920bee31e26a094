"""GMSDI's coupled equations (poster, eq. 2) in closed form: drifts at given points, Euler runs and the exact flow.

The recorded numbers are of independent Gaussian sources and a mixture prior that agrees with them or does not.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from published_msdm import facts, tensors
from stemwise.diffusion import (
    Denoiser,
    Free,
    Known,
    SlotCoupling,
    SumTo,
    couple,
    dpmpp_2m,
    euler,
    exact,
    last,
    negative,
    restrict,
    sample,
    tape,
)

POINTS = range(6)
VARIANTS = ("consistent", "inconsistent")


def close(found: Tensor, expected: Tensor, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def gaussian(*variances: Tensor) -> Denoiser:
    """E[x0 | x] of independent slots (1, slot, channel, time), a variance (channel,) each."""
    variance = torch.stack(variances)[None, :, :, None]
    return lambda x, sigma: variance / (variance + torch.as_tensor(sigma) ** 2) * x


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return tensors("gmsdi")


def prior(recorded: dict[str, Tensor], variant: str) -> Denoiser:
    return gaussian(*recorded["source_variance"], recorded[f"mixture_variance_{variant}"])


def coupling(point: int) -> SlotCoupling:
    gammas = facts("gmsdi")["gammas"]
    return SlotCoupling((0, 1, 2), 3, gammas["factor_x"][point], gammas["factor_y"][point])


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_drifts_and_steps(recorded: dict[str, Tensor], variant: str, point: int) -> None:
    state = torch.cat([recorded["x"][point], recorded["y"][point][None]])[None]
    sigma, after = recorded["sigma"][point], recorded["sigma_next"][point]
    denoise = couple(prior(recorded, variant), coupling(point))
    drift = (state - denoise(state, sigma)) / sigma
    close(drift[0, :3], recorded["drift_x"][point])
    close(drift[0, 3], recorded[f"{variant}.drift_y"][point])
    stepped, _ = euler(denoise, state, sigma, after, lambda: state, None)
    close(stepped[0, :3], recorded["euler_x"][point])
    close(stepped[0, 3], recorded[f"{variant}.euler_y"][point])


@pytest.mark.parametrize("point", POINTS)
def test_recorded_accompaniments(recorded: dict[str, Tensor], point: int) -> None:
    """A given sub-mix enters the sum at the level of the state, with noise of its own."""
    x, y, sigma = recorded["x"][point], recorded["y"][point], recorded["sigma"][point]
    shape = (1, 4, *y.shape)
    mask = torch.zeros(1, 4, 1, 1, dtype=torch.bool)
    mask[:, 0] = True
    given, noise = torch.zeros(shape, dtype=x.dtype), torch.zeros(shape, dtype=x.dtype)
    given[0, 0], noise[0, 0] = recorded["accompaniment.given"][point], recorded["accompaniment.given_noise"][point]
    known = Known(given, mask).fresh(tape([noise]))
    free = torch.cat([x, y[None]])[None]
    denoise = couple(prior(recorded, "consistent"), coupling(point))
    drift = (free - restrict(denoise, known)(free, sigma)) / sigma
    close(drift[0, 1:3], recorded["accompaniment.drift_x"][point])
    close(drift[0, 3], recorded["accompaniment.drift_y"][point])


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("drop", [0, 1, 2])
def test_recorded_separators_and_extractors(recorded: dict[str, Tensor], drop: int, point: int) -> None:
    """All sources at once, one of them what the others leave; and one source against the rest."""
    x, mix, sigma = recorded["x"][point][None], recorded["y"][point][None], recorded["sigma"][point]
    variances = recorded["source_variance"]
    constraint = SumTo((0, 1, 2), mix, drop, 3)
    close(constraint.lift(x, sigma)[0], recorded[f"separator_constrained{drop}.x"][point])
    drift = (x - restrict(gaussian(*variances), constraint)(x, sigma)) / sigma
    close(drift[0], recorded[f"separator_constrained{drop}.drift"][point])
    two = gaussian(variances[drop], variances.sum(0) - variances[drop])
    state = torch.stack([x[:, drop], torch.zeros_like(mix)], 1)
    drift = (state - restrict(two, SumTo((0, 1), mix, 1, 2))(state, sigma)) / sigma
    close(drift[0, 0], recorded[f"extractor{drop}.drift"][point])


@pytest.mark.parametrize("point", POINTS)
def test_recorded_negative_prompts(recorded: dict[str, Tensor], point: int) -> None:
    wanted, unwanted = (gaussian(recorded["source_variance"][k]) for k in (0, 1))
    x = recorded["x"][point][None, :1]
    found = negative(wanted, unwanted, float(recorded["guidance.weight"][point]))(x, recorded["sigma"][point])
    close(found[0, 0], recorded["guidance.denoised"][point])


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_euler_runs(recorded: dict[str, Tensor], variant: str) -> None:
    run = tensors("gmsdi_trajectory")
    factors = facts("gmsdi")["gammas"]["trajectory_factors"]
    denoise = couple(prior(recorded, variant), SlotCoupling((0, 1, 2), 3, *factors))
    x = torch.cat([run["start_x"], run["start_y"][:, None]], 1)
    for state in sample(denoise, run["sigmas"], tape([]), constraint=Free(tuple(x.shape)), x=x):
        close(state.x[0, :3], run[f"euler.{variant}.x"][state.index + 1])
        close(state.x[0, 3], run[f"euler.{variant}.y"][state.index + 1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_exact_coupling_reaches_the_flow_sooner(recorded: dict[str, Tensor], variant: str) -> None:
    """The exact solution of the coupled equations is linear; integrating the coupling exactly comes closer to it."""
    run = tensors("gmsdi_trajectory")
    factors = facts("gmsdi")["gammas"]["trajectory_factors"]
    pull = SlotCoupling((0, 1, 2), 3, *factors)
    x = torch.cat([run["start_x"], run["start_y"][:, None]], 1)
    matrix = run[f"flow.{variant}.matrix"]
    flow = torch.einsum("ckl,blct->bkct", matrix, x)
    close(flow[0, :3], run[f"flow.{variant}.x"], rtol=1e-8, atol=1e-8)
    close(flow[0, 3], run[f"flow.{variant}.y"], rtol=1e-8, atol=1e-8)
    free, levels = Free(tuple(x.shape)), run["sigmas"][:-1]
    denoise = prior(recorded, variant)
    ours = last(sample(denoise, levels, tape([]), constraint=free, x=x, step=exact(pull))).x
    plain = last(sample(couple(denoise, pull), levels, tape([]), constraint=free, x=x)).x
    assert float((ours - flow).abs().max()) < 0.5 * float((plain - flow).abs().max())


@pytest.mark.parametrize("sources", range(1, 9))
def test_limits_of_the_coupling(sources: int) -> None:
    """Loose: every slot on its own; tight: the mixture slot becomes the sum, for any number of sources."""
    torch.manual_seed(sources)
    variances = torch.rand(sources, 1, dtype=torch.float64) + 0.2
    denoise = gaussian(*variances, variances.sum(0))
    part, free = tuple(range(sources)), Free((1, sources + 1, 1, 4))
    x = torch.randn(1, sources + 1, 1, 4, dtype=torch.float64)
    sigmas = torch.linspace(1, 0, 30, dtype=torch.float64)

    def run(factor: float) -> Tensor:
        step = exact(SlotCoupling(part, sources, factor, factor))
        return last(sample(denoise, sigmas, tape([]), constraint=free, x=x, step=step)).x

    alone = last(sample(denoise, sigmas, tape([]), constraint=free, x=x, step=dpmpp_2m)).x
    close(run(1e4), alone, rtol=1e-4, atol=1e-5)
    tight = run(0.02)
    close(tight[:, :-1].sum(1), tight[:, -1], rtol=0, atol=2e-3)
