"""The running median by comparisons is the median, and its gradient goes to the median element."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.coherence.median import running_median


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 3), st.integers(2, 1000), st.integers(0, 2**31))
def test_it_is_the_median_of_every_31_rows(rows: int, columns: int, batch: int, values: int, seed: int) -> None:
    # few distinct values make ties
    x = torch.randint(values, (batch, rows + 30, columns), generator=torch.Generator().manual_seed(seed)).float()
    expected = x.unfold(-2, 31, 1).median(dim=-1).values
    assert torch.equal(running_median(x), expected)


def test_wide_inputs_are_worked_through_in_pieces() -> None:
    x = torch.randn(2, 46, 40_000)
    assert torch.equal(running_median(x)[..., 39_000:], x[..., 39_000:].unfold(-2, 31, 1).median(dim=-1).values)


def test_the_gradient_is_one_at_the_median_and_zero_elsewhere() -> None:
    x = torch.randperm(31).double()[:, None].requires_grad_()
    running_median(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (x == 15).double())
