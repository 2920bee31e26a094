"""MIDI files in and out, in ticks; every note stays what it was."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stemwise.errors import MidiFileError
from stemwise.extras import needed
from stemwise.symbolic.events import Census, census, with_events
from stemwise.symbolic.instruments import Instrument
from stemwise.symbolic.notes import NOTE, Metre, Notes, in_order

MIDI_SUFFIXES = frozenset({".mid", ".midi", ".smf", ".kar"})


@dataclass(frozen=True, eq=False)
class Music:
    """A MIDI file that was read: `score` is symusic's (ticks), `notes` all its notes (dtype `NOTE`), in order.

    `census` holds what symusic leaves out of the file.
    """

    score: Any
    notes: Notes
    census: Census = field(default_factory=lambda: Census((), {}, {}))

    @property
    def tpq(self) -> int:
        """Ticks to the quarter note."""
        return int(self.score.tpq)

    @property
    def metres(self) -> tuple[Metre, ...]:
        """Tick, numerator and denominator of each time signature; 4/4 for one that is none."""
        signs = self.score.time_signatures
        return tuple(
            (int(m.time), *((int(m.numerator), int(m.denominator)) if m.denominator else (4, 4))) for m in signs
        )

    @property
    def tempos(self) -> tuple[tuple[int, int], ...]:
        """Tick and microseconds to the quarter note of each tempo."""
        return tuple((int(t.time), int(t.mspq)) for t in self.score.tempos)

    @property
    def tracks(self) -> tuple[tuple[str, int, bool], ...]:
        """Name, program (0-based) and whether on the drum channel, of each track."""
        return tuple((str(t.name), int(t.program), bool(t.is_drum)) for t in self.score.tracks)

    def seconds(self, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Times in seconds by the tempo map; 120 quarter notes a minute before the first tempo."""
        changes = [(0, 500_000), *self.tempos]
        edges = np.array([tick for tick, _ in changes], dtype=np.int64)
        pace = np.array([pace for _, pace in changes]) / 1e6 / self.tpq
        starts = np.concatenate([[0.0], np.cumsum(np.diff(edges) * pace[:-1])])
        index = np.searchsorted(edges, ticks, side="right") - 1
        found: NDArray[np.float64] = starts[index] + (ticks - edges[index]) * pace[index]
        return found


def is_midi(file: Path | str) -> bool:
    """Whether a file begins as a Standard MIDI File does."""
    try:
        with open(file, "rb") as handle:
            return handle.read(4) == b"MThd"
    except OSError:
        return False


def read_midi(file: Path | str) -> Music:
    """Read a MIDI file. Raises MidiFileError: not MIDI, cut short, time in film frames, or no notes."""
    symusic = needed("symusic", "midi")

    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise MidiFileError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    found = census(content, str(file))
    try:
        score = symusic.Score.from_midi(content)
    except (RuntimeError, ValueError) as error:
        reason = str(error).removeprefix("MiniMidi: ").split("!")[0]
        raise MidiFileError(f"{file}: cannot be read as MIDI ({reason}); copy or export it again") from error
    score.markers = score.markers.filter(_whole)
    for track in score.tracks:
        track.lyrics = track.lyrics.filter(_whole)
    notes = notes_of(score)
    if not len(notes):
        hanging = found.lost.get("note without an end")
        more = f" ({hanging} begin, none ends)" if hanging else ""
        raise MidiFileError(f"{file}: has no notes{more}; give a file in which something is played")
    return Music(score, notes, found)


def _whole(text: Any) -> bool:
    """Whether symusic could read a text; else the census has kept its bytes."""
    return "\ufffd" not in text.text


def notes_of(score: Any) -> Notes:
    """All notes of a symusic score, sorted; their `track` is the number of the track in it."""
    found = []
    for number, track in enumerate(score.tracks):
        columns = track.notes.numpy()
        notes = np.zeros(len(columns["time"]), NOTE)
        notes["onset"], notes["duration"] = columns["time"], columns["duration"]
        notes["pitch"], notes["velocity"], notes["track"] = columns["pitch"], columns["velocity"], number
        found.append(notes)
    notes = np.concatenate(found) if found else np.zeros(0, NOTE)
    return notes[in_order(notes)]


def lanes(notes: Notes) -> list[Notes]:
    """Sorted notes in as few groups as needed so that in none two of one pitch sound at once.

    One track could not hold them: the end of the first would be taken for that of the second.
    """
    group = np.zeros(len(notes), dtype=np.int64)
    silent: defaultdict[int, list[int]] = defaultdict(list)  # heaps of lanes, by pitch
    sounding: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # and of ends and lanes
    for index, (onset, duration, pitch) in enumerate(
        zip(notes["onset"].tolist(), notes["duration"].tolist(), notes["pitch"].tolist(), strict=True)
    ):
        ends = sounding[pitch]
        while ends and ends[0][0] < onset + bool(duration):  # one without duration may not lie where another ends
            heapq.heappush(silent[pitch], heapq.heappop(ends)[1])
        lane = heapq.heappop(silent[pitch]) if silent[pitch] else len(ends)
        heapq.heappush(ends, (max(onset + duration, onset), lane))
        group[index] = lane
    return np.split(notes[np.argsort(group, kind="stable")], np.cumsum(np.bincount(group))[:-1]) if len(notes) else []


def assembled(music: Music, parts: Mapping[str, Notes], instruments: Sequence[Instrument]) -> Any:
    """A symusic score with a track for each part that has notes, and the tempos, metres, keys and markers of `music`.

    A part is named after its instrument, whose program it gets; notes that one track cannot hold go to "NAME overflow". Each
    track gets the controllers and bends of the track that most of its notes come from; lyrics go to the first track.
    """
    symusic = needed("symusic", "midi")

    score = symusic.Score(music.tpq)
    for kind in ("tempos", "time_signatures", "key_signatures", "markers"):
        getattr(score, kind).extend(getattr(music.score, kind))
    known = {one.name: one for one in instruments}
    for name, notes in parts.items():
        one, source = known[name], _source(music, notes)
        for number, lane in enumerate(lanes(notes[in_order(notes)])):
            suffix = "" if not number else " overflow" if number == 1 else f" overflow {number}"
            track = symusic.Track(name + suffix, one.program, one.drums)
            track.notes = symusic_notes(lane)
            if source is not None:
                track.controls.extend(music.score.tracks[source].controls)
                track.pitch_bends.extend(music.score.tracks[source].pitch_bends)
            score.tracks.append(track)
    if len(score.tracks):
        for source in music.score.tracks:
            score.tracks[0].lyrics.extend(source.lyrics)
    return score


def events_lost(music: Music, parts: Mapping[str, Notes]) -> dict[str, int]:
    """How many events of `music` the tracks for `parts` do not hold, by kind (see `assembled`)."""
    numbers = {number for notes in parts.values() if (number := _source(music, notes)) is not None}
    used = [music.score.tracks[number] for number in sorted(numbers)]
    there = {
        "controller": sum(len(track.controls) for track in used),
        "pitch bend": sum(len(track.pitch_bends) for track in used),
    }
    left = {kind: count - there[kind] for kind, count in music.census.following.items() if count > there[kind]}
    return {**music.census.lost, **left}


def _source(music: Music, notes: Notes) -> int | None:
    """The number of the track of a file that most of a part's notes come from."""
    number = int(np.bincount(notes["track"]).argmax()) if len(notes) else 0
    return number if number < len(music.score.tracks) else None


def symusic_notes(notes: Notes) -> Any:
    """Notes as symusic holds them."""
    symusic = needed("symusic", "midi")

    columns = (notes["onset"], notes["duration"], notes["pitch"], notes["velocity"])
    kinds = (np.int32, np.int32, np.int8, np.int8)
    return symusic.Note.from_numpy(*(np.ascontiguousarray(c, k) for c, k in zip(columns, kinds, strict=True)))


def written(score: Any, census: Census) -> bytes:
    """The bytes of a multi-track MIDI file, with the events that symusic does not know in a track of their own.

    Raises MidiFileError if reading it back would change a note.
    """
    symusic = needed("symusic", "midi")

    content: bytes = score.dumps_midi()
    before, after = multiset(notes_of(score)), multiset(notes_of(symusic.Score.from_midi(content)))
    if not np.array_equal(before, after):
        raise MidiFileError(
            f"{len(before)} notes cannot be written as MIDI without a change to some (a wait of more than 2^28 ticks?); "
            "export the file with fewer ticks per quarter note"
        )
    return with_events(content, census.kept)


def multiset(notes: Notes) -> NDArray[np.int64]:
    """Onset, pitch, duration and velocity of each note (note, 4), sorted: equal for equal multisets of notes."""
    columns = np.stack([notes[k].astype(np.int64) for k in ("onset", "pitch", "duration", "velocity")], axis=1)
    found: NDArray[np.int64] = columns[np.lexsort(columns.T[::-1])]
    return found
