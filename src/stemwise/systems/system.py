"""What every system is to a `Model`: answers about one window of a fixed rate and length."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from stemwise.diffusion import Constraint, Denoiser, Free, Known, Told
from stemwise.errors import ModelError, QueryError
from stemwise.query import Query

STEPS = 24
"""Sampling steps of new content where a model does not say."""


FADE_SECONDS = 0.03
"""In which the wave of a window takes over from the one before, where that is not repeated exactly."""


@dataclass(frozen=True)
class Context:
    """What a window is asked with: known stems (channel, time), where wanted ones are already known, a common scale.

    ``fixed`` maps wanted stems to (signal (channel, time), frames known: bool (time,)); ``scale`` is what the mixture's
    root mean square is thought to be, in sample units. ``told`` hears which share of the work is done.
    """

    known: Mapping[str, Tensor]
    fixed: Mapping[str, tuple[Tensor, Tensor]]
    scale: float
    told: Told | None = None


@dataclass(frozen=True)
class Seam:
    """How a window continues the one before: of how many frames of the past it is told, and over how many of the last of
    them its own wave takes over: none for systems that repeat what they are told sample by sample.
    """

    overlap: int
    fade: int = 0

    @classmethod
    def about(cls, window: int, rate: int, stride: int = 1) -> Seam:
        """Of a model that repeats a wave only about: a third of the window in whole latents or frames of `stride` samples."""
        overlap = max(1, window // 3 // stride) * stride
        return cls(overlap, min(overlap, round(FADE_SECONDS * rate)))


class System(ABC):
    """Separates and makes stems, one window at a time. What most systems have in common is theirs unless they say otherwise."""

    prior: Any
    """Its weights, an `nn.Module`."""
    precision: torch.dtype
    """What the network is evaluated in."""
    takes: ClassVar[tuple[str, ...]] = ()
    """The wishes that `asked` hears."""
    separating: ClassVar[tuple[str, ...]] = ()
    """Of these, what counts for nothing but separation."""

    @property
    def names(self) -> tuple[str, ...]:
        """The stems it knows, in order."""
        return tuple(self.prior.config.stems)

    @property
    def rate(self) -> int:
        """Sample rate in hertz."""
        return int(self.prior.config.rate)

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        return int(self.prior.config.window)

    def listening(self, frames: int | None = None) -> int:
        """Length of a window that is separated, in samples, of a song of so many (None: of a long one): `window`, or more where
        more is to be heard at once.
        """
        return self.window

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of a window: 1, or 2 for left and right."""

    @property
    def seam(self) -> Seam:
        """How its windows continue each other: a third of one is repeated, sample by sample."""
        return Seam(self.window // 3)

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Network evaluations a window that separation takes unless told otherwise."""

    @property
    def most_evaluations(self) -> int | None:
        """More than so many a window it has no use for; None: it has use for any number."""
        return None

    @property
    def steps(self) -> int:
        """Sampling steps a window of new content that are taken unless told otherwise."""
        return STEPS

    @property
    def steps_beside(self) -> int:
        """As `steps`, beside stems that are given."""
        return self.steps

    @property
    def sums(self) -> bool:
        """Whether what it separates sums to what it heard."""
        return True

    def asked(self, *_: Any, **wishes: Any) -> System:
        """With wishes, by name, each one that it `takes`. Raises QueryError for values that mean nothing."""
        raise NotImplementedError

    def answers(self, query: Query) -> str | None:
        """None, or why this system cannot answer."""
        return unanswerable(query, self.names, "this model")

    @abstractmethod
    def separate(self, wave: Tensor, evaluations: int, told: Told | None = None) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, channel, time) of mixtures (B, channel, time), and what they lacked of these before they were
        made to sum to them; still lack, where `sums` is False. `told` hears which share of the work is done.
        """

    def over_song(self, stems: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Estimates (stem * channel, n) of a whole song, windows cross-faded, block by block -> what the system makes of them
        when it hears them all, of the same length and sum: most leave them as they are.
        """
        return stems

    @abstractmethod
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), channel, time) for the wanted stems, given the context."""


class Mono(System):
    """Systems of one channel: those of a wider signal are separated one by one, from the same noise."""

    @property
    def channels(self) -> int:
        """One."""
        return 1


Phase = Literal["mixture", "vocoder"]
"""How a latent model gives a separated stem its wave: by masking the mixture's spectrogram, or by its vocoder."""

Guide = Callable[[Denoiser, Context, Callable[[Tensor], Tensor]], Denoiser]
"""Soft evidence of a user's own: (denoiser, context, from a clean state to waves (batch, stem, channel, time)) -> denoiser."""


def phase_of(name: str) -> Phase:
    """Raises QueryError for an unknown phase."""
    if name not in get_args(Phase):
        raise QueryError(f"unknown phase {name!r}; choose {' or '.join(get_args(Phase))}")
    return cast(Phase, name)


def part(told: Told | None, index: int, count: int) -> Told | None:
    """What one of `count` equal parts of the work is to tell its share to."""
    return None if told is None else lambda share: told((index + share) / count)


def given(
    context: Context,
    names: Sequence[str],
    slot: tuple[int, ...],
    device: torch.device,
    encode: Callable[[Tensor], Tensor] = lambda wave: wave,
    known: Callable[[Tensor], Tensor] = lambda where: where,
) -> Constraint:
    """Stems and spans that a context knows, of states (1, stem, *slot): noised to the state's level, drawn anew each step.

    `encode` says what a wave (time,) is in a slot, `known` which of that frames (time,), bool, tell.
    """
    shape = (1, len(names), *slot)
    if not context.known and not context.fixed:
        return Free(shape)
    values = torch.zeros(shape, dtype=torch.float32, device=device)
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    for name, signal in context.known.items():
        values[0, names.index(name)], mask[0, names.index(name)] = encode(signal[0]), True
    for name, (signal, where) in context.fixed.items():
        values[0, names.index(name)], mask[0, names.index(name)] = encode(signal[0]), known(where)
    return Known(values, mask)


def check_shares(**shares: float) -> None:
    """Raises ValueError for a share that does not lie in 0 to 1, with its name."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share:g}; give a share from 0 to 1")


def trained(scale: Tensor) -> None:
    """Raises ModelError unless a latent model has found the scale of its latents, as training does with its first batch."""
    if not 0 < float(scale) < math.inf:
        raise ModelError(
            f"the scale of this model's latents is {float(scale):g}: it was never trained; train it, then give the folder "
            "that its training wrote"
        )


def unanswerable(query: Query, names: Sequence[str], owner: str) -> str | None:
    """Why a system that hears stems of these names, or their whole mixture, cannot answer; None where it can."""
    if query.words:
        return f"{owner} takes no words ({', '.join(query.words.values())}); leave them away, or use a model with text"
    parts = [query.wanted, *query.heard]
    unknown = sorted(frozenset().union(*parts) - set(names))
    if unknown:
        return f"{owner} knows {', '.join(names)}, not {', '.join(unknown)}"
    submixes = [part for part in query.heard if 1 < len(part) < len(names)]
    if submixes:
        return f"{owner} hears stems or the whole mixture, not the sub-mix {'+'.join(sorted(submixes[0]))}"
    return None
