"""A picture of notes: pitch over time, a colour for each instrument."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from stemwise.symbolic.midi import Music
from stemwise.symbolic.notes import Notes

#: Of instruments in order, a colour-blind safe palette.
COLOURS = ("#4477aa", "#228833", "#ee6677", "#ccbb44", "#888888", "#aa3377", "#66ccee", "#000000")


def draw(music: Music, parts: Mapping[str, Notes], file: Path, title: str = "") -> None:
    """Write a piano roll of the parts as a picture; drums lie at their keys.

    Raises ModuleNotFoundError without matplotlib (`pip install 'stemwise[eval]'`).
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    ends = (float(music.seconds((n["onset"] + n["duration"]).max())) for n in parts.values() if len(n))
    end = max(0.1, max(ends, default=1.0))
    figure = Figure(figsize=(min(40.0, max(8.0, end / 10)), 4.5), layout="constrained")
    axes = figure.add_subplot()
    handles = []
    for colour, (name, notes) in zip(itertools.cycle(COLOURS), parts.items()):
        start, stop = music.seconds(notes["onset"]), music.seconds(notes["onset"] + notes["duration"])
        bars = [((a, p), (max(b, a + 0.02), p)) for a, b, p in zip(start, stop, notes["pitch"])]
        axes.add_collection(LineCollection(bars, colors=colour, linewidths=2.0))
        handles.append(Line2D([], [], color=colour, linewidth=4, label=f"{name} ({len(notes)})"))
    every = [int(p) for notes in parts.values() for p in notes["pitch"]] or [60]
    axes.set(xlim=(0, end), ylim=(min(every) - 2, max(every) + 2), xlabel="seconds", ylabel="MIDI pitch")
    axes.set_title(title, parse_math=False)  # a dollar is a dollar
    axes.grid(alpha=0.25)
    legend = axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for entry in legend.get_texts():
        entry.set_parse_math(False)
    figure.savefig(file, dpi=110)
