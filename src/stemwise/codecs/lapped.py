"""An orthonormal lapped transform (MDCT) with a fixed tilt across frequency: mixing stays a sum, no vocoder needed.

The MDCT with a sine window is an orthonormal lapped transform (Princen, Johnson and Bradley 1987; Malvar 1992), so
white noise stays white and energies can be compared in either domain. Music falls by some decibels an octave; a
fixed gain per bin makes its average spectrum flat, so that one noise level means the same at 100 Hz and at 10 kHz.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Lapped(nn.Module):
    """MDCT of ``bins`` coefficients a frame, hop ``bins``, window ``2 * bins``, times a gain per bin.

    ``encode``: (..., time) -> (..., frames, bins) with ``time = (frames - 1) * bins``.
    ``decode``: the exact inverse on signals (and the adjoint of ``encode`` when ``tilt`` is 0).
    ``tilt`` is the assumed decay of the amplitude spectrum: gain(f) = ((f + f0) / f1) ** tilt, f0 = 60 Hz, f1 = 1500
    Hz.
    """

    additive = True
    gain: Tensor
    _window: Tensor
    _before: Tensor
    _phase: Tensor
    _twiddle: Tensor

    def __init__(self, bins: int = 1024, rate: int = 44100, tilt: float = 0.8) -> None:
        super().__init__()
        self.bins = bins
        n = torch.arange(2 * bins, dtype=torch.float64)
        k = torch.arange(bins, dtype=torch.float64)
        frequency = (k + 0.5) * rate / (2 * bins)
        window = torch.sin(math.pi / (2 * bins) * (n + 0.5))
        rotation = torch.exp(-1j * math.pi * n / (2 * bins)) * math.sqrt(2 / bins)
        phase = torch.exp(-1j * math.pi * (bins + 1) / 2 * (k + 0.5) / bins)
        twiddle = torch.exp(-1j * math.pi / (4 * bins) * (4 * k[: bins // 2] + 0.5)) * (2 / bins) ** 0.25
        self.register_buffer("gain", ((frequency + 60.0) / 1500.0).pow(tilt).float(), persistent=False)
        self.register_buffer("_window", window.float(), persistent=False)
        self.register_buffer("_before", (window * rotation).to(torch.complex64), persistent=False)
        self.register_buffer("_phase", phase.to(torch.complex64), persistent=False)
        self.register_buffer("_twiddle", twiddle.to(torch.complex64), persistent=False)

    def samples(self, frames: int) -> int:
        """The length in samples of a signal of that many frames."""
        return (frames - 1) * self.bins

    def frames(self, samples: int) -> int:
        """The number of frames of a signal of that many samples, a multiple of ``bins``."""
        if samples % self.bins:
            raise ValueError(f"{samples} samples are not a multiple of {self.bins}")
        return samples // self.bins + 1

    def encode_complex(self, wave: Tensor) -> Tensor:
        """The modulated complex lapped transform (..., frames, bins): its real part is the MDCT, minus imaginary the
        MDST.
        """
        spectrum = torch.fft.fft(self._frame(wave) * self._before)[..., : self.bins]
        return spectrum * (self._phase * self.gain)

    def encode(self, wave: Tensor) -> Tensor:
        """(..., time) -> (..., frames, bins), linear: the window folded onto itself, then a DCT-IV."""
        a, b, c, d = (self._frame(wave) * self._window).chunk(4, dim=-1)
        return self._dct4(torch.cat([-c.flip(-1) - d, a - b.flip(-1)], dim=-1)) * self.gain

    def decode(self, coefficients: Tensor) -> Tensor:
        """(..., frames, bins) -> (..., time), linear; ``decode(encode(x)) == x``."""
        first, second = self._dct4(coefficients / self.gain).chunk(2, dim=-1)
        left = torch.cat([second, -second.flip(-1)], dim=-1) * self._window[: self.bins]
        right = torch.cat([-first.flip(-1), -first], dim=-1) * self._window[self.bins :]
        return (right[..., :-1, :] + left[..., 1:, :]).flatten(-2)

    def _frame(self, wave: Tensor) -> Tensor:
        return nn.functional.pad(wave, (self.bins, self.bins)).unfold(-1, 2 * self.bins, self.bins)

    def _dct4(self, x: Tensor) -> Tensor:
        """Orthonormal DCT-IV, its own inverse, by one complex FFT of half the length (Malvar 1992, section 5.4)."""
        packed = torch.complex(x[..., ::2], x.flip(-1)[..., ::2]) * self._twiddle
        y = torch.fft.fft(packed) * self._twiddle
        return torch.stack([y.real, -y.imag.flip(-1)], dim=-1).flatten(-2)
