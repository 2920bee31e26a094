"""The relations that MSDM's paper found between its samplers, in miniature on held-out synthetic songs.

    python benchmarks/msdm_relations.py --model runs/msdm-band/best --songs data/valid
    python benchmarks/msdm_relations.py --model runs/msdm-band/best --weak runs/msdm-weak-band/best --songs data/valid
    python benchmarks/msdm_relations.py --model runs/msdm-band/best --songs data/valid --curve

SI-SDR improvement in dB over the mixture, one window a song, mean over the stems that sound in it (louder than -54 dBFS);
pairs of samplers on the same windows from the same noise, differences with 95 % bootstrap intervals over songs. A relation
is held where the interval lies on the published side of 0, not held where it lies on the other, open where it has 0 in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemwise.checkpoint import load_model
from stemwise.diffusion import seeded
from stemwise.metrics.separation import si_sdr_improvement
from stemwise.metrics.statistics import bootstrap, paired
from stemwise.songs import folder
from stemwise.songs.window import WindowOptions, read_at
from stemwise.systems.joint import Joint, likelihood_of
from stemwise.systems.msdm import Msdm, Separation, WeakMsdm

FLOOR = 2e-3


def windows(songs: Path, prior: Msdm | WeakMsdm, count: int, frames: int) -> Tensor:
    """(song, stem, time) from the middle of each song, where at least three stems sound."""
    config = prior.config
    shape = WindowOptions(config.stems, config.rate, frames, channels=1)
    found: list[Tensor] = []
    for song in folder(songs):
        start = max(0, (song.frames - round(frames * song.rate / config.rate)) // 2)
        stems = torch.from_numpy(read_at(song, start, config.stems, shape))[:, 0]
        if int((level(stems) > FLOOR).sum()) >= 3:
            found.append(stems)
        if len(found) == count:
            break
    return torch.stack(found)


def level(stems: Tensor) -> Tensor:
    return stems.square().mean(-1).sqrt()


def improvement(prior: Msdm | WeakMsdm, how: Separation, truth: Tensor, seed: int = 0) -> np.ndarray:
    """One figure a song."""
    mix = truth.sum(1)
    system = Joint(prior, likelihood_of(how, prior.config.stems), how, prior.config.generation)
    with torch.no_grad():
        x = system.posterior(mix, how.steps, seeded(seed))
        x = x + (mix - x.sum(1))[:, None] / x.shape[1]
    figures = []
    for made, real, heard in zip(x, truth, mix):
        loud = [k for k in range(len(real)) if level(real[k]) > FLOOR]
        figures.append(np.mean([si_sdr_improvement(made[k], real[k], heard) for k in loud]))
    return np.array(figures)


def curve(prior: Msdm | WeakMsdm, truth: Tensor, budgets: Sequence[int], least: float) -> None:
    base, own = (
        Separation("dirac", "euler", sigma_min=least, sigma_max=1.0, churn=0.0, resample=1),
        prior.config.separation,
    )
    ways = {
        "Dirac, Euler, churn": replace(base, churn=0.13),
        "Dirac, Euler, churn, corrector": replace(base, churn=0.13, resample=2),
        "Gaussian, Euler, churn": replace(base, likelihood="gaussian", churn=0.13),
        "Gaussian integrated exactly": replace(
            base, likelihood="gaussian-exact", rule="dpmpp_2m", sigma_max=own.sigma_max
        ),
        "even plane, DPM-Solver++(2M)": replace(own, likelihood="even", rule="dpmpp_2m", resample=1, churn=0.0),
        "projection, Euler": replace(own, likelihood="projection", rule="euler", resample=1, churn=0.0),
        "projection, DPM-Solver++(2M)": replace(own, likelihood="projection", rule="dpmpp_2m", resample=1, churn=0.0),
        "projection, ancestral": replace(own, likelihood="projection", rule="ancestral", resample=1, churn=0.0),
        "projection, Euler, churn, corrector": replace(
            own, likelihood="projection", rule="euler", churn=0.33, resample=2
        ),
    }
    print(
        "| likelihood and rule |" + "|".join(f"{n} evaluations" for n in budgets) + "|\n|---|" + "--:|" * len(budgets)
    )
    for name, how in ways.items():
        cells = []
        for n in budgets:
            steps = max(1, n // how.resample)
            # the published churn of 20 over 150 steps is 0.13 a step: the same share for every number of steps
            figures = improvement(prior, replace(how, steps=steps, churn=how.churn * steps), truth)
            cells.append(f"{figures.mean():.2f}" if np.isfinite(figures).all() else "diverged")
        print(f"| {name} |" + "|".join(cells) + "|", flush=True)


def relations(prior: Msdm | WeakMsdm, weak: Msdm | WeakMsdm | None, truth: Tensor, steps: int, least: float) -> None:
    churn = 20 / 150 * steps
    dirac = Separation("dirac", "euler", steps, least, 1.0, churn=churn, resample=2, drop="bass")
    gaussian = replace(dirac, likelihood="gaussian", churn=2 * churn)
    own = prior.config.separation
    made = {
        "Dirac + corrector": improvement(prior, dirac, truth),
        "Gaussian + corrector": improvement(prior, gaussian, truth),
        "Dirac": improvement(prior, replace(dirac, resample=1), truth),
        "Gaussian": improvement(prior, replace(gaussian, resample=1), truth),
        "Dirac + corrector, no churn": improvement(prior, replace(dirac, churn=0.0), truth),
        "drop drums": improvement(prior, replace(dirac, drop="drums"), truth),
        "drop guitar": improvement(prior, replace(dirac, drop="guitar"), truth),
        "even plane": improvement(prior, replace(dirac, likelihood="even"), truth),
        f"ours, {own.steps * own.resample} evaluations": improvement(prior, own, truth),
    }
    if weak is not None:
        made["weak, Dirac + corrector"] = improvement(weak, replace(dirac, churn=2 * churn), truth)
    print(f"| sampler ({steps} steps) | SI-SDRi, mean over {len(truth)} songs |\n|---|--:|")
    for name, figures in made.items():
        print(f"| {name} | {bootstrap(figures)} |")
    ours = f"ours, {own.steps * own.resample} evaluations"
    claims = [
        ("Dirac + corrector", "Gaussian + corrector", "+1.9"),
        ("Dirac", "Gaussian", "+2.0"),
        ("Dirac + corrector", "Dirac", "+1.6"),
        ("Gaussian + corrector", "Gaussian", "+1.6"),
        ("Dirac + corrector", "Dirac + corrector, no churn", "churn 20 to 40 best"),
        ("Dirac + corrector", "drop drums", "bass was chosen"),
        ("Dirac + corrector", "drop guitar", "bass was chosen"),
        ("even plane", "Dirac + corrector", "not published"),
        (ours, "Dirac + corrector", "not published"),
    ]
    if weak is not None:
        claims.append(("weak, Dirac + corrector", "Dirac + corrector", "+0.8"))
    print("\n| first | second | published dB | here: first - second | relation |\n|---|---|---|--:|---|")
    for first, second, published in claims:
        result = paired(made[first], made[second]).difference
        verdict = "held" if result.low > 0 else "not held" if result.high < 0 else "open"
        print(f"| {first} | {second} | {published} | {result} | {verdict} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--weak", type=Path)
    parser.add_argument("--songs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--frames", type=int, help="length of a window; the model's own")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument(
        "--curve", action="store_true", help="improvement against evaluations for every rule and likelihood"
    )
    parser.add_argument("--evaluations", type=int, nargs="+", default=[4, 8, 16, 32, 64, 150, 300])
    parser.add_argument(
        "--sigma-min", type=float, default=1e-4, help="of the published rules, which diverge from 1e-4 in few steps"
    )
    args = parser.parse_args()
    prior = load_model(args.model)
    assert isinstance(prior, Msdm | WeakMsdm)
    weak = load_model(args.weak) if args.weak else None
    assert weak is None or isinstance(weak, Msdm | WeakMsdm)
    truth = windows(args.songs, prior, args.count, args.frames or prior.config.window)
    if args.curve:
        curve(prior, truth, args.evaluations, args.sigma_min)
    else:
        relations(prior, weak, truth, args.steps, args.sigma_min)


if __name__ == "__main__":
    main()
