"""A base and an adapter small enough for tests: 8 kHz, half a second; without a codec to train, or with the published kind."""

from __future__ import annotations

from typing import Any

import torch

from stemwise.codecs.mel import Mel
from stemwise.codecs.melpatches import MelPatchesConfig
from stemwise.systems.componet import Componet, ComponetConfig, ComponetSampling
from stemwise.systems.componet_base import AudioLdm2Config, TextConfig
from tiny_msgld import CODEC

STEMS = ("bass", "drums", "guitar", "piano")
PATCHES = MelPatchesConfig(patch=(4, 4), mel=Mel(rate=8000, fft=256, hop=64, bands=16), window=4096, rounds=2)


def net(channels: int) -> dict[str, Any]:
    return {
        "in_channels": channels, "out_channels": channels, "layers_per_block": 1, "norm_num_groups": 4,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": [[None, 6, 10]] * 2, "attention_head_dim": 2,
    }  # fmt: skip


BASE = AudioLdm2Config(stems=STEMS, codec=PATCHES, unet=net(16), text=TextConfig("words", (6, 10)))
MELVAE = AudioLdm2Config(stems=STEMS, codec=CODEC, unet=net(4), text=TextConfig("words", (6, 10)))


def tiny(base: AudioLdm2Config = BASE, **sampling: Any) -> Componet:
    """With an adapter that is not at zero any more."""
    torch.manual_seed(0)
    model = Componet(ComponetConfig(base, ComponetSampling(**{"steps": 2, **sampling})))
    for layer in (*model.control.skips, model.control.middle):
        torch.nn.init.normal_(layer.weight, std=0.1)
    model.base.scale.fill_(0.3)
    return model.eval().requires_grad_(False)
