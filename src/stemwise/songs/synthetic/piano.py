"""Piano playing: two hands, voice-led blocks, arpeggios under the pedal, stride, comping, octave melodies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stemwise.songs.synthetic.harmony import nearest, voiced
from stemwise.songs.synthetic.melody import phrase_line
from stemwise.songs.synthetic.piece import Chord, Event, Passage

Line = Callable[[np.random.Generator, Passage], list[Event]]


def _voicings(rng: np.random.Generator, passage: Passage, low: int = 55, high: int = 81) -> list[list[int]]:
    size = int(rng.choice((3, 4, 4, 5)))
    shift = int(rng.choice((-5, 0, 0, 0, 7)))
    shapes: list[list[int]] = []
    for chord in passage.chords:
        shapes.append(voiced(chord, shapes[-1] if shapes else (), low + shift, high + shift, size))
    return shapes


def _left(chord: Chord, centre: float = 43) -> int:
    return max(24, nearest(chord.bass, centre))


def _left_hand(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Octaves, root and fifth, single roots, tenths or nothing (the bassist has it)."""
    kind = str(rng.choice(("octave", "fifth", "root", "tenth", "none", "pulse")))
    centre = float(rng.choice((36, 40, 45)))
    events: list[Event] = []
    for chord in passage.chords:
        root = _left(chord, centre)
        if kind == "none":
            break
        if kind == "octave":
            events += [(chord.start, chord.length * 0.95, p, 76) for p in (root, root + 12)]
        elif kind == "fifth":
            for i in range(max(1, round(chord.length))):
                events.append((chord.start + i, 0.95, root + (7 if i % 2 else 0), 74))
        elif kind == "tenth":
            third = 12 + chord.tones[1]
            events += [
                (chord.start + 0.5 * i, chord.length - 0.5 * i, root + o, 72)
                for i, o in enumerate((0, 7, third))
                if 0.5 * i < chord.length
            ]
        elif kind == "pulse":
            for i in range(max(1, round(chord.length * 2))):
                events.append((chord.start + i / 2, 0.4, root, 74 - 8 * (i % 2)))
        else:
            events.append((chord.start, chord.length * 0.95, root, 76))
    return events


def blocks(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Voice-led block chords in whole, half, quarter or eighth notes over a left hand."""
    step = float(rng.choice((8, 2, 1, 0.5), p=(0.3, 0.25, 0.3, 0.15)))
    length = float(rng.choice((0.5, 0.9, 1.0)))
    events: list[Event] = []
    for chord, shape in zip(passage.chords, _voicings(rng, passage), strict=True):
        onset = chord.start
        while onset < chord.end - 1e-6:
            span = min(step, chord.end - onset)
            velocity = 82 if onset == chord.start else 70
            events += [(onset, span * length, p, velocity + float(rng.normal(0, 3))) for p in shape]
            onset += span
    return events + _left_hand(rng, passage)


def syncopated(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Right-hand stabs on a drawn eighth or sixteenth pattern (pop, house, gospel)."""
    grid = float(rng.choice((0.5, 0.25)))
    steps = round(passage.beats / grid)
    tresillo = rng.random() < 0.35
    hits = (
        {i for i in range(steps) if (i * 2 * grid) % 3 == 0}
        if tresillo
        else {i for i in range(steps) if rng.random() < (0.5 if grid == 0.5 else 0.35)}
    )
    order = sorted(hits | ({0} if rng.random() < 0.8 else set())) or [0]
    shapes = dict(zip([c.start for c in passage.chords], _voicings(rng, passage), strict=True))
    gate = float(rng.uniform(0.3, 1.0))
    events: list[Event] = []
    for start in passage.bar_starts():
        for hit, following in zip(order, [*order[1:], steps], strict=True):
            shape = shapes[passage.chord_at(start + hit * grid).start]
            length = max((following - hit) * grid * gate, 0.12)
            events += [(start + hit * grid, length, p, 84 - 6 * (hit % 2)) for p in shape]
    return events + _left_hand(rng, passage)


def arpeggios(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Broken chords over two or three octaves; under the pedal every note rings to the chord's end."""
    step = float(rng.choice((0.5, 0.25, 1 / 3))) if passage.bpm < 115 else 0.5
    pedal = rng.random() < 0.7
    shape = str(rng.choice(("up", "updown", "random", "broken")))
    low = int(rng.choice((43, 48, 55)))
    events: list[Event] = []
    for chord in passage.chords:
        ladder = [p for p in range(low, low + int(rng.choice((19, 24)))) if p % 12 in chord.classes]
        if shape == "updown":
            ladder = ladder + ladder[-2:0:-1]
        elif shape == "random":
            ladder = [int(p) for p in rng.permutation(ladder)]
        elif shape == "broken":
            ladder = [p for pair in zip(ladder[:-2], ladder[2:], strict=True) for p in pair] or ladder
        for i in range(max(1, round(chord.length / step))):
            onset = chord.start + i * step
            length = min(chord.end - onset, 4.0) if pedal else step * 0.95
            events.append((onset, length, ladder[i % len(ladder)], 78 - 8 * (i % 2)))
        events.append((chord.start, chord.length, _left(chord, 38), 76))
    return events


def alberti(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Low-high-middle-high in the left hand under a melody of the right."""
    step = 0.5
    events: list[Event] = []
    for chord in passage.chords:
        low, middle, high = sorted(nearest(c, 50) for c in chord.classes[:3])
        for i in range(max(1, round(chord.length / step))):
            events.append((chord.start + i * step, step * 0.95, (low, high, middle, high)[i % 4], 66))
    return events + melody(rng, passage)


def stride(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Bass note, then chord, on alternate beats; waltz: one bass, two chords."""
    top = rng.random() < 0.5
    events: list[Event] = []
    for start in passage.bar_starts():
        for i in range(round(passage.beats / passage.pulse)):
            onset = start + i * passage.pulse
            chord = passage.chord_at(onset)
            low = i == 0 or (passage.beats == 4 and i == 2)
            if low:
                root = _left(chord, 36) + (7 if i else 0)
                events += [(onset, 0.8, p, 84) for p in (root, root + 12)[: 1 + (i == 0)]]
            else:
                events += [(onset, 0.4, nearest(c, 57), 70) for c in chord.classes[:4]]
    if top:
        events += phrase_line(rng, passage, low=64, high=90, density=0.5)
    return events


def melody(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """A right-hand tune, sometimes in octaves or thirds."""
    tune = phrase_line(rng, passage, low=60, high=88, density=float(rng.uniform(0.3, 0.7)))
    draw = rng.random()
    if draw < 0.35:
        return tune + [(s, d, p + 12, v - 4) for s, d, p, v in tune]
    if draw < 0.5:
        return tune + [(s, d, nearest(int(passage.chord_at(s).classes[0]), p - 5), v - 10) for s, d, p, v in tune]
    return tune


def tune_and_chords(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Melody in the right hand, held chords in the left."""
    left = [(c.start, c.length * 0.97, nearest(k, 50), 64.0) for c in passage.chords for k in c.classes[:4]]
    return melody(rng, passage) + left


def comping(rng: np.random.Generator, passage: Passage) -> list[Event]:
    """Rootless jazz chords at irregular places, mostly off the beat."""
    shapes = dict(zip([c.start for c in passage.chords], _voicings(rng, passage, 52, 74), strict=True))
    density = float(rng.uniform(0.15, 0.4))
    events: list[Event] = []
    for start in passage.bar_starts():
        for i in range(round(passage.beats * 2)):
            if rng.random() < density * (1.3 if i % 2 else 0.8):
                length = float(rng.choice((0.25, 0.4, 0.9, 1.4)))
                shape = shapes[passage.chord_at(start + i / 2).start]
                events += [(start + i / 2, length, p, 76 + float(rng.normal(0, 5))) for p in shape]
    return events


LINES: dict[str, Line] = {
    "blocks": blocks,
    "syncopated": syncopated,
    "arpeggios": arpeggios,
    "alberti": alberti,
    "stride": stride,
    "melody": tune_and_chords,
    "comping": comping,
}
