"""What systems share that sample latents of mel spectrograms: `msgld_system` and `componet_system`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from stemwise.diffusion import (
    RULES,
    Constraint,
    Denoiser,
    NoiseSource,
    Told,
    cost,
    from_alphas_cumprod,
    last,
    preserving,
    sample,
    spaced_timesteps,
)
from stemwise.systems.system import Mono, Phase, Seam, trained


class LatentMono(Mono):
    """State and codec stay float32, the U-Net is evaluated in `precision`. Sampling starts at the noisiest published level."""

    phase: Phase
    """How a separated stem gets its wave: by masking the mixture's spectrogram with the stems' spectrograms, so that the stems
    sum to it, or by the vocoder, as published.
    """

    @property
    @abstractmethod
    def how(self) -> Any:
        """How it is sampled: `rule`, `steps`, `extracting` and `spacing`, see `msgld.LatentSampling`."""

    @property
    @abstractmethod
    def latents(self) -> Any:
        """The module whose latents they are: its `config` holds the codec and the time steps, itself scale and levels."""

    @property
    def seam(self) -> Seam:
        """Whole latents; the wave made of them has a phase of its own."""
        return Seam.about(self.window, self.rate, self.latents.config.codec.stride)

    @property
    def evaluations(self) -> int:
        """As the configuration says."""
        return (self.how.extracting or self.how.steps) * cost(self.how.rule)

    @property
    def steps(self) -> int:
        """As the configuration says."""
        return int(self.how.steps)

    @property
    def sums(self) -> bool:
        """Whether separated stems sum to the mixture: not as the vocoder makes them."""
        return self.phase == "mixture"

    def _sample(
        self,
        denoiser: Denoiser,
        constraint: Constraint,
        steps: int,
        noise: NoiseSource,
        told: Told | None = None,
    ) -> Tensor:
        """Clean latents; unlike the published loops it ends at the clean estimate. Raises ModelError for untrained models."""

        def at_precision(x: Tensor, sigma: Tensor, /) -> Tensor:
            with torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32):
                return denoiser(x, sigma)

        latents = self.latents
        trained(latents.scale)
        times = spaced_timesteps(self.how.spacing, steps, latents.config.timesteps)
        sigmas = from_alphas_cumprod(latents.alphas_cumprod, times)
        start = preserving(sigmas[0]).float() * constraint.noise(noise)
        way = sample(at_precision, sigmas, noise, constraint=constraint, step=RULES[self.how.rule], x=start)
        return last(way, told).x
