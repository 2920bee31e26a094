"""Gibbs sampling around any regression separator: the baseline "Demucs + Gibbs" of the GMSDI poster (512 steps).

After Manilow et al. (2022), who re-estimate random groups of sources given the others. A separator that hears nothing
but mixtures is given what the kept stems leave of the mixture, and its answer is closed to sum to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from stemwise.errors import QueryError
from stemwise.evaluate.questions import Question, System
from stemwise.signals import channels_at, stereo_back
from stemwise.stems import Audio

Separator = Callable[[Tensor], Tensor]
"""Mixtures (batch, channel, time) -> stems (batch, stem, channel, time), in a fixed order."""

STEPS = 512
LEAST = 0.1
ANNEALED = 0.8


@torch.no_grad()
def gibbs(separator: Separator, mixture: Tensor, steps: int = STEPS, seed: int = 0) -> Tensor:
    """Stems (batch, stem, channel, time) of mixtures (batch, channel, time).

    Each step re-estimates every stem with a probability that falls linearly from 1 to 0.1 over the first four fifths
    (Yao et al. 2014): what the others leave of the mixture is separated, and the chosen stems' estimates are taken.
    With two stems nothing can change: one alone is what the other leaves, and both together are the first answer again.
    Raises QueryError for no steps, or a separator whose answer has another shape.
    """
    if steps < 1:
        raise QueryError(f"Gibbs sampling needs at least one step, got {steps}")
    draw = torch.Generator().manual_seed(seed)
    stems = separator(mixture)
    if stems.ndim != 4 or stems[:, 0].shape != mixture.shape:
        raise QueryError(f"the separator gave the shape {tuple(stems.shape)} for mixtures {tuple(mixture.shape)}")
    stems = _closed(stems, mixture)
    for step in range(1, steps):
        chance = max(LEAST, 1 - (1 - LEAST) * step / (ANNEALED * steps))
        chosen = (torch.rand(stems.shape[1], generator=draw) < chance).to(stems.device)
        if chosen.sum() < 2:
            continue  # a single stem is what the others leave, which it already is
        rest = mixture - stems[:, ~chosen].sum(1)
        stems[:, chosen] = _closed(separator(rest)[:, chosen], rest)
    return stems


def _closed(stems: Tensor, mixture: Tensor) -> Tensor:
    return stems + (mixture - stems.sum(1))[:, None] / stems.shape[1]


def gibbs_system(
    separator: Separator,
    names: tuple[str, ...],
    steps: int = STEPS,
    rate: int | None = None,
    channels: Literal[1, 2] | None = None,
) -> System:
    """The baseline as a system for `stemwise.evaluate`; `names` are the separator's stems in its order.

    `rate` in hertz and `channels` are what the separator needs, such as 44100 and 2 for Demucs: what was heard is brought
    there, and the stems back; what it cannot hear there of the mixture is shared equally. Without them it is given the
    question's own (more than two channels are folded to two). With two stems nothing can change, see `gibbs`.
    """

    def answer(question: Question) -> Audio:
        if question.query.task != "separate":
            raise QueryError(f"a separator cannot {question.query.task}; choose another system")
        (signal,) = question.query.heard.values()
        assert isinstance(signal, Audio)
        heard = signal.mix()[0]
        inner, sides = rate or signal.rate, channels or min(2, len(heard))
        mixture = channels_at(heard.numpy(), signal.rate, inner, sides)
        made = gibbs(separator, mixture[None], steps, question.seed)[0].cpu()
        back = stereo_back(made, inner, signal.rate, signal.frames, len(heard))
        stems = Audio(names, _closed(back[None], heard[None]), signal.rate)
        return stems.select([name for name in question.truth.names if name in question.query.wanted])

    return answer
