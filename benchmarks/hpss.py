"""Harmonic and percussive features of 5 s windows: ours against librosa's decomposition and mel filters, on one thread.

python benchmarks/hpss.py --repeats 7 --song 60
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import librosa
import numpy as np
import torch

from stemwise.coherence.features import RATE, HarmonicPercussive


def reference(audio: np.ndarray) -> np.ndarray:
    """The published way (librosa 0.11): both parts of a window, mel, dB below its loudest."""
    spectrum = librosa.stft(audio, n_fft=1024, hop_length=160, win_length=400)
    rows = []
    for part in librosa.decompose.hpss(spectrum):
        mel = librosa.feature.melspectrogram(S=np.abs(part) ** 2, sr=RATE, n_mels=64, fmin=60, fmax=7800)
        rows.append(librosa.power_to_db(mel, ref=np.max))
    return np.stack(rows)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one run: on a busy machine the clock on the wall says more about the others."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--song", type=int, default=60, help="seconds of the song that is heard in windows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    place = np.arange(args.song * RATE) / RATE
    song = sum(np.sin(2 * np.pi * f * place) * np.exp(-4 * (place % 0.5)) for f in (110, 220, 331, 440))
    song = (0.1 * song + 0.02 * rng.standard_normal(len(place))).astype(np.float32)
    starts = list(range(0, len(song) - 5 * RATE + 1, 5 * RATE // 2))
    features = HarmonicPercussive()
    tensor, window = torch.from_numpy(song), song[: 5 * RATE]

    difference = np.abs(features(tensor[None, : 5 * RATE].double())[0].numpy() - reference(window)).max()
    rows: dict[str, list[float]] = {"librosa, one window": [], "ours, one window": [], "ours, a window of a song": []}
    with torch.inference_mode():
        for _ in range(args.repeats):
            rows["librosa, one window"].append(seconds(lambda: reference(window)))
            rows["ours, one window"].append(seconds(lambda: features(tensor[None, : 5 * RATE])))
            whole = seconds(lambda: features.windows(tensor, starts, 5 * RATE))
            rows["ours, a window of a song"].append(whole / len(starts))
    base = statistics.median(rows["librosa, one window"])
    print(
        f"largest difference {difference:.1e} dB; median of {args.repeats}, {len(starts)} windows in {args.song} s, processor time"
    )
    for name, times in rows.items():
        median = statistics.median(times)
        print(f"{name:26} {1e3 * median:7.1f} ms   {base / median:5.1f} times as fast")


if __name__ == "__main__":
    main()
