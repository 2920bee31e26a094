"""MSG-LD (Karchkhadze et al. 2024, arXiv 2409.12346): one latent diffusion prior of all stems that may hear the mixture.

States are stem latents (batch, stem, channel, time', mel') of a `codecs.MelVae`, of about unit variance. The mixture is a
condition, its latent, and silence is its absence: one set of weights separates, generates and arranges. A sum of latents
is no sum of signals, so nothing here is constrained to add up; see `msgld_system`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from stemwise.codecs.melvae import MelVae, MelVaeConfig
from stemwise.diffusion import (
    Denoiser,
    FromEps,
    FromV,
    Predicts,
    Rule,
    Spacing,
    classifier_free,
    diffused,
    interpolated,
    scaled_linear_beta,
)
from stemwise.errors import QueryError
from stemwise.nets.unet_stems import UNetStems, UNetStemsConfig
from stemwise.systems.system import check_shares


@dataclass(frozen=True)
class LatentSampling:
    """How latents are sampled; the published values are rule ancestral (DDIM with eta 1) and 200 steps.

    ``guidance`` is the scale of classifier-free guidance towards the mixture: 0 does not hear it, 1 is the conditional
    model alone, more exaggerates. ``extracting``: the steps of a separation, which wants the mean of what the stems may be, as
    the first estimate is; 0: as many as all else. ``spacing`` of the time steps: trailing begins at the noisiest.
    ``sharpness``: the exponent of magnitudes when stems share out the mixture; 2 is Wiener's, for spectrograms that are certain,
    less suits means of what they may be.
    """

    rule: Rule = "dpmpp_2m"
    steps: int = 20
    guidance: float = 1.0
    extracting: int = 0
    spacing: Spacing = "leading"
    sharpness: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.sharpness < math.inf:
            raise QueryError(f"sharpness is {self.sharpness:g}; give 0 (equal shares) or more")
        if not math.isfinite(self.guidance):
            raise QueryError(f"guidance is {self.guidance:g}; give a finite number")


@dataclass(frozen=True)
class MsgldConfig:
    """What `config.json` of a model holds. ``dropped`` is the share of training examples that do not hear the mixture.

    The U-Net ``predicts`` the noise, as published, or the velocity (Salimans and Ho 2022), which a small network learns sooner.
    Noise levels are those of ``timesteps`` betas, even in their roots from ``beta_start`` to ``beta_end``. ``noisiest`` is the
    share of training examples at the noisiest fifth of them, where a mixture says most; the others are at any, as published.
    """

    stems: tuple[str, ...] = ("bass", "drums", "guitar", "piano")
    codec: MelVaeConfig = field(default_factory=MelVaeConfig)
    net: UNetStemsConfig = field(default_factory=UNetStemsConfig)
    predicts: Predicts = "noise"
    dropped: float = 0.1
    noisiest: float = 0.0
    timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    sampling: LatentSampling = field(default_factory=LatentSampling)

    def __post_init__(self) -> None:
        check_shares(dropped=self.dropped, noisiest=self.noisiest)
        if self.net.stems != len(self.stems):
            raise ValueError(
                f"net.stems is {self.net.stems}, but there are {len(self.stems)} ({', '.join(self.stems)})"
            )
        if self.net.folded not in (0, self.codec.latent):
            raise ValueError(
                f"net.folded is {self.net.folded}, but latents have {self.codec.latent} channels; make it {self.codec.latent}, or 0"
            )
        _, time, mel = self.codec.shape(self.codec.window)
        if time % self.net.multiple or mel % self.net.multiple:
            raise ValueError(
                f"a window's latent has {time} x {mel} positions; the network halves them {len(self.net.multipliers) - 1} "
                f"times, so both must be multiples of {self.net.multiple}: change codec.window, codec.mel.bands or net.multipliers"
            )

    @property
    def rate(self) -> int:
        """In hertz."""
        return self.codec.rate

    @property
    def window(self) -> int:
        """In samples."""
        return self.codec.window


class Msgld(nn.Module):
    """Latents of stems at one noise level and the mixture's latent -> the noise or velocity; the codec is inside, frozen.

    ``scale`` brings latents to unit variance: one over the standard deviation of the first batch that is trained on.
    """

    scale: Tensor

    def __init__(self, config: MsgldConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = MelVae(config.codec).requires_grad_(False)
        self.net = UNetStems(config.net)
        self.register_buffer("scale", torch.tensor(0.0))
        # No buffer: it stays on the CPU, in float64, which some devices lack.
        self.alphas_cumprod = scaled_linear_beta(config.timesteps, config.beta_start, config.beta_end)

    def encode(self, wave: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (..., channel, time', mel') of waves (..., time), as `MelVae.encode`."""
        return self.codec.encode(wave.clamp(-1, 1), noise) * self.scale

    def levels(self, latent: Tensor) -> Tensor:
        """Log-mels (..., frame, band) of scaled latents."""
        return self.codec.levels(latent / self.scale)

    def denoiser(self, mixture: Tensor | None, guidance: float = 1.0) -> Denoiser:
        """Of stem latents, given the mixture's scaled latent (B, channel, time', mel'); what it needs is computed once.

        One pass an evaluation where nothing or only the mixture is heard, two for any other guidance.
        """
        unheard = self._denoiser(None)
        if mixture is None or guidance == 0:
            return unheard
        heard = self._denoiser(self.net.pyramid(mixture))
        return heard if guidance == 1 else classifier_free(heard, unheard, guidance)

    def _denoiser(self, pyramid: Sequence[Tensor] | None) -> Denoiser:
        wrapper = FromEps if self.config.predicts == "noise" else FromV
        return wrapper(partial(self.net, mixture=pyramid), interpolated(self.alphas_cumprod))

    @torch.no_grad()
    def submixes(self, stems: Tensor) -> Tensor:
        """Latents, not scaled, of stems (B, stem, channel, time) in mono and, last, their mixture: (B, stem + 1, ...)."""
        mono = stems.mean(2)
        return self.codec.encode(torch.cat([mono, mono.sum(1, keepdim=True)], 1).clamp(-1, 1))

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of what it predicts for stems (B, stem, channel, time), averaged to mono; as published.

        Draws the latents, the time step of each example, the noise, and who does not hear the mixture. A batch may also hold
        latents that were kept from before (`submixes`): the posterior's means.
        """
        device = batch.device

        def normal(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=generator, device=device)

        with torch.no_grad():
            if batch.ndim == 4:
                stems = batch.mean(2)
                self.config.codec.shape(stems.shape[-1])
                waves = torch.cat([stems, stems.sum(1, keepdim=True)], 1).clamp(-1, 1)
                mean, deviation = self.codec.posterior(self.config.codec.mel.log(waves))
                latents = mean + deviation * normal(mean)
            else:
                latents = batch.float()
            clean, mixture = latents[:, :-1], latents[:, -1]
            if self.scale == 0:
                self.scale.copy_(1 / clean.std())
            clean, mixture = clean * self.scale, mixture * self.scale
            last = self.config.timesteps - 1
            time = torch.randint(last + 1, (len(clean),), generator=generator, device=device)
            if self.config.noisiest:
                late = torch.rand(len(clean), generator=generator, device=device) < self.config.noisiest
                time = torch.where(late, last - time // 5, time)
            level = self.alphas_cumprod.float().to(device)[time]
            noisy, target = diffused(clean, normal(clean), level, self.config.predicts)
            heard = torch.rand(len(clean), generator=generator, device=device) >= self.config.dropped
            mixture = mixture * heard[:, None, None, None]
        guess: Tensor = self.net(noisy, time, self.net.pyramid(mixture))
        return (guess - target).square().mean()
