"""Whatever a user hands over -> arrays, and a model's answer -> the user's rate, length and channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemwise.audio_io import LOUDEST, MAX_RATE, read_audio, resample
from stemwise.errors import QueryError
from stemwise.stems import Audio

FADE_SECONDS = 0.02
"""Cross-fade at the ends of a span, inside the span."""
Signal = str | Path | np.ndarray | Tensor | Audio
"""A file, an array or tensor (channels, time) or (time,), or stems (whose mix is meant)."""


def read_signal(source: Signal, rate: int | None) -> tuple[np.ndarray, int]:
    """(channels, frames) float32 and its rate; `rate` is asked for only where the source has none of its own.

    Raises `QueryError` for what is no signal, for an array without a positive rate, of a wrong shape, of whole numbers, or
    with NaN, and for stems as `plain` does;
    `AudioFileError` for a bad file.
    """
    if isinstance(source, str | Path):
        return read_audio(source)
    if isinstance(source, Audio):
        stems = plain(source)
        return stems.mix()[0].numpy(), stems.rate
    if not isinstance(source, np.ndarray | Tensor):
        raise QueryError(f"a {type(source).__name__} is no signal; give a path, an array, a tensor or stems")
    if rate is None:
        raise QueryError("an array has no rate of its own; give rate= in hertz")
    if not (source.is_floating_point() if isinstance(source, Tensor) else np.issubdtype(source.dtype, np.floating)):
        raise QueryError(
            f"the samples are {source.dtype}; give floats from -1 to 1, such as x / 32768 of 16-bit samples"
        )
    array = np.ascontiguousarray(_single(source) if isinstance(source, Tensor) else source, np.float32)
    return _sound(array[None] if array.ndim == 1 else array), _hertz(rate)


def plain(stems: Audio) -> Audio:
    """Stems as models take them: float32, on the CPU, of a whole rate. Raises `QueryError` for a batch of several, for more
    than 8 channels and for NaN.
    """
    if len(stems.data) != 1:
        raise QueryError(
            f"the stems are a batch of {len(stems.data)}; give one of its items, Audio(names, data[:1], rate)"
        )
    data = _single(stems.data)
    for stem in data[0]:
        _sound(stem.numpy())
    mixture = _single(stems.mixture) if stems.mixture is not None and stems.intact else None
    if mixture is not None:
        _sound(mixture[0].numpy())
    return Audio(stems.names, data, _hertz(stems.rate), mixture)


def _single(signal: Tensor) -> Tensor:
    return signal.detach().to("cpu", torch.float32)


def _sound(signal: np.ndarray) -> np.ndarray:
    if signal.ndim != 2 or not 1 <= signal.shape[0] <= 8 or signal.shape[1] == 0:
        raise QueryError(f"a signal is (channels, time) with 1 to 8 channels, got the shape {signal.shape}")
    if not (np.abs(signal) <= LOUDEST).all():
        raise QueryError(f"the signal holds NaN or infinite samples, or some beyond {LOUDEST:g}; replace them first")
    return signal


def _hertz(rate: float) -> int:
    try:
        whole = not isinstance(rate, str) and math.isfinite(rate) and 1 <= rate <= MAX_RATE and rate == int(rate)
    except TypeError:
        whole = False
    if not whole:
        said = repr(rate) if isinstance(rate, str) else rate
        raise QueryError(f"the rate is {said} Hz; it must be a whole number from 1 to {MAX_RATE}")
    return int(rate)


def together(signals: Mapping[str, tuple[np.ndarray, int]]) -> tuple[dict[str, np.ndarray], int]:
    """Signals of one rate, padded with silence to one length. Raises `QueryError` when the rates differ."""
    rates = {rate for _, rate in signals.values()}
    if len(rates) > 1:
        named = ", ".join(f"{name} {rate} Hz" for name, (_, rate) in signals.items())
        raise QueryError(f"the given stems have different sample rates ({named}); resample them to one")
    frames = max(signal.shape[1] for signal, _ in signals.values())
    return {name: np.pad(x, ((0, 0), (0, frames - x.shape[1]))) for name, (x, _) in signals.items()}, rates.pop()


def span_weights(span: tuple[float, float] | None, frames: int, rate: int) -> Tensor:
    """How far each sample (frames,) lies in a span of seconds: 1 inside, 0 outside, short fades inside; None is everything.

    Raises `QueryError` for a span without a sample of the signal.
    """
    whole = torch.ones(frames, dtype=torch.float32)
    if span is None:
        return whole
    try:
        ends = [float(t) * rate for t in span]
    except (TypeError, ValueError) as error:
        raise QueryError(f"the span is {span!r}; give its start and its end in seconds") from error
    if len(ends) != 2:
        raise QueryError(f"the span is {span!r}; give its start and its end in seconds")
    start, end = map(round, ends) if all(map(math.isfinite, ends)) else (0, 0)
    if 0 <= ends[0] < ends[1] < math.inf and start == end < frames:
        raise QueryError(f"the span {span[0]:g}:{span[1]:g} holds no sample at {rate} Hz; make it longer")
    if not 0 <= start < end or start >= frames:
        raise QueryError(
            f"the span {span[0]:g}:{span[1]:g} does not lie in the {frames / rate:.2f} s of audio; give start:end in seconds"
        )
    end = min(end, frames)
    frame = torch.arange(frames)
    fade = max(1, round(FADE_SECONDS * rate))
    rise = ((frame - start + 1).float() / fade).clamp(0, 1) if start > 0 else whole
    fall = ((end - frame).float() / fade).clamp(0, 1) if end < frames else whole
    return torch.minimum(rise, fall)


def channels_at(signal: np.ndarray, rate: int, target: int, channels: int) -> Tensor:
    """(any number of channels, frames) at `rate` -> (channels, time) at `target`, for 1 or 2 channels: all averaged to
    one, or odd and even ones to two. At least one frame long.
    """
    sides = signal if len(signal) <= channels else np.stack([signal[c::channels].mean(0) for c in range(channels)])
    there = resample(np.ascontiguousarray(sides), rate, target)
    there = there if there.shape[1] else np.zeros((len(there), 1), np.float32)
    return torch.from_numpy(there).expand(channels, -1).contiguous()


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
