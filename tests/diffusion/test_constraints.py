from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gaussian_oracles import gaussian, given_sum, independent, silence
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.diffusion.constraints import Constraint, Free, Known, SumEven, SumTo, Support, restrict
from stemwise.diffusion.sampling import Churn, ancestral, dpmpp_2m, euler, heun, last, sample, seeded
from stemwise.diffusion.schedules import karras
from stemwise.errors import QueryError

F64 = torch.float64
SHAPE = (2, 5, 3)


def draw(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mix(seed: int = 9) -> Tensor:
    return draw(seed)[:, 0]


def slots(*chosen: int) -> Tensor:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, list(chosen)] = True
    return mask


def spans() -> Tensor:
    """Known in some spans of time of slots 0 and 1, differing between the items of the batch."""
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0, 0, 1:] = mask[1, 1, :2] = True
    return mask


def held() -> Constraint:
    return Known.held(draw(1), spans(), seeded(4, dtype=F64))


CONSTRAINTS: dict[str, Constraint] = {
    "free": Free(SHAPE),
    "known": Known(draw(1), spans()).fresh(seeded(3, dtype=F64)),
    "held": held(),
    "support": Support(~spans()),
    "sum_to": SumTo((0, 1, 3), mix(), 1, 5),
    "sum_to_all": SumTo((0, 1, 2, 3, 4), mix(), 4, 5),
    "sum_even": SumEven((1, 2, 4), mix(), 5),
    "known.sum_to": held().then(SumTo((2, 3, 4), mix(), 2, 5)),
    "sum_even.known": SumEven((2, 3), mix(), 5).then(held()),
    "two_sums": SumTo((0, 1), mix(), 0, 5).then(SumEven((2, 4), mix(8), 5)),
    "three": SumEven((3, 4), mix(), 5).then(Known(draw(1), slots(0))).then(Support(~slots(1))),
}
every_constraint = pytest.mark.parametrize("constraint", CONSTRAINTS.values(), ids=CONSTRAINTS.keys())


@every_constraint
@given(seed=st.integers(0, 10**6), sigma=st.floats(0, 100))
@settings(max_examples=10, deadline=None)
def test_pull_is_the_adjoint_of_the_lifts_linear_part(constraint: Constraint, seed: int, sigma: float) -> None:
    u, v = draw(seed), draw(seed + 1)
    moved = constraint.lift(u, sigma) - constraint.lift(torch.zeros_like(u), sigma)
    torch.testing.assert_close((moved * v).sum(), (u * constraint.pull(v)).sum())


@every_constraint
@given(seed=st.integers(0, 10**6), weight=st.floats(-3, 3))
@settings(max_examples=10, deadline=None)
def test_lift_is_affine_and_stays_on_the_set(constraint: Constraint, seed: int, weight: float) -> None:
    a, b = draw(seed), draw(seed + 1)
    one, other = constraint.lift(a, 0.7), constraint.lift(b, 0.7)
    torch.testing.assert_close(constraint.lift(weight * a + (1 - weight) * b, 0.7), weight * one + (1 - weight) * other)
    torch.testing.assert_close(constraint.lift(one, 0.7), one)


@every_constraint
def test_noise_lives_in_the_free_coordinates(constraint: Constraint) -> None:
    """Moving along noise stays on the set, and noise is white there: its covariance is its own square."""
    noise = constraint.noise(seeded(0, dtype=F64))
    free = (constraint.pull(draw(1)) != 0) if not isinstance(constraint, Free) else torch.ones(SHAPE, dtype=torch.bool)
    moved = constraint.lift(noise, 0.0) - constraint.lift(torch.zeros_like(noise), 0.0)
    assert bool((moved[free] != 0).all())
    axes = torch.eye(noise.numel(), dtype=F64).reshape(-1, *SHAPE)
    images = iter(axes)
    cov = torch.stack([constraint.noise(lambda _: next(images)).flatten() for _ in axes])
    torch.testing.assert_close(cov.T @ cov, (cov.T @ cov) @ (cov.T @ cov), atol=1e-12, rtol=0)


@every_constraint
def test_lift_and_pull_leave_their_arguments_alone(constraint: Constraint) -> None:
    u, copy = draw(1), draw(1)
    constraint.lift(u, 0.5)
    constraint.pull(u)
    torch.testing.assert_close(u, copy, rtol=0, atol=0)


def cross_talk(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.tanh(x + 0.3 * x.roll(1, 1))


def test_sum_to_gives_the_published_dirac_and_sum_even_the_mean_free_direction() -> None:
    x, sigma, part = draw(1), torch.tensor(0.3, dtype=F64), [0, 1, 3]
    dirac, even = SumTo((0, 1, 3), mix(), 1, 5), SumEven((0, 1, 3), mix(), 5)
    for constraint in (dirac, even):
        on_plane = constraint.lift(x, sigma)
        e = (on_plane - cross_talk(on_plane, sigma)) / sigma
        d = (x - restrict(cross_talk, constraint)(x, sigma)) / sigma
        want = e.clone()
        want[:, part] -= e[:, 1:2] if constraint is dirac else e[:, part].mean(1, keepdim=True)
        torch.testing.assert_close(d, want)


def test_restrict_evaluates_once_on_the_lifted_state() -> None:
    seen: list[Tensor] = []
    constraint = held()

    def spy(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x)
        return x

    restrict(spy, constraint)(draw(2), torch.tensor(0.4))
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], constraint.lift(draw(2), 0.4))


def test_known_carries_noise_of_the_level_where_known_only() -> None:
    values, u, n = draw(1), draw(2), seeded(3, dtype=F64)(SHAPE)
    known = Known(values, spans()).fresh(seeded(3, dtype=F64))
    torch.testing.assert_close(known.lift(u, 0.5), torch.where(spans(), values + 0.5 * n, u))
    levels = torch.tensor([0.5, 2.0], dtype=F64)
    torch.testing.assert_close(known.lift(u, levels)[1:], torch.where(spans(), values + 2 * n, u)[1:])


def test_fresh_redraws_known_and_a_held_draw_stays() -> None:
    source = seeded(3, dtype=F64)
    known = Known(draw(1), spans()).fresh(source)
    kept = Known.held(draw(1), spans(), source)
    assert not torch.equal(known.fresh(source).lift(draw(2), 1.0), known.lift(draw(2), 1.0))
    assert kept.fresh(source) is kept
    both = SumEven((2, 3), mix(), 5).then(Known(draw(1), spans()))
    assert not torch.equal(both.fresh(source).lift(draw(2), 1.0), both.fresh(source).lift(draw(2), 1.0))


@pytest.mark.parametrize(
    ("outer", "inner", "names"),
    [
        (
            SumTo((0, 1), mix(), 0, 5),
            SumEven((1, 2), mix(), 5),
            r"SumTo\(part=\(0, 1\), drop=0\) and SumEven\(part=\(1, 2\)\)",
        ),
        (
            Known(draw(1), slots(2)),
            SumTo((1, 2), mix(), 1, 5),
            r"Known\(slots \[2\]\) and SumTo\(part=\(1, 2\), drop=1\)",
        ),
        (Support(~slots(4)), Known(draw(1), slots(3, 4)), r"Support\(slots \[4\]\) and Known\(slots \[3, 4\]\)"),
    ],
)
def test_overlapping_evidence_is_refused_naming_both(outer: Constraint, inner: Constraint, names: str) -> None:
    with pytest.raises(QueryError, match=names):
        outer.then(inner)
    with pytest.raises(QueryError, match="subtract a known stem"):
        Free(SHAPE).then(outer).then(inner)


def test_impossible_sums_are_refused() -> None:
    with pytest.raises(QueryError, match="distinct slots"):
        SumEven((1, 1), mix(), 5)
    with pytest.raises(QueryError, match="distinct slots"):
        SumTo((1, 5), mix(), 1, 5)
    with pytest.raises(QueryError, match="slot 3 is not among"):
        SumTo((1, 2), mix(), 3, 5)
    with pytest.raises(QueryError, match="states"):
        SumEven((1, 2), mix(), 5).then(Known(draw(1)[:1], slots(0)[:1]))


@pytest.mark.parametrize("step", [euler, heun, dpmpp_2m, ancestral])
def test_results_agree_with_what_was_heard(step: object) -> None:
    """Sums to rounding, known values and silence bit for bit, for every step rule, with churn and resampling."""
    known = Known(draw(1), slots(0))
    constraint = SumEven((1, 3), mix(), 5).then(known).then(Support(~slots(4)))
    states = sample(
        cross_talk,
        karras(6, 0.01, 2.0),
        seeded(1, dtype=F64),
        constraint=constraint,
        step=step,
        churn=Churn(2.0),
        resample=2,
    )
    for state in states:
        torch.testing.assert_close(state.x[:, [1, 3]].sum(1), mix())
        assert bool((state.x[:, 4] == 0).all())
    assert torch.equal(state.x[:, 0], draw(1)[:, 0])


def response(std: Tensor, constraint: Callable, **options: object) -> list[float]:
    """The gain from a mixture of 1 to the stems with all noise silent."""
    y = torch.ones(1, 1, dtype=F64)
    states = sample(
        independent(std), karras(options.pop("n", 150), 1e-4, 1.0), silence, constraint=constraint(y), **options
    )
    return last(states).x[0, :, 0].tolist()


TWO, FOUR = torch.tensor([0.2, 0.05], dtype=F64), torch.tensor([0.2, 0.05, 0.1, 0.02], dtype=F64)


def test_the_dirac_flow_ends_at_the_ratio_of_amplitudes() -> None:
    """Two Gaussian sources: 0.2 / (0.2 + 0.05), not Wiener's 0.941; the published loop's figures for 150 and 1000."""
    coarse = response(TWO, lambda y: SumTo((0, 1), y, 0, 2))
    fine = response(TWO, lambda y: SumTo((0, 1), y, 0, 2), n=1000)
    assert coarse[1] == pytest.approx(0.19613104849583704, abs=1e-9)
    assert fine[1] == pytest.approx(0.1952943145875897, abs=1e-9)
    wide = last(
        sample(
            independent(TWO),
            karras(1000, 1e-4, 50.0),
            silence,
            constraint=SumTo((0, 1), torch.ones(1, 1, dtype=F64), 0, 2),
        )
    )
    assert wide.x[0, 0, 0].item() == pytest.approx(0.8, abs=3e-3)


@pytest.mark.parametrize(
    ("drop", "churn", "resample", "gains"),
    [
        (0, 0.0, 1, (0.6294, 0.11773949859984631, 0.19958875383849106, 0.05330998248974168)),
        (0, 20.0, 2, (0.7343, 0.06073532694369189, 0.19380428693884644, 0.011183991386080682)),
        (3, 20.0, 2, (0.6419840858411753, 0.0872544789150779, 0.25910706308882187, 0.01165)),
    ],
)
def test_the_published_dirac_gains_of_four_sources(
    drop: int, churn: float, resample: int, gains: tuple[float, ...]
) -> None:
    got = response(FOUR, lambda y: SumTo((0, 1, 2, 3), y, drop, 4), churn=Churn(churn), resample=resample)
    for k in range(4):
        assert got[k] == pytest.approx(gains[k], abs=1e-4 if k == drop else 1e-9)
    assert sum(got) == pytest.approx(1, abs=1e-12)


def test_restriction_is_an_approximation_that_churn_and_resampling_repair() -> None:
    """Gaps to the exact gain, 0.756: even coordinates 0.33 then 0.12, the paper's on the loudest 0.13 then 0.02."""
    exact = given_sum(torch.diag(FOUR**2), torch.ones(1, dtype=F64), torch.ones(4, dtype=F64))[0][0, 0].item()
    part = (0, 1, 2, 3)
    gap = {
        (name, churn): exact - response(FOUR, constraint, churn=Churn(churn), resample=1 + (churn > 0))[0]
        for name, constraint in {"even": lambda y: SumEven(part, y, 4), "paper": lambda y: SumTo(part, y, 0, 4)}.items()
        for churn in (0.0, 20.0)
    }
    assert [round(value, 2) for value in gap.values()] == [0.33, 0.12, 0.13, 0.02]


def test_known_neighbours_steer_the_rest_fully_only_with_resampling() -> None:
    """One of two stems, correlated 0.8, is known to be 1: exact mean 0.8, deviation 0.6; one pass hears half of it."""
    cov = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    values = torch.tensor([1.0, 0.0], dtype=F64)[None, :, None].expand(1, 2, 3000)
    means = []
    for resample in (1, 4, 16):
        known = Known(values, torch.tensor([True, False])[:, None])
        noise = seeded(0, dtype=F64)
        states = sample(
            gaussian(cov), karras(50, 0.01, 20.0), noise, constraint=known, step=ancestral, resample=resample
        )
        made = last(states).x[0, 1]
        means.append(made.mean().item())
    assert means == pytest.approx([0.47, 0.70, 0.78], abs=0.03)
    assert made.std().item() == pytest.approx(0.6, abs=0.07)
