"""Mean spectra of stems: a few numbers for each in a model's configuration, a power for each bin where they are used."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

#: Hertz, where a spectrum is given. Between them its logarithm lies on straight lines over log frequency; it is level outside.
KNOTS = (30.0, 60.0, 90.0, 130.0, 190.0, 280.0, 420.0, 630.0, 950.0, 1400.0, 2000.0, 2800.0, 4000.0, 5700.0, 8000.0)

Spectra = tuple[tuple[float, ...], ...]
"""For each stem the standard deviation at each of KNOTS of the white noise that is as strong there."""

Power = Callable[[int], Tensor]
"""From a number of frames to the power spectral densities (stem, frames // 2 + 1) of such a window."""


def powers(spectra: Spectra, rate: int) -> Power:
    """A function from a number of frames to the power spectral densities (stem, frames // 2 + 1) of such a window."""
    return lambda frames: torch.from_numpy(_densities(spectra, rate, frames))


@lru_cache(maxsize=16)  # models ask at every evaluation of their networks
def _densities(spectra: Spectra, rate: int, frames: int) -> np.ndarray:
    bins = np.log(np.fft.rfftfreq(frames, 1.0 / rate).clip(KNOTS[0]))
    rows = [np.exp(2.0 * np.interp(bins, np.log(KNOTS), np.log(row))) for row in spectra]
    return np.stack(rows).astype(np.float32)


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
