"""What CompoNet's adapter costs: an evaluation over the base's, and a step of training with and without kept latents.

    python benchmarks/componet_cost.py               # all; some three CPU minutes
    python benchmarks/componet_cost.py --part flops  # the published size, counted on the meta device: seconds
    python benchmarks/componet_cost.py --part small  # CPU seconds of one thread and peak memory of small networks

Counted: floating-point operations of the large U-Net on a latent of 10.24 s, as torch counts them. Timed: U-Nets of 11 million
weights and autoencoders of the published kind at a quarter of its width, batch 4 of 5.12 s, each way in a process of its own; the
peak is that of the process above the memory it held before its first step. No quality is measured here.
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
from torch.utils.flop_counter import FlopCounterMode

from stemwise.codecs.melvae import MelVae, MelVaeConfig
from stemwise.nets.control import ControlNet
from stemwise.nets.pretrained import audioldm2_unet
from stemwise.systems.componet import Componet, ComponetConfig
from stemwise.systems.componet_base import LARGE, AudioLdm2Config, TextConfig

CODEC = MelVaeConfig(widths=(32, 64, 128), blocks=2, latent=8, groups=16, vocoder_width=64, window=81_920)
UNET = {**LARGE, "block_out_channels": [32, 64, 96, 128], "norm_num_groups": 16, "cross_attention_dim": [[None, 64, 64, None]] * 4,
        "transformer_layers_per_block": 1, "attention_head_dim": 4}  # fmt: skip
BATCH = 4
WAYS = ("base", "base and adapter", "step", "step, recomputed", "step, kept latents", "step, kept latents, recomputed")


def counted() -> None:
    with torch.device("meta"):
        unet, codec = audioldm2_unet(LARGE), MelVae(MelVaeConfig())
        control = ControlNet(LARGE)
        x, t = torch.randn(1, 8, 256, 16), torch.zeros(1)
        context = {
            "encoder_hidden_states": torch.randn(1, 8, 768),
            "encoder_hidden_states_1": torch.randn(1, 30, 1024),
            "encoder_attention_mask_1": torch.ones(1, 30),
        }

        def flops(run: object) -> float:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()  # type: ignore[operator]
            return counter.get_total_flops() / 1e9

        base, adapter = flops(lambda: unet(x, t, **context)), flops(lambda: control(x, t, x, **context))
        encoded = flops(lambda: codec.posterior(torch.randn(1, 1024, 64)))
    for name, net in (("U-Net", unet), ("adapter", control), ("autoencoder and vocoder", codec)):
        print(f"{name}: {sum(p.numel() for p in net.parameters()) / 1e6:.1f} million weights")
    print(
        f"an evaluation: base {base:.0f} GFLOP, adapter {adapter:.0f}, together {1 + adapter / base:.3f} times the base"
    )
    trained = 3 * adapter + 2 * base  # the base's first half is only run forwards, its second half back to its inputs
    print(f"two latents encoded: {2 * encoded:.0f} GFLOP, beside about {trained:.0f} for the rest of a step")


def model(recompute: bool) -> Componet:
    torch.manual_seed(0)
    base = AudioLdm2Config(codec=CODEC, unet=UNET, text=TextConfig("words", (64, 64)))
    made = Componet(ComponetConfig(base, recompute=recompute))
    made.base.scale.fill_(1.0)
    return made


def timed(way: str, repeats: int) -> dict[str, float]:
    net = model("recomputed" in way)
    x, t = torch.randn(1, *CODEC.shape(163_840)), torch.tensor([500])
    stems = torch.tensor([[True] * 4])
    with torch.no_grad():
        context = net.base.words(stems, stems, stems[:, 0]).context()
        kept = "kept" in way
        batch = (
            torch.randn(BATCH, 16, *CODEC.shape(CODEC.window)).half()
            if kept
            else 0.1 * torch.randn(BATCH, 4, 1, CODEC.window)
        )
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent = []
    for _ in range(repeats + 1):
        started = time.process_time()
        if way.startswith("base"):
            with torch.no_grad():
                net.predict(x, t, x, context, 1.0 if "adapter" in way else 0.0)
        else:
            net.train()
            net.loss(batch, torch.Generator().manual_seed(0)).backward()
            optimizer.step()
            optimizer.zero_grad()
        spent.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(spent[1:]), "above": peak - before}


def small(repeats: int) -> None:
    found = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--repeats", str(repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout)
        print(f"{way:32s} {found[way]['seconds']:7.3f} s   {found[way]['above']:7.0f} MB above what was held before")
    ratio = found["base and adapter"]["seconds"] / found["base"]["seconds"]
    print(f"an evaluation with the adapter: {ratio:.3f} times the base's")
    print(
        f"kept latents: {found['step']['seconds'] / found['step, kept latents']['seconds']:.2f} times as many steps a second"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["flops", "small", "all"], default="all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.way:
        print(json.dumps(timed(args.way, args.repeats)))
        return
    if args.part != "small":
        counted()
    if args.part != "flops":
        small(args.repeats)


if __name__ == "__main__":
    main()
