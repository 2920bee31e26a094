"""One of several sound tracks in a container such as `.stem.mp4`: read with a seek, as a file of its own would be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemwise.errors import SongError

#: Frames decoded and thrown away after a seek: a packet of AAC overlaps its neighbours, and gives garbage without them.
_WARM_UP = 4096


@dataclass(frozen=True)
class Stream:
    """Sound track number `index` (from 0, in the order of the container) of the file at `path`."""

    path: Path
    index: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.path.name} (sound track {self.index})"

    @property
    def suffix(self) -> str:
        """The ending of its file's name, as of a path."""
        return self.path.suffix

    def exists(self) -> bool:
        """Whether its file is there."""
        return self.path.exists()

    def __str__(self) -> str:
        return f"{self.path} (sound track {self.index})"


def require_av(path: Path) -> Any:
    """The module `av`. Raises SongError that names the extra where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise SongError(
            f"{path.name}: the compressed version (.stem.mp4) needs PyAV; install it with: pip install 'stemwise[av]' - "
            "or use the WAV version"
        ) from error
    return av


@contextmanager
def opened(stream: Stream) -> Iterator[Decoder]:
    """The sound track, with that part of the interface of `soundfile.SoundFile` that reading needs. Raises SongError."""
    av = require_av(stream.path)
    try:
        with av.open(str(stream.path)) as container:
            tracks = container.streams.audio
            if len(tracks) <= stream.index:
                raise SongError(
                    f"{stream.path.name} has {len(tracks)} sound track(s), not {stream.index + 1}; copy it again"
                )
            yield Decoder(av, container, tracks[stream.index])
    except (av.FFmpegError, OSError) as error:
        raise SongError(f"{stream.name} cannot be read ({error}); copy it again") from error


class Decoder:
    """A cursor over the decoded samples of one track; `samplerate` in hertz, `channels`, `frames`."""

    def __init__(self, av: Any, container: Any, track: Any) -> None:
        self._av, self._container, self._track = av, container, track
        self.samplerate = int(track.codec_context.sample_rate)
        self.channels = int(track.codec_context.channels)
        self.frames = round(track.duration * track.time_base * self.samplerate) if track.duration else 0
        self._cursor = 0
        self._pieces = self._decoded()
        self._rest = (0, np.zeros((0, self.channels), np.float32))

    def seek(self, frame: int) -> None:
        """Put the cursor at a frame."""
        # Before the start, where that is what it comes to: the encoder's priming packet has a negative time.
        place = (frame - _WARM_UP) / self.samplerate
        self._container.seek(math.floor(place / self._track.time_base), stream=self._track)
        self._cursor, self._pieces = frame, self._decoded()
        self._rest = (0, np.zeros((0, self.channels), np.float32))

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next frames, fewer at the end: float32, (frames, channels)."""
        start, stop = self._cursor, min(self._cursor + frames, self.frames)
        block = np.zeros((max(0, stop - start), self.channels), np.float32)
        position, piece = self._rest
        while True:
            low, high = max(start, position), min(stop, position + len(piece))
            if low < high:
                block[low - start : high - start] = piece[low - position : high - position]
                self._cursor = high
            if self._cursor >= stop:
                self._rest = (position, piece)
                return block
            found = next(self._pieces, None)
            if found is None:  # it breaks off
                return block[: self._cursor - start]
            position, piece = found

    def _decoded(self) -> Iterator[tuple[int, np.ndarray]]:
        """Position and samples (frames, channels) of each decoded piece."""
        planar = self._av.AudioResampler(format="fltp")
        for frame in self._container.decode(self._track):
            position = round(frame.pts * frame.time_base * self.samplerate)
            for converted in planar.resample(frame):
                piece = converted.to_ndarray().T
                yield position, piece
                position += len(piece)
