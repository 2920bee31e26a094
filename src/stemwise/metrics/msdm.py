"""The separation figure of MSDM (Mariani et al. 2024), to the letter, so that its table can be continued.

Windows of 4 s every 2 s, the last one may be shorter; those in which fewer than two stems sound are skipped; SI-SDR
improvement with a constant of 1e-8 in numerator and denominator; plain mean over all windows of all songs. What to know
when reading the figures: silent stems of a kept window are scored too, which can give tens of dB for nothing, so the
mean over windows in which the stem sounds (`active_means`) stands beside the published one; and silence is judged by
norm / samples, not by the level, so it depends on the length of the window (-47 dBFS at 4 s).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stemwise.errors import MetricError
from stemwise.metrics.moments import Floats

RATE = 22_050
WINDOW = 4 * RATE
HOP = 2 * RATE
EPS = 1e-8
#: L2 norm divided by the number of samples (not by its root).
SILENT = 1.5e-5


@dataclass(frozen=True, eq=False)
class ScoredWindow:
    """One window of a song.

    Attributes:
        start: first sample.
        end: one past the last sample.
        active: (stem,) bool, where the reference is not silent.
        improvement: (stem,) SI-SDR improvement in dB; None where fewer than two stems sound, so the window is skipped.
    """

    start: int
    end: int
    active: np.ndarray
    improvement: Floats | None


def score_song(estimates: ArrayLike, references: ArrayLike, window: int = WINDOW, hop: int = HOP) -> list[ScoredWindow]:
    """All windows of one song, at 22 050 Hz for the published figures.

    Args:
        estimates: (stem, time), mono. Published: the song is cut into chunks of 2^18 samples, each is separated alone
            (an incomplete last one not at all), and the results are joined; see `chunks`.
        references: (stem, time or longer), cut to the estimates' length; a stem that the song lacks is zeros. The
            mixture is their sum.
        window: in samples.
        hop: in samples.

    Raises:
        MetricError: shapes that do not fit.
    """
    e, r = np.asarray(estimates, np.float64), np.asarray(references, np.float64)
    if e.ndim != 2 or r.ndim != 2 or len(e) != len(r) or r.shape[1] < e.shape[1]:
        raise MetricError(
            f"estimates {e.shape} and references {r.shape} must be (stem, time), mono, the same stems, and the "
            "references at least as long as the estimates"
        )
    r = r[:, : e.shape[1]]
    return [_score(e, r, start, min(start + window, e.shape[1])) for start in starts(e.shape[1], window, hop)]


def starts(length: int, window: int = WINDOW, hop: int = HOP) -> list[int]:
    """First samples of the windows: one every hop, as many as it takes to pass the length less the overlap."""
    return [index * hop for index in range(max(0, -(-(length - (window - hop)) // hop)))]


def chunks(length: int, size: int = 1 << 18) -> list[tuple[int, int]]:
    """Spans (first, end) that are separated on their own: consecutive, the incomplete tail dropped."""
    return [(start, start + size) for start in range(0, length - size + 1, size)]


def si_sdr(estimate: Floats, reference: Floats) -> Floats:
    """SI-SDR in dB along the last axis, means not removed, 1e-8 added to both products and both energies."""
    a = (np.sum(estimate * reference, -1) + EPS) / (np.sum(reference**2, -1) + EPS)
    target = a[..., None] * reference
    ratio = (np.sum(target**2, -1) + EPS) / (np.sum((target - estimate) ** 2, -1) + EPS)
    return np.asarray(10 * np.log10(ratio))


def is_active(reference: Floats) -> np.ndarray:
    """Whether signals (..., time) are not silent by MSDM's rule."""
    return np.asarray(np.linalg.norm(reference, axis=-1) / reference.shape[-1] >= SILENT)


def means(windows: Iterable[ScoredWindow]) -> Floats | None:
    """The published figure: (stem,) mean over all kept windows of all songs; "all" is its mean. None if none is kept."""
    kept = [window.improvement for window in windows if window.improvement is not None]
    return np.asarray(np.mean(kept, axis=0)) if kept else None


def active_means(windows: Sequence[ScoredWindow]) -> list[float | None]:
    """For every stem the mean over the kept windows in which it sounds; None where it never does."""
    kept = [window for window in windows if window.improvement is not None]
    if not kept:
        return []
    values, active = (np.array([getattr(window, name) for window in kept]) for name in ("improvement", "active"))
    return [float(values[on, k].mean()) if on.any() else None for k, on in enumerate(active.T)]


def _score(e: Floats, r: Floats, start: int, end: int) -> ScoredWindow:
    estimate, reference = e[:, start:end], r[:, start:end]
    active = is_active(reference)
    if active.sum() < 2:
        return ScoredWindow(start, end, active, None)
    mixture = np.broadcast_to(reference.sum(0), reference.shape)
    return ScoredWindow(start, end, active, si_sdr(estimate, reference) - si_sdr(mixture, reference))
