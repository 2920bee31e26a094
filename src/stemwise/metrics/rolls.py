"""Figures of separated piano rolls: the two published with Mixture2Music (arXiv 2209.02696), and two that cannot be gamed.

Rolls are bool (segment, stem, time, pitch), a mixture is (segment, time, pitch). All results lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stemwise.errors import MetricError


def consistency(made: Tensor, mixture: Tensor) -> float:
    """Share of all cells where what sounds in any stem differs from the mixture; 0 is best.

    As published, "the mixture in every stem" is perfect by this figure: never read it alone.
    """
    _check(made, made.shape[:1] + made.shape[2:], mixture)
    return float((made.any(1) != mixture).double().mean())


def diversity(truth: Tensor, made: Tensor, mixture: Tensor) -> float:
    """Share of all cells of all stems where the truth differs from what was made on the mixture.

    Published as diversity, where more may be better; it is a Hamming distance, and cannot tell new from wrong.
    """
    _check(made, truth.shape, truth)
    _check(made, made.shape[:1] + made.shape[2:], mixture)
    return float((truth != (made & mixture[:, None])).double().mean())


def label_accuracy(truth: Tensor, made: Tensor, mixture: Tensor) -> float:
    """Share of the mixture's cells to which exactly the right stems were assigned, all of them and no other."""
    _check(made, truth.shape, truth)
    right = (truth == made).all(1)[mixture]
    if not len(right):
        raise MetricError("the mixtures are silent: no cell has a label; give segments with notes")
    return float(right.double().mean())


def label_f1(truth: Tensor, made: Tensor, mixture: Tensor) -> float:
    """F1 of all labels (cell, stem) on the mixture's cells: 2 both / (both + wrong or missing + both)."""
    _check(made, truth.shape, truth)
    return _f1(truth & mixture[:, None], made & mixture[:, None])


def label_f1_by_stem(truth: Tensor, made: Tensor, mixture: Tensor, names: Sequence[str]) -> dict[str, float]:
    """`label_f1` of each stem; 1 where a stem neither plays nor was assigned anything."""
    inside = mixture
    return {name: _f1(truth[:, k] & inside, made[:, k] & inside) for k, name in enumerate(names)}


def _f1(truth: Tensor, made: Tensor) -> float:
    both, total = int((truth & made).sum()), int(truth.sum()) + int(made.sum())
    return 2 * both / total if total else 1.0


def _check(made: Tensor, shape: Sequence[int], other: Tensor) -> None:
    if made.dim() != 4 or tuple(other.shape) != tuple(shape) or made.dtype != torch.bool or other.dtype != torch.bool:
        raise MetricError(
            f"rolls are bool (segment, stem, time, pitch), mixtures the same without the stem; got {made.dtype} "
            f"{tuple(made.shape)} and {other.dtype} {tuple(other.shape)}"
        )
