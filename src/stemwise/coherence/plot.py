"""A picture of coherence over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stemwise.errors import AudioFileError
from stemwise.files import atomic_file

Line = tuple[Sequence[float], Sequence[float]]
"""Seconds where windows start, and their scores."""

SUFFIXES = (".png", ".pdf", ".svg")


def plot_over_time(lines: Mapping[str, Line], window: float, path: str | Path, title: str = "") -> None:
    """One line a stem: its score at the middle of every window of `window` seconds; gaps where it was not scored.

    The file appears only when it is complete. Raises AudioFileError for an ending that is not a picture's or a place
    that cannot be written; ModuleNotFoundError without matplotlib (`pip install 'stemwise[eval]'`).
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise AudioFileError(f"{path}: not a picture that can be written; choose a name with {', '.join(SUFFIXES)}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, (starts, values) in lines.items():
        times, heights = _with_gaps(starts, values, window)
        axes.plot([time + window / 2 for time in times], heights, marker=".", label=name)
    axes.set(xlabel="seconds", ylabel="coherence")
    axes.set_title(title, parse_math=False)  # a dollar is a dollar
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    for entry in axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False).get_texts():
        entry.set_parse_math(False)
    try:
        with atomic_file(path) as handle:
            figure.savefig(handle, dpi=120, format=path.suffix[1:])
    except OSError as error:
        raise AudioFileError(
            f"{path}: the picture cannot be written here ({error.strerror}). Choose another place."
        ) from error


def _with_gaps(starts: Sequence[float], values: Sequence[float], window: float) -> Line:
    """A value that is not a number wherever windows do not follow each other, so that the line breaks there."""
    times, heights = list(starts[:1]), list(values[:1])
    for before, start, value in zip(starts, starts[1:], values[1:]):
        if start - before > window:
            times.append((before + start) / 2)
            heights.append(float("nan"))
        times.append(start)
        heights.append(value)
    return times, heights
