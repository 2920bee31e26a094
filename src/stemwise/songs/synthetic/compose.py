"""The composer: from one integer to a whole song, always the same one.

A song draws a style, key, mode, metre and tempo, a form of sections with stems that enter and rest, a chord
progression and a groove for each kind of section, and then asks a player for each stem. A section kind that returns
brings its material back, with small differences.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stemwise.songs.synthetic import bass, drums, guitar, harmony, other, piano
from stemwise.songs.synthetic.piece import NOTE, STEMS, Chord, Event, Passage, Piece, Section, Track
from stemwise.songs.synthetic.styles import STYLES, Style, weights

#: raised whenever the same seed would give another song
COMPOSER = 4

T = TypeVar("T")
FORMS = (
    ("intro", "verse", "chorus", "verse", "chorus", "bridge", "chorus", "outro"),
    ("verse", "chorus", "verse", "break", "chorus", "chorus", "outro"),
    ("intro", "chorus", "verse", "chorus", "break", "verse", "chorus"),
    ("chorus", "verse", "bridge", "chorus", "verse", "chorus", "outro"),
    ("intro", "verse", "verse", "bridge", "verse", "solo", "verse", "outro"),
    ("verse", "break", "chorus", "solo", "chorus", "outro"),
)


def _weighted(rng: np.random.Generator, chances: Mapping[T, float]) -> T:
    options = list(chances)
    p = np.array([chances[o] for o in options], dtype=float)
    return options[int(rng.choice(len(options), p=p / p.sum()))]


def _fork(seed: int, *words: object) -> np.random.Generator:
    """An independent generator for one decision of one song: adding a decision does not disturb the others."""
    return np.random.default_rng([seed, zlib.crc32(" ".join(map(str, words)).encode())])


def compose(seed: int, *, seconds: float = 45.0) -> Piece:
    """Write the song number `seed`, `seconds` long. Equal arguments give equal songs.

    Raises ValueError for a negative seed or a length under two seconds.
    """
    if seed < 0 or seconds < 2.0:
        raise ValueError(f"compose({seed}, seconds={seconds}): the seed must be >= 0 and the song at least 2 s long")
    rng = _fork(seed, "song")
    name = str(rng.choice(list(STYLES)))
    style = STYLES[name]
    mode = _weighted(rng, harmony.MODE_WEIGHTS)
    if name in ("shuffle", "jazz") and rng.random() < 0.3:
        mode = "blues"
    tonic = int(rng.integers(12))
    draw = rng.random()
    meter = (3, 4) if draw < style.waltz else (6, 8) if draw < style.waltz + style.compound else (4, 4)
    bpm = float(np.clip(rng.uniform(*style.tempo) * np.exp(rng.normal(0, 0.06)), 60, 180))
    swing = float(rng.uniform(0.57, 0.67)) if meter[1] == 4 and rng.random() < style.swing else 0.5
    sections = _form(rng, seconds, bpm, meter, _ensemble(rng))
    passages = _passages(seed, sections, style, meter, tonic, mode)
    clock = _Clock(sections, 4 * meter[0] / meter[1], swing, sixteenth=name in ("hip hop", "funk") and swing > 0.5)
    tracks = [t for stem in STEMS for t in _stem_tracks(seed, stem, name, sections, passages, clock, seconds)]
    return Piece(
        seed=seed,
        seconds=seconds,
        style=name,
        meter=meter,
        key=harmony.NAMES[tonic],
        mode=mode,
        swing=swing,
        bars=sum(s.bars for s in sections),
        sections=tuple(sections),
        tracks=tuple(t for t in tracks if len(t.notes)),
    )


def _ensemble(rng: np.random.Generator) -> tuple[str, ...]:
    """Which stems the song has: each is absent from about one song in eight, three at least are there."""
    present = [s for s in STEMS if rng.random() >= {"bass": 0.1, "drums": 0.1}.get(s, 0.14)]
    while len(present) < 3:
        present.append(str(rng.choice([s for s in STEMS if s not in present])))
    return tuple(s for s in STEMS if s in present)


def _form(
    rng: np.random.Generator, seconds: float, bpm: float, meter: tuple[int, int], stems: tuple[str, ...]
) -> list[Section]:
    """Sections until `seconds` are full. Tempo may change a little between sections, as players do."""
    beats = 4 * meter[0] / meter[1]
    drift = float(rng.choice((0.0, 0.0, 0.015, 0.04)))
    plan = FORMS[int(rng.integers(len(FORMS)))]
    bar_seconds = beats * 60 / bpm
    size = 8 if 8 * bar_seconds < 10 or (8 * bar_seconds < 16 and rng.random() < 0.35) else 4
    sections: list[Section] = []
    start, bar, i = 0.0, 0, 0
    while start < seconds:
        kind = plan[i % len(plan)]
        bars = max(2, size // 2) if kind in ("intro", "outro", "break") else size
        tempo = bpm * (1 + drift * float(rng.uniform(-1, 1)))
        sections.append(Section(kind, bar, bars, start, tempo, _playing(rng, kind, stems)))
        start += bars * beats * 60 / tempo
        bar += bars
        i += 1
    return sections


def _playing(rng: np.random.Generator, kind: str, stems: tuple[str, ...]) -> tuple[str, ...]:
    """Who plays in a section: thin intros and breaks, full choruses, one rest now and then elsewhere."""
    rest = {"intro": 0.5, "outro": 0.35, "break": 0.5, "verse": 0.2, "bridge": 0.28, "solo": 0.25, "chorus": 0.07}[kind]
    chosen = [s for s in stems if rng.random() >= rest * (0.6 if s in ("drums", "bass") else 1.0)]
    if not chosen:
        chosen = [str(rng.choice(list(stems)))]
    return tuple(chosen)


def _passages(
    seed: int, sections: list[Section], style: Style, meter: tuple[int, int], tonic: int, mode: str
) -> list[tuple[Passage, drums.Groove]]:
    """Harmony, groove and energy of every section; equal kinds share them."""
    beats = 4 * meter[0] / meter[1]
    energies = {
        "intro": -0.12,
        "verse": -0.05,
        "chorus": 0.15,
        "bridge": 0.0,
        "break": -0.2,
        "solo": 0.1,
        "outro": -0.05,
    }
    static = style.static
    passages = []
    for section in sections:
        kind = "chorus" if section.name == "solo" else "verse" if section.name == "intro" else section.name
        rng = _fork(seed, "harmony", kind)
        energy = float(np.clip(style.energy + energies[section.name] + _fork(seed, "energy").normal(0, 0.08), 0.1, 1.0))
        groove = drums.Groove(_fork(seed, "groove", kind), style.groove, meter, energy)
        lengths = _chord_lengths(rng, section.bars, beats, meter)
        shapes = harmony.progression(
            rng, mode=mode, tonic=tonic, chord_beats=lengths, richness=style.richness, static=static
        )
        start = section.first_bar * beats
        chords, at = [], start
        for (root, tones, low), length in zip(shapes, lengths, strict=True):
            chords.append(Chord(at, length, root, tones, low))
            at += length
        steps = harmony.MELODY_SCALES if rng.random() < 0.5 else harmony.MODES
        scale = tuple(sorted((tonic + s) % 12 for s in steps[mode]))
        passages.append(
            (
                Passage(section.name, start, section.bars, beats, meter, tuple(chords), groove.kick_beats(), energy,
                        scale, section.bpm),
                groove,
            )
        )  # fmt: skip
    return passages


def _chord_lengths(rng: np.random.Generator, bars: int, beats: float, meter: tuple[int, int]) -> list[float]:
    """Harmonic rhythm: mostly a chord a bar, sometimes two in a bar, two bars each, or an anticipated change."""
    draw = rng.random()
    if draw < 0.2 and bars % 2 == 0:
        return [2 * beats] * (bars // 2)
    if draw < 0.4 and meter == (4, 4):
        return [beats / 2] * (2 * bars)
    if draw < 0.5 and meter == (4, 4):  # every second bar splits
        return [length for _ in range((bars + 1) // 2) for length in (beats, beats / 2, beats / 2)][
            : bars // 2 * 3
        ] or [beats]
    return [beats] * bars


class _Clock:
    """Beats to seconds: tempo of the section, then swing inside the beat."""

    def __init__(self, sections: list[Section], beats: float, swing: float, *, sixteenth: bool) -> None:
        self.edges = np.array(
            [s.first_bar * beats for s in sections] + [(sections[-1].first_bar + sections[-1].bars) * beats]
        )
        lengths = np.array([60 / s.bpm for s in sections])
        self.times = np.concatenate([[0.0], np.cumsum(np.diff(self.edges) * lengths)])
        self.swing, self.unit = swing, 0.5 if sixteenth else 1.0

    def seconds(self, beats: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.swing != 0.5:
            whole = np.floor(beats / self.unit + 1e-9)
            part = beats / self.unit - whole
            early = part < 0.5
            bent = np.where(early, part * 2 * self.swing, self.swing + (part - 0.5) * 2 * (1 - self.swing))
            beats = (whole + bent) * self.unit
        return np.interp(beats, self.edges, self.times)


def _stem_tracks(
    seed: int,
    stem: str,
    name: str,
    sections: list[Section],
    passages: list[tuple[Passage, drums.Groove]],
    clock: _Clock,
    seconds: float,
) -> list[Track]:
    style = STYLES[name]
    rng = _fork(seed, "track", stem)
    layers = 1
    if (stem == "other" and rng.random() < 0.55) or (stem == "guitar" and rng.random() < 0.3):
        layers = 2
    tracks = []
    for layer in range(layers):
        roles: dict[str, str] = {}
        events: list[Event] = []
        program = -1
        for section, (passage, groove) in zip(sections, passages, strict=True):
            kind = section.name
            if stem not in section.playing or (layer and _fork(seed, stem, layer, kind).random() < 0.35):
                continue
            if kind not in roles:
                roles[kind] = _role(_fork(seed, "role", stem, layer, kind), stem, style, kind, roles, program)
            if program < 0:
                program = _program(_fork(seed, "program", stem, layer), stem, name, roles[kind])
            player = _fork(seed, "player", stem, layer, kind)
            events += _performed(player, stem, roles[kind], passage, groove)
        if events:
            notes = _humanised(_fork(seed, "human", stem, layer), events, clock, seconds)
            played = "+".join(dict.fromkeys(roles.values()))
            tracks.append(Track(stem, program, stem == "drums", played, notes, dict(roles)))
    return tracks


def _role(rng: np.random.Generator, stem: str, style: Style, kind: str, roles: dict[str, str], program: int) -> str:
    """How a stem plays in a section kind; often as it already does elsewhere in the song."""
    if stem == "drums":
        return "groove"
    likely = dict(weights(getattr(style, stem)))
    if stem == "other" and program >= 0:  # an instrument keeps to what suits it
        likely = {r: w for r, w in likely.items() if program in other.PROGRAMS[r]} or {"pad": 1.0}
    if kind == "solo" and stem in ("guitar", "other"):
        solo = "lead" if stem == "guitar" else "tune"
        likely[solo] = likely.get(solo, 0.5) * 3
    if roles and rng.random() < 0.45:
        return next(iter(roles.values()))
    if rng.random() < 0.1 and stem != "other":  # any way of playing in any style, for variety
        likely = dict.fromkeys({"bass": bass.LINES, "guitar": guitar.LINES, "piano": piano.LINES}[stem], 1.0)
    return _weighted(rng, likely)


def _program(rng: np.random.Generator, stem: str, name: str, role: str) -> int:
    style = STYLES[name]
    if stem == "drums":
        return int(_weighted(rng, weights(style.kits)))
    if stem == "bass":
        return int(_weighted(rng, weights(style.basses))) if rng.random() < 0.85 else int(rng.integers(32, 40))
    if stem == "guitar":
        if role == "power" and rng.random() < 0.7:
            return int(rng.choice((29, 30, 30, 28)))
        return int(_weighted(rng, weights(style.guitars))) if rng.random() < 0.8 else int(rng.integers(24, 31))
    if stem == "piano":
        return int(_weighted(rng, weights(style.pianos)))
    return int(rng.choice(other.PROGRAMS[role]))


def _performed(rng: np.random.Generator, stem: str, role: str, passage: Passage, groove: drums.Groove) -> list[Event]:
    if stem == "drums":
        if passage.kind == "break" and rng.random() < 0.4:
            groove = groove.thinned()
        return drums.play(rng, passage, groove, fills=float(rng.uniform(0.2, 0.95)))
    lines = {"bass": bass.LINES, "guitar": guitar.LINES, "piano": piano.LINES, "other": other.LINES}[stem]
    boost = 26 * (passage.energy - 0.6)
    return [(s, d, p, v + boost) for s, d, p, v in lines[role](rng, passage)]


def _humanised(rng: np.random.Generator, events: list[Event], clock: _Clock, seconds: float) -> NDArray[np.void]:
    """Events in beats to notes in seconds, with each player's looseness, push or drag, and touch."""
    table = np.array(events, dtype=float)
    start, stop = clock.seconds(table[:, 0]), clock.seconds(table[:, 0] + table[:, 1])
    loose = 0.0 if rng.random() < 0.2 else float(rng.uniform(0.001, 0.011))
    lag = float(rng.normal(0, 0.006)) if loose else 0.0
    stroke = np.round(table[:, 0] * 12).astype(np.int64)  # notes struck together stay together
    _, together = np.unique(stroke, return_inverse=True)
    shift = rng.normal(0, loose, int(together.max()) + 1)[together] + lag + rng.normal(0, 0.15 * loose, len(table))
    notes = np.zeros(len(table), dtype=NOTE)
    notes["start"] = np.clip(start + shift, 0.0, None)
    notes["duration"] = np.clip(stop - start, 0.04, None)
    touch = float(rng.uniform(2, 9))
    notes["velocity"] = np.clip(np.round(table[:, 3] + rng.normal(0, touch, len(table))), 18, 127)
    notes["pitch"] = np.clip(table[:, 2], 21, 108)
    notes = notes[notes["start"] < seconds - 0.05]
    notes["duration"] = np.minimum(notes["duration"], seconds - notes["start"])
    order = np.lexsort((notes["pitch"], notes["start"]))
    return notes[order]
