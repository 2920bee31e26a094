"""What a data set sounds like in numbers and in one picture: lengths, how much each stem plays, and how loud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemwise.errors import SongError
from stemwise.files import atomic_file
from stemwise.songs.layouts import scan_any
from stemwise.songs.scanning import Problem, describe, whole
from stemwise.songs.song import Song
from stemwise.songs.verification import Progress, for_each

#: Windows read from a song, evenly spaced: a seek each, so that thousands of songs take minutes.
WINDOWS = 16
#: A stem sounds in a window where its level is above this: the floor below which training windows count as silent.
FLOOR_DB = -60.0
PICTURES = (".png", ".svg", ".pdf")
#: Stems shown in the picture, the most common first.
_SHOWN = 20


@dataclass(frozen=True)
class StemStatistics:
    """One stem over the songs that have it.

    `activity`: the share of a song's windows in which it sounds, in [0, 1]; `level`: its RMS in those windows, dB full
    scale, NaN where it never sounds. One value for each song.
    """

    activity: np.ndarray
    level: np.ndarray


@dataclass(frozen=True)
class Statistics:
    """What `measure` found: `seconds` of every song, statistics by stem (most common first), what could not be read."""

    path: str
    layout: str
    seconds: np.ndarray
    stems: Mapping[str, StemStatistics]
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: medians and quartiles."""
        stems = {
            name: {
                "songs": len(stem.activity),
                "activity": _quartiles(stem.activity),
                "level_db": _quartiles(stem.level),
            }
            for name, stem in self.stems.items()
        }
        return {
            "path": self.path,
            "layout": self.layout,
            "songs": len(self.seconds),
            "hours": round(float(self.seconds.sum()) / 3600, 4),
            "seconds": _quartiles(self.seconds),
            "stems": stems,
            "unreadable": [{"song": problem.name, "reason": problem.reason} for problem in self.problems],
        }


def measure(path: Path | str, progress: Progress | None = None) -> Statistics:
    """Read 16 windows of a second from every song of a data set. Raises SongError where no song has stems to measure."""
    scanned = whole(scan_any(path))
    songs = [song for song in scanned.songs if song.stems]
    if not songs:
        kind = "its songs are MIDI files" if scanned.midi else "its songs have no stems"
        why = kind if scanned.midi or scanned.songs else describe(path, scanned.problems)
        raise SongError(f"{path}: nothing to measure. {why}")
    found = for_each(songs, _measured, progress)
    problems = tuple(Problem(song.name, one) for song, one in zip(songs, found) if isinstance(one, str))
    values: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        for name, value in one.items() if not isinstance(one, str) else ():
            values.setdefault(name, []).append(value)
    stems = {
        name: StemStatistics(*np.array(values[name]).T) for name in sorted(values, key=lambda n: (-len(values[n]), n))
    }
    seconds = np.array([song.seconds for song in songs])
    return Statistics(str(path), scanned.layout, seconds, stems, (*scanned.problems, *problems))


def check_picture(picture: Path) -> None:
    """Raises SongError for a name that is no picture's, ModuleNotFoundError without matplotlib: before hours of reading."""
    import matplotlib  # noqa: F401

    if picture.suffix.lower() not in PICTURES:
        raise SongError(
            f"{picture}: is no picture that can be written; choose a name that ends in {', '.join(PICTURES)}"
        )


def draw(statistics: Statistics, picture: Path) -> None:
    """Draw durations, activity and loudness of the stems, in the format of the file's ending.

    The file appears only when it is complete. Raises what `check_picture` does, and SongError where it cannot be written.
    """
    check_picture(picture)
    from matplotlib.figure import Figure

    names = list(statistics.stems)[:_SHOWN]
    figure = Figure(figsize=(12, 2.6 + 0.28 * len(names)), layout="constrained")
    durations, activity, level = figure.subplots(1, 3)
    minutes = statistics.seconds / 60
    durations.hist(minutes, bins=30, range=(0, float(minutes.max())), color="0.4")
    durations.set(xlabel="minutes", ylabel="songs", title=f"{len(minutes)} songs, {minutes.sum() / 60:.2f} h")
    shown = [statistics.stems[name] for name in names]
    labels = [f"{name} ({len(stem.activity)})" for name, stem in zip(names, shown)]
    activity.boxplot(
        [stem.activity * 100 for stem in shown], orientation="horizontal", tick_labels=labels, whis=(5, 95)
    )
    activity.set(xlabel="% of the song", title="how much a stem plays", xlim=(-2, 102))
    heard = [stem.level[np.isfinite(stem.level)] for stem in shown]
    level.boxplot(heard, orientation="horizontal", tick_labels=[""] * len(names), whis=(5, 95))
    level.set(xlabel="RMS where it plays, dB full scale", title="how loud a stem is")
    for axes in (activity, level):
        axes.invert_yaxis()
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(picture) as handle:
            figure.savefig(handle, dpi=120, format=picture.suffix[1:])
    except OSError as error:
        raise SongError(f"{picture}: cannot be written here ({error}); choose another place") from error


def _measured(song: Song) -> dict[str, tuple[float, float]] | str:
    """Activity and level by stem, or why the song cannot be read."""
    names, frames = tuple(song.stems), min(song.rate, song.frames)
    starts = np.linspace(0, song.frames - frames, min(WINDOWS, max(1, song.frames // frames))).astype(int)
    try:
        power = np.stack([np.square(song.read(int(start), frames, names)).mean(axis=(1, 2)) for start in starts])
    except SongError as error:
        return str(error)
    sounds = power > 10.0 ** (FLOOR_DB / 10.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = 10.0 * np.log10((power * sounds).sum(axis=0) / sounds.sum(axis=0))
    return {name: (float(sounds[:, k].mean()), float(level[k])) for k, name in enumerate(names)}


def _quartiles(values: np.ndarray) -> list[float] | None:
    """First quartile, median and third, of the finite values; None where there are none."""
    finite = values[np.isfinite(values)]
    return [round(float(q), 4) for q in np.quantile(finite, (0.25, 0.5, 0.75))] if len(finite) else None
