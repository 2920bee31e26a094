"""Overlapping windows, the questions to the model, and the cross-fade of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stemwise.diffusion import Told
from stemwise.longform.fifo import Fifo

# Finished audio is handed on in small blocks: what follows then works in a few megabytes, and the allocator's heap does
# not grow by fragmentation over an hour.
_STEP = 16_384


@dataclass(frozen=True)
class Windowing:
    """How a model wants its windows.

    Attributes:
        rate: the model's rate in Hz.
        window: frames a window.
        channels: the model's channels, 1 or 2; a signal's channels are given to it in groups of that size, an odd one
            out is duplicated and the answers are averaged.
        overlap: share of a window that it has in common with the next one, in [0, 1).
        batch: at most so many windows a call (a window of each channel group always goes together).
        closed: whether the stems are made to sum to the input; otherwise they stay as the model made them.
    """

    rate: int
    window: int
    channels: int = 2
    overlap: float = 0.25
    batch: int = 4
    closed: bool = True

    def __post_init__(self) -> None:
        if (
            self.rate < 1
            or self.window < 1
            or self.batch < 1
            or self.channels not in (1, 2)
            or not 0 <= self.overlap < 1
        ):
            raise ValueError(f"impossible windowing: {self}")

    @property
    def hop(self) -> int:
        """Frames from a window's start to the next one's."""
        return max(1, self.window - round(self.overlap * self.window))


@dataclass(frozen=True)
class Split:
    """A window function's answer when its stems were made to sum to the window.

    Attributes:
        stems: (batch, stem, channel, window), summing to the window.
        residual: (batch, channel, window), the window minus the sum of the model's raw estimates, that is, what had to
            be shared out; None where nothing was.
    """

    stems: Tensor
    residual: Tensor | None = None


WindowFunction = Callable[[Tensor, Told], Tensor | Split]
"""(batch, channel, window) -> stems (batch, stem, channel, window), raw or, in a ``Split``, already closed.

The second argument hears which share of the work on these windows is done."""


@dataclass
class Usage:
    """What grew while windows passed: how many, and the energy of the residuals of ``Split`` at the model's rate."""

    windows: int = 0
    residual_energy: float = 0.0


@dataclass(frozen=True)
class _Piece:
    """A window (channels, window) whose frames from ``skip`` to ``skip + length`` belong at ``position``.

    The signal is a view of a buffer, valid until the next piece is asked for.
    """

    position: int
    skip: int
    length: int
    signal: np.ndarray


def _pieces(blocks: Iterator[np.ndarray], window: int, hop: int) -> Iterator[_Piece]:
    """Cut windows of which the last one is moved back to be full of music; only a short signal is padded."""
    held = Fifo()
    start = position = covered = 0  # of what is held, of the next window, and the end of the last one
    for block in blocks:
        held.append(block)
        while position + window <= held.received:
            yield _Piece(position, 0, window, held.view(position - start, window))
            held.drop(position - start)
            start = position
            covered, position = position + window, position + hop
    total = held.received
    if total > covered:
        begin = max(0, total - window)
        signal = held.view(begin - start, window)
        signal = np.pad(signal, ((0, 0), (0, window - signal.shape[1])))
        yield _Piece(position, position - begin, total - position, signal)


def overlap_add(
    blocks: Iterator[np.ndarray],
    separate_window: WindowFunction,
    stems: int,
    channels: int,
    windowing: Windowing,
    usage: Usage,
    told: Callable[[float], object],
) -> Iterator[np.ndarray]:
    """Cross-faded estimates (stems * channels, n) at the model's rate; ``told`` hears how many frames the model is through with.

    The sum is divided by the sum of the fades, so that a signal is reconstructed for every overlap, and at both ends.
    """
    window, hop = windowing.window, windowing.hop
    fade = _fade(window, window - hop)
    total: np.ndarray | None = None
    weight = np.zeros(window, np.float32)
    base = 0
    rows = stems * channels

    def finish(frames: int) -> Iterator[np.ndarray]:
        assert total is not None
        for start in range(0, frames, _STEP):
            part = slice(start, min(start + _STEP, frames))
            out = total[:, part] / weight[part]
            if len(out) > rows:
                usage.residual_energy += energy(out[rows:])
            yield out[:rows]
        for line in (total, weight):
            line[..., : window - frames] = line[..., frames:].copy()
            line[..., window - frames :] = 0

    end = 0
    for piece, answer in _answers(_pieces(blocks, window, hop), separate_window, stems, channels, windowing, told):
        usage.windows += 1
        if total is None:
            total = np.zeros((answer.shape[0], window), np.float32)
        if piece.position > base:
            yield from finish(piece.position - base)
            base = piece.position
        gain = fade[: piece.length]
        for row, estimate in zip(total, answer, strict=True):
            row[: piece.length] += estimate[piece.skip : piece.skip + piece.length] * gain
        weight[: piece.length] += gain
        end = max(end, piece.position + piece.length)
    if end > base:
        yield from finish(end - base)


def _answers(
    pieces: Iterator[_Piece],
    separate_window: WindowFunction,
    stems: int,
    channels: int,
    windowing: Windowing,
    told: Callable[[float], object],
) -> Iterator[tuple[_Piece, np.ndarray]]:
    """Ask the window function in batches; each answer is (stems * channels [+ channels of residual], window)."""
    groups = [tuple(range(c, min(c + windowing.channels, channels))) for c in range(0, channels, windowing.channels)]
    at_once = max(1, windowing.batch // len(groups))
    held = np.zeros((0, 0, 0, 0), np.float32)
    batch: list[_Piece] = []

    def answered() -> Iterator[tuple[_Piece, np.ndarray]]:
        nonlocal held
        start, last = batch[0].position, batch[-1]
        end = last.position + min(windowing.hop, last.length)

        def within(share: float) -> None:
            told(start + share * (end - start))

        held = _ask(separate_window, lanes[: len(batch) * len(groups)], within, stems, held)
        within(1.0)
        for index, piece in enumerate(batch):
            folded = [
                lane if len(group) == windowing.channels else lane.mean(axis=1, keepdims=True)
                for group, lane in zip(groups, held[index * len(groups) : (index + 1) * len(groups)], strict=True)
            ]
            joined = folded[0] if len(folded) == 1 else np.concatenate(folded, axis=1)
            yield piece, joined.reshape(-1, windowing.window)

    for piece in pieces:
        if not batch:
            lanes = torch.empty(at_once * len(groups), windowing.channels, windowing.window, dtype=torch.float32)
        for lane, group in enumerate(groups, len(batch) * len(groups)):
            lanes[lane] = torch.from_numpy(piece.signal[list(_filled(group, windowing.channels))])
        batch.append(replace(piece, signal=piece.signal[:, :0]))
        if len(batch) == at_once:
            yield from answered()
            del lanes
            batch = []
    if batch:
        yield from answered()


def _ask(separate_window: WindowFunction, lanes: Tensor, told: Told, stems: int, held: np.ndarray) -> np.ndarray:
    """One call for ``lanes``; the answer (batch, stems [+ 1], channel, window) is copied to ``held`` where it fits.

    The reused array lets the answer's own memory go at once: see ``_STEP``.
    """
    with torch.no_grad():
        answer = separate_window(lanes, told)
    split = answer if isinstance(answer, Split) else Split(answer)
    expected = (len(lanes), stems, *lanes.shape[1:])
    if tuple(split.stems.shape) != expected:
        raise ValueError(f"the window function gave the shape {tuple(split.stems.shape)}, expected {expected}")
    if split.residual is not None and split.residual.shape != lanes.shape:
        raise ValueError(f"the residual has the shape {tuple(split.residual.shape)}, expected {tuple(lanes.shape)}")
    rows = stems + (split.residual is not None)
    if held.shape[0] < len(lanes) or held.shape[1] != rows:
        held = np.zeros((len(lanes), rows, *lanes.shape[1:]), np.float32)
    target = torch.from_numpy(held)
    target[: len(lanes), :stems] = split.stems.detach()
    if split.residual is not None:
        target[: len(lanes), stems] = split.residual.detach()
    return held


def _filled(group: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """The channel indices of a group, the odd one out repeated."""
    return group + group[-1:] * (channels - len(group))


def _fade(window: int, overlap: int) -> np.ndarray:
    """sin² over the overlap at both ends (at most half a window each), 1 between; positive everywhere."""
    length = min(overlap, window // 2)
    shape = np.ones(window)
    rise = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / max(1, length)) ** 2
    shape[:length] = rise
    shape[window - length :] = rise[::-1]
    return shape.astype(np.float32)


def energy(signal: np.ndarray) -> float:
    """Sum of squares in double precision."""
    flat = np.asarray(signal, np.float64).ravel()
    return float(np.einsum("i,i->", flat, flat))  # not by BLAS, whose threads go on to spin beside those of the network
