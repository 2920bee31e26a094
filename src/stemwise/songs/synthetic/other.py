"""Everything else: pads, strings, choirs, organs, brass stabs, lead tunes, counter lines, mallet figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stemwise.songs.synthetic.harmony import nearest, voiced
from stemwise.songs.synthetic.melody import phrase_line
from stemwise.songs.synthetic.piece import Event, Passage

Line = Callable[[np.random.Generator, Passage], list[Event]]


def pad(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Held voice-led chords."""
    low = int(rng.choice((43, 50, 55, 60)))
    size = int(rng.choice((2, 3, 4, 5)))
    shape: list[int] = []
    events: list[Event] = []
    for chord in passage.chords:
        shape = voiced(chord, shape, low, low + 26, size)[:size]
        events += [(chord.start, chord.length * 0.99, p, 74) for p in shape]
    return events


def sustained(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """One high or middle voice that holds common tones and moves by step."""
    pitch = float(rng.integers(60, 82))
    octave = rng.random() < 0.3
    events: list[Event] = []
    for chord in passage.chords:
        pitch = min((nearest(c, pitch) for c in chord.classes), key=lambda p: abs(p - pitch))
        events.append((chord.start, chord.length * 0.97, int(pitch), 80))
        if octave:
            events.append((chord.start, chord.length * 0.97, int(pitch) - 12, 74))
    return events


def tune(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """The lead melody, as a singer or a solo instrument would carry it."""
    low = int(rng.choice((52, 57, 60, 64)))
    return phrase_line(rng, passage, low=low, high=low + 20, density=float(rng.uniform(0.3, 0.65)), rest=0.22)


def counter(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """A slow answer to the tune: few notes, many rests."""
    return phrase_line(rng, passage, low=55, high=76, density=0.25, rest=0.35)


def stabs(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Short section chords on a drawn figure, every bar or every second."""
    steps = round(passage.beats * 2)
    hits = sorted({int(i) for i in rng.choice(steps, size=int(rng.integers(1, 5)))})
    every = int(rng.choice((1, 2)))
    long = rng.random() < 0.3
    shape: list[int] = []
    events: list[Event] = []
    for bar, start in enumerate(passage.bar_starts()):
        if bar % every:
            continue
        for hit, following in zip(hits, [*hits[1:], steps], strict=True):
            shape = voiced(passage.chord_at(start + hit / 2), shape, 53, 79, 4)
            length = (following - hit) / 2 * 0.9 if long else 0.3
            events += [(start + hit / 2, length, p, 94) for p in shape]
    return events


def figure(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """A repeating arpeggio or ostinato (mallets, sequencer, harp)."""
    step = float(rng.choice((0.25, 0.5, 0.5)))
    low = int(rng.choice((55, 60, 67)))
    order = rng.permutation(6)
    gate = float(rng.uniform(0.4, 1.0))
    density = float(rng.uniform(0.6, 1.0))
    mask = rng.random(16) < density
    events: list[Event] = []
    for chord in passage.chords:
        ladder = [p for p in range(low, low + 24) if p % 12 in chord.classes]
        for i in range(max(1, round(chord.length / step))):
            if mask[i % 16]:
                pitch = ladder[int(order[i % 6]) % len(ladder)]
                events.append((chord.start + i * step, step * gate, pitch, 82 - 6 * (i % 2)))
    return events


def run(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Unison lines of scale runs that fill gaps, in octaves (strings, winds)."""
    scale = [p for p in range(55, 90) if p % 12 in passage.scale]
    events: list[Event] = []
    for bar, start in enumerate(passage.bar_starts()):
        if bar % 2 == 0 and rng.random() < 0.5:
            continue
        begin = int(rng.integers(0, max(1, len(scale) - 9)))
        sign = int(rng.choice((-1, 1)))
        count = int(rng.integers(4, 9))
        step = 0.5 if rng.random() < 0.5 else 0.25
        onset = start + passage.beats - count * step if rng.random() < 0.5 else start
        for i in range(count):
            pitch = scale[begin + (i if sign > 0 else count - 1 - i)]
            events += [(onset + i * step, step * 0.95, pitch - o, 84) for o in (0, 12)]
    return [e for e in events if e[0] >= passage.start]


def pumping(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Chords repeated in eighths or off-beats (organ bubble, synth pluck)."""
    offbeat = rng.random() < 0.5
    step = 1.0 if offbeat else 0.5
    shape: list[int] = []
    events: list[Event] = []
    for chord in passage.chords:
        shape = voiced(chord, shape, 52, 78, 4)
        onset = chord.start + (0.5 if offbeat else 0.0)
        while onset < chord.end - 1e-6:
            events += [(onset, 0.3, p, 80) for p in shape]
            onset += step
    return events


LINES: dict[str, Line] = {
    "pad": pad,
    "sustained": sustained,
    "tune": tune,
    "counter": counter,
    "stabs": stabs,
    "figure": figure,
    "run": run,
    "pumping": pumping,
}

#: General MIDI programs (0-based) that suit each way of playing
PROGRAMS: dict[str, tuple[int, ...]] = {
    "pad": (48, 48, 49, 49, 50, 51, 52, 52, 53, 54, 88, 89, 89, 90, 91, 92, 93, 94, 95, 16, 17, 18, 19, 20, 61, 62, 99),
    "sustained": (40, 41, 42, 48, 49, 44, 52, 53, 54, 60, 71, 68, 73, 89, 91, 57, 16),
    "tune": (40, 41, 42, 56, 57, 59, 60, 64, 65, 65, 66, 67, 68, 69, 70, 71, 71, 72, 73, 73, 74, 75, 76, 77, 78, 79,
             80, 80, 81, 81, 82, 83, 84, 85, 86, 87, 21, 22, 22, 23, 52, 53, 54, 11, 12, 17),
    "counter": (40, 42, 48, 49, 56, 57, 60, 61, 66, 68, 70, 71, 73, 75, 81, 80, 22),
    "stabs": (61, 61, 61, 62, 63, 48, 55, 56, 18, 17, 16, 90, 81, 50, 45),
    "figure": (8, 9, 10, 11, 11, 12, 12, 13, 14, 15, 46, 45, 80, 81, 88, 90, 98, 100, 102, 87, 84, 7),
    "run": (48, 49, 50, 40, 73, 71, 61, 44, 45),
    "pumping": (16, 17, 18, 19, 20, 21, 23, 81, 90, 62, 63, 50, 45),
}  # fmt: skip
