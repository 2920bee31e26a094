"""Whatever a user hands over -> arrays, and a model's answer -> the user's rate, length and channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemwise.audio_io import read_audio, resample
from stemwise.errors import QueryError
from stemwise.stems import Audio

Signal = str | Path | np.ndarray | Tensor | Audio
"""A file, an array or tensor (channels, time) or (time,), or stems (whose mix is meant)."""


def read_signal(source: Signal, rate: int | None) -> tuple[np.ndarray, int]:
    """(channels, frames) float32 and its rate; `rate` is asked for only where the source has none of its own.

    Raises `QueryError` for an array without a positive rate, of a wrong shape, or with NaN; `AudioFileError` for a bad file.
    """
    if isinstance(source, str | Path):
        return read_audio(source)
    if isinstance(source, Audio):
        return source.mix()[0].cpu().numpy(), source.rate
    if rate is None:
        raise QueryError("an array has no rate of its own; give rate= in hertz")
    if rate < 1:
        raise QueryError(f"the rate is {rate} Hz; it must be at least 1")
    array = np.asarray(source.detach().cpu() if isinstance(source, Tensor) else source, np.float32)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or not 1 <= array.shape[0] <= 8 or array.shape[1] == 0:
        raise QueryError(f"a signal is (channels, time) with 1 to 8 channels, got the shape {array.shape}")
    if not np.isfinite(array).all():
        raise QueryError("the signal holds NaN or infinite samples; replace them first")
    return array, rate


def together(signals: Mapping[str, tuple[np.ndarray, int]]) -> tuple[dict[str, np.ndarray], int]:
    """Signals of one rate, padded with silence to one length. Raises `QueryError` when the rates differ."""
    rates = {rate for _, rate in signals.values()}
    if len(rates) > 1:
        named = ", ".join(f"{name} {rate} Hz" for name, (_, rate) in signals.items())
        raise QueryError(f"the given stems have different sample rates ({named}); resample them to one")
    frames = max(signal.shape[1] for signal, _ in signals.values())
    return {name: np.pad(x, ((0, 0), (0, frames - x.shape[1]))) for name, (x, _) in signals.items()}, rates.pop()


def channels_at(signal: np.ndarray, rate: int, target: int, channels: int) -> Tensor:
    """(any number of channels, frames) at `rate` -> (channels, time) at `target`, for 1 or 2 channels: all averaged to
    one, or odd and even ones to two.
    """
    sides = signal if len(signal) <= channels else np.stack([signal[c::channels].mean(0) for c in range(channels)])
    return torch.from_numpy(resample(np.ascontiguousarray(sides), rate, target)).expand(channels, -1).contiguous()


def stereo_back(made: Tensor, rate: int, target: int, frames: int, channels: int) -> Tensor:
    """(stem, 1 or 2, time) at `rate` -> (stem, channels, frames) at `target`, exactly that long."""
    flat = torch.from_numpy(resample(made.flatten(0, 1).numpy(), rate, target))
    stems = cut(flat.view(*made.shape[:2], -1), 0, frames).expand(-1, 2, -1)
    if channels == 1:
        return stems.mean(1, keepdim=True)
    return stems[:, [i % 2 for i in range(channels)]] / math.sqrt(max(1, channels // 2))


def cut(signal: Tensor, start: int, frames: int) -> Tensor:
    """Frames [start, start + frames) of (..., time), zeros beyond its end."""
    piece = signal[..., start : start + frames]
    return torch.nn.functional.pad(piece, (0, frames - piece.shape[-1]))
