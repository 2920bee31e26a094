"""The schedulers of diffusers as oracle, driven by one fixed nonlinear network without weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from stemwise.diffusion import schedules
from stemwise.diffusion.constraints import Free
from stemwise.diffusion.denoisers import Denoiser, Edm, FromEps, FromFlow, FromV, FromX0, align, nearest
from stemwise.diffusion.sampling import Step, ancestral, dpmpp_2m, euler, heun, last, sample, seeded

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers.*")
SHAPE = (2, 3, 8)
STEPS = 100


def net(x: Tensor, t: Tensor) -> Tensor:
    """Nonlinear, time-dependent and with cross-talk; t (batch,)."""
    phase = align(t.to(x) / 30, x)
    return torch.tanh(0.9 * x + 0.4 * x.roll(1, 2) * torch.sin(phase)) + 0.1 * torch.cos(phase)


def start(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def ours(denoiser: Denoiser, sigmas: Tensor, x: Tensor, step: Step, noise: object = None) -> Tensor:
    states = sample(denoiser, sigmas, noise or seeded(0), constraint=Free(SHAPE), step=step, x=x)
    return last(states).x


def theirs(scheduler: object, x: Tensor, n: int, **options: object) -> Tensor:
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        out = net(scheduler.scale_model_input(x, t), t.expand(SHAPE[0]))
        x = scheduler.step(out, t, x, **options).prev_sample
    return x


BETAS = {
    "linear": schedules.linear_beta,
    "scaled_linear": schedules.scaled_linear_beta,
    "squaredcos_cap_v2": schedules.cosine,
}


@pytest.mark.parametrize("name", BETAS)
def test_tables_of_discrete_models(name: str) -> None:
    options = {} if name == "squaredcos_cap_v2" else {"beta_start": 0.001, "beta_end": 0.02}
    want = diffusers.DDPMScheduler(STEPS, beta_schedule=name, **options).alphas_cumprod
    got = BETAS[name](STEPS) if not options else BETAS[name](STEPS, 0.001, 0.02)
    torch.testing.assert_close(got.float(), want, rtol=2e-5, atol=1e-9)


WRAPPERS = {"epsilon": FromEps, "v_prediction": FromV, "sample": FromX0}


@pytest.mark.parametrize("prediction", WRAPPERS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_euler_and_with_eta_ancestral(prediction: str, eta: float) -> None:
    n, x = 20, start()
    scheduler = diffusers.DDIMScheduler(
        STEPS, clip_sample=False, prediction_type=prediction, timestep_spacing="leading"
    )
    want = theirs(scheduler, x, n, eta=eta, generator=torch.Generator().manual_seed(5))
    alphas = scheduler.alphas_cumprod
    sigmas = schedules.from_alphas_cumprod(alphas, schedules.leading_timesteps(n, STEPS))
    denoiser = WRAPPERS[prediction](net, nearest(alphas))
    step = partial(ancestral, eta=eta) if eta else euler
    got = ours(denoiser, sigmas, x * (1 + sigmas[0] ** 2).sqrt(), step, seeded(5))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_ddpm_is_ancestral_with_the_posterior_variance() -> None:
    x = start()
    scheduler = diffusers.DDPMScheduler(STEPS, clip_sample=False, variance_type="fixed_small")
    want = theirs(scheduler, x, STEPS, generator=torch.Generator().manual_seed(5))
    alphas = scheduler.alphas_cumprod
    sigmas = schedules.from_alphas_cumprod(alphas, schedules.even_timesteps(STEPS, STEPS))
    got = ours(FromEps(net, nearest(alphas)), sigmas, x * (1 + sigmas[0] ** 2).sqrt(), ancestral, seeded(5))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5)


SIGMA_SPACE = {
    "EulerDiscreteScheduler": euler,
    "HeunDiscreteScheduler": heun,
    "EulerAncestralDiscreteScheduler": ancestral,
}


@pytest.mark.parametrize("name", SIGMA_SPACE)
def test_schedulers_in_sigma_space(name: str) -> None:
    n, x = 10, 20 * start()
    scheduler = getattr(diffusers, name)(STEPS, beta_schedule="scaled_linear", timestep_spacing="linspace")
    options = {"generator": torch.Generator().manual_seed(5)} if "Ancestral" in name else {}
    want = theirs(scheduler, x, n, **options)
    alphas = scheduler.alphas_cumprod
    sigmas = schedules.from_alphas_cumprod(alphas, schedules.even_timesteps(n, STEPS))
    got = ours(FromEps(net, nearest(alphas)), sigmas, x, SIGMA_SPACE[name], seeded(5))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [15, 30])
def test_dpm_solver_plus_plus_2m(n: int) -> None:
    x = start()
    scheduler = diffusers.DPMSolverMultistepScheduler(
        STEPS, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", timestep_spacing="linspace"
    )
    want = theirs(scheduler, x, n)
    alphas = scheduler.alphas_cumprod
    sigmas = schedules.from_alphas_cumprod(alphas, scheduler.timesteps)
    got = ours(FromEps(net, nearest(alphas)), sigmas, x * (1 + sigmas[0] ** 2).sqrt(), dpmpp_2m)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def test_edm_euler_with_preconditioning() -> None:
    n, x = 12, 80 * start()
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    want = theirs(scheduler, x, n)
    got = ours(Edm(net, 0.5), schedules.karras(n, 0.002, 80.0, 7.0), x, euler)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_euler(shift: float) -> None:
    n, x = 10, start()
    sigmas = schedules.flow(n, 49.0, shift)
    times = sigmas / (1 + sigmas)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=times[:-1].tolist())
    want = x
    for t in scheduler.timesteps:
        want = scheduler.step(net(want, t.expand(2) / 1000), t, want).prev_sample
    got = ours(FromFlow(net), sigmas, x * (1 + sigmas[0]), euler)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
