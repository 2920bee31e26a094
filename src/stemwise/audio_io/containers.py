"""m4a, mp4, aac, mkv, … decoded by PyAV, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stemwise.errors import AudioFileError


class ContainerDecoder:
    """Frames-first reading of the first audio stream of a container, with the cursor interface of ``SoundFile``.

    Encoder delay is cut by the decoder where the container states it (edit list), the padding at the end here, for the
    MP4 family, whose duration counts neither. Seeking back decodes from the start
    again: simple, exact, and only random access pays for it.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise AudioFileError(
                f"{path}: {path.suffix or 'this kind of'} files need PyAV. Install it with: pip install 'stemwise[av]' "
                "- or convert the file to WAV, FLAC or MP3 first."
            ) from error
        self._av, self._path = av, path
        self._rest = np.zeros((0, 0), np.float32)
        self._cursor = 0
        self._open()
        context = self._stream.codec_context
        self.rate = int(context.sample_rate or 0)
        self.channels = int(context.channels)
        self.codec = str(context.name)
        duration = self._stream.duration
        self._end: int | None = None
        seconds = float(duration * self._stream.time_base) if duration else (self._container.duration or 0) / 1e6
        self.frames = round(seconds * self.rate)
        if duration and "mp4" in self._container.format.name:
            self._end = self.frames
        if self.rate and self.frames == 0:  # no duration in the container: count by decoding
            try:
                while (piece := self._next()) is not None:
                    self.frames += len(piece)
            except BaseException:
                self.close()
                raise
            self._restart()

    def seek(self, frames: int) -> None:
        """Put the cursor at a frame."""
        if frames < self._cursor:
            self._restart()
        while self._cursor < frames:
            got = len(self.read(min(65_536, frames - self._cursor)))
            if got == 0:
                break

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next ``frames`` frames as float32 (frames, channels), fewer at the end."""
        if self._end is not None:
            frames = min(frames, self._end - self._cursor)
        parts = [self._rest]
        have = len(self._rest)
        while have < frames:
            piece = self._next()
            if piece is None:
                break
            parts.append(piece)
            have += len(piece)
        joined = np.concatenate(parts)
        self._rest = joined[frames:]
        self._cursor += min(frames, len(joined))
        return joined[:frames]

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def _open(self) -> None:
        try:
            self._container = self._av.open(str(self._path))
        except self._av.FFmpegError as error:
            raise AudioFileError(
                f"{self._path}: this is not a container that can be read, or it is damaged ({error.strerror}). "
                "Export it again as WAV, FLAC or MP3."
            ) from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioFileError(f"{self._path}: there is no audio in it. Choose a file with a sound track.")
        self._stream = self._container.streams.audio[0]
        self._pieces: Iterator[np.ndarray] = self._decoded()
        self._rest = np.zeros((0, int(self._stream.codec_context.channels)), np.float32)
        self._cursor = 0

    def _restart(self) -> None:
        self._container.close()
        self._open()

    def _decoded(self) -> Iterator[np.ndarray]:
        planar: Any = self._av.AudioResampler(format="fltp")
        for frame in self._container.decode(self._stream):
            for converted in planar.resample(frame):
                yield converted.to_ndarray().T
        for converted in planar.resample(None):
            yield converted.to_ndarray().T

    def _next(self) -> np.ndarray | None:
        try:
            return next(self._pieces, None)
        except self._av.FFmpegError as error:
            raise AudioFileError(
                f"{self._path}: the audio data are damaged at about {self._cursor / self.rate:.1f} s "
                f"({error.strerror}). Copy or download the file again."
            ) from error
