"""Latents that need no training: log-mels cut into patches, phase by Griffin and Lim (not additive).

What `MelVae` learns is replaced by what can be written down, so that tiny models need no codec of their own. Nothing
above the floor is lost between log-mel and latent; a wave made from a log-mel has the phase that its spectrogram allows, no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stemwise.codecs.mel import FLOOR, Mel
from stemwise.errors import ModelError

CENTRE, SPREAD = -3.5, 1.7
"""Mean and standard deviation of music's log-mels, natural logarithms, about; so latents have about unit variance."""
LOUDEST = 4.6
"""Natural logarithm of the largest magnitude that a latent is taken for; no music of full scale comes near."""


@dataclass(frozen=True)
class MelPatchesConfig:
    """A latent is a patch of ``patch`` (frames, bands); ``window`` in samples; ``rounds`` of phase reconstruction.

    ``floor``: smaller magnitudes are not told apart. The default is some 70 dB below a full-scale tone: with less,
    pauses would be far away from all music.
    """

    patch: tuple[int, int]
    mel: Mel = field(default_factory=Mel)
    window: int = 163_840
    rounds: int = 32
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.patch) < 1 or self.mel.bands % self.patch[1] or self.window % self.stride:
            raise ValueError(
                f"patch {self.patch}: its bands must divide mel.bands ({self.mel.bands}), and its {self.stride} samples "
                f"the window ({self.window})"
            )

    @property
    def rate(self) -> int:
        """In hertz."""
        return self.mel.rate

    @property
    def stride(self) -> int:
        """Samples to a latent."""
        return self.patch[0] * self.mel.hop

    @property
    def latent(self) -> int:
        """Channels."""
        return self.patch[0] * self.patch[1]

    def shape(self, samples: int) -> tuple[int, int, int]:
        """Of the latent of that many samples: (channel, time, mel). Raises ModelError unless they are whole latents."""
        if samples % self.stride:
            raise ModelError(f"{samples} samples are not a multiple of {self.stride}, a latent's step; pad them")
        return self.latent, samples // self.stride, self.mel.bands // self.patch[1]


class MelPatches(nn.Module):
    """(..., time) <-> (..., channel, time', mel'), as `MelVae`."""

    additive = False

    def __init__(self, config: MelPatchesConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, wave: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents; they have no posterior, so `noise` is ignored."""
        self.config.shape(wave.shape[-1])
        frames, bands = self.config.patch
        levels = self.config.mel.log(wave).clamp_min(math.log(self.config.floor))
        cut = ((levels - CENTRE) / SPREAD).unflatten(-1, (-1, bands)).unflatten(-3, (-1, frames))
        return cut.movedim((-3, -1), (-4, -3)).flatten(-4, -3)

    def levels(self, latent: Tensor) -> Tensor:
        """Log-mels (..., frame, band) up to `LOUDEST`; at the floor there is silence, ln 1e-5."""
        cut = latent.unflatten(-3, self.config.patch).movedim((-4, -3), (-3, -1))
        levels = (cut.flatten(-2).flatten(-3, -2) * SPREAD + CENTRE).clamp_max(LOUDEST)
        return torch.where(levels > math.log(self.config.floor) + 0.05, levels, math.log(FLOOR))

    def vocode(self, levels: Tensor) -> Tensor:
        """Waves (..., frame * hop) whose log-mels come near (Griffin and Lim 1984, accelerated as Perraudin et al. 2013)."""
        mel, samples = self.config.mel, levels.shape[-2] * self.config.mel.hop
        bank = mel.bank(levels)
        magnitude = (torch.linalg.pinv(bank) @ levels.exp().transpose(-1, -2)).clamp_min(0)
        magnitude = F.pad(magnitude, (0, 1))  # the frame that `Mel.log` drops
        phase = torch.zeros_like(magnitude)
        spectrum = before = torch.polar(magnitude, phase)
        for _ in range(self.config.rounds):
            again = mel.transform(mel.inverse(spectrum, samples))
            ahead = again + 0.99 * (again - before)
            spectrum, before = torch.polar(magnitude, ahead.angle()), again
        return mel.inverse(spectrum, samples)

    def decode(self, latent: Tensor) -> Tensor:
        """Waves (..., time) of latents."""
        return self.vocode(self.levels(latent))
