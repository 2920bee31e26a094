from __future__ import annotations

import pytest
import torch
from gaussian_oracles import gaussian, given_sum, independent, posterior_variance, silence
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.diffusion import guidance
from stemwise.diffusion.constraints import Free, Known, restrict
from stemwise.diffusion.denoisers import Denoiser
from stemwise.diffusion.guidance import SlotCoupling, SumCoupling
from stemwise.diffusion.sampling import Churn, Step, dpmpp_2m, euler, heun, last, sample, seeded
from stemwise.diffusion.schedules import karras
from stemwise.errors import QueryError

F64 = torch.float64
STD = torch.tensor([0.2, 0.05, 0.1, 0.02], dtype=F64)
PART = (0, 1, 2, 3)
ONES = torch.ones(4, dtype=F64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def level(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=F64)


def model(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
    sigma = sigma.reshape(-1, *[1] * (x.ndim - 1)) if sigma.ndim else sigma
    return torch.tanh(x + condition[..., None] * 0.5) / (1 + sigma)


@pytest.mark.parametrize("sigma", [torch.tensor(0.3), torch.tensor([0.3, 0.9])])
def test_folded_guidance_equals_looped(sigma: Tensor) -> None:
    x, cond, uncond = draw(2, 4, 5), draw(2, 4, seed=1), draw(2, 4, seed=2)
    looped = guidance.classifier_free(lambda x, s: model(x, s, cond), lambda x, s: model(x, s, uncond), 2.5)
    folded = guidance.classifier_free_folded(model, cond, uncond, 2.5)
    torch.testing.assert_close(folded(x, sigma), looped(x, sigma))


def test_classifier_free_weights_mean_what_they_say() -> None:
    x, sigma = draw(2, 4, 5), level(0.3)
    c, u = independent(STD), independent(2 * STD)
    torch.testing.assert_close(guidance.classifier_free(c, u, 1.0)(x, sigma), c(x, sigma))
    torch.testing.assert_close(guidance.classifier_free(c, u, 0.0)(x, sigma), u(x, sigma))
    away = guidance.negative(c, u, 3.0)(x, sigma)
    torch.testing.assert_close(away, u(x, sigma) + 3 * (c(x, sigma) - u(x, sigma)))


@given(sigma=st.floats(0.01, 10), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_projection_is_the_exact_posterior_mean_given_the_sum(sigma: float, seed: int) -> None:
    """For independent Gaussian stems, with the variance of each, on a part of the slots."""
    x, mix, part = draw(2, 4, 5, seed=seed), draw(2, 5, seed=seed + 1), (0, 2, 3)
    s = STD[list(part)]
    projected = guidance.project(independent(STD), part, mix, lambda q: posterior_variance(s)(q))(x, level(sigma))
    for item in range(2):
        row = torch.zeros(4, dtype=F64).index_fill(0, torch.tensor(part), 1)
        mean, cov = given_sum(torch.diag(STD**2), mix[item], row)
        want = gaussian(cov, mean)(x[item : item + 1], level(sigma))
        torch.testing.assert_close(projected[item : item + 1], want, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(projected[:, list(part)].sum(1), mix)


def test_projection_takes_variances_that_vary_over_the_state() -> None:
    x, mix = draw(2, 4, 3, 5), draw(2, 3, 5, seed=1)
    v = draw(2, 4, 3, 5, seed=2).square()
    got = guidance.project(lambda x, s: x, PART, mix, lambda s: v)(x, level(0.1))
    torch.testing.assert_close(got - x, v / v.sum(1, keepdim=True) * (mix - x.sum(1))[:, None])


@pytest.mark.parametrize(
    ("n", "churn", "gain"), [(150, 0.0, 0.707), (10, 0.0, 0.715), (3, 0.0, 0.735), (150, 20.0, 0.756)]
)
def test_projection_needs_few_steps_and_no_churn(n: int, churn: float, gain: float) -> None:
    """Exact 0.756; from a wider start than 1 the flow reaches it without churn."""
    y = torch.ones(1, 1, dtype=F64)
    denoiser = guidance.project(independent(STD), PART, y, posterior_variance(STD))
    x = last(sample(denoiser, karras(n, 1e-4, 1.0), silence, constraint=Free((1, 4, 1)), churn=Churn(churn))).x
    assert x[0, 0, 0].item() == pytest.approx(gain, abs=1e-3)
    assert x.sum().item() == pytest.approx(1, abs=1e-12)


@given(sigma=st.floats(0.01, 10), c=st.floats(0.2, 3))
@settings(max_examples=20, deadline=None)
def test_gaussian_sum_adds_the_score_of_an_honest_likelihood(sigma: float, c: float) -> None:
    x, mix = draw(2, 4, 5), draw(2, 5, seed=1)
    gamma = c * sigma
    leaf = x.clone().requires_grad_()
    likelihood = -((mix - leaf[:, [0, 2]].sum(1)) ** 2).sum() / (2 * gamma**2)
    (score,) = torch.autograd.grad(likelihood, leaf)
    got = guidance.gaussian_sum(independent(STD), (0, 2), mix, lambda s: c * s)(x, level(sigma))
    torch.testing.assert_close(got, independent(STD)(x, level(sigma)) + sigma**2 * score)
    coupled = guidance.couple(independent(STD), SumCoupling((0, 2), mix, c))(x, level(sigma))
    torch.testing.assert_close(coupled, got)


@given(sigma=st.floats(0.01, 10), slack=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_energy_through_the_denoiser_is_the_exact_posterior(sigma: float, slack: float) -> None:
    """-log N(y; sum D, slack^2 + sum of posterior variances) is the exact likelihood of a Gaussian prior."""
    x, y = draw(1, 4, 5), draw(1, 5, seed=1)

    def fn(x0: Tensor, s: Tensor) -> Tensor:
        return (y - x0.sum(1)) ** 2 / (2 * (slack**2 + posterior_variance(STD)(s).sum()))

    got = guidance.energy(independent(STD), fn)(x, level(sigma))
    mean, cov = given_sum(torch.diag(STD**2), y[0], ONES, slack)
    torch.testing.assert_close(got, gaussian(cov, mean)(x, level(sigma)), rtol=1e-6, atol=1e-9)
    assert not got.requires_grad


def test_energy_at_x0_takes_the_gradient_at_the_estimate() -> None:
    x, y, sigma = draw(1, 4, 5), draw(1, 5, seed=1), level(0.5)
    calls: list[bool] = []

    def spy(x: Tensor, s: Tensor) -> Tensor:
        calls.append(x.requires_grad)
        return independent(STD)(x, s)

    got = guidance.energy_at_x0(spy, lambda x0, s: (y - x0.sum(1)) ** 2 / 2)(x, sigma)
    x0 = independent(STD)(x, sigma)
    torch.testing.assert_close(got, x0 + sigma**2 * (y - x0.sum(1))[:, None].expand_as(x0))
    assert calls == [False]


def test_energies_work_inside_the_sampler_and_under_a_constraint() -> None:
    mix, values = draw(1, 5), draw(1, 4, 5, seed=1)
    known = Known(values, torch.tensor([True, False, False, False])[:, None])
    for way in (guidance.energy, guidance.energy_at_x0):
        plain, pulled = (
            last(
                sample(
                    way(independent(STD), lambda x0, s, w=w: w * (mix - x0.sum(1)) ** 2),
                    karras(20, 0.01, 1.0),
                    seeded(0, dtype=F64),
                    constraint=known,
                )
            ).x
            for w in (0.0, 3.0)
        )
        assert (pulled.sum(1) - mix).norm() < (plain.sum(1) - mix).norm()
        assert torch.equal(pulled[:, 0], values[:, 0])


COUPLINGS = [SumCoupling((0, 1, 3), draw(2, 5, seed=5), 0.7), SlotCoupling((0, 1, 3), 2, 0.8, 1.7)]


def test_slot_coupling_is_the_published_pair_of_scores() -> None:
    """GMSDI eq. 2, and for equal gammas the gradient of one joint log density."""
    x, sigma = draw(2, 4, 5), level(0.4)
    got = guidance.couple(lambda x, s: 0 * x, SlotCoupling((0, 1, 3), 2, 0.8, 1.7))(x, sigma) / sigma**2
    r = x[:, 2] - x[:, [0, 1, 3]].sum(1)
    for k in (0, 1, 3):
        torch.testing.assert_close(got[:, k], r / (0.8 * sigma) ** 2)
    torch.testing.assert_close(got[:, 2], -r / (1.7 * sigma) ** 2)
    leaf = x.clone().requires_grad_()
    joint = -((leaf[:, 2] - leaf[:, [0, 1, 3]].sum(1)) ** 2).sum() / (2 * (0.8 * sigma) ** 2)
    (score,) = torch.autograd.grad(joint, leaf)
    same = guidance.couple(lambda x, s: 0 * x, SlotCoupling((0, 1, 3), 2, 0.8, 0.8))(x, sigma) / sigma**2
    torch.testing.assert_close(same, score)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_couplings_rate_is_that_of_its_residual(coupling: guidance.Coupling) -> None:
    x = draw(2, 4, 5)
    r = coupling.residual(x)
    moved = coupling.residual(x + coupling.push(r, x)) - r
    torch.testing.assert_close(moved, coupling.rate * r)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_exact_step_is_the_limit_of_many_euler_steps(coupling: guidance.Coupling) -> None:
    """With a constant estimate one exact step equals 4000 small ones of the guided denoiser, and two exact ones."""
    x, target = draw(2, 4, 5), draw(2, 4, 5, seed=1)

    def constant(x: Tensor, s: Tensor) -> Tensor:
        return target

    def one(x: Tensor, a: float, b: float) -> Tensor:
        return guidance.exact(coupling)(constant, x, level(a), level(b), lambda: x, None)[0]

    levels = torch.logspace(0, -1, 4001, dtype=F64)
    small = last(sample(guidance.couple(constant, coupling), levels, silence, constraint=Free((2, 4, 5)), x=x)).x
    torch.testing.assert_close(one(x, 1.0, 0.1), small, rtol=0, atol=5e-3)
    torch.testing.assert_close(one(one(x, 1.0, 0.4), 0.4, 0.1), one(x, 1.0, 0.1))
    torch.testing.assert_close(one(one(x, 1.0, 0.4), 0.4, 0.0), one(x, 1.0, 0.0))
    settled = target + coupling.push(-coupling.residual(target), x) / (1 + coupling.rate)
    torch.testing.assert_close(one(x, 1.0, 0.0), settled)


def test_exact_integration_is_stable_where_explicit_steps_diverge() -> None:
    """The published gamma: fine at 20 Euler steps, divergent at 10; exact at any number, with the same limit."""
    y, c = torch.ones(1, 1, dtype=F64), 2**0.5 * 0.75
    coupling = SumCoupling(PART, y, c)

    def gains(n: int, stiff: bool) -> Tensor:
        denoiser = guidance.couple(independent(STD), coupling) if stiff else independent(STD)
        step = euler if stiff else guidance.exact(coupling)
        return last(sample(denoiser, karras(n, 1e-4, 1.0), silence, constraint=Free((1, 4, 1)), step=step)).x[0, :, 0]

    assert (gains(10, True).sum() - 1).abs() > 10
    assert gains(20, True)[0].item() == pytest.approx(0.393, abs=1e-3)
    assert gains(150, True)[0].item() == pytest.approx(0.403, abs=1e-3)
    for n, tolerance in ((150, 1e-4), (20, 0.005), (10, 0.02), (3, 0.05)):
        assert gains(n, False)[0].item() == pytest.approx(0.4047, abs=tolerance)


def test_exact_integration_is_of_second_order() -> None:
    """Stems and their mixture sampled together: half the step, a quarter of the error against a fine Heun solution."""
    std = torch.tensor([0.3, 0.2, 0.1, 0.4], dtype=F64)
    coupling, x, free = SlotCoupling((0, 1, 2), 3, 1.0, 1.5), draw(1, 4, 5), Free((1, 4, 5))

    def run(n: int, denoiser: Denoiser, step: Step) -> Tensor:
        levels = torch.logspace(0, -1, n + 1, dtype=F64)
        return last(sample(denoiser, levels, silence, constraint=free, step=step, x=x)).x

    want = run(400, guidance.couple(independent(std), coupling), heun)
    errors = [(run(n, independent(std), guidance.exact(coupling)) - want).abs().max().item() for n in (10, 20, 40)]
    assert errors[0] / errors[1] == pytest.approx(4, abs=1.2)
    assert errors[1] / errors[2] == pytest.approx(4, abs=1.0)


def test_strong_exact_coupling_tends_to_agreement() -> None:
    x = draw(1, 4, 5)
    tight = SlotCoupling((0, 1, 2), 3, 0.01, 0.01)
    noise = seeded(0, dtype=F64)
    made = last(
        sample(
            independent(STD), karras(5, 0.01, 1.0), noise, constraint=Free((1, 4, 5)), step=guidance.exact(tight), x=x
        )
    )
    torch.testing.assert_close(made.x[:, :3].sum(1), made.x[:, 3], rtol=0, atol=1e-5)


def test_guidance_wraps_the_full_state_before_restriction() -> None:
    """Only the free slots feel the pull, and all of its gap is theirs to see."""
    values, mix, x, sigma = draw(1, 4, 5, seed=1), draw(1, 5), draw(1, 4, 5, seed=2), level(0.3)
    known = Known.held(values, torch.tensor([True, True, False, False])[:, None], seeded(0, dtype=F64))
    guided = guidance.gaussian_sum(independent(STD), PART, mix, lambda s: s)
    got, plain = restrict(guided, known)(x, sigma), restrict(independent(STD), known)(x, sigma)
    gap = mix - known.lift(x, sigma).sum(1)
    torch.testing.assert_close((got - plain)[:, 2:], gap[:, None].expand(1, 2, 5))
    assert bool(((got - plain)[:, :2] == 0).all())


@pytest.mark.parametrize("step", [heun, dpmpp_2m])
def test_projected_flows_reach_the_exact_gain_from_a_wide_start(step: object) -> None:
    y = torch.ones(1, 1, dtype=F64)
    denoiser = guidance.project(independent(STD), PART, y, posterior_variance(STD))
    x = last(sample(denoiser, karras(200, 1e-4, 100.0), silence, constraint=Free((1, 4, 1)), step=step)).x[0, :, 0]
    torch.testing.assert_close(x, STD**2 / (STD**2).sum(), rtol=0, atol=2e-3)


def test_a_mixture_that_sums_itself_is_refused() -> None:
    with pytest.raises(QueryError, match="slot 1 cannot be one of"):
        SlotCoupling((0, 1), 1, 1.0, 1.0)
