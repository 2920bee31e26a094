"""Figures as pictures: one file a metric, systems in colour, stems across, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stemwise.evaluate.figures import ALL, figures
from stemwise.evaluate.metrics import metric
from stemwise.evaluate.results import Results


def plot(folder: Path, runs: Sequence[Results]) -> list[Path]:
    """Write `folder`/METRIC.png for every metric. Needs matplotlib (the extra `eval`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tables = [figures(run, run.finished()) for run in runs]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in runs[0].protocol.metrics:
        stems = list(dict.fromkeys(stem for table in tables for key, stem in table if key == name))
        stems = [stem for stem in stems if stem != ALL] + [ALL] * (ALL in stems)
        if not stems:
            continue
        picture = Figure(figsize=(max(4.0, 1.2 + 0.28 * len(stems) * (len(runs) + 1)), 3.6), layout="constrained")
        FigureCanvasAgg(picture)
        axes = picture.add_subplot()
        for place, (run, table) in enumerate(zip(runs, tables)):
            shown = [(i, table[name, stem].interval()) for i, stem in enumerate(stems) if (name, stem) in table]
            offset = (place - (len(runs) - 1) / 2) * 0.7 / len(runs)
            means = [interval.mean for _, interval in shown]
            below = [interval.mean - interval.low for _, interval in shown]
            above = [interval.high - interval.mean for _, interval in shown]
            axes.errorbar(
                [i + offset for i, _ in shown], means, yerr=[below, above], fmt="o", capsize=3, label=run.label
            )
        axes.set_xticks(range(len(stems)), stems, rotation=30 if len(stems) > 4 else 0)
        axes.set_ylabel(f"{name} ({metric(name).unit})")
        axes.set_title(f"{metric(name).better} is better; 95 % intervals", fontsize="small")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize="small")
        file = folder / f"{name.replace(':', '-')}.png"
        picture.savefig(file, dpi=120)
        files.append(file)
    return files
