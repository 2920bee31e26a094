"""Separating a source of any length so that its stems sum to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from stemwise.audio_io import StemWriter, resample_blocks, resampled_frames
from stemwise.errors import Cancelled
from stemwise.longform.fifo import Fifo
from stemwise.longform.overlap import Usage, WindowFunction, Windowing, energy, overlap_add
from stemwise.longform.sources import Source

SILENCE_DB = -300.0
"""What is reported instead of minus infinity, which JSON cannot hold."""


@dataclass(frozen=True)
class Progress:
    """Seconds of audio done and in all, seconds of waiting left, share done in [0, 1], and the item's name."""

    done_seconds: float
    total_seconds: float
    eta_seconds: float
    fraction: float
    item: str


ProgressCallback = Callable[[Progress], object]
"""Called as windows are done, and after every step within them; returning False (or raising ``Cancelled``) stops the work."""

SongFunction = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]
"""Estimates (stem * channel, n) of a whole source at the model's rate, block by block -> better ones, of the same length in all."""


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
    over_song: SongFunction = iter,
) -> Generator[np.ndarray, None, Report]:
    """Separate a source block by block; ``over_song`` sees the cross-faded estimates of all windows as one song.

    What the stems lack of the input at the input's rate (content above the model's band, rounding) goes to the stem
    named "other", or in equal shares to all where there is none; with ``windowing.closed`` False it is only reported.

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
    pending = Fifo()

    def incoming() -> Iterator[np.ndarray]:
        for block in source.blocks():
            pending.append(block)
            yield block

    def model_frames() -> int:
        # even the shortest signal gives the model something to look at
        return max(1, resampled_frames(pending.received, source.rate, windowing.rate))

    at_model = resample_blocks(incoming(), source.rate, windowing.rate, frames=model_frames)

    def told(frames: float) -> None:
        done = min(pending.received, frames * source.rate / windowing.rate)
        tell(progress, done / source.rate, max(done, source.frames) / source.rate, started, source.name)

    estimated = overlap_add(at_model, separate_window, len(stems), source.channels, windowing, tally.usage, told)
    restored = resample_blocks(over_song(estimated), windowing.rate, source.rate, frames=lambda: pending.received)
    heir = list(stems).index("other") if "other" in stems else None
    for flat in restored:
        original = pending.view(0, flat.shape[1])
        parts = np.ascontiguousarray(flat).reshape(len(stems), source.channels, -1)
        _close(parts, original, heir, tally, windowing.closed)
        pending.drop(flat.shape[1])
        yield parts
        del flat, original, parts
    end = tally.frames / source.rate
    tell(progress, end, end, started, source.name)
    return tally.report(source, windowing, time.monotonic() - started)


def separate_whole(
    source: Source,
    separate_window: WindowFunction,
    stems: Sequence[str],
    windowing: Windowing,
    progress: ProgressCallback | None = None,
    over_song: SongFunction = iter,
) -> tuple[np.ndarray, Report]:
    """Separate a source in memory: float32 (stem, channels, frames) and the report; as ``separate_blocks``."""
    collected: list[np.ndarray] = []
    report = _drain(separate_blocks(source, separate_window, stems, windowing, progress, over_song), collected.append)
    return np.concatenate(collected, axis=2), report


def separate_to_files(
    source: Source,
    separate_window: WindowFunction,
    writer: StemWriter,
    windowing: Windowing,
    progress: ProgressCallback | None = None,
    over_song: SongFunction = iter,
) -> Report:
    """Separate a source into the files of ``writer``, which is closed on success and aborted on any failure.

    The writer's names are the stems; its rate and channels must be the source's. Errors as ``separate_blocks`` and
    ``StemWriter``.
    """
    with writer:
        blocks = separate_blocks(source, separate_window, writer.names, windowing, progress, over_song)
        report = _drain(blocks, writer.write)
        return replace(report, gain_db=writer.close().gain_db)


@dataclass
class _Tally:
    """Sums that grow while blocks pass."""

    frames: int = 0
    null: float = 0.0
    peak: float = 0.0
    input_peak: float = 0.0
    input_energy: float = 0.0
    open_energy: float = 0.0  # of what was missing at the input's rate
    usage: Usage = field(default_factory=Usage)

    def report(self, source: Source, windowing: Windowing, elapsed: float) -> Report:
        # The two parts lie in disjoint bands (the stems of a Split sum to the window), so their energies add.
        unassigned = self.open_energy + self.usage.residual_energy * source.rate / windowing.rate
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
            windows=self.usage.windows,
            seconds_elapsed=elapsed,
        )


def _close(parts: np.ndarray, original: np.ndarray, heir: int | None, tally: _Tally, closed: bool) -> None:
    """Make (stem, channels, n) sum to ``original`` in place if ``closed``, and take note of what was missing.

    One stem is computed last, as the input minus the rounded others in double precision, so that only its own rounding
    remains (half a unit in the last place, below -140 dB).
    """
    last = len(parts) - 1 if heir is None else heir
    others = np.delete(np.arange(len(parts)), last)
    missing = original - parts.sum(axis=0, dtype=np.float64)
    if closed and heir is None:
        parts += (missing / len(parts)).astype(np.float32)
    rest = original - parts[others].sum(axis=0, dtype=np.float64)
    if closed:
        parts[last] = rest
    tally.null = max(tally.null, float(np.abs(rest - parts[last]).max(initial=0.0)))
    tally.peak = max(tally.peak, float(parts.max(initial=0.0)), -float(parts.min(initial=0.0)))
    tally.input_peak = max(tally.input_peak, float(np.abs(original).max(initial=0.0)))
    tally.input_energy += energy(original)
    tally.open_energy += energy(missing)
    tally.frames += original.shape[1]


def tell(progress: ProgressCallback | None, done: float, total: float, started: float, item: str = "") -> None:
    """Report `done` of `total` seconds of audio, begun at `started` (of `time.monotonic`). Raises `Cancelled` when told to stop."""
    if progress is None:
        return
    share = min(1.0, done / total) if total > 0 else 1.0
    left = (time.monotonic() - started) * (1 - share) / share if share > 0 else math.inf
    answer = progress(Progress(done, total, left, share, item))
    if isinstance(answer, bool | np.bool_) and not answer:
        raise Cancelled(f"{item + ': ' if item else ''}stopped after {done:.1f} s of audio; nothing was kept.")


def in_turn(progress: ProgressCallback | None, passes: int) -> list[ProgressCallback | None]:
    """What each of several passes over the same audio tells, so that `progress` hears of all of them as one."""
    if progress is None:
        return [None] * passes
    started, seconds = time.monotonic(), 0.0

    def told(index: int, event: Progress) -> None:
        nonlocal seconds
        seconds = seconds or event.total_seconds
        tell(progress, (index + event.fraction) / passes * seconds, seconds, started, event.item)

    return [partial(told, index) for index in range(passes)]


def _drain(blocks: Generator[np.ndarray, None, Report], sink: Callable[[np.ndarray], object]) -> Report:
    while True:
        try:
            block = next(blocks)
        except StopIteration as end:
            report: Report = end.value
            return report
        sink(block)
