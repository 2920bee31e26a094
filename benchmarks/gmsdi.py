"""The tables of GMSDI's poster in miniature: stems from a prior that has only ever heard mixtures.

    python benchmarks/gmsdi.py --choose data/valid                       # which sources are better extracted one by one
    python benchmarks/gmsdi.py --songs data/held-out --others msdm-band runs/msdm-band-weak/best
    python benchmarks/gmsdi.py --songs data/held-out --generation --others msdm-band
    python benchmarks/gmsdi.py --songs data/held-out --accompaniment --others msdm-band
    python benchmarks/gmsdi.py --cost

Songs, for example: stemwise songs make data/valid --count 40 --seconds 40 --fonts validation --first 900000
                    stemwise songs make data/held-out --count 40 --seconds 40 --fonts validation --first 910000

Separation: SI-SDR improvement in dB over the mixture, one window a song, mean over the stems that sound in it, with 95 %
bootstrap intervals over songs. Generation: Frechet distance of COCOLA's embedding (offline; VGGish's needs its weights) and
COCOLA's score of what was made against what was given; what is silent has none. All is cut to the length of the shortest
window, since distances depend on it. Intervals of distances: songs drawn again 200 times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from msdm_relations import closed, level, per_stem, verdict, windows
from torch import Tensor

import stemwise
from stemwise.coherence.guidance import resampled
from stemwise.coherence.scoring import AUDIBLE_DBFS, level_dbfs
from stemwise.embeddings import load_embedding
from stemwise.evaluate.gibbs import gibbs
from stemwise.loading import load_coherence
from stemwise.metrics.frechet import Gaussian, frechet_distance
from stemwise.metrics.statistics import bootstrap, paired
from stemwise.systems.gmsdi_system import GmsdiSystem
from stemwise.systems.sources import Sources
from stemwise.systems.system import Context, System


def opened(name: str) -> GmsdiSystem:
    system = stemwise.load(name, "cpu").system
    assert isinstance(system, GmsdiSystem)
    return system


def improvements(system: System, truth: Tensor) -> np.ndarray:
    """(song, stem), NaN where a stem is silent."""
    stems = torch.cat([system.separate(one.sum(0)[None, None], system.evaluations)[0] for one in truth])
    return per_stem(closed(stems[:, :, 0], truth.sum(1)), truth)


def filtered(system: GmsdiSystem, truth: Tensor) -> np.ndarray:
    """The Wiener filter of the words' spectra, which are of mixtures, too: the prior without its network."""
    power = system.prior.powers(system.sources.prompts(), truth.shape[-1])
    assert power is not None
    spectrum = torch.fft.rfft(truth.sum(1))[:, None] * (power / power.sum(0))
    return per_stem(torch.fft.irfft(spectrum, n=truth.shape[-1]), truth)


def choose(system: GmsdiSystem, truth: Tensor) -> None:
    """Separator against extractor on validation songs: what `extracted` in the configuration should be."""
    apart, one_by_one = (
        improvements(replace(system, extracted=()), truth),
        improvements(replace(system, extracted=system.names), truth),
    )
    better = [n for n, a, b in zip(system.names, np.nanmean(one_by_one, 0), np.nanmean(apart, 0)) if a > b]
    print(f"separator {np.nanmean(apart, 0).round(2)}, extractor {np.nanmean(one_by_one, 0).round(2)}")
    print(f"extracted: [{', '.join(better)}]")


def separation(system: GmsdiSystem, others: Sequence[str], truth: Tensor, gibbs_steps: int) -> None:
    names = system.names
    print(f"| SI-SDRi, {len(truth)} songs | mean | {' | '.join(names)} |\n|---|--:|" + "--:|" * len(names))

    def row(name: str, figures: np.ndarray) -> np.ndarray:
        each = [bootstrap(column[np.isfinite(column)]) for column in figures.T]
        print(f"| {name} | {bootstrap(np.nanmean(figures, 1))} | {' | '.join(map(str, each))} |", flush=True)
        return figures

    row("the words' spectra alone (no network)", filtered(system, truth))
    apart = row("GMSDI separator", improvements(replace(system, extracted=()), truth))
    alone = row("GMSDI extractor", improvements(replace(system, extracted=names), truth))
    chosen = f"extracted: {', '.join(system.extracted) or 'none'}"
    row(f"GMSDI ensemble, chosen on validation songs ({chosen})", improvements(system, truth))
    better = np.nanmean(apart, 0) > np.nanmean(alone, 0)
    row("oracle ensemble, chosen on these songs, as on the poster", np.where(better, apart, alone))
    for folder in others:
        model = stemwise.load(folder, "cpu")
        row(f"{type(model.system.prior).__name__} ({model.name})", improvements(model.system, truth))
    band, rate = stemwise.load("band", "cpu"), system.rate

    def regression(mixes: Tensor) -> Tensor:
        """Stems (B, stem, channel, time) of mixtures (B, channel, time) by a model that is no sampler here."""
        made = [band.separate(mix.numpy(), rate=rate) for mix in mixes]
        return torch.stack([torch.stack([stems[name][0] for name in names]) for stems in made])

    for steps in (1, gibbs_steps):
        sets = torch.cat([gibbs(regression, one.sum(0)[None, None], steps)[:, :, 0] for one in truth])
        label = "a regression separator in Demucs' place (band)" + (
            f" with Gibbs sampling, {steps} steps" if steps > 1 else ""
        )
        row(label, per_stem(sets, truth))


class Room:
    """Distances and coherence of what was made for some songs."""

    def __init__(self, rate: int) -> None:
        self.rate, self.embedding, self.encoder = rate, load_embedding("cocola"), load_coherence("cocola")

    def frames(self, signals: Sequence[Tensor]) -> list[np.ndarray]:
        return [self.embedding.embed(signal.numpy(), self.rate) for signal in signals]

    def distance(self, made: list[np.ndarray], real: list[np.ndarray]) -> str:
        def between(songs: np.ndarray) -> float:
            parts = (np.concatenate([frames[i] for i in songs]) for frames in (made, real))
            return frechet_distance(*(Gaussian.of(part) for part in parts))

        draw = np.random.default_rng(0)
        spread = [between(draw.integers(0, len(real), len(real))) for _ in range(200)]
        low, high = np.quantile(spread, [0.025, 0.975])
        return f"{between(np.arange(len(real))):.1f} [{low:.1f}, {high:.1f}]"

    @torch.no_grad()
    def coherence(self, given: Tensor, made: Tensor) -> np.ndarray:
        """(song,), NaN where a side is silent."""
        sides = [resampled(side, self.rate, self.encoder.rate)[:, : self.encoder.window] for side in (given, made)]
        silent = np.any([level_dbfs(side.numpy()) < AUDIBLE_DBFS for side in sides], axis=0)
        return np.where(silent, np.nan, self.encoder.score(*sides).numpy())


def generation(system: GmsdiSystem, others: dict[str, System], truth: Tensor, steps: int) -> None:
    names, room = system.names, Room(system.rate)
    nothing, frames = Context({}, {}, 1.0), min(how.window for how in (system, *others.values()))
    truth = truth[..., :frames]

    def alone(how: System, name: str) -> list[Tensor]:
        return [how.sample([name], nothing, seed=i, steps=steps)[0, 0, :frames] for i in range(len(truth))]

    weighted = replace(system, sources=Sources(system.sources.described, None, 2.0))
    real = room.frames(list(truth.sum(1)))
    print(f"| unconditional, {len(truth)} pieces, {steps} steps | FAD (COCOLA) of the sum of all sources |\n|---|--:|")
    for gamma in (0.1, 0.3, 1.0, 3.0, 100.0):
        sums = [
            replace(system, gamma=gamma).sample(names, nothing, seed=i, steps=steps).sum(0)[0, :frames]
            for i in range(len(truth))
        ]
        print(f"| GMSDI, gamma {gamma:g} | {room.distance(room.frames(sums), real)} |", flush=True)
    for other, joint in others.items():
        sums = [joint.sample(joint.names, nothing, seed=i, steps=steps).sum(0)[0, :frames] for i in range(len(truth))]
        print(f"| {other} | {room.distance(room.frames(sums), real)} |", flush=True)
    print(f"\n| single sources: FAD (COCOLA) | {' | '.join(names)} |\n|---|" + "--:|" * len(names))
    sources = {"GMSDI": system, "GMSDI, negative words, guidance 2": weighted}
    sources |= others  # type: ignore[arg-type]
    sounding = {name: [one[k] for one in truth if level(one[k]) > 2e-3] for k, name in enumerate(names)}
    stems = {name: room.frames(parts) for name, parts in sounding.items()}
    for label, how in sources.items():
        cells = [room.distance(room.frames(alone(how, name)[: len(stems[name])]), stems[name]) for name in names]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def accompaniment(systems: dict[str, System], truth: Tensor, steps: int) -> None:
    """Bass and drums are given, as much as a system hears at once; the rest is made, is another song's, or is the song's own."""
    room, frames = Room(next(iter(systems.values())).rate), min(how.window for how in systems.values())
    long, truth = truth, truth[..., :frames]
    real = room.frames(list(truth.sum(1)))
    names = next(iter(systems.values())).names
    given = [k for k, name in enumerate(names) if name in ("bass", "drums")]
    rest = [k for k in range(len(names)) if k not in given]

    def made_by(how: System) -> Tensor:
        made = []
        for i, one in enumerate(long):
            known = {names[k]: one[k, None, : how.window] for k in given}
            signals = how.sample([names[k] for k in rest], Context(known, {}, 1.0), seed=i, steps=steps)
            made.append(signals.sum(0)[0, :frames])
        return torch.stack(made)

    heard, own = truth[:, given].sum(1), truth[:, rest].sum(1)
    makers: dict[str, Callable[[], Tensor]] = {name: lambda how=how: made_by(how) for name, how in systems.items()}  # type: ignore[misc]
    makers |= {"another song's stems": lambda: own.roll(1, 0), "the song's own": lambda: own}
    made = {name: make() for name, make in makers.items()}
    scores = {name: room.coherence(heard, signal) for name, signal in made.items()}
    print(
        "\n| accompaniment of bass and drums | sub-FAD (COCOLA) | COCOLA | minus another song's stems | relation |\n|---|--:|--:|--:|---|"
    )
    beside = scores["another song's stems"]
    for name, signal in made.items():
        heard_both = np.isfinite(scores[name]) & np.isfinite(beside)
        against = paired(scores[name][heard_both], beside[heard_both]).difference
        says = "" if name == "another song's stems" else f"{against} | {verdict(against.low, against.high)}"
        distance = room.distance(room.frames(list(heard + signal)), real)
        silent = int(np.isnan(scores[name]).sum())
        label = f"{name} ({silent} silent)" if silent else name
        scored = bootstrap(scores[name][np.isfinite(scores[name])])
        print(f"| {label} | {distance} | {scored} | {says or '| '} |", flush=True)


def cost(system: GmsdiSystem, repeats: int = 5) -> None:
    """CPU seconds of one thread for a window of K sources and their mixture: one batch, or one after the other."""
    print("| sources | one batch, s per s of music | one after the other | ratio |\n|---|--:|--:|--:|")
    described = system.sources.described

    def seconds(run: Callable[[], object]) -> float:
        taken = []
        for _ in range(repeats):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
        return float(np.median(taken)) * system.evaluations * system.rate / system.window

    def row(count: int) -> str:
        every = Sources(described[:count]).prompts()
        every = [*every, every[0]]  # the mixture
        x, sigma = torch.randn(1, count + 1, system.window), torch.tensor(0.1)
        batched, single = system.prior.prompted(every), [system.prior.prompted([prompt]) for prompt in every]
        together = seconds(lambda: batched(x, sigma))
        apart = seconds(lambda: [one(x[:, k : k + 1], sigma) for k, one in enumerate(single)])
        return f"| {count} | {together:.3f} | {apart:.3f} | {apart / together:.2f} |"

    for count in (1, 2, 4):
        print(row(count), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gmsdi-band")
    parser.add_argument("--others", nargs="*", default=[], help="MSDM of the same size, to compare with")
    parser.add_argument("--songs", type=Path)
    parser.add_argument("--choose", type=Path, help="validation songs")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--gibbs", type=int, default=8, help="steps of the Gibbs sampling, 512 on the poster")
    parser.add_argument("--generation", action="store_true")
    parser.add_argument("--accompaniment", action="store_true")
    parser.add_argument("--cost", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    system = opened(args.model)
    if args.cost:
        return cost(system)
    others = {other: stemwise.load(other, "cpu").system for other in args.others}
    longest = max(how.window for how in (system, *others.values())) if args.accompaniment else system.window
    truth = windows(args.choose or args.songs, system.prior, args.count, longest)
    if args.choose:
        choose(system, truth)
    elif args.generation:
        generation(system, others, truth, args.steps)
    elif args.accompaniment:
        accompaniment({"GMSDI": system, **others}, truth, args.steps)
    else:
        separation(system, args.others, truth, args.gibbs)
    return None


if __name__ == "__main__":
    main()
