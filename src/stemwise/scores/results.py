"""What a score is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stemwise.coherence.cocola import PartName
from stemwise.metrics.statistics import Interval

COPY = 0.5
"""From this correlation on, a quarter of the energy, a signal may be a copy. Stems rendered one by one stay below 0.1."""


@dataclass(frozen=True)
class Score:
    """How well one signal fits to another.

    Scores are unbounded logits of one encoder: compare them under the same encoder only. `probability` is between 0 and
    1 and can be read by itself: how surely the encoder, given the context, prefers the signal in place over the same
    signal from elsewhere in the song; 0.5 is a guess. None where the song is too short for that (under 10 s).

    Intervals are 95 % percentile bootstraps (seed 0, 10 000 draws) over stretches of 5 s, within which the windows that
    overlap are averaged first; they say how much the score varies within this song. With one stretch they have no width.

    Attributes:
        coherence: of the whole sound.
        harmonic, percussive: of that part of the sound alone; None where the encoder cannot tell them apart.
        probability: see above.
        correlation: of the two waves, from -1 to 1, where both are above -60 dBFS. Its square is the share of one that is a copy of
            the other: bleeding, or an echo (below 0 upside down), which encoders take for the best of company.
        coverage: the share of the windows in which both sides are above -60 dBFS; the others are left out.
        seconds: length of the song.
        starts: of the windows that were scored, in seconds.
        curves: the score of each of them, by "both", "harmonic" and "percussive".
    """

    coherence: Interval
    harmonic: Interval | None
    percussive: Interval | None
    probability: Interval | None
    correlation: float
    coverage: float
    seconds: float
    starts: tuple[float, ...]
    curves: Mapping[PartName, tuple[float, ...]]

    @property
    def may_copy(self) -> bool:
        """Whether it may fit because it is, in part, the same signal."""
        return abs(self.correlation) >= COPY

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        intervals = {name: _plain(getattr(self, name)) for name in ("coherence", "harmonic", "percussive")}
        return {
            **intervals,
            "probability": _plain(self.probability),
            "correlation": round(self.correlation, 4),
            "coverage": round(self.coverage, 4),
            "seconds": round(self.seconds, 3),
            "starts": [round(start, 4) for start in self.starts],
            "curves": {part: [round(value, 4) for value in values] for part, values in self.curves.items()},
        }


@dataclass(frozen=True)
class StemScores:
    """How the stems of a song fit together. None stands for two sides that are never audible together.

    Attributes:
        stems: each stem against the sum of the others.
        pairs: (context, made) -> each stem against each other one.
        seconds: length of the song.
    """

    stems: Mapping[str, Score | None]
    pairs: Mapping[tuple[str, str], Interval | None]
    seconds: float

    @property
    def coherence(self) -> float | None:
        """Mean over the stems of their scores against the sum of the others; None if there are none."""
        scores = [entry.coherence.mean for entry in self.stems.values() if entry is not None]
        return sum(scores) / len(scores) if scores else None

    @property
    def odd_one(self) -> str | None:
        """The stem that fits least; None with fewer than three that have a score."""
        found = {name: entry.coherence.mean for name, entry in self.stems.items() if entry is not None}
        return min(found, key=lambda name: found[name]) if len(found) > 2 else None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seconds": round(self.seconds, 3),
            "coherence": None if self.coherence is None else round(self.coherence, 4),
            "odd_one": self.odd_one,
            "stems": {name: None if entry is None else entry.plain() for name, entry in self.stems.items()},
            "pairs": [
                {"context": context, "made": made, "coherence": _plain(entry)}
                for (context, made), entry in self.pairs.items()
            ],
        }


@dataclass(frozen=True)
class Move:
    """A stem moved by `seconds` (positive is later) and transposed by `semitones`.

    `gain` is by how much the score is above that of the stem as it is, paired by windows. Its bootstrap
    interval is that of Bonferroni's level for 95 % over all moves; but few windows have few means, and what it says of
    them is that nearly all of them gain, not how often that happens by chance.
    """

    seconds: float
    semitones: float
    score: float
    gain: Interval


@dataclass(frozen=True)
class Offset:
    """What a search found: all moves, best first; `as_is` is the stem unmoved, among them."""

    moves: tuple[Move, ...]
    windows: int

    @property
    def best(self) -> Move:
        """The move with the highest score, if it is surely better than none: its gain's interval is above 0."""
        return self.moves[0] if self.moves[0].gain.low > 0 else self.as_is

    @property
    def as_is(self) -> Move:
        """The stem unmoved."""
        return next(move for move in self.moves if move.seconds == 0 and move.semitones == 0)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {"seconds": m.seconds, "semitones": m.semitones, "score": round(m.score, 4), "gain": _plain(m.gain)}
            for m in self.moves
        ]
        return {"windows": self.windows, "best": rows[self.moves.index(self.best)], "moves": rows}


def _plain(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {"mean": round(interval.mean, 4), "low": round(interval.low, 4), "high": round(interval.high, 4),
            "stretches": interval.count}  # fmt: skip
