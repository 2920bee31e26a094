"""Samples that wait for their turn, in one array that is allocated once."""

from __future__ import annotations

import numpy as np


class Fifo:
    """A queue of float32 samples (channels, n).

    One reused array instead of a list of blocks: small blocks that live long between large ones that do not would let
    the allocator's heap grow with the length of a song.
    """

    def __init__(self) -> None:
        self._buffer = np.zeros((0, 0), np.float32)
        self._start = self._end = 0
        self.received = 0

    def __len__(self) -> int:
        return self._end - self._start

    def append(self, block: np.ndarray) -> None:
        """Put a block (channels, n) at the end."""
        channels, frames = block.shape
        length = len(self)
        if self._end + frames > self._buffer.shape[1]:
            kept = self._buffer[:, self._start : self._end]
            if length + frames > self._buffer.shape[1]:
                grown = np.zeros((channels, 2 * (length + frames)), np.float32)
                if length:
                    grown[:, :length] = kept
                self._buffer = grown
            else:
                self._buffer[:, :length] = kept
            self._start, self._end = 0, length
        self._buffer[:, self._end : self._end + frames] = block
        self._end += frames
        self.received += frames

    def view(self, start: int, frames: int) -> np.ndarray:
        """Frames from ``start`` on, counted from the queue's head; valid until the next ``append``."""
        return self._buffer[:, self._start + start : min(self._start + start + frames, self._end)]

    def drop(self, frames: int) -> None:
        """Forget the oldest frames."""
        self._start = min(self._start + frames, self._end)
