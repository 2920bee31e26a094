"""Incremental writing of audio files that appear only when they are complete.

Float WAV is the default and loses nothing. Integer and lossy formats cannot hold samples above full scale; one stem is
never rescaled alone, so a set of stems gets one common gain, which is known only at the end: the stems are kept as
float files until then.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile

from stemwise.audio_io.folders import hidden_name
from stemwise.audio_io.reading import start_sndfile
from stemwise.audio_io.views import native_name
from stemwise.errors import AudioFileError

# Sizes in a RIFF header are 32-bit; beyond, the file is written as RF64 (EBU Tech 3306), same ending.
_RIFF_LIMIT = (1 << 32) - (1 << 16)
# libsndfile's Vorbis encoder needs stack in proportion to one write.
_CHUNK = 65_536
SYSTEM_ERROR = 2
"""libsndfile's code where the system refused: a full disk has no room for the header, either."""
_BYTES = {"FLOAT": 4, "PCM_24": 3, "PCM_16": 2}
_SUBTYPES = {
    ("wav", 32): "FLOAT",
    ("wav", 24): "PCM_24",
    ("wav", 16): "PCM_16",
    ("flac", 24): "PCM_24",
    ("flac", 16): "PCM_16",
}


@dataclass(frozen=True)
class Encoding:
    """How samples are stored: file name ending, libsndfile's container and subtype, and kbit/s for MP3."""

    extension: str
    container: str
    subtype: str
    bitrate: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether samples beyond full scale would be clipped."""
        return self.subtype != "FLOAT"


FLOAT_WAV = Encoding("wav", "WAV", "FLOAT")


def encoding(extension: str = "wav", bits: int | None = None, bitrate: int | None = None) -> Encoding:
    """The encoding for a file name ending.

    Args:
        extension: "wav", "flac", "mp3" or "ogg".
        bits: WAV: 32 (float, the default), 24 or 16; FLAC: 24 (the default) or 16; None for the others.
        bitrate: kbit/s for MP3, 320 by default.

    Raises:
        AudioFileError: no such ending, or it cannot hold that many bits or that bit rate.
    """
    extension = extension.lower().lstrip(".")
    if bitrate is not None and extension != "mp3":
        raise AudioFileError(f"a bit rate is a matter of mp3, not of {extension}. Leave it out.")
    if extension in ("wav", "flac"):
        bits = bits or {"wav": 32, "flac": 24}[extension]
        if (extension, bits) not in _SUBTYPES:
            allowed = ", ".join(str(b) for e, b in _SUBTYPES if e == extension)
            raise AudioFileError(f"{extension} cannot hold {bits} bits here. Choose one of {allowed}.")
        return Encoding(extension, extension.upper(), _SUBTYPES[extension, bits])
    if extension not in ("mp3", "ogg"):
        raise AudioFileError(f"cannot write '{extension}' files. Choose one of wav, flac, mp3, ogg.")
    if bits is not None:
        raise AudioFileError(f"{extension} has no bit depth. Leave it out, or choose wav or flac.")
    if extension == "ogg":
        return Encoding("ogg", "OGG", "VORBIS")
    bitrate = 320 if bitrate is None else bitrate
    if not 32 <= bitrate <= 320:
        raise AudioFileError(f"mp3 at {bitrate} kbit/s is not possible. Choose between 32 and 320.")
    return Encoding("mp3", "MP3", "MPEG_LAYER_III", bitrate)


class AudioWriter:
    """One file, written block by block under a hidden name in its folder and renamed by ``close``.

    As a context manager it closes on success and removes everything on failure. Samples beyond full scale are clipped
    in bounded encodings (``StemWriter`` avoids that).

    Args:
        path: the finished file.
        rate: Hz.
        channels: of every block.
        how: the encoding.
        frames: the expected length where it is known; WAV needs it to choose RF64 for what exceeds 4 GiB.

    Raises:
        AudioFileError: the folder cannot be written, the encoding cannot hold this rate or number of channels, or the
            disk is full.
    """

    def __init__(
        self, path: str | Path, rate: int, channels: int, how: Encoding = FLOAT_WAV, frames: int | None = None
    ) -> None:
        self.path = Path(path)
        self.rate, self.channels, self.encoding = rate, channels, how
        self.frames = 0
        self.peak = 0.0
        self._partial = self.path.with_name(hidden_name(self.path.name, f"partial-{uuid.uuid4().hex[:12]}"))
        width = _BYTES.get(how.subtype, 0) * channels
        self._limit = _RIFF_LIMIT // width if how.container == "WAV" else None
        container = how.container
        if self._limit is not None and frames is not None and frames > self._limit:
            container, self._limit = "RF64", None
        self._open_as(container)

    def write(self, block: np.ndarray) -> None:
        """Append float samples of shape (channels, n).

        Raises:
            AudioFileError: the disk is full or the file cannot grow further.
        """
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"expected ({self.channels}, frames), got the shape {block.shape}")
        if block.shape[1] == 0:
            return
        self.frames += block.shape[1]
        if self._limit is not None and self.frames > self._limit:
            raise AudioFileError(
                f"{self.path}: a WAV file cannot exceed 4 GiB. Say the length beforehand (frames=…) so that it becomes "
                "RF64, or choose flac."
            )
        self.peak = max(self.peak, float(block.max()), -float(block.min()))
        interleaved = np.ascontiguousarray(block.T, dtype=np.float32)
        try:
            for start in range(0, len(interleaved), _CHUNK):
                self._file.write(interleaved[start : start + _CHUNK])
        except (soundfile.SoundFileError, AssertionError, OSError) as error:
            raise self._failed(error) from error

    def close(self) -> Path:
        """Finish the file, check that it holds what was written, and give it its name."""
        try:
            self._file.close()
            _forget_the_time(self._partial)
            if self.frames:
                with start_sndfile(self._partial) as written:
                    if written.frames < self.frames:
                        raise OSError(f"only {written.frames} of {self.frames} frames reached the disk")
            os.replace(self._partial, self.path)
        except (soundfile.SoundFileError, AudioFileError, OSError) as error:
            self.abort()
            raise self._failed(error) from error
        return self.path

    def abort(self) -> None:
        """Give up: nothing of the file remains."""
        with contextlib.suppress(soundfile.SoundFileError, OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _open_as(self, container: str) -> None:
        how = self.encoding
        level = None
        if how.bitrate is not None:
            top, span = (320, 288) if self.rate >= 32_000 else (160, 152)
            level = min(0.99, max(0.0, (top - how.bitrate) / span))
        mode = None if how.bitrate is None else "CONSTANT"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._partial.open("wb"):
                pass
        except OSError as error:
            raise AudioFileError(
                f"{self.path}: cannot be written ({error.strerror}). Choose another place with -o, or change "
                "the folder's access rights."
            ) from error
        try:
            name = native_name(self._partial)
            self._file = soundfile.SoundFile(
                name, "w", self.rate, self.channels, how.subtype, None, container, True, level, mode
            )
        except (soundfile.SoundFileError, ValueError) as error:
            self._partial.unlink(missing_ok=True)
            if getattr(error, "code", None) == SYSTEM_ERROR:
                raise self._failed(error) from error
            reason = str(getattr(error, "error_string", error)).strip().rstrip(".")  # without the hidden file's name
            raise AudioFileError(
                f"{self.path}: {how.extension} cannot hold {self.channels} channels at {self.rate} Hz ({reason}). "
                "Choose wav or flac."
            ) from error

    def _failed(self, error: Exception) -> AudioFileError:
        free = shutil.disk_usage(self.path.parent).free
        reason = (
            getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error) or "write failed"
        )
        cause = "the disk is full" if free < 1 << 20 else f"writing failed ({reason}; {free / 1e9:.1f} GB are free)"
        return AudioFileError(
            f"{self.path}: {cause}. Free some space, choose another place with -o, or a smaller format such as flac. "
            "Nothing partial was left."
        )


def _forget_the_time(path: Path) -> None:
    """Zero the time of writing in the PEAK chunk of float WAV files: the same samples are the same bytes."""
    with path.open("r+b") as file:
        head = file.read(4096)
        at = head.find(b"PEAK", 12, max(12, head.find(b"data")))
        if head[:4] in (b"RIFF", b"RF64") and at > 0:
            file.seek(at + 12)  # after the chunk's name, size and version
            file.write(bytes(4))


def is_file_name(name: str) -> bool:
    """Whether a name stays in its folder: one component of a path, on every system."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


@dataclass(frozen=True)
class Written:
    """What a ``StemWriter`` wrote: files by stem, the common gain in dB (0 unless needed), the peak before the gain."""

    paths: dict[str, Path]
    gain_db: float
    peak: float


class StemWriter:
    """A set of files of one length, written together; either all appear or none.

    Args:
        folder: where ``<stem>.<extension>`` go.
        names: one file each, in the order of the blocks' first axis.
        rate: Hz.
        channels: of every file.
        how: the encoding of all of them.
        frames: the expected length where it is known (see ``AudioWriter``).

    Raises:
        AudioFileError: as ``AudioWriter``; or a name would lead out of the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str],
        rate: int,
        channels: int,
        how: Encoding = FLOAT_WAV,
        frames: int | None = None,
    ) -> None:
        self.names = tuple(names)
        folder = Path(folder)
        for name in self.names:
            if not is_file_name(name):
                raise AudioFileError(
                    f"{folder}: {name!r} cannot be the name of a stem's file. Call the stem otherwise."
                )
        self._final: list[AudioWriter] = []
        self._float: list[AudioWriter] = []
        self._done: list[Path] = []
        self._written: Written | None = None
        try:
            for name in self.names:
                self._final.append(AudioWriter(folder / f"{name}.{how.extension}", rate, channels, how, frames))
            for name in self.names if how.bounded else ():
                hidden = folder / f".{name}.{uuid.uuid4().hex[:12]}.float"
                self._float.append(AudioWriter(hidden, rate, channels, FLOAT_WAV, frames))
        except BaseException:
            self.abort()
            raise

    def write(self, block: np.ndarray) -> None:
        """Append float samples of shape (stem, channels, n)."""
        if block.ndim != 3 or block.shape[0] != len(self.names):
            raise ValueError(f"expected ({len(self.names)} stems, channels, frames), got the shape {block.shape}")
        for writer, signal in zip(self._float or self._final, block, strict=True):
            writer.write(signal)

    def close(self) -> Written:
        """Finish all files; bounded encodings get one common gain where a peak exceeds full scale.

        Leaving the ``with`` block without an error does it too; a second call gives the same answer.
        """
        if self._written is not None:
            return self._written
        try:
            peak = max((writer.peak for writer in self._float or self._final), default=0.0)
            gain = 1.0 / peak if self._float and peak > 1.0 else 1.0
            while self._float:
                self._convert(self._float[0], self._final[len(self.names) - len(self._float)], gain)
                self._float.pop(0)
            for writer in self._final:
                self._done.append(writer.close())
        except BaseException:
            self.abort()
            raise
        paths = {name: writer.path for name, writer in zip(self.names, self._final, strict=True)}
        self._written = Written(paths, 20 * math.log10(gain), peak)
        return self._written

    def abort(self) -> None:
        """Give up: none of the files remains."""
        for writer in (*self._float, *self._final):
            writer.abort()
            if writer in self._float:
                writer.path.unlink(missing_ok=True)
        for path in self._done:
            path.unlink(missing_ok=True)

    def __enter__(self) -> StemWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _convert(self, source: AudioWriter, target: AudioWriter, gain: float) -> None:
        kept = source.close()
        with soundfile.SoundFile(native_name(kept)) as file:
            while len(block := file.read(_CHUNK, dtype="float32", always_2d=True)):
                target.write(block.T * np.float32(gain))
        kept.unlink()


def write_audio(path: str | Path, signal: np.ndarray, rate: int, how: Encoding = FLOAT_WAV) -> Path:
    """Write a whole float array (channels, frames) at once; clips like ``AudioWriter``."""
    with AudioWriter(path, rate, signal.shape[0], how, signal.shape[1]) as writer:
        writer.write(signal)
    return Path(path)
