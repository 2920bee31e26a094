"""What a COCOLA knows of songs that it never heard: K-way accuracy, and stems moved in time and transposed.

    python benchmarks/coherence.py --model cocola --fonts validation --songs 40

Songs are seeded (960000 and up, which no recipe trains on), 40 s, composed and rendered here; transposed stems are composed
anew with every pitched note moved, so no effect gives them away. Every 5 s window with two sounding stems gives a pair of
disjoint sub-mixes, seeded. Intervals are 95 % bootstraps over songs. Choices are made with `--fonts validation`; every run
with `--fonts test` adds a line to docs/test-font-log.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from stemwise.coherence.accuracy import embedded, found
from stemwise.coherence.cocola import PARTS, Cocola
from stemwise.loading import load_coherence
from stemwise.metrics.statistics import Interval, bootstrap
from stemwise.songs.synthetic import COMPOSER, compose
from stemwise.songs.synthetic.render import Palette, render
from stemwise.songs.synthetic.write import palette

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED, RATE, SECONDS = 960_000, 16_000, 40.0
SEMITONES = (1, 6)
BEATS = {"1/16": 1 / 16, "1/8": 1 / 8, "1/4": 1 / 4}


@dataclass(frozen=True)
class Window:
    """A pair of sub-mixes: song, first sample, length of a beat in samples, names of both sides."""

    song: int
    start: int
    beat: float
    context: tuple[str, ...]
    made: tuple[str, ...]


def rendered(folder: Path, seed: int, semitones: int, sounds: Callable[[], Palette]) -> dict[str, np.ndarray]:
    """Mono stems of a song at 16 kHz, made once."""
    file = folder / f"{seed}{semitones:+d}-composer-{COMPOSER}.npz"
    if not file.is_file():
        song = render(compose(seed, seconds=SECONDS).transposed(semitones), sounds(), rate=RATE)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file.with_suffix(".partial"), "wb") as handle:
            np.savez(handle, **{name: audio.mean(axis=0) for name, audio in song.stems.items()})
        file.with_suffix(".partial").rename(file)
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


def windows_of(song: int, stems: dict[str, np.ndarray], seed: int, length: int) -> list[Window]:
    """Windows side by side, half a beat from the ends, in which at least two stems sound above -50 dBFS."""
    draw = np.random.default_rng(seed)
    beat = 60 / compose(seed, seconds=SECONDS).tempo * RATE
    total = len(next(iter(stems.values())))
    windows = []
    for start in range(int(beat / 2), total - length - int(beat / 2), length):
        loud = [n for n, x in stems.items() if np.mean(np.square(x[start : start + length])) > 1e-5]
        if len(loud) < 2:
            continue
        order = [loud[i] for i in draw.permutation(len(loud))]
        size = int(draw.integers(1, len(loud)))
        more = int(draw.integers(1, len(loud) - size + 1))
        windows.append(Window(song, start, beat, tuple(order[:size]), tuple(order[size : size + more])))
    return windows


def cut(stems: dict[str, np.ndarray], names: tuple[str, ...], start: float, length: int) -> np.ndarray:
    first = round(start)
    return sum(stems[name][first : first + length] for name in names).astype(np.float32)


def by_song(values: np.ndarray, windows: list[Window]) -> Interval:
    """Mean and interval; windows of one song are averaged first, as they are not independent."""
    songs = np.array([window.song for window in windows])
    good = np.isfinite(values)
    return bootstrap(np.array([values[good & (songs == song)].mean() for song in np.unique(songs[good])]))


def measure(model: Cocola, songs: list[dict[int, dict[str, np.ndarray]]], seeds: range) -> dict[str, object]:
    length = model.window
    windows = [
        w for number, (song, seed) in enumerate(zip(songs, seeds)) for w in windows_of(number, song[0], seed, length)
    ]
    result: dict[str, object] = {"windows": len(windows), "songs": len(songs)}
    ids = [window.song for window in windows]

    def made(semitones: int, beats: float, which: list[Window]) -> list[np.ndarray]:
        return [cut(songs[w.song][semitones], w.made, w.start - beats * w.beat, length) for w in which]

    contexts = [cut(songs[w.song][0], w.context, w.start, length) for w in windows]
    for part in PARTS:
        own = embedded(model, contexts, part)
        scores = model.similarity(own, embedded(model, made(0, 0.0, windows), part)).numpy()
        for k, negatives in ((2, "other songs"), (2, "same song"), (64, "other songs")):
            result[f"{part}, K = {k}, {negatives}"] = by_song(found(scores, ids, k, negatives), windows)
        if part == "both":
            kept, in_place = own, torch.from_numpy(scores.diagonal().copy())
    for name, size in BEATS.items():
        moved = [model.pairwise(kept, embedded(model, made(0, sign * size, windows))) for sign in (1, -1)]
        result[f"in place minus moved by {name} beat"] = by_song((in_place - sum(moved) / 2).numpy(), windows)
    pitched = [i for i, w in enumerate(windows) if {"drums"} not in (set(w.context), set(w.made))]
    chosen = [windows[i] for i in pitched]
    for semitones in SEMITONES:
        other = model.pairwise(kept[pitched], embedded(model, made(semitones, 0.0, chosen)))
        result[f"in place minus transposed by {semitones}"] = by_song((in_place[pitched] - other).numpy(), chosen)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cocola")
    parser.add_argument("--fonts", choices=["validation", "test", "builtin"], default="validation")
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "benchmark-songs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = load_coherence(args.model, "cpu")
    log: list[str] = []
    sounds = palette(args.fonts, log=log.append)
    seeds = range(FIRST_SEED, FIRST_SEED + args.songs)
    folder = args.data / f"{args.fonts}-coherence"
    songs = [{s: rendered(folder, seed, s, lambda: sounds) for s in (0, *SEMITONES)} for seed in seeds]
    result = measure(model, songs, seeds)
    print(f"model {args.model}, {args.fonts} font, {result['songs']} songs, {result['windows']} windows of 5 s")
    for name, value in result.items():
        if isinstance(value, Interval):
            print(f"{name:42} {value.mean:8.3f}  [{value.low:.3f}, {value.high:.3f}]")
    if args.json:
        plain = {k: [v.mean, v.low, v.high] if isinstance(v, Interval) else v for k, v in result.items()}
        args.json.write_text(json.dumps({"model": args.model, "fonts": args.fonts, **plain}, indent=1) + "\n")
    if log:
        cross, same = (result[f"both, K = 2, {negatives}"].mean for negatives in ("other songs", "same song"))
        with open(ROOT / "docs" / "test-font-log.md", "a") as file:
            stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            file.write(
                f"- {stamp}: coherence.py, {args.songs} songs, model {args.model}: K = 2 {cross:.3f} other songs, {same:.3f} same song\n"
            )


if __name__ == "__main__":
    main()
