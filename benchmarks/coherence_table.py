"""Table 2 of the COCOLA paper (arXiv 2404.16969), train set x test set, with sounds and styles of the built-in band as data sets.

    python benchmarks/coherence_table.py            (or --quick, or --train NAME=FOLDER ... --test NAME=FOLDER ... with songs of your own)

Each row is a training from nothing by recipes/cocola-band.yaml (or --recipe) with as many steps as every other; the last row hears
all training sets, the first one is not trained at all. Each column is a set that no row trained on: held-out songs of each domain,
and a domain that nobody heard. Cells are K = 2 accuracies in % for sub-mixes / single stems, against other songs, with 95 %
bootstraps over songs. `--cosine` adds the last row once more with cosine similarity.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import soundfile
import torch

from stemwise.checkpoint import build, load_model
from stemwise.coherence.accuracy import k_way, pairs_of
from stemwise.coherence.cocola import Cocola
from stemwise.metrics.statistics import bootstrap
from stemwise.recipe import load_recipe
from stemwise.runs import export
from stemwise.songs import Song
from stemwise.songs.layouts import songs as songs_of
from stemwise.songs.synthetic import compose
from stemwise.songs.synthetic.render import render
from stemwise.songs.synthetic.write import Sounds, palette
from stemwise.train import train

ROOT = Path(__file__).resolve().parents[1]
RATE, FIRST_SEED = 16_000, 970_000
LOUD = {"rock", "metal", "funk", "disco", "house", "hip hop", "halftime", "pop"}


@dataclass(frozen=True)
class Domain:
    """Songs of some styles with some sounds; `seed`: of its first song."""

    name: str
    sounds: Sounds
    loud: bool
    seed: int


DOMAINS = (
    Domain("built-in sounds, loud styles", "builtin", True, FIRST_SEED),
    Domain("built-in sounds, soft styles", "builtin", False, FIRST_SEED + 2000),
    Domain("sound fonts, loud styles", "train", True, FIRST_SEED + 4000),
)
UNHEARD = Domain("another font, soft styles", "validation", False, FIRST_SEED + 6000)


def seeds(domain: Domain) -> Iterator[int]:
    return (seed for seed in count(domain.seed) if (compose(seed, seconds=2.0).style in LOUD) == domain.loud)


def make(folder: Path, domain: Domain, first: int, songs: int, seconds: float) -> Path:
    """A folder of mono songs at 16 kHz; what is there already is kept."""
    sounds = palette(domain.sounds)
    for seed in islice(seeds(domain), first, first + songs):
        place = folder / f"song-{seed}"
        if place.is_dir():
            continue
        partial = folder / f".song-{seed}"
        partial.mkdir(parents=True, exist_ok=True)
        for stem, audio in render(compose(seed, seconds=seconds), sounds, rate=RATE).stems.items():
            soundfile.write(partial / f"{stem}.wav", audio.mean(axis=0), RATE)
        partial.rename(place)
    return folder


def trained(recipe: Path, sets: list[Path], run: Path, changes: list[str]) -> Cocola:
    listed = json.dumps([str(path) for path in sets])
    loaded = load_recipe(recipe, [f"data.train={listed}", "data.valid=[]", f"run={run}", "data.workers=0", *changes])
    train(loaded, notice=lambda _: None)
    model = load_model(export(run, run / "model", weights="last"))
    assert isinstance(model, Cocola)
    return model


def untrained(recipe: Path, changes: list[str]) -> Cocola:
    """As a training starts."""
    loaded = load_recipe(recipe, ["data.train=none", *changes])
    torch.manual_seed(loaded.seed)
    model = build(loaded.model.type, loaded.model.config)
    assert isinstance(model, Cocola)
    return model.eval()


def accuracy(model: Cocola, songs: list[Song], sizes: str) -> str:
    pairs = pairs_of(songs, model, sizes)
    values, names = k_way(model, pairs, 2), np.array(pairs.songs)
    interval = bootstrap([values[names == name].mean() for name in sorted(set(pairs.songs))])
    return f"{100 * interval.mean:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def told(model: Cocola, name: str, tests: dict[str, list[Song]]) -> None:
    """Print a row."""
    cells = [" / ".join(accuracy(model, songs, s) for s in ("sub-mixes", "single stems")) for songs in tests.values()]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def named(entries: list[str]) -> dict[str, Path]:
    return {name: Path(path) for name, _, path in (entry.partition("=") for entry in entries)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--test", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "cocola-band.yaml")
    parser.add_argument("--songs", type=int, default=60, help="training songs of each domain")
    parser.add_argument("--held-out", type=int, default=16, help="test songs of each domain")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--cosine", action="store_true")
    parser.add_argument("--quick", action="store_true", help="12 + 6 songs of 30 s, 40 steps: ten minutes of one core")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "coherence-table")
    args = parser.parse_args()
    if args.quick:
        args.songs, args.held_out, args.seconds, args.steps, args.batch = 12, 6, 30.0, 40, 16
    data = args.out / f"songs-{args.songs}-{args.held_out}-{args.seconds:g}"
    rows, columns = named(args.train), named(args.test)
    if not rows:
        rows = {d.name: make(data / "train" / d.name, d, 0, args.songs, args.seconds) for d in DOMAINS}
        held_out = [replace(d, seed=d.seed + 1000) for d in DOMAINS] + [UNHEARD]
        columns = {d.name: make(data / "test" / d.name, d, 0, args.held_out, args.seconds) for d in held_out}
    changes = [f"train.steps={args.steps}", f"train.checkpoint_every={args.steps}", f"train.batch={args.batch}"]
    trainings = {name: ([folder], changes) for name, folder in rows.items()}
    trainings["all"] = (list(rows.values()), changes)
    if args.cosine:
        cosine = [
            *changes,
            "model.config.similarity=cosine",
            "model.config.temperature=0.2",
            "optim.muon=[net,projection]",
        ]
        trainings["all, cosine"] = (list(rows.values()), cosine)
    tests = {name: songs_of(folder) for name, folder in columns.items()}
    print(f"| trained on ({args.steps} steps) |" + "|".join(columns) + "|\n|---|" + "--:|" * len(columns), flush=True)
    told(untrained(args.recipe, changes), "nothing", tests)
    for name, (folders, changed) in trainings.items():
        run = args.out / f"{args.recipe.stem}-{name}-{args.steps}-{args.songs}".replace(" ", "-").replace(",", "")
        told(trained(args.recipe, folders, run, changed), name, tests)


if __name__ == "__main__":
    main()
