"""A latent model small enough for tests: 8 kHz, half a second."""

from __future__ import annotations

import torch

from stemwise.codecs.mel import Mel
from stemwise.codecs.melvae import MelVaeConfig
from stemwise.nets.unet_stems import UNetStemsConfig
from stemwise.systems.msgld import LatentSampling, Msgld, MsgldConfig

CODEC = MelVaeConfig(
    mel=Mel(rate=8000, fft=256, hop=64, bands=16), window=4096, widths=(8, 16), groups=8, latent=4,
    vocoder_width=32, vocoder_rates=(8, 8), vocoder_kernels=(16, 16),
)  # fmt: skip
NET = UNetStemsConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(False, True))


def tiny(**sampling: object) -> Msgld:
    torch.manual_seed(0)
    prior = Msgld(MsgldConfig(codec=CODEC, net=NET, sampling=LatentSampling(**{"steps": 3, **sampling})))  # type: ignore[arg-type]
    torch.nn.init.normal_(prior.net.write.weight, std=0.02)
    prior.scale.fill_(0.5)
    return prior.eval().requires_grad_(False)
