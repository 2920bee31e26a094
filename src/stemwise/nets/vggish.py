"""VGGish (Hershey et al. 2017): the network of the first Fréchet audio distances, and the log-mel patches it hears."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

RATE = 16_000
FRAME, HOP, FFT = 400, 160, 512
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0
PATCH = 96
"""Frames of 10 ms in a patch; patches do not overlap."""
_OFFSET = 0.01


@dataclass(frozen=True)
class VggishConfig:
    """Sizes of the network; the published ones by default. `stems` stays empty: any sound has an embedding."""

    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    hidden: int = 4096
    dimensions: int = 128
    stems: tuple[str, ...] = ()

    @property
    def rate(self) -> int:
        """Sample rate in hertz."""
        return RATE

    @property
    def window(self) -> int:
        """Samples that one patch is made of."""
        return (PATCH - 1) * HOP + FRAME


class Vggish(nn.Module):
    """(patch, 96, 64) -> (patch, dimensions), the last layer's output before its ReLU and without PCA.

    That is what Fréchet distances of music are computed from (Gui et al. 2024); AudioSet's released features are whitened
    and quantised, and differ. Parameters have the names of the port to PyTorch that is in use everywhere.
    """

    def __init__(self, config: VggishConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.channels
        layers: list[nn.Module] = []
        for inputs, *outputs in ((1, a), (a, b), (b, c, c), (c, d, d)):
            for size in outputs:
                layers += [nn.Conv2d(inputs, size, 3, padding=1), nn.ReLU()]
                inputs = size
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        flat = d * (PATCH // 16) * (BANDS // 16)
        sizes = (flat, config.hidden, config.hidden, config.dimensions)
        linear = [nn.Linear(*pair) for pair in pairwise(sizes)]
        self.embeddings = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])

    def forward(self, patches: Tensor) -> Tensor:
        """Embeddings of log-mel patches as `log_mel_patches` makes them."""
        maps = self.features(patches[:, None])
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))  # height, width, channel: the original's order


def log_mel_patches(audio: Tensor) -> Tensor:
    """Mono audio (time,) at 16 kHz -> float32 (patch, 96, 64); an incomplete last patch is dropped.

    ln(mel + 0.01) of magnitudes: frames of 25 ms every 10 ms without padding, periodic Hann, transform of 512, 64 bands
    from 125 to 7500 Hz. A patch takes 0.975 s of audio; shorter audio has none.
    """
    if len(audio) < FRAME:
        return torch.zeros(0, PATCH, BANDS)
    frames = audio.double().unfold(0, FRAME, HOP)
    window = torch.hann_window(FRAME, periodic=True, dtype=torch.float64, device=audio.device)
    magnitudes = torch.fft.rfft(frames * window, FFT).abs()
    levels = (magnitudes @ _bank().to(audio.device) + _OFFSET).log().float()
    count = len(levels) // PATCH
    return levels[: count * PATCH].reshape(count, PATCH, BANDS)


@cache
def _bank() -> Tensor:
    """(257, 64): triangles between bands even on HTK's mel scale, straight on that scale (not in hertz), without DC."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = mel(torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = (1127.0 * math.log1p(f / 700.0) for f in (LOWEST, HIGHEST))
    edges = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    lower, centre, upper = (edges[i : i + BANDS] for i in range(3))
    bank = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp_min(0)
    bank[0] = 0
    return bank
