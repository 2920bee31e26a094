"""GMSDI as a system: sources and their mixture sampled together, and prompted separation.

The equations are the poster's (eq. 2); schedules of gamma, weights of guidance and negative words were never published.
Here gamma is in proportion to sigma, as in MSDM's likelihood; where nothing is known the coupling is integrated exactly, so that
no factor is too tight, and beside what is known it is no tighter than the steps can follow; negatives are the words of the other
sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion import (
    Churn,
    Denoiser,
    Free,
    Known,
    SlotCoupling,
    Step,
    Told,
    common,
    couple,
    euler,
    exact,
    karras,
    last,
    sample,
    seeded,
)
from stemwise.diffusion.sampling import Draw, Past
from stemwise.errors import QueryError
from stemwise.nets.unet1d import lower
from stemwise.systems.gmsdi import Gmsdi
from stemwise.systems.joint import evaluations_of, likelihood, posterior, within
from stemwise.systems.msdm import LikelihoodName, Separation, likelihood_named
from stemwise.systems.prompts import Prompt
from stemwise.systems.sources import Sources, described
from stemwise.systems.system import Context, Guide, Mono, part

SILENCE = 1e-5
"""Sample value up to which a mixture is silent."""

Schedule = Callable[[float], float]
"""A noise level sigma -> gamma over sigma there."""


@dataclass(frozen=True)
class GmsdiSystem(Mono):
    """A prior of described mixtures, asked for the `sources`.

    `gamma` is the width of the coupling over sigma, in the sources' scores, `gamma_mixture` that in their mixture's (None: the
    same); small values hold sources and mixture together. Each is a number or a schedule. `extracted` are the
    sources that are separated one against all the rest, instead of all at once: the poster's ensemble. `likelihood` instead
    of the configuration's. `guide` bends the denoiser of the sources when something is sampled, for example by
    `coherence.guidance`.
    """

    prior: Gmsdi
    sources: Sources
    gamma: float | Schedule = 1.0
    gamma_mixture: float | Schedule | None = None
    extracted: tuple[str, ...] = ()
    likelihood: LikelihoodName | None = None
    precision: torch.dtype = torch.float32
    guide: Guide | None = None

    takes: ClassVar[tuple[str, ...]] = ("stems", "negative", "guidance", "gamma", "gamma_mixture", "likelihood")

    @classmethod
    def of(cls, prior: Gmsdi, precision: torch.dtype = torch.float32) -> GmsdiSystem:
        """A source for each of its words. The prior's weights are stored in `precision`."""
        if precision != torch.float32:
            lower(prior.net, precision)
        words = prior.config.words
        return cls(prior, Sources(described(words, words)), extracted=prior.config.extracted, precision=precision)

    def asked(
        self,
        *,
        gamma: float | Schedule | None = None,
        gamma_mixture: float | Schedule | None = None,
        likelihood: LikelihoodName | None = None,
        **wishes: Any,
    ) -> GmsdiSystem:
        """For other sources (see `Sources.asked`), which are then all separated at once, or with another coupling."""
        return replace(
            self,
            sources=self.sources.asked(known=self.prior.config.words, **wishes),
            extracted=() if "stems" in wishes else self.extracted,
            gamma=self.gamma if gamma is None else gamma,
            gamma_mixture=self.gamma_mixture if gamma_mixture is None else gamma_mixture,
            likelihood=likelihood or self.likelihood,
        )

    def __post_init__(self) -> None:
        for gamma in (self.gamma, self.gamma_mixture):
            if isinstance(gamma, int | float) and not 1e-6 <= gamma <= 1e6:
                raise QueryError(f"gamma is {gamma:g}; give 1e-6 to 1e6 (small: sources follow the mixture closely)")
        if self.likelihood is not None:
            likelihood_named(self.likelihood)
        self.prior.vocabulary.check(*self.sources.every())

    @property
    def names(self) -> tuple[str, ...]:
        """The sources' names, in order."""
        return self.sources.names

    @property
    def evaluations(self) -> int:
        """As the configuration says; each is one of all sources at once."""
        return evaluations_of(self._how)

    @property
    def steps(self) -> int:
        """As the configuration says."""
        return self.prior.config.generation.steps

    @property
    def _how(self) -> Separation:
        how = self.prior.config.separation
        if self.likelihood is None:
            return how
        skewed = self.likelihood == "dirac" and how.rule not in ("euler", "heun")
        return replace(how, likelihood=self.likelihood, rule="euler" if skewed else how.rule)

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int, told: Told | None = None) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, 1, time) that sum to the mixtures (B, 1, time), and what they lacked of them before."""
        mix = wave[:, 0]
        together = set(self.extracted) != set(self.names)
        runs = together + len(self.extracted)
        x = (
            self._separator(mix, evaluations, part(told, 0, runs))
            if together
            else mix.new_zeros(len(mix), len(self.names), mix.shape[-1])
        )
        for run, name in enumerate(self.extracted, together):
            x[:, self.names.index(name)] = self._extractor(mix, name, evaluations, part(told, run, runs))
        x = x * _sounding(mix, self.rate)[:, None]
        lacking = mix - x.sum(1)
        return (x + lacking[:, None] / len(self.names))[:, :, None], lacking[:, None]

    def _separator(self, mix: Tensor, evaluations: int, told: Told | None) -> Tensor:
        """All sources at once."""
        return self._restricted(self.sources.prompts(), mix, evaluations, told)

    def _extractor(self, mix: Tensor, name: str, evaluations: int, told: Told | None) -> Tensor:
        """One source against the rest, which is described by all other words."""
        own = self.sources.prompts()[self.names.index(name)]
        rest = Prompt(self.sources.words(other for other in self.names if other != name))
        return self._restricted([own, rest], mix, evaluations, told)[:, 0]

    def _restricted(self, prompts: Sequence[Prompt], mix: Tensor, evaluations: int, told: Told | None) -> Tensor:
        """Slots (B, prompt, time) that sum to the mixtures (B, time), by the configured likelihood and step rule."""
        how, frames = within(self._how, evaluations), mix.shape[-1]
        known = self.prior.powers(prompts, frames)
        loudest = 0 if known is None else int(known.sum(-1).argmax())
        way = likelihood(how, len(prompts), loudest, None if known is None else lambda _: known, self.rate)
        noise = common(seeded(0, mix.device))
        return posterior(self.prior.prompted(prompts), way, how, mix, len(prompts), how.steps, noise, told)

    @torch.no_grad()
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), 1, time) for the wanted sources, sampled with their mixture beside them.

        What is known enters the sum at the level of the state, as one sub-mix; the mixture's words are those of all
        sources that are wanted or known. Sources that are neither are not there. Of the configured rule counts whether it is
        `dpmpp_2m`: the coupling is integrated exactly, or beside what is known by Euler's rule.
        """
        device = next(self.prior.parameters()).device
        order = [name for name in self.names if name in wanted]
        playing = self.sources.words((*order, *context.known))
        given = [signal[0] for signal in context.known.values()]
        prior = self.prior.prompted([*self.sources.prompts(order), Prompt(playing)])
        if self.guide is not None:
            prior = self.guide(prior, context, lambda state: state[:, : len(order), None])
        free, sources = len(order) + 1, len(order)
        how, noise = self.prior.config.generation, seeded(seed, device)
        sigmas = karras(steps, how.sigma_min, how.sigma_max, how.rho)
        churn = Churn(how.churn) if how.churn else None
        run = partial(sample, sigmas=sigmas, noise=noise, churn=churn, resample=how.resample)
        shape = (1, free + bool(given), self.window)
        if not given and not context.fixed:
            step = self._exact(tuple(range(sources)), sources)
            x = last(run(prior, constraint=Free(shape), step=step), context.told).x
        else:
            values, mask = torch.zeros(shape, device=device), torch.zeros(shape, dtype=torch.bool, device=device)
            for name, (signal, where) in context.fixed.items():
                values[0, order.index(name)], mask[0, order.index(name)] = signal[0], where
            if given:
                values[0, free], mask[0, free] = torch.stack(given).sum(0), True
            part = tuple(slot for slot in range(shape[1]) if slot != sources)
            denoiser = self._coupled(_beside(prior, free), part, sources, _least(len(part), sigmas, churn))
            x = last(run(denoiser, constraint=Known(values, mask), step=euler), context.told).x
        return x[0, [order.index(name) for name in wanted], None]

    def _pull(self, part: tuple[int, ...], mixture: int, sigma: Tensor, least: float = 0.0) -> SlotCoupling:
        """The coupling at a noise level, of widths over sigma no smaller than `least`."""
        mixed = self.gamma if self.gamma_mixture is None else self.gamma_mixture
        x, y = (gamma(float(sigma.max())) if callable(gamma) else gamma for gamma in (self.gamma, mixed))
        return SlotCoupling(part, mixture, max(x, least), max(y, least))

    def _exact(self, part: tuple[int, ...], mixture: int) -> Step:
        """`diffusion.exact`, with the widths of the level that a step begins at.

        Of first order for other rules than `dpmpp_2m`, and with a guide: its force falls with sigma^2, extrapolated it would turn
        its sign.
        """
        second = self.prior.config.generation.rule == "dpmpp_2m" and self.guide is None

        def step(
            denoiser: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, draw: Draw, past: Past | None, /
        ) -> tuple[Tensor, Tensor]:
            before = past if second else None
            return exact(self._pull(part, mixture, sigma))(denoiser, x, sigma, sigma_next, draw, before)

        return step

    def _coupled(self, denoiser: Denoiser, part: tuple[int, ...], mixture: int, least: float) -> Denoiser:
        return lambda x, sigma: couple(denoiser, self._pull(part, mixture, torch.as_tensor(sigma), least))(x, sigma)


def _least(part: int, sigmas: Tensor, churn: Churn | None) -> float:
    """The smallest gamma over sigma that Euler's steps down these levels follow: (1 - sigma'/sigma) (part + 1) / gamma^2 <= 1.

    The last step, to 0, is left out: it starts where the coupling holds already. A multistep rule follows none of these: it
    extrapolates the coupling, too, and diverges.
    """
    levels = sigmas[:-1]
    raised = levels if churn is None else torch.stack([churn.raised(sigma, len(levels)) for sigma in levels])
    longest = 1 - float((levels[1:] / raised[:-1]).min()) if len(levels) > 1 else 1.0
    return float((longest * (part + 1)) ** 0.5)


def _sounding(mix: Tensor, rate: int) -> Tensor:
    """1 where a mixture (B, time) sounds within 25 ms, else 0: stems of silence are silent, whatever the network says of it."""
    reach = rate // 40
    return (F.max_pool1d(mix.abs()[:, None], 2 * reach + 1, 1, reach)[:, 0] > SILENCE).to(mix)


def _beside(denoiser: Denoiser, free: int) -> Denoiser:
    """The denoiser of the first `free` slots; those after them, which are known, stay as they are."""
    return lambda x, sigma: torch.cat([denoiser(x[:, :free], sigma), x[:, free:]], 1)
