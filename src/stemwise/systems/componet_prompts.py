"""The relations between what CompoNet hears and what it makes: their names, how they are drawn, how they are told.

Both sides are sets of stems, as masks of bits (batch, stem) in the order of the model's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from stemwise.stems import Part

Task = Literal["generate", "accompany", "separate", "add", "replace", "same"]
TASKS: tuple[Task, ...] = ("generate", "accompany", "separate", "add", "replace")
"""What training draws, each as often as the others; separate is also extract and remove."""

Form = Literal["released", "paper"]


def task(heard: Part, wanted: Part) -> Task:
    """The relation between two sets of stems; "same" asks for what is there."""
    if not heard:
        return "generate"
    if not heard & wanted:
        return "accompany"
    if heard == wanted:
        return "same"
    if wanted < heard:
        return "separate"
    return "add" if heard < wanted else "replace"


def prompt(heard: Sequence[str], wanted: Sequence[str], form: Form = "released") -> str:
    """The words for a relation: "in: bass_1, drums_1; out: guitar_1", or in the paper's form "bass, drums SEP guitar".

    The numbers count sources of one name, of which ours have one each.
    """
    if form == "paper":
        return " ".join([*([", ".join(heard)] if heard else []), "SEP", ", ".join(wanted)])
    return "; ".join(
        f"{side}: {', '.join(f'{name}_1' for name in names)}".rstrip()
        for side, names in (("in", heard), ("out", wanted))
    )


def subsets(count: int) -> Tensor:
    """All sets of `count` stems as bits (2^count, count), bool; row i holds the bits of i, the first stem the lowest."""
    rows, bits = torch.arange(2**count, device="cpu"), torch.arange(count, device="cpu")
    return rows[:, None].bitwise_right_shift(bits).bitwise_and(1).bool()


def number(bits: Tensor) -> Tensor:
    """The row of `subsets` for bits (..., count)."""
    return (bits.long() << torch.arange(bits.shape[-1], device=bits.device)).sum(-1)


class Sampler:
    """Draws relations over the stems that sound: first one of the `tasks`, those possible equally often, then its sets.

    At most `most` stems are wanted at once.
    """

    def __init__(self, names: Sequence[str], tasks: Sequence[Task] = TASKS, most: int | None = None) -> None:
        self.sets = subsets(len(names))
        most = len(names) if most is None else most
        rows = [frozenset(name for name, there in zip(names, row) if there) for row in self.sets.tolist()]
        kinds = [[task(heard, wanted) if 0 < len(wanted) <= most else "none" for wanted in rows] for heard in rows]
        self.tasks = torch.tensor([[[kind == one for kind in row] for row in kinds] for one in tasks], device="cpu")

    def draw(self, sounding: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is heard and what is wanted (B, stem), bool, given what sounds (B, stem).

        Where too few stems sound for any of the tasks, silent ones are drawn, too.
        """
        sounding = sounding.cpu()
        inside = ~(self.sets[None] & ~sounding[:, None]).any(-1)  # (B, set): only stems that sound
        allowed = self.tasks[None] & (inside[:, :, None] & inside[:, None, :])[:, None]
        counts = allowed.sum((2, 3), keepdim=True)
        weights = (allowed / counts.clamp_min(1)).sum(1).flatten(1)
        weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, self.tasks.sum(0).flatten().to(weights))
        device = generator.device
        drawn = torch.multinomial(weights.to(device), 1, generator=generator)[:, 0].cpu()
        heard, wanted = drawn // len(self.sets), drawn % len(self.sets)
        return self.sets[heard].to(device), self.sets[wanted].to(device)
