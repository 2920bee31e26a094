"""Does guiding the band by coherence help, and what does it do to the sound?

    python benchmarks/coherence_guidance.py --songs 6 --steps 12

One window of a held-out song: bass and drums are given, piano and guitar are made, from the same seed without guidance
and with the score's force at the clean estimate (x0) or through the denoiser, at several strengths. Beside the score
that was guided, which an adversary could raise as well: chroma and onset agreement with what was given (as in
generation.py), level and spectral centroid. Best of N at the same cost is the rival: the time of each is shown.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from generation import FIRST_SEED, ROOT, agreement, features

import stemwise
from stemwise.coherence.guidance import coherence_energy
from stemwise.diffusion.guidance import energy, energy_at_x0
from stemwise.errors import ScoreError
from stemwise.loading import load_coherence
from stemwise.metrics.statistics import bootstrap
from stemwise.scores import Listening, score_parts
from stemwise.songs import folder
from stemwise.songs.synthetic import write_songs

GIVEN, WANTED = ("bass", "drums"), ("piano", "guitar")


def guided(model: stemwise.Model, encoder: torch.nn.Module, where: str, strength: float) -> stemwise.Model:
    """The model with its sampler guided: strength * min(1, 1 / sigma^2) times the score, so that the outline comes first."""
    through = {"x0": energy_at_x0, "denoiser": energy}[where]

    def guide(denoiser, context, decode):
        heard = torch.stack(list(context.known.values())).sum(0)
        weight = lambda sigma: strength / torch.as_tensor(sigma).clamp_min(1.0) ** 2  # noqa: E731
        return through(denoiser, coherence_energy(encoder, heard, model.rate, decode, weight))

    return replace(model, system=replace(model.system, guide=guide))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="band")
    parser.add_argument("--encoder", default="cocola")
    parser.add_argument("--fonts", choices=["train", "validation", "builtin"], default="validation")
    parser.add_argument("--songs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--takes", type=int, default=4, help="for best of N")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--through", nargs="+", choices=["x0", "denoiser"], default=["x0"])
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "benchmark-songs")
    args = parser.parse_args()
    model, encoder = stemwise.load(args.model), load_coherence(args.encoder)
    how = Listening(encoder)
    where = args.data / f"generation-{args.fonts}"
    for _ in write_songs(where, range(FIRST_SEED, FIRST_SEED + args.songs), fonts=args.fonts, seconds=20):
        pass
    unguided = replace(model, system=replace(model.system, guide=lambda denoiser, _, __: denoiser))  # the same sampler
    variants = {"none": unguided} | {
        f"{through} {strength:g}": guided(model, encoder, through, strength)
        for through in args.through
        for strength in args.strengths
    }
    names = [*variants, f"best of {args.takes}"]
    rows: dict[str, list[list[float]]] = {name: [] for name in names}
    spent = dict.fromkeys(names, 0.0)
    for i, song in enumerate(folder(where)[: args.songs]):
        truth = dict(zip(model.stems, song.read(int(6 * song.rate), model.window, model.stems)))
        given = {name: truth[name] for name in GIVEN}
        context = features(sum(given.values()), song.rate)

        def take(name: str, seed: int, i: int = i, given: dict = given, song=song) -> tuple[float, stemwise.Audio]:
            started = time.process_time()
            audio = variants[name].accompany(given, WANTED, rate=song.rate, seed=seed, steps=args.steps)
            try:
                worth = score_parts(audio, GIVEN, WANTED, how=how).coherence.mean
            except ScoreError:
                worth = float("nan")
            spent[name if seed == i else names[-1]] += time.process_time() - started
            return worth, audio

        found = {name: take(name, i) for name in variants}
        more = [take("none", 1000 * k + i) for k in range(1, args.takes)]
        scored = [entry for entry in [found["none"], *more] if np.isfinite(entry[0])]
        if not scored or not all(np.isfinite(worth) for worth, _ in found.values()):
            continue
        found[names[-1]] = max(scored, key=lambda entry: entry[0])
        for name, (worth, audio) in found.items():
            made = features(audio[set(WANTED)][0].numpy(), song.rate)
            rows[name].append([worth, *agreement(made, context), made[2][0], made[2][2]])
    spent[names[-1]] += spent["none"]
    base = np.array(rows["none"])
    print(f"\n{len(base)} windows, {args.fonts} fonts, {args.steps} steps; gain over none with its 95 % interval")
    print("| guidance | coherence | gain | chroma | onset | level dB | centroid Hz | CPU s a window |")
    print("|---|--:|---|--:|--:|--:|--:|--:|")
    for name in names:
        table = np.array(rows[name])
        mean = table.mean(0)
        gain = bootstrap(table[:, 0] - base[:, 0])
        print(
            f"| {name} | {mean[0]:.2f} | {gain} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.1f} | {mean[4]:.0f} "
            f"| {spent[name] / args.songs:.1f} |"
        )


if __name__ == "__main__":
    main()
