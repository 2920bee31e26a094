"""The results of one system: a folder with one file for each finished song, so that a kill costs at most one song.

settings.json     what was evaluated, how and on which songs; another evaluation in the same place is refused
songs/NAME.json   the rows of a song (or why it failed); songs/NAME.npz its embedding frames
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemwise import __version__
from stemwise.errors import EvaluationError, RecipeError
from stemwise.evaluate.measures import Frames, Row, Ruler
from stemwise.evaluate.metrics import metric
from stemwise.evaluate.protocol import Protocol, protocol
from stemwise.files import read_json, write_atomically
from stemwise.runs import differences
from stemwise.songs import Song
from stemwise.songs.source import content

FORMAT = 1
SETTINGS = "settings.json"
_STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class SongResult:
    """What is kept of one song: its rows, or the reason why there are none."""

    name: str
    rows: tuple[Row, ...]
    failure: str = ""


@dataclass(frozen=True)
class Results:
    """A results folder, open for reading and adding. Use `open_results` or `read_results`."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The system's name in reports."""
        return str(self.settings["label"])

    @property
    def protocol(self) -> Protocol:
        """How it was evaluated."""
        return protocol(dict(self.settings["protocol"]), str(self.folder / SETTINGS))

    @property
    def songs(self) -> tuple[str, ...]:
        """The songs that are to be evaluated, in order."""
        return tuple(self.settings["songs"])

    def has(self, song: str) -> bool:
        """Whether a song is finished; one that failed is not."""
        found = self.read(song)
        return found is not None and not found.failure

    def keep(self, result: SongResult, frames: Frames) -> None:
        """Add a song. Raises EvaluationError where it cannot be written; what was there before is kept."""
        file = self._file(result.name)
        document = {"format": FORMAT, "song": result.name, "failure": result.failure,
                    "rows": [list(asdict(row).values()) for row in result.rows]}  # fmt: skip
        buffer = io.BytesIO()
        np.savez(buffer, **frames)  # type: ignore[arg-type]
        try:
            file.parent.mkdir(exist_ok=True)
            if frames or any(metric(name).embedding for name in self.protocol.metrics):
                write_atomically(file.with_suffix(".npz"), buffer.getvalue())
            write_atomically(file, (json.dumps(document) + "\n").encode())
        except OSError as error:
            raise EvaluationError(
                f"{file}: cannot be written ({error.strerror or error}). The songs finished so far are kept: make room or "
                "give access, and run the same command again"
            ) from error

    def read(self, song: str) -> SongResult | None:
        """A song's rows; None where it has not been evaluated (or its file is damaged, which is the same)."""
        try:
            document = read_json(self._file(song))
            rows = tuple(Row(*values) for values in document["rows"])
            whole = document["song"] == song and isinstance(document["failure"], str) and all(map(_is_whole, rows))
            return SongResult(song, rows, document["failure"]) if whole else None
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None

    def frames(self, song: str) -> Frames:
        """A song's embedding frames. Raises EvaluationError where they are missing."""
        file = self._file(song).with_suffix(".npz")
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found: Frames = {key: arrays[key] for key in arrays.files}
            if not all(one.ndim == 2 and one.dtype.kind == "f" for one in found.values()):
                raise ValueError("it holds something else than embedding frames")
            return found
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise EvaluationError(
                f"{file}: cannot be read ({error}); delete {file.with_suffix('.json').name} beside it and run again"
            ) from error

    def finished(self) -> tuple[str, ...]:
        """The songs that are evaluated, in order."""
        return tuple(name for name in self.songs if self.has(name))

    def failures(self) -> dict[str, str]:
        """The songs that failed, and why; and those that could not even be opened."""
        failed = {name: found.failure for name in self.songs if (found := self.read(name)) and found.failure}
        return {**dict(self.settings["unreadable"]), **failed}

    def _file(self, song: str) -> Path:
        plain = re.sub(r"[^\w.-]+", "_", song).encode(errors="ignore")[:80].decode(errors="ignore")
        return self.folder / "songs" / f"{plain}-{zlib.crc32(os.fsencode(song)):08x}.json"


def _is_whole(row: Row) -> bool:
    """Whether what was read is a row."""
    numbers = (row.start, row.seconds, 0.0 if row.value is None else row.value)
    texts = (row.given, row.wanted, row.stem, row.metric, row.note)
    return not any(map(math.isnan, numbers)) and all(isinstance(text, str) for text in texts)


def describe(
    label: str, identity: Mapping[str, Any], ruler: Ruler, songs: Sequence[Song], unreadable: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of an evaluation, as plain values."""
    return {
        "format": FORMAT,
        "stemwise": __version__,
        "label": label,
        "system": dict(identity),
        "protocol": ruler.protocol.model_dump(mode="json"),
        "instruments": ruler.instruments,
        "songs": {song.name: {"frames": song.frames, "rate": song.rate, "stems": sorted(song.stems)} for song in songs},
        "files": {song.name: _content(song) for song in songs},
        "unreadable": dict(unreadable),
    }


def _content(song: Song) -> str:
    """What tells its files from others: packed otherwise, the same song has another."""
    found = sorted((stem, *map(content, files)) for stem, files in song.stems.items())
    return hashlib.blake2b(repr(found).encode(errors="backslashreplace"), digest_size=8).hexdigest()


def open_results(folder: Path, settings: Mapping[str, Any]) -> Results:
    """A new results folder, or one of the same settings to go on with.

    Raises RecipeError where the folder belongs to other settings, with what differs; EvaluationError where it cannot be
    written.
    """
    file = folder / SETTINGS
    plain = json.loads(json.dumps(settings))
    if file.exists():
        before = read_results(folder).settings
        found = [
            place
            for key in ("system", "protocol", "instruments", "songs", "files")
            for place in differences(before[key], plain[key], key)
        ]
        if found:
            more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
            raise RecipeError(
                f"{folder} holds an evaluation with other settings: {'; '.join(found[:5])}{more}. "
                "Give the same ones to go on with it, or another folder (-o)"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
            if time.time() - stale.stat().st_mtime > _STALE_SECONDS:  # left by a kill; younger ones may be a shard's
                stale.unlink(missing_ok=True)
        write_atomically(file, (json.dumps(plain, indent=1) + "\n").encode())
    except OSError as error:
        raise EvaluationError(
            f"{folder}: no results can be written here ({error.strerror or error}); choose another place with -o"
        ) from error
    return Results(folder, plain)


def read_results(folder: Path) -> Results:
    """A results folder as it is. Raises EvaluationError where it is none."""
    file = folder / SETTINGS
    try:
        settings = read_json(file)
        if settings["format"] != FORMAT:
            raise ValueError(f"format {settings['format']!r}, this version reads {FORMAT}")
        tables = ("system", "protocol", "instruments", "songs", "files", "unreadable")
        missing = {"label", *tables} - set(settings)
        if missing:
            raise ValueError(f"without {', '.join(sorted(missing))}")
        odd = [key for key in tables if not isinstance(settings[key], dict)]
        if odd or settings["songs"].keys() != settings["files"].keys():
            raise ValueError(f"{', '.join(odd) or 'songs and files'}: damaged")
        found = Results(folder, settings)
    except OSError as error:
        inner = [entry.name for entry in sorted(folder.glob("*")) if (entry / SETTINGS).is_file()]
        hint = f"; did you mean one of its folders: {', '.join(inner)}?" if inner else ""
        raise EvaluationError(f"{folder}: no results of `stemwise evaluate` ({SETTINGS} is missing){hint}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{file}: not readable ({error}); was it made by another version?") from error
    return found
