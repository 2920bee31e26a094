"""What separating a window of four bars costs: the default number of evaluations against the published 999 steps.

    python benchmarks/symbolic_sampling.py --windows 8

One thread, the same network, windows of songs that the composer made for nobody's training. "999" is DDIM with eta 0 along all
steps of the schedule that Mixture2Music was published with; the consistency that the bar compares is that of the raw estimates,
thresholded at one half, before every cell is given to someone. Times are a window's, medians over
batches of four windows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

from stemwise.codecs.roll import ONSET, on_grid
from stemwise.diffusion import Step, dpmpp_2m, euler, from_alphas_cumprod, karras, last, sample, seeded
from stemwise.diffusion.schedules import linear_beta
from stemwise.loading import load_rolls
from stemwise.metrics.rolls import consistency, label_accuracy, label_f1
from stemwise.songs.phrases import cut
from stemwise.songs.synthetic import compose
from stemwise.songs.synthetic.write import score_of
from stemwise.systems.rolls import Heard, RollPrior, cells

BATCH = 4


def windows(prior: RollPrior, count: int, first: int) -> list[tuple[Tensor, Tensor]]:
    """One window from the middle of each song with at least three stems: (1, stem, time, pitch), bars (1, time)."""
    found: list[tuple[Tensor, Tensor]] = []
    length = prior.config.window
    while len(found) < count:
        notes = on_grid(score_of(compose(first, seconds=60.0)), prior.layout)
        first += 1
        window = torch.from_numpy(cut(notes, prior.layout, int(notes.bars[len(notes.bars) // 2]), length))[None]
        if int(window[:, :-1].flatten(2).any(2).sum()) >= 3:
            found.append((window[:, :-1], window[:, -1, :, 0] > 0))
    return found


@torch.no_grad()
def measure(
    prior: RollPrior, sets: list[tuple[Tensor, Tensor]], sigmas: Tensor, temperature: float, step: Step
) -> dict[str, float]:
    seconds, raw, made, truth = [], [], [], []
    for number in range(0, len(sets), BATCH):
        data, bars = (torch.cat(one) for one in zip(*sets[number : number + BATCH]))
        heard = Heard(data.amax(1), data, torch.zeros(data.shape[:3], dtype=torch.bool), bars)
        denoiser, constraint = prior.condition(heard)
        source = seeded(number)
        began = time.perf_counter()
        states = sample(
            denoiser, sigmas, lambda shape, source=source: temperature * source(shape), constraint=constraint, step=step
        )
        likely = last(states).denoised
        answer = cells(likely, heard.mixture)
        seconds.append((time.perf_counter() - began) / len(data))
        raw.append(likely.chunk(2, dim=1)[0] > 0.5)
        made.append(answer > 0)
        truth.append(data > 0)
    one, answer, true = torch.cat(raw), torch.cat(made), torch.cat(truth)
    mixture = true.any(1)
    return {
        "temperature": temperature,
        "evaluations": len(sigmas) - 1,
        "seconds": statistics.median(seconds),
        "raw_consistency": consistency(one, mixture),
        "consistency": consistency(answer, mixture),
        "label_accuracy": label_accuracy(true, answer, mixture),
        "label_f1": label_f1(true, answer, mixture),
    }


def trivial(sets: list[tuple[Tensor, Tensor]], stem: int) -> float:
    """Label accuracy where everything is given to one stem."""
    true = torch.cat([data > 0 for data, _ in sets])
    made = torch.zeros_like(true)
    made[:, stem] = true.any(1)
    return label_accuracy(true, made, true.any(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rolls")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--first", type=int, default=980_000, help="seed of the first song")
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 4, 8, 16, 25])
    parser.add_argument("--temperatures", type=float, nargs="*", default=[0.0, 1.0])
    parser.add_argument("--without-reference", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_rolls(options.model, "cpu").prior
    assert isinstance(prior, RollPrior)
    sets, how = windows(prior, options.windows, options.first), prior.config.sampling
    ladders: list[tuple[Tensor, Step]] = [
        (karras(n, how.sigma_min, how.sigma_max, how.rho), dpmpp_2m) for n in options.steps
    ]
    if not options.without_reference:
        ladders.append((from_alphas_cumprod(linear_beta(1000), torch.arange(999, 0, -1)), euler))
    rows = []
    for temperature in options.temperatures:
        for sigmas, step in ladders:
            rows.append(measure(prior, sets, sigmas, temperature, step))
            print(json.dumps({name: round(value, 5) for name, value in rows[-1].items()}), flush=True)
    stems = prior.config.stems
    print("all to one stem:", {name: round(trivial(sets, k), 3) for k, name in enumerate(stems)})
    onsets = sum(int((data == ONSET).sum()) for data, _ in sets)
    default = next((row for row in rows if row["evaluations"] == how.steps), rows[-1])
    print(f"{len(sets)} windows, {onsets} notes")
    if not options.without_reference:
        print(f"times cheaper than 999 steps: {rows[-1]['seconds'] / default['seconds']:.1f}")


if __name__ == "__main__":
    main()
