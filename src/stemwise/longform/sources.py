"""Signals that are read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from torch import Tensor


class Source(Protocol):
    """A signal that is read block by block: ``AudioSource`` (a file) and ``ArraySource`` (memory) are two."""

    rate: int
    channels: int
    frames: int
    name: str

    def blocks(self, size: int = 65_536) -> Iterator[np.ndarray]:
        """The signal from its start in consecutive float32 blocks (channels, n)."""
        ...


class ArraySource:
    """An array (channels, frames) or (frames,) in memory as a ``Source``."""

    def __init__(self, signal: np.ndarray | Tensor, rate: int, name: str = "array") -> None:
        array = signal.detach().cpu().numpy() if isinstance(signal, Tensor) else np.asarray(signal)
        array = array[np.newaxis] if array.ndim == 1 else array
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"expected a non-empty (channels, frames) or (frames,), got the shape {array.shape}")
        self._signal = np.asarray(array, np.float32)
        if not np.isfinite(self._signal).all():
            raise ValueError(f"{name}: the array holds NaN or infinite samples; replace them first")
        self.rate, self.name = rate, name
        self.channels, self.frames = self._signal.shape

    def blocks(self, size: int = 65_536) -> Iterator[np.ndarray]:
        """Views of the array."""
        for start in range(0, self.frames, size):
            yield self._signal[:, start : start + size]
