"""The band prior: one denoiser over five stems and their mixture, every slot with a noise level of its own.

A slot at `CLEAN` is heard, a slot at `ABSENT` says nothing, anything between is being sampled. So one set of weights
separates (mixture heard), generates (nothing heard), accompanies (some stems heard) and edits; MGE-LDM (2025) does
the same in latents. The state lives in the tilted lapped domain of `stemwise.codecs.Lapped`, where mixing is a sum
and white noise stays white.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stemwise.codecs.lapped import Lapped
from stemwise.errors import ModelError
from stemwise.nets.bandnet import BandNet, BandNetConfig

CLEAN = 0.002
ABSENT = 80.0
MOMENTUM = 0.01  # of the measured power, for a batch
SMOOTH = 8  # bins to both sides that its mean takes in
RESTS = 0.002  # of the stems' mean energy: what has less of it rests
QUIET = 0.1  # of the stems' mean energy, by which the error of a quiet stem is softened
REMIXED = 0.1  # of the separating windows: stems that never fit are told apart too easily


@dataclass(frozen=True)
class BandConfig:
    """What `config.json` of a band model holds. ``window`` is in samples, ``(frames - 1) * bins``; of a mixture that is separated
    ``heard_frames`` are heard at once (None: ``frames``).
    """

    stems: tuple[str, ...] = ("bass", "drums", "guitar", "piano", "other")
    rate: int = 44100
    bins: int = 2048
    frames: int = 128
    heard_frames: int | None = None
    tilt: float = 0.8
    sigma_data: float = 0.45
    net: BandNetConfig = field(default_factory=BandNetConfig)

    def __post_init__(self) -> None:
        step = self.step
        if sum(bins for bins, _ in self.net.patches) != self.bins:
            raise ValueError(f"net.patches must cover the {self.bins} bins exactly")
        if self.frames % step or (self.heard_frames or 0) % step or self.net.positions % step:
            raise ValueError(f"frames, heard_frames and the number of patches must be multiples of {step}")
        if self.heard_frames is not None and self.heard_frames < self.frames:
            raise ValueError(f"heard_frames is {self.heard_frames}; it must not be below frames, {self.frames}")
        if self.net.widths[-1] % self.net.attention_heads:
            raise ValueError(f"net.attention_heads must divide the last of net.widths, {self.net.widths[-1]}")
        if self.net.slots != len(self.stems) + 1:
            raise ValueError(f"{len(self.stems)} stems and the mixture need net.slots of {len(self.stems) + 1}")

    @property
    def step(self) -> int:
        """The numbers of frames and of patches are multiples of this."""
        return 2 ** (len(self.net.widths) - 1)

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        return (self.frames - 1) * self.bins


class Band(nn.Module):
    """Denoiser over states (batch, stem + mixture, 2, frame, bin); the last slot is the mixture, channels are mid
    and side.
    """

    def __init__(self, config: BandConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = Lapped(config.bins, config.rate, config.tilt)
        self.net = BandNet(config.net)
        weight = self.codec.gain.pow(-1.5)
        self.register_buffer("bin_weight", weight / weight.mean(), persistent=False)
        self.register_buffer("power", torch.full((len(config.stems), config.bins), config.sigma_data**2))

    bin_weight: Tensor
    power: Tensor
    """Mean square of every stem at every bin, measured in training."""

    def encode(self, wave: Tensor) -> Tensor:
        """(..., 2, time) left and right -> (..., 2, frame, bin) mid and side, linear and additive."""
        return self.codec.encode(rotate(wave))

    def decode(self, state: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return rotate(self.codec.decode(state))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[clean | x] for x (B, slot, 2, frame, bin) and sigma (B, slot).

        Where the mixture is heard the stems are closed to sum to it; elsewhere the mixture's estimate is their sum.
        """
        stems = self.estimate(x, sigma)
        heard = (sigma[:, -1] <= CLEAN)[:, None, None, None]
        stems = torch.where(heard[:, None], self.close(stems, x[:, -1], sigma), stems)
        return torch.cat([stems, torch.where(heard, x[:, -1], stems.sum(1))[:, None]], dim=1)

    def estimate(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The network's own estimate of the stems (B, stem, 2, frame, bin), not yet closed.

        D = c_skip x + c_out (F + M mix / sigma_data), with the coefficients of Karras et al. (2022), equation 7, but that c_skip
        is that of Wiener for a power of the network's own at every frame and bin, a factor of the stem's mean `power`: where it
        expects no sound, no noise passes. A slot at `ABSENT` is not read at all, so the estimate there is the posterior mean.
        """
        sd = self.config.sigma_data
        level = sigma[:, :, None, None, None]
        heard = level < ABSENT
        scale = (level**2 + sd**2).rsqrt() * heard
        scaled = x * scale
        mix, mix_heard = x[:, -1], heard[:, -1]
        quadrature = -self.codec.encode_complex(self.codec.decode(mix)).imag
        features = mixture_features(mix, quadrature) * mix_heard
        slots = (scaled * (1 + scaled.abs()).rsqrt()).flatten(1, 2)
        y = self.net(slots, features, sigma.clamp(CLEAN, ABSENT).log() / 4)
        free, real, imaginary, other, log_power = y.unbind(3)
        seen, turned = ((z * (mix_heard / sd)).to(y.dtype)[:, None] for z in (mix, quadrature))
        masked = (real + 0.2) * seen + imaginary * turned + other * seen.flip(2)
        stem_level = level[:, :-1]
        log_power = log_power + self.power.clamp_max(sd**2).log()[:, None, None]
        log_power = torch.where(stem_level > CLEAN, log_power, 2 * math.log(sd))
        c_skip = torch.sigmoid(log_power - 2 * stem_level.log()) * heard[:, :-1]
        c_out = stem_level * sd * (stem_level**2 + sd**2).rsqrt()
        return c_skip * x[:, :-1] + c_out * (free + masked)

    def close(self, stems: Tensor, mix: Tensor, sigma: Tensor) -> Tensor:
        """Share what the stems lack of the mixture (B, 2, frame, bin) among them by their posterior variance at `sigma`.

        That variance is sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2): nothing goes to stems that were heard.
        """
        variance = (sigma[:, :-1] ** -2 + self.config.sigma_data**-2).reciprocal()
        share = (variance / variance.sum(1, keepdim=True))[:, :, None, None, None]
        return stems + share * (mix - stems.sum(1))[:, None]

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Denoising loss of stems (B, stem, 2, time), time = (frames - 1) * bins, over random tasks and noise levels.

        Where the mixture is heard, the root of a stem's error relative to its own energy, as separation is judged, and a
        little of the mean of all stems (all of it, where a stem rests); the best guess is then near the median. Elsewhere the
        squared error over the mean alone: sampling needs the mean, and of a stem that plays in two windows of five the
        median is silence. Raises ModelError for windows that do not fit the network.
        """
        frames, rest = divmod(batch.shape[-1], self.config.bins)
        if rest or (frames + 1) % self.config.step or batch.shape[2] != 2:
            good = ((frames + 1) // self.config.step or 1) * self.config.step - 1
            raise ModelError(
                f"windows of {batch.shape[2]} channel(s) and {batch.shape[-1]} samples do not fit this model; set data.channels=2 "
                f"and, for example, data.frames={good * self.config.bins}"
            )
        sigma = draw_levels(batch.shape[0], batch.shape[1], generator)
        if self.training:
            batch = remixed(batch, sigma[:, -1] <= CLEAN, generator)
        sigma = sigma.to(batch.device)
        wave = batch / loudness(batch.sum(1)).clamp_min(1e-3)[:, None, None, None]
        clean = self.encode(wave)
        if self.training:
            self._measure(clean)
        clean = torch.cat([clean, clean.sum(1, keepdim=True)], dim=1)
        level = sigma[:, :, None, None, None]
        noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean.device)
        wanted = (sigma > CLEAN)[:, :-1].float()
        x = clean + torch.where((level > CLEAN) & (level < ABSENT), level, 0.0) * noise
        estimate = self(x, sigma)[:, :-1]
        target = clean[:, :-1]
        error = ((estimate - target).square() @ self.bin_weight).mean((2, 3)) / self.config.bins
        energy = (target.square() @ self.bin_weight).mean((2, 3)) / self.config.bins
        sd = self.config.sigma_data
        weight = 1 + sd**2 / sigma[:, :-1] ** 2
        separating, mean = sigma[:, -1:] <= CLEAN, energy.mean(1, keepdim=True)
        own = energy + torch.where(energy > RESTS * mean, QUIET, 1.0) * mean
        relative = weight * error / (torch.where(separating, own, 2 * mean) + 1e-4)
        loss = torch.where(separating, (relative + 1e-6).sqrt(), relative)
        return (wanted * loss).sum() / wanted.sum().clamp_min(1)

    @torch.no_grad()
    def _measure(self, clean: Tensor) -> None:
        """Stems (B, stem, 2, frame, bin) enter the mean `power`, smoothed over neighbouring bins."""
        power = F.pad(clean.square().mean((0, 2, 3)), (SMOOTH, SMOOTH), mode="replicate")
        self.power.lerp_(F.avg_pool1d(power, 2 * SMOOTH + 1, 1), MOMENTUM)


def rotate(wave: Tensor) -> Tensor:
    """Left and right <-> mid and side (..., 2, time), orthonormal and its own inverse."""
    left, right = wave.unbind(-2)
    return torch.stack([left + right, left - right], dim=-2) * math.sqrt(0.5)


def loudness(wave: Tensor) -> Tensor:
    """Root mean square of (..., 2, time) over channels and time."""
    return wave.square().mean((-2, -1)).sqrt()


def mixture_features(mix: Tensor, quadrature: Tensor) -> Tensor:
    """(B, 2, frame, bin) MDCT and MDST -> (B, 8, frame, bin): compressed coefficients, log magnitudes, panning."""
    energy = mix.square() + quadrature.square() + 1e-6
    compress = energy.pow(-0.35)
    total = energy.sum(1)
    cross = (mix.prod(1) + quadrature.prod(1)) / total * 2
    balance = (energy[:, 0] - energy[:, 1]) / total
    return torch.cat(
        [mix * compress, quadrature * compress, energy.log() * 0.2, cross[:, None], balance[:, None]], dim=1
    )


def remixed(batch: Tensor, separating: Tensor, generator: torch.Generator) -> Tensor:
    """Stems (B, stem, 2, time); in a share `REMIXED` of the `separating` windows (B,) each comes from another window of the batch.

    Défossez et al. (2019), section 4. Where the mixture is not heard they stay together: there is to be learned how they fit.
    """
    order = torch.rand(batch.shape[:2], generator=generator, device=generator.device).argsort(0)
    kept = torch.rand(batch.shape[0], generator=generator, device=generator.device) >= REMIXED
    own = torch.arange(batch.shape[0], device=generator.device)
    order = torch.where((kept | ~separating)[:, None], own[:, None], order)
    return batch[order, torch.arange(batch.shape[1])]


def draw_levels(batch: int, stems: int, generator: torch.Generator) -> Tensor:
    """Noise levels (batch, stems + 1) of random tasks: 76 % separation, the rest generation, accompaniment and
    hints. Accompaniment is trained at higher levels, where what to play is decided.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device)

    task = uniform(batch, 1)
    spread = torch.randn(batch, 1, generator=generator, device=generator.device)
    separating, accompanying = task < 0.76, task >= 0.81
    common = (spread * 1.4 + torch.where(accompanying, 0.4, -0.6)).exp().clamp(2 * CLEAN, 0.9 * ABSENT)
    absent = uniform(batch, 1) < torch.where(separating, 0.9, 0.15)
    stem = torch.where(absent, ABSENT, common).expand(batch, stems)
    known = uniform(batch, stems) < uniform(batch, 1)
    all_known = known.all(1, keepdim=True)
    known = known & ~(all_known & (torch.arange(stems, device=known.device) == (uniform(batch, 1) * stems).long()))
    with_hints = (task >= 0.71) & separating | accompanying
    stem = torch.where(with_hints & known, CLEAN, stem)
    mixture = torch.where(separating, CLEAN, ABSENT)
    return torch.cat([stem, mixture], dim=1)
