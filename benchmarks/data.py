"""Speed of the data: random windows of 4-minute songs, and whether a training waits for them.

python benchmarks/data.py                     windows a second from FLAC folders and from shards, one worker and two,
                                              beside reading every file whole with soundfile and cutting
python benchmarks/data.py --steps 10          the same, then the bundled recipe's step and its waiting, in the same run

It makes its own songs (decaying tones and noise, 16 bits) unless --data names a folder. The ways take turns, so that
whatever else the machine does meets all of them; medians are given.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch

from stemwise.recipe import load_recipe
from stemwise.songs import Song, WindowOptions, Windows, layouts
from stemwise.songs.packing import pack
from stemwise.songs.window import Batches
from stemwise.train import Progress, train

RATE, STEMS = 44100, ("bass", "drums", "piano", "other")
RECIPE = Path(__file__).parent.parent / "recipes" / "band.yaml"


class WholeFiles(torch.utils.data.Dataset[torch.Tensor]):
    """The plain way: the same windows, by decoding each file whole."""

    def __init__(self, songs: list[Song], frames: int) -> None:
        self.songs, self.frames = songs, frames

    def __getitem__(self, index: int) -> torch.Tensor:
        draw = np.random.default_rng(index)
        song = self.songs[int(draw.integers(len(self.songs)))]
        start = int(draw.integers(song.frames - self.frames))
        whole = [soundfile.read(song.stems[name][0], dtype="float32", always_2d=True)[0] for name in STEMS]
        return torch.from_numpy(np.stack([signal[start : start + self.frames].T for signal in whole]))


def make_songs(folder: Path, count: int, seconds: float) -> None:
    """Twenty seconds of each stem, over and over: a decoder does not notice."""
    time_of = np.arange(20 * RATE) / RATE
    for number, stem in itertools.product(range(count), STEMS):
        draw = np.random.default_rng((number, STEMS.index(stem)))
        pitches = draw.uniform(60, 900, (4, 2))
        tone = sum(np.sin(2 * np.pi * f * time_of) * np.exp(-3 * ((time_of + p) % 0.5)) for f, p in pitches)
        some = (0.1 * tone[:, None] + 0.003 * draw.standard_normal((len(time_of), 2))).astype(np.float32)
        (folder / f"song {number}").mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(folder / f"song {number}" / f"{stem}.flac", "w", RATE, 2, "PCM_16") as file:
            for _ in range(round(seconds / 20)):
                file.write(some)


def seconds_each(dataset: torch.utils.data.Dataset[torch.Tensor], workers: int, first: int, count: int) -> float:
    """Seconds a window from a loader with so many workers, once they run."""
    warm = workers
    loader = iter(
        torch.utils.data.DataLoader(
            dataset, batch_sampler=Batches(first, first + warm + count, 1, 0, 1), num_workers=workers, prefetch_factor=1
        )
    )
    for _ in range(warm):
        next(loader)
    started = time.perf_counter()
    for _ in loader:
        pass
    return (time.perf_counter() - started) / count


def measure(
    ways: dict[str, tuple[torch.utils.data.Dataset[torch.Tensor], int]], rounds: int
) -> dict[tuple[str, int], list[float]]:
    found: dict[tuple[str, int], list[float]] = {}
    for turn, workers, (name, (dataset, count)) in itertools.product(range(rounds), (1, 2), ways.items()):
        found.setdefault((name, workers), []).append(seconds_each(dataset, workers, 1000 * turn, count))
    return found


def show(found: dict[tuple[str, int], list[float]], ways: list[str]) -> None:
    print(f"{'':12} | 1 worker: windows/s | times | 2 workers: windows/s | times")
    for way in ways:
        rates = [1 / statistics.median(found[way, n]) for n in (1, 2)]
        times = [statistics.median(a / b for a, b in zip(found[ways[0], n], found[way, n])) for n in (1, 2)]
        print(f"{way:12} | {rates[0]:19.2f} | {times[0]:5.1f} | {rates[1]:20.2f} | {times[1]:5.1f}")


def appetite(data: Path, scratch: Path, steps: int) -> Iterator[str]:
    """Step time of the bundled recipe and how much of it is waiting, from the log of a training."""
    overrides = [
        f"data.train={data}",
        "data.valid=[]",
        f"run={scratch / data.name}-run",
        f"train.steps={steps + 2}",
        "train.log_every=1",
        "train.checkpoint_every=100000",
    ]
    recipe = load_recipe(RECIPE, overrides)
    stamps: list[float] = []

    def clock(_: Progress) -> None:
        stamps.append(time.perf_counter())

    train(recipe, accelerator="cpu", progress=clock, notice=lambda _: None)
    step = statistics.median(later - earlier for earlier, later in itertools.pairwise(stamps[1:-1]))
    with (recipe.run / "metrics.csv").open() as file:
        shares = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "data_wait"][2:]
    yield (
        f"{data.name}: step of {recipe.train.batch} windows of {recipe.data.frames / RATE:.1f} s, {recipe.data.workers} worker: median "
        f"{step:.2f} s of {len(stamps) - 2}; waiting for data: median {statistics.median(shares):.2%}, mean {statistics.mean(shares):.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of songs with the stems " + ", ".join(STEMS))
    parser.add_argument("--songs", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--window", type=float, default=6.0, help="seconds")
    parser.add_argument("--rounds", type=int, default=5, help="of windows a second; 0: none")
    parser.add_argument("--steps", type=int, default=0, help="steps of the bundled recipe to train; 0: none")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        source, packed = args.data or scratch / "folder", scratch / "shards"
        if args.data is None:
            make_songs(source, args.songs, 60 * args.minutes)
        songs = layouts.songs(source)
        list(pack(songs, packed))
        frames = round(args.window * RATE)
        options = WindowOptions(STEMS, RATE, frames, min_active=0)
        ways = {
            "whole files": (WholeFiles(songs, frames), 3),
            "folder": (Windows(songs, options, 0), 20),
            "shards": (Windows(layouts.songs(packed), options, 0), 20),
        }
        if args.rounds:
            length = statistics.median(song.seconds for song in songs)
            print(
                f"windows of {args.window:g} s, {len(STEMS)} stems, {len(songs)} songs of {length:.0f} s; medians of {args.rounds} rounds"
            )
            show(measure(ways, args.rounds), list(ways))
        for data in (source, packed) if args.steps else ():
            print(*appetite(data, scratch, args.steps), sep="\n")


if __name__ == "__main__":
    main()
