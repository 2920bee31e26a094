"""A small U-Net over time x frequency that corrects the power spectra of noisy stems: magnitudes in, decibels out.

It hears no phase and makes none, so it learns far faster than a network of waveforms: what is left to it is where notes and
strokes are. Blocks and patches are those of `stemwise.nets.bandnet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stemwise.nets.bandnet import BandMerge, BandSplit, NoiseEmbedding, Stage, conv


@dataclass(frozen=True)
class PowerNetConfig:
    """``patches`` lists (bins, patch width) from low to high; ``widths`` and ``depths`` go from fine to coarse.

    A frame has as many bins as all patches together, and every ``hop`` samples there is one, of twice as many samples as it
    has bins.
    """

    sources: int = 4
    hop: int = 256
    patches: tuple[tuple[int, int], ...] = ((128, 2), (192, 4), (192, 12))
    widths: tuple[int, ...] = (48, 64, 128)
    depths: tuple[int, ...] = (0, 2, 3)
    embedding: int = 128

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths) or not self.widths:
            raise ValueError(f"net.depths {self.depths} and net.widths {self.widths} must be equally many")
        if self.positions % 2 ** (len(self.widths) - 1):
            raise ValueError(
                f"the number of patches, {self.positions}, must be a multiple of {2 ** (len(self.widths) - 1)}"
            )
        if any(bins % width for bins, width in self.patches) or self.bins % self.hop:
            raise ValueError(
                f"net.patches {self.patches} must cut their bins evenly, and net.hop ({self.hop}) divide their number, {self.bins}"
            )

    @property
    def bins(self) -> int:
        """Bins of a frame, without the one at half the rate."""
        return sum(bins for bins, _ in self.patches)

    @property
    def positions(self) -> int:
        """How many patches a frame has."""
        return sum(bins // width for bins, width in self.patches)

    @property
    def multiple(self) -> int:
        """What the number of samples must be a multiple of."""
        return self.hop


class PowerNet(nn.Module):
    """(B, source, FEATURES, frame, bin), noise labels ln(sigma) / 4 (B,) -> (B, source, frame, bin): changes of log power."""

    FEATURES = 2

    def __init__(self, config: PowerNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, embedding = config.widths, config.embedding
        self.embed = NoiseEmbedding(1, embedding)
        self.read = BandSplit(config.patches, self.FEATURES * config.sources, widths[0])
        self.place = nn.Parameter(torch.zeros(config.positions, widths[0]))
        sizes = [config.positions // 2**level for level in range(len(widths))]
        stages = list(zip(widths, config.depths, sizes))
        self.down = nn.ModuleList(Stage(width, depth, size, embedding, 0) for width, depth, size in stages[:-1])
        self.coarser = nn.ModuleList(nn.Conv2d(*pair, 2, stride=2) for pair in pairwise(widths))
        self.middle = Stage(*stages[-1], embedding, 0)
        self.finer = nn.ModuleList(nn.ConvTranspose2d(*pair[::-1], 2, stride=2) for pair in pairwise(widths))
        self.up = nn.ModuleList(Stage(width, depth, size, embedding, 0) for width, depth, size in stages[:-1])
        self.write = BandMerge(config.patches, widths[0], config.sources)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Estimate how much louder or softer than on average every source is, at every frame and bin."""
        embedding, frames = self.embed(label[:, None]), features.shape[3]
        padded = F.pad(features.flatten(1, 2), (0, 0, 0, -frames % 2 ** len(self.down)))
        x, skips = self.read(padded) + self.place, []
        for stage, coarser in zip(self.down, self.coarser):
            x = stage(x, embedding)
            skips.append(x)
            x = conv(coarser, x)
        x = self.middle(x, embedding)
        for stage, finer in zip(reversed(self.up), reversed(self.finer)):
            x = stage(conv(finer, x) + skips.pop(), embedding)
        return self.write(x)[:, :, :frames]
