"""MSG-LD as a system: separation hears the mixture, arrangement knows stems, generation neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion import (
    RULES,
    Constraint,
    Denoiser,
    Free,
    Known,
    NoiseSource,
    common,
    cost,
    from_alphas_cumprod,
    last,
    leading_timesteps,
    preserving,
    sample,
    seeded,
)
from stemwise.systems.msgld import Msgld
from stemwise.systems.system import Context, Mono, Phase, phase_of


@dataclass(frozen=True)
class MsgldSystem(Mono):
    """A latent prior of all stems. `precision` is what the U-Net is evaluated in; codec and state stay float32.

    Sampling starts at the published levels' noisiest and, unlike the published loop, ends at the clean estimate.
    `phase` says how a separated stem gets its wave: by masking the mixture's spectrogram with the stems' spectrograms,
    so that the stems sum to it, or by the vocoder, as published.
    """

    prior: Msgld
    precision: torch.dtype = torch.float32
    phase: Phase = "mixture"

    takes: ClassVar[tuple[str, ...]] = ("phase",)

    def asked(self, *, phase: str) -> MsgldSystem:
        """With another phase. Raises QueryError."""
        return replace(self, phase=phase_of(phase))

    @property
    def evaluations(self) -> int:
        """As the configuration says."""
        how = self.prior.config.sampling
        return how.steps * cost(how.rule)

    @property
    def sums(self) -> bool:
        """Whether separated stems sum to the mixture: not as the vocoder makes them."""
        return self.phase == "mixture"

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, 1, time) of mixtures (B, 1, time), and what they lack of them (B, 1, time).

        Of any length: the window is padded with silence to whole latents. Every item starts from the same noise.
        """
        prior, how = self.prior, self.prior.config.sampling
        mix, time = wave[:, 0], wave.shape[-1]
        padded = F.pad(mix, (0, -time % (prior.config.codec.stride * prior.config.net.multiple)))
        heard = prior.encode(padded)
        free = Free((len(wave), len(self.names), *heard.shape[1:]))
        steps = max(1, evaluations // cost(how.rule))
        noise = common(seeded(0, wave.device))
        levels = prior.levels(self._sample(prior.denoiser(heard, how.guidance), free, steps, noise))
        if self.phase == "vocoder":
            stems = prior.codec.vocode(levels)[..., :time]
            return stems[:, :, None], wave - stems.sum(1, keepdim=True)
        mel = prior.config.codec.mel
        spectrum = mel.transform(padded)[:, None]
        stems = mel.inverse(spectrum * mel.shares(levels, spectrum.shape[-1]), padded.shape[-1])[..., :time]
        lacking = wave - stems.sum(1, keepdim=True)  # rounding
        return (stems + lacking / len(self.names))[:, :, None], lacking

    @torch.no_grad()
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), 1, time) for the wanted stems, given the context.

        Known stems and spans are known latents, noised to the level of the state and drawn anew each step. Stems that
        are neither wanted nor known are made too, and left away; levels are the prior's own: `scale` is not used.
        """
        device = next(self.prior.parameters()).device
        constraint = self._given(context, device)
        x = self._sample(self.prior.denoiser(None), constraint, steps, seeded(seed, device))
        rows = [self.names.index(name) for name in wanted]
        return self.prior.codec.vocode(self.prior.levels(x[0, rows]))[:, None]

    def _sample(self, denoiser: Denoiser, constraint: Constraint, steps: int, noise: NoiseSource) -> Tensor:
        def at_precision(x: Tensor, sigma: Tensor, /) -> Tensor:
            with torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32):
                return denoiser(x, sigma)

        config = self.prior.config
        times = leading_timesteps(min(steps, config.timesteps), config.timesteps, 1)
        sigmas = from_alphas_cumprod(self.prior.alphas_cumprod.cpu(), times)
        start = preserving(sigmas[0]).float() * constraint.noise(noise)
        return last(
            sample(at_precision, sigmas, noise, constraint=constraint, step=RULES[config.sampling.rule], x=start)
        ).x

    def _given(self, context: Context, device: torch.device) -> Constraint:
        """Known stems whole, spans as far as whole latents were heard."""
        config = self.prior.config
        shape = (1, len(self.names), *config.codec.shape(self.window))
        if not context.known and not context.fixed:
            return Free(shape)
        values, mask = torch.zeros(shape, device=device), torch.zeros(shape, dtype=torch.bool, device=device)
        for name, signal in context.known.items():
            values[0, self.names.index(name)] = self.prior.encode(signal[0])
            mask[0, self.names.index(name)] = True
        for name, (signal, where) in context.fixed.items():
            row = self.names.index(name)
            values[0, row] = self.prior.encode(signal[0])
            mask[0, row] = where.unflatten(0, (-1, config.codec.stride)).all(1)[None, :, None]
        return Known(values, mask)
