"""Two systems on the same questions: differences of their figures, paired over the songs that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemwise.errors import EvaluationError
from stemwise.evaluate.figures import figures
from stemwise.evaluate.results import Results, read_results
from stemwise.metrics.statistics import Comparison, Interval, paired
from stemwise.runs import differences


@dataclass(frozen=True)
class Pair:
    """One figure of both systems, and their difference a - b."""

    metric: str
    stem: str
    a: Interval
    b: Interval
    difference: Comparison


@dataclass(frozen=True)
class Compared:
    """Two evaluations side by side.

    Attributes:
        a, b: the systems' names.
        songs: the songs that both have figures for; only these count.
        missing: by system, the songs that only the other one has.
        pairs: every figure that both have.
    """

    a: str
    b: str
    songs: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]
    pairs: tuple[Pair, ...]


def compare(first: Path | str, second: Path | str) -> Compared:
    """Compare two results folders. Raises EvaluationError where their protocols or songs are not the same."""
    a, b = read_results(Path(first)), read_results(Path(second))
    other = [
        place for key in ("protocol", "instruments") for place in differences(a.settings[key], b.settings[key], key)
    ]
    if other:
        raise EvaluationError(
            f"{first} and {second} were not evaluated alike: {'; '.join(other)}. Evaluate both with one protocol"
        )
    return paired_figures(a, b)


def paired_figures(a: Results, b: Results, metrics: Sequence[str] | None = None) -> Compared:
    """As `compare`, of open results of one protocol, of all its metrics or some."""
    in_a, in_b = a.finished(), b.finished()
    common = tuple(name for name in in_a if name in set(in_b))
    unlike = [name for name in common if a.settings["songs"][name] != b.settings["songs"][name]]
    if unlike:
        raise EvaluationError(
            f"{len(unlike)} song(s) of one name differ in length, rate or stems: {', '.join(unlike[:5])}. "
            "Evaluate both on one data set"
        )
    if not common:
        raise EvaluationError(f"{a.folder} and {b.folder} have no finished song in common")
    ours, theirs = figures(a, common, metrics), figures(b, common, metrics)
    pairs = [
        Pair(*key, one.interval(), theirs[key].interval(), paired(one.influences, theirs[key].influences))
        for key, one in ours.items()
        if key in theirs
    ]
    missing = {
        a.label: tuple(name for name in in_b if name not in set(in_a)),
        b.label: tuple(name for name in in_a if name not in set(in_b)),
    }
    return Compared(a.label, b.label, common, missing, tuple(pairs))
