"""A small U-Net over time x frequency: dense across frequency, attention at its coarsest, masks from mixture to stems.

Convolutions work on (batch, frame, position, channel) tensors, where a *position* is a patch of neighbouring bins,
narrow where notes live and wide above. Three paths lead to the output: masks times the mixture, which separation
needs; the power that is expected, by which noise passes; and a free part, which generation needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class BandNetConfig:
    """``patches`` lists (bins, patch width) from low to high; ``widths`` and ``depths`` go from fine to coarse; ``layers`` of a
    transformer follow at the coarsest.
    """

    slots: int = 6
    channels: int = 2
    patches: tuple[tuple[int, int], ...] = ((256, 2), (512, 8), (1280, 20))
    widths: tuple[int, ...] = (64, 96, 160, 224)
    depths: tuple[int, ...] = (1, 2, 2, 4)
    attention_heads: int = 7
    embedding: int = 192
    layers: int = 4

    @property
    def positions(self) -> int:
        """How many patches a frame has."""
        return sum(bins // width for bins, width in self.patches)


class BandNet(nn.Module):
    """Raw network of the band model: noisy slots, mixture features and noise levels in; free parts and masks out."""

    MIX_FEATURES = 8
    OUTPUTS = 5

    def __init__(self, config: BandNetConfig) -> None:
        super().__init__()
        self.config = config
        stems = config.slots - 1
        inputs = config.slots * config.channels + self.MIX_FEATURES
        outputs = stems * config.channels * self.OUTPUTS
        sizes = [config.positions // 2**level for level in range(len(config.widths))]
        self.embed = NoiseEmbedding(config.slots, config.embedding)
        self.read = BandSplit(config.patches, inputs, config.widths[0])
        self.place = nn.Parameter(torch.zeros(config.positions, config.widths[0]))
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, (width, depth, size) in enumerate(zip(config.widths, config.depths, sizes)):
            last = level == len(config.widths) - 1
            heads = config.attention_heads if last else 0
            self.down.append(Stage(width, depth, size, config.embedding, heads))
            if not last:
                wider = config.widths[level + 1]
                self.down.append(nn.Conv2d(width, wider, 2, stride=2))
                self.up.insert(0, Stage(width, depth, size, config.embedding, 0))
                self.up.insert(0, nn.ConvTranspose2d(wider, width, 2, stride=2))
        self.whole = nn.ModuleList(
            TransformerLayer(config.widths[-1], config.attention_heads) for _ in range(config.layers)
        )
        self.write = BandMerge(config.patches, config.widths[0], outputs)

    def forward(self, slots: Tensor, mixture: Tensor, levels: Tensor) -> Tensor:
        """Slots (B, slot * channel, frame, bin), mixture (B, MIX_FEATURES, frame, bin), levels (B, slot), logs of
        sigma.

        Returns (B, stem, channel, OUTPUTS, frame, bin): free part, mask (real, imaginary), mask of the other
        channel, and log power relative to the usual. The number of frames must be a multiple of ``2 ** (levels - 1)``.
        """
        embedding = self.embed(levels)
        device = slots.device.type
        if torch.is_autocast_enabled(device):  # before the patches are cut, which halves the memory traffic
            slots, mixture = slots.to(torch.get_autocast_dtype(device)), mixture.to(torch.get_autocast_dtype(device))
        x = self.read(torch.cat([slots, mixture], dim=1)) + self.place
        skips: list[Tensor] = []
        for index, module in enumerate(self.down):
            if index % 2:
                skips.append(x)
                x = conv(module, x)
            else:
                x = module(x, embedding)
        for layer in self.whole:
            x = layer(x)
        for index, module in enumerate(self.up):
            x = module(x, embedding) if index % 2 else conv(module, x) + skips.pop()
        y = self.write(x)
        b, _, frames, bins = y.shape
        return y.view(b, self.config.slots - 1, self.config.channels, self.OUTPUTS, frames, bins)


class Stage(nn.Module):
    """``depth`` blocks at one resolution, then attention over time if ``heads`` is not 0."""

    def __init__(self, width: int, depth: int, positions: int, embedding: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, positions, embedding) for _ in range(depth))
        self.attention = TimeAttention(width, heads) if heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, frame, position, width) -> the same shape."""
        for block in self.blocks:
            x = block(x, embedding)
        return x if self.attention is None else self.attention(x)


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, scaled and shifted by the noise embedding, and a dense layer across
    frequency.
    """

    def __init__(self, width: int, positions: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        hidden = max(16, positions // 2)
        self.across = nn.Linear(positions, hidden)
        self.back = nn.Linear(hidden, positions, bias=False)
        for layer in (self.second, self.back, self.modulate):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, frame, position, width) -> the same shape."""
        h = self.norm(x)
        dense = torch.matmul(self.across.weight, h) + self.across.bias[:, None]
        dense = torch.matmul(self.back.weight, F.silu(dense))
        scale, shift = self.modulate(embedding)[:, None, None].chunk(2, dim=-1)
        h = conv(self.first, F.silu(h)) * (1 + scale) + shift
        return x + conv(self.second, F.silu(h)) + dense


class TimeAttention(nn.Module):
    """Self-attention over frames, at every position for itself; order comes from the convolutions around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, frame, position, width) -> the same shape."""
        b, frames, positions, width = x.shape
        qkv = self.qkv(self.norm(x)).view(b, frames, positions, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).reshape(3, b * positions, self.heads, frames, -1).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v)
        h = h.view(b, positions, self.heads, frames, -1).permute(0, 3, 1, 2, 4).reshape(b, frames, positions, width)
        return x + self.out(h)


class TransformerLayer(nn.Module):
    """Self-attention over all frames and positions at once, then a dense layer at each: what plays in a window is decided from
    all of it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.dense_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.hidden = nn.Linear(width, 4 * width)
        self.back = nn.Linear(4 * width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.back.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, frame, position, width) -> the same shape."""
        b, frames, positions, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, frames * positions, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(h)
        return x + self.back(F.silu(self.hidden(self.dense_norm(x))))


class BandSplit(nn.Module):
    """(B, feature, frame, bin) -> (B, frame, position, width): one linear map for every group of patches."""

    def __init__(self, patches: Sequence[tuple[int, int]], features: int, width: int) -> None:
        super().__init__()
        self.patches = tuple(patches)
        self.maps = nn.ModuleList(nn.Linear(features * patch, width) for _, patch in patches)

    def forward(self, x: Tensor) -> Tensor:
        """Cut every group of bins into its patches and embed them."""
        b, features, frames, _ = x.shape
        parts = []
        for group, (_, patch), linear in zip(x.split([n for n, _ in self.patches], dim=-1), self.patches, self.maps):
            cut = group.reshape(b, features, frames, -1, patch).permute(0, 2, 3, 1, 4)
            parts.append(linear(cut.reshape(b, frames, -1, features * patch)))
        return torch.cat(parts, dim=2)


class BandMerge(nn.Module):
    """(B, frame, position, width) -> (B, output, frame, bin): the reverse of `BandSplit`."""

    def __init__(self, patches: Sequence[tuple[int, int]], width: int, outputs: int) -> None:
        super().__init__()
        self.patches = tuple(patches)
        self.outputs = outputs
        self.norm = nn.LayerNorm(width)
        maps = [nn.Linear(width, outputs * patch) for _, patch in patches]
        for linear in maps:
            nn.init.normal_(linear.weight, std=0.1 / math.sqrt(width))
            nn.init.zeros_(linear.bias)
        self.maps = nn.ModuleList(maps)

    def forward(self, x: Tensor) -> Tensor:
        """Emit every patch and lay them side by side."""
        b, frames, _, _ = x.shape
        parts = []
        h = self.norm(x)
        for group, (_, patch), linear in zip(
            h.split([n // patch for n, patch in self.patches], dim=2), self.patches, self.maps
        ):
            cut = linear(group).view(b, frames, -1, self.outputs, patch)
            parts.append(cut.permute(0, 3, 1, 2, 4).reshape(b, self.outputs, frames, -1))
        return torch.cat(parts, dim=-1)


class NoiseEmbedding(nn.Module):
    """Fourier features of the noise level of every slot, then two dense layers: (B, slot) -> (B, width)."""

    FREQUENCIES = 8

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(slots * (2 * self.FREQUENCIES + 1), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, levels: Tensor) -> Tensor:
        """``levels`` is log(sigma) / 4, about -1.6 to 1.1."""
        octaves = torch.arange(self.FREQUENCIES, device=levels.device, dtype=levels.dtype)
        angles = levels[..., None] * (math.pi / 16 * 2**octaves)
        return self.layers(torch.cat([levels[..., None], angles.sin(), angles.cos()], dim=-1).flatten(1))


def conv(module: nn.Module, x: Tensor) -> Tensor:
    """A convolution on a channels-last tensor, without a copy."""
    y: Tensor = module(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)
