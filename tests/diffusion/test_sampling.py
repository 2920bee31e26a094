from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from gaussian_oracles import finite, gaussian, independent
from torch import Tensor

from stemwise.diffusion.constraints import Free, Known
from stemwise.diffusion.denoisers import absent, bind, clean
from stemwise.diffusion.sampling import (
    Churn,
    Step,
    ancestral,
    dpm2_ancestral,
    dpmpp_2m,
    euler,
    heun,
    last,
    preserving,
    sample,
    seeded,
    tape,
)
from stemwise.diffusion.schedules import exponential, karras
from stemwise.errors import QueryError

F64 = torch.float64
SHAPE = (1, 3, 4)
STD = torch.tensor([1.0, 0.3, 2.0], dtype=F64)
EVERY_STEP = [euler, heun, dpmpp_2m, ancestral, dpm2_ancestral]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def nonlinear(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.tanh(x + 0.3 * x.roll(1, 1)) / (1 + sigma)


@pytest.mark.parametrize(("step", "order"), [(euler, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence_on_the_gaussian_flow(step: Step, order: int) -> None:
    """Exact flow of a Gaussian: x in proportion to sqrt(std^2 + sigma^2); half the step, 2^order times less error."""
    x = draw(*SHAPE)
    want = x * ((STD**2 + 0.1**2) / (STD**2 + 3.0**2)).sqrt()[:, None]
    errors = []
    for n in (40, 80, 160):
        levels = exponential(n, 3 * (0.1 / 3) ** ((n - 1) / n), 3.0)[:-1]
        levels = torch.cat([levels, torch.tensor([0.1], dtype=F64)])  # n even steps in log sigma from 3 to 0.1
        states = sample(independent(STD), levels, seeded(0), constraint=Free(SHAPE), step=step, x=x)
        errors.append((last(states).x - want).abs().max().item())
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_samples_have_the_deviation_of_the_data(step: Step) -> None:
    shape = (1, 3, 4000)
    levels = karras(60, 1e-3, 100.0)
    x = last(sample(independent(STD), levels, seeded(0, dtype=F64), constraint=Free(shape), step=step)).x
    torch.testing.assert_close(x.std(2)[0], STD, rtol=0.15, atol=0)


@pytest.mark.parametrize("step", [euler, heun, dpmpp_2m])
def test_churn_leaves_the_deviation_of_the_data(step: Step) -> None:
    """A multistep rule must not extrapolate from before the added noise, which it would make several times as loud."""
    start = 3 * draw(1, 1, 4000)
    levels = karras(150, 1e-3, 3.0)
    states = sample(
        independent(STD[1:2]), levels, seeded(0, dtype=F64), constraint=Free((1, 1, 4000)), step=step, x=start,
        churn=Churn(40.0),
    )  # fmt: skip
    assert last(states).x.std().item() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_samples_of_a_finite_set_are_its_members(step: Step) -> None:
    points = 3 * draw(5, 3, 4, seed=2)
    levels = karras(40, 1e-2, 30.0)
    x = last(sample(finite(points), levels, seeded(1, dtype=F64), constraint=Free((64, 3, 4)), step=step)).x
    distance = torch.cdist(x.flatten(1), points.flatten(1))
    assert distance.min(1).values.max() < 0.05
    assert len(distance.argmin(1).unique()) == 5


def test_ancestral_step_is_the_posterior_of_the_forward_process() -> None:
    """Given x0 and x at sigma, x at sigma' has mean and variance of two independent Gaussian views of one point."""
    a, b = torch.tensor(2.0, dtype=F64), torch.tensor(0.7, dtype=F64)
    x, x0, n = draw(*SHAPE), draw(*SHAPE, seed=1), draw(*SHAPE, seed=2)
    got, _ = ancestral(lambda x, s: x0, x, a, b, lambda: n, None)
    mean = x0 + (b / a) ** 2 * (x - x0)
    deviation = b * (1 - (b / a) ** 2).sqrt()
    torch.testing.assert_close(got, mean + deviation * n)


def test_ancestral_with_eta_0_is_euler() -> None:
    x, a, b = draw(*SHAPE), torch.tensor(2.0, dtype=F64), torch.tensor(0.7, dtype=F64)
    got, _ = ancestral(nonlinear, x, a, b, lambda: x * math.nan, None, eta=0.0)
    torch.testing.assert_close(got, euler(nonlinear, x, a, b, lambda: x, None)[0])


def test_dpm2_ancestral_is_the_published_update() -> None:
    """The midpoint in sigma^(1/rho), slope there, then noise up."""
    a, b, rho = torch.tensor(2.0, dtype=F64), torch.tensor(0.7, dtype=F64), 3.0
    x, n = draw(*SHAPE), draw(*SHAPE, seed=1)
    up = (b**2 * (a**2 - b**2) / a**2).sqrt()
    down = (b**2 - up**2).sqrt()
    middle = ((a ** (1 / rho) + down ** (1 / rho)) / 2) ** rho
    x_middle = x + (middle - a) * (x - nonlinear(x, a)) / a
    want = x + (down - a) * (x_middle - nonlinear(x_middle, middle)) / middle + up * n
    torch.testing.assert_close(dpm2_ancestral(nonlinear, x, a, b, lambda: n, None, rho=rho)[0], want)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_the_step_to_zero_returns_the_estimate(step: Step) -> None:
    x, a, zero = draw(*SHAPE), torch.tensor(0.5, dtype=F64), torch.tensor(0.0, dtype=F64)
    made, denoised = step(nonlinear, x, a, zero, lambda: x * math.nan, None)
    torch.testing.assert_close(made, nonlinear(x, a))
    torch.testing.assert_close(denoised, made)


def test_seeds_reproduce_and_differ() -> None:
    def run(seed: int) -> Tensor:
        states = sample(
            nonlinear, karras(5, 0.1, 2.0), seeded(seed), constraint=Free(SHAPE), step=ancestral, churn=Churn(1.0)
        )
        return last(states).x

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert run(1).dtype == torch.float32  # the float64 schedule does not promote the state


def test_order_of_draws_and_tapes_reproduce() -> None:
    """Start; then each turn fresh, churn, step, and re-noising unless it is the last."""
    known = Known(draw(*SHAPE, seed=1), torch.tensor([True, False, False])[:, None])
    drawn: list[Tensor] = []
    source = seeded(0, dtype=F64)

    def recording(shape: tuple[int, ...]) -> Tensor:
        drawn.append(source(shape))
        return drawn[-1]

    def run(noise: object) -> Tensor:
        levels = torch.tensor([2.0, 1.0, 0.5], dtype=F64)
        return last(sample(nonlinear, levels, noise, constraint=known, step=ancestral, churn=Churn(1.0), resample=2)).x

    first = run(recording)
    assert len(drawn) == 1 + 2 * (2 * 3 + 1)
    assert torch.equal(run(tape(drawn)), first)
    with pytest.raises(QueryError, match="at its end"):
        run(tape(drawn[:-1]))
    with pytest.raises(QueryError, match=r"draw 3 .* shape"):
        run(tape([*drawn[:3], drawn[3][:, :2], *drawn[4:]]))


def test_one_churned_step_with_resampling_is_the_msdm_loop() -> None:
    """Written out: churn, Euler to the next level, noise back to the level, again."""
    start, churn, back = draw(*SHAPE), [draw(*SHAPE, seed=k) for k in (1, 2)], draw(*SHAPE, seed=3)
    a, b = 2.0, 0.7
    hat = a * (1 + min(5 / 1, math.sqrt(2) - 1))
    x = a * start
    for turn in range(2):
        x = x + 1.1 * math.sqrt(hat**2 - a**2) * churn[turn]
        x = x + (b - hat) * (x - nonlinear(x, torch.tensor(hat, dtype=F64))) / hat
        if turn == 0:
            x = x + math.sqrt(a**2 - b**2) * back
    noise = tape([start, churn[0], back, churn[1]])
    levels = torch.tensor([a, b], dtype=F64)
    got = last(sample(nonlinear, levels, noise, constraint=Free(SHAPE), churn=Churn(5.0, scale=1.1), resample=2)).x
    torch.testing.assert_close(got, x)


def test_churn_keeps_to_its_levels() -> None:
    churn = Churn(10.0, low=0.5, high=1.5, scale=1.1)
    levels = [churn.raised(torch.tensor(s), 100).item() for s in (0.4, 1.0, 2.0)]
    assert levels == pytest.approx([0.4, 1.1, 2.0])


def test_states_tell_where_the_loop_is() -> None:
    levels = karras(4, 0.1, 2.0)
    states = list(sample(nonlinear, levels, seeded(0, dtype=F64), constraint=Free(SHAPE), resample=2))
    assert [(s.index, s.turn) for s in states] == [(i, r) for i in range(4) for r in range(2)]
    assert [s.sigma.item() for s in states[::2]] == levels[1:].tolist()
    assert [s.share for s in states] == [(k + 1) / 8 for k in range(8)]
    torch.testing.assert_close(states[-1].x, states[-1].denoised)


def test_leaving_the_loop_stops_the_work_and_gradients_stay_on_outside() -> None:
    calls: list[bool] = []

    def counting(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return 0.5 * x

    for state in sample(counting, karras(10, 0.1, 2.0), seeded(0), constraint=Free(SHAPE)):
        assert torch.is_grad_enabled()
        if state.index == 2:
            break
    assert calls == [False] * 3


def test_multistep_history_starts_anew_after_re_noising() -> None:
    seen: list[bool] = []

    def spying(denoiser, x, sigma, sigma_next, draw, past, /):
        seen.append(past is None)
        return euler(denoiser, x, sigma, sigma_next, draw, past)

    last(sample(nonlinear, karras(2, 0.1, 2.0), seeded(0), constraint=Free(SHAPE), step=spying, resample=2))
    assert seen == [True, True, False, True]


def test_a_start_of_ones_own_is_used() -> None:
    x = preserving(torch.tensor(3.0, dtype=F64)) * draw(*SHAPE)
    levels = torch.tensor([3.0, 1.0], dtype=F64)
    got = last(sample(nonlinear, levels, seeded(0), constraint=Free(SHAPE), x=x)).x
    torch.testing.assert_close(got, euler(nonlinear, x, levels[0], levels[1], lambda: x, None)[0])
    assert preserving(torch.tensor(3.0)).item() == pytest.approx(math.sqrt(10))


@pytest.mark.parametrize("bad", [[1.0], [1.0, 2.0], [1.0, 1.0, 0.0]])
def test_levels_that_do_not_fall_are_refused(bad: list[float]) -> None:
    with pytest.raises(QueryError, match="falling"):
        last(sample(nonlinear, torch.tensor(bad), seeded(0), constraint=Free(SHAPE)))


def test_sampling_bound_slots_gives_the_conditional_distribution() -> None:
    """A model with a level per slot: one stem heard, one absent, one sampled: exact, without resampling."""
    cov = torch.tensor([[1.0, 0.8, 0.5], [0.8, 1.0, 0.3], [0.5, 0.3, 1.0]], dtype=F64)
    n = 4000
    fixed = {0: clean(torch.ones(1, n, dtype=F64), 1e-3), 2: absent(draw(1, n), 1e3)}
    denoiser = bind(gaussian(cov), fixed)
    x = last(sample(denoiser, karras(40, 1e-3, 50.0), seeded(0, dtype=F64), constraint=Free((1, 1, n)), step=heun)).x
    assert x.mean().item() == pytest.approx(0.8, abs=0.03)
    assert x.std().item() == pytest.approx(0.6, abs=0.03)
