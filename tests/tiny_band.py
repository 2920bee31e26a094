"""A band model of random weights, small enough for tests of everything around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stemwise.checkpoint import save_model
from stemwise.nets.bandnet import BandNetConfig
from stemwise.systems.band import Band, BandConfig

RATE = 44100


def write_tiny_band(folder: Path) -> Path:
    """A model folder of about 100 kB whose window is 0.7 s."""
    net = BandNetConfig(
        patches=((128, 16), (256, 32), (640, 80)),
        widths=(8, 8, 8, 8),
        depths=(1, 1, 1, 1),
        attention_heads=2,
        embedding=16,
    )
    torch.manual_seed(0)
    band = Band(BandConfig(bins=1024, frames=32, net=net))
    return save_model(folder, band, metadata={"licence": "none", "training": "none"})


def music(seconds: float, channels: int = 2, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Decaying tones and clicks (channels, frames), peak 0.5: cheap, and never silent."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * f * time + p) for f, p in zip(draw.uniform(60, 900, 4), draw.uniform(0, 6, 4)))
    clicks = draw.standard_normal(len(time)) * np.exp(-20 * (time % 0.5))
    sides = [tone * draw.uniform(0.5, 1) + clicks * draw.uniform(0.5, 1) for _ in range(channels)]
    signal = np.stack(sides)
    return (0.5 * signal / np.abs(signal).max()).astype(np.float32)
