"""Lazy reading of audio files, with every kind of bad input named.

libsndfile decodes WAV, FLAC, OGG, MP3, AIFF and OPUS; m4a, mp4, aac and other containers go through PyAV (the ``av``
extra). What is decoded rules over what a header says, except that a file that holds less than it promises is refused:
its missing part would otherwise be lost without a word.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import soundfile

from stemwise.audio_io.flac import UNKNOWN_FRAMES, counted_view, decodable_frames
from stemwise.audio_io.mpeg import corrected_view
from stemwise.audio_io.views import native_name
from stemwise.errors import AudioFileError

MIN_RATE = 4_000
MAX_RATE = 192_000
MAX_CHANNELS = 8
LOUDEST = 1e6
"""Sample value beyond which a file is damaged: 120 dB over full scale."""
CHAINED = (
    "it holds several streams one after another, of which only the first could be read. Join them first, for instance: "
    "ffmpeg -i in.ogg out.flac"
)
_SNDFILE_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"}
)
_AV_SUFFIXES = frozenset({".m4a", ".m4b", ".mp4", ".aac", ".mov", ".mkv", ".webm", ".mka", ".wma", ".ac3", ".alac"})
AUDIO_SUFFIXES = _SNDFILE_SUFFIXES | _AV_SUFFIXES
"""Lower-case file name endings that are taken for audio when a folder is searched."""

# A writer that cannot seek back leaves one of these as the data size: the length is unknown, not wrong.
UNKNOWN_SIZES = (range(0x7FFFF000, 0x80000001), range(0xFFFFF000, 0x100000000), range(0, 1))
_SHORT_DATA = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_SHORT_DS64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds: ``rate`` in Hz, ``frames`` per channel, libsndfile's names of ``format`` and ``subtype``.

    ``frames`` is exact for everything that libsndfile reads; for PyAV's containers it is what the container says.
    """

    path: Path
    rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate


class _Decoder(Protocol):
    """What both decoders offer: frames-first reading from a cursor."""

    def seek(self, frames: int) -> Any: ...

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray: ...

    def close(self) -> None: ...


class AudioSource:
    """A file that is read piece by piece; use it as a context manager.

    Attributes: ``info`` and, for code that only needs the signal, ``rate`` (Hz), ``channels``, ``frames`` and ``name``.
    """

    def __init__(self, info: AudioInfo, start_decoder: Callable[[], _Decoder]) -> None:
        self.info = info
        self.rate = info.rate
        self.channels = info.channels
        self.frames = info.frames
        self.name = info.path.name
        self._start_decoder = start_decoder
        self._decoder = start_decoder()
        self._cursor = 0

    def read(self, start: int, frames: int) -> np.ndarray:
        """Frames ``start`` to ``start + frames`` as float32 (channels, frames), fewer where the file ends before.

        Raises:
            AudioFileError: the data are damaged or hold samples that are NaN, infinite or beyond `LOUDEST`.
        """
        if start < 0 or frames < 0:
            raise ValueError(f"start {start} and frames {frames} must not be negative")
        if self.info.format != "AV":
            frames = max(0, min(frames, self.frames - start))
        if frames == 0:
            return np.zeros((self.channels, 0), np.float32)
        if start == 0 and self._cursor > 0:
            # some streams cannot seek; all can be opened again
            self._decoder.close()
            self._decoder, self._cursor = self._start_decoder(), 0
        if start != self._cursor:
            self._guard(lambda: self._decoder.seek(start), start)
        block = self._guard(lambda: self._decoder.read(frames, dtype="float32", always_2d=True), start)
        self._cursor = start + len(block)
        playable = np.abs(block) <= LOUDEST
        if not playable.all():
            frame, channel = np.argwhere(~playable)[0]
            raise AudioFileError(
                f"{self.info.path}: the sample at {(start + frame) / self.rate:.3f} s (channel {channel + 1}) is "
                f"{block[frame, channel]}, not a number that can be played. Export the file again, or repair it there "
                "in an audio editor."
            )
        return np.ascontiguousarray(block.T)

    def blocks(self, size: int = 65_536) -> Iterator[np.ndarray]:
        """The whole file from its start in consecutive float32 blocks (channels, at most ``size`` frames).

        Raises:
            AudioFileError: as ``read``; also when the file ends before the length that its header promises.
        """
        start = 0
        while True:
            block = self.read(start, size)
            if block.shape[1] == 0:
                break
            start += block.shape[1]
            yield block
        if start == 0:
            raise _no_samples(self.info.path)
        if start < self.frames and self.info.format not in ("AV", "MP3"):
            raise _truncated(self.info.path, start / self.rate, self.frames / self.rate)

    def close(self) -> None:
        """Release the file."""
        self._decoder.close()

    def __enter__(self) -> AudioSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _guard(self, action: Any, start: int) -> Any:
        try:
            return action()
        except soundfile.SoundFileError as error:
            raise AudioFileError(
                f"{self.info.path}: the audio data are damaged or cut off at about {start / self.rate:.1f} s of "
                f"{self.info.seconds:.1f} s ({_reason(error)}). Copy or download the file again, or save its intact "
                "part under a new name in an audio editor."
            ) from error


def open_audio(path: str | Path) -> AudioSource:
    """Open a file for lazy reading.

    Raises:
        AudioFileError: missing, a folder, not readable, empty, not audio, damaged or cut off, without samples, several
            streams of Ogg, a rate outside 4 kHz to 192 kHz, or more than 8 channels.
    """
    path = Path(path)
    _check_present(path)
    if path.suffix.lower() in _AV_SUFFIXES or _is_iso_media(path):
        from stemwise.audio_io.containers import ContainerDecoder

        with contextlib.closing(ContainerDecoder(path)) as container:
            info = AudioInfo(path, container.rate, container.channels, container.frames, "AV", container.codec)
        _check_shape(info)
        return AudioSource(info, lambda: ContainerDecoder(path))
    with start_sndfile(path) as file:
        info = AudioInfo(path, file.samplerate, file.channels, _true_frames(path, file), file.format, file.subtype)
    _check_shape(info)
    return AudioSource(info, lambda: start_sndfile(path))


def probe(path: str | Path) -> AudioInfo:
    """What the file holds, with the same checks as ``open_audio`` and without decoding the signal."""
    with open_audio(path) as source:
        return source.info


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """The whole file as float32 (channels, frames) and its rate in Hz; errors as ``open_audio`` and ``blocks``."""
    with open_audio(path) as source:
        return np.concatenate(list(source.blocks(1 << 20)), axis=1), source.rate


def start_sndfile(path: Path) -> soundfile.SoundFile:
    """Open with libsndfile, through a corrected view where the header's length is known to be wrong."""
    try:
        file = soundfile.SoundFile(native_name(path))
        if file.format == "MP3":
            view = corrected_view(path, file.frames)
            if view is not None:
                file.close()
                file = soundfile.SoundFile(view)
        elif file.format == "FLAC" and file.frames >= UNKNOWN_FRAMES:
            view = counted_view(path)
            if view is not None:
                file.close()
                file = soundfile.SoundFile(view)
        return file
    except (soundfile.SoundFileError, TypeError) as error:
        if _head(path).startswith(b"MThd"):
            raise AudioFileError(
                f"{path}: this is MIDI, and audio is needed here. Play it by stemwise separate --render, whose folder audio/ "
                "holds stems."
            ) from error
        raise AudioFileError(
            f"{path}: this is not an audio file that can be read, or its header is damaged ({_reason(error)}; it "
            f"starts with {_head(path)!r}). Check that the name's ending is true to the content, or export it again as "
            "WAV or FLAC."
        ) from error


def _true_frames(path: Path, file: soundfile.SoundFile) -> int:
    """The number of frames that can be decoded; refuses a file that holds fewer than its header says."""
    log, frames, rate = file.extra_info, int(file.frames), file.samplerate
    found = _SHORT_DATA.search(log)
    if found is not None:
        promised, present = int(found[1]), int(found[2])
        if promised > present and not any(promised in sizes for sizes in UNKNOWN_SIZES):
            raise _truncated(path, frames / rate, frames / rate * promised / max(present, 1))
    found = _SHORT_DS64.search(log)
    if found is not None and int(found[1]) < int(found[2]) < UNKNOWN_FRAMES:
        raise _truncated(path, int(found[1]) / rate, int(found[2]) / rate)
    if file.format == "FLAC" and frames > 0 and not _can_read(file, frames - 1):
        raise _truncated(path, decodable_frames(path) / rate, frames / rate)
    if file.format == "OGG" and is_chained(path):
        raise AudioFileError(f"{path}: {CHAINED}")
    return frames


def is_chained(path: Path) -> bool:
    """Whether an Ogg file has the first page of a stream behind other pages (RFC 3533, sections 4 and 6)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, began = data.find(b"OggS"), False
        while 0 <= at <= len(data) - 27:
            first = bool(data[at + 5] & 2)
            if first and began:
                return True
            began = began or not first
            segments = data[at + 27 : at + 27 + data[at + 26]]
            at = data.find(b"OggS", at + 27 + len(segments) + sum(segments))
    return False


def _can_read(file: soundfile.SoundFile, frame: int) -> bool:
    try:
        file.seek(frame)
        return len(file.read(1)) == 1
    except soundfile.SoundFileError:
        return False


def _check_present(path: Path) -> None:
    try:
        if path.is_fifo():  # to open it would wait for who writes into it, for ever where nobody does
            raise AudioFileError(
                f"{path}: this is a pipe, in which nothing can be found again. Write it to a file first."
            )
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError as error:
        raise AudioFileError(f"{path}: there is no such file. Check the spelling and the folder.") from error
    except IsADirectoryError as error:
        raise AudioFileError(f"{path}: this is a folder, not an audio file. Name a file inside it.") from error
    except PermissionError as error:
        raise AudioFileError(
            f"{path}: no permission to read it. Change its access rights, or copy it elsewhere."
        ) from error
    except ValueError as error:
        raise AudioFileError(f"{str(path)!r}: no file can have this name ({error}). Check the spelling.") from error
    except OSError as error:
        raise AudioFileError(f"{path}: cannot be opened ({error.strerror}). Check the path and the disk.") from error
    if empty:
        raise AudioFileError(f"{path}: the file is empty (0 bytes). Copy or download it again.")


def _check_shape(info: AudioInfo) -> None:
    if not MIN_RATE <= info.rate <= MAX_RATE:
        target = 44_100 if info.rate < MIN_RATE else 96_000
        raise AudioFileError(
            f"{info.path}: its sample rate of {info.rate} Hz is outside {MIN_RATE} to {MAX_RATE} Hz. Resample "
            f"it first, for instance: ffmpeg -i in.wav -ar {target} out.wav"
        )
    if info.channels > MAX_CHANNELS:
        raise AudioFileError(
            f"{info.path}: it has {info.channels} channels; at most {MAX_CHANNELS} are taken. Split it into files of "
            "stereo pairs first, or mix it down, for instance: ffmpeg -i in.wav -ac 2 out.wav"
        )
    if info.frames == 0:
        raise _no_samples(info.path)


def _no_samples(path: Path) -> AudioFileError:
    return AudioFileError(f"{path}: the file has a header but no samples. Record or export it again.")


def _truncated(path: Path, present: float, promised: float) -> AudioFileError:
    return AudioFileError(
        f"{path}: the file is cut off: its header promises {promised:.3f} s, only {present:.3f} s are there. Copy or "
        "download it again, or save what is there under a new name in an audio editor."
    )


def _is_iso_media(path: Path) -> bool:
    return _head(path)[4:8] == b"ftyp"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or "the decoder gives no reason"
