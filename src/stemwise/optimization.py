"""Steps down a loss: AdamW as recipes describe it, the learning rate of each step, the running mean of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from stemwise.recipe import OptimSection


def adamw(module: nn.Module, optim: OptimSection) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; biases and the scales of norms do not decay."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=optim.lr, betas=optim.betas)


def learning_rate(optim: OptimSection, step: int, steps: int) -> float:
    """Rate of step 0 <= step < steps: linear warm-up, then the decay that the recipe names."""
    if step < optim.warmup:
        return optim.lr * (step + 1) / optim.warmup
    if optim.decay == "constant":
        return optim.lr
    if optim.decay == "rsqrt":
        return optim.lr * math.sqrt(max(optim.warmup, 1) / (step + 1))
    done = (step - optim.warmup) / max(1, steps - optim.warmup)
    return optim.lr * (optim.final + (1.0 - optim.final) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))


class Ema:
    """Running mean of a module's parameters, in float32. Its decay rises to `decay`, so early weights fade soon."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in module.named_parameters()]
        self._live = [parameter.data for parameter in module.parameters()]
        self.mean = [tensor.detach().float().clone() for tensor in self._live]

    def update(self, step: int) -> None:
        """Move the mean towards the present weights; `step` counts from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, [tensor.float() for tensor in self._live], 1.0 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module carries the mean inside, its own weights again outside."""
        kept = [tensor.clone() for tensor in self._live]
        torch._foreach_copy_(self._live, self.mean)
        try:
            yield
        finally:
            torch._foreach_copy_(self._live, kept)

    def state(self) -> dict[str, Tensor]:
        """The mean by parameter name."""
        return dict(zip(self._names, self.mean))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take a stored mean."""
        for mean, name in zip(self.mean, self._names):
            mean.copy_(state[name])
