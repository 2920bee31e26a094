"""Distances of log-mel spectrograms, the separation figures of latent models, which have no phase to measure.

Two figures with similar names are published: MSG-LD's code (Karchkhadze et al. 2024) computes the mean squared error,
MGE-LDM's tables (Chae et al. 2025) the mean absolute error. They do not compare.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from stemwise.audio_io import resample
from stemwise.errors import MetricError

RATE = 16_000
FFT, HOP, BANDS = 1024, 160, 64
FLOOR = 1e-5


def log_mel(audio: Tensor) -> Tensor:
    """Natural logarithm of mel magnitudes: (..., time) at 16 kHz -> (..., time // 160, 64), at least ln 1e-5.

    MSG-LD's: periodic Hann of 1024, hop 160, mirrored at the borders, magnitudes (not power), 64 bands from 0 to 8 kHz on
    Slaney's scale with Slaney's normalisation; the surplus last frame is dropped. Time must exceed 512 samples.
    """
    flat = audio.reshape(-1, audio.shape[-1])
    window = torch.hann_window(FFT, dtype=audio.dtype, device=audio.device)
    spectrum = torch.stft(flat, FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True).abs()
    mel = _bank().to(spectrum) @ spectrum[..., : audio.shape[-1] // HOP]
    return mel.clamp_min(FLOOR).log().transpose(-1, -2).reshape(*audio.shape[:-1], -1, BANDS)


def log_mel_mse(estimate: ArrayLike, reference: ArrayLike, rate: int) -> float:
    """Mean squared difference of two signals' `log_mel`, squared natural-log units; 0 for equal signals.

    Silence has a value like any other (ln 1e-5 in every band), so silent stems count. MSG-LD takes the decoder's
    spectrogram for the estimate; here both are computed from the signals.

    Args:
        estimate: (channel, time); channels are averaged.
        reference: the same shape.
        rate: in Hz; resampled to 16 kHz.

    Raises:
        MetricError: shapes differ, or shorter than 33 ms.
    """
    return float(_difference(estimate, reference, rate).square().mean())


def log_mel_l1(estimate: ArrayLike, reference: ArrayLike, rate: int) -> float:
    """Mean absolute difference of two signals' `log_mel`, natural-log units; otherwise as `log_mel_mse`."""
    return float(_difference(estimate, reference, rate).abs().mean())


def _difference(estimate: ArrayLike, reference: ArrayLike, rate: int) -> Tensor:
    e, s = np.asarray(estimate, np.float32), np.asarray(reference, np.float32)
    if e.shape != s.shape or e.ndim != 2:
        raise MetricError(f"estimate {e.shape} and reference {s.shape} must both be (channel, time)")
    if e.shape[1] * RATE <= (FFT // 2 + HOP) * rate:
        raise MetricError(f"{e.shape[1] / rate:.3f} s is too short for a spectrogram; give at least 0.05 s")
    pair = np.concatenate([resample(x.mean(0, keepdims=True), rate, RATE) for x in (e, s)])
    made, real = log_mel(torch.from_numpy(pair).double())
    return made - real


@cache
def _bank() -> Tensor:
    """(64, 513) triangles on Slaney's mel scale, linear to 1 kHz, then 27 steps to a factor of 6.4; area 1 per Hz / 2."""
    step = math.log(6.4) / 27
    top = 15 + math.log(RATE / 2 / 1000) / step
    mels = torch.linspace(0, top, BANDS + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * step))
    bins = torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64)
    lower, centre, upper = (edges[i : i + BANDS, None] for i in range(3))
    triangles = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp_min(0)
    return triangles * 2 / (upper - lower)
