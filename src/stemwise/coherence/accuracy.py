"""How often an encoder finds what belongs to a context among K candidates: the test of COCOLA (arXiv 2404.16969).

The published test takes the other windows of a batch as they come. Here it is fixed which ones count, other windows of
the same song or windows of other songs, and the answer is exact: the mean over all draws of K - 1 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stemwise.coherence.cocola import Cocola, PartName

Negatives = Literal["same song", "other songs"]
_BATCH = 16


@torch.no_grad()
def embedded(encoder: Cocola, signals: Sequence[NDArray[np.float32]], part: PartName = "both") -> Tensor:
    """Embeddings (signal, embedding) of mono windows of equal length at the encoder's rate, on the CPU."""
    device = next(encoder.parameters()).device
    rows = []
    for first in range(0, len(signals), _BATCH):
        audio = torch.from_numpy(np.stack(signals[first : first + _BATCH])).to(device)
        rows.append(encoder.embed(encoder.mask(encoder.features(audio), part)).float().cpu())
    return torch.cat(rows)


def found(scores: NDArray[np.floating], songs: Sequence[object], k: int, negatives: Negatives) -> NDArray[np.float64]:
    """For each context the chance that its own part scores highest among itself and k - 1 of the negatives.

    scores: (n, n), row i column j the score of context i with the part of window j. songs: (n,), the song of each window.
    A tie counts as not found. NaN where there are fewer than k - 1 negatives; 1 / k is a guess.
    """
    scores = np.asarray(scores, float)
    same = np.array([[a == b for b in songs] for a in songs])
    allowed = same & ~np.eye(len(songs), dtype=bool) if negatives == "same song" else ~same
    beaten = (allowed & (scores < scores.diagonal()[:, None])).sum(axis=1)
    there = allowed.sum(axis=1)
    return np.array(
        [comb(int(b), k - 1) / comb(int(m), k - 1) if m >= k - 1 else np.nan for b, m in zip(beaten, there)]
    )
