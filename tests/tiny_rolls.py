"""A prior of rolls so small that it answers in milliseconds; it knows nothing about music."""

from __future__ import annotations

import torch

from stemwise.nets.transunet import TransUnetConfig
from stemwise.systems.roll_system import RollSystem
from stemwise.systems.rolls import RollPrior, RollPriorConfig, Sampling

NET = TransUnetConfig(29, 10, widths=(8, 8, 8, 8), kernel=3, layers=1, heads=2, rows=72)


def tiny_prior() -> RollPrior:
    torch.manual_seed(0)
    prior = RollPrior(RollPriorConfig(net=NET, sampling=Sampling(steps=3)))
    for parameter in prior.net.write.parameters():
        torch.nn.init.normal_(parameter)
    return prior.eval().requires_grad_(False)


def tiny_system() -> RollSystem:
    return RollSystem(tiny_prior())
