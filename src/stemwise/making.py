"""New content over a whole signal of any length: window after window, each continuing the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.errors import QueryError
from stemwise.longform import ProgressCallback, continue_windows, tell
from stemwise.query import whole
from stemwise.signals import cut
from stemwise.systems.system import Context, System


@dataclass(frozen=True)
class Run:
    """Seed, number of sampling steps and who is told of the progress."""

    seed: int
    steps: int
    progress: ProgressCallback | None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if whole(self.steps, "steps") < 1:
            raise QueryError(f"steps is {self.steps}; it must be at least 1")

    def tell(self, done: float, total: float) -> None:
        """Report seconds of audio done; raises `Cancelled` when told to stop."""
        tell(self.progress, done, total, self.started)

    def within(self, start: int, end: int, total: int, rate: int) -> Callable[[float], None]:
        """What reports the share that is done of the frames from start to end."""
        return lambda share: self.tell((start + share * (end - start)) / rate, total / rate)


def make(
    system: System,
    wanted: tuple[str, ...],
    known: Mapping[str, Tensor],
    run: Run,
    *,
    scale: float,
    frames: int = 0,
    old: Mapping[str, Tensor] | None = None,
    inside: tuple[int, int] = (0, 0),
) -> Tensor:
    """Wanted stems (stem, channel, time) beside known ones (channel, time), at the system's rate: as long as the longest of
    these, and `frames` at least.

    `scale` is what the root mean square of the whole mixture is thought to be. Of `old`, what the wanted stems were, all but the
    frames `inside` stays.
    """
    window, overlap, channels = system.window, system.seam.overlap, system.channels
    device = next(system.prior.parameters()).device
    total = max([frames, *(signal.shape[-1] for signal in known.values())])

    def one(before: Tensor | None, index: int) -> Tensor:
        start = index * (window - overlap)
        frame = torch.arange(start, start + window)
        fixed = {}
        for row, name in enumerate(wanted):
            signal, where = torch.zeros(channels, window, dtype=torch.float32), torch.zeros(window, dtype=torch.bool)
            if old is not None:
                where = ((frame < inside[0]) | (frame >= inside[1])) & (frame < total)
                signal = cut(old[name], start, window) * where
            if before is not None:
                seam = frame < start + overlap
                signal = torch.where(seam, F.pad(before[row], (0, window - overlap)), signal)
                where = where | seam
            if where.any():
                fixed[name] = (signal.to(device), where.to(device))
        heard = {name: cut(signal, start, window).to(device) for name, signal in known.items()}
        told = run.within(start + overlap if index else 0, min(total, start + window), total, system.rate)
        made = system.sample(
            wanted, Context(heard, fixed, scale, told), seed=run.seed * 1_000_003 + index, steps=run.steps
        ).cpu()
        told(1.0)
        return made

    return torch.cat(list(continue_windows(one, total, window, overlap, fade=system.seam.fade)), dim=-1)
