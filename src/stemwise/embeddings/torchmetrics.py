"""Fréchet audio distance as a `torchmetrics.Metric`, for training loops and several processes.

    from stemwise.embeddings import load_embedding
    from stemwise.embeddings.torchmetrics import FrechetAudioDistance

    metric = FrechetAudioDistance(load_embedding("vggish", "models/vggish"))
    metric.update(reference, 44_100, real=True)
    metric.update(generated, 44_100, real=False)
    metric.compute()

torchmetrics is imported when the class is asked for, not with stemwise.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stemwise.metrics.frechet import Gaussian, frechet_distance
from stemwise.metrics.moments import Moments

if TYPE_CHECKING:
    from stemwise.embeddings.embedding import Embedding


def __getattr__(name: str) -> Any:
    if name == "FrechetAudioDistance":
        return _metric()
    raise AttributeError(name)


@cache
def _metric() -> type:
    from torchmetrics import Metric

    class FrechetAudioDistance(Metric):
        """FAD between all that was given as real and as generated; states merge exactly over batches and processes."""

        is_differentiable = False
        higher_is_better = False
        full_state_update = False
        real: Tensor
        generated: Tensor

        def __init__(self, embedding: Embedding, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self._embedding = embedding
            nothing = torch.zeros(embedding.dimensions + 2, embedding.dimensions, dtype=torch.float64)
            self.add_state("real", nothing.clone(), dist_reduce_fx=_pooled)
            self.add_state("generated", nothing.clone(), dist_reduce_fx=_pooled)

        def update(self, audio: Tensor, rate: int, *, real: bool) -> None:
            """Take in signals (batch, time) or (batch, channel, time), at `rate` hertz."""
            signals = audio.detach().float().cpu()
            for signal in signals.mean(1) if signals.ndim == 3 else signals:
                frames = self._embedding.embed(signal.numpy(), rate)
                state = self.real if real else self.generated
                merged = _pooled(torch.stack([state, _packed(Moments.of(frames)).to(state.device)]))
                setattr(self, "real" if real else "generated", merged)

        def compute(self) -> Tensor:
            """The distance, float64. Raises MetricError where a side has fewer than two frames."""
            sides = [Gaussian.from_moments(Moments.pooled(_unpacked(state))) for state in (self.real, self.generated)]
            return torch.tensor(frechet_distance(*sides), dtype=torch.float64)

        def set_dtype(self, dst_type: Any) -> FrechetAudioDistance:
            """Statistics stay float64 whatever the type of the model around them."""
            return self

    return FrechetAudioDistance


def _packed(moments: Moments) -> Tensor:
    """One tensor (d + 2, d): the count, the mean, the scatter."""
    count = np.full((1, len(moments.mean)), float(moments.count))
    return torch.from_numpy(np.concatenate([count, moments.mean[None], moments.scatter]))


def _unpacked(state: Tensor) -> list[Moments]:
    """The moments in a packed state; none where nothing was taken in."""
    count, values = int(state[0, 0]), state.cpu().numpy().astype(np.float64)
    return [Moments(count, values[1], values[2:])] if count else []


def _pooled(states: Tensor) -> Tensor:
    """Packed states (n, d + 2, d) -> that of all of them together."""
    parts = [part for state in states for part in _unpacked(state)]
    return _packed(Moments.pooled(parts)).to(states.device) if parts else states[0]
