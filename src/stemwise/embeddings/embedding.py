"""What an embedding is, and the one way in which networks become one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stemwise.audio_io import resample
from stemwise.errors import MetricError
from stemwise.hosts import without_autocast

Floats32 = NDArray[np.float32]


class Embedding(Protocol):
    """From sound to frames of numbers.

    Attributes:
        name: of the embedding; statistics of two names do not compare.
        rate: in Hz, at which it hears.
        dimensions: of a frame.
        version: of weights and preprocessing; frames of two versions do not mix.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def rate(self) -> int: ...  # noqa: D102

    @property
    def dimensions(self) -> int: ...  # noqa: D102

    @property
    def version(self) -> str: ...  # noqa: D102

    def embed(self, audio: Floats32, rate: int) -> Floats32:
        """Mono audio (time,) at any rate -> (frame, dimensions)."""
        ...


@dataclass(frozen=True)
class NetworkEmbedding:
    """A network's frames; see `Embedding`.

    Attributes:
        name: of the embedding.
        rate: in Hz.
        dimensions: of a frame.
        preparation: what happens to the sound before the network, in words; part of the version.
        weights: a digest of the parameters, see `digest`; part of the version.
        hear: float32 (time,) at `rate` -> (frame, dimensions).
    """

    name: str
    rate: int
    dimensions: int
    preparation: str
    weights: str
    hear: Callable[[Floats32], Floats32]

    @property
    def version(self) -> str:
        """Weights and preparation."""
        return f"{self.weights}; mean of the channels, soxr VHQ, {self.preparation}"

    @without_autocast
    def embed(self, audio: Floats32, rate: int) -> Floats32:
        """Mono audio (time,) -> (frame, dimensions), one frame at least.

        Raises:
            MetricError: audio that is not mono, empty, or holds NaN or infinity.
        """
        signal = np.asarray(audio, np.float32)
        if signal.ndim != 1 or not signal.size:
            raise MetricError(f"an embedding hears mono audio of the shape (time,), not empty; found {signal.shape}")
        if not np.isfinite(signal).all():
            raise MetricError(f"{int((~np.isfinite(signal)).sum())} samples are NaN or infinite; repair the audio")
        heard = resample(signal[None], rate, self.rate)[0]
        with torch.inference_mode():
            frames = np.asarray(self.hear(heard if heard.size else np.zeros(1, np.float32)), np.float32)
        assert frames.ndim == 2 and frames.shape[1] == self.dimensions, frames.shape
        return frames


def digest(module: nn.Module) -> str:
    """16 hex digits that identify a module's parameters and buffers."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).data)
    return found.hexdigest()[:16]


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters lie."""
    return next(module.parameters()).device


def chunks(signal: Floats32, size: int, hop: int) -> NDArray[np.float32]:
    """A view (chunk, size): one chunk from every `hop`-th sample, what lies beyond the end is silence."""
    count = -(-len(signal) // hop)
    padded = np.pad(signal, (0, (count - 1) * hop + size - len(signal)))
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
