"""Bootstrap intervals: reproducible, right for a case with a known answer, and clear about bad values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.metrics.statistics import bootstrap, paired

values = st.lists(st.floats(-100, 100), min_size=1, max_size=20)


@given(values, st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_interval_holds_the_mean_and_repeats(data: list[float], seed: int) -> None:
    interval = bootstrap(data, seed, n=200)
    assert interval.low <= interval.mean <= interval.high
    assert interval == bootstrap(data, seed, n=200)
    assert min(data) - 1e-9 <= interval.low and interval.high <= max(data) + 1e-9


def test_width_is_that_of_a_mean_of_gaussians() -> None:
    data = np.random.default_rng(1).standard_normal(400)
    interval = bootstrap(data, n=40_000)
    half = 1.96 * data.std() / math.sqrt(len(data))
    assert interval.high - interval.mean == pytest.approx(half, rel=0.04)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.04)
    narrow = bootstrap(data, n=40_000, level=0.6827)
    assert (narrow.high - narrow.low) / 2 == pytest.approx(half / 1.96, rel=0.04)


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.arange(7.0)
    whole = bootstrap(data, seed=3, n=51)  # the last block is not whole
    monkeypatch.setattr("stemwise.metrics.statistics._BLOCK", 20)
    assert bootstrap(data, seed=3, n=51) == whole


def test_pairing_sees_a_difference_that_single_intervals_hide() -> None:
    random = np.random.default_rng(0)
    songs = 10 * random.standard_normal(40)
    a, b = songs + 1 + 0.1 * random.standard_normal(40), songs
    compared = paired(a, b, n=2000)
    assert compared.difference.low > 0.9 and compared.difference.high < 1.1
    assert compared.p_value == pytest.approx(2 / 2001) and compared.wins == 1.0
    assert bootstrap(a, n=500).low < bootstrap(b, n=500).mean


def test_a_system_against_itself() -> None:
    compared = paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], n=100)
    assert compared.difference.mean == compared.difference.low == compared.difference.high == 0.0
    assert compared.p_value == 1.0 and compared.wins == 0.5


def test_swapping_the_systems_flips_the_sign() -> None:
    a, b = [1.0, 5.0, 2.0], [0.0, 6.0, 1.5]
    there, back = paired(a, b, n=300), paired(b, a, n=300)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert there.p_value == back.p_value and there.wins == pytest.approx(1 - back.wins)


def test_few_songs_prove_nothing() -> None:
    """The signs of n differences agree by chance once in 2^(n - 1) times."""
    for n, sure in ((1, False), (3, False), (5, False), (6, True)):
        found = paired(np.arange(n) + 1.0, np.zeros(n))
        assert (found.p_value >= 2.0 ** (1 - n), found.sure) == (True, sure)


def test_songs_whose_values_were_filled_in_prove_nothing() -> None:
    a, b = np.array([3.5] * 10), np.array([3.0] * 10)
    found = paired(a, b, songs=1)
    assert (found.p_value, found.sure, found.difference.count) == (1.0, False, 1)
    assert paired(a, b).sure and paired(a, b).difference.count == 10


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf], [[1.0]]])
def test_bad_values(bad: list[float]) -> None:
    with pytest.raises(ValueError):
        bootstrap(bad)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="same songs"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="level"):
        bootstrap([1.0], level=1.0)
