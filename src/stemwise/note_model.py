"""What a user holds to work on MIDI: `load_notes("notes")`, then `separate`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stemwise.errors import MidiFileError, QueryError
from stemwise.hosts import without_autocast
from stemwise.longform import ProgressCallback, tell
from stemwise.query import whole, whole_seed
from stemwise.stems import index, known_names
from stemwise.symbolic.instruments import BAND, Instrument
from stemwise.symbolic.midi import Music, assembled, multiset, notes_of, read_midi, written
from stemwise.symbolic.notes import Notes
from stemwise.systems.notes import UNKNOWN, NoteAssigner, Question, assign

STEPS = 10
"""Steps unless told otherwise; on validation songs one step erred 5 to 9 % more often."""
_MOST = 4000
"""Evaluations of the network on a song, unless told otherwise: very long files get fewer steps."""
#: From this probability on a note is doubled.
_DOUBLED = 0.5


@dataclass(frozen=True, eq=False)
class NoteParts:
    """A separated MIDI file: the notes of each instrument, and the file that holds them on tracks of their own.

    Attributes:
        music: what was read.
        instruments: in the order of the labels.
        labels: int64 (note,), the instrument of each note of `music.notes`.
        confidence: float32 (note,), the probability that the model gave the label; 1 for labels that were given.
        doubled: bool (note, instrument), further instruments that play the note too.
        given: bool (note,), the labels that were known.
        steps: how many steps a window took.
    """

    music: Music
    instruments: tuple[Instrument, ...]
    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    doubled: NDArray[np.bool_]
    given: NDArray[np.bool_]
    steps: int

    @property
    def names(self) -> tuple[str, ...]:
        """The instruments that have notes, in order."""
        return tuple(one.name for one in self.instruments if len(self[one.name]))

    def __getitem__(self, name: str) -> Notes:
        """The notes of an instrument (dtype `stemwise.symbolic.NOTE`: ticks), sorted. Raises QueryError for an unknown one."""
        place = index(name, tuple(one.name for one in self.instruments))
        return self.music.notes[(self.labels == place) | self.doubled[:, place]]

    @cached_property
    def score(self) -> Any:
        """The tracks as a `symusic.Score` in ticks, with the tempos, metres, keys and markers of the file."""
        return assembled(self.music, {name: self[name] for name in self.names}, self.instruments)

    @property
    def changed(self) -> int:
        """How many notes of the file are not in the tracks as they were, by reading `score`; doublings do not count."""
        before, after = (Counter(map(tuple, multiset(n).tolist())) for n in (self.music.notes, notes_of(self.score)))
        return (before - after).total()

    def table(self) -> str:
        """The notes as CSV, in order: onset, duration, pitch, velocity (ticks, MIDI), track, instrument, confidence.

        `track` is among the input's that hold notes, from 1, as `locked` counts them. Doublings are a note's further
        instruments, joined to the first by +.
        """
        names = np.array([one.name for one in self.instruments])
        lines = ["onset,duration,pitch,velocity,track,instrument,confidence"]
        columns = zip(
            self.music.notes.tolist(), self.labels.tolist(), self.confidence.tolist(), self.doubled, strict=True
        )
        for (onset, duration, pitch, velocity, track), label, sure, more in columns:
            played = "+".join([str(names[label]), *names[more]])
            lines.append(f"{onset},{duration},{pitch},{velocity},{track + 1},{played},{sure:.4f}")
        return "\n".join(lines) + "\n"

    def to_bytes(self) -> bytes:
        """A multi-track MIDI file."""
        return written(self.score, self.music.census)

    def save(self, file: Path | str) -> None:
        """Write the multi-track MIDI file, whole or not at all. Raises MidiFileError where it cannot be written."""
        from stemwise.files import write_atomically

        try:
            write_atomically(Path(file), self.to_bytes())
        except OSError as error:
            raise MidiFileError(
                f"{file}: cannot be written ({error.strerror or error}); choose another place"
            ) from error


@dataclass(frozen=True, eq=False)
class NoteModel:
    """A note assigner with its name and device."""

    name: str
    assigner: NoteAssigner
    device: torch.device
    folder: Path
    card: Mapping[str, Any]

    @property
    def stems(self) -> tuple[str, ...]:
        """The instruments it knows, in order."""
        return self.assigner.stems

    @without_autocast
    def separate(
        self,
        source: Path | str | Music,
        *,
        present: Sequence[str] = (),
        locked: Mapping[Any, str] | None = None,
        doublings: bool = False,
        steps: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        progress: ProgressCallback | None = None,
    ) -> NoteParts:
        """An instrument for every note of a MIDI file; no note is changed, none is left out.

        Args:
            source: a MIDI file, or one that was read.
            present: the instruments that play, where that is known; no other is given a note.
            locked: labels that are known: a track's number (from 1) or name, or another MIDI file whose notes are found in
                this one by onset and pitch, to the instrument. Notes on the drum channel are known to be drums.
            doublings: copy a note to further instruments that the model hears in it.
            steps: see `stemwise.systems.notes.assign`; 1 decides on all notes at once.
            seed: draw the labels, so that every seed gives another version; None: the likeliest.
            temperature: of that draw; below 1 nearer to the likeliest.
            progress: told how many seconds of music are done.
        """
        music = source if isinstance(source, Music) else read_midi(source)
        names = list(self.stems)
        wanted = known_names(present, self.stems, f"the model {self.name} has") or self.stems
        given = known_labels(music, locked or {}, names)
        unlisted = sorted({names[k] for k in given[given != UNKNOWN]} - set(wanted))
        if unlisted:
            raise QueryError(
                f"notes are known to be {', '.join(unlisted)}, which is not among those that play; name it too"
            )
        allowed = np.isin(names, wanted)
        windows = max(1, -(-len(music.notes) * 2 // self.assigner.window))
        spent = max(1, min(STEPS, _MOST // windows)) if steps is None else whole(steps, "steps")
        if spent < 1 or not temperature > 0:
            raise QueryError(f"steps is {spent} and temperature {temperature}; both must be positive")
        answer = assign(
            self.assigner,
            Question(music.notes, music.tpq, music.metres, given, allowed, told=bool(present)),
            steps=spent,
            generator=None if seed is None else torch.Generator().manual_seed(whole_seed(seed) % 2**63),
            temperature=temperature,
            progress=_teller(music, progress),
        )
        doubled = np.zeros_like(answer.several, dtype=bool)
        if doublings:
            pitched = np.array([not one.drums for one in BAND])
            drums = ~pitched[answer.labels]
            doubled = (answer.several > _DOUBLED) & allowed & pitched & ~drums[:, None]
            doubled[np.arange(len(doubled)), answer.labels] = False
        return NoteParts(music, BAND, answer.labels, answer.confidence, doubled, given != UNKNOWN, spent)


def known_labels(music: Music, locked: Mapping[Any, str], names: Sequence[str]) -> NDArray[np.int64]:
    """The label that is known of each note, or `UNKNOWN`: drums on their channel, then what `locked` says.

    Raises QueryError for a track or an instrument that is not there.
    """
    drums = np.array([is_drum for _, _, is_drum in music.tracks], dtype=bool)
    known = np.where(drums[music.notes["track"]], names.index("drums"), UNKNOWN).astype(np.int64)
    for place, instrument in locked.items():
        (name,) = known_names([instrument], tuple(names), "locked: the instruments are")
        found = _locked(music, place)
        if not found.any():
            raise QueryError(f"locked: none of the notes of {place} is in the file; they are found by onset and pitch")
        known[found] = names.index(name)
    return known


def _locked(music: Music, place: int | np.integer | str | Path) -> NDArray[np.bool_]:
    """The notes that a place names: a track's number or name, or a MIDI file."""
    tracks = [name for name, _, _ in music.tracks]
    if isinstance(place, int | np.integer) or (isinstance(place, str) and place.isdecimal() and place not in tracks):
        if not 1 <= int(place) <= len(tracks):
            raise QueryError(f"locked: there is no track {place}; the file has {len(tracks)}")
        return np.asarray(music.notes["track"] == int(place) - 1)
    if str(place) in tracks:
        return np.isin(music.notes["track"], [k for k, name in enumerate(tracks) if name == str(place)])
    if Path(place).is_file():
        other = read_midi(place)
        at = other.notes["onset"] * music.tpq // other.tpq
        keys = np.unique(at * 128 + other.notes["pitch"])
        return np.isin(music.notes["onset"] * 128 + music.notes["pitch"], keys)
    listed = ", ".join(f"{k} {name!r}" for k, name in enumerate(tracks, 1))
    raise QueryError(f"locked: {str(place)!r} is neither a track nor a MIDI file; the tracks are {listed}")


def _teller(music: Music, progress: ProgressCallback | None) -> Callable[[float], None]:
    total, started = max(float(music.seconds(music.notes["onset"][-1])), 1e-3), time.monotonic()
    return lambda share: tell(progress, share * total, total, started)
