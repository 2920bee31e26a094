"""Power spectra of stems: on average, a few numbers for each in a model's configuration, and where a network corrects them.

A stem that is Gaussian noise of a known power at every moment and frequency has the Wiener filter as its denoiser
(`LocalWiener`), and several of them the multichannel one as their separator (Duong, Vincent and Gribonval 2010).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion.denoisers import Net, align, labels

#: Hertz, where a spectrum is given. Between them its logarithm lies on straight lines over log frequency; it is level outside.
KNOTS = (30.0, 60.0, 90.0, 130.0, 190.0, 280.0, 420.0, 630.0, 950.0, 1400.0, 2000.0, 2800.0, 4000.0, 5700.0, 8000.0)

Spectra = tuple[tuple[float, ...], ...]
"""For each stem the standard deviation at each of KNOTS of the white noise that is as strong there."""

Power = Callable[[int], Tensor]
"""From a number of frames to the power spectral densities (stem, frames // 2 + 1) of such a window."""


def powers(spectra: Spectra, rate: int) -> Power:
    """A function from a number of frames to the power spectral densities (stem, frames // 2 + 1) of such a window."""
    known: dict[int, Tensor] = {}

    def power(frames: int) -> Tensor:
        if frames not in known:
            bins = np.log(np.fft.rfftfreq(frames, 1.0 / rate).clip(KNOTS[0]))
            rows = [np.exp(2.0 * np.interp(bins, np.log(KNOTS), np.log(row))) for row in spectra]
            known[frames] = torch.tensor(np.stack(rows), dtype=torch.float32)
        return known[frames]

    return power


def measured(windows: Tensor, rate: int) -> Spectra:
    """The spectra of windows (window, stem, frames): root mean square over them in a third of an octave about each knot.

    What is silent everywhere gets -120 dB.
    """
    return _rounded(_about_knots(windows, rate).mean(0))


def unmixed(mixtures: Tensor, told: Tensor, rate: int, rounds: int = 500) -> Spectra:
    """The spectra of sources that were never heard alone, from mixtures (window, frames) and who plays: bool (window, source).

    Maximum likelihood where a mixture's power is exponential about the sum of its sources' (Itakura-Saito divergence,
    Fevotte et al. 2009, multiplicative updates). Two sources that always play together get equal shares.
    """
    power, plays = _about_knots(mixtures[:, None], rate)[:, 0].clamp(min=1e-12), told.double()
    found = power.mean(0).expand(told.shape[1], -1) / plays.sum(1).mean()
    for _ in range(rounds):
        model = (plays @ found).clamp(min=1e-12)
        found = found * ((plays.T @ (power / model**2)) / (plays.T @ (1 / model)).clamp(min=1e-30)).sqrt()
    return _rounded(found)


def _about_knots(windows: Tensor, rate: int) -> Tensor:
    """Mean power spectral density (..., knot) of windows (..., frames) in a third of an octave about each knot."""
    frames = windows.shape[-1]
    power = torch.fft.rfft(windows.double()).abs().square() / frames
    bins = torch.fft.rfftfreq(frames, 1.0 / rate)
    near = [(bins >= min(knot, rate / 2.5) / 1.125) & (bins <= min(knot, rate / 2) * 1.125) for knot in KNOTS]
    return torch.stack([power[..., chosen].mean(-1) for chosen in near], dim=-1)


def _rounded(power: Tensor) -> Spectra:
    rows = power.sqrt().clamp(min=1e-6).tolist()
    return tuple(tuple(float(f"{value:.3g}") for value in row) for row in rows)


@dataclass(frozen=True)
class LocalWiener:
    """The Wiener filter of the power that a network finds in noisy stems, at every frame and bin of a Hann-windowed transform.

    `net` as `stemwise.nets.powernet.PowerNet`, `power` (stem, bins + 1) the stems' mean spectra at frames of ``2 * bins``
    samples, one every `hop`. A network that says nothing leaves the filter of the mean spectra.
    """

    net: Net
    power: Tensor
    hop: int

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x]; x is (batch, stem, time), sigma () or (batch,)."""
        return self.signal(self.moments(x, sigma)[0], x.shape[-1])

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (complex) and variance of every bin of the clean stems given noisy ones, (batch, stem, frame, bins + 1)."""
        spectrum = self.spectrogram(x)
        noise = align(sigma, spectrum.real) ** 2
        mean = self.power.to(x)[:, None]
        heard = (spectrum.real.square() + spectrum.imag.square()) / self._window(x).square().sum()
        # with a floor below which the noise tells nothing
        level = ((heard + 0.1 * noise) / (mean + noise) + 1e-4).log() * 0.4
        expected = ((mean / noise).log().clamp(-8, 8) * 0.3).expand_as(level)
        features = torch.stack([level, expected], dim=2)[..., :-1]
        change = self.net(features, labels(torch.as_tensor(sigma).log() / 4, x))
        power = mean * F.pad(change, (0, 1)).clamp(-12, 12).exp()
        gain = power / (power + noise)
        return gain * spectrum, gain * noise

    def weight(self, sigma: Tensor) -> Tensor:
        """(batch, stem) for sigma (batch,): one over the mean squared error of the mean spectra's filter."""
        power, level = self.power.to(sigma), sigma[:, None, None] ** 2
        return 1 / (power * level / (power + level)).mean(-1)

    def spectrogram(self, x: Tensor) -> Tensor:
        """(..., time) -> (..., frame, bins + 1), complex."""
        made = torch.stft(
            x.flatten(0, -2), self._frame, self.hop, window=self._window(x), pad_mode="constant", return_complex=True
        )
        return made.transpose(1, 2).unflatten(0, x.shape[:-1])

    def signal(self, spectrum: Tensor, frames: int) -> Tensor:
        """The inverse of `spectrogram`: (..., time)."""
        made = torch.istft(
            spectrum.flatten(0, -3).transpose(1, 2),
            self._frame,
            self.hop,
            window=self._window(spectrum.real),
            length=frames,
        )
        return made.unflatten(0, spectrum.shape[:-2])

    @property
    def _frame(self) -> int:
        return 2 * (self.power.shape[-1] - 1)

    def _window(self, x: Tensor) -> Tensor:
        return torch.hann_window(self._frame, dtype=x.dtype, device=x.device)
