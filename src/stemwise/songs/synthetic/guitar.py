"""Guitar playing: strums with string delays, power chords, picking with ringing strings, riffs, leads, muted funk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stemwise.songs.synthetic.harmony import nearest
from stemwise.songs.synthetic.melody import phrase_line
from stemwise.songs.synthetic.piece import Chord, Event, Passage

OPEN_STRINGS = (40, 45, 50, 55, 59, 64)  # E2 A2 D3 G3 B3 E4
Line = Callable[[np.random.Generator, Passage], list[Event]]


def fretted(chord: Chord, position: int) -> list[int]:
    """The grip of a chord near a fret: on each string the lowest chord tone at or above `position`, bass first.

    Strings below the first root or fifth are not played, as a guitarist would leave them out.
    """
    classes = set(chord.classes[:4])
    grip: list[int] = []
    for string in OPEN_STRINGS:
        options = [f for f in range(position, position + 5) if (string + f) % 12 in classes]
        if position <= 2 and string % 12 in classes:
            options = [0, *options]
        if not options:
            continue
        pitch = string + options[0]
        if not grip and pitch % 12 not in (chord.root, chord.bass):
            continue
        if not grip or pitch > grip[-1]:
            grip.append(pitch)
    return grip if len(grip) > 1 else sorted(nearest(c, 55) for c in chord.classes)


def _strum(
    rng: np.random.Generator, grip: list[int], start: float, length: float, velocity: float, spread: float
) -> list[Event]:
    """One stroke; a positive `spread` (beats between strings) runs from the low string up, a negative one back."""
    strings = grip if spread >= 0 else grip[::-1][: max(3, len(grip) - 1)]
    delay = abs(spread)
    return [
        (start + i * delay, max(length - i * delay, 0.05), p, velocity * (1 - 0.03 * i) + float(rng.normal(0, 3)))
        for i, p in enumerate(strings)
    ]


# Sixteenths of a bar: D down, U up.
STRUMS = (
    "D...D...D...D...",
    "D...D.U...U.D.U.",
    "D.D.D.D.D.D.D.D.",
    "D...D.U.D...D.U.",
    "D.DUD.DUD.DUD.DU",
    "D.....D.....D...",
    "D.U.D.U.D.U.D.U.",
    "D...............",
    "D.......D.....U.",
    "..D...D...D...D.",
    "D..U..D...D..U..",
    "D...D.U.D.U.D.U.",
)
# The order in which picked strings follow each other, 0 the lowest of the grip.
PICKING = (
    (0, 2, 3, 4, 3, 2, 5, 2),
    (0, 3, 2, 4, 1, 3, 2, 5),
    (0, 2, 3, 5, 4, 3, 2, 3),
    (0, 1, 2, 3, 4, 5, 4, 3),
    (0, 3, 4, 2, 1, 3, 4, 2),
)


def strummed(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Full chords strummed down and up; strokes between chord changes are shorter and softer."""
    position = int(rng.choice((0, 0, 2, 3, 5, 7)))
    pattern = str(rng.choice(STRUMS))
    steps = round(passage.beats * 4)
    milliseconds = float(rng.uniform(5, 30))
    spread = milliseconds / 1000 * passage.bpm / 60
    ring = rng.random() < 0.7
    choked = float(rng.uniform(0, 0.15))
    events: list[Event] = []
    for start in passage.bar_starts():
        marks = [(i, c) for i, c in enumerate((pattern * 2)[:steps]) if c != "."]
        changes = {round((c.start - start) * 4) for c in passage.chords if start <= c.start < start + passage.beats}
        marks += [(i, "D") for i in changes if i not in {m for m, _ in marks}]
        marks.sort()
        for (step, mark), following in zip(marks, [m for m, _ in marks[1:]] + [steps], strict=True):
            grip = fretted(passage.chord_at(start + step / 4), position)
            length = (following - step) / 4 if ring else min(0.35, (following - step) / 4)
            if rng.random() < choked:
                length = 0.08
            down = mark == "D"
            velocity = (92 if step % 4 == 0 else 78) - (0 if down else 8)
            events += _strum(rng, grip, start + step / 4, length, velocity, spread if down else -0.7 * spread)
    return events


def power(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Root, fifth and octave in palm-muted eighths or sixteenths with held accents."""
    step = 0.25 if passage.bpm < 110 and rng.random() < 0.5 else 0.5
    muted = float(rng.uniform(0.1, 0.25))
    held = rng.random() < 0.35
    steps = round(passage.beats / step)
    accents = [i == 0 or rng.random() < 0.25 for i in range(steps)]
    rests = [i > 0 and rng.random() < 0.15 for i in range(steps)]
    events: list[Event] = []
    for start in passage.bar_starts():
        if held:
            chords = [c for c in passage.chords if c.end > start + 1e-6 and c.start < start + passage.beats - 1e-6]
            for chord in chords:
                onset = max(chord.start, start)
                span = min(chord.end, start + passage.beats) - onset
                root = nearest(chord.root, 44)
                events += [(onset, span * 0.97, max(40, root) + o, 95) for o in (0, 7, 12)]
            continue
        for i in range(steps):
            if rests[i]:
                continue
            root = max(40, nearest(passage.chord_at(start + i * step).root, 44))
            length = step * 0.95 if accents[i] else muted
            for offset in (0, 7, 12) if accents[i] else (0, 7):
                events.append((start + i * step, length, root + offset, 100 if accents[i] else 78))
    return events


def picked(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Arpeggiated picking over a grip; every string rings until the chord changes or it is struck again."""
    position = int(rng.choice((0, 0, 2, 5, 7)))
    step = float(rng.choice((0.5, 0.5, 0.25))) if passage.bpm < 120 else 0.5
    order = PICKING[int(rng.integers(len(PICKING)))]
    pinch = rng.random() < 0.3
    events: list[Event] = []
    for chord in passage.chords:
        grip = fretted(chord, position)
        count = max(1, round(chord.length / step))
        for i in range(count):
            onset = chord.start + i * step
            pitch = grip[order[i % len(order)] % len(grip)]
            events.append((onset, min(chord.end - onset, 4 * step + 1), pitch, 84 if i % 4 == 0 else 72))
            if pinch and i % 4 == 0:
                events.append((onset, min(chord.end - onset, 4 * step + 1), grip[-1], 76))
    return events


def funk(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Sixteenth-note scratching on small high grips: few ringing strokes, many muted ones."""
    steps = round(passage.beats * 4)
    accents = {int(i) for i in rng.choice(steps, size=int(rng.integers(2, 6)), replace=False)}
    ghosts = float(rng.uniform(0.1, 0.7))
    position = int(rng.choice((5, 7, 8, 9)))
    spread = float(rng.uniform(3, 10)) / 1000 * passage.bpm / 60
    events: list[Event] = []
    for start in passage.bar_starts():
        for step in range(steps):
            grip = fretted(passage.chord_at(start + step / 4), position)[-3:]
            sign = 1 if step % 2 == 0 else -1
            if step in accents:
                length = float(rng.choice((0.2, 0.24, 0.45)))
                events += _strum(rng, grip, start + step / 4, length, 96, sign * spread)
            elif rng.random() < ghosts:
                events += _strum(rng, grip, start + step / 4, 0.06, 46, sign * spread)
    return events


def offbeat(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Short chords on the off-beats: reggae skank, ska."""
    position = int(rng.choice((3, 5, 7)))
    double = rng.random() < 0.25
    spread = float(rng.uniform(3, 12)) / 1000 * passage.bpm / 60
    events: list[Event] = []
    for start in passage.bar_starts():
        beat = 0.5 if passage.pulse == 1.0 else 1.0
        while beat < passage.beats:
            grip = fretted(passage.chord_at(start + beat), position)[-4:]
            events += _strum(rng, grip, start + beat, 0.18, 90, spread)
            if double:
                events += _strum(rng, grip, start + beat + 0.25, 0.12, 70, -spread)
            beat += passage.pulse
    return events


def comping(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Four-note jazz or bossa chords plucked together, bass and chord alternating in bossa."""
    bossa = rng.random() < 0.5
    steps = round(passage.beats * 2)
    hits = sorted({int(i) for i in rng.choice(steps, size=max(2, steps // 2), replace=False)})
    events: list[Event] = []
    for start in passage.bar_starts():
        if bossa:
            for beat in np.arange(0, passage.beats, 2.0):
                grip = fretted(passage.chord_at(start + beat), 3)
                events.append((start + float(beat), 1.6, grip[0], 84))
        for hit, following in zip(hits, [*hits[1:], steps], strict=True):
            grip = fretted(passage.chord_at(start + hit / 2), 3)[1:5]
            length = min((following - hit) / 2, 0.9) * 0.8
            events += [(start + hit / 2, length, p, 78 + float(rng.normal(0, 3))) for p in grip]
    return events


def riff(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """A low single-note or fifth riff of one or two bars, repeated."""
    steps = round(passage.beats * 4)
    hits = sorted({0, *(int(i) for i in rng.choice(np.arange(1, steps), size=int(rng.integers(3, 8))))})
    scale = sorted(p for p in range(40, 62) if p % 12 in passage.scale)
    walk = [int(v) for v in np.clip(np.cumsum(rng.integers(-3, 4, len(hits))) + 4, 0, len(scale) - 1)]
    fifths = rng.random() < 0.35
    follow = rng.random() < 0.5
    home = passage.chords[0].root
    events: list[Event] = []
    for start in passage.bar_starts():
        for hit, index, following in zip(hits, walk, [*hits[1:], steps], strict=True):
            pitch = scale[index]
            if follow:
                shift = (passage.chord_at(start + hit / 4).root - home + 6) % 12 - 6
                pitch = min(76, max(40, pitch + shift))
            length = (following - hit) / 4 * 0.9
            events.append((start + hit / 4, length, pitch, 92))
            if fifths:
                events.append((start + hit / 4, length, pitch + 7, 88))
    return events


def lead(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """A solo line in the upper register, now and then in double stops."""
    events = phrase_line(rng, passage, low=57, high=84, density=float(rng.uniform(0.35, 0.75)))
    if rng.random() < 0.25:
        events += [(s, d, p - int(rng.choice((3, 4, 5))), v - 8) for s, d, p, v in events if rng.random() < 0.5]
    return events


def held(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """One slow strum a chord, left to ring."""
    position = int(rng.choice((0, 2, 5)))
    spread = float(rng.uniform(10, 60)) / 1000 * passage.bpm / 60
    return [e for c in passage.chords for e in _strum(rng, fretted(c, position), c.start, c.length, 86, spread)]


LINES: dict[str, Line] = {
    "strum": strummed,
    "power": power,
    "picked": picked,
    "funk": funk,
    "offbeat": offbeat,
    "comping": comping,
    "riff": riff,
    "lead": lead,
    "held": held,
}
