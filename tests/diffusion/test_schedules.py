from __future__ import annotations

import pytest
import torch

from stemwise.diffusion import schedules
from stemwise.errors import QueryError


def test_karras_is_even_in_the_root_of_sigma_and_ends_with_zero() -> None:
    sigmas = schedules.karras(10, 1e-4, 20.0, 7.0)
    root = sigmas[:-1] ** (1 / 7)
    assert sigmas.shape == (11,) and sigmas.dtype == torch.float64
    torch.testing.assert_close(root.diff(), root.diff()[:1].expand(9))
    torch.testing.assert_close(sigmas[[0, 9, 10]], torch.tensor([20.0, 1e-4, 0.0], dtype=torch.float64))


def test_exponential_has_a_constant_ratio_and_is_the_limit_of_karras() -> None:
    sigmas = schedules.exponential(9, 0.01, 1.0)
    torch.testing.assert_close(sigmas[1:-1] / sigmas[:-2], torch.full((8,), 0.01 ** (1 / 8), dtype=torch.float64))
    torch.testing.assert_close(sigmas, schedules.karras(9, 0.01, 1.0, 1e6), rtol=1e-5, atol=0)


def test_one_step_goes_from_sigma_max_to_zero() -> None:
    assert schedules.karras(1, 0.01, 3.0).tolist() == pytest.approx([3.0, 0.0])
    assert schedules.exponential(1, 0.01, 3.0).tolist() == pytest.approx([3.0, 0.0])


def test_flow_is_even_in_time_and_shift_multiplies_sigma() -> None:
    sigmas = schedules.flow(8, 50.0)
    t = sigmas / (1 + sigmas)
    assert sigmas[0] == pytest.approx(50.0) and sigmas[-1] == 0
    torch.testing.assert_close(t.diff(), t.diff()[:1].expand(8))
    torch.testing.assert_close(schedules.flow(8, 150.0, shift=3.0), 3 * sigmas)


def test_sigma_table_inverts_alphas_cumprod() -> None:
    alphas = schedules.linear_beta(100)
    table = schedules.sigma_table(alphas)
    torch.testing.assert_close(1 / (1 + table**2), alphas)
    assert bool((table.diff() > 0).all())


def test_timesteps_read_the_table_and_fractions_interpolate() -> None:
    alphas = schedules.scaled_linear_beta(100)
    table = schedules.sigma_table(alphas)
    got = schedules.from_alphas_cumprod(alphas, torch.tensor([99.0, 50.5, 0.0]))
    torch.testing.assert_close(got, torch.stack([table[99], (table[50] + table[51]) / 2, table[0], table[0] * 0]))


@pytest.mark.parametrize("n", [4, 7])
def test_spacings_are_those_of_their_names(n: int) -> None:
    assert schedules.even_timesteps(n, 100)[[0, -1]].tolist() == [99, 0]
    assert schedules.leading_timesteps(n, 100, 1)[-1] == 1
    assert schedules.trailing_timesteps(n, 100)[0] == 99
    for spacing in (schedules.even_timesteps, schedules.leading_timesteps, schedules.trailing_timesteps):
        assert bool((spacing(n, 100).diff() < 0).all())


def test_a_single_step_begins_in_noise() -> None:
    """The first leading one is nearly clean: sampled from there, noise would be given back."""
    for spacing in ("leading", "trailing"):
        assert schedules.spaced_timesteps(spacing, 1, 1000).tolist() == [999]
    assert schedules.spaced_timesteps("leading", 2, 1000).tolist() == schedules.ddim_timesteps(2, 1000).tolist()


@pytest.mark.parametrize("n", [1, 5, 10, 20, 50, 150, 200, 500])
def test_ddim_steps_are_the_published_ones(n: int) -> None:
    """Leading spacing from step 1, also at 150, which does not divide 1000: its first step is 895."""
    assert torch.equal(schedules.ddim_timesteps(n, 1000), schedules.leading_timesteps(n, 1000, 1))


@pytest.mark.parametrize("n", [334, 400, 501, 600, 999, 1000, 5000])
def test_many_ddim_steps_begin_in_the_noise(n: int) -> None:
    times = schedules.ddim_timesteps(n, 1000)
    assert len(times) == min(n, 999) and len(times.unique()) == len(times)
    assert 990 <= times[0] <= 999 and times[-1] == 1
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("bad", [(0, 0.1, 1.0), (5, 0.0, 1.0), (5, 2.0, 1.0)])
def test_impossible_levels_are_refused(bad: tuple[int, float, float]) -> None:
    for schedule in (schedules.karras, schedules.exponential):
        with pytest.raises(QueryError, match="sigma_min"):
            schedule(*bad)


def test_zero_signal_and_absent_timesteps_are_refused() -> None:
    with pytest.raises(QueryError, match="between 0 and 1"):
        schedules.sigma_table(torch.tensor([0.9, 0.0]))
    with pytest.raises(QueryError, match=r"0\.\.9"):
        schedules.from_alphas_cumprod(schedules.linear_beta(10), torch.tensor([10.0]))
