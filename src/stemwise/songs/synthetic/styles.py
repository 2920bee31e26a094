"""What makes a style: tempo, metre, swing, groove and how likely each way of playing and each instrument is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Style:
    """One style of music.

    Ways of playing and instruments are written as "name weight, name weight"; weights are relative, and what is not
    named is (almost) never chosen. `guitars`, `basses`, `pianos` and `kits` are General MIDI programs, 0-based.
    `tempo` is a range in quarter notes a minute; `swing`, `waltz` (3/4) and `compound` (6/8) are chances; `richness`
    is the share of extended chords, `static` the chance of a vamp, `energy` 0..1 the usual force of playing.
    """

    tempo: tuple[float, float]
    groove: str
    bass: str
    guitar: str
    piano: str
    other: str
    guitars: str
    basses: str = "33 6, 34 3, 32 1, 35 1, 36 0.7, 37 0.5, 38 1, 39 1"
    pianos: str = "0 6, 1 3.5, 2 1.5, 3 0.8, 4 3, 5 2, 6 0.3, 7 0.5"
    kits: str = "0 4, 8 2, 16 1.5, 24 1.5, 25 1"
    swing: float = 0.0
    waltz: float = 0.06
    compound: float = 0.05
    richness: float = 0.3
    static: float = 0.15
    energy: float = 0.6


@lru_cache(maxsize=256)
def weights(text: str) -> dict[str, float]:
    """The table behind one of the strings of a Style: "a 2, b 0.5" is {"a": 2.0, "b": 0.5}."""
    pairs = (part.split() for part in text.split(","))
    return {name: float(weight) for name, weight in pairs}


STYLES: dict[str, Style] = {
    "rock": Style(
        tempo=(95, 168),
        groove="rock",
        bass="eighths 4, kick 3, riff 2, long 0.6",
        guitar="power 3, strum 2.5, riff 2, lead 1.5, picked 1, held 0.6",
        piano="blocks 3, syncopated 2, melody 1, arpeggios 1",
        other="pad 3, tune 2, stabs 1, sustained 2, pumping 1",
        guitars="30 3, 29 4, 27 2, 25 1.5, 28 1, 31 0.3",
        basses="33 4, 34 4, 35 0.5",
        kits="0 5, 8 2, 16 3",
        energy=0.75,
    ),
    "pop": Style(
        tempo=(84, 132),
        groove="pop",
        bass="kick 4, eighths 2, long 1.5, syncopated 1, octaves 0.5",
        guitar="strum 4, picked 3, funk 1, lead 0.7, power 0.6, riff 0.8, held 0.7",
        piano="blocks 3, syncopated 3, arpeggios 2, melody 1.5",
        other="pad 3, tune 2.5, figure 2, sustained 1.5, counter 1, stabs 0.7",
        guitars="25 4, 27 3, 24 1, 26 0.5, 28 1, 29 0.7",
    ),
    "funk": Style(
        tempo=(88, 120),
        groove="funk",
        bass="syncopated 5, kick 2, riff 1, octaves 0.6",
        guitar="funk 5, riff 1.5, comping 0.7, lead 0.8",
        piano="syncopated 4, comping 3, blocks 0.5",
        other="stabs 4, tune 1.5, pumping 1.5, pad 1, counter 1, run 0.5",
        guitars="27 4, 28 3, 26 1, 29 0.4",
        basses="36 3, 37 2, 33 3, 34 1, 38 1, 39 0.5",
        pianos="4 5, 5 2, 0 2, 1 1, 7 2",
        kits="0 4, 8 2, 16 1",
        waltz=0.0,
        compound=0.0,
        richness=0.6,
        static=0.6,
        energy=0.65,
    ),
    "disco": Style(
        tempo=(108, 130),
        groove="disco",
        bass="octaves 4, syncopated 2, eighths 1, kick 1",
        guitar="funk 4, strum 1, picked 1, riff 0.8",
        piano="syncopated 3, blocks 2, melody 1",
        other="stabs 2, pad 2, run 2, figure 1, tune 1",
        guitars="27 4, 28 3",
        basses="33 3, 38 2, 39 2, 34 1, 36 1",
        kits="0 3, 24 1, 25 1, 8 1",
        waltz=0.0,
        compound=0.0,
        richness=0.4,
        energy=0.7,
    ),
    "house": Style(
        tempo=(116, 134),
        groove="house",
        bass="octaves 2, syncopated 3, eighths 1.5, riff 1, long 0.7",
        guitar="funk 2, picked 2, riff 1.5, held 0.6",
        piano="syncopated 5, arpeggios 1.5, blocks 1",
        other="figure 3, pad 3, stabs 1.5, pumping 2, tune 1.5",
        guitars="27 3, 28 2, 25 1, 24 0.6",
        basses="38 4, 39 4, 33 1",
        pianos="1 3, 0 2, 2 3, 5 2, 4 1",
        kits="24 3, 25 3, 0 2, 16 1, 8 1",
        waltz=0.0,
        compound=0.0,
        static=0.35,
        energy=0.7,
    ),
    "ballad": Style(
        tempo=(58, 92),
        groove="ballad",
        bass="long 5, kick 1.5, arpeggio 1.5, root-fifth 1",
        guitar="picked 5, strum 1.5, held 1.5, lead 1.2",
        piano="arpeggios 4, blocks 3, melody 2, alberti 1",
        other="pad 4, tune 2.5, sustained 3, counter 1.5",
        guitars="24 3, 25 4, 26 1.5, 27 2, 30 0.4, 29 0.5",
        basses="33 4, 32 2, 35 2, 34 0.7",
        kits="0 4, 8 2, 32 2, 40 1.5",
        waltz=0.14,
        compound=0.16,
        richness=0.45,
        energy=0.4,
    ),
    "latin": Style(
        tempo=(90, 150),
        groove="latin",
        bass="root-fifth 4, syncopated 2, arpeggio 1.5, riff 0.7",
        guitar="comping 4, picked 2, strum 1.5, lead 1",
        piano="syncopated 4, comping 2, blocks 1, melody 1",
        other="stabs 2, tune 3, figure 1, counter 1.5, run 0.7",
        guitars="24 6, 25 2, 26 2",
        basses="32 3, 33 3, 35 1",
        kits="0 4, 8 1, 32 2, 40 1",
        waltz=0.02,
        compound=0.02,
        richness=0.65,
        energy=0.55,
    ),
    "reggae": Style(
        tempo=(66, 96),
        groove="reggae",
        bass="riff 4, root-fifth 1.5, syncopated 1.5",
        guitar="offbeat 6, riff 1, lead 0.7, funk 0.5",
        piano="syncopated 3, blocks 2, comping 1",
        other="pumping 4, stabs 1.5, tune 2, sustained 1",
        guitars="27 4, 26 1, 28 1.5, 25 0.5",
        basses="33 4, 34 1, 35 1, 38 1",
        pianos="0 3, 4 2, 1 1, 5 1",
        kits="0 4, 8 2",
        swing=0.3,
        waltz=0.0,
        compound=0.0,
        static=0.5,
        energy=0.5,
    ),
    "shuffle": Style(
        tempo=(86, 140),
        groove="shuffle",
        bass="walking 3, eighths 2, riff 1.5, kick 1",
        guitar="power 2, riff 2, comping 1.5, strum 1, lead 3",
        piano="blocks 2, comping 2, syncopated 1.5, stride 1",
        other="tune 3, pumping 2, stabs 2, pad 0.7",
        guitars="27 2, 26 2, 29 3, 30 0.7, 25 1",
        basses="33 4, 34 1, 32 1",
        kits="0 4, 8 2, 16 1",
        swing=1.0,
        waltz=0.0,
        compound=0.04,
        richness=0.5,
        static=0.2,
    ),
    "halftime": Style(
        tempo=(70, 100),
        groove="halftime",
        bass="long 2, kick 3, syncopated 2, riff 1",
        guitar="picked 2, held 2, power 2, lead 1.5, riff 1",
        piano="blocks 3, arpeggios 2, melody 2, syncopated 1",
        other="pad 4, figure 2, tune 2, sustained 2",
        guitars="27 3, 29 2, 30 1.5, 25 1, 28 1",
        basses="38 2, 39 2, 33 3, 34 1",
        kits="0 2, 16 2, 24 2, 25 3",
    ),
    "hip hop": Style(
        tempo=(76, 104),
        groove="hiphop",
        bass="syncopated 4, kick 2, long 2, riff 1",
        guitar="funk 1, picked 3, comping 1.5, riff 1.5, held 1",
        piano="syncopated 2, blocks 2, comping 2, arpeggios 1, melody 1",
        other="figure 2, pad 3, tune 2, stabs 1, counter 1, sustained 1",
        guitars="27 2, 26 2, 24 2, 25 1, 28 1",
        basses="33 2, 38 3, 39 3, 32 1, 35 1",
        pianos="4 4, 5 2, 0 3, 1 1",
        kits="25 4, 24 2, 0 2, 8 1",
        swing=0.35,
        waltz=0.0,
        compound=0.02,
        richness=0.6,
        static=0.5,
        energy=0.55,
    ),
    "metal": Style(
        tempo=(100, 180),
        groove="metal",
        bass="eighths 3, kick 4, riff 3",
        guitar="power 6, riff 4, lead 1.5, held 0.5",
        piano="arpeggios 2, blocks 2, melody 2",
        other="pad 3, sustained 2, tune 2, figure 1, run 0.5",
        guitars="30 6, 29 2",
        basses="34 4, 33 2",
        kits="16 4, 0 2, 8 1",
        waltz=0.02,
        richness=0.05,
        static=0.3,
        energy=0.9,
    ),
    "folk": Style(
        tempo=(80, 140),
        groove="train",
        bass="root-fifth 5, long 1.5, walking 1, arpeggio 0.7",
        guitar="picked 4, strum 5, riff 0.6",
        piano="blocks 2, stride 1.5, melody 2, alberti 1",
        other="tune 4, sustained 2, counter 2, pad 1",
        guitars="25 6, 24 3, 26 0.3",
        basses="32 4, 33 2, 35 1",
        kits="0 3, 40 2, 32 2",
        waltz=0.2,
        compound=0.14,
        richness=0.15,
        energy=0.5,
    ),
    "jazz": Style(
        tempo=(90, 180),
        groove="jazz",
        bass="walking 6, root-fifth 1, long 0.7",
        guitar="comping 4, lead 3, held 0.5",
        piano="comping 5, stride 1.5, melody 2, blocks 1",
        other="tune 5, counter 1.5, stabs 1.5, pad 0.5",
        guitars="26 7, 24 1, 27 0.7",
        basses="32 6, 35 2, 33 1",
        pianos="0 6, 1 2, 4 2, 2 0.5",
        kits="32 4, 40 3, 0 1.5",
        swing=0.85,
        waltz=0.12,
        compound=0.0,
        richness=0.95,
        static=0.1,
        energy=0.45,
    ),
    "cinematic": Style(
        tempo=(64, 120),
        groove="march",
        bass="long 4, eighths 1.5, arpeggio 1",
        guitar="picked 3, held 2, lead 1",
        piano="arpeggios 4, melody 3, alberti 1.5, blocks 2",
        other="pad 3, run 2, stabs 2, tune 2.5, sustained 2, figure 1.5",
        guitars="24 3, 25 3, 27 1, 29 0.6",
        basses="32 3, 33 2, 38 1.5, 35 1",
        kits="0 3, 8 2, 16 2",
        waltz=0.16,
        compound=0.16,
        energy=0.55,
    ),
}
