"""Whole songs of any length in constant memory.

A lazy source is resampled to the model's rate, cut into overlapping windows, separated, cross-faded, resampled back and
handed on block by block; the stems are closed so that they sum to the input. The engine knows arrays, tensors and a
window function, no concrete system.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stemwise.audio_io import StemWriter, resample_blocks, resampled_frames
from stemwise.errors import Cancelled

SILENCE_DB = -300.0
"""What is reported instead of minus infinity, which JSON cannot hold."""


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
    """

    rate: int
    window: int
    channels: int = 2
    overlap: float = 0.25
    batch: int = 4

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


WindowFunction = Callable[[Tensor], Tensor | Split]
"""(batch, channel, window) -> stems (batch, stem, channel, window), raw or, in a ``Split``, already closed."""


@dataclass(frozen=True)
class Progress:
    """Seconds of audio done and in all, seconds of waiting left, share done in [0, 1], and the item's name."""

    done_seconds: float
    total_seconds: float
    eta_seconds: float
    fraction: float
    item: str


ProgressCallback = Callable[[Progress], object]
"""Called after every block; returning False (or raising ``Cancelled``) stops the work."""


@dataclass(frozen=True)
class Report:
    """What a separation did.

    Attributes:
        rate, channels, frames, seconds: of the input, hence of every stem.
        null_dbfs: peak of |input - sum of the stems| before any encoding, in dB relative to full scale (or to the
            input's own peak where that is higher); -300 when exact.
        unassigned_share: energy of the input minus the sum of the model's raw estimates, over the input's energy.
        peak: the highest absolute sample of any stem.
        gain_db: the common gain that a bounded file format needed; 0 otherwise.
        windows: how many windows the model was given.
        seconds_elapsed: wall-clock time.
    """

    rate: int
    channels: int
    frames: int
    seconds: float
    null_dbfs: float
    unassigned_share: float
    peak: float
    gain_db: float
    windows: int
    seconds_elapsed: float


def separate_blocks(
    source: Source,
    separate_window: WindowFunction,
    stems: Sequence[str],
    windowing: Windowing,
    progress: ProgressCallback | None = None,
) -> Generator[np.ndarray, None, Report]:
    """Separate a source block by block.

    What the stems lack of the input at the input's rate (content above the model's band, rounding) goes to the stem
    named "other", or in equal shares to all where there is none.

    Yields:
        float32 (stem, channels, n) at the source's rate; the lengths sum to the source's.

    Returns:
        The report, as the generator's value (``report = yield from …``).

    Raises:
        Cancelled: the progress callback returned False.
        ValueError: the window function's answer has the wrong shape.
    """
    started = time.monotonic()
    tally = _Tally()
    pending = _Pending()

    def incoming() -> Iterator[np.ndarray]:
        for block in source.blocks():
            pending.append(block)
            yield block

    def model_frames() -> int:
        # even the shortest signal gives the model something to look at
        return max(1, resampled_frames(pending.received, source.rate, windowing.rate))

    at_model = resample_blocks(incoming(), source.rate, windowing.rate, frames=model_frames)
    estimated = _overlap_add(at_model, separate_window, len(stems), source.channels, windowing, tally)
    restored = resample_blocks(estimated, windowing.rate, source.rate, frames=lambda: pending.received)
    heir = list(stems).index("other") if "other" in stems else None
    for flat in restored:
        original = pending.take(flat.shape[1])
        parts = np.ascontiguousarray(flat).reshape(len(stems), source.channels, -1)
        _close(parts, original, heir, tally)
        yield parts
        _tell(progress, tally.frames, source, started)
    return tally.report(source, windowing, time.monotonic() - started)


def separate_whole(
    source: Source,
    separate_window: WindowFunction,
    stems: Sequence[str],
    windowing: Windowing,
    progress: ProgressCallback | None = None,
) -> tuple[np.ndarray, Report]:
    """Separate a source in memory: float32 (stem, channels, frames) and the report; as ``separate_blocks``."""
    collected: list[np.ndarray] = []
    report = _drain(separate_blocks(source, separate_window, stems, windowing, progress), collected.append)
    return np.concatenate(collected, axis=2), report


def separate_to_files(
    source: Source,
    separate_window: WindowFunction,
    writer: StemWriter,
    windowing: Windowing,
    progress: ProgressCallback | None = None,
) -> Report:
    """Separate a source into the files of ``writer``, which is closed on success and aborted on any failure.

    The writer's names are the stems; its rate and channels must be the source's. Errors as ``separate_blocks`` and
    ``StemWriter``.
    """
    with writer:
        report = _drain(separate_blocks(source, separate_window, writer.names, windowing, progress), writer.write)
        return replace(report, gain_db=writer.close().gain_db)


def continue_windows(
    make_window: Callable[[Tensor | None, int], Tensor],
    total_frames: int,
    window: int,
    overlap: int,
    seam: Tensor | None = None,
) -> Iterator[Tensor]:
    """Make a signal of any length from windows of which each continues the one before.

    Args:
        make_window: (known, index) -> (stem, channel, window); ``known`` (stem, channel, overlap) are the frames that
            the window must begin with, None for a free start. Those frames are kept as they are: what the answer
            holds in their place is not looked at.
        total_frames: how many frames to yield in all.
        window: frames a window.
        overlap: frames that a window is given of the past, below ``window``.
        seam: the end of an existing signal (stem, channel, at least overlap), to continue that; it is not yielded.

    Yields:
        (stem, channel, n) blocks; their lengths sum to ``total_frames``.

    Raises:
        ValueError: impossible lengths, or an answer of the wrong shape.
    """
    if total_frames < 1 or not 0 < overlap < window or (seam is not None and seam.shape[-1] < overlap):
        raise ValueError(
            f"cannot make {total_frames} frames from windows of {window} with an overlap of {overlap}: lengths must be "
            "positive, the overlap shorter than the window and the seam at least as long as the overlap"
        )
    known = None if seam is None else seam[..., -overlap:]
    left, index = total_frames, 0
    while left > 0:
        made = make_window(known, index)
        if made.ndim != 3 or made.shape[-1] != window or (known is not None and made.shape[:2] != known.shape[:2]):
            raise ValueError(f"window {index} has the shape {tuple(made.shape)}, expected (stem, channel, {window})")
        fresh = made if known is None else made[..., overlap:]
        yield fresh[..., :left]
        left -= fresh.shape[-1]
        history = fresh if known is None else torch.cat([known, fresh], dim=-1)
        known = history[..., -overlap:]
        index += 1


class _Pending:
    """The input's samples that still wait for their stems."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self.received = 0

    def append(self, block: np.ndarray) -> None:
        self._blocks.append(block)
        self.received += block.shape[1]

    def take(self, frames: int) -> np.ndarray:
        joined = self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks, axis=1)
        self._blocks = [joined[:, frames:]]
        return joined[:, :frames]


@dataclass
class _Tally:
    """Sums that grow while blocks pass."""

    frames: int = 0
    windows: int = 0
    null: float = 0.0
    peak: float = 0.0
    input_peak: float = 0.0
    input_energy: float = 0.0
    open_energy: float = 0.0  # of what was missing at the input's rate
    residual_energy: float = 0.0  # of what the window function itself shared out, at the model's rate

    def report(self, source: Source, windowing: Windowing, elapsed: float) -> Report:
        # The two parts lie in disjoint bands (the stems of a Split sum to the window), so their energies add.
        unassigned = self.open_energy + self.residual_energy * source.rate / windowing.rate
        null = self.null / max(1.0, self.input_peak)
        return Report(
            rate=source.rate,
            channels=source.channels,
            frames=self.frames,
            seconds=self.frames / source.rate,
            null_dbfs=max(SILENCE_DB, 20 * math.log10(null)) if null else SILENCE_DB,
            unassigned_share=unassigned / self.input_energy if self.input_energy else 0.0,
            peak=self.peak,
            gain_db=0.0,
            windows=self.windows,
            seconds_elapsed=elapsed,
        )


@dataclass(frozen=True)
class _Piece:
    """A window (channels, window) whose frames from ``skip`` to ``skip + length`` belong at ``position``."""

    position: int
    skip: int
    length: int
    signal: np.ndarray


def _pieces(blocks: Iterator[np.ndarray], window: int, hop: int) -> Iterator[_Piece]:
    """Cut windows of which the last one is moved back to be full of music; only a short signal is padded."""
    held = np.zeros((0, 0), np.float32)
    start = position = covered = 0
    for block in blocks:
        held = block if held.size == 0 else np.concatenate([held, block], axis=1)
        while position + window <= start + held.shape[1]:
            yield _Piece(position, 0, window, held[:, position - start : position - start + window])
            held, start = held[:, position - start :], position
            covered, position = position + window, position + hop
    total = start + held.shape[1]
    if total > covered:
        begin = max(0, total - window)
        signal = held[:, begin - start :]
        padding = window - signal.shape[1]
        signal = np.pad(signal, ((0, 0), (0, padding))) if padding else signal
        yield _Piece(position, position - begin, total - position, signal)


def _overlap_add(
    blocks: Iterator[np.ndarray],
    separate_window: WindowFunction,
    stems: int,
    channels: int,
    windowing: Windowing,
    tally: _Tally,
) -> Iterator[np.ndarray]:
    """Cross-faded estimates (stems * channels, n) at the model's rate.

    The sum is divided by the sum of the fades, so that a signal is reconstructed for every overlap, and at both ends.
    """
    window, hop = windowing.window, windowing.hop
    fade = _fade(window, window - hop)
    total: np.ndarray | None = None
    weight = np.zeros(window, np.float32)
    base = 0
    rows = stems * channels

    def finish(frames: int) -> np.ndarray:
        assert total is not None
        out = total[:, :frames] / weight[:frames]
        for line in (total, weight):
            line[..., : window - frames] = line[..., frames:].copy()
            line[..., window - frames :] = 0
        if out.shape[0] > rows:
            tally.residual_energy += _energy(out[rows:])
        return out[:rows]

    end = 0
    for piece, answer in _answers(_pieces(blocks, window, hop), separate_window, stems, channels, windowing):
        tally.windows += 1
        if total is None:
            total = np.zeros((answer.shape[0], window), np.float32)
        if piece.position > base:
            yield finish(piece.position - base)
            base = piece.position
        gain = fade[: piece.length]
        total[:, : piece.length] += answer[:, piece.skip : piece.skip + piece.length] * gain
        weight[: piece.length] += gain
        end = max(end, piece.position + piece.length)
    if end > base:
        yield finish(end - base)


def _answers(
    pieces: Iterator[_Piece], separate_window: WindowFunction, stems: int, channels: int, windowing: Windowing
) -> Iterator[tuple[_Piece, np.ndarray]]:
    """Ask the window function in batches; each answer is (stems * channels [+ channels of residual], window)."""
    groups = [tuple(range(c, min(c + windowing.channels, channels))) for c in range(0, channels, windowing.channels)]
    at_once = max(1, windowing.batch // len(groups))
    batch: list[_Piece] = []

    def ask() -> Iterator[tuple[_Piece, np.ndarray]]:
        lanes = [piece.signal[list(_filled(group, windowing.channels))] for piece in batch for group in groups]
        answer = separate_window(torch.from_numpy(np.stack(lanes)))
        split = answer if isinstance(answer, Split) else Split(answer)
        expected = (len(lanes), stems, windowing.channels, windowing.window)
        if tuple(split.stems.shape) != expected:
            raise ValueError(f"the window function gave the shape {tuple(split.stems.shape)}, expected {expected}")
        both = split.stems if split.residual is None else torch.cat([split.stems, split.residual.unsqueeze(1)], dim=1)
        values = both.detach().to("cpu", torch.float32).numpy()
        for index, piece in enumerate(batch):
            folded = [
                lane if len(group) == windowing.channels else lane.mean(axis=1, keepdims=True)
                for group, lane in zip(groups, values[index * len(groups) : (index + 1) * len(groups)], strict=True)
            ]
            yield piece, np.concatenate(folded, axis=1).reshape(-1, windowing.window)

    for piece in pieces:
        batch.append(piece)
        if len(batch) == at_once:
            yield from ask()
            batch = []
    if batch:
        yield from ask()


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


def _close(parts: np.ndarray, original: np.ndarray, heir: int | None, tally: _Tally) -> None:
    """Make (stem, channels, n) sum to ``original`` in place, and take note of what was missing.

    One stem is computed last, as the input minus the rounded others in double precision, so that only its own rounding
    remains (half a unit in the last place, below -140 dB).
    """
    last = len(parts) - 1 if heir is None else heir
    others = np.delete(np.arange(len(parts)), last)
    missing = original - parts.sum(axis=0, dtype=np.float64)
    if heir is None:
        parts += (missing / len(parts)).astype(np.float32)
    rest = original - parts[others].sum(axis=0, dtype=np.float64)
    parts[last] = rest
    tally.null = max(tally.null, float(np.abs(rest - parts[last]).max(initial=0.0)))
    tally.peak = max(tally.peak, float(parts.max(initial=0.0)), -float(parts.min(initial=0.0)))
    tally.input_peak = max(tally.input_peak, float(np.abs(original).max(initial=0.0)))
    tally.input_energy += _energy(original)
    tally.open_energy += _energy(missing)
    tally.frames += original.shape[1]


def _energy(signal: np.ndarray) -> float:
    flat = np.asarray(signal, np.float64).ravel()
    return float(flat @ flat)


def _tell(progress: ProgressCallback | None, done: int, source: Source, started: float) -> None:
    if progress is None:
        return
    total = max(done, source.frames)
    elapsed = time.monotonic() - started
    state = Progress(
        done / source.rate, total / source.rate, elapsed * (total - done) / done, done / total, source.name
    )
    if progress(state) is False:
        raise Cancelled(f"{source.name}: stopped after {state.done_seconds:.1f} s of audio; nothing was kept.")


def _drain(blocks: Generator[np.ndarray, None, Report], sink: Callable[[np.ndarray], object]) -> Report:
    while True:
        try:
            block = next(blocks)
        except StopIteration as end:
            report: Report = end.value
            return report
        sink(block)
