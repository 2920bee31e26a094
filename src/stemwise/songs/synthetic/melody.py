"""Single lines: motifs that return, phrases that breathe, notes that lean on the chord."""

from __future__ import annotations

import numpy as np

from stemwise.songs.synthetic.piece import Event, Passage


def _rhythm(rng: np.random.Generator, beats: float, density: float, pulse: float) -> list[float]:
    """Onsets inside one bar on an eighth (sometimes sixteenth or triplet) grid."""
    grid = float(rng.choice((0.5, 0.25, 1 / 3 if pulse == 1.0 else 0.5), p=(0.68, 0.22, 0.1)))
    count = round(beats / grid)
    onsets = [i * grid for i in range(count) if rng.random() < density * (1.2 if (i * grid) % 1 == 0 else 0.7)]
    return onsets or [float(rng.choice((0.0, 1.0)))]


def phrase_line(
    rng: np.random.Generator, passage: Passage, *, low: int, high: int, density: float, rest: float = 0.3
) -> list[Event]:
    """A melody from one or two bar motifs (AABA-like), chord tones on strong beats, scale steps between.

    `rest` is the chance that a bar is silent; phrases end on longer notes.
    """
    scale = sorted(p for p in range(low, high + 1) if p % 12 in passage.scale)
    motifs = [_rhythm(rng, passage.beats, density, passage.pulse) for _ in range(2)]
    contours = [np.clip(rng.normal(0, 1.6, 24), -4, 4).round().astype(int) for _ in range(2)]
    plan = str(rng.choice(("AABA", "ABAB", "AAAB", "ABBA")))
    index = len(scale) // 2 + int(rng.integers(-2, 3))
    legato = float(rng.uniform(0.55, 1.0))
    events: list[Event] = []
    for bar, start in enumerate(passage.bar_starts()):
        which = 0 if plan[bar % 4] == "A" else 1
        if rng.random() < rest:
            continue
        onsets = motifs[which]
        for i, (onset, following) in enumerate(zip(onsets, [*onsets[1:], passage.beats], strict=True)):
            index = int(np.clip(index + contours[which][i % 24], 0, len(scale) - 1))
            if index in (0, len(scale) - 1):
                index = len(scale) // 2
            pitch = scale[index]
            if onset % 1 == 0:
                classes = passage.chord_at(start + onset).classes
                near = [p for p in range(max(low, pitch - 3), min(high, pitch + 3) + 1) if p % 12 in classes]
                if near and rng.random() < 0.8:
                    pitch = min(near, key=lambda p: abs(p - pitch))
            length = min((following - onset) * legato, 3.0)
            events.append((start + onset, max(length, 0.08), pitch, 82 + 10 * (onset % 1 == 0)))
    return events
