"""Keys, modes and chord progressions, and the voicings players build from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stemwise.songs.synthetic.piece import Chord

NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "blues": (0, 2, 4, 5, 7, 9, 10),
}

MODE_WEIGHTS = {
    "major": 0.34,
    "minor": 0.27,
    "dorian": 0.11,
    "mixolydian": 0.11,
    "blues": 0.07,
    "harmonic minor": 0.04,
    "lydian": 0.03,
    "phrygian": 0.03,
}

#: the scale a melody uses over each mode, beside the mode itself
MELODY_SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 7, 9),
    "minor": (0, 3, 5, 7, 10),
    "dorian": (0, 3, 5, 7, 10),
    "mixolydian": (0, 2, 4, 7, 9),
    "phrygian": (0, 3, 5, 7, 10),
    "lydian": (0, 2, 4, 7, 9),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "blues": (0, 3, 5, 6, 7, 10),
}

# Progressions as scale degrees (0 = tonic), one entry a chord.
_PROGRESSIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "bright": (
        (0, 4, 5, 3),
        (0, 3, 4, 4),
        (0, 5, 3, 4),
        (5, 3, 0, 4),
        (0, 3, 0, 4),
        (0, 5, 1, 4),
        (3, 4, 2, 5),
        (0, 2, 3, 4),
        (1, 4, 0, 0),
        (0, 4, 3, 3),
        (0, 1, 3, 4),
        (3, 0, 4, 5),
        (0, 6, 3, 0),
        (2, 5, 1, 4),
        (0, 4, 5, 2, 3, 0, 3, 4),
        (0, 0, 3, 3),
    ),
    "dark": (
        (0, 5, 2, 6),
        (0, 6, 5, 6),
        (0, 3, 4, 0),
        (0, 3, 6, 2),
        (0, 5, 3, 4),
        (0, 6, 3, 0),
        (5, 6, 0, 0),
        (0, 2, 6, 3),
        (0, 0, 5, 6),
        (0, 3, 0, 4),
        (3, 6, 2, 5, 1, 4, 0, 0),
        (0, 4, 5, 3),
    ),
    "groove": ((0, 3), (0, 6), (0, 0, 3, 3), (0, 3, 0, 6), (0,), (0, 6, 3, 3), (1, 4), (0, 4)),
    "blues": ((0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4), (0, 3, 0, 0, 3, 3, 0, 0, 4, 3, 0, 0), (0, 0, 3, 0, 4, 3, 0, 4)),
}

_BRIGHT = {"major", "mixolydian", "lydian"}


def degrees(rng: np.random.Generator, mode: str, static: float) -> tuple[int, ...]:
    """A progression for `mode`; `static` is the chance of a one- or two-chord vamp."""
    if mode == "blues" and rng.random() < 0.7:
        family = "blues"
    elif rng.random() < static:
        family = "groove"
    else:
        family = "bright" if mode in _BRIGHT else "dark"
    if family in ("bright", "dark") and rng.random() < 0.25:  # a random walk keeps the set of progressions open
        walk = [0 if rng.random() < 0.7 else int(rng.integers(7))]
        while len(walk) < 4:
            walk.append(int((walk[-1] + rng.choice((3, 4, 5, 1, 2, 6), p=(0.3, 0.2, 0.2, 0.14, 0.08, 0.08))) % 7))
        return tuple(walk)
    options = _PROGRESSIONS[family]
    return options[int(rng.integers(len(options)))]


def _diatonic(scale: Sequence[int], degree: int, size: int) -> tuple[int, tuple[int, ...]]:
    """Root (semitones above the tonic) and tones of the chord of `size` stacked thirds on a scale degree."""
    steps = [scale[(degree + 2 * i) % 7] + 12 * ((degree + 2 * i) // 7) for i in range(size)]
    return steps[0], tuple(s - steps[0] for s in steps)


def _coloured(rng: np.random.Generator, tones: tuple[int, ...], colour: float) -> tuple[int, ...]:
    """Sometimes turn a plain triad into sus2, sus4, add9 or a sixth chord."""
    if len(tones) != 3 or tones[2] != 7 or rng.random() >= 0.5 * colour:
        return tones
    kind = rng.choice(("sus2", "sus4", "add9", "six"))
    third = tones[1]
    return {"sus2": (0, 2, 7), "sus4": (0, 5, 7), "add9": (0, third, 7, 14), "six": (0, third, 7, 9)}[str(kind)]


def progression(
    rng: np.random.Generator, *, mode: str, tonic: int, chord_beats: Sequence[float], richness: float, static: float
) -> list[tuple[int, tuple[int, ...], int]]:
    """Chords (root pitch class, tones, bass pitch class), one for each entry of `chord_beats`.

    `richness` 0..1 is the share of sevenths, ninths, suspensions, inversions and secondary dominants.
    """
    scale = MODES[mode]
    walk = degrees(rng, mode, static)
    pedal = rng.random() < 0.06
    chords: list[tuple[int, tuple[int, ...], int]] = []
    shapes: dict[int, tuple[int, tuple[int, ...], int]] = {}
    for i in range(len(chord_beats)):
        degree = walk[i % len(walk)]
        if degree not in shapes or rng.random() < 0.1:
            shapes[degree] = _shape(rng, scale, degree, mode, richness)
        root, tones, bass = shapes[degree]
        following = walk[(i + 1) % len(walk)]
        if i % 4 == 3 and following != degree and rng.random() < 0.25 * richness:
            target = scale[following]
            root, tones, bass = target + 7, (0, 4, 7, 10), target + 7
        bass_class = 0 if pedal else bass
        chords.append(((root + tonic) % 12, tones, (bass_class + tonic) % 12))
    return chords


def _shape(
    rng: np.random.Generator, scale: Sequence[int], degree: int, mode: str, richness: float
) -> tuple[int, tuple[int, ...], int]:
    draw = rng.random()
    size = 3 if draw > richness else (5 if draw < 0.25 * richness else 4)
    root, tones = _diatonic(scale, degree, size)
    if mode == "blues":
        tones = (0, 4, 7, 10)
    elif degree == 4 and mode in ("minor", "harmonic minor") and rng.random() < 0.6:
        tones = (0, 4, 7, 10) if size > 3 else (0, 4, 7)  # the dominant of the harmonic minor
    tones = _coloured(rng, tones, richness)
    bass = root
    if rng.random() < 0.08 + 0.14 * richness:
        bass = root + tones[int(rng.integers(1, 3))]
    return root, tones, bass


def nearest(pitch_class: int, to: float) -> int:
    """The MIDI pitch of a pitch class that lies nearest to `to`."""
    return int(pitch_class + 12 * round((to - pitch_class) / 12))


def voiced(chord: Chord, near: Sequence[int], low: int, high: int, size: int) -> list[int]:
    """A close voicing inside [low, high] whose notes move little from `near` (voice leading)."""
    classes = list(chord.classes)
    if len(classes) > size:  # drop the fifth first, then the root: the bass has it
        classes = [c for i, c in enumerate(classes) if i != 2][:size] if size < 4 else classes[:size]
    centre = float(np.mean(near)) if len(near) else (low + high) / 2
    best: list[int] = []
    cost = np.inf
    for turn in range(len(classes)):
        order = classes[turn:] + classes[:turn]
        for octave in range(low // 12, high // 12 + 1):
            pitches = [order[0] + 12 * octave]
            for pc in order[1:]:
                pitches.append(pitches[-1] + ((pc - pitches[-1]) % 12 or 12))
            if pitches[0] < low or pitches[-1] > high:
                continue
            distance = abs(float(np.mean(pitches)) - centre) + 0.3 * sum(
                min(abs(p - q) for q in near) for p in pitches if len(near)
            )
            if distance < cost:
                best, cost = pitches, distance
    return best or sorted(nearest(c, (low + high) / 2) for c in classes)
