"""Phrases of four bars from MIDI files, as published with Mixture2Music (arXiv 2209.02696): same filters, same cells.

Its rules, and what they cost, are not ours: one track a family (that with most notes), a grid of constant seconds, 16ths in
4/4 only, and a window is left out when any of its bars has fewer than 70 active cells. What is left out is named with its
reason, and a manifest says which phrases are of which song. One of its mistakes is not repeated: drums are no melody.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemwise.codecs.roll import PUBLISHED
from stemwise.errors import SongError
from stemwise.extras import needed
from stemwise.files import write_atomically
from stemwise.songs.lakh import lakh
from stemwise.songs.phrases import MANIFEST, PHRASE_STEPS
from stemwise.songs.scanning import MidiSong, Problem

if TYPE_CHECKING:
    import symusic

CHANNELS = ("melody", *PUBLISHED.stems)
WINDOW, HOP = PHRASE_STEPS, 16
#: Tracks of no more notes are left out; so are bars of fewer cells (a hundredth), and windows of fewer melody cells.
FEW_NOTES, BAR_SHARE, MELODY_CELLS = 50, 0.01, 24
#: Where the grid may begin: at one of so many first onsets, those closer than this (seconds) being one.
CANDIDATES, TOLERANCE = 30, 1e-3
REJECTED = "rejected.jsonl"


class Rejected(SongError):
    """A file that a published rule leaves out; the message is the rule."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Lines every `step` seconds from `origin` on, to the first beat after the last note."""

    origin: float
    step: float
    lines: int

    def nearest(self, seconds: np.ndarray) -> np.ndarray:
        """Index of the nearest line; of two equally near, the earlier."""
        place = np.ceil((seconds - self.origin) / self.step - 0.5)
        return np.clip(place, 0, self.lines - 1).astype(np.int64)

    @property
    def end(self) -> float:
        """The last line, in seconds."""
        return self.origin + (self.lines - 1) * self.step


@dataclass(frozen=True)
class Kept:
    """A track that stays: its channel's name, its notes, and its name in the file."""

    family: str
    notes: int
    track: str


def roll_of(
    score: symusic.Score, melody: int | None = None, origin: float | None = None
) -> tuple[np.ndarray, Grid, tuple[Kept, ...]]:
    """The whole song bool (time, 72, 6), its grid, and the tracks that are in it. `melody`: the program of the lead.

    `origin` in seconds, by default found. Raises Rejected where a published rule leaves the file out.
    """
    signs = score.time_signatures
    if len(signs) == 1 and (signs[0].numerator, signs[0].denominator) != (4, 4):
        raise Rejected(f"is in {signs[0].numerator}/{signs[0].denominator}; only 4/4 is taken")
    if len(signs) != 1:
        raise Rejected(f"has {len(signs)} time signatures; exactly one, 4/4, is wanted")
    seconds = score.to("second")
    chosen: dict[str, Any] = {}
    for track in seconds.tracks:
        family = "melody" if track.program == melody and not track.is_drum else _family(track)
        if family is None or len(track.notes) <= FEW_NOTES:
            continue
        if family not in chosen or len(track.notes) > len(chosen[family].notes):
            chosen[family] = track
    if len(chosen) < 2:
        raise Rejected(f"has {len(chosen)} instrument(s) of more than {FEW_NOTES} notes; two at least are wanted")
    grid = grid_of(seconds, score.tempos[0].qpm if score.tempos else 120.0, origin)
    roll = np.zeros((grid.lines, PUBLISHED.rows, len(CHANNELS)), bool)
    for family, track in chosen.items():
        notes = track.notes.numpy()
        begin, end = notes["time"].astype(np.float64), (notes["time"].astype(np.float64) + notes["duration"])
        row = PUBLISHED.row_of(notes["pitch"].astype(np.int64), family == PUBLISHED.drums)
        inside = (begin >= grid.origin - 1e-6) & (end <= grid.end + 1e-6) & (row >= 0)
        first, last = grid.nearest(begin), grid.nearest(end)
        for a, b, r in zip(first[inside], np.maximum(last, first + 1)[inside], row[inside]):
            roll[a:b, r, CHANNELS.index(family)] = True
    kept = tuple(Kept(family, len(track.notes), track.name) for family, track in chosen.items())
    return roll, grid, kept


def grid_of(seconds: symusic.Score, tempo: float, origin: float | None = None) -> Grid:
    """The grid of a score in seconds; its step is a quarter of the first beat at `tempo` (quarters a minute).

    Without an `origin`, it begins at that of the first onsets whose beats meet the loudest onsets on average.
    """
    beat = 60.0 / tempo
    tracks = [track.notes.numpy() for track in seconds.tracks if len(track.notes)]
    onsets = np.concatenate([notes["time"] for notes in tracks]).astype(np.float64)
    order = np.argsort(onsets, kind="stable")
    onsets, velocities = onsets[order], np.concatenate([notes["velocity"] for notes in tracks]).astype(float)[order]
    end = max(float((notes["time"] + notes["duration"]).max()) for notes in tracks)
    if origin is None:
        apart = np.concatenate([[True], np.diff(onsets) > TOLERANCE])
        candidates = onsets[apart][:CANDIDATES]
        origin = float(max(candidates, key=lambda start: _met(onsets, velocities, np.arange(start, end, beat))))
    return Grid(origin, beat / 4, 4 * int(np.ceil((end - origin) / beat - 1e-9)) + 1)


def windows(roll: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All windows (N, 64, 72, 6) of a song, one a bar, and their first steps (N,)."""
    starts = np.arange(0, len(roll) - WINDOW + 1, HOP)
    if not len(starts):
        return np.zeros((0, WINDOW, *roll.shape[1:]), bool), starts
    return np.stack([roll[start : start + WINDOW] for start in starts]), starts


def dense(found: np.ndarray) -> np.ndarray:
    """Which windows pass the rule that each of their bars has a hundredth of its cells active: bool (N,)."""
    shares = found.reshape(len(found), WINDOW // HOP, -1).mean(-1)
    return np.asarray((shares >= BAR_SHARE).all(1))


def melodious(found: np.ndarray) -> np.ndarray:
    """Which windows have at least 24 cells of melody: bool (N,)."""
    return np.asarray(found[..., 0].sum((1, 2)) >= MELODY_CELLS)


def write_phrases(
    source: Path, out: Path, melodies: Mapping[str, int] | None = None, log: Callable[[str], None] | None = None
) -> Iterator[tuple[int, int]]:
    """Write the phrases of every MIDI file below `source`, yielding (files done, phrases so far) after each file.

    `melodies` maps names of files (without suffix) to the program of their melody; such songs go to the folder melody,
    the others to no_melody, as published. At the end come the manifest, phrases.jsonl, one line a song, and rejected.jsonl.
    Raises SongError where there is no MIDI file or no phrase.
    """
    symusic = needed("symusic", "midi")

    kept: list[dict[str, Any]] = []
    left: list[dict[str, str]] = []
    total = 0

    def leave(problem: Problem) -> None:
        left.append({"song": problem.name, "reason": problem.reason})
        if log is not None:
            log(f"{problem.name}: {problem.reason}")

    for number, song in enumerate(lakh(source, left_out=leave), 1):
        melody = (melodies or {}).get(song.file.stem)
        try:
            entry, found = _phrases(symusic.Score(str(song.file)), song, melody)
        except Rejected as rule:
            leave(Problem(song.name, str(rule)))
        except Exception as error:  # whatever a damaged file makes the reader raise
            leave(Problem(song.name, f"cannot be read as MIDI ({error})"))
        else:
            file = out / str(entry["file"])
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, np.packbits(found.reshape(len(found), -1), axis=1))
            kept.append({**entry, "source": song.file.relative_to(source).as_posix()})
            total += len(found)
        yield number, total
    if not kept:
        raise SongError(f"{source}: no file has a phrase; the first: {left[0]['song']} {left[0]['reason']}")
    _lines(out / REJECTED, left)
    _lines(out / MANIFEST, kept)


def _phrases(score: symusic.Score, song: MidiSong, melody: int | None) -> tuple[dict[str, Any], np.ndarray]:
    roll, grid, tracks = roll_of(score, melody)
    found, starts = windows(roll)
    passing = dense(found) & (melodious(found) if melody is not None else True)
    if not passing.any():
        raise Rejected(f"has no dense window among {len(found)}")
    folder = "melody" if melody is not None else "no_melody"
    entry = {
        "file": f"{folder}/{_file_name(song.name)}",
        "song": song.metadata["song"],
        "melody": melody is not None,
        "phrases": int(passing.sum()),
        "starts": starts[passing].tolist(),
        "origin_seconds": grid.origin,
        "step_seconds": grid.step,
        "tracks": [[one.family, one.notes, one.track] for one in tracks],
    }
    return entry, found[passing]


def _file_name(song: str) -> str:
    """Short enough for any file system, and of this song alone."""
    return f"{song.replace('/', '__')[-50:]}-{zlib.crc32(os.fsencode(song)):08x}.npy"


def _family(track: Any) -> str | None:
    return PUBLISHED.stem_of(track.program, track.is_drum)


def _met(onsets: np.ndarray, velocities: np.ndarray, beats: np.ndarray) -> float:
    """Velocities of the (sorted) onsets that beats meet, summed, over the number of beats."""
    before = np.concatenate([[0.0], np.cumsum(velocities)])
    first, last = (np.searchsorted(onsets, beats + side * TOLERANCE) for side in (-1, 1))
    return float((before[last] - before[first]).sum() / max(1, len(beats)))


def _write(file: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(file, buffer.getvalue())


def _lines(file: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(file, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
