"""Windows of songs: an endless stream in which item i is a pure function of (seed, i).

So the order does not depend on the number of workers, a killed run continues at any item without reading what came
before, and two processes share a stream by taking different items. The list of songs is part of that function: songs
that appear in a folder while a training runs are picked up only when the command starts again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stemwise.errors import SongError
from stemwise.songs.song import Song

#: Frames read on each side of a window that must be resampled, so that the filter's edges fall outside it.
_MARGIN = 512
#: How often an item is drawn until there is something in it.
ATTEMPTS = 16
#: Where the gains of an equaliser are drawn, as logarithms of hertz.
_EQUALISER = np.log((40.0, 150.0, 500.0, 1500.0, 5000.0, 16000.0))


class Shape(Protocol):
    """What windows look like."""

    @property
    def rate(self) -> int:
        """In hertz."""

    @property
    def frames(self) -> int:
        """At that rate."""

    @property
    def channels(self) -> int:
        """1 or 2."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a window, for training only; every chance is a probability in [0, 1].

    `gain_db`: range of a gain drawn for each stem; `swap`: left and right exchanged, per stem; `polarity`: a stem's
    sign flipped; `remix`: each stem of the window from a song and position of its own; `dropout`: a stem silenced;
    `mono`: every stem of the window the same on all channels; `transpose`: played faster or slower, by up to so many
    semitones, each song of the window by its own; `equalise_db`: standard deviation of a gain drawn for each stem at 40 Hz,
    150 Hz, 500 Hz, 1.5 kHz, 5 kHz and 16 kHz, straight lines over log frequency between them.
    """

    gain_db: tuple[float, float] = (-6.0, 6.0)
    swap: float = 0.5
    polarity: float = 0.5
    remix: float = 0.0
    dropout: float = 0.0
    mono: float = 0.0
    transpose: int = 0
    equalise_db: float = 0.0


@dataclass(frozen=True)
class WindowOptions:
    """Shape of the windows: stems by name, `rate` in hertz, `frames` at that rate, channels.

    A window in which fewer than `min_active` stems are louder than `floor_db` (RMS, dB full scale) is drawn again.
    """

    names: tuple[str, ...]
    rate: int
    frames: int
    channels: int = 2
    min_active: int = 1
    floor_db: float = -60.0
    augmentation: Augmentation | None = None


class Windows(torch.utils.data.Dataset[Tensor]):
    """The stream: `windows[i]` is float32 (stem, channel, frames) for any i >= 0.

    Songs without any of the stems are left out; `songs` holds the others. They are drawn in proportion to `weights`,
    by default their lengths.
    """

    def __init__(
        self, songs: Sequence[Song], options: WindowOptions, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        useful = [place for place, song in enumerate(songs) if any(map(song.has, options.names))]
        if not useful:
            found = sorted({name for song in songs for name in song.stems})
            raise SongError(
                f"none of the {len(songs)} song(s) has a stem named {', '.join(options.names)}; "
                f"found: {', '.join(found) or 'nothing'}. Rename the files or choose other stems"
            )
        self.songs = [songs[place] for place in useful]
        self.options = options
        self.seed = seed
        self._places = Places(self.songs, None if weights is None else [weights[place] for place in useful])

    def __getitem__(self, index: int) -> Tensor:
        """Item `index` of the stream; drawn again, at most 16 times in all, while the window is nearly silent."""
        options = self.options
        for attempt in range(ATTEMPTS):
            draw = np.random.default_rng((self.seed, index, attempt))
            window = self._draw(draw)
            augment(window, options, draw)
            if loud(window, options.floor_db).sum() >= options.min_active:
                break
        return torch.from_numpy(window)

    def _draw(self, draw: np.random.Generator) -> np.ndarray:
        options = self.options
        if options.augmentation is not None and draw.random() < options.augmentation.remix:
            return np.concatenate([self._from_one_song(draw, (name,)) for name in options.names])
        return self._from_one_song(draw, options.names)

    def _from_one_song(self, draw: np.random.Generator, names: Sequence[str]) -> np.ndarray:
        song, start = self._places.draw(draw, self.options)
        return read_at(song, start, names, self.options)


class Places:
    """Where windows begin: songs in proportion to `weights`, by default their lengths, then any frame."""

    def __init__(self, songs: Sequence[Song], weights: Sequence[float] | None = None) -> None:
        self.songs = songs
        self._ends = np.cumsum([song.seconds for song in songs] if weights is None else weights)

    def draw(self, draw: np.random.Generator, options: WindowOptions) -> tuple[Song, int]:
        """A song, transposed where the augmentation says so, and a frame at its rate."""
        place = int(np.searchsorted(self._ends, draw.random() * self._ends[-1], side="right"))
        song = self.songs[min(place, len(self.songs) - 1)]
        most = options.augmentation.transpose if options.augmentation is not None else 0
        if most:
            song = _transposed(song, int(draw.integers(-most, most + 1)))
        length = math.ceil(options.frames * song.rate / options.rate)
        return song, int(draw.integers(0, max(1, song.frames - length + 1)))


class Batches(torch.utils.data.Sampler[list[int]]):
    """Which items of a stream make the batch of each step, start <= step < stop, in process `rank` of `world`."""

    def __init__(self, start: int, stop: int, batch: int, rank: int, world: int) -> None:
        self.start, self.stop, self.batch, self.rank, self.world = start, stop, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))

    def __len__(self) -> int:
        return self.stop - self.start


def read_at(song: Song, start: int, names: Sequence[str], shape: Shape) -> np.ndarray:
    """The window of a song from frame `start` (at its own rate), with the shape's rate, channels and frames."""
    lead, frames = margins(song.rate, shape)
    return at_rate(song.read(start - lead, frames, names), song.rate, shape)


def margins(rate: int, shape: Shape) -> tuple[int, int]:
    """What to read for a window of a song at `rate` Hz: frames before its start, and frames in all."""
    if rate == shape.rate:
        return 0, shape.frames
    # Whole frames of both rates before the window, so that the crop lands on the same instant.
    step = rate // math.gcd(rate, shape.rate)
    lead = step * math.ceil(_MARGIN / step)
    return lead, math.ceil(shape.frames * rate / shape.rate) + lead + _MARGIN


def at_rate(block: np.ndarray, rate: int, shape: Shape) -> np.ndarray:
    """A block (row, channel, frames) that was read as `margins` says, with the shape's rate, channels and frames."""
    block = _channels(block, min(shape.channels, block.shape[1]))
    if rate != shape.rate:
        import soxr

        skip = round(margins(rate, shape)[0] * shape.rate / rate)
        flat = block.reshape(-1, block.shape[-1]).T
        resampled = soxr.resample(flat, rate, shape.rate, quality="HQ")[skip : skip + shape.frames].T
        block = np.ascontiguousarray(resampled).reshape(*block.shape[:2], -1)
    return _channels(block, shape.channels)


def _channels(window: np.ndarray, channels: int) -> np.ndarray:
    found = window.shape[1]
    if found == channels:
        return window
    if channels == 1:
        return window.mean(axis=1, keepdims=True)
    return np.repeat(window, channels, axis=1)


def augment(window: np.ndarray, options: WindowOptions, draw: np.random.Generator) -> None:
    """Change a window (stem, channel, frames) in place; what a stem draws does not depend on what others drew."""
    augmentation = options.augmentation
    if augmentation is None:
        return
    low, high = augmentation.gain_db
    if draw.random() < augmentation.mono:
        window[:] = window.mean(axis=1, keepdims=True)
    for stem, (gain, swap, polarity, dropout) in zip(window, draw.random((len(window), 4))):
        if dropout < augmentation.dropout:
            stem[:] = 0.0
            continue
        factor = 10.0 ** ((low + (high - low) * gain) / 20.0)
        stem *= np.float32(-factor if polarity < augmentation.polarity else factor)
        if len(stem) == 2 and swap < augmentation.swap:
            stem[:] = stem[::-1].copy()
    if augmentation.equalise_db:
        _equalise(window, options, augmentation.equalise_db, draw)


def _transposed(song: Song, semitones: int) -> Song:
    """A song played faster is a song of a higher rate; a multiple of 100 Hz, so that few frames are read in vain."""
    if not semitones:
        return song
    return dataclasses.replace(song, rate=100 * round(song.rate * 2.0 ** (semitones / 12.0) / 100.0))


def _equalise(window: np.ndarray, options: WindowOptions, deviation: float, draw: np.random.Generator) -> None:
    """Give every stem of a window a gain of its own over frequency, in place; the same for all channels."""
    spectrum = np.fft.rfft(window)
    bins = np.log(np.fft.rfftfreq(window.shape[-1], 1.0 / options.rate).clip(1.0))
    gains = np.stack([np.interp(bins, _EQUALISER, line) for line in draw.normal(0.0, deviation, (len(window), 6))])
    window[:] = np.fft.irfft(spectrum * 10.0 ** (gains[:, None] / 20.0), n=window.shape[-1])


def loud(block: np.ndarray, floor_db: float) -> np.ndarray:
    """Which rows of a block (row, channel, frames) have a level (RMS) above `floor_db`, dB full scale."""
    flat = block.reshape(len(block), -1)
    power = np.einsum("sn,sn->s", flat, flat) / flat.shape[1]
    found: np.ndarray = power > 10.0 ** (floor_db / 10.0)
    return found
