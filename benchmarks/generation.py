"""Do generated stems belong together? Onset and chroma agreement against stems shuffled across songs.

    python benchmarks/generation.py --songs 24 --steps 16

Accompaniment: all stems of a held-out song but one are given, that one is made, for every pitched stem and, in every third
song, the drums; agreement is measured between what was made and what was given. Generation: all stems are made; agreement
between every stem and the rest. Agreement is the cosine of chroma frames (chroma; not of drums, which have no pitch) and the
correlation of onset strength (onset). The null hypothesis is that a made stem agrees with its own context no better than
with those of other songs; test: contexts shuffled across songs 99,999 times, stem by stem, one-sided. (A full context agrees
with anything, and a dense answer too; shuffling keeps both as they are.)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import librosa
import numpy as np
import torch
from scipy.stats import ks_2samp

import stemwise
from stemwise.songs import folder
from stemwise.songs.synthetic import write_songs

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 960_000
RATE = 22050
HOP = 512
SILENT = 1e-3
ROUNDS = 99_999


def features(wave: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Chroma (12, frames), onset strength (frames,), and level in dB, onsets a second, spectral centroid in Hz."""
    mono = librosa.resample(wave.mean(0), orig_sr=rate, target_sr=RATE)
    spectrum = np.abs(librosa.stft(mono, n_fft=2048, hop_length=HOP))
    chroma = librosa.feature.chroma_stft(S=spectrum**2, sr=RATE, tuning=0.0, norm=None)
    onset = librosa.onset.onset_strength(y=mono, sr=RATE, hop_length=HOP)
    level = 20 * np.log10(np.sqrt(np.mean(mono**2)) + 1e-6)
    rate_of_onsets = len(librosa.onset.onset_detect(onset_envelope=onset, sr=RATE, hop_length=HOP)) * RATE / len(mono)
    loud = spectrum.sum(0) > 0.1 * spectrum.sum(0).max()
    centroid = float(np.mean(librosa.feature.spectral_centroid(S=spectrum[:, loud], sr=RATE))) if loud.any() else 0.0
    return chroma, onset, (float(level), float(rate_of_onsets), centroid)


def agreement(a: tuple, b: tuple) -> tuple[float, float]:
    """Chroma and onset agreement of two feature triples."""
    x, y = a[0], b[0]
    n = min(x.shape[1], y.shape[1])
    x, y = x[:, :n], y[:, :n]
    norm = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    heard = norm > 1e-3 * norm.max() + 1e-12
    chroma = float(np.mean((x * y).sum(0)[heard] / norm[heard])) if heard.any() else 0.0
    n = min(len(a[1]), len(b[1]))
    onset = float(np.corrcoef(a[1][:n], b[1][:n])[0, 1])
    return chroma, 0.0 if np.isnan(onset) else onset


Pairs = tuple[list, list]
"""Features of what was made, and of the contexts that it was made for."""


def test(name: str, kind: str, groups: Iterable[Pairs]) -> None:
    """A row: agreement with the own context and with those of other songs; `groups` are shuffled each for itself."""
    k = ("chroma", "onset").index(kind)
    tables = [
        np.array([[agreement(m, c)[k] for c in context] for m in made]) for made, context in groups if len(made) > 1
    ]
    own = np.concatenate([np.diag(t) for t in tables])
    other = np.concatenate([(t.sum(1) - np.diag(t)) / (len(t) - 1) for t in tables])
    rng = np.random.default_rng(0)
    shuffled = sum(
        np.array([t[np.arange(len(t)), rng.permutation(len(t))].sum() for _ in range(ROUNDS)]) for t in tables
    )
    p = (1 + np.sum(shuffled >= own.sum() - 1e-9)) / (1 + ROUNDS)
    print(f"| {name} | {kind} | {own.mean():.3f} | {other.mean():.3f} | {p:.2g} | {len(own)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="band")
    parser.add_argument("--fonts", choices=["train", "validation", "builtin"], default="validation")
    parser.add_argument("--songs", type=int, default=24)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "benchmark-songs")
    args = parser.parse_args()
    model = stemwise.load(args.model)
    where = args.data / f"generation-{args.fonts}"
    for _ in write_songs(where, range(FIRST_SEED, FIRST_SEED + args.songs), fonts=args.fonts, seconds=20):
        pass
    names = model.stems
    seconds = model.window / model.rate
    real: dict[str, list] = {name: [] for name in names}
    pitched = [name for name in names if name != "drums"]
    made: dict[str, Pairs] = {name: ([], []) for name in names}
    silent = asked = 0
    for i, song in enumerate(folder(where)[: args.songs]):
        truth = song.read(int(6 * song.rate), model.window, names)
        active = [n for n, s in zip(names, truth, strict=True) if np.sqrt(np.mean(s**2)) > SILENT]
        for name, stem in zip(names, truth, strict=True):
            if name in active:
                real[name].append(features(stem, song.rate))
        for name in active if len(active) > 1 else []:
            if name == "drums" and i % 3:
                continue
            given = {n: truth[names.index(n)] for n in active if n != name}
            seed = len(names) * i + names.index(name)
            answer = model.accompany(given, [name], rate=song.rate, seed=seed, steps=args.steps)[name][0].numpy()
            asked += 1
            if np.sqrt(np.mean(answer**2)) < SILENT:
                silent += 1
                continue
            made[name][0].append(features(answer, song.rate))
            made[name][1].append(features(sum(given.values()), song.rate))
    print(f"\nAgreement over windows of {seconds:.1f} s, {args.fonts} fonts, {args.steps} steps")
    print("| | agreement | own | other songs' | p | n |\n|---|---|--:|--:|--:|--:|")
    for kind, played in (("chroma", pitched), ("onset", names)):
        test("accompany", kind, [made[name] for name in played])
    songs = [model.generate(seconds, seed=1000 + i, steps=args.steps) for i in range(args.songs)]
    new: dict[str, list] = {name: [] for name in names}
    pairs: dict[str, Pairs] = {"bass": ([], []), "drums": ([], []), "piano": ([], [])}
    for song in songs:
        loud = {n: song[n][0].numpy() for n in names if float(song[n].square().mean().sqrt()) > SILENT}
        asked, silent = asked + len(names), silent + len(names) - len(loud)
        for name, stem in loud.items():
            new[name].append(features(stem, model.rate))
        for name, (a, b) in pairs.items():
            if name in loud and len(loud) > 1:
                a.append(features(loud[name], model.rate))
                b.append(features(sum(s for n, s in loud.items() if n != name), model.rate))
    for name, (a, b) in pairs.items():
        if len(a) > 5:
            for kind in ("chroma", "onset") if name in pitched else ("onset",):
                test(f"generate: {name} with the rest", kind, [(a, b)])
    print(f"\nSilent results: {silent} of {asked} stems")
    print(
        "\n| stem | level dB real / made | onsets a second | centroid Hz | KS p (level, onsets, centroid) |\n|---|---|---|---|---|"
    )
    for name in names:
        if len(new[name]) > 2 and len(real[name]) > 2:
            r, m = (np.array([f[2] for f in rows]) for rows in (real[name], new[name]))
            p = [ks_2samp(r[:, k], m[:, k]).pvalue for k in range(3)]
            cells = " | ".join(f"{r[:, k].mean():.1f} / {m[:, k].mean():.1f}" for k in range(3))
            print(f"| {name} | {cells} | {', '.join(f'{v:.2g}' for v in p)} |")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
