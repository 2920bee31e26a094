"""What every reader of a data set shares: walking to its songs, reading headers, and naming what cannot be used."""

from __future__ import annotations

import heapq
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import soundfile

from stemwise.errors import SongError
from stemwise.songs.song import Song
from stemwise.songs.source import File, lost_bytes, opened

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
#: Names of folders that say to which split their songs belong; `omitted` holds Slakh's duplicates.
SPLITS = {
    "train": "train", "training": "train", "valid": "validation", "validation": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "omitted": "omitted",
}  # fmt: skip
#: How far below the given directory songs are looked for: a data set may lie in a folder of downloads.
DEPTH = 6
#: Headers are read by several threads: on network disks a scan waits far more than it computes.
_THREADS = 8


@dataclass(frozen=True)
class Problem:
    """One song (or entry) that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class MidiSong:
    """A song of a MIDI collection: no audio, so no stems to read; `metadata["split"]` where its split is known."""

    name: str
    file: Path
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """What a data set holds.

    `songs`: those that can be read, by name; `problems`: those that cannot; `skipped`: what the reader leaves out by a
    rule that its documentation states, and which is no fault of the copy; `midi`: the songs of a MIDI collection.
    """

    songs: tuple[Song, ...]
    problems: tuple[Problem, ...] = ()
    layout: str = "folder"
    skipped: tuple[Problem, ...] = ()
    midi: tuple[MidiSong, ...] = ()


class Skip(Exception):
    """Raised by a reader about a song that a rule of its data set leaves out."""


def describe(path: Path | str, problems: tuple[Problem, ...]) -> str:
    """One text that counts the unreadable songs and names the first ten with their reasons."""
    named = "; ".join(f"{problem.name}: {problem.reason}" for problem in problems[:10])
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"{path}: {len(problems)} unreadable song(s), repair or remove them: {named}{more}"


def usable(path: Path | str, found: Scan) -> list[Song]:
    """The songs of a scan that are `whole`; a warning names the others. Raises SongError where no song is left."""
    found = whole(found)
    if found.problems:
        warnings.warn(describe(path, found.problems), stacklevel=3)
    if found.songs:
        return list(found.songs)
    if found.midi:
        raise SongError(
            f"{path}: holds {len(found.midi)} MIDI files and no audio, so there are no stems to read; "
            "stemwise.songs.lakh lists the files"
        )
    raise SongError(f"{path}: no readable song. {describe(path, found.problems or found.skipped)}")


def whole(found: Scan) -> Scan:
    """A scan in which songs with a file that is cut short are problems: its rest would be heard as silence."""

    def fault(song: Song) -> str:
        files = [file for group in song.stems.values() for file in group] or ([song.mixture] if song.mixture else [])
        cut = (file.name for file in files if file.exists() and lost_bytes(file) > 1)
        return next((f"{name} is cut short; copy it again" for name in cut), "")

    with ThreadPoolExecutor(_THREADS) as pool:
        faults = list(pool.map(fault, found.songs))
    return replace(
        found,
        songs=tuple(song for song, reason in zip(found.songs, faults) if not reason),
        problems=(
            *found.problems,
            *(Problem(song.name, reason) for song, reason in zip(found.songs, faults) if reason),
        ),
    )


def collect(layout: str, entries: Iterable[tuple[str, Path]], read: Callable[[str, Path], Song]) -> Scan:
    """Read every (name, place) into a song; SongError makes a problem of it, Skip an entry that a rule leaves out."""

    def attempt(entry: tuple[str, Path]) -> Song | tuple[Problem, bool]:
        name, place = entry
        try:
            return read(name, place)
        except Skip as reason:
            return Problem(name, str(reason)), True
        except (SongError, OSError) as error:
            return Problem(name, str(error)), False

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(attempt, entries))
    rest = [item for item in found if not isinstance(item, Song)]
    return Scan(
        tuple(item for item in found if isinstance(item, Song)),
        tuple(problem for problem, by_rule in rest if not by_rule),
        layout,
        tuple(problem for problem, by_rule in rest if by_rule),
    )


def assemble(
    name: str, stems: Mapping[str, tuple[File, ...]], mixture: File | None, metadata: Mapping[str, Any]
) -> Song:
    """The song made of these files, from their headers. Raises SongError with the first reason against it."""
    files = [file for group in stems.values() for file in group] or ([mixture] if mixture else [])
    headers = {file: header(file) for file in files}
    rates = sorted({info.samplerate for info in headers.values()})
    if len(rates) > 1:
        raise SongError(f"its stems differ in sample rate ({', '.join(map(str, rates))} Hz); resample them to one rate")
    widest = max(info.channels for info in headers.values())
    if widest > 2:
        wide = next(file for file, info in headers.items() if info.channels == widest)
        raise SongError(f"{wide.name} has {widest} channels; mix it down to mono or stereo")
    frames = max(info.frames for info in headers.values())
    if frames == 0:
        raise SongError("every stem is empty (0 frames)")
    return Song(name, stems, rates[0], frames, widest, mixture, metadata)


@dataclass(frozen=True)
class Header:
    """Rate in hertz, channels and length of an audio file, by its header."""

    samplerate: int
    channels: int
    frames: int


def header(file: File) -> Header:
    """The header of an audio file. Raises SongError naming it where it is no audio."""
    if isinstance(file, Path) and file.is_fifo():  # to open it would wait for who writes into it
        raise SongError(f"{file.name} is a pipe; write it to a file first")
    try:
        with opened(file) as audio:
            return Header(audio.samplerate, audio.channels, audio.frames)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        if not file.exists():
            raise SongError(f"{file.name} is missing; download or copy the song again") from error
        empty = isinstance(file, Path) and file.stat().st_size == 0
        raise SongError(f"{file.name} is not readable audio ({'empty file' if empty else error})") from error


def is_audio(file: Path) -> bool:
    """Whether a path is a file that looks like audio, by its name."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def existing(folder: Path, stem: str) -> Path | None:
    """The audio file of that name (without suffix) in a folder, whatever its format."""
    return next((file for suffix in SUFFIXES if (file := folder / f"{stem}{suffix}").is_file()), None)


def folders(root: Path, wanted: Callable[[Path], bool], depth: int = DEPTH) -> Iterator[Path]:
    """The folders at and below `root` (at most `depth` levels down) that are wanted, in order; not those inside them."""
    if wanted(root):
        yield root
    elif depth > 0:
        for entry in sub_folders(root):
            yield from folders(entry, wanted, depth - 1)


def sub_folders(folder: Path) -> list[Path]:
    """The visible sub-folders of a folder, by name. Raises SongError where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry) for entry in entries if _is_folder(entry) and not entry.name.startswith("."))
    except OSError as error:
        raise SongError(f"{folder}: cannot be listed ({error.strerror}); change its access rights") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is one itself; a link round and round, or to where nobody may look, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def split_above(place: Path, root: Path) -> dict[str, str]:
    """`{"split": ...}` if a folder from `root` down to the song's parent is named after a split, else nothing."""
    parts = place.relative_to(root).parts[:-1]
    for part in (*reversed(parts), root.resolve().name):
        if part.lower() in SPLITS:
            return {"split": SPLITS[part.lower()]}
    return {}


def sample(root: Path, width: int = 12) -> list[Path]:
    """Some paths below `root`, relative to it: enough of a large tree to recognise its layout in milliseconds."""
    found: list[Path] = []
    level = [root]
    for _ in range(DEPTH + 1):
        below: list[Path] = []
        for folder in level[: width * width]:
            try:
                with os.scandir(folder) as listed:
                    entries = [entry for entry in listed if not entry.name.startswith(".")]
            except OSError:
                continue
            inside = {entry.path for entry in entries if _is_folder(entry)}
            below += map(Path, heapq.nsmallest(width, inside))
            found += map(
                Path, heapq.nsmallest(width * 8, (entry.path for entry in entries if entry.path not in inside))
            )
        found += below
        level = below
    return [path.relative_to(root) for path in found]
