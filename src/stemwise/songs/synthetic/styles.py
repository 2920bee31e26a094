"""What makes a style: tempo, metre, swing, groove and how likely each way of playing and each instrument is."""

from __future__ import annotations

from dataclasses import dataclass

_BASSES = {33: 6.0, 34: 3.0, 32: 1.0, 35: 1.0, 36: 0.7, 37: 0.5, 38: 1.0, 39: 1.0}
_PIANOS = {0: 6.0, 1: 3.5, 2: 1.5, 3: 0.8, 4: 3.0, 5: 2.0, 6: 0.3, 7: 0.5}


@dataclass(frozen=True)
class Style:
    """Weights are relative; a way of playing that is not named is never chosen. `tempo` in quarter notes a minute."""

    tempo: tuple[float, float]
    groove: str
    bass: dict[str, float]
    guitar: dict[str, float]
    piano: dict[str, float]
    other: dict[str, float]
    guitars: dict[int, float]
    basses: dict[int, float]
    kits: dict[int, float]
    swing: float = 0.0
    waltz: float = 0.06
    compound: float = 0.05
    richness: float = 0.3
    static: float = 0.15
    energy: float = 0.6


_ROCK_KITS = {0: 5.0, 8: 2.0, 16: 3.0}
_SOFT_KITS = {0: 4.0, 8: 2.0, 32: 2.0, 40: 1.5}
_DANCE_KITS = {24: 3.0, 25: 3.0, 0: 2.0, 16: 1.0, 8: 1.0}

STYLES: dict[str, Style] = {
    "rock": Style((95, 168), "rock", {"eighths": 4, "kick": 3, "riff": 2, "long": 0.6}, {"power": 3, "strum": 2.5, "riff": 2, "lead": 1.5, "picked": 1, "held": 0.6}, {"blocks": 3, "syncopated": 2, "melody": 1, "arpeggios": 1}, {"pad": 3, "tune": 2, "stabs": 1, "sustained": 2, "pumping": 1}, {30: 3, 29: 4, 27: 2, 25: 1.5, 28: 1, 31: 0.3}, {33: 4, 34: 4, 35: 0.5}, _ROCK_KITS, energy=0.75),
    "pop": Style((84, 132), "pop", {"kick": 4, "eighths": 2, "long": 1.5, "syncopated": 1, "octaves": 0.5}, {"strum": 4, "picked": 3, "funk": 1, "lead": 0.7, "power": 0.6, "riff": 0.8, "held": 0.7}, {"blocks": 3, "syncopated": 3, "arpeggios": 2, "melody": 1.5}, {"pad": 3, "tune": 2.5, "figure": 2, "sustained": 1.5, "counter": 1, "stabs": 0.7}, {25: 4, 27: 3, 24: 1, 26: 0.5, 28: 1, 29: 0.7}, _BASSES, {0: 4.0, 8: 2.0, 16: 1.5, 24: 1.5, 25: 1.0}),
    "funk": Style((88, 120), "funk", {"syncopated": 5, "kick": 2, "riff": 1, "octaves": 0.6}, {"funk": 5, "riff": 1.5, "comping": 0.7, "lead": 0.8}, {"syncopated": 4, "comping": 3, "blocks": 0.5}, {"stabs": 4, "tune": 1.5, "pumping": 1.5, "pad": 1, "counter": 1, "run": 0.5}, {27: 4, 28: 3, 26: 1, 29: 0.4}, {36: 3, 37: 2, 33: 3, 34: 1, 38: 1, 39: 0.5}, {0: 4, 8: 2, 16: 1}, waltz=0.0, compound=0.0, richness=0.6, static=0.6, energy=0.65),
    "disco": Style((108, 130), "disco", {"octaves": 4, "syncopated": 2, "eighths": 1, "kick": 1}, {"funk": 4, "strum": 1, "picked": 1, "riff": 0.8}, {"syncopated": 3, "blocks": 2, "melody": 1}, {"stabs": 2, "pad": 2, "run": 2, "figure": 1, "tune": 1}, {27: 4, 28: 3}, {33: 3, 38: 2, 39: 2, 34: 1, 36: 1}, {0: 3, 24: 1, 25: 1, 8: 1}, waltz=0.0, compound=0.0, richness=0.4, energy=0.7),
    "house": Style((116, 134), "house", {"octaves": 2, "syncopated": 3, "eighths": 1.5, "riff": 1, "long": 0.7}, {"funk": 2, "picked": 2, "riff": 1.5, "held": 0.6}, {"syncopated": 5, "arpeggios": 1.5, "blocks": 1}, {"figure": 3, "pad": 3, "stabs": 1.5, "pumping": 2, "tune": 1.5}, {27: 3, 28: 2, 25: 1, 24: 0.6}, {38: 4, 39: 4, 33: 1}, _DANCE_KITS, waltz=0.0, compound=0.0, static=0.35, energy=0.7),
    "ballad": Style((58, 92), "ballad", {"long": 5, "kick": 1.5, "arpeggio": 1.5, "root-fifth": 1}, {"picked": 5, "strum": 1.5, "held": 1.5, "lead": 1.2}, {"arpeggios": 4, "blocks": 3, "melody": 2, "alberti": 1}, {"pad": 4, "tune": 2.5, "sustained": 3, "counter": 1.5}, {24: 3, 25: 4, 26: 1.5, 27: 2, 30: 0.4, 29: 0.5}, {33: 4, 32: 2, 35: 2, 34: 0.7}, _SOFT_KITS, waltz=0.14, compound=0.16, richness=0.45, energy=0.4),
    "latin": Style((90, 150), "latin", {"root-fifth": 4, "syncopated": 2, "arpeggio": 1.5, "riff": 0.7}, {"comping": 4, "picked": 2, "strum": 1.5, "lead": 1}, {"syncopated": 4, "comping": 2, "blocks": 1, "melody": 1}, {"stabs": 2, "tune": 3, "figure": 1, "counter": 1.5, "run": 0.7}, {24: 6, 25: 2, 26: 2}, {32: 3, 33: 3, 35: 1}, {0: 4, 8: 1, 32: 2, 40: 1}, waltz=0.02, compound=0.02, richness=0.65, energy=0.55),
    "reggae": Style((66, 96), "reggae", {"riff": 4, "root-fifth": 1.5, "syncopated": 1.5}, {"offbeat": 6, "riff": 1, "lead": 0.7, "funk": 0.5}, {"syncopated": 3, "blocks": 2, "comping": 1}, {"pumping": 4, "stabs": 1.5, "tune": 2, "sustained": 1}, {27: 4, 26: 1, 28: 1.5, 25: 0.5}, {33: 4, 34: 1, 35: 1, 38: 1}, {0: 4, 8: 2}, swing=0.3, waltz=0.0, compound=0.0, static=0.5, energy=0.5),
    "shuffle": Style((86, 140), "shuffle", {"walking": 3, "eighths": 2, "riff": 1.5, "kick": 1}, {"power": 2, "riff": 2, "comping": 1.5, "strum": 1, "lead": 3}, {"blocks": 2, "comping": 2, "syncopated": 1.5, "stride": 1}, {"tune": 3, "pumping": 2, "stabs": 2, "pad": 0.7}, {27: 2, 26: 2, 29: 3, 30: 0.7, 25: 1}, {33: 4, 34: 1, 32: 1}, {0: 4, 8: 2, 16: 1}, swing=1.0, waltz=0.0, compound=0.04, richness=0.5, static=0.2),
    "halftime": Style((70, 100), "halftime", {"long": 2, "kick": 3, "syncopated": 2, "riff": 1}, {"picked": 2, "held": 2, "power": 2, "lead": 1.5, "riff": 1}, {"blocks": 3, "arpeggios": 2, "melody": 2, "syncopated": 1}, {"pad": 4, "figure": 2, "tune": 2, "sustained": 2}, {27: 3, 29: 2, 30: 1.5, 25: 1, 28: 1}, {38: 2, 39: 2, 33: 3, 34: 1}, {0: 2, 16: 2, 24: 2, 25: 3}, energy=0.6),
    "hip hop": Style((76, 104), "hiphop", {"syncopated": 4, "kick": 2, "long": 2, "riff": 1}, {"funk": 1, "picked": 3, "comping": 1.5, "riff": 1.5, "held": 1}, {"syncopated": 2, "blocks": 2, "comping": 2, "arpeggios": 1, "melody": 1}, {"figure": 2, "pad": 3, "tune": 2, "stabs": 1, "counter": 1, "sustained": 1}, {27: 2, 26: 2, 24: 2, 25: 1, 28: 1}, {33: 2, 38: 3, 39: 3, 32: 1, 35: 1}, {25: 4, 24: 2, 0: 2, 8: 1}, swing=0.35, waltz=0.0, compound=0.02, richness=0.6, static=0.5, energy=0.55),
    "metal": Style((100, 180), "metal", {"eighths": 3, "kick": 4, "riff": 3}, {"power": 6, "riff": 4, "lead": 1.5, "held": 0.5}, {"arpeggios": 2, "blocks": 2, "melody": 2}, {"pad": 3, "sustained": 2, "tune": 2, "figure": 1, "run": 0.5}, {30: 6, 29: 2}, {34: 4, 33: 2}, {16: 4, 0: 2, 8: 1}, waltz=0.02, compound=0.05, richness=0.05, static=0.3, energy=0.9),
    "folk": Style((80, 140), "train", {"root-fifth": 5, "long": 1.5, "walking": 1, "arpeggio": 0.7}, {"picked": 4, "strum": 5, "riff": 0.6}, {"blocks": 2, "stride": 1.5, "melody": 2, "alberti": 1}, {"tune": 4, "sustained": 2, "counter": 2, "pad": 1}, {25: 6, 24: 3, 26: 0.3}, {32: 4, 33: 2, 35: 1}, {0: 3, 40: 2, 32: 2}, waltz=0.2, compound=0.14, richness=0.15, energy=0.5),
    "jazz": Style((90, 180), "jazz", {"walking": 6, "root-fifth": 1, "long": 0.7}, {"comping": 4, "lead": 3, "held": 0.5}, {"comping": 5, "stride": 1.5, "melody": 2, "blocks": 1}, {"tune": 5, "counter": 1.5, "stabs": 1.5, "pad": 0.5}, {26: 7, 24: 1, 27: 0.7}, {32: 6, 35: 2, 33: 1}, {32: 4, 40: 3, 0: 1.5}, swing=0.85, waltz=0.12, compound=0.0, richness=0.95, static=0.1, energy=0.45),
    "cinematic": Style((64, 120), "march", {"long": 4, "eighths": 1.5, "arpeggio": 1}, {"picked": 3, "held": 2, "lead": 1}, {"arpeggios": 4, "melody": 3, "alberti": 1.5, "blocks": 2}, {"pad": 3, "run": 2, "stabs": 2, "tune": 2.5, "sustained": 2, "figure": 1.5}, {24: 3, 25: 3, 27: 1, 29: 0.6}, {32: 3, 33: 2, 38: 1.5, 35: 1}, {0: 3, 8: 2, 16: 2}, waltz=0.16, compound=0.16, richness=0.3, energy=0.55),
}  # fmt: skip

#: electric pianos are common where these styles ask for them
PIANOS: dict[str, dict[int, float]] = {
    "funk": {4: 5.0, 5: 2.0, 0: 2.0, 1: 1.0, 7: 2.0},
    "hip hop": {4: 4.0, 5: 2.0, 0: 3.0, 1: 1.0},
    "reggae": {0: 3.0, 4: 2.0, 1: 1.0, 5: 1.0},
    "jazz": {0: 6.0, 1: 2.0, 4: 2.0, 2: 0.5},
    "house": {1: 3.0, 0: 2.0, 2: 3.0, 5: 2.0, 4: 1.0},
}


def pianos(style: str) -> dict[int, float]:
    """Weights of the keyboards (General MIDI 0-7) for a style."""
    return PIANOS.get(style, _PIANOS)
