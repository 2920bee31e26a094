"""A prior of described mixtures small enough for tests: four words, 8 kHz, an eighth of a second."""

from __future__ import annotations

import torch

from stemwise.nets.unet1d import UNet1dConfig
from stemwise.systems.gmsdi import Gmsdi, GmsdiConfig

NET = UNet1dConfig(
    sources=1, channels=16, patch=4, multipliers=(1, 1, 1), factors=(2, 2), blocks=(1, 1), attention=(False, True),
    heads=2, head_features=8, expansion=1, groups=4, context=12,
)  # fmt: skip
WORDS = ("bass", "drums", "electric guitar", "piano")
CONFIG = GmsdiConfig(words=WORDS, rate=8000, window=1024, net=NET)


def prior() -> Gmsdi:
    torch.manual_seed(0)
    made = Gmsdi(CONFIG)
    for name, weight in made.named_parameters():
        if name.endswith("words.out.weight"):
            torch.nn.init.normal_(weight)
    return made.eval().requires_grad_(False)
