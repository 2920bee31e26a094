"""Distances of log-mel spectrograms, the separation figures of latent models, which have no phase to measure.

Two figures with similar names are published: MSG-LD's code (Karchkhadze et al. 2024) computes the mean squared error,
MGE-LDM's tables (Chae et al. 2025) the mean absolute error. They do not compare.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from stemwise.audio_io import resample
from stemwise.codecs.mel import Mel
from stemwise.errors import MetricError

_MEL = Mel()


def log_mel(audio: Tensor) -> Tensor:
    """Natural logarithm of mel magnitudes: (..., time) at 16 kHz -> (..., time // 160, 64), at least ln 1e-5.

    MSG-LD's: windows of 1024, 64 bands from 0 to 8 kHz (`codecs.mel`). Time must exceed 512 samples.
    """
    return _MEL.log(audio)


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
    if e.shape[1] * _MEL.rate <= (_MEL.fft // 2 + _MEL.hop) * rate:
        raise MetricError(f"{e.shape[1] / rate:.3f} s is too short for a spectrogram; give at least 0.05 s")
    pair = np.concatenate([resample(x.mean(0, keepdims=True), rate, _MEL.rate) for x in (e, s)])
    made, real = log_mel(torch.from_numpy(pair).double())
    return made - real
