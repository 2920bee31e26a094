"""The latents of MSG-LD and its family: a variational autoencoder of log-mels and a vocoder (not additive).

The networks are kept libraries': diffusers' `AutoencoderKL` (Rombach et al. 2022) on (time, mel) pictures and
transformers' `SpeechT5HifiGan` (HiFi-GAN, Kong et al. 2020), which hold the published weights tensor for tensor. Both
need `pip install 'stemwise[latents]'`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stemwise.codecs.mel import Mel
from stemwise.errors import ModelError
from stemwise.extras import needed

RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
"""Windows of the vocoder's spectral loss: FFT, hop and window length in samples (Yamamoto et al. 2020, table 1)."""
SEGMENT = 8192
"""The vocoder learns from a span of each example, that many samples or a little more (Kong et al. 2020, section 3)."""


@dataclass(frozen=True)
class MelVaeConfig:
    """Shapes of spectrogram, autoencoder and vocoder; the defaults are the published ones (55 + 55 million parameters).

    ``window`` in samples; ``widths`` of the autoencoder's levels, each of half the resolution of the one before;
    ``vocoder_rates`` multiply to the hop. ``kl`` is the weight of the divergence from N(0, 1), per latent value. Networks see
    log-mels minus ``centre``, over ``spread``; the published ones see them as they are, smaller ones learn sooner otherwise.
    """

    mel: Mel = field(default_factory=Mel)
    window: int = 163_840
    stems: tuple[str, ...] = ("bass", "drums", "guitar", "piano")
    widths: tuple[int, ...] = (128, 256, 512)
    blocks: int = 2
    latent: int = 8
    groups: int = 32
    vocoder_width: int = 1024
    vocoder_rates: tuple[int, ...] = (5, 4, 2, 2, 2)
    vocoder_kernels: tuple[int, ...] = (16, 16, 8, 4, 4)
    kl: float = 1e-2
    centre: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        if prod(self.vocoder_rates) != self.mel.hop or len(self.vocoder_kernels) != len(self.vocoder_rates):
            raise ValueError(
                f"vocoder_rates {self.vocoder_rates} must multiply to the hop, {self.mel.hop}, with a kernel each; "
                f"found {len(self.vocoder_kernels)} kernels"
            )
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of groups ({self.groups})")
        if self.mel.bands % self.reduction or self.window % self.stride:
            raise ValueError(
                f"mel.bands ({self.mel.bands}) must be a multiple of {self.reduction}, window ({self.window}) of "
                f"{self.stride} samples, a latent's step"
            )

    @property
    def rate(self) -> int:
        """In hertz."""
        return self.mel.rate

    @property
    def reduction(self) -> int:
        """Spectrogram frames, and bands, to a latent."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def stride(self) -> int:
        """Samples to a latent."""
        return self.reduction * self.mel.hop

    def shape(self, samples: int) -> tuple[int, int, int]:
        """Of the latent of that many samples: (channel, time, mel). Raises ModelError unless they are whole latents."""
        if samples % self.stride:
            raise ModelError(f"{samples} samples are not a multiple of {self.stride}, a latent's step; pad them")
        return self.latent, samples // self.stride, self.mel.bands // self.reduction


class MelVae(nn.Module):
    """(..., time) <-> (..., channel, time', mel'): waves of whole latents, at most full scale, and their latents."""

    additive = False

    def __init__(self, config: MelVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.vae, self.vocoder = _networks(config)

    def encode(self, wave: Tensor, noise: Tensor | None = None) -> Tensor:
        """The latents' mean, or with standard normal `noise` of their shape a draw from the posterior."""
        self.config.shape(wave.shape[-1])
        mean, deviation = self.posterior(self.config.mel.log(wave))
        return mean if noise is None else mean + deviation * noise

    def posterior(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents (..., channel, time', mel') of log-mels (..., frame, band)."""
        flat = self._seen(levels).reshape(-1, 1, *levels.shape[-2:])
        posterior = self.vae.encode(flat).latent_dist
        front = levels.shape[:-2]
        return tuple(z.reshape(*front, *z.shape[1:]) for z in (posterior.mean, posterior.std))

    def levels(self, latent: Tensor) -> Tensor:
        """Log-mels (..., frame, band) of latents (..., channel, time', mel')."""
        flat = latent.reshape(-1, *latent.shape[-3:])
        levels: Tensor = self.vae.decode(flat).sample[:, 0] * self.config.spread + self.config.centre
        return levels.reshape(*latent.shape[:-3], *levels.shape[1:])

    def vocode(self, levels: Tensor) -> Tensor:
        """Waves (..., frame * hop) of log-mels (..., frame, band). The vocoder makes a little more, which is cut off."""
        flat = self._seen(levels).reshape(-1, *levels.shape[-2:])
        wave: Tensor = self.vocoder(flat)[..., : levels.shape[-2] * self.config.mel.hop]
        return wave.reshape(*levels.shape[:-2], -1)

    def decode(self, latent: Tensor) -> Tensor:
        """Waves (..., time) of latents."""
        return self.vocode(self.levels(latent))

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Both networks' losses for stems (B, stem, channel, time): every stem and the mixture are examples, in mono.

        Autoencoder: mean absolute error of the log-mel and `kl` times the divergence. Vocoder, from a span of the true
        log-mel: spectral convergence and log magnitudes at three resolutions (Yamamoto et al. 2020) and the log-mel again.

        Raises ModelError for windows that are not of whole latents, or too short for the widest of these resolutions.
        """
        samples = self.config.shape(batch.shape[-1])[1] * self.config.stride
        longest = max(self.config.mel.fft, *(fft for fft, _, _ in RESOLUTIONS))
        if samples <= longest // 2:
            raise ModelError(
                f"windows of {samples} samples are too short to learn from: the loss needs more than {longest // 2}, half "
                "of its longest Fourier transform; train with a larger data.frames"
            )
        stems = batch.mean(2)
        waves = torch.cat([stems, stems.sum(1, keepdim=True)], 1).flatten(0, 1)
        waves = waves[waves.square().mean(-1) > 1e-8]  # silence is one point, learnt from the pauses of other examples
        waves = waves if len(waves) else stems[:, 0]
        waves = waves / waves.abs().amax(-1, keepdim=True).clamp_min(1.0)
        levels = self.config.mel.log(waves)
        mean, deviation = self.posterior(levels)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        error = (self.levels(mean + deviation * noise) - levels).abs().mean()
        divergence = 0.5 * (mean.square() + deviation.square() - 1 - 2 * deviation.log()).mean()
        real, made = self._revoiced(waves, levels, generator)
        spectral = torch.stack([_spectral(made, real, *resolution) for resolution in RESOLUTIONS]).mean()
        heard = (self.config.mel.log(made) - self.config.mel.log(real)).abs().mean()
        total = error + self.config.kl * divergence + spectral + heard
        return {"loss": total, "error": error, "divergence": divergence, "spectral": spectral, "heard": heard}

    def _seen(self, levels: Tensor) -> Tensor:
        return (levels - self.config.centre) / self.config.spread

    def _revoiced(self, waves: Tensor, levels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A drawn span of the waves and what the vocoder makes of its log-mel."""
        hop, frames = self.config.mel.hop, levels.shape[-2]
        span = min(-(-SEGMENT // hop), frames)
        start = int(torch.randint(frames - span + 1, (), generator=generator, device=generator.device))
        return waves[:, start * hop : (start + span) * hop], self.vocode(levels[:, start : start + span])


def _spectral(made: Tensor, real: Tensor, fft: int, hop: int, length: int) -> Tensor:
    window = torch.hann_window(length, device=real.device, dtype=torch.float32)
    a, b = (
        torch.stft(x.float(), fft, hop, length, window, return_complex=True).abs().clamp_min(1e-7) for x in (made, real)
    )
    converged = torch.linalg.norm(a - b) / torch.linalg.norm(b).clamp_min(1e-3)
    return converged + F.l1_loss(a.clamp_min(1e-5).log(), b.clamp_min(1e-5).log())


def _networks(config: MelVaeConfig) -> tuple[Any, Any]:
    diffusers, transformers = needed("diffusers", "latents"), needed("transformers", "latents")
    levels = len(config.widths)
    vae = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=config.blocks,
        latent_channels=config.latent,
        norm_num_groups=config.groups,
    )
    about = transformers.SpeechT5HifiGanConfig(
        model_in_dim=config.mel.bands,
        sampling_rate=config.rate,
        upsample_initial_channel=config.vocoder_width,
        upsample_rates=list(config.vocoder_rates),
        upsample_kernel_sizes=list(config.vocoder_kernels),
        normalize_before=False,
    )
    return vae, transformers.SpeechT5HifiGan(about)
