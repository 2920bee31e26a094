"""GMSDI as a system: sources and their mixture sampled together, and prompted separation.

The equations are the poster's (eq. 2); schedules of gamma, weights of guidance and negative words were never published.
Here gamma is in proportion to sigma, as in MSDM's likelihood, and the coupling is integrated exactly, so that no factor is
too tight; negatives are the words of the other sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stemwise.diffusion import (
    Denoiser,
    Free,
    Known,
    SlotCoupling,
    common,
    couple,
    dpmpp_2m,
    exact,
    karras,
    last,
    sample,
    seeded,
)
from stemwise.errors import QueryError
from stemwise.nets.unet1d import lower
from stemwise.query import Query
from stemwise.systems.gmsdi import Gmsdi
from stemwise.systems.joint import cost, likelihood, posterior
from stemwise.systems.msdm import Separation
from stemwise.systems.prompts import Prompt
from stemwise.systems.system import Context, unanswerable

#: The source that is whatever the others leave.
REST = "rest"


@dataclass(frozen=True)
class GmsdiSystem:
    """A prior of described mixtures, asked for the `sources`, each a name and its words.

    `gamma` is the width of the coupling over sigma; small values hold sources and mixture together. `extracted` are the
    sources that are separated one against all the rest, instead of all at once: the poster's ensemble. `weight` is the
    guidance away from `negative` words, by default those of the other sources.
    """

    prior: Gmsdi
    sources: tuple[tuple[str, tuple[str, ...]], ...]
    negative: tuple[str, ...] | None = None
    weight: float = 1.0
    gamma: float = 1.0
    extracted: tuple[str, ...] = ()
    precision: torch.dtype = torch.float32

    @classmethod
    def of(cls, prior: Gmsdi, precision: torch.dtype = torch.float32) -> GmsdiSystem:
        """A source for each of its words. The prior's weights are stored in `precision`."""
        if precision != torch.float32:
            lower(prior.net, precision)
        words = prior.config.words
        return cls(prior, described(words, words), extracted=prior.config.extracted, precision=precision)

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise QueryError(f"gamma is {self.gamma:g}; it must be above 0 (small: sources follow the mixture closely)")
        self.prior.vocabulary.check(*(word for _, words in self.sources for word in words), *(self.negative or ()))
        self.prompts()  # words that are wanted and unwanted are found here, not in the middle of a song

    @property
    def names(self) -> tuple[str, ...]:
        """The sources' names, in order."""
        return tuple(name for name, _ in self.sources)

    @property
    def rate(self) -> int:
        """Sample rate in hertz."""
        return self.prior.config.rate

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        return self.prior.config.window

    @property
    def channels(self) -> int:
        """Mono: the channels of a wider signal are separated one by one, from the same noise."""
        return 1

    @property
    def evaluations(self) -> int:
        """As the configuration says; each is one of all sources at once."""
        return self._how.steps * cost(self._how)

    @property
    def _how(self) -> Separation:
        return self.prior.config.separation

    @property
    def sums(self) -> bool:
        """Always."""
        return True

    def answers(self, query: Query) -> str | None:
        """None, or why this system cannot answer."""
        return unanswerable(query, self.names, "this model")

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, 1, time) that sum to the mixtures (B, 1, time), and what they lacked of them before."""
        mix = wave[:, 0]
        x = (
            self._separator(mix, evaluations)
            if set(self.extracted) != set(self.names)
            else mix.new_zeros(len(mix), len(self.names), mix.shape[-1])
        )
        for name in self.extracted:
            x[:, self.names.index(name)] = self._extractor(mix, name, evaluations)
        lacking = mix - x.sum(1)
        return (x + lacking[:, None] / len(self.names))[:, :, None], lacking[:, None]

    def _separator(self, mix: Tensor, evaluations: int) -> Tensor:
        """All sources at once."""
        return self._restricted(self.prompts(), mix, evaluations)

    def _extractor(self, mix: Tensor, name: str, evaluations: int) -> Tensor:
        """One source against the rest, which is described by all other words."""
        own = next(prompt for (other, _), prompt in zip(self.sources, self.prompts()) if other == name)
        rest = Prompt(tuple(dict.fromkeys(word for other, words in self.sources if other != name for word in words)))
        return self._restricted([own, rest], mix, evaluations)[:, 0]

    def _restricted(self, prompts: Sequence[Prompt], mix: Tensor, evaluations: int) -> Tensor:
        """Slots (B, prompt, time) that sum to the mixtures (B, time), by the configured likelihood and step rule."""
        how, frames = self._how, mix.shape[-1]
        known = self.prior.powers(prompts, frames)
        loudest = 0 if known is None else int(known.sum(-1).argmax())
        way = likelihood(how, len(prompts), loudest, None if known is None else lambda _: known)
        steps, noise = max(1, evaluations // cost(how)), common(seeded(0, mix.device))
        return posterior(self.prior.prompted(prompts), way, how, mix, len(prompts), steps, noise)

    @torch.no_grad()
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), 1, time) for the wanted sources, sampled with their mixture beside them.

        What is known enters the sum at the level of the state, as one sub-mix; the mixture's words are those of all
        sources that are wanted or known. Sources that are neither are not there.
        """
        device = next(self.prior.parameters()).device
        words = dict(self.sources)
        playing = tuple(dict.fromkeys(word for name in (*wanted, *context.known) for word in words[name]))
        prompts = [prompt for name, prompt in zip(self.names, self.prompts(tuple(wanted))) if name in wanted]
        order = [name for name in self.names if name in wanted]
        given = [signal[0] for signal in context.known.values()]
        prior = self.prior.prompted([*prompts, Prompt(playing)])
        free, sources = len(order) + 1, len(order)
        how, noise = self.prior.config.generation, seeded(seed, device)
        sigmas = karras(steps, how.sigma_min, how.sigma_max, how.rho)
        shape = (1, free + bool(given), self.window)
        if not given and not context.fixed:
            pull = SlotCoupling(tuple(range(sources)), sources, self.gamma, self.gamma)
            x = last(sample(prior, sigmas, noise, constraint=Free(shape), step=exact(pull))).x
        else:
            values, mask = torch.zeros(shape, device=device), torch.zeros(shape, dtype=torch.bool, device=device)
            for name, (signal, where) in context.fixed.items():
                values[0, order.index(name)], mask[0, order.index(name)] = signal[0], where
            if given:
                values[0, free], mask[0, free] = torch.stack(given).sum(0), True
            part = tuple(slot for slot in range(shape[1]) if slot != sources)
            pull = SlotCoupling(part, sources, self._stable(len(part), steps), self._stable(len(part), steps))
            denoiser = couple(_beside(prior, free), pull)
            x = last(sample(denoiser, sigmas, noise, constraint=Known(values, mask), step=dpmpp_2m)).x
        return x[0, [order.index(name) for name in wanted], None]

    def prompts(self, playing: tuple[str, ...] | None = None) -> list[Prompt]:
        """A prompt for each source; those of the others among `playing` (all) are its negatives unless there are words for that."""
        made = []
        for name, words in self.sources:
            others = tuple(
                w for other, ws in self.sources if other != name for w in ws if playing is None or other in playing
            )
            negative = self.negative if self.negative is not None else tuple(w for w in others if w not in words)
            made.append(Prompt(words, negative if self.weight != 1 else (), self.weight))
        return made

    def _stable(self, part: int, steps: int) -> float:
        """Gamma over sigma, no smaller than what steps of this size can follow: (1 - sigma'/sigma) rate < 1."""
        how = self.prior.config.generation
        ratio = 1 - (how.sigma_min / how.sigma_max) ** (1 / max(1, steps))
        return max(self.gamma, (ratio * (part + 1)) ** 0.5)


def described(stems: Sequence[str], known: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Names and words of sources from descriptions: "slap bass" becomes "slap-bass" and its words.

    A description is one known word, or several that are known, or, for a text encoder, any text. `REST` has no words: it is
    what nobody described. Raises QueryError for two of the same name.
    """
    sources: dict[str, tuple[str, ...]] = {}
    for stem in stems:
        name, words = "-".join(stem.split()), tuple(stem.split())
        if not name or name in sources:
            raise QueryError(
                f"{'a stem has no words' if not name else f'{name} is asked for twice'}; describe each stem once"
            )
        several = stem not in known and len(words) > 1 and set(words) <= set(known)
        sources[name] = () if name == REST else words if several else (stem,)
    return tuple(sources.items())


def _beside(denoiser: Denoiser, free: int) -> Denoiser:
    """The denoiser of the first `free` slots; those after them, which are known, stay as they are."""
    return lambda x, sigma: torch.cat([denoiser(x[:, :free], sigma), x[:, free:]], 1)
