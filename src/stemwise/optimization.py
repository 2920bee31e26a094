"""Steps down a loss: the optimizers that recipes describe, the rate of each step, the running mean of weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stemwise.errors import RecipeError
from stemwise.recipe import OptimSection


class Muon(torch.optim.Optimizer):
    """Momentum, each matrix of it replaced by the nearest orthogonal one (Jordan et al. 2024).

    Axes after the first are flattened. Five quintic Newton-Schulz steps bring the singular values near 1;
    the update is then scaled to about the root mean square of AdamW's (0.2, Liu et al. 2025).
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                mean = state["mean"].mul_(group["momentum"]).add_(weight.grad)
                ahead = weight.grad.add(mean, alpha=group["momentum"])  # Nesterov's look ahead
                update = orthogonal(ahead.flatten(1))
                size = 0.2 * math.sqrt(max(update.shape))
                weight.mul_(1.0 - group["lr"] * group["weight_decay"])
                weight.add_(update.reshape(weight.shape), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values moved to between about 0.7 and 1.2.

    bfloat16 is enough, but a CPU without such arithmetic takes some 15 times as long with it as with float32.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    slow = matrix.device.type == "cpu" and not native_bfloat16()
    x = (matrix.T if tall else matrix).to(torch.float32 if slow else torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices itself."""
    return any(getattr(torch.cpu, test, bool)() for test in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))


def optimizers(module: nn.Module, optim: OptimSection) -> list[torch.optim.Optimizer]:
    """Muon for the matrices below the names in `optim.muon`, AdamW for all else; biases and norms do not decay.

    Raises RecipeError where a name of `optim.muon` is not in the network.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    for prefix in optim.muon:
        if not any(name.startswith(f"{prefix}.") for name, _ in named):
            allowed = ", ".join(sorted({".".join(name.split(".")[:2]) for name, _ in named}))
            raise RecipeError(f"optim.muon: no part of the network is called {prefix!r}; it has: {allowed}")
    below = tuple(f"{prefix}." for prefix in optim.muon)
    matrices = [parameter for name, parameter in named if parameter.ndim > 1 and name.startswith(below)]
    others = [parameter for name, parameter in named if not (parameter.ndim > 1 and name.startswith(below))]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, optim.muon_lr, weight_decay=optim.weight_decay))
    if groups:
        made.append(torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas))
    return made


def schedule(optim: OptimSection, step: int, steps: int) -> float:
    """Factor on the learning rates at step 0 <= step < steps: linear warm-up, then the decay that the recipe names."""
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    if optim.decay == "constant":
        return 1.0
    if optim.decay == "rsqrt":
        return math.sqrt(max(optim.warmup, 1) / (step + 1))
    done = min(1.0, (step - optim.warmup) / max(1, steps - optim.warmup))
    left = math.sqrt(1.0 - done) if optim.decay == "sqrt" else 0.5 * (1.0 + math.cos(math.pi * done))
    return optim.final + (1.0 - optim.final) * left


class Ema:
    """Running mean of the parameters that train, in float32. Its decay rises to `decay`, so early weights fade soon."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        training = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        self._names = [name for name, _ in training]
        self._live = [parameter.data for _, parameter in training]
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
