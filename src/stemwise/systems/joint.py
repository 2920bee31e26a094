"""Sampling several stems from a prior that has never seen a mixture: MSDM, and whatever else denoises stems.

Separation restricts the prior to stems that sum to what was heard, accompaniment to the stems and spans that are given.
One window at a time, mono; what was heard is exact in the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from stemwise.diffusion import (
    RULES,
    Churn,
    Denoiser,
    NoiseSource,
    Told,
    common,
    cost,
    karras,
    last,
    sample,
    seeded,
)
from stemwise.errors import QueryError
from stemwise.systems.likelihoods import (
    AdaptiveProjection,
    Dirac,
    Even,
    Gaussian,
    GaussianExact,
    Likelihood,
    LocalProjection,
    SpectralProjection,
)
from stemwise.systems.local_wiener import LocalWiener, Stft
from stemwise.systems.msdm import (
    PUBLISHED_DIRAC,
    PUBLISHED_GAUSSIAN,
    Generation,
    Msdm,
    Separation,
    WeakMsdm,
    likelihood_named,
)
from stemwise.systems.spectra import Power, powers
from stemwise.systems.system import Context, Mono, given


@dataclass(frozen=True)
class Joint(Mono):
    """A prior of all stems at one noise level, with a likelihood for what it is asked to separate.

    `precision` is what the network, not the state, is evaluated in.
    """

    prior: Msdm | WeakMsdm
    likelihood: Likelihood
    separation: Separation
    generation: Generation
    accompaniment: Generation | None = None
    precision: torch.dtype = torch.float32

    takes: ClassVar[tuple[str, ...]] = ("likelihood",)

    @classmethod
    def of(cls, prior: Msdm | WeakMsdm, precision: torch.dtype = torch.float32) -> Joint:
        """The system that the prior's own configuration describes. The prior's weights are stored in `precision`."""
        config = prior.config
        if precision != torch.float32:
            prior.lower(precision)
        likelihood = likelihood_of(config.separation, prior)
        return cls(prior, likelihood, config.separation, config.generation, config.accompaniment, precision)

    def asked(self, *, likelihood: str) -> Joint:
        """With another likelihood than the configuration's: `dirac` and `gaussian` with all that was published of them, the
        others with the defaults. Raises QueryError for one that there is not.
        """
        name = likelihood_named(likelihood)
        if name == self.separation.likelihood:
            return self
        churn = 40.0 if isinstance(self.prior, WeakMsdm) else PUBLISHED_DIRAC.churn
        published = {"dirac": replace(PUBLISHED_DIRAC, churn=churn), "gaussian": PUBLISHED_GAUSSIAN}
        how = replace(published.get(name, Separation(name)), drop=self.separation.drop, gamma=self.separation.gamma)
        return replace(self, likelihood=likelihood_of(how, self.prior), separation=how)

    @property
    def steps(self) -> int:
        """As the configuration says."""
        return self.generation.steps

    @property
    def steps_beside(self) -> int:
        """As the configuration says for stems that are made beside others."""
        return (self.accompaniment or self.generation).steps

    @property
    def evaluations(self) -> int:
        """As the configuration says."""
        return evaluations_of(self.separation)

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int, told: Told | None = None) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, 1, time) that sum to the mixtures (B, 1, time), and what they lacked of them before (B, 1, time).

        What they lack, the published samplers' last step does not give back; here all stems get equal shares of it.
        Every item of the batch starts from the same noise.
        """
        mix = wave[:, 0]
        how, noise = within(self.separation, evaluations), common(seeded(0, wave.device))
        x = posterior(self.prior, self.likelihood, how, mix, len(self.names), how.steps, noise, told)
        lacking = mix - x.sum(1)
        return (x + lacking[:, None] / len(self.names))[:, :, None], lacking[:, None]

    def posterior(self, mix: Tensor, steps: int, noise: NoiseSource) -> Tensor:
        """Stems (B, stem, time) for mixtures (B, time) as the sampler gives them: they may not sum exactly."""
        return posterior(self.prior, self.likelihood, self.separation, mix, len(self.names), steps, noise)

    @torch.no_grad()
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), 1, time) for the wanted stems, given the context.

        Stems that are neither wanted nor known are made too, and left away. The levels are the prior's own: `scale` is
        not used.
        """
        how = (self.accompaniment if context.known else None) or self.generation
        device = next(self.prior.parameters()).device
        constraint = given(context, self.names, (self.window,), device)
        churn = Churn(how.churn) if how.churn else None
        sigmas = karras(steps, how.sigma_min, how.sigma_max, how.rho)
        noise = seeded(seed, device)
        x = last(
            sample(
                self.prior,
                sigmas,
                noise,
                constraint=constraint,
                step=RULES[how.rule],
                churn=churn,
                resample=how.resample,
            ),
            context.told,
        ).x
        return x[0, [self.names.index(name) for name in wanted], None]


def posterior(
    prior: Denoiser,
    likelihood: Likelihood,
    how: Separation,
    mix: Tensor,
    slots: int,
    steps: int,
    noise: NoiseSource,
    told: Told | None = None,
) -> Tensor:
    """Stems (B, slots, time) for mixtures (B, time) as the sampler gives them: they may not sum exactly."""
    made = likelihood.condition(prior, mix, slots, RULES[how.rule])
    sigmas = karras(steps, how.sigma_min, how.sigma_max, how.rho)
    churn = Churn(how.churn) if how.churn else None
    start = None if how.start == 1.0 else how.start * sigmas[0] * made.constraint.noise(noise)
    run = sample(
        made.denoiser,
        sigmas,
        noise,
        x=start,
        constraint=made.constraint,
        step=made.step,
        churn=churn,
        resample=how.resample,
    )
    return last(run, told).x


def evaluations_of(how: Separation) -> int:
    """Network evaluations that all steps of a separation take; the last one, to sigma 0, is an Euler step in every rule."""
    return how.resample * (1 + _step_cost(how) * (how.steps - 1))


def within(how: Separation, evaluations: int) -> Separation:
    """With as many steps as so many network evaluations allow; where they are too few for the corrector, one without it."""
    if evaluations < how.resample:
        how = replace(how, resample=1)
    return replace(how, steps=max(1, 1 + (evaluations // how.resample - 1) // _step_cost(how)))


def _step_cost(how: Separation) -> int:
    return 1 if how.likelihood == "gaussian-exact" else cost(how.rule)


def likelihood_of(how: Separation, prior: Msdm | WeakMsdm) -> Likelihood:
    """The object that a model's configuration names; the projection goes by a prior's own variances where it has them.

    Raises QueryError as `likelihood`.
    """
    config, raw = prior.config, prior.raw(prior.config.window)
    if how.likelihood == "projection" and isinstance(raw, LocalWiener):
        return LocalProjection(replace(raw, trust=how.trust))
    power = powers(config.spectra, config.rate) if config.spectra else None
    return likelihood(how, len(config.stems), config.stems.index(how.drop) if how.drop else 0, power, config.rate)


def likelihood(how: Separation, slots: int, drop: int = 0, power: Power | None = None, rate: int = 22050) -> Likelihood:
    """The object that a configuration names, for `slots` stems of which Dirac's drops one; the projection goes by the
    stems' power spectra. Without any, and where it is "adaptive", it goes by the power that it finds in the stems on the way, in
    frames of about 40 ms at `rate`.

    Raises QueryError for one that does not go with the step rule.
    """
    if how.likelihood == "dirac":
        if how.rule not in ("euler", "heun"):
            raise QueryError(
                f"the Dirac likelihood's coordinates are skewed: use the rule euler or heun, not {how.rule}"
            )
        return Dirac(drop)
    if how.likelihood == "gaussian":
        return Gaussian(how.gamma)
    if how.likelihood == "gaussian-exact":
        return GaussianExact(how.gamma)
    if how.likelihood == "even":
        return Even()
    if power is not None and how.likelihood != "adaptive":
        return SpectralProjection(power)
    frame = 2 ** round(math.log2(rate / 25))
    return AdaptiveProjection(Stft(frame, frame // 4))
