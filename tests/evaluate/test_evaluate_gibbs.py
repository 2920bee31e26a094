"""Gibbs sampling around a separator, tested with stand-ins whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stemwise.errors import QueryError
from stemwise.evaluate.gibbs import gibbs


def halves(mixture: Tensor) -> Tensor:
    """A separator that gives away only a part of what it hears."""
    return torch.stack([0.6 * mixture, 0.2 * mixture], dim=1)


def test_stems_sum_to_the_mixture_after_any_number_of_steps() -> None:
    mixture = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))
    for steps in (1, 2, 50):
        torch.testing.assert_close(gibbs(halves, mixture, steps).sum(1), mixture)


def test_a_perfect_separator_is_left_alone() -> None:
    low, high = torch.zeros(1, 1, 64), torch.zeros(1, 1, 64)
    low[..., :32], high[..., 32:] = 1.0, 2.0

    def perfect(mixture: Tensor) -> Tensor:
        return torch.stack([mixture * (low > 0), mixture * (high > 0)], dim=1)

    torch.testing.assert_close(gibbs(perfect, low + high, 64), torch.stack([low, high], dim=1))


def test_the_same_seed_gives_the_same_stems_and_every_step_separates_at_most_once() -> None:
    calls = []

    def counted(mixture: Tensor) -> Tensor:
        calls.append(1)
        return halves(mixture)

    mixture = torch.ones(1, 2, 16)
    first = gibbs(counted, mixture, 32, seed=3)
    assert len(calls) <= 32
    assert torch.equal(first, gibbs(halves, mixture, 32, seed=3))


def test_bad_questions_are_refused() -> None:
    with pytest.raises(QueryError, match="at least one step"):
        gibbs(halves, torch.ones(1, 1, 8), 0)
    with pytest.raises(QueryError, match="gave the shape"):
        gibbs(lambda mixture: mixture, torch.ones(1, 1, 8))
