"""What people and scripts read: `results.csv` (one row a figure) and `report.md`, which states its own definitions."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stemwise import __version__
from stemwise.errors import EvaluationError
from stemwise.evaluate.compare import ends, spread
from stemwise.evaluate.figures import ALL, Figure, Table, figures
from stemwise.evaluate.metrics import metric
from stemwise.evaluate.relations import Finding
from stemwise.evaluate.results import SETTINGS, Results, read_results
from stemwise.files import write_atomically

COLUMNS = ("system", "song", "start", "seconds", "given", "wanted", "stem", "metric", "value", "note")
_WIDEST = 8
Tables = Mapping[str, Table]
"""Figures by the system's name."""


def tables_of(runs: Sequence[Results]) -> dict[str, Table]:
    """The figures of every system over its finished songs."""
    return {run.label: figures(run, run.finished()) for run in runs}


def write_report(
    folder: Path | str, runs: Sequence[Results], tables: Tables | None = None, findings: Sequence[Finding] = ()
) -> str:
    """Write `results.csv` and `report.md` over the finished songs of all systems; returns the text of the report.

    Raises EvaluationError where it cannot be written.
    """
    folder = Path(folder)
    tables = tables_of(runs) if tables is None else tables
    text = report(runs, tables, findings)
    try:
        write_atomically(folder / "results.csv", _rows(runs, tables).encode(errors="backslashreplace"))
        write_atomically(folder / "report.md", text.encode(errors="backslashreplace"))
    except OSError as error:
        raise EvaluationError(
            f"{folder}: the report cannot be written ({error.strerror or error}); make room, run again"
        ) from error
    return text


def report(runs: Sequence[Results], tables: Tables, findings: Sequence[Finding] = ()) -> str:
    """The report as Markdown: tables first, then all that the figures depend on."""
    lines = ["# Evaluation", "", *_summary(runs, tables), *_details(runs, tables)]
    if findings:
        lines += ["## Published relations", "", *_relations(findings)]
    lines += ["## Definitions", "", *_definitions(runs, tables), "## Songs", "", *_songs(runs)]
    return "\n".join(lines).rstrip() + "\n"


def document(runs: Sequence[Results], tables: Tables, findings: Sequence[Finding] = ()) -> dict[str, Any]:
    """The figures as plain values, for `--json`."""
    return {
        "format": 1,
        "verb": "evaluate",
        "stemwise": __version__,
        "protocol": dict(runs[0].settings["protocol"]),
        "systems": [
            {
                "label": run.label,
                "system": dict(run.settings["system"]),
                "folder": str(run.folder),
                "songs": {"asked": len(run.songs), "finished": len(run.finished()), "failed": run.failures()},
                "figures": [_plain(figure) for figure in tables[run.label].values()],
            }
            for run in runs
        ],
        "relations": [finding.plain() for finding in findings],
    }


def others(folder: Path, runs: Sequence[Results]) -> tuple[list[Results], list[str]]:
    """Systems that were evaluated into the same folder before: by the same protocol on the same songs, and the names of those
    that were not.
    """
    labels = {run.label for run in runs}
    found = []
    for entry in sorted(folder.iterdir()):
        if (entry / SETTINGS).is_file():
            with contextlib.suppress(EvaluationError):  # of another version, or damaged: no reason to lose this report
                found.append(read_results(entry))
    keys = ("protocol", "instruments", "songs", "files")
    found = [run for run in found if run.label not in labels]
    alike = [run for run in found if all(run.settings[key] == runs[0].settings[key] for key in keys)]
    return alike, [run.label for run in found if run not in alike]


def _summary(runs: Sequence[Results], tables: Tables) -> list[str]:
    names = runs[0].protocol.metrics
    arrows = {name: "↑" if metric(name).better == "higher" else "↓" for name in names}
    lines = [
        "Mean with 95 % interval; ↑ more is better, ↓ less is better.",
        "",
        "| system | songs | " + " | ".join(f"{name} {arrows[name]}" for name in names) + " |",
        "|---|--:|" + "--:|" * len(names),
    ]
    for run in runs:
        cells = [_cell(_overall(tables[run.label], name)) for name in names]
        lines.append(f"| {run.label} | {len(run.finished())} of {len(run.songs)} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _details(runs: Sequence[Results], tables: Tables) -> list[str]:
    """A table for each metric that is given by stem (or by set of stems): systems down, stems across."""
    lines: list[str] = []
    for name in runs[0].protocol.metrics:
        stems = list(dict.fromkeys(stem for run in runs for key, stem in tables[run.label] if key == name))
        stems = [stem for stem in stems if stem != ALL] + [ALL] * (ALL in stems)
        if len(stems) < 2:
            continue
        shape, unit = metric(name), metric(name).unit
        lines += [f"## {name} ({unit}, {shape.better} is better)", ""]
        if len(stems) > _WIDEST:  # sets down, systems across
            lines += ["| | " + " | ".join(run.label for run in runs) + " |", "|---|" + "--:|" * len(runs)]
            lines += [
                f"| {stem} | " + " | ".join(_cell(tables[run.label].get((name, stem))) for run in runs) + " |"
                for stem in stems
            ]
        else:
            lines += ["| system | " + " | ".join(stems) + " |", "|---|" + "--:|" * len(stems)]
            for run in runs:
                cells = [_cell(tables[run.label].get((name, stem))) for stem in stems]
                lines.append(f"| {run.label} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _relations(findings: Sequence[Finding]) -> list[str]:
    lines = ["| relation | metric | difference | verdict |", "|---|---|--:|---|"]
    for finding in findings:
        difference = "" if finding.difference is None else spread(finding.difference.difference)
        lines.append(f"| {finding.text} | {finding.metric} | {difference} | {finding.verdict} |")
    return [*lines, ""]


def _definitions(runs: Sequence[Results], tables: Tables) -> list[str]:
    asked = runs[0].protocol
    lines = [f"- {name} ({metric(name).unit}): {metric(name).definition}." for name in asked.metrics]
    if asked.pool == "songs":
        pooled = "mean over songs of each song's mean"
    else:
        pooled = "mean over all windows of all songs"
    lines += [
        f"- A figure is the {pooled}; `{ALL}` is the mean over the stems' figures. Distances between sets pool all songs.",
        "- Intervals: 95 % percentile bootstrap over songs (10 000 draws, seed 0); for distances, of the jackknife's "
        f"pseudo-values over songs. A figure of one song has none; `{ALL}` is no surer than the stem that fewest songs have.",
        f"- Task: {asked.task}. Judged stems: {', '.join(asked.stems)}. Below {asked.floor_db:g} dB (RMS over the chunk, "
        "full scale) a stem counts as silent.",
        f"- {_cutting(runs[0])}",
    ]
    if asked.task == "separate":
        of = "all stems of the song" if asked.mixture == "song" else "the judged stems"
        lines.append(f"- What is separated is the sum of {of}.")
    if asked.task == "accompany":
        lines.append(f"- Heard: {asked.given}, of the stems above the floor; made: the others of them.")
    lines.append(f"- Seed of chunks, sets and systems: {asked.seed}. stemwise {runs[0].settings['stemwise']}.")
    lines += [f"- Encoder of {name}: {version}." for name, version in runs[0].settings["instruments"].items()]
    for run in runs:
        facts = ", ".join(f"{key} {value}" for key, value in run.settings["system"].items())
        lines.append(f"- {run.label}: {facts}; N: {_counts(tables[run.label])}.")
    return [*lines, ""]


def _cutting(run: Results) -> str:
    asked = run.protocol
    shape = f"{f'{asked.rate} Hz' if asked.rate else 'their own rate'}, {asked.channels or 'all'} channel(s)"
    if asked.chunks is None:
        return f"Songs are taken whole, at {shape}."
    length = f"{asked.chunks.seconds:g} s" if asked.chunks.seconds else f"{asked.chunks.frames} samples"
    if asked.chunks.per_song is None:
        end = ", measured end to end" if asked.chunks.joined else ""
        return f"Songs are cut into consecutive chunks of {length} at {shape}, the incomplete end dropped{end}."
    return (
        f"{asked.chunks.per_song} chunk(s) of {length} a song, at random places with at least {asked.chunks.min_active} "
        f"stems above the floor, at {shape}."
    )


def _counts(table: Table) -> str:
    names = dict.fromkeys(name for name, _ in table)
    found = {name: _overall(table, name) for name in names}
    return "; ".join(
        f"{name} {figure.windows} {'frames' if metric(name).embedding else 'values'}"
        + (f" ({figure.without} without a value)" if figure.without else "")
        for name, figure in found.items()
        if figure is not None
    )


def _songs(runs: Sequence[Results]) -> list[str]:
    lines = []
    for run in runs:
        finished, failed = len(run.finished()), run.failures()
        waiting = len([name for name in run.songs if run.read(name) is None])
        total = len(run.songs) + len(run.settings["unreadable"])
        lines.append(
            f"- {run.label}: {finished} of {total} songs" + (f", {waiting} still to do" if waiting else "") + "."
        )
        lines += [f"  - {name}: {reason}" for name, reason in failed.items()]
    return lines


def _overall(table: Table, name: str) -> Figure | None:
    if (name, ALL) in table:
        return table[name, ALL]
    return next((figure for (metric_name, _), figure in table.items() if metric_name == name), None)


def _cell(figure: Figure | None) -> str:
    return "–" if figure is None else spread(figure.interval())


def _plain(figure: Figure) -> dict[str, Any]:
    interval = figure.interval()
    return {
        "metric": figure.metric,
        "stem": figure.stem,
        "mean": interval.mean,
        **ends(interval),
        "level": interval.level,
        "songs": figure.songs,
        "windows": figure.windows,
        "without_value": figure.without,
    }


def _rows(runs: Sequence[Results], tables: Tables) -> str:
    """The tidy table of all rows, and one line a figure for distances, which no single song has."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        for song in run.finished():
            kept = run.read(song)
            for row in kept.rows if kept is not None else ():
                value = "" if row.value is None else f"{row.value:.6g}"
                writer.writerow(
                    [run.label, song, f"{row.start:.4f}", f"{row.seconds:.4f}", row.given, row.wanted, row.stem,
                     row.metric, value, row.note]
                )  # fmt: skip
        distances = [figure for (name, _), figure in tables[run.label].items() if metric(name).embedding]
        blank = [""] * 5  # no song, no place in one
        writer.writerows(
            [run.label, *blank, figure.stem, figure.metric, f"{figure.interval().mean:.6g}", "over all songs"]
            for figure in distances
        )
    return text.getvalue()
