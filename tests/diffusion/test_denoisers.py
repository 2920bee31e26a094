from __future__ import annotations

import math

import pytest
import torch
from gaussian_oracles import gaussian
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.diffusion import denoisers, schedules
from stemwise.diffusion.denoisers import (
    Edm,
    FromEps,
    FromFlow,
    FromV,
    FromX0,
    Net,
    Predicts,
    absent,
    bind,
    clean,
    diffused,
)
from stemwise.errors import QueryError

F64 = torch.float64


def state(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@given(sigma=st.floats(1e-3, 1e3), std=st.floats(0.01, 10))
@settings(max_examples=25, deadline=None)
def test_every_parametrisation_gives_the_gaussian_answer(sigma: float, std: float) -> None:
    x, level = state(2, 3, 5), torch.tensor(sigma, dtype=F64)
    want = std**2 / (std**2 + sigma**2) * x
    eps, alpha = (x - want) / sigma, 1 / math.sqrt(1 + sigma**2)

    def at(vp: Tensor, out: Tensor) -> Tensor:  # networks that know the answer, and check what they are given
        torch.testing.assert_close(vp, x * alpha)
        return out

    torch.testing.assert_close(FromEps(lambda z, t: at(z, eps))(x, level), want)
    torch.testing.assert_close(FromV(lambda z, t: at(z, alpha * eps - sigma * alpha * want))(x, level), want)
    torch.testing.assert_close(FromX0(lambda z, t: at(z, want))(x, level), want)
    torch.testing.assert_close(FromFlow(lambda z, t: eps - want)(x, level), want)
    torch.testing.assert_close(Edm(lambda z, t: torch.zeros_like(z), std)(x, level), want)


def test_networks_are_given_their_own_time() -> None:
    seen: list[Tensor] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x

    x, sigma = state(2, 3, 5), torch.tensor(2.0, dtype=F64)
    FromV(net)(x, sigma)
    FromFlow(net)(x, sigma)
    Edm(net, 0.5)(x, sigma)
    FromEps(net)(x, sigma)
    want = [2 / math.pi * math.atan(2), 2 / 3, math.log(2) / 4, 2.0]
    for t, value in zip(seen, want, strict=True):
        torch.testing.assert_close(t, torch.full((2,), value, dtype=F64))


def test_discrete_times_invert_the_table() -> None:
    alphas = schedules.scaled_linear_beta(50)
    table = schedules.sigma_table(alphas)
    torch.testing.assert_close(denoisers.interpolated(alphas)(table), torch.arange(50, dtype=F64))
    between = (table[10] * table[11]).sqrt()
    assert float(denoisers.interpolated(alphas)(between)) == pytest.approx(10.5)
    assert float(denoisers.nearest(alphas)(table[11] * 0.999)) == 11
    outside = torch.tensor([1e-6, 1e6], dtype=F64)
    assert denoisers.nearest(alphas)(outside).tolist() == [0, 49]


WRAPPERS = [
    lambda net: Edm(net, 0.5),
    FromEps,
    FromV,
    FromX0,
    FromFlow,
    lambda net: FromEps(net, denoisers.interpolated(schedules.linear_beta())),
]


def per_slot(x: Tensor, t: Tensor) -> Tensor:
    """A network without cross-talk between slots, so that slots can be compared one by one."""
    return torch.tanh(x + denoisers.align(t, x))


@pytest.mark.parametrize(("predicts", "wrapper"), [("noise", FromEps), ("velocity", FromV)])
def test_a_network_that_says_what_it_was_trained_to_say_finds_the_clean_state(
    predicts: Predicts, wrapper: type
) -> None:
    generator = torch.Generator().manual_seed(0)
    truth, noise = torch.randn(2, 3, 2, 5, dtype=torch.float64, generator=generator)
    level = torch.tensor([0.9, 0.5, 0.01], dtype=torch.float64)
    noisy, said = diffused(truth, noise, level, predicts)
    exploding = noisy / level.sqrt()[:, None, None]
    torch.testing.assert_close(wrapper(lambda z, t: said)(exploding, (1 / level - 1).sqrt()), truth)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_sigma_of_every_shape_means_the_same(wrapper: type) -> None:
    denoiser, x = wrapper(per_slot), state(2, 3, 5)
    levels = torch.tensor([[0.1, 0.7, 3.0], [0.02, 20.0, 0.5]], dtype=F64)
    together = denoiser(x, levels)
    for item in range(2):
        for slot in range(3):
            alone = denoiser(x[item : item + 1, slot : slot + 1], levels[item, slot])
            torch.testing.assert_close(together[item : item + 1, slot : slot + 1], alone)
    torch.testing.assert_close(denoiser(x, levels[:, 0])[1:], denoiser(x[1:], levels[1, 0]))


def test_edm_loss_is_the_error_of_the_raw_network() -> None:
    x0, noise, sigma = state(2, 3, 5), state(2, 3, 5, seed=1), torch.tensor([[0.1, 1, 3], [0.5, 2, 9]], dtype=F64)
    level, data = sigma[..., None], 0.5
    x = x0 + level * noise
    raw = per_slot(x / (level**2 + data**2).sqrt(), sigma.log() / 4)
    target = (x0 - data**2 / (level**2 + data**2) * x) * (level**2 + data**2).sqrt() / (level * data)
    torch.testing.assert_close(Edm(per_slot, data).loss(x0, sigma, noise), (raw - target).square().mean(-1))
    per_item = Edm(per_slot, data).loss(x0, sigma[:, 0], noise)
    assert per_item.shape == (2,)


def test_the_preconditioned_target_has_unit_variance() -> None:
    x0 = 0.5 * state(1, 1, 20000)
    for sigma in (0.01, 0.5, 20.0):
        loss = Edm(lambda x, t: torch.zeros_like(x), 0.5).loss(
            x0, torch.tensor([sigma], dtype=F64), state(1, 1, 20000, seed=1)
        )
        assert float(loss) == pytest.approx(1, abs=0.05)


def test_edm_takes_a_data_deviation_per_slot() -> None:
    x, sigma = state(2, 3, 5), torch.tensor(0.7, dtype=F64)
    data = torch.tensor([[0.1, 0.5, 2.0]], dtype=F64)
    got = Edm(per_slot, data)(x, sigma)
    for slot in range(3):
        alone = Edm(per_slot, float(data[0, slot]))(x[:, slot : slot + 1], sigma)
        torch.testing.assert_close(got[:, slot : slot + 1], alone)


def test_training_levels_are_log_normal() -> None:
    sigma = denoisers.log_normal(lambda shape: state(*shape), (20000,), -3.0, 1.0)
    assert float(sigma.median()) == pytest.approx(math.exp(-3), rel=0.03)
    assert float(sigma.log().std()) == pytest.approx(1, rel=0.03)


def test_a_scalar_level_cannot_train() -> None:
    with pytest.raises(QueryError, match="scalar"):
        denoisers.squared_error(FromX0(per_slot), state(2, 3, 5), torch.tensor(0.1), state(2, 3, 5))


def test_clamped_limits_the_estimate_only() -> None:
    x = 3 * state(2, 3, 5)
    free, got = FromX0(per_slot)(x, torch.tensor(0.1)), denoisers.clamped(FromX0(per_slot), 0.2)(x, torch.tensor(0.1))
    torch.testing.assert_close(got, free.clamp(-0.2, 0.2))
    assert float(got.abs().max()) == pytest.approx(0.2)


COV = torch.tensor([[1.0, 0.6, 0.3], [0.6, 1.0, -0.2], [0.3, -0.2, 0.5]], dtype=F64)


def test_bound_clean_slots_condition_and_absent_ones_marginalise() -> None:
    x, sigma = state(2, 1, 5), torch.tensor(0.8, dtype=F64)
    known = state(2, 5, seed=1)
    got = bind(gaussian(COV), {0: clean(known, 1e-6), 2: absent(state(2, 5, seed=2), 1e6)})(x, sigma)
    mean = COV[1, 0] / COV[0, 0] * known[:, None]
    variance = COV[1, 1] - COV[1, 0] ** 2 / COV[0, 0]
    torch.testing.assert_close(got, mean + variance / (variance + sigma**2) * (x - mean), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [torch.tensor(0.5), torch.tensor([0.5, 0.7]), torch.tensor([[0.5, 0.6], [0.7, 0.8]])])
def test_bound_model_sees_slots_in_order_with_their_levels(sigma: Tensor) -> None:
    seen: list[Tensor] = []

    def model(x: Tensor, levels: Tensor) -> Tensor:
        seen.extend([x, levels])
        return 10 * x

    x, known, noise = state(2, 2, 4, 5), state(2, 4, 5, seed=1), state(2, 4, 5, seed=2)
    got = bind(model, {3: absent(noise, 80.0), 1: clean(known, 0.01)})(x, sigma)
    full, levels = seen
    torch.testing.assert_close(got, 10 * x)
    torch.testing.assert_close(full, torch.stack([x[:, 0], known, x[:, 1], 80 * noise], 1))
    free = denoisers.align(sigma, levels[:, [0, 2]]).expand(2, 2)
    torch.testing.assert_close(levels[:, [0, 2]], free)
    torch.testing.assert_close(levels[:, [1, 3]], torch.tensor([[0.01, 80.0]] * 2, dtype=F64))


def test_bound_slots_that_do_not_fit_are_refused() -> None:
    net: Net = per_slot
    with pytest.raises(QueryError, match="sigma_min"):
        clean(state(2, 5), 0.0)
    with pytest.raises(QueryError, match=r"slot 1 .*shape"):
        bind(net, {1: clean(state(2, 4), 0.1)})(state(2, 2, 5), torch.tensor(0.1))
    with pytest.raises(QueryError, match=r"\[7\] do not fit"):
        bind(net, {7: clean(state(2, 5), 0.1)})(state(2, 2, 5), torch.tensor(0.1))
