"""How well notes were assigned to instruments: labels against true labels, one integer a note."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]


def confusion(found: Labels, truth: Labels, count: int) -> NDArray[np.int64]:
    """Notes by true label (row) and label found (column): int64 (count, count)."""
    table = np.zeros((count, count), dtype=np.int64)
    np.add.at(table, (truth, found), 1)
    return table


def note_accuracy(tables: Sequence[NDArray[np.int64]]) -> float:
    """Share of all notes of all songs whose label is right. Unit: 1."""
    return float(sum(np.trace(table) for table in tables) / max(1, sum(table.sum() for table in tables)))


def balanced_accuracy(tables: Sequence[NDArray[np.int64]]) -> float:
    """Mean over the labels that occur of the share of their notes that is right. Unit: 1."""
    total = np.sum(tables, axis=0)
    there = total.sum(axis=1) > 0
    return float((np.diag(total)[there] / total.sum(axis=1)[there]).mean())


def permuted_accuracy(tables: Sequence[NDArray[np.int64]]) -> float:
    """As `note_accuracy`, the labels of each song renamed in the way that suits it best.

    It tells notes that are grouped rightly but under another name from notes that are grouped wrongly. Unit: 1.
    """
    from scipy.optimize import linear_sum_assignment

    right = 0
    for table in tables:
        rows, columns = linear_sum_assignment(-table)
        right += int(table[rows, columns].sum())
    return float(right / max(1, sum(table.sum() for table in tables)))
