"""Two systems on the same questions: differences of their figures, paired over the songs that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemwise.errors import EvaluationError
from stemwise.evaluate.figures import Figure, figures
from stemwise.evaluate.metrics import metric
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
        a, b: the systems' names; their folders, where the names are the same.
        songs: the songs that both have figures for; only these count.
        missing: by system, the songs that only the other one has.
        pairs: every figure that both have.
        other_files: those of `songs` that were read from other files: other copies, or other songs of their length.
    """

    a: str
    b: str
    songs: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]
    pairs: tuple[Pair, ...]
    other_files: tuple[str, ...] = ()


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
    in_a, in_b = dict.fromkeys(a.finished()), dict.fromkeys(b.finished())
    common = tuple(name for name in in_a if name in in_b)
    unlike = [name for name in common if a.settings["songs"][name] != b.settings["songs"][name]]
    if unlike:
        raise EvaluationError(
            f"{len(unlike)} song(s) of one name differ in length, rate or stems: {', '.join(unlike[:5])}. "
            "Evaluate both on one data set"
        )
    if not common:
        raise EvaluationError(f"{a.folder} and {b.folder} have no finished song in common")
    ours, theirs = figures(a, common, metrics, beside=b), figures(b, common, metrics, beside=a)
    pairs = [_pair(one, theirs[key]) for key, one in ours.items() if key in theirs]
    labels = (a.label, b.label) if a.label != b.label else (str(a.folder), str(b.folder))
    missing = (tuple(name for name in in_b if name not in in_a), tuple(name for name in in_a if name not in in_b))
    other_files = tuple(name for name in common if a.settings["files"][name] != b.settings["files"][name])
    return Compared(*labels, common, dict(zip(labels, missing)), tuple(pairs), other_files)


def _pair(one: Figure, other: Figure) -> Pair:
    difference = paired(one.influences, other.influences, songs=min(one.basis, other.basis))
    return Pair(one.metric, one.stem, one.interval(), other.interval(), difference)


def comparison(compared: Compared) -> str:
    """Two systems side by side, as Markdown."""
    lines = [
        f"{compared.a} against {compared.b}, over the {len(compared.songs)} songs that both have. Differences are "
        f"{compared.a} - {compared.b}, paired by song, with 95 % bootstrap intervals (10 000 draws, seed 0). Values that only "
        "one of them has are left out.",
        "",
    ]
    for label, names in compared.missing.items():
        if names:
            lines += [f"Left out, {label} has no figures for {len(names)} song(s): {_few(names)}", ""]
    if compared.other_files:
        said = f"{len(compared.other_files)} song(s): {_few(compared.other_files)}"
        lines += [f"Read from other files, other copies or other songs, {said}", ""]
    lines += [
        f"| metric | stem | {compared.a} | {compared.b} | difference | p | better |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for pair in compared.pairs:
        lines.append(
            f"| {pair.metric} | {pair.stem} | {number(pair.a.mean)} | {number(pair.b.mean)} | "
            f"{spread(pair.difference.difference)} | {pair.difference.p_value:.2g} | {_better(compared, pair) or 'undecided'} |"
        )
    return "\n".join(lines) + "\n"


def _better(compared: Compared, pair: Pair) -> str | None:
    """Which of two systems a figure is better for; None where the songs do not decide it."""
    if not pair.difference.sure:
        return None
    upward = metric(pair.metric).better == "higher"
    return compared.a if (pair.difference.difference.low > 0) == upward else compared.b


def plain_comparison(compared: Compared) -> dict[str, Any]:
    """A comparison as plain values, for `--json`."""
    return {
        "a": compared.a,
        "b": compared.b,
        "songs": list(compared.songs),
        "missing": {label: list(names) for label, names in compared.missing.items()},
        "other_files": list(compared.other_files),
        "figures": [
            {
                "metric": pair.metric,
                "stem": pair.stem,
                "a": pair.a.mean,
                "b": pair.b.mean,
                "difference": pair.difference.difference.mean,
                **ends(pair.difference.difference),
                "p": pair.difference.p_value,
                "better": _better(compared, pair),
            }
            for pair in compared.pairs
        ],
    }


def number(value: float) -> str:
    """A figure with as many digits as it deserves."""
    if abs(value) < 1e-6:  # rounding of a zero
        return "0.00"
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}"


def spread(interval: Interval) -> str:
    """ "12.34 [11.90, 12.81]"; without the interval where one song cannot tell it."""
    between = f" [{number(interval.low)}, {number(interval.high)}]" if interval.count > 1 else ""
    return number(interval.mean) + between


def ends(interval: Interval) -> dict[str, float | None]:
    """ "low" and "high" of an interval, for JSON; None where one song cannot tell them."""
    return {name: getattr(interval, name) if interval.count > 1 else None for name in ("low", "high")}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
