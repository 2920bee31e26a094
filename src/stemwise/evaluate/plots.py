"""Figures as pictures: one file a metric, systems in colour, stems across, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from stemwise.evaluate.figures import ALL, Table
from stemwise.evaluate.metrics import metric
from stemwise.files import atomic_file


def plot(folder: Path, metrics: Sequence[str], tables: Mapping[str, Table]) -> list[Path]:
    """Write `folder`/METRIC.png for every metric; `tables` by system. Needs matplotlib (the extra `eval`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in metrics:
        stems = list(dict.fromkeys(stem for table in tables.values() for key, stem in table if key == name))
        stems = [stem for stem in stems if stem != ALL] + [ALL] * (ALL in stems)
        if not stems:
            continue
        picture = Figure(figsize=(max(4.0, 1.2 + 0.28 * len(stems) * (len(tables) + 1)), 3.6), layout="constrained")
        FigureCanvasAgg(picture)
        axes = picture.add_subplot()
        for place, (label, table) in enumerate(tables.items()):
            shown = [(i, table[name, stem].interval()) for i, stem in enumerate(stems) if (name, stem) in table]
            offset = (place - (len(tables) - 1) / 2) * 0.7 / len(tables)
            means = [interval.mean for _, interval in shown]
            known = [interval if interval.count > 1 else None for _, interval in shown]
            below = [math.nan if one is None else one.mean - one.low for one in known]
            above = [math.nan if one is None else one.high - one.mean for one in known]
            axes.errorbar([i + offset for i, _ in shown], means, yerr=[below, above], fmt="o", capsize=3, label=label)
        axes.set_xticks(range(len(stems)), stems, rotation=30 if len(stems) > 4 else 0)
        axes.set_ylabel(f"{name} ({metric(name).unit})")
        axes.set_title(f"{metric(name).better} is better; 95 % intervals", fontsize="small")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize="small")
        file = folder / f"{name.replace(':', '-')}.png"
        with atomic_file(file) as handle:
            picture.savefig(handle, dpi=120, format="png")
        files.append(file)
    return files
