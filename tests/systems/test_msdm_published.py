"""The published MSDM in parts: noise schedules, preconditioning, loss, what a likelihood does in one point and in the limit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from published_msdm import facts, gaussian, tensors, tiny
from stemwise.diffusion import Churn, Edm, euler, karras, last, sample
from stemwise.diffusion.constraints import restrict
from stemwise.systems.likelihoods import Dirac, Gaussian, Likelihood
from stemwise.systems.msdm import Msdm, MsdmConfig, denoising_loss


def likelihood(name: str) -> Likelihood:
    """`dirac` and the dropped stem, or `gaussian` and gamma."""
    return Dirac(int(name[5:])) if name.startswith("dirac") else Gaussian(float(name[8:]))


@pytest.mark.parametrize("name", facts("schedules")["schedules"])
def test_recorded_schedules(name: str) -> None:
    about, recorded = facts("schedules")["schedules"][name], tensors("schedules")
    made = karras(about["n"], about["sigma_min"], about["sigma_max"], about["rho"])
    torch.testing.assert_close(made, recorded[f"{name}.float64"], atol=0, rtol=1e-12)
    torch.testing.assert_close(made.float(), recorded[f"{name}.float32"], atol=0, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 1e-5)])
def test_recorded_preconditioning(dtype: str, rtol: float) -> None:
    """Each factor is read from what the denoiser gives its network and makes of its answer."""
    recorded = {n.split(".")[1]: t for n, t in tensors("schedules").items() if n.endswith(dtype) and n[:4] == "prec"}
    sigma = tensors("schedules")["preconditioning.sigma.float64"].to(getattr(torch, dtype))
    made: dict[str, Tensor] = {}

    def silent(x: Tensor, label: Tensor) -> Tensor:
        made["c_in"], made["c_noise"] = x.flatten(), label
        return torch.zeros_like(x)

    one = torch.ones_like(sigma)[:, None, None]
    made["c_skip"] = Edm(silent, 0.2)(one, sigma).flatten()
    made["c_out"] = Edm(lambda x, label: torch.ones_like(x), 0.2)(0 * one, sigma).flatten()
    made["loss_weight"] = Edm(silent, 0.2).weight(sigma)
    recorded.pop("sigma", None)
    assert made.keys() == recorded.keys()
    for name, expected in recorded.items():
        torch.testing.assert_close(made[name], expected, atol=0, rtol=rtol)


def test_recorded_loss() -> None:
    """The training loss, of each item too, and its gradients, clipped samples included."""
    about, recorded = facts("unet_tiny")["facts"]["loss"], tensors("unet_tiny_stages")
    prior = Msdm(MsdmConfig(window=512, net=tiny().config))
    prior.net.load_state_dict(tiny().state_dict())
    denoiser = Edm(prior.net, prior.config.sigma_data)

    def loss(items: slice) -> Tensor:
        drawn = iter([recorded["loss.sigma"][items].log() + 3.0, recorded["loss.noise"][items]])
        return denoising_loss(denoiser, prior.config, recorded["loss.x0"][items], lambda shape: next(drawn))

    each = [float(loss(slice(i, i + 1)).detach()) for i in range(2)]
    assert each == pytest.approx(about["per_item"], rel=1e-4)
    whole = loss(slice(None))
    assert float(whole.detach()) == pytest.approx(about["loss"], rel=1e-5)
    whole.backward()  # type: ignore[no-untyped-call]
    norms = {name: p.grad.norm() for name, p in prior.net.named_parameters() if p.grad is not None}
    assert float(torch.stack([*norms.values()]).norm()) == pytest.approx(about["gradient_norm_all"], rel=1e-4)
    ours = {
        "to_time.0.0.weights": "time.frequencies",
        "downsamples.0.downsample.weight": "down.0.resample.weight",
        "bottleneck.attention.fn.to_kv.weight": "middle.key_value.weight",
        "upsamples.2.upsample.weight": "up.2.resample.weight",
        "to_out.module_list.0.block.block2.project.bias": "write.second.bias",
    }
    expected = {ours[name]: norm for name, norm in about["gradient_norm"].items()}
    assert {name: float(norms[name]) for name in expected} == pytest.approx(expected, rel=1e-4)


POINTS = sorted({name.split(".sigma")[0][6:] for name in tensors("separation_gauss") if ".sigma" in name})


@pytest.mark.parametrize("sigma", [0.01, 0.7])
@pytest.mark.parametrize("name", POINTS)
def test_recorded_conditioned_derivatives(name: str, sigma: float) -> None:
    """d_k = dx_k / dsigma of every stem in one point; the Dirac's after its constraint, where the dropped stem rests."""
    recorded = tensors("separation_gauss")
    made = likelihood(name).condition(gaussian, recorded["mixture"][:, 0], 4, euler)
    x, level = recorded["point.x"], torch.tensor(sigma, dtype=torch.float64)
    derivative = (x - restrict(made.denoiser, made.constraint)(x, level)) / level
    expected = recorded[f"point.{name}.sigma{sigma}.derivative"]
    torch.testing.assert_close(derivative, expected, atol=1e-10, rtol=1e-9)
    if name.startswith("dirac"):
        lifted = made.constraint.lift(x, level)
        torch.testing.assert_close(lifted, recorded[f"point.{name}.x_after"], atol=1e-10, rtol=1e-9)


GAINS = facts("separation")["zero_noise_gain"]["cases"]


def gain(name: str, stds: list[float], n: int, churn: float, resample: int, sigma_max: float = 1.0) -> Tensor:
    """What a mixture of constant 1 gives without any noise, (stem,), float64."""
    power = torch.tensor(stds, dtype=torch.float64)[:, None] ** 2
    mix = torch.ones(1, 1, dtype=torch.float64)
    seen: list[Tensor] = []

    def denoiser(x: Tensor, s: Tensor, /) -> Tensor:
        seen.append(x)
        return power / (power + s**2) * x

    made = likelihood(name).condition(denoiser, mix, len(power), euler)
    run = sample(
        made.denoiser,
        karras(n, 1e-4, sigma_max),
        lambda shape: torch.zeros(shape, dtype=torch.float64),
        constraint=made.constraint,
        churn=Churn(churn),
        resample=resample,
    )
    x = last(run).x[0, :, 0]
    if name.startswith("dirac"):  # the reference does not apply the sum again after its last step
        x[int(name[5:])] = seen[-1][0, int(name[5:]), 0]
    return x


@pytest.mark.parametrize("name", [name for name in GAINS if not name.endswith("limit")])
def test_gain_of_long_runs_without_noise(name: str) -> None:
    """The published rules on Gaussian stems: an amplitude ratio, not Wiener's power ratio, unless churn repairs it."""
    case = GAINS[name]
    made = gain(name.split("_")[2], case["source_std"], case["n"], case["s_churn"], case["resamples"])
    torch.testing.assert_close(made, torch.tensor(case["gain"], dtype=torch.float64), atol=0, rtol=1e-8)


def test_small_steps_from_a_high_level_reach_the_ratio_of_amplitudes() -> None:
    case = GAINS["two_sources_ode_limit"]
    made = gain("dirac0", case["source_std"], 1000, 0.0, 1, sigma_max=100.0)
    torch.testing.assert_close(made, torch.tensor(case["gain"], dtype=torch.float64), atol=2e-3, rtol=0)
