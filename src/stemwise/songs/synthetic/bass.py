"""Bass lines: how roots, fifths, octaves and approach notes follow the kick and the harmony."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stemwise.songs.synthetic.harmony import nearest
from stemwise.songs.synthetic.piece import Chord, Event, Passage

LOW, HIGH = 28, 57  # E1 to A3
Line = Callable[[np.random.Generator, Passage], list[Event]]


def _place(pitch: int) -> int:
    while pitch < LOW:
        pitch += 12
    while pitch > HIGH:
        pitch -= 12
    return pitch


def _root(chord: Chord, centre: float = 36) -> int:
    return _place(nearest(chord.bass, centre))


def long_roots(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """One held note a chord, sometimes repeated half way."""
    split = rng.random() < 0.4
    events: list[Event] = []
    for chord in passage.chords:
        pitch = _root(chord)
        if split and chord.length >= 2:
            half = chord.length * float(rng.choice((0.5, 0.75)))
            events.append((chord.start, half, pitch, 88))
            events.append((chord.start + half, chord.length - half, _place(pitch + int(rng.choice((0, 0, 7, 12)))), 80))
        else:
            events.append((chord.start, chord.length * 0.97, pitch, 90))
    return events


def eighths(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Driving repeated eighths with passing notes into the next chord."""
    length = float(rng.choice((0.3, 0.45, 0.49)))
    octave = 0.25 if rng.random() < 0.3 else 0.0
    events: list[Event] = []
    for chord in passage.chords:
        pitch = _root(chord)
        count = max(1, round(chord.length * 2))
        for i in range(count):
            note = pitch
            if i == count - 1 and rng.random() < 0.3:
                note = pitch + int(rng.choice((-2, 2, 7, 5, -1)))
            elif i % 2 and rng.random() < octave:
                note = pitch + 12
            events.append((chord.start + i * 0.5, length, _place(note), 92 if i % 2 == 0 else 80))
    return events


def kick_lock(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Notes exactly where the kick falls, held until the next or cut short."""
    tight = rng.random() < 0.5
    other = float(rng.uniform(0, 0.35))
    events: list[Event] = []
    for start in passage.bar_starts():
        onsets = [k for k in passage.kick if k < passage.beats] or [0.0]
        if onsets[0] > 0:
            onsets = [0.0, *onsets]
        for onset, following in zip(onsets, [*onsets[1:], passage.beats], strict=True):
            pitch = _root(passage.chord_at(start + onset))
            if onset > 0 and rng.random() < other:
                pitch += int(rng.choice((7, 12, 10, -5)))
            span = following - onset
            events.append((start + onset, min(span, 0.4) if tight else span * 0.95, _place(pitch), 90))
    return events


def octaves(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Low and high octave in turn, the disco line."""
    step = float(rng.choice((0.5, 0.5, 0.25)))
    events: list[Event] = []
    for chord in passage.chords:
        pitch = _place(nearest(chord.bass, 33))
        for i in range(max(1, round(chord.length / step))):
            events.append((chord.start + i * step, step * 0.8, pitch + 12 * (i % 2), 92 - 8 * (i % 2)))
    return events


def walking(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Quarter notes through chord and scale tones that lead by step into the next root."""
    events: list[Event] = []
    pitch = _root(passage.chords[0], 40)
    for chord, following in zip(passage.chords, [*passage.chords[1:], passage.chords[0]], strict=True):
        target = _place(nearest(following.bass, pitch))
        count = max(1, round(chord.length))
        pitch = _place(nearest(chord.bass, pitch))
        for i in range(count):
            if i == 0:
                note = pitch
            elif i == count - 1:
                note = target + int(rng.choice((-1, 1, 2, -2)))
            else:
                pool = [nearest(c, pitch + float(rng.choice((-5, 4, 7)))) for c in chord.classes]
                note = int(rng.choice(pool)) if rng.random() < 0.7 else pitch + int(rng.choice((-2, 2)))
            pitch = _place(note)
            events.append((chord.start + i, 0.9, pitch, 86))
            if rng.random() < 0.1:
                events.append((chord.start + i + 0.5, 0.4, pitch, 62))
    return events


def syncopated(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """A two-bar figure of sixteenths drawn once and kept, with dead notes and octave pops (funk, hip hop)."""
    steps = round(passage.beats * 4)
    density = float(rng.uniform(0.25, 0.55))
    slap = rng.random() < 0.4
    figures = []
    for _ in range(2):
        hits = [0] + [i for i in range(2, steps) if rng.random() < density * (0.5 if i % 2 else 0.8)]
        figures.append([(i, int(rng.choice((0, 0, 0, 7, 12, 10, 3 if rng.random() < 0.3 else 5)))) for i in hits])
    events: list[Event] = []
    for bar, start in enumerate(passage.bar_starts()):
        figure = figures[bar % 2]
        for (step, offset), following in zip(figure, [s for s, _ in figure[1:]] + [steps], strict=True):
            onset = start + step / 4
            pitch = _root(passage.chord_at(onset), 34) + (offset if step else 0)
            dead = slap and step and rng.random() < 0.2
            length = 0.1 if dead else min((following - step) / 4 * float(rng.uniform(0.6, 0.95)), 1.0)
            events.append((onset, length, _place(pitch), 50 if dead else 100 if slap and offset == 12 else 88))
    return events


def arpeggio(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Root, fifth, octave and third in a repeating order."""
    step = float(rng.choice((0.5, 1.0, 0.5)))
    order = rng.permutation([0, 7, 12, 16, 7, 12])[: int(rng.integers(3, 7))]
    events: list[Event] = []
    for chord in passage.chords:
        third = chord.tones[1] + 12
        root = _place(nearest(chord.bass, 33))
        for i in range(max(1, round(chord.length / step))):
            offset = 0 if i == 0 else int(order[i % len(order)])
            offset = third if offset == 16 else offset
            events.append((chord.start + i * step, step * 0.9, min(HIGH, root + offset), 86))
    return events


def root_fifth(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Root on the first beat and the fifth half way: country, bossa, waltz, reggae one-drop variants."""
    late = rng.random() < 0.4
    events: list[Event] = []
    for start in passage.bar_starts():
        half = passage.beats / 2 if passage.meter == (4, 4) else passage.beats - passage.pulse
        for i, onset in enumerate((0.0, half)):
            pitch = _root(passage.chord_at(start + onset))
            if i:
                pitch += 7 if rng.random() < 0.75 else 0
            if late:
                events.append((start + onset, half * 0.7, _place(pitch), 90))
                events.append((start + onset + half * 0.75, half * 0.22, _place(pitch), 78))
            else:
                events.append((start + onset, half * 0.8, _place(pitch), 90))
    return events


def riff(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """A short figure on the passage's scale, transposed with the chords (rock, reggae, dub)."""
    steps = round(passage.beats * 2)
    hits = sorted({0, *(int(i) for i in rng.choice(steps, size=int(rng.integers(2, max(3, steps - 1)))))})
    shape = [0] + [int(v) for v in rng.choice((0, 3, 5, 7, 10, 12, -2, -5), size=len(hits) - 1)]
    fraction = float(rng.uniform(0.5, 0.98))
    events: list[Event] = []
    for start in passage.bar_starts():
        for hit, offset, following in zip(hits, shape, [*hits[1:], steps], strict=True):
            chord = passage.chord_at(start + hit / 2)
            pitch = _place(_root(chord) + offset)
            if offset not in (0, 12) and pitch % 12 not in passage.scale:
                pitch -= 1
            events.append((start + hit / 2, (following - hit) / 2 * fraction, _place(pitch), 88))
    return events


LINES: dict[str, Line] = {
    "long": long_roots,
    "eighths": eighths,
    "kick": kick_lock,
    "octaves": octaves,
    "walking": walking,
    "syncopated": syncopated,
    "arpeggio": arpeggio,
    "root-fifth": root_fifth,
    "riff": riff,
}
