"""Log-mel spectrograms as latent audio models define them, and masks of a spectrogram from them.

Magnitudes (not power) of a periodic Hann window, mirrored at the borders, in triangles on Slaney's scale with Slaney's
normalisation, as librosa's `filters.mel`; natural logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

FLOOR = 1e-5


@dataclass(frozen=True)
class Mel:
    """A spectrogram: rate in Hz, window and hop in samples, bands from 0 Hz to half the rate. The published values.

    ``floor``: smaller magnitudes are not told apart; below 1e-3 there is little but noise, which a small model need not learn.
    """

    rate: int = 16_000
    fft: int = 1024
    hop: int = 160
    bands: int = 64
    floor: float = FLOOR

    def __post_init__(self) -> None:
        if min(self.rate, self.fft, self.hop, self.bands) < 1 or self.hop > self.fft // 2:
            raise ValueError(
                f"rate, fft, hop, bands ({self.rate}, {self.fft}, {self.hop}, {self.bands}) must be positive and hop at "
                "most half of fft, so that windows overlap"
            )
        if self.floor <= 0:
            raise ValueError(f"floor ({self.floor}) must be positive: it has a logarithm")

    def log(self, audio: Tensor) -> Tensor:
        """(..., time) -> (..., time // hop, bands), at least ln floor; the surplus last frame is dropped.

        Time must exceed half a window. Half precision is raised to float32, also where autocast would lower it.
        """
        with torch.autocast(audio.device.type, enabled=False):
            full = audio.to(torch.promote_types(audio.dtype, torch.float32))
            magnitudes = self.transform(full).abs()[..., : audio.shape[-1] // self.hop]
            return (self.bank(magnitudes) @ magnitudes).clamp_min(self.floor).log().transpose(-1, -2)

    def transform(self, audio: Tensor) -> Tensor:
        """(..., time) -> complex (..., fft // 2 + 1, 1 + time // hop)."""
        flat = audio.reshape(-1, audio.shape[-1])
        spectrum = torch.stft(
            flat, self.fft, self.hop, window=self._window(audio), pad_mode="reflect", return_complex=True
        )
        return spectrum.unflatten(0, audio.shape[:-1]) if audio.ndim > 1 else spectrum[0]

    def inverse(self, spectrum: Tensor, time: int) -> Tensor:
        """The signals (..., time) whose `transform` it is."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        window = torch.hann_window(self.fft, device=spectrum.device, dtype=torch.float32)
        return torch.istft(flat, self.fft, self.hop, window=window, length=time).reshape(*spectrum.shape[:-2], time)

    def shares(self, levels: Tensor, frames: int, exponent: float = 2.0) -> Tensor:
        """Masks (..., stem, fft // 2 + 1, frames) that sum to 1 over stems, from log-mels (..., stem, frame, band).

        A stem's share of a band is its power's share of all stems', or that of another `exponent` of its magnitude; a bin takes
        the shares of the bands that cover it, in proportion to their weights there. Missing last frames repeat the last.
        """
        share = (exponent * levels).softmax(-3).transpose(-1, -2)
        bank = self.bank(share)
        weights = bank / bank.sum(0).clamp_min(1e-8)
        covered = bank.sum(0) > 0
        masks = torch.where(covered[:, None], weights.T @ share, 1 / levels.shape[-3])
        return torch.cat([masks, *[masks[..., -1:]] * (frames - masks.shape[-1])], -1)

    def bank(self, like: Tensor) -> Tensor:
        """The triangles (bands, fft // 2 + 1) in the type and on the device of `like`."""
        return _bank(self).to(device=like.device, dtype=like.dtype)

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.fft, dtype=like.dtype, device=like.device)


@cache
def _bank(mel: Mel) -> Tensor:
    """(bands, bins) triangles on Slaney's mel scale, linear to 1 kHz, then 27 steps to a factor of 6.4; area 1 per Hz / 2."""
    step, highest = math.log(6.4) / 27, mel.rate / 2
    top = 15 + math.log(highest / 1000) / step if highest > 1000 else highest * 3 / 200
    mels = torch.linspace(0, top, mel.bands + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * step))
    bins = torch.linspace(0, highest, mel.fft // 2 + 1, dtype=torch.float64)
    lower, centre, upper = (edges[i : i + mel.bands, None] for i in range(3))
    triangles = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp_min(0)
    return triangles * (2 / (upper - lower))
