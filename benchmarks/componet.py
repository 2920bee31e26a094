"""CompoNet on held-out songs: every task against copying the input, the base that hears nothing, and real but foreign stems.

    python benchmarks/componet.py --model runs/componet-band/best --data data/valid --songs 16

Songs, for example: stemwise songs make data/valid --count 40 --seconds 40 --fonts validation --first 900000

A window a song. FAD: distance of the set of answers from the set of true answers by COCOLA's embedding, with 95 % of redraws of the
songs. L1 is the mean absolute difference of log-mels (`metrics.logmel`), on whole answers, or where what is to be kept
is 10 dB above the rest of the true answer. Coherence is COCOLA's score of the answer against what was heard; of generated stems,
the mean over stems, each against the others. "base": the adapter at strength 0. "random": the wanted stems of the next song.
p: Wilcoxon's signed rank over songs, one-sided, that the model is better.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wilcoxon
from torch import Tensor

import stemwise
from stemwise.audio_io import resample
from stemwise.embeddings import load_embedding
from stemwise.errors import ScoreError
from stemwise.metrics.frechet import Gaussian, frechet_distance
from stemwise.metrics.logmel import log_mel, log_mel_l1
from stemwise.scores import score, score_stems
from stemwise.songs import folder
from stemwise.songs.window import WindowOptions, Windows
from stemwise.systems.componet_system import ComponetSystem
from stemwise.systems.system import Context

SEED = 41


def mix(stems: Tensor, names: tuple[str, ...], side: tuple[str, ...]) -> Tensor:
    """(time,) of stems (stem, time)."""
    return stems[[names.index(name) for name in side]].sum(0) if side else torch.zeros(stems.shape[-1])


def l1(made: Tensor, real: Tensor, rate: int) -> float:
    return log_mel_l1(made[None], real[None], rate)


def kept_l1(made: Tensor, real: Tensor, kept: Tensor, rate: int) -> float:
    """Where the kept part of the true answer is 10 dB above the rest of it."""
    a, b, mine, rest = (
        log_mel(torch.from_numpy(resample(x.numpy()[None], rate, 16_000))[0]) for x in (made, real, kept, real - kept)
    )
    where = (mine > rest + np.log(10.0) / 2) & (mine > np.log(1e-3))
    return float((a - b).abs()[where].mean()) if where.any() else float("nan")


def coherence(heard: Tensor, made: Tensor, rate: int) -> float:
    try:
        return float(score(heard, made, rate=rate).coherence.mean)
    except ScoreError:
        return float("nan")


def relations(
    playing: tuple[str, ...], draw: np.random.Generator
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    order = list(draw.permutation(playing))
    some = sorted(order[: int(draw.integers(1, len(order)))])
    return {
        "accompany": (tuple(sorted(order[1:])), (order[0],)),
        "separate": (playing, tuple(some)),
        "add": (tuple(some), playing),
        "replace": (tuple(sorted(order[:-1])), tuple(sorted([*order[:-2], order[-1]]))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--tasks", nargs="+", default=["accompany", "separate", "add", "replace"])
    parser.add_argument("--generate", type=int, default=8, help="of how many songs' worth all stems are generated")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = stemwise.load(args.model, device="cpu", guidance=args.guidance)
    system = model.system
    assert isinstance(system, ComponetSystem)
    base = system.asked(strength=0.0)
    names, rate = system.names, system.rate
    options = WindowOptions(names, rate, system.window, channels=1, min_active=3, floor_db=-45.0)
    windows = Windows(folder(args.data), options, SEED)
    songs = [windows[index][:, 0] for index in range(args.songs)]
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    embedding, frames = load_embedding("cocola"), defaultdict(lambda: defaultdict(list))
    for index, stems in enumerate(songs):
        loud = stems.square().mean(-1) > 10 ** (-45 / 10)
        playing = tuple(name for name, there in zip(names, loud) if there)
        other = songs[(index + 1) % len(songs)]
        draw = np.random.default_rng((SEED, index))
        for task, (heard, wanted) in relations(playing, draw).items():
            if task not in args.tasks:
                continue
            given, real, foreign = mix(stems, names, heard), mix(stems, names, wanted), mix(other, names, wanted)
            rest = [name for name in heard if name not in wanted]
            answers = {"random": foreign, "truth": real}
            for label, one in (("CompoNet", system), ("base", base)):
                if task == "separate":
                    answers[label] = one.split(given[None], heard, [wanted, rest], args.steps)[0][0, 0]
                else:
                    answers[label] = one.answer(given, heard, wanted, seeds=[index], steps=args.steps)[0]
            if task == "separate":
                answers["copy"] = given
                for label, made in answers.items():
                    found["separate: L1"][label].append(l1(made, real, rate))
                continue
            for label, made in answers.items():
                frames[task][label].append(embedding.embed(made.numpy(), rate))
                found[f"{task}: coherence"][label].append(coherence(given, made, rate))
                if task != "accompany":
                    kept = mix(stems, names, tuple(name for name in wanted if name in heard))
                    found[f"{task}: L1 of the kept part"][label].append(kept_l1(made, real, kept, rate))
        if index < args.generate:
            for label, one in (("CompoNet", system), ("base", base)):
                made = one.sample(playing, Context({}, {}, 1.0), seed=index, steps=args.steps)
                frames["generate"][label].append(embedding.embed(made.sum((0, 1)).numpy(), rate))
                found["generate: coherence"][label].append(together(dict(zip(playing, made.numpy())), rate))
            mixed = {
                name: songs[(index + k) % len(songs)][names.index(name)][None].numpy() for k, name in enumerate(playing)
            }
            found["generate: coherence"]["random"].append(together(mixed, rate))
            frames["generate"]["truth"].append(embedding.embed(stems.sum(0).numpy(), rate))
            frames["generate"]["random"].append(embedding.embed(sum(mixed.values())[0], rate))
            real_stems = {name: stems[names.index(name)][None].numpy() for name in playing}
            found["generate: coherence"]["truth"].append(together(real_stems, rate))
        print(f"after {index + 1} of {len(songs)} songs", flush=True)
        report(found)
    print("\n| FAD (COCOLA) | CompoNet | base | random |\n|---|--:|--:|--:|")
    for task, by in frames.items():  # of separation there is none
        print(
            f"| {task} | {' | '.join(distance(by[label], by['truth']) for label in ('CompoNet', 'base', 'random'))} |"
        )


def together(stems: dict[str, np.ndarray], rate: int) -> float:
    """Mean over the stems of their scores against the others."""
    try:
        return score_stems(stems, rate=rate).coherence or float("nan")
    except ScoreError:
        return float("nan")


def distance(made: list[np.ndarray], real: list[np.ndarray]) -> str:
    def between(songs: np.ndarray) -> float:
        return frechet_distance(*(Gaussian.of(np.concatenate([side[i] for i in songs])) for side in (made, real)))

    draw = np.random.default_rng(0)
    spread = [between(draw.integers(0, len(real), len(real))) for _ in range(100)]
    low, high = np.quantile(spread, [0.025, 0.975])
    return f"{between(np.arange(len(real))):.0f} [{low:.0f}, {high:.0f}]"


def report(found: dict[str, dict[str, list[float]]]) -> None:
    print("| | CompoNet | base | p | copy | p | random | p | truth | n |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, by in found.items():
        own = np.array(by["CompoNet"])
        cells = [name, f"{np.nanmean(own):.3f}"]
        better = "less" if "L1" in name else "greater"
        for label in ("base", "copy", "random"):
            values = np.array(by.get(label, []))
            if not len(values):
                cells += ["", ""]
                continue
            both = ~np.isnan(own) & ~np.isnan(values)
            p = wilcoxon(own[both], values[both], alternative=better).pvalue if both.any() else float("nan")
            cells += [f"{np.nanmean(values):.3f}", f"{p:.2g}"]
        truth = f"{np.nanmean(by['truth']):.3f}" if "truth" in by else ""
        print(f"| {' | '.join([*cells, truth, str(len(own))])} |", flush=True)


if __name__ == "__main__":
    main()
