"""Stems as Gaussian noise whose power a network finds anew at every moment and frequency.

The denoiser of such a stem is a Wiener filter, and several of them are separated by the multichannel one (Duong, Vincent and
Gribonval 2010), with powers that a prior of the stems, not the mixture, tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion.denoisers import Net, align, labels


@dataclass(frozen=True)
class Stft:
    """Hann-windowed frames of `frame` samples, one every `hop`, a whole fraction of `frame` that is at most half of it."""

    frame: int
    hop: int

    def spectrogram(self, x: Tensor) -> Tensor:
        """(..., time) -> (..., frame, frame // 2 + 1), complex."""
        made = torch.stft(
            x.flatten(0, -2), self.frame, self.hop, window=self.window(x), pad_mode="constant", return_complex=True
        )
        return made.transpose(1, 2).unflatten(0, x.shape[:-1])

    def signal(self, spectrum: Tensor, frames: int) -> Tensor:
        """The inverse of `spectrogram`: (..., time) of so many samples."""
        made = torch.istft(
            spectrum.flatten(0, -3).transpose(1, 2),
            self.frame,
            self.hop,
            window=self.window(spectrum.real),
            length=frames,
        )
        return made.unflatten(0, spectrum.shape[:-2])

    def window(self, x: Tensor) -> Tensor:
        """(frame,), like x."""
        return torch.hann_window(self.frame, dtype=x.dtype, device=x.device)

    def power(self, x: Tensor) -> Tensor:
        """(..., time) -> (..., frame, frame // 2 + 1), on the scale where white noise of standard deviation s has s^2."""
        spectrum = self.spectrogram(x)
        return (spectrum.real.square() + spectrum.imag.square()) / self.window(x).square().sum()


@dataclass(frozen=True)
class LocalWiener:
    """The Wiener filter of the power that a network finds in noisy stems, at every frame and bin of a Hann-windowed transform.

    `net` as `stemwise.nets.powernet.PowerNet`, `power` (stem, bins + 1) the stems' mean spectra at frames of ``2 * bins``
    samples, one every `hop`. A network that says nothing leaves the filter of the mean spectra. `trust` is how much of what it
    says counts: 1 all of it, 0 nothing.
    """

    net: Net
    power: Tensor
    hop: int
    trust: float = 1.0

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x]; x is (batch, stem, time), sigma () or (batch,)."""
        return self.transform.signal(self.moments(x, sigma)[0], x.shape[-1])

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (complex) and variance of every bin of the clean stems given noisy ones, (batch, stem, frame, bins + 1)."""
        spectrum = self.transform.spectrogram(x)
        noise = align(sigma, spectrum.real) ** 2
        mean = self.power.to(x)[:, None]
        heard = (spectrum.real.square() + spectrum.imag.square()) / self.transform.window(x).square().sum()
        # with a floor below which the noise tells nothing
        level = ((heard + 0.1 * noise) / (mean + noise) + 1e-4).log() * 0.4
        expected = ((mean / noise).log().clamp(-8, 8) * 0.3).expand_as(level)
        features = torch.stack([level, expected], dim=2)[..., :-1]
        change = self.net(features, labels(torch.as_tensor(sigma).log() / 4, x))
        power = mean * (self.trust * F.pad(change, (0, 1)).clamp(-12, 12)).exp()
        gain = power / (power + noise)
        return gain * spectrum, gain * noise

    def weight(self, sigma: Tensor) -> Tensor:
        """(batch, stem) for sigma (batch,): one over the mean squared error of the mean spectra's filter."""
        power, level = self.power.to(sigma), sigma[:, None, None] ** 2
        return 1 / (power * level / (power + level)).mean(-1)

    @property
    def transform(self) -> Stft:
        """Frames of ``2 * bins`` samples, one every `hop`."""
        return Stft(2 * (self.power.shape[-1] - 1), self.hop)
