"""Signals of any length, rate and number of channels -> windows of one rate, in step, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np

from stemwise.audio_io import open_audio, resample_blocks
from stemwise.errors import ScoreError
from stemwise.signals import Signal, read_signal

SHORTEST = 1.0
"""Seconds that a signal must have; much less says nothing about coherence."""


def aligned_windows(
    signals: Mapping[str, Signal], target: int, window: int, hop: int, rate: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Windows of several signals at the same places: (start, float32 (signal, window)), mono at `target` hertz.

    Channels are averaged. Shorter signals are padded with silence to the longest; the last window is moved back to end
    with it, and only a song shorter than one window is padded. `start` counts samples at `target`; `rate` is that of
    arrays. Every yielded array is the caller's to keep.

    Raises:
        ScoreError: a signal is shorter than `SHORTEST` seconds.
        AudioFileError, QueryError: a file or an array is unusable, see `audio_io.open_audio` and `signals.read_signal`.
    """
    streams = [_pieces(_mono(name, signal, target, rate), hop) for name, signal in signals.items()]
    held = np.zeros((len(streams), 0), np.float32)
    first = position = covered = 0  # sample of the song at the head of what is held; next window; end of the last one
    nothing = np.zeros(0, np.float32)
    for pieces in zip_longest(*streams, fillvalue=nothing):
        length = max(map(len, pieces))
        held = np.concatenate([held, np.stack([np.pad(piece, (0, length - len(piece))) for piece in pieces])], axis=1)
        while position + window <= first + held.shape[1]:
            yield position, held[:, position - first : position - first + window].copy()
            covered, position = position + window, position + hop
        keep = max(0, held.shape[1] - max(window, first + held.shape[1] - position))
        held, first = held[:, keep:], first + keep
    total = first + held.shape[1]
    if total > covered:
        tail = held[:, max(0, held.shape[1] - window) :]
        yield total - tail.shape[1], np.pad(tail, ((0, 0), (0, window - tail.shape[1])))


def _mono(name: str, signal: Signal, target: int, rate: int | None) -> Iterator[np.ndarray]:
    """Blocks (n,) of the mean of the channels, resampled."""
    if isinstance(signal, str | Path):
        with open_audio(signal) as source:
            yield from _resampled(str(signal), source.blocks(), source.rate, target)
    else:
        array, own = read_signal(signal, rate)
        yield from _resampled(name, [array], own, target)


def _resampled(name: str, blocks: Iterable[np.ndarray], rate: int, target: int) -> Iterator[np.ndarray]:
    frames = 0
    for block in resample_blocks((x.mean(0, keepdims=True) for x in blocks), rate, target):
        frames += block.shape[1]
        yield block[0]
    if frames < SHORTEST * target:
        raise ScoreError(f"{name}: {frames / target:.3f} s long; a score needs at least {SHORTEST:g} s of every signal")


def _pieces(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of exactly `size`, the last one shorter."""
    held: list[np.ndarray] = []
    waiting = 0
    for block in blocks:
        held.append(block)
        waiting += len(block)
        if waiting >= size:
            joined = np.concatenate(held)
            for start in range(0, waiting - size + 1, size):
                yield joined[start : start + size]
            held = [joined[waiting - waiting % size :]]
            waiting %= size
    if waiting:
        yield np.concatenate(held)
