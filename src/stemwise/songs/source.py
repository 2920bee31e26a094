"""Where the samples of a stem lie: an audio file, a member of a shard, or a sound track, each read where it is."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile

from stemwise.audio_io.flac import UNKNOWN_FRAMES, counted_view
from stemwise.audio_io.reading import CHAINED, UNKNOWN_SIZES, is_chained, start_sndfile
from stemwise.audio_io.views import JoinedFile, Slice, native_name
from stemwise.errors import AudioFileError
from stemwise.songs import streams
from stemwise.songs.streams import Stream

_PIECE, _PIECES = 4096, 8
"""Bytes of a file that `identity` reads at once, and how often."""


@dataclass(frozen=True, slots=True)
class Member:
    """An audio file inside an uncompressed tar file: `size` bytes from byte `offset` on."""

    archive: Path
    name: str
    offset: int
    size: int

    @property
    def suffix(self) -> str:
        """The ending of its name, as of a path."""
        return Path(self.name).suffix

    def exists(self) -> bool:
        """Whether its archive is there."""
        return self.archive.exists()

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"


File = Path | Member | Stream


def read(file: File, start: int, frames: int) -> np.ndarray:
    """Frames [start, start + frames) of a file, fewer where it ends: float32, (frames, channels), by one seek.

    Raises soundfile.LibsndfileError or OSError where it cannot be read.
    """
    with opened(file) as audio:
        frames = max(0, min(frames, audio.frames - start))
        if frames and start:
            audio.seek(start)
        block: np.ndarray = audio.read(frames, dtype="float32", always_2d=True)
        return block


@contextmanager
def opened(file: File) -> Iterator[Any]:
    """The audio of a file as a `soundfile.SoundFile`, or as what reads like one; only what is read is decoded.

    Files are not kept open between reads: opening takes 0.05 ms, finding a place in FLAC 0.4 ms, decoding 6 s 15 ms.
    """
    if isinstance(file, Path) and file.suffix.lower() == ".mp3":  # whose header may be wrong about its length
        try:
            found = start_sndfile(file)
        except AudioFileError as error:
            raise OSError(str(error)) from error
        with found as audio:
            yield audio
    elif isinstance(file, Path):
        with soundfile.SoundFile(native_name(file)) as audio:
            if audio.format == "OGG" and _chained(file):
                raise OSError(CHAINED)
            if audio.frames < UNKNOWN_FRAMES:
                yield audio
                return
        with _counted(file) as view, soundfile.SoundFile(view) as audio:
            yield audio
    elif isinstance(file, Stream):
        with streams.opened(file) as track:
            yield track
    else:
        with file.archive.open("rb", buffering=0) as whole, soundfile.SoundFile(_slice(whole, file)) as audio:
            yield audio


@contextmanager
def raw(file: Path | Member) -> Iterator[BinaryIO]:
    """The bytes of a file."""
    if isinstance(file, Path):
        with file.open("rb") as handle:
            yield handle
    else:
        with file.archive.open("rb", buffering=0) as whole:
            yield cast(BinaryIO, _slice(whole, file))


@contextmanager
def measured(file: Path | Member) -> Iterator[BinaryIO]:
    """The bytes of an audio file, to be copied; a FLAC that was written to a pipe gets its length into its header."""
    if isinstance(file, Path) and soundfile.info(native_name(file)).frames >= UNKNOWN_FRAMES:
        with _counted(file) as view:
            yield cast(BinaryIO, view)
    else:
        with raw(file) as handle:
            yield handle


def size(file: File) -> int:
    """How many bytes it has (a sound track: its container)."""
    return file.size if isinstance(file, Member) else (file if isinstance(file, Path) else file.path).stat().st_size


def identity(file: File) -> tuple[int, str]:
    """The bytes that it has and a digest of some all over it, to the last: tells a file from others of its name, and from
    itself before all but small changes, at next to no cost.
    """
    if isinstance(file, Stream):
        return identity(file.path)
    total, found = size(file), hashlib.blake2b(digest_size=8)
    with raw(file) as handle:
        for piece in range(1, _PIECES + 1):
            handle.seek(max(0, total * piece // _PIECES - _PIECE))
            found.update(handle.read(_PIECE))
    return total, found.hexdigest()


def content(file: File) -> str:
    """A digest of all its bytes."""
    place = file.path if isinstance(file, Stream) else file
    about = (place.archive if isinstance(place, Member) else place).stat()
    return _content(place, about.st_size, about.st_mtime_ns)


@lru_cache(1 << 17)
def _content(file: Path | Member, size: int, changed: int) -> str:
    """Kept, because every system asks: `size`, `changed` tell a new file."""
    found = hashlib.blake2b(digest_size=16)
    with raw(file) as handle:
        while block := handle.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def lost_bytes(file: File) -> int:
    """Bytes that a RIFF header promises beyond the end of its file: libsndfile reads such a file without complaint."""
    if isinstance(file, Stream) or file.suffix.lower() != ".wav":
        return 0
    with raw(file) as handle:
        head = handle.read(8)
    promised = int.from_bytes(head[4:8], "little")
    whole = head[:4] == b"RIFF" and not any(promised in sizes for sizes in UNKNOWN_SIZES)  # else RF64, or from a pipe
    return promised + 8 - size(file) if whole else 0


def _chained(file: Path) -> bool:
    """Whether an Ogg file is several streams one after another."""
    about = file.stat()
    return _is_chained(file, about.st_size, about.st_mtime_ns)


@lru_cache(1 << 17)
def _is_chained(file: Path, size: int, changed: int) -> bool:
    """Kept, because all its pages are visited: `size`, `changed` tell a new file."""
    return is_chained(file)


@contextmanager
def _counted(file: Path) -> Iterator[JoinedFile]:
    """A FLAC file whose header does not say how long it is, as if it did."""
    about = file.stat()
    head = _counted_head(file, about.st_size, about.st_mtime_ns)
    with JoinedFile(head, file, len(head)) as view:
        yield view


@lru_cache(4096)
def _counted_head(file: Path, size: int, changed: int) -> bytes:
    """Its first bytes, with the length. Kept, because counting decodes all of it: `size`, `changed` tell a new file."""
    view = counted_view(file)
    if view is None:
        raise OSError("its header does not say how long it is; convert it to FLAC again")
    with view:
        return view.read(io.DEFAULT_BUFFER_SIZE) or b""  # one read goes to the end of the new beginning


def _slice(archive: io.FileIO, member: Member) -> Slice:
    """The bytes of a member of an open archive, as a file of their own."""
    return Slice(archive, member.offset, member.size)
