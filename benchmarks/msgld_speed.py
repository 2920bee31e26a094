"""MSG-LD's U-Net at its published size with random weights: time and peak memory of one pass, beside the published arithmetic.

    python benchmarks/msgld_speed.py               # CPU seconds of one thread, medians; each way in a process of its own
    python benchmarks/msgld_speed.py --repeats 1   # quicker: a pass is 1.9 TFLOP

"plain" is the published arithmetic written down straightforwardly on the same weights: attention that holds the whole
matrix of weights, in float32, and the mixture pooled anew before every block. Reported apart: the mixture's pyramid, which
ours makes once a window, and the second pass, which the published sampler takes at guidance scale 0 and ours does not.
Quality against evaluations needs trained weights and is not measured here.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stemwise.nets.unet_stems import HEAD, Attention, UNetStems, UNetStemsConfig, time_embedding

SHAPE = (1, 4, 8, 256, 16)  # 10.24 s


def attend(layer: Attention, x: Tensor) -> Tensor:
    """(1, width, depth, time, mel): the whole matrix of every head at once."""
    h = layer.norm(x).flatten(2).transpose(1, 2)
    heads = layer.query_key_value(h).unflatten(2, (-1, 3, HEAD)).permute(3, 0, 2, 1, 4)
    query, key, value = (part * HEAD**-0.25 if index < 2 else part for index, part in enumerate(heads))
    weights = (query @ key.transpose(-1, -2)).float().softmax(-1).to(x.dtype)
    h = weights @ value
    return x + layer.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)


def run_plain(block: nn.Module, h: Tensor, noise: Tensor) -> Tensor:
    if block.convolution is not None:
        h = block.convolution(h)
    if block.residual is not None:
        h = block.residual(h, noise)
    if block.attention is not None:
        h = attend(block.attention, h)
    if block.enlarge is not None:
        h = block.enlarge(F.interpolate(h, scale_factor=(1, 2, 2), mode="nearest"))
    return h


def plain(net: UNetStems, x: Tensor, step: Tensor, mixture: Tensor) -> Tensor:
    """As `UNetStems.forward`; the mixture is its latent (1, depth, time, mel)."""
    noise = F.silu(net.time[1](F.silu(net.time[0](time_embedding(step, net.config.channels)))))

    def pooled(like: Tensor) -> Tensor:
        m = mixture[:, None]
        while m.shape[-1] > like.shape[-1]:
            m = F.avg_pool3d(m, (1, 2, 2))
        return m

    h, skips = x, []
    for block in net.encoder:
        h = run_plain(block, h + pooled(h), noise)
        skips.append(h)
    for block in net.middle:
        h = run_plain(block, h, noise)
    for block in net.decoder:
        h = torch.cat([h, skips.pop()], 1)
        h = run_plain(block, h + pooled(h), noise)
    return net.write(F.silu(net.norm(h)))


def measure(way: str, channels: int, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    net = UNetStems(UNetStemsConfig(channels=channels)).eval()
    for weight in net.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.02)
    x, mixture, step = torch.randn(SHAPE), torch.randn(SHAPE[:1] + SHAPE[2:]), torch.tensor([500])
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent, pyramid_time, pyramid = [], 0.0, []
    with torch.inference_mode():
        if way == "ours":
            started = time.process_time()
            pyramid = net.pyramid(mixture)
            pyramid_time = time.process_time() - started
        for _ in range(repeats):
            started = time.process_time()
            out = net(x, step, pyramid) if way == "ours" else plain(net, x, step, mixture)
            spent.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sample = float(out.double().square().mean().sqrt())
    return {
        "seconds": statistics.median(spent),
        "pyramid": pyramid_time,
        "peak": peak,
        "above": peak - base,
        "rms": sample,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--channels", type=int, default=128, help="128 or 192, as published")
    parser.add_argument("--way", choices=["plain", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.way:
        print(json.dumps(measure(args.way, args.channels, args.repeats)))
        return
    found = {}
    for way in ("plain", "ours"):
        command = [
            sys.executable,
            __file__,
            "--way",
            way,
            "--repeats",
            str(args.repeats),
            "--channels",
            str(args.channels),
        ]
        found[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    a, b = found["plain"], found["ours"]
    print(f"one pass of {args.channels} channels, float32, one thread, CPU seconds, medians of {args.repeats}")
    print(f"time: plain {a['seconds']:.1f}, ours {b['seconds']:.1f}: {a['seconds'] / b['seconds']:.2f} times faster")
    print(
        f"peak above weights, MB: plain {a['above']:.0f}, ours {b['above']:.0f}: {a['above'] / b['above']:.2f} times less"
    )
    print(
        f"peak of the process, MB: plain {a['peak']:.0f}, ours {b['peak']:.0f}: {a['peak'] / b['peak']:.2f} times less"
    )
    print(f"apart: the pyramid, once a window, {b['pyramid'] * 1000:.1f} ms; guidance 0 takes one pass instead of two")
    print(f"root mean square of the output: plain {a['rms']:.6f}, ours {b['rms']:.6f}")


if __name__ == "__main__":
    main()
