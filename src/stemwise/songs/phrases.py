"""Windows of piano rolls: an endless stream, in which item i is a pure function of (seed, i), for priors of rolls.

Two kinds of songs: MIDI files, which are read on a grid of ticks as a `RollLayout` says, windows beginning at bar lines;
and files of phrases, which `stemwise songs phrases` has cut beforehand as published.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemwise.codecs.roll import LAYOUTS, GridNotes, RollLayout, on_grid
from stemwise.errors import SongError
from stemwise.extras import needed
from stemwise.songs import lakh
from stemwise.songs.scanning import MidiSong, Problem
from stemwise.songs.splits import by_name, canonical

MANIFEST = "phrases.jsonl"
#: Layout and length of phrases: they are cut as published.
PHRASE_LAYOUT, PHRASE_STEPS = "published", 64
_ATTEMPTS = 16
_KEPT = 4096


@dataclass(frozen=True)
class RollOptions:
    """Shape of the windows: a layout by name, `length` in steps; windows with fewer stems than `min_active` are drawn again.

    `transpose`: every window by up to so many semitones, the drums never; `dropout`: chance that a stem is silenced,
    as if the band were smaller.
    """

    layout: str = "band"
    length: int = 64
    min_active: int = 2
    transpose: int = 0
    dropout: float = 0.0


@dataclass(frozen=True)
class PhraseFile:
    """Phrases of one song: packed bits uint8 (phrase, bytes) of bool (length, rows, channel), melody first."""

    name: str
    file: Path
    phrases: int


RollSong = MidiSong | PhraseFile


class RollWindows(torch.utils.data.Dataset[Tensor]):
    """The stream: `windows[i]` is uint8 (stem + 1, length, rows) for any i >= 0: the stems as in `Rolls`, then the metre.

    The last plane is 1 in every row of a step that begins a bar. Phrases count as often as they are, MIDI files once.
    Raises SongError for a file that cannot be read, and for phrases where other windows are wanted.
    """

    def __init__(self, songs: Sequence[RollSong], options: RollOptions, seed: int) -> None:
        if not songs:
            raise SongError("there is no song to cut windows from")
        cut_before = next((song for song in songs if isinstance(song, PhraseFile)), None)
        if cut_before is not None and (options.layout, options.length) != (PHRASE_LAYOUT, PHRASE_STEPS):
            raise SongError(
                f"{cut_before.file}: its phrases are of the layout {PHRASE_LAYOUT!r}, {PHRASE_STEPS} steps long; asked are "
                f"windows of the layout {options.layout!r}, {options.length} steps long. Give the MIDI files that the phrases "
                "were cut from, or a model such as Mixture2Music"
            )
        self.songs = list(songs)
        self.options = options
        self.seed = seed
        self._layout = LAYOUTS[options.layout]
        sizes = [song.phrases if isinstance(song, PhraseFile) else 1 for song in self.songs]
        self._ends = np.cumsum(sizes)

    def __getitem__(self, index: int) -> Tensor:
        """Item `index`; drawn again, at most 16 times in all, while too few stems play."""
        for attempt in range(_ATTEMPTS):
            draw = np.random.default_rng((self.seed, index, attempt))
            window = self._draw(draw)
            if window[:-1].any(axis=(1, 2)).sum() >= self.options.min_active:
                break
        return torch.from_numpy(window)

    def _draw(self, draw: np.random.Generator) -> np.ndarray:
        options, layout = self.options, self._layout
        place = int(draw.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, place, side="right"))
        song = self.songs[number]
        if isinstance(song, PhraseFile):
            window = phrase(song.file, place - int(self._ends[number]) + song.phrases, options.length, layout)
        else:
            notes = _read(song.file, options.layout)
            bars = notes.bars[notes.bars <= max(0, notes.length - options.length // 2)]
            start = int(draw.choice(bars)) if len(bars) else 0
            window = cut(notes, layout, start, options.length)
        if options.transpose:
            shift = int(draw.integers(-options.transpose, options.transpose + 1))
            for stem, roll in zip(layout.stems, window):
                if stem != layout.drums and shift:
                    roll[:] = _shifted(roll, shift)
        silent = draw.random(len(layout.stems)) < options.dropout
        window[:-1][silent] = 0
        return window


def cut(notes: GridNotes, layout: RollLayout, start: int, length: int) -> np.ndarray:
    """A window of a song from a step on, as `RollWindows` has them; silent after the song's end."""
    metre = np.zeros((1, length, layout.rows), np.uint8)
    bars = notes.bars - start
    metre[:, bars[(bars >= 0) & (bars < length)]] = 1
    return np.concatenate([notes.paint(layout, start, length), metre])


def _shifted(roll: np.ndarray, rows: int) -> np.ndarray:
    moved = np.zeros_like(roll)
    if rows > 0:
        moved[:, rows:] = roll[:, :-rows]
    else:
        moved[:, :rows] = roll[:, -rows:]
    return moved


@functools.lru_cache(_KEPT)
def _read(file: Path, layout: str) -> GridNotes:
    symusic = needed("symusic", "midi")

    try:
        return on_grid(symusic.Score(str(file)), LAYOUTS[layout])
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise SongError(f"{file}: cannot be read as MIDI ({error}); remove it from the data set") from error


@functools.lru_cache(64)  # each holds a file open
def _packed(file: Path) -> np.ndarray:
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def phrase(file: Path, number: int, length: int, layout: RollLayout) -> np.ndarray:
    """One phrase of a file as (stem + 1, length, rows) uint8, without the melody; bars are of 4 quarter notes."""
    try:
        packed = _packed(file)[number]
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise SongError(f"{file}: holds no phrase {number} ({error}); cut the phrases again") from error
    bits = np.unpackbits(packed, count=length * layout.rows * (len(layout.stems) + 1))
    roll = bits.reshape(length, layout.rows, -1)[..., 1:].transpose(2, 0, 1)
    metre = np.zeros((1, length, layout.rows), np.uint8)
    metre[:, :: 4 * layout.steps] = 1
    return np.concatenate([roll, metre])


def roll_songs(
    path: Path, split: str | None = None, split_seed: int = 0, left_out: Callable[[Problem], object] | None = None
) -> list[RollSong]:
    """The songs below a folder: those of a phrase manifest where there is one, else its MIDI files, of one split.

    `left_out` hears of MIDI files that are none, and of copies. MIDI files are split as `songs.lakh` says.
    Phrases are split by their folder as published (melody: train and validation by a hash of the song, 9 : 1;
    no_melody: test). Raises SongError.
    """
    if (path / MANIFEST).is_file():
        try:
            entries = [json.loads(line) for line in (path / MANIFEST).read_text(encoding="utf-8").splitlines()]
            songs: list[RollSong] = [
                PhraseFile(entry["song"], path / entry["file"], entry["phrases"])
                for entry in entries
                if split is None or _published_split(entry, split_seed) == canonical(split)
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise SongError(f"{path / MANIFEST}: not readable ({error!r}); cut the phrases again") from error
        lost = next((song.file for song in songs if isinstance(song, PhraseFile) and not song.file.is_file()), None)
        if lost is not None:
            raise SongError(f"{lost}: missing, but {MANIFEST} names it; copy it again, or cut the phrases again")
    else:
        songs = [
            song
            for song in lakh.lakh(path, split_seed, left_out)
            if split is None or song.metadata["split"] == canonical(split)
        ]
    if not songs:
        raise SongError(f"{path}: no song in the split {split!r}; leave the split away, or take another")
    return songs


def _published_split(entry: dict[str, str], seed: int) -> str:
    return by_name(entry["song"], seed, {"train": 0.9, "validation": 0.1}) if entry["melody"] else "test"
