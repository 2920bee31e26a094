"""A system without a network, which writes down what it is asked: what reaches it is tested sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stemwise.model import Model
from stemwise.systems.system import Context, System

RATE, WINDOW = 8000, 300
HOP = 200
"""Windows repeat a third of the one before."""


@dataclass(frozen=True)
class Asked:
    """A call of `sample`."""

    wanted: tuple[str, ...]
    context: Context
    seed: int
    steps: int
    made: Tensor


@dataclass(eq=False)
class Plain(System):
    """Noise of the seed where nothing is fixed; separated, every stem has an equal share, the first one `louder` times it."""

    side: int = 1
    asked: list[Asked] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    lengths: list[int | None] = field(default_factory=list)
    hears: int = WINDOW
    louder: float = 1.0
    prior: Any = field(default_factory=lambda: torch.nn.Linear(1, 1))
    precision: torch.dtype = torch.float32

    names = ("bass", "drums", "other")
    rate, window, evaluations, steps, steps_beside = RATE, WINDOW, 2, 5, 7  # type: ignore[assignment]

    @property
    def channels(self) -> int:
        return self.side

    def listening(self, frames: int | None = None) -> int:
        self.lengths.append(frames)
        return self.hears

    def over_song(self, stems: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in stems:
            block[: len(block) // 3] *= self.louder
            yield block

    def separate(self, wave: Tensor, evaluations: int, told: Any = None) -> tuple[Tensor, Tensor]:
        self.spent.append(evaluations)
        return (wave / 3)[:, None].expand(-1, 3, -1, -1).clone(), 0 * wave

    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        noise = torch.Generator().manual_seed(seed % 2**63)
        made = context.scale * torch.randn(len(wanted), self.side, WINDOW, generator=noise)
        for row, name in enumerate(wanted):
            if name in context.fixed:
                signal, where = context.fixed[name]
                made[row] = torch.where(where, signal, made[row])
        self.asked.append(Asked(tuple(wanted), context, seed, steps, made))
        return made


def plain(channels: int = 1) -> tuple[Model, Plain]:
    """A model around it, and the system, which remembers."""
    system = Plain(channels)
    return Model("plain", system, torch.device("cpu"), Path(), {}), system
