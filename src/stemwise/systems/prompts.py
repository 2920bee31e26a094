"""What a source is described with, and how a model that is told things becomes the denoiser of many sources at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stemwise.diffusion import Denoiser
from stemwise.errors import QueryError


@dataclass(frozen=True)
class Prompt:
    """What a source is described with, what it is not, and how far to go from the one to the other.

    The estimate is D(against) + weight (D(words) - D(against)); nothing in `against` means no description at all
    (classifier-free guidance). `weight` 1 is the described model alone, in one evaluation instead of two. A prompt without
    words is of a source that nobody described.
    """

    words: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        both = [word for word in self.words if word in self.against]
        if both:
            raise QueryError(f"{', '.join(both)} is wanted and unwanted at once; leave it out of the negative words")


Evaluate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(signals (n, ...), sigma (n,), which description (n,)) -> clean estimates (n, ...)."""


def descriptions(prompts: Sequence[Prompt]) -> list[tuple[str, ...]]:
    """All that a model must be told for prompts: the words of each, then those against it, where that has a weight."""
    return [prompt.words for prompt in prompts] + [prompt.against for prompt in prompts if prompt.weight != 1]


def folded(evaluate: Evaluate, prompts: Sequence[Prompt], most: int = 64) -> Denoiser:
    """The denoiser of states (batch, slot, ...), a prompt for each slot; `evaluate` knows `descriptions(prompts)`.

    All slots, with and against their words, are evaluated at once, in pieces of at most `most` signals; a piece that does
    not fit into a GPU's memory is halved.
    """
    guided = [slot for slot, prompt in enumerate(prompts) if prompt.weight != 1]
    weight = torch.tensor([prompts[slot].weight for slot in guided])

    def pieces(signals: Tensor, levels: Tensor, rows: Tensor, most: int) -> Tensor:
        try:
            parts = zip(signals.split(most), levels.split(most), rows.split(most))
            return torch.cat([evaluate(*part) for part in parts])
        except torch.cuda.OutOfMemoryError:
            if most == 1:
                raise
        torch.cuda.empty_cache()
        return pieces(signals, levels, rows, most // 2)

    def denoise(x: Tensor, sigma: Tensor, /) -> Tensor:
        level = torch.as_tensor(sigma).to(x)
        level = level.expand(x.shape[: max(1, level.ndim)])
        every = level[:, None].expand(x.shape[:2]) if level.ndim == 1 else level
        signals, levels = torch.cat([x, x[:, guided]], 1), torch.cat([every, every[:, guided]], 1)
        rows = torch.arange(signals.shape[1], device=x.device).repeat(len(x))
        found = pieces(signals.flatten(0, 1), levels.flatten(), rows, min(most, len(rows)))
        found = found.unflatten(0, signals.shape[:2])
        if not guided:
            return found
        wanted, unwanted = found.split([x.shape[1], len(guided)], 1)
        bend = weight.to(x).reshape(-1, *[1] * (x.ndim - 2))
        bent = unwanted + bend * (wanted[:, guided] - unwanted)
        return wanted.index_copy(1, torch.tensor(guided, device=x.device), bent)

    return denoise
