"""Any folder of songs is a data set: one sub-folder a song, with `bass.wav`, `drums.flac`, ... in it.

A stem may also be a sub-folder of the song, whose files are summed: a stem recorded in several tracks, as in MoisesDB.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from stemwise.errors import SongError
from stemwise.songs.song import Song

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

#: Other spellings of a stem's name, matched without regard to case.
ALIASES = {
    "vox": "vocals", "voice": "vocals", "vocal": "vocals", "drum": "drums", "keys": "piano", "keyboard": "piano",
    "guitars": "guitar", "others": "other",
}  # fmt: skip
MIXTURES = ("mixture", "mix", "full_mix")
#: Sums of other stems; as stems they would count the same sound twice.
COMPLEMENTS = ("instrumental", "inst", "karaoke", "accompaniment")


@dataclass(frozen=True)
class Problem:
    """One song (or entry) that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What a folder holds: the songs that can be read, by name, and the ones that cannot."""

    songs: tuple[Song, ...]
    problems: tuple[Problem, ...]


def folder(path: Path | str) -> list[Song]:
    """The songs of a folder, by name; a warning names unreadable ones. Raises SongError where none is left."""
    scanned = scan(path)
    if scanned.problems:
        warnings.warn(describe(path, scanned.problems), stacklevel=2)
    if not scanned.songs:
        raise SongError(f"{path}: no readable song. {describe(path, scanned.problems)}")
    return list(scanned.songs)


def describe(path: Path | str, problems: tuple[Problem, ...]) -> str:
    """One text that counts the unreadable songs and names the first ten with their reasons."""
    named = "; ".join(f"{problem.name}: {problem.reason}" for problem in problems[:10])
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"{path}: {len(problems)} unreadable song(s), repair or remove them: {named}{more}"


def scan(path: Path | str) -> Scan:
    """Read the headers of every song below `path`. Raises SongError if it is no folder of sub-folders."""
    root = Path(path)
    if not root.is_dir():
        kind = "is a file" if root.exists() else "does not exist"
        raise SongError(f"{root}: {kind}; give a folder with one sub-folder a song, each with bass.wav, drums.wav, ...")
    entries = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not entries:
        loose = any(_is_audio(entry) for entry in root.iterdir())
        remedy = (
            "its files look like the stems of one song: give its parent folder"
            if loose
            else "give a folder with one sub-folder a song, each with bass.wav, drums.wav, ..."
        )
        raise SongError(f"{root}: has no sub-folders; {remedy}")
    songs: list[Song] = []
    problems: list[Problem] = []
    for entry in entries:
        try:
            songs.append(song(entry))
        except SongError as error:
            problems.append(Problem(entry.name, str(error)))
    return Scan(tuple(songs), tuple(problems))


def song(path: Path) -> Song:
    """The song in one folder, from the headers of its files. Raises SongError with the first reason against it."""
    stems: dict[str, tuple[Path, ...]] = {}
    mixture: Path | None = None
    for name, files in _named_files(path):
        if name in MIXTURES:
            mixture = files[0]
        elif name in COMPLEMENTS or name.startswith("no_"):
            continue
        elif name in stems:
            both = ", ".join(file.name for file in (*stems[name], *files))
            raise SongError(f"stem {name!r} is given twice ({both}); keep one, or put tracks to sum in {name}/")
        else:
            stems[name] = files
    if not stems:
        raise SongError(f"no stems: expected files such as bass.wav or drums.flac ({', '.join(SUFFIXES)})")
    headers = {file: header(file) for files in stems.values() for file in files}
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
    return Song(path.name, stems, rates[0], frames, widest, mixture, _metadata(path))


def header(file: Path) -> Any:
    """The header of an audio file (soundfile's info). Raises SongError naming it where it is no audio."""
    try:
        return soundfile.info(str(file))
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise SongError(f"{file.name} is not readable audio ({'empty file' if size == 0 else error})") from error


def canonical(name: str) -> str:
    """The stem name for a file's name: lower case, blanks and dashes as underscores, aliases resolved."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return ALIASES.get(plain, plain)


def _named_files(path: Path) -> Iterator[tuple[str, tuple[Path, ...]]]:
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            files = tuple(sorted(file for file in entry.iterdir() if _is_audio(file)))
            if files:
                yield canonical(entry.name), files
        elif _is_audio(entry):
            yield canonical(entry.stem), (entry,)


def _is_audio(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _metadata(path: Path) -> dict[str, Any]:
    """`song.json`, where there is one; metadata never decides whether a song can be read, so a bad file is no error."""
    try:
        loaded = json.loads((path / "song.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
