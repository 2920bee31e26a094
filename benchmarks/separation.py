"""SI-SDR improvement of a model on held-out synthetic songs, against mixture (floor) and oracle ratio mask (ceiling).

    python benchmarks/separation.py --fonts test --songs 40 --evaluations 1 2 4 --model band

Songs are seeded (950000 and up, which no recipe trains on), whole, stereo, 44.1 kHz. A stem counts where it is
louder than -60 dBFS over the song. Choices are made with `--fonts validation`; every run with `--fonts test` adds a
line to docs/test-font-log.md.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import stemwise
from stemwise.evaluate.baselines import ratio_mask
from stemwise.metrics.separation import si_sdr
from stemwise.model import OVERLAP
from stemwise.songs import folder
from stemwise.songs.synthetic import write_songs

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 950_000
JUDGED = ("bass", "drums", "guitar", "piano")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="band")
    parser.add_argument("--fonts", choices=["train", "validation", "test", "builtin"], default="validation")
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--overlap", type=float, default=OVERLAP, help="share of a window that the next one hears, too")
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "benchmark-songs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = stemwise.load(args.model)
    where = args.data / f"{args.fonts}-{args.seconds:g}"
    log: list[str] = []
    for _ in write_songs(
        where, range(FIRST_SEED, FIRST_SEED + args.songs), fonts=args.fonts, seconds=args.seconds, log=log.append
    ):
        pass
    songs = folder(where)[: args.songs]
    names = model.stems
    rows: dict[str, dict[str, list[float]]] = {}
    floor: dict[str, list[float]] = {name: [] for name in names}
    spent: dict[int, float] = {}
    for song in songs:
        truth = song.read(0, song.frames, names)
        mixture = truth.sum(0)
        answers = {"oracle ratio mask": ratio_mask(torch.from_numpy(truth)).numpy()}
        for n in args.evaluations:
            started = time.perf_counter()
            answers[f"{args.model}, {n} evaluation{'s' * (n > 1)}"] = (
                model.separate(mixture, rate=song.rate, evaluations=n, overlap=args.overlap).data[0].numpy()
            )
            spent[n] = spent.get(n, 0.0) + time.perf_counter() - started
        for i, name in enumerate(names):
            if np.sqrt(np.mean(truth[i] ** 2)) < 1e-3:
                continue
            base = si_sdr(mixture, truth[i])
            floor[name].append(base)
            for label, stems in answers.items():
                rows.setdefault(label, {n: [] for n in names})[name].append(si_sdr(stems[i], truth[i]) - base)
    report(args, rows, floor, spent, sum(song.frames / song.rate for song in songs))
    if args.fonts == "test":
        note(args, rows)


def report(args: argparse.Namespace, rows: dict, floor: dict, spent: dict, seconds: float) -> None:
    names = list(floor)
    print(
        f"\nSI-SDR improvement in dB, mean over stems of {args.songs} songs of {args.seconds:g} s, {args.fonts} fonts (median in brackets)"
    )
    print("| |" + "|".join(names) + "| mean of 4 |\n|---|" + "--:|" * (len(names) + 1))
    print(
        "| mixture: SI-SDR itself |"
        + "|".join(f"{np.mean(floor[n]):.2f}" for n in names)
        + f"|{np.mean([np.mean(floor[n]) for n in JUDGED]):.2f}|"
    )
    for label, row in rows.items():
        cells = "|".join(f"{np.mean(row[n]):.2f} ({np.median(row[n]):.2f})" for n in names)
        print(f"| {label} |{cells}|{np.mean([np.mean(row[n]) for n in JUDGED]):.2f}|")
    for n, t in spent.items():
        print(f"{n} evaluations: {seconds / t:.1f} times real time on {torch.get_num_threads()} threads")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "floor": floor}, indent=1))


def note(args: argparse.Namespace, rows: dict) -> None:
    log = ROOT / "docs" / "test-font-log.md"
    best = max(
        float(np.mean([np.mean(row[n]) for n in JUDGED])) for label, row in rows.items() if "oracle" not in label
    )
    with log.open("a", encoding="utf-8") as file:
        file.write(
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: separation.py, {args.songs} songs, model {args.model}, "
            f"overlap {args.overlap:g}: {best:.2f} dB\n"
        )


if __name__ == "__main__":
    main()
