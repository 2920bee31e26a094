"""Rolls mix by max."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stemwise.errors import QueryError
from stemwise.stems import Rolls

NAMES = ("bass", "drums", "guitar", "piano")
parts = st.sets(st.sampled_from(NAMES))


def rolls(seed: int) -> Rolls:
    data = torch.randint(0, 3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Rolls(NAMES, data)


@given(seed=st.integers(0, 1000), a=parts, b=parts)
def test_a_part_of_parts_is_the_max_of_the_parts(seed: int, a: set[str], b: set[str]) -> None:
    one = rolls(seed)
    assert torch.equal(one[a | b], torch.maximum(one[a], one[b]))
    assert torch.equal(one[set(NAMES)], one.mix())


def test_order_comes_from_the_names() -> None:
    one = rolls(0)
    chosen = one.select(["piano", "bass"])
    assert (chosen.names, chosen.steps, chosen.lowest) == (("piano", "bass"), 4, 24)
    assert torch.equal(chosen["bass"], one["bass"])
    assert torch.equal(one.sounding(), one.data > 0)


def test_unknown_names_and_wrong_data_are_refused() -> None:
    with pytest.raises(QueryError, match="no stem named 'flute' here; there are: bass, drums"):
        rolls(0)["flute"]
    with pytest.raises(QueryError, match="uint8 data of shape"):
        Rolls(NAMES, torch.zeros(1, 4, 5, 6))
    with pytest.raises(QueryError, match="appears twice"):
        Rolls(("a", "a"), torch.zeros(1, 2, 5, 6, dtype=torch.uint8))
