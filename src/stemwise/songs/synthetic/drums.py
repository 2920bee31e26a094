"""Drum grooves on a sixteenth grid, with fills, ghost notes, crashes and hand percussion."""

from __future__ import annotations

from copy import copy

import numpy as np

from stemwise.songs.synthetic.piece import Event, Passage

KICK, RIM, SNARE, CLAP, CLOSED, PEDAL, OPEN = 36, 37, 38, 39, 42, 44, 46
CRASH, CRASH2, RIDE, BELL, SPLASH, CHINA, TAMBOURINE, COWBELL = 49, 57, 51, 53, 55, 52, 54, 56
TOMS = (50, 48, 47, 45, 43, 41)

# Each groove: kicks, snares, cymbal rows as alternatives; x loud, o medium, - ghost, . rest. 16 steps = 4/4.
KICKS: dict[str, tuple[str, ...]] = {
    "rock": (
        "x.......x.......",
        "x.....x.x.......",
        "x.......x.x.....",
        "x..x....x.x.....",
        "x.x.....x.....x.",
        "x......xx.......",
    ),
    "pop": ("x.......x.......", "x.....x...x.....", "x..x..x.........", "x.......x.....x.", "x.....x...x...x."),
    "funk": ("x..x..x...x..x..", "x.x....x..x.....", "x..x.....x..x...", "x.....xx..x..x..", "x..x..x.......x."),
    "disco": ("x...x...x...x...",),
    "house": ("x...x...x...x...", "x...x...x...x.x.", "x...x..xx...x..."),
    "ballad": ("x...............", "x.......x.......", "x......x........", "x.........x....."),
    "latin": ("x..x....x..x....", "x..xx..xx..xx..x", "x.....x.x.....x.", "x...x...x...x..."),
    "reggae": ("........x.......", "x.......x.......", "x...x...x...x..."),
    "shuffle": ("x.......x.......", "x.....x.x.....x.", "x.......x.x....."),
    "halftime": ("x...............", "x.....x.........", "x..x......x.....", "x.........x.x..."),
    "hiphop": ("x.....x..x......", "x..x......x.....", "x.x.......x..x..", "x......x..x.....", "x....x....xx...."),
    "metal": ("x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx", "x..x..x.x..x..x.", "x.xxx.x.x.xxx.x.", "x...x...x.x.x.x."),
    "train": ("x...x...x...x...", "x.......x......."),
    "jazz": ("x...............", "o.......o.......", "o...o...o...o...", "x.....o........."),
    "march": ("x...x...x...x...", "x.......x......."),
}
SNARES: dict[str, tuple[str, ...]] = {
    "rock": ("....x.......x...", "....x.......x..-", "....x..-.-..x..."),
    "pop": ("....x.......x...", "....x.......x...", "....x..-....x.-."),
    "funk": ("....x..-.-..x..-", "....x-.-.-..x-.-", "....x..x.-..x...", "..-.x..-.-.-x..-"),
    "disco": ("....x.......x...", "....x.......x.-."),
    "house": ("....x.......x...", "................"),
    "ballad": ("........x.......", "....x.......x...", "........x......-"),
    "latin": ("...x..x...x.x...", "x..x..x...x..x..", "....x.......x...", "x..x...x..x.x..."),
    "reggae": ("........x.......", "........x....-.-", "....x.......x..."),
    "shuffle": ("....x.......x...", "....x..-.-..x..-"),
    "halftime": ("........x.......", "........x..-...-", "......-.x......."),
    "hiphop": ("....x.......x...", "....x..-....x...", "....x.......x..o"),
    "metal": ("....x.......x...", "........x.......", "x.x.x.x.x.x.x.x.", "..x...x...x...x."),
    "train": ("--x---x---x---x-", "-.x-.-x--.x-.-x-", "..x-..x-..x-..x-"),
    "jazz": ("..........-.....", "...-..-.....-...", "......-...-...-.", "................"),
    "march": ("x..xx..xx..xx.xx", "x.-xx.-xx.-xx-x-"),
}
HATS: dict[str, tuple[str, ...]] = {
    "rock": ("x.o.x.o.x.o.x.o.", "x.x.x.x.x.x.x.x.", "x...x...x...x..."),
    "pop": ("x.o.x.o.x.o.x.o.", "xoooxoooxoooxooo", "x...x...x...x...", "..x...x...x...x."),
    "funk": ("xoxoxoxoxoxoxoxo", "x-o-x-o-x-o-x-o-", "x.oox.oox.oox.oo", "x.o.x.oox.o.x.oo"),
    "disco": ("..x...x...x...x.", "xox.xox.xox.xox.", "xoxoxoxoxoxoxoxo"),
    "house": ("..x...x...x...x.", "o.x.o.x.o.x.o.x.", "ooxoooxoooxoooxo"),
    "ballad": ("x.o.x.o.x.o.x.o.", "x...o...x...o...", "x-o-x-o-x-o-x-o-"),
    "latin": ("x.x.x.x.x.x.x.x.", "xooxooxoxooxooxo", "x..x..x...x.x...", "x.ooxo.ox.ooxo.o"),
    "reggae": ("..x...x...x...x.", "x.xox.xox.xox.xo", "x.o.x.o.x.o.x.o."),
    "shuffle": ("x.o.x.o.x.o.x.o.", "x..ox..ox..ox..o", "x...x...x...x..."),
    "halftime": ("x.o.x.o.x.o.x.o.", "x.ooxoxxx.ooxxxx", "x...x...x...x..."),
    "hiphop": ("x.o.x.o.x.o.x.o.", "x.oox.o.x.o.xooo", "xoxoxoxoxoxoxoxo", "x..x..x..x..x.x."),
    "metal": ("x...x...x...x...", "x.x.x.x.x.x.x.x.", "x.......x......."),
    "train": ("................", "x.o.x.o.x.o.x.o."),
    "jazz": ("x...x.o.x...x.o.", "x...x..ox...x..o", "x...x...x...x..."),
    "march": ("................", "x.......x......."),
}
# 12 sixteenths: 3/4 and 6/8
KICKS3 = ("x...........", "x.......x...", "x.....x.....", "x..x........", "x.........x.")
SNARES3 = ("....x...x...", "........x...", "............", "....-...x...")
HATS3 = ("x.o.o.x.o.o.", "x...x...x...", "x.o.x.o.x.o.", "....x...x...")
KICKS6 = ("x...........", "x.....x.....", "x.........x.", "x...x.......", "x..........x")
SNARES6 = ("......x.....", "......x...-.", "......x....-")
HATS6 = ("x.o.o.x.o.o.", "x.o.x.x.o.x.", "x.....x.....", "xoooooxooooo")
LEVEL = {"x": 1.0, "o": 0.72, "-": 0.38}
PERCUSSION: dict[str, tuple[tuple[int, str], ...]] = {
    "shaker": ((70, "xoooxoooxoooxooo"), (82, "x.o.x.o.x.o.x.o."), (70, "x-o-x-o-x-o-x-o-")),
    "tambourine": (
        (TAMBOURINE, "....x.......x..."),
        (TAMBOURINE, "xoxoxoxoxoxoxoxo"),
        (TAMBOURINE, "x.o.x.o.x.o.x.o."),
    ),
    "cowbell": ((COWBELL, "x...x...x...x..."), (COWBELL, "x.x..x.x.x..x.x.")),
    "clave": ((75, "x..x..x...x.x..."), (75, "..x.x...x..x..x."), (76, "x..x..x...x..x..")),
    "conga": ((63, "..x...xx..x...x."), (62, "x..x..x.x..x..x."), (64, "......xx......xx")),
    "bongo": ((60, "x-o-x-o-x-o-x-oo"), (61, "..x..x....x..x..")),
    "clap": ((CLAP, "....x.......x..."), (CLAP, "....x.....x.x...")),
    "timbale": ((65, "x.x.xx.xx.x.xx.x"), (66, "......x.......x.")),
    "agogo": ((67, "x.xx..x.x.x.xx.."), (68, "..x...x...x...x.")),
    "triangle": ((81, "x...o...x...o..."), (80, "x.oox.oox.oox.oo")),
}


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _mutated(rng: np.random.Generator, pattern: str, chance: float) -> str:
    """Flip a few off-beat steps so that no two songs share exactly one groove."""
    steps = list(pattern)
    for i in range(1, len(steps)):
        if i % 4 and rng.random() < chance:
            steps[i] = "." if steps[i] in "x" else str(rng.choice(("x", "o", "-")))
    return "".join(steps)


class Groove:
    """The drum pattern of a section kind: rows of (pitch, sixteenth pattern)."""

    def __init__(self, rng: np.random.Generator, family: str, meter: tuple[int, int], energy: float) -> None:
        self.kit = rng.random()
        if meter == (4, 4):
            kicks, snares, hats = KICKS[family], SNARES[family], HATS[family]
        else:
            kicks, snares, hats = (KICKS3, SNARES3, HATS3) if meter[1] == 4 else (KICKS6, SNARES6, HATS6)
        four = family in ("house", "disco", "metal")
        self.kick = _mutated(rng, _pick(rng, kicks), 0.0 if four else 0.07)
        snare = _mutated(rng, _pick(rng, snares), 0.02)
        hat = _pick(rng, hats)
        draw = rng.random()
        self.snare_pitch = SNARE if draw < 0.72 else 40 if draw < 0.82 else RIM if draw < 0.92 else CLAP
        if family in ("latin", "ballad", "reggae") and rng.random() < 0.5:
            self.snare_pitch = RIM
        self.kick_pitch = KICK if rng.random() < 0.85 else 35
        if family == "jazz":
            self.hat_pitch = RIDE
        elif energy > 0.65:
            self.hat_pitch = int(
                rng.choice((CLOSED, RIDE, OPEN, CRASH, BELL, CHINA), p=(0.4, 0.3, 0.13, 0.09, 0.05, 0.03))
            )
        else:
            self.hat_pitch = int(rng.choice((CLOSED, RIDE, PEDAL, 0, TAMBOURINE), p=(0.72, 0.13, 0.03, 0.08, 0.04)))
        rows = [(self.kick_pitch, self.kick), (self.snare_pitch, snare)]
        if self.hat_pitch:
            rows.append((self.hat_pitch, hat))
        if family in ("disco", "house") and self.hat_pitch == CLOSED and rng.random() < 0.6:
            rows.append((OPEN, "..x...x...x...x."[: len(hat)]))
        elif self.hat_pitch == CLOSED and rng.random() < 0.3:
            spot = int(rng.choice((2, 6, 10, 14, 7)))
            rows.append((OPEN, "".join("x" if i == spot else "." for i in range(len(hat)))))
        if self.hat_pitch in (RIDE, BELL) and rng.random() < 0.5:
            rows.append((PEDAL, "....x.......x..."[: len(hat)]))
        chance = 0.75 if family == "latin" else 0.22
        while rng.random() < chance and len(rows) < 7:
            name = str(rng.choice(list(PERCUSSION)))
            rows += [(p, row[: len(hat)]) for p, row in PERCUSSION[name][: 2 if name in ("conga", "bongo") else 1]]
            chance *= 0.5
        self.rows = rows

    def thinned(self) -> Groove:
        """The groove without kick and snare, for breaks."""
        other = copy(self)
        other.rows = self.rows[2:] or self.rows
        return other

    def kick_beats(self) -> tuple[float, ...]:
        """Where the kick falls in a bar, in beats."""
        return tuple(i / 4 for i, c in enumerate(self.kick) if c != ".")


def play(rng: np.random.Generator, passage: Passage, groove: Groove, fills: float) -> list[Event]:
    """The groove through a passage; the last bar (sometimes every fourth) ends in a fill, the first may crash."""
    events: list[Event] = []
    base = 62 + 46 * passage.energy
    layer = rng.random() < 0.12  # sometimes the drums build up row by row
    for bar, start in enumerate(passage.bar_starts()):
        last = bar == passage.bars - 1
        fill_at = passage.beats
        if (last and rng.random() < fills) or (bar % 4 == 3 and rng.random() < 0.35 * fills):
            fill_at = passage.beats - float(rng.choice((1, 2, min(passage.beats, 4)), p=(0.5, 0.35, 0.15)))
            events += fill(rng, start + fill_at, passage.beats - fill_at, base)
        rows = groove.rows[: 1 + bar] if layer else groove.rows
        for pitch, row in rows:
            for step, mark in enumerate(row):
                if mark == "." or step / 4 >= fill_at - 1e-6 or rng.random() < 0.015:
                    continue
                velocity = base * LEVEL[mark] * (1.0 if step % 4 == 0 else 0.92)
                events.append((start + step / 4, 0.25, pitch, velocity))
        struck = rng.random() < (0.25 + 0.6 * passage.energy if bar == 0 else 0.12)
        if bar % 4 == 0 and struck:
            events.append(
                (start, 1.0, int(rng.choice((CRASH, CRASH2, SPLASH, CHINA), p=(0.6, 0.28, 0.07, 0.05))), base + 8)
            )
    return events


def fill(rng: np.random.Generator, start: float, beats: float, base: float) -> list[Event]:
    """Toms, snare roll or kick-and-snare figures over the last beats of a bar."""
    grid = float(rng.choice((0.25, 0.25, 0.5, 1 / 3, 0.125), p=(0.4, 0.2, 0.15, 0.15, 0.1)))
    count = max(1, round(beats / grid))
    kind = rng.choice(("toms", "snare", "mixed", "sparse"))
    events: list[Event] = []
    for i in range(count):
        share = i / count
        velocity = base * (0.7 + 0.35 * share)
        if kind == "toms":
            pitch = TOMS[min(len(TOMS) - 1, int(share * len(TOMS)))]
        elif kind == "snare":
            pitch = SNARE
        else:
            pitch = int(rng.choice((SNARE, KICK, 48, 45, 43)))
        if kind == "sparse" and rng.random() < 0.5:
            continue
        if rng.random() < 0.9:
            events.append((start + i * grid, grid, pitch, velocity))
    return events
