"""Speed of separation: a 3-minute stereo song through the whole pipeline, files included, as times real time.

python benchmarks/speed.py --threads 2 --repeats 3
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/speed.py --precision float32   # as an older machine
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

import stemwise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="band")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        song = Path(scratch) / "song.wav"
        soundfile.write(song, 0.1 * rng.standard_normal((int(args.seconds * 44100), 2)), 44100, subtype="FLOAT")
        started = time.perf_counter()
        model = stemwise.load(args.model, "cpu", args.precision)
        print(f"loading: {time.perf_counter() - started:.2f} s")
        times = []
        for i in range(args.repeats):
            started = time.perf_counter()
            model.separate_file(song, Path(scratch) / f"stems-{i}")
            times.append(time.perf_counter() - started)
    median = statistics.median(times)
    print(
        f"{args.seconds:.0f} s stereo, {args.threads} threads, {model.precision}: median {median:.1f} s of {len(times)} = "
        f"{args.seconds / median:.1f} times real time"
    )


if __name__ == "__main__":
    main()
