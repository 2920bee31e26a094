"""SDR as BSS Eval version 4 defines it (Stöter, Liutkus, Ito 2018), the figure of SiSEC and of the MUSDB tables.

Of the four ratios only SDR is here: for source images it does not depend on the distortion filters, being
10 log10(|s|² / |s - e|²) of every window, so no filter is estimated and a song takes milliseconds. For ISR, SIR and SAR
use museval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stemwise.errors import MetricError
from stemwise.metrics.moments import Floats


@dataclass(frozen=True, eq=False)
class FramewiseSdr:
    """SDR of the windows that have one.

    Attributes:
        values: (stem, window) in dB, only windows in which every reference and every estimate is audible; +inf where
            an estimate is perfect.
        windows: how many windows there were, silent ones included.
    """

    values: Floats
    windows: int

    def medians(self) -> list[float | None]:
        """The song's figure for every stem: the median over windows (then take the median over songs), or None."""
        return [float(np.median(row)) if len(row) else None for row in self.values]


def bss_eval_sdr(estimates: ArrayLike, references: ArrayLike, window: int) -> FramewiseSdr:
    """Windowed SDR of all stems of a song, without overlap; an incomplete last window is dropped.

    Silence, as in museval: a window in which any stem's reference or estimate is digital silence counts for no stem.

    Args:
        estimates: (stem, channel, time).
        references: the same shape.
        window: in samples; one second for the published figures. A shorter song is one window.

    Raises:
        MetricError: the shapes differ, or are not three-dimensional.
    """
    e, s = np.asarray(estimates, np.float64), np.asarray(references, np.float64)
    if e.shape != s.shape or e.ndim != 3 or not e.size:
        raise MetricError(f"estimates {e.shape} and references {s.shape} must both be (stem, channel, time), not empty")
    length = e.shape[-1]
    size = min(window, length)
    count = length // size
    e, s = (x[..., : count * size].reshape(*x.shape[:2], count, size) for x in (e, s))
    # museval looks at the sum over channels, so opposite channels count as silence there
    audible = [(x.sum(1) != 0).any(-1).all(0) for x in (e, s)]
    kept = audible[0] & audible[1]
    signal, distortion = (np.square(x[:, :, kept]).sum((1, 3)) for x in (s, s - e))
    with np.errstate(divide="ignore"):
        return FramewiseSdr(np.asarray(10 * np.log10(signal / distortion)), count)
