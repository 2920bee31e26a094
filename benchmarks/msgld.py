"""MSG-LD's separation against the number of network evaluations, for every step rule, and what the codec alone loses.

    python benchmarks/msgld.py --model msgld-band --songs data/held-out

Songs, for example: stemwise songs make data/held-out --count 40 --seconds 40 --fonts validation --first 910000

A window a song, the same noise for every rule. MSE: mean squared difference of the sampled log-mels (decoder's output, before any
wave) and the true ones, mean over stems that sound (louder than -54 dBFS); SI-SDR improvement of the waves that `--phase mixture`
gives. "ancestral" is the published sampler, DDIM with eta 1, whose 200 steps with leading spacing are what the others are compared with,
song by song, with 95 % bootstrap intervals; they have the model's own spacing. One evaluation is the first estimate, the same by
every rule. Seconds are CPU seconds of one thread a window.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from msdm_relations import FLOOR, level, per_stem
from torch import Tensor

import stemwise
from stemwise.diffusion import Rule, Spacing, cost
from stemwise.metrics.statistics import bootstrap, paired
from stemwise.songs import folder
from stemwise.songs.window import WindowOptions, read_at
from stemwise.systems.msgld_system import MsgldSystem


@dataclass(frozen=True)
class Outcome:
    """One figure a song, and CPU seconds a window."""

    mse: np.ndarray
    improvement: np.ndarray
    seconds: float


def windows(songs: Path, system: MsgldSystem, count: int) -> Tensor:
    """(song, stem, time) from the middle of each song, where at least three stems sound."""
    shape = WindowOptions(system.names, system.rate, system.window, channels=1)
    found: list[Tensor] = []
    for song in folder(songs):
        start = max(0, (song.frames - round(system.window * song.rate / system.rate)) // 2)
        stems = torch.from_numpy(read_at(song, start, system.names, shape))[:, 0]
        if int((level(stems) > FLOOR).sum()) >= 3 and len(found) < count:
            found.append(stems)
    return torch.stack(found)


def outcome(system: MsgldSystem, truth: Tensor, spectrograms: Callable[[Tensor], Tensor]) -> Outcome:
    """Of log-mels (1, stem, frame, band) that are found for each song's stems (1, stem, time)."""
    mel = system.prior.config.codec.mel
    found, waves, seconds = [], [], []
    for stems in truth:
        started = time.process_time()
        levels = spectrograms(stems[None])
        seconds.append(time.process_time() - started)
        wrong = (levels[0] - mel.log(stems)).square().mean((1, 2))
        found.append(float(wrong[level(stems) > FLOOR].mean()))
        waves.append(system.waves(levels, stems.sum(0)[None])[0])
    return Outcome(np.array(found), np.nanmean(per_stem(torch.stack(waves), truth), 1), float(np.median(seconds)))


def sampled(
    system: MsgldSystem, truth: Tensor, rule: Rule, evaluations: int, spacing: Spacing | None = None
) -> Outcome:
    other = replace(system, sampling=replace(system.how, rule=rule, spacing=spacing or system.how.spacing))
    return outcome(other, truth, lambda stems: other.spectrograms(stems.sum(1), evaluations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="msgld-band")
    parser.add_argument("--songs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--rules", nargs="+", default=["ancestral", "euler", "heun", "dpmpp_2m"])
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 4, 6, 10, 15, 20, 50])
    parser.add_argument("--published", type=int, default=200, help="evaluations of the published sampler")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    system = stemwise.load(args.model, "cpu").system
    assert isinstance(system, MsgldSystem)
    truth = windows(args.songs, system, args.count)
    print(
        f"| sampler, {len(truth)} songs | evaluations | log-mel MSE | minus the published | SI-SDRi, dB | seconds | cheaper |\n"
        "|---|--:|--:|--:|--:|--:|--:|"
    )
    codec, mel = system.prior.codec, system.prior.config.codec.mel
    certain = replace(system, sampling=replace(system.how, sharpness=2.0))
    best = outcome(certain, truth, lambda stems: codec.levels(codec.posterior(mel.log(stems))[0]))
    true = outcome(certain, truth, mel.log)
    for name, one in (("true log-mels", true), ("the codec's of the true stems", best)):
        print(f"| {name} | | {bootstrap(one.mse)} | | {bootstrap(one.improvement)} | | |", flush=True)
    published = sampled(system, truth, "ancestral", args.published, "leading")
    rows = [("ancestral", args.published)] + [(rule, n) for rule in args.rules for n in args.evaluations]
    for rule, n in rows:
        if n % cost(rule) or (n == 1 and rule != "ancestral"):
            continue
        one = published if (rule, n) == rows[0] else sampled(system, truth, rule, n)
        against = paired(one.mse, published.mse).difference
        print(
            f"| {rule} | {n} | {bootstrap(one.mse)} | {against} | {bootstrap(one.improvement)} | {one.seconds:.2f} | "
            f"{published.seconds / one.seconds:.1f} x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
