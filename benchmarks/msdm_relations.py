"""The relations that MSDM's paper found between its samplers, in miniature on held-out synthetic songs.

    python benchmarks/msdm_relations.py --model msdm-band --weak msdm-band-weak --songs data/fresh
    python benchmarks/msdm_relations.py --model msdm-band --songs data/fresh --curve
    python benchmarks/msdm_relations.py --model msdm-band --songs data/fresh --stems
    python benchmarks/msdm_relations.py --model msdm-band --songs data/fresh --generation
    python benchmarks/msdm_relations.py --model msdm-band --songs data/fresh --all     # all tables of the same windows

Songs, for example: stemwise songs make data/fresh --count 40 --seconds 40 --fonts validation --first 910000

SI-SDR improvement in dB over the mixture, one window a song, mean over the stems that sound in it (louder than -54 dBFS);
pairs of samplers on the same windows from the same noise, differences with 95 % bootstrap intervals over songs. sub-FAD:
what is made for some stems given the real rest, mixed with it, against the real mixtures, by COCOLA's embedding. A relation
is held where the interval lies on the published side of 0, not held where it lies on the other, open where it has 0 in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemwise.checkpoint import load_model
from stemwise.diffusion import seeded
from stemwise.embeddings import load_embedding
from stemwise.loading import folder_of
from stemwise.metrics.frechet import Gaussian, frechet_distance
from stemwise.metrics.separation import si_sdr_improvement
from stemwise.metrics.statistics import bootstrap, paired
from stemwise.songs import folder
from stemwise.songs.window import WindowOptions, read_at
from stemwise.systems.joint import Joint, evaluations_of, likelihood, likelihood_of, within
from stemwise.systems.likelihoods import Likelihood, Projection, gaussian_variance
from stemwise.systems.msdm import PUBLISHED_DIRAC, PUBLISHED_GAUSSIAN, Msdm, Separation, WeakMsdm
from stemwise.systems.spectra import powers
from stemwise.systems.system import Context

FLOOR = 2e-3
Prior = Msdm | WeakMsdm


def windows(songs: Path, prior: Prior, count: int, frames: int) -> Tensor:
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


def closed(x: Tensor, mix: Tensor) -> Tensor:
    """What is lacking of the mixture, in equal shares; the reference does not do it."""
    return x + (mix - x.sum(1))[:, None] / x.shape[1]


def per_stem(made: Tensor, truth: Tensor) -> np.ndarray:
    """(song, stem); NaN where a stem is silent."""
    figures = np.full(truth.shape[:2], np.nan)
    for i, k in np.argwhere((level(truth) > FLOOR).numpy()):
        figures[i, k] = si_sdr_improvement(made[i, k], truth[i, k], truth[i].sum(0))
    return figures


def separated(prior: Prior, how: Separation, truth: Tensor, given: Likelihood | None = None) -> Tensor:
    mix, made = truth.sum(1), given or likelihood_of(how, prior)
    system = Joint(prior, made, how, prior.config.generation)
    with torch.no_grad():
        return closed(system.posterior(mix, how.steps, seeded(0)), mix)


def improvement(prior: Prior, how: Separation, truth: Tensor, given: Likelihood | None = None) -> np.ndarray:
    """One figure a song."""
    return np.nanmean(per_stem(separated(prior, how, truth, given), truth), 1)


def filtered(prior: Prior, truth: Tensor) -> Tensor:
    """What a model with spectra would do without its network: the Wiener filter of the stems' mean spectra."""
    power = powers(prior.config.spectra, prior.config.rate)(truth.shape[-1])
    return torch.fft.irfft(torch.fft.rfft(truth.sum(1))[:, None] * (power / power.sum(0)), n=truth.shape[-1])


def curve(prior: Prior, truth: Tensor, budgets: Sequence[int], least: float) -> None:
    own = replace(
        prior.config.separation, churn=0.0, resample=1, temperature=1.0, rule="euler", likelihood="projection"
    )
    # the published churn is 20 or 40 over 150 steps: the same share of a step for every number of steps
    base = replace(PUBLISHED_DIRAC, sigma_min=least, churn=20 / 150)
    gaussian = replace(PUBLISHED_GAUSSIAN, sigma_min=least, churn=40 / 150)
    equal = Projection(gaussian_variance(*[1.0] * len(prior.config.stems)))
    blind = likelihood(Separation(), len(prior.config.stems), rate=prior.config.rate)
    ways: dict[str, tuple[Separation, Likelihood | None]] = {
        "Dirac, Euler, churn": (replace(base, resample=1), None),
        "Dirac, Euler, churn, corrector": (base, None),
        "Dirac, Heun": (replace(base, rule="heun", churn=0.0, resample=1), None),
        "Gaussian, Euler, churn": (replace(gaussian, resample=1), None),
        "Gaussian, Euler, churn, corrector": (gaussian, None),
        "Gaussian integrated exactly": (replace(own, likelihood="gaussian-exact", rule="dpmpp_2m"), None),
        "even plane, Euler": (replace(own, likelihood="even"), None),
        "even plane, DPM-Solver++(2M)": (replace(own, likelihood="even", rule="dpmpp_2m"), None),
        "projection, equal shares, Euler": (own, equal),
        "projection, Euler": (own, None),
        "projection, Heun": (replace(own, rule="heun"), None),
        "projection, DPM-Solver++(2M)": (replace(own, rule="dpmpp_2m"), None),
        "projection, ancestral": (replace(own, rule="ancestral"), None),
        "projection, DPM2 ancestral": (replace(own, rule="dpm2_ancestral"), None),
        "projection, Euler, from no noise": (replace(own, temperature=0.0), None),
        "projection, DPM-Solver++(2M), from no noise": (replace(own, temperature=0.0, rule="dpmpp_2m"), None),
        "default of a converted model": (Separation(), blind),
    }
    print(
        f"SI-SDRi, means over {len(truth)} songs; a rule that cannot take just so many takes fewer, a dash where it cannot"
    )
    print(
        "| likelihood and rule |" + "|".join(f"{n} evaluations" for n in budgets) + "|\n|---|" + "--:|" * len(budgets)
    )
    for name, (how, given) in ways.items():
        cells = []
        for n in budgets:
            fit = within(how, n)
            if fit.resample != how.resample:
                cells.append("-")
                continue
            figures = improvement(prior, replace(fit, churn=how.churn * fit.steps), truth, given)
            cells.append(f"{figures.mean():.2f}" if np.isfinite(figures).all() else "diverged")
        print(f"| {name} |" + "|".join(cells) + "|", flush=True)


def stems(prior: Prior, weak: Prior | None, truth: Tensor) -> None:
    """What the defaults give for each stem."""
    rows = {"defaults": separated(prior, prior.config.separation, truth)}
    if prior.config.spectra:
        rows["Wiener filter of the mean spectra (no network)"] = filtered(prior, truth)
    if weak is not None:
        rows["weakly supervised, the same sampler"] = separated(weak, prior.config.separation, truth)
    print(
        f"| SI-SDRi, {len(truth)} songs | mean | {' | '.join(prior.config.stems)} |\n|---|--:|"
        + "--:|" * truth.shape[1]
    )
    for name, made in rows.items():
        figures = per_stem(made, truth)
        each = [bootstrap(column[np.isfinite(column)]) for column in figures.T]
        print(f"| {name} | {bootstrap(np.nanmean(figures, 1))} | {' | '.join(map(str, each))} |")


def relations(prior: Prior, weak: Prior | None, truth: Tensor, steps: int, least: float) -> None:
    churn, own = 20 / 150 * steps, prior.config.separation
    dirac = replace(PUBLISHED_DIRAC, steps=steps, sigma_min=least, churn=churn, drop="bass")
    gaussian = replace(PUBLISHED_GAUSSIAN, steps=steps, sigma_min=least, churn=2 * churn)
    ours = f"ours, {evaluations_of(own)} evaluations"
    sampled = replace(own, likelihood="projection", steps=steps, temperature=1.0, churn=0.0, resample=1)
    equal = Projection(gaussian_variance(1.0, 1.0, 1.0, 1.0))
    ways: dict[str, tuple[Prior, Separation, Likelihood | None]] = {
        "Dirac + corrector": (prior, dirac, None),
        "Gaussian + corrector": (prior, gaussian, None),
        "Dirac": (prior, replace(dirac, resample=1), None),
        "Gaussian": (prior, replace(gaussian, resample=1), None),
        "Gaussian + corrector, gamma 0.25": (prior, replace(gaussian, gamma=0.25), None),
        "Gaussian + corrector, gamma 1": (prior, replace(gaussian, gamma=1.0), None),
        "Dirac + corrector, no churn": (prior, replace(dirac, churn=0.0), None),
        "drop drums": (prior, replace(dirac, drop="drums"), None),
        "drop guitar": (prior, replace(dirac, drop="guitar"), None),
        "drop piano": (prior, replace(dirac, drop="piano"), None),
        "even plane": (prior, replace(dirac, likelihood="even"), None),
        "projection, equal shares": (prior, sampled, equal),
        "projection by variances": (prior, sampled, None),
        ours: (prior, own, None),
    }
    if weak is not None:
        ways |= {
            "weak, Dirac + corrector": (weak, replace(dirac, churn=2 * churn), None),
            "weak, ours": (weak, own, None),
        }
    print(f"| sampler ({steps} steps) | SI-SDRi, mean over {len(truth)} songs |\n|---|--:|")
    made = {}
    for name, (which, how, given) in ways.items():
        made[name] = improvement(which, how, truth, given)
        print(f"| {name} | {bootstrap(made[name])} |", flush=True)
    claims = [
        ("Dirac + corrector", "Gaussian + corrector", "+1.9"),
        ("Dirac", "Gaussian", "+2.0"),
        ("Dirac + corrector", "Dirac", "+1.6"),
        ("Gaussian + corrector", "Gaussian", "+1.6"),
        ("Gaussian + corrector", "Gaussian + corrector, gamma 0.25", "gamma 0.75 to 1 best"),
        ("Gaussian + corrector, gamma 1", "Gaussian + corrector, gamma 0.25", "gamma 0.75 to 1 best"),
        ("Dirac + corrector", "Dirac + corrector, no churn", "churn 20 to 40 best"),
        ("Dirac + corrector", "drop drums", "bass was chosen"),
        ("Dirac + corrector", "drop guitar", "bass was chosen"),
        ("Dirac + corrector", "drop piano", "bass was chosen"),
        ("even plane", "Dirac + corrector", "not published"),
        ("projection by variances", "projection, equal shares", "not published"),
        ("projection by variances", "Dirac + corrector", "not published"),
        (ours, "Dirac + corrector", "not published"),
    ]
    if weak is not None:
        claims += [("weak, Dirac + corrector", "Dirac + corrector", "+0.8"), ("weak, ours", ours, "not published")]
    print("\n| first | second | published dB | here: first - second | relation |\n|---|---|---|--:|---|")
    for first, second, published in claims:
        result = paired(made[first], made[second]).difference
        print(f"| {first} | {second} | {published} | {result} | {verdict(result.low, result.high)} |")


def verdict(low: float, high: float) -> str:
    return "held" if low > 0 else "not held" if high < 0 else "open"


def generation(prior: Prior, truth: Tensor, steps: int) -> None:
    """sub-FAD: each of these sets of stems made, given the real rest; intervals from songs drawn again 200 times."""
    names, rate = prior.config.stems, prior.config.rate
    system, embedding = Joint.of(prior), load_embedding("cocola")

    def embedded(make: Callable[[int, Tensor], Tensor]) -> list[np.ndarray]:
        return [embedding.embed(make(i, stems).sum(0).numpy(), rate) for i, stems in enumerate(truth)]

    def completed(wanted: Sequence[str]) -> list[np.ndarray]:
        def make(i: int, stems: Tensor) -> Tensor:
            known = {name: stems[k, None] for k, name in enumerate(names) if name not in wanted}
            made = system.sample(wanted, Context(known, {}, 1.0), seed=i, steps=steps)
            both = stems.clone()
            both[[names.index(name) for name in wanted]] = made[:, 0]
            return both

        return embedded(make)

    real = embedded(lambda i, stems: stems)
    sets = [(name,) for name in names] + [("bass", "guitar", "piano"), tuple(names)]
    made = {" + ".join(wanted): completed(wanted) for wanted in sets}
    made["white noise for piano"] = embedded(lambda i, s: torch.cat([s[:3], s[3:].std() * torch.randn_like(s[3:])]))

    def distance(name: str, songs: np.ndarray) -> float:
        real_frames, made_frames = (np.concatenate([frames[i] for i in songs]) for frames in (real, made[name]))
        return frechet_distance(Gaussian.of(real_frames), Gaussian.of(made_frames))

    every, draw = np.arange(len(truth)), np.random.default_rng(0)
    again = [draw.integers(0, len(truth), len(truth)) for _ in range(200)]
    spread = {name: np.array([distance(name, songs) for songs in again]) for name in made}
    print(f"| made | FAD (COCOLA), {len(truth)} songs, {steps} steps | 95 % of redraws |\n|---|--:|---|")
    for name in made:
        low, high = np.quantile(spread[name], [0.025, 0.975])
        print(f"| {name} | {distance(name, every):.2f} | {low:.2f} to {high:.2f} |")
    print("\n| further from the real songs | than | published | difference | relation |\n|---|---|---|--:|---|")
    everything = " + ".join(names)
    claims = [
        ("bass + guitar + piano", "guitar", "4.90, 0.11"),
        ("bass", "guitar", "guitar least"),
        ("drums", "guitar", "guitar least"),
        ("piano", "guitar", "guitar least"),
        (everything, "bass + guitar + piano", "6.55 (another set), 4.90"),
        ("white noise for piano", "piano", "not published"),
    ]
    for first, second, published in claims:
        low, high = np.quantile(spread[first] - spread[second], [0.025, 0.975])
        found = distance(first, every) - distance(second, every)
        print(f"| {first} | {second} | {published} | {found:.2f} [{low:.2f}, {high:.2f}] | {verdict(low, high)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/msdm-band/best", help="a model folder")
    parser.add_argument("--weak", type=Path)
    parser.add_argument("--songs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--frames", type=int, help="length of a window; the model's own")
    parser.add_argument("--steps", type=int, default=150)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--curve", action="store_true", help="improvement against evaluations, every rule and likelihood")
    what.add_argument("--stems", action="store_true", help="the defaults, stem by stem")
    what.add_argument("--generation", action="store_true", help="sub-FAD")
    what.add_argument("--all", action="store_true", help="stems, relations, curve and sub-FAD")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 150, 300])
    parser.add_argument(
        "--sigma-min", type=float, default=1e-4, help="of the published rules, which diverge from 1e-4 in few steps"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_model(folder_of(args.model)).eval().requires_grad_(False)
    assert isinstance(prior, Prior)
    weak = load_model(args.weak).eval().requires_grad_(False) if args.weak else None
    assert weak is None or isinstance(weak, Prior)
    prior.config = replace(prior.config, window=args.frames or prior.config.window)  # what is made is as long
    truth = windows(args.songs, prior, args.count, prior.config.window)
    if args.stems or args.all:
        stems(prior, weak, truth)
    if args.all or not (args.stems or args.curve or args.generation):
        relations(prior, weak, truth, args.steps, args.sigma_min)
    if args.curve or args.all:
        curve(prior, truth, args.evaluations, args.sigma_min)
    if args.generation or args.all:
        generation(prior, truth, args.steps)


if __name__ == "__main__":
    main()
