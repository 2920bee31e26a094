"""A running median over 31 rows by comparisons alone: fast on a CPU, batched on any device, differentiable.

Neighbouring windows share most of their elements. Sixteen windows in a row share 16 elements, which are sorted once;
then the windows are halved four times, 16 to 8 to 4 to 2 to 1, each half adding the elements that it alone shares and
keeping only the ranks in which the median can still lie. Every comparison is a minimum or a maximum of whole arrays,
46 a median in all. (Shared sorted cores: Adams, "Fast Median Filters using Separable Sorting Networks", 2021.) Autograd
sends the gradient to the element that is the median.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

WIDTH = 31
_GROUP = 16
#: Elements of one lane that a CPU processes at once, so that all lanes together stay in its cache.
_LANE = 32768


def running_median(x: Tensor) -> Tensor:
    """Median of every 31 consecutive rows: (..., rows + 30, columns) -> (..., rows, columns)."""
    rows, columns = x.shape[-2] - (WIDTH - 1), x.shape[-1]
    groups = -(-rows // _GROUP)
    spare = groups * _GROUP - rows
    if spare:
        x = torch.cat([x, x[..., -1:, :].expand(*x.shape[:-2], spare, columns)], dim=-2)
    count = groups * x.shape[:-2].numel()
    step = max(64, _LANE // max(count, 1)) if x.device.type == "cpu" else columns
    parts = [_medians(x[..., first : first + step], groups) for first in range(0, columns, step)]
    return torch.cat(parts, dim=-1)[..., :rows, :]


def _medians(x: Tensor, groups: int) -> Tensor:
    """(..., 16 groups + 30, columns) -> (..., 16 groups, columns)."""
    last = _GROUP * (groups - 1) + 1
    lanes = [x[..., i : i + last : _GROUP, :] for i in range(_GROUP + WIDTH - 1)]
    core = _sorted(lanes[_GROUP - 1 : WIDTH])
    return torch.stack(_halve(lanes, 0, core), dim=-2).flatten(-3, -2)


def _halve(lanes: list[Tensor], first: int, core: list[Tensor]) -> list[Tensor]:
    """The medians of as many windows, from `first` on, as `core` has elements.

    `core` holds, sorted, those of the elements that all these windows share in which a median can still lie: with w
    windows these are 32 - w elements, of which all but w have been left out because too many are smaller or larger.
    """
    windows = len(core)
    if windows == 1:
        return core
    half = windows // 2
    before = lanes[first + half - 1 : first + windows - 1]
    after = lanes[first + WIDTH : first + WIDTH + half]
    return [
        *_halve(lanes, first, _middle(core, _sorted(before))),
        *_halve(lanes, first + half, _middle(core, _sorted(after))),
    ]


def _middle(long: list[Tensor], short: list[Tensor]) -> list[Tensor]:
    """Of the sorted union of two sorted lists with 2 n and n elements, the n in the middle.

    The k-th smallest of a union is min over i + j = k of max(a_i, b_j), with a_0 = b_0 = minus infinity.
    """
    n = len(short)
    middle = []
    for k in range(n + 1, 2 * n + 1):
        smallest = long[k - 1]
        for j in range(1, n + 1):
            smallest = torch.minimum(smallest, torch.maximum(long[k - j - 1], short[j - 1]))
        middle.append(smallest)
    return middle


def _sorted(values: list[Tensor]) -> list[Tensor]:
    """The same values, elementwise in ascending order."""
    values = list(values)
    for i, j in _comparators(len(values)):
        values[i], values[j] = torch.minimum(values[i], values[j]), torch.maximum(values[i], values[j])
    return values


@functools.cache
def _comparators(count: int) -> tuple[tuple[int, int], ...]:
    """Batcher's odd-even merge sort (1968) for a power of two: the pairs of places to put in order, one after another."""
    pairs = []
    size = 1
    while size < count:
        apart = size
        while apart:
            for first in range(apart % size, count - apart, 2 * apart):
                for i in range(first, first + apart):
                    if i // (2 * size) == (i + apart) // (2 * size):
                        pairs.append((i, i + apart))
            apart //= 2
        size *= 2
    return tuple(pairs)
