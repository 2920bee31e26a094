"""Streaming resampling with exact lengths (soxr, "VHQ": flat to 0.91 of the lower Nyquist, no delay)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

QUALITY = "VHQ"


def resampled_frames(frames: int, in_rate: int, out_rate: int) -> int:
    """``frames * out_rate / in_rate``, rounded to the nearest, halves upwards."""
    return (2 * frames * out_rate + in_rate) // (2 * in_rate)


def resample_blocks(
    blocks: Iterable[np.ndarray], in_rate: int, out_rate: int, frames: Callable[[], int] | None = None
) -> Iterator[np.ndarray]:
    """Resample consecutive float32 blocks (channels, n) as one signal, without delay.

    Args:
        blocks: the signal; every block has the same number of channels, none needs to be empty or full.
        in_rate: their rate in Hz.
        out_rate: the wanted rate in Hz; the blocks pass unchanged where the rates are equal.
        frames: asked once the input is exhausted, gives the exact number of frames wanted; by default
            ``resampled_frames`` of the input's length. Give the original's length on the way back of a round trip.

    Yields:
        float32 blocks (channels, n); their lengths sum to exactly the wanted number.
    """
    received = sent = 0
    stream = None
    channels = 0
    for block in blocks:
        received += block.shape[1]
        channels = block.shape[0]
        if in_rate == out_rate:
            out = block
        else:
            if stream is None:
                import soxr

                stream = soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality=QUALITY)
            out = stream.resample_chunk(np.ascontiguousarray(block.T, dtype=np.float32)).T
        sent += out.shape[1]
        if out.shape[1]:
            yield out
        del block, out  # not to be kept while the next block is made
    if channels == 0:
        return
    wanted = resampled_frames(received, in_rate, out_rate) if frames is None else frames()
    tail = np.zeros((channels, 0), np.float32)
    if stream is not None:
        # silence after the end lets the filter ring out when more than the rounded length is wanted
        extra = max(0, wanted - resampled_frames(received, in_rate, out_rate))
        silence = np.zeros((-(-extra * in_rate // out_rate) + (extra > 0), channels), np.float32)
        tail = stream.resample_chunk(silence, last=True).T
    if sent > wanted:
        raise ValueError(f"{wanted} frames are wanted, but {sent} were already given")
    tail = tail[:, : wanted - sent]
    missing = wanted - sent - tail.shape[1]
    if missing:
        tail = np.concatenate([tail, np.zeros((channels, missing), np.float32)], axis=1)
    if tail.shape[1]:
        yield tail


def resample(signal: np.ndarray, in_rate: int, out_rate: int) -> np.ndarray:
    """Resample a float32 array (channels, frames) at once; length as ``resampled_frames``."""
    if signal.ndim != 2:
        raise ValueError(f"expected (channels, frames), got the shape {signal.shape}")
    pieces = list(resample_blocks([signal], in_rate, out_rate))
    return np.concatenate(pieces, axis=1) if pieces else np.zeros((signal.shape[0], 0), np.float32)
