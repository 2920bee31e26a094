"""MSDM at its published size with random weights: time of an evaluation and of a separated window, and peak memory.

    python benchmarks/msdm_speed.py               # the baseline is benchmarks/msdm_plain.py; CPU seconds of one thread
    python benchmarks/msdm_speed.py --memory      # peak memory of one window, each way in a process of its own

A published separation is 300 evaluations times their time, ours is run. It is evaluated in bfloat16 where the CPU multiplies
it natively, else in float32. Whether fewer evaluations cost quality is measured by benchmarks/msdm_relations.py --curve.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import msdm_plain
import torch

from stemwise.loading import pick_precision
from stemwise.systems.joint import Joint
from stemwise.systems.msdm import Msdm, MsdmConfig, WeakMsdm

PUBLISHED = 300


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    run()
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def tell(which: str, window: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{which}: peak {peak:.0f} MB for one window of {window} samples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument(
        "--peak", choices=["plain", "ours", "weak"], help="that of one way: weak, four networks of 6 GB"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        for which in ("plain", "ours"):
            subprocess.run([sys.executable, __file__, "--peak", which], check=True)
        return
    config, precision = MsdmConfig(), pick_precision("auto", torch.device("cpu"))
    mix = 0.1 * torch.randn(1, 1, config.window)
    with torch.inference_mode():
        if args.peak:
            if args.peak == "weak":
                with torch.inference_mode(False), torch.no_grad():
                    net = replace(config.net, sources=1)  # type: ignore[type-var]
                    weak = WeakMsdm(replace(config, net=net)).eval().requires_grad_(False)
                    Joint.of(weak, precision).separate(mix.clone(), 2)
                tell(args.peak, config.window)
                return
            net = Msdm(config).eval()
            if args.peak == "plain":
                msdm_plain.separate(
                    lambda x, s: msdm_plain.denoise(net.net, x, s, 0.2), mix, 4, [1.0, 0.1, 0.0], resample=1
                )
            else:
                Joint.of(net, precision).separate(mix, 2)
            tell(args.peak, config.window)
            return
        prior = Msdm(config).eval()
        x, label = torch.randn(1, 4, config.window), torch.tensor([-0.5])
        plain = cpu_seconds(lambda: msdm_plain.evaluate(prior.net, x, label), args.repeats)
        same = cpu_seconds(lambda: prior.net(x, label), args.repeats)
        system = Joint.of(prior, precision)
        ours = cpu_seconds(lambda: prior.net(x, label), args.repeats)
        started = time.process_time()
        system.separate(mix, system.evaluations)
        whole = time.process_time() - started
    weights, kind = sum(p.numel() for p in prior.parameters()), str(precision).removeprefix("torch.")
    print(f"CPU seconds of one thread, medians of {args.repeats}; window {config.window} samples, {weights:,} weights")
    print(
        f"one evaluation: plain float32 {plain:.2f}, ours float32 {same:.2f} ({plain / same:.2f} times), "
        f"ours {kind} {ours:.2f} ({plain / ours:.2f} times)"
    )
    print(
        f"one window: published {PUBLISHED} evaluations {PUBLISHED * plain:.0f}, "
        f"ours {system.evaluations} evaluations {whole:.1f} ({PUBLISHED * plain / whole:.1f} times)"
    )


if __name__ == "__main__":
    main()
