"""The bytes of a Standard MIDI File: is it one, is it whole, and what lies in it that symusic does not hand on.

symusic pairs notes, and keeps tempos, metres, keys, markers, lyrics, controllers and pitch bends. Text and system exclusive
messages are collected here, so that they can be written back; what belongs to a channel cannot follow notes that move to
other channels, and is counted.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

from stemwise.errors import MidiFileError

_HEADER = 14
#: Meta events that are written back as they are, in a track of their own.
_KEPT = {0x01, 0x02, 0x07, 0x54, 0x7F}
#: Lyrics and markers, which symusic hands on where they are UTF-8.
_TEXTS = {0x05, 0x06}
_DROPPED = {
    0x00: "sequence number",
    0x04: "instrument name",
    0x20: "channel prefix",
    0x21: "MIDI port",
    0x08: "program name",
    0x09: "device name",
}
#: What belongs to a channel and goes with a track's notes.
FOLLOWING = {0xB: "controller", 0xE: "pitch bend"}
_LENGTHS = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}


@dataclass(frozen=True)
class Census:
    """What symusic leaves out: events (tick, bytes) to write back, and the number of those that are lost, by kind; and
    how many events there are of those that follow a track, by kind.
    """

    kept: tuple[tuple[int, bytes], ...]
    lost: dict[str, int]
    following: dict[str, int]


def census(content: bytes, name: str) -> Census:
    """Go through a file's events. Raises MidiFileError with what is wrong, where, and the remedy."""
    if content[:4] != b"MThd":
        found = "nothing" if not content else f"{content[:4]!r}"
        raise MidiFileError(
            f"{name}: not a MIDI file (it begins with {found}, not MThd); export it as a Standard MIDI File"
        )
    if len(content) < _HEADER:
        raise MidiFileError(f"{name}: breaks off in its header ({len(content)} bytes); copy or export it again")
    layout, tracks, division = struct.unpack(">HHH", content[8:_HEADER])
    if layout == 2 and tracks > 1:
        raise MidiFileError(
            f"{name}: holds {tracks} sequences that are independent of each other (MIDI format 2); export it as format 0 or 1"
        )
    if division & 0x8000 or division == 0:
        what = "in frames of film (SMPTE)" if division else "with 0 ticks to the quarter note"
        raise MidiFileError(f"{name}: counts time {what}; export it with ticks per quarter note (480 is usual)")
    kept: list[tuple[int, bytes]] = []
    lost: Counter[str] = Counter()
    following: Counter[str] = Counter()
    place, number = 8 + struct.unpack(">I", content[4:8])[0], 0
    while place + 8 <= len(content):
        kind, size = content[place : place + 4], struct.unpack(">I", content[place + 4 : place + 8])[0]
        place += 8
        if kind == b"MTrk":
            number += 1
            if place + size > len(content):
                raise _cut(name, f"track {number} of {tracks} has {len(content) - place} of its {size} bytes")
            try:
                _events(content, place, place + size, kept, lost, following)
            except IndexError as error:
                raise _cut(name, f"an event at the end of track {number} is not complete") from error
            except OverflowError as error:
                raise MidiFileError(
                    f"{name}: track {number} lasts longer than 2^31 ticks; export it with fewer ticks per quarter note"
                ) from error
        place += size
    if number < tracks:
        raise _cut(name, f"{number} of {tracks} tracks are there")
    return Census(tuple(sorted(kept, key=lambda event: event[0])), dict(lost), dict(following))


def _cut(name: str, what: str) -> MidiFileError:
    return MidiFileError(f"{name}: breaks off or is damaged ({what}); copy or export it again")


def _events(  # noqa: C901 - one branch a kind of event
    data: bytes,
    place: int,
    end: int,
    kept: list[tuple[int, bytes]],
    lost: Counter[str],
    following: Counter[str],
) -> None:
    """The events of one track, data[place:end]. Raises IndexError where it ends inside an event, OverflowError where a tick is
    none for symusic, which counts in 32 bits.
    """
    data = data[place:end]
    place, tick, status, end = 0, 0, 0, len(data)
    sounding: Counter[int] = Counter()
    while place < end:
        delta, place = _number(data, place)
        tick += delta
        if tick >= 1 << 31:
            raise OverflowError
        first = data[place]
        if first == 0xFF:
            kind = data[place + 1]
            size, body = _number(data, place + 2)
            if body + size > end:
                raise IndexError
            if kind in _KEPT or (kind in _TEXTS and not _is_text(data[body : body + size])):
                kept.append((tick, data[place : body + size]))
            elif kind in _DROPPED:
                lost[_DROPPED[kind]] += 1
            place = body + size
            if kind == 0x2F:
                break
        elif first in (0xF0, 0xF7):
            size, body = _number(data, place + 1)
            if body + size > end:
                raise IndexError
            kept.append((tick, data[place : body + size]))
            place = body + size
        else:
            if first & 0x80:
                status, place = first, place + 1
            kind = status >> 4
            if kind not in _LENGTHS or place + _LENGTHS[kind] > end:
                raise IndexError
            if kind == 0x9 and data[place + 1]:
                sounding[(status & 15) << 7 | data[place]] += 1
            elif kind in (0x8, 0x9):
                key = (status & 15) << 7 | data[place]
                if sounding[key]:
                    sounding[key] -= 1
            elif kind in (0xA, 0xD):
                lost["aftertouch"] += 1
            elif kind in FOLLOWING:
                following[FOLLOWING[kind]] += 1
            place += _LENGTHS[kind]
    hanging = sounding.total()
    if hanging:
        lost["note without an end"] += hanging


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _number(data: bytes, place: int) -> tuple[int, int]:
    """A number of variable length at a place, and the place after it."""
    value = 0
    for _ in range(4):
        byte = data[place]
        place += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place
    raise IndexError


def with_events(content: bytes, events: tuple[tuple[int, bytes], ...]) -> bytes:
    """A file with one more track, which holds these events."""
    if not events:
        return content
    parts, now = [], 0
    for tick, event in events:
        parts += [_variable(tick - now), event]
        now = tick
    body = b"".join([*parts, b"\x00\xff\x2f\x00"])
    tracks = struct.unpack(">H", content[10:12])[0]
    header = content[:8] + struct.pack(">HH", 1, tracks + 1) + content[12:_HEADER]
    return header + content[_HEADER:] + b"MTrk" + struct.pack(">I", len(body)) + body


def _variable(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))
