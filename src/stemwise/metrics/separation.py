"""How close a separated stem is to the true one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def si_sdr(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, the signals' means kept (no zero-mean step).

    With the optimal scale a = <e, s> / <s, s>:  10 log10(|a s|^2 / |a s - e|^2), over all channels and samples as one
    vector. Source: Le Roux, Wisdom, Erdogan, Hershey (2019), "SDR - half-baked or well done?", equations 3 to 5.

    Args:
        estimate: e, any shape, for example (channel, time).
        reference: s, the same shape.

    Returns:
        dB; +inf for a perfect estimate, -inf for one orthogonal to the reference (also a silent one), nan where the
        reference is silent.

    Raises:
        ValueError: the shapes differ.
    """
    e, s = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    if e.shape != s.shape:
        raise ValueError(f"estimate {e.shape} and reference {s.shape} differ in shape")
    energy = float(np.sum(s * s))
    if energy == 0.0:
        return float("nan")
    target = np.sum(e * s) / energy * s
    signal, distortion = float(np.sum(target**2)), float(np.sum((target - e) ** 2))
    if signal == 0.0:
        return float("-inf")
    return float("inf") if distortion == 0.0 else float(10 * np.log10(signal / distortion))


def si_sdr_zero_mean(estimate: ArrayLike, reference: ArrayLike) -> float:
    """`si_sdr` after taking each signal's mean over its last axis away, as some toolkits do by default: nan, too, where the
    reference is constant.
    """
    e, s = (np.asarray(x, np.float64) for x in (estimate, reference))
    e, s = (np.where((x == x[..., :1]).all(-1, keepdims=True), 0.0, x - x.mean(-1, keepdims=True)) for x in (e, s))
    return si_sdr(e, s)


def si_sdr_improvement(estimate: ArrayLike, reference: ArrayLike, mixture: ArrayLike) -> float:
    """By how many dB the estimate's `si_sdr` exceeds that of the mixture taken as the estimate."""
    return si_sdr(estimate, reference) - si_sdr(mixture, reference)


def sdr(estimate: ArrayLike, reference: ArrayLike) -> float:
    """Signal-to-distortion ratio of a whole signal in dB: 10 log10(|s|^2 / |s - e|^2), over all channels and samples.

    The utterance SDR of the Music Demixing Challenge (Mitsufuji et al. 2022), without the small constant that keeps it
    finite there. A wrong gain counts as an error, unlike in `si_sdr`; shapes, silence and errors as there, but the
    silent estimate of an audible reference has 0 dB.
    """
    e, s = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    if e.shape != s.shape:
        raise ValueError(f"estimate {e.shape} and reference {s.shape} differ in shape")
    energy, distortion = float(np.sum(s * s)), float(np.sum((s - e) ** 2))
    if energy == 0.0:
        return float("nan")
    return float("inf") if distortion == 0.0 else float(10 * np.log10(energy / distortion))
