"""TransUNet: a U-Net over time and pitch with a small transformer at its deepest level (Mixture2Music, arXiv 2209.02696).

States are (batch, channel, time, pitch), time and pitch multiples of 8. Two things of the published network cannot be
meant, and its weights need them: `bottleneck` "published" reads the transformer's tokens back as if they were channels,
and `positions` "published" are random tables that were never trained nor saved, with zeros for later tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, leaky_relu, max_pool2d, scaled_dot_product_attention

_GROUPS = 8
_SLOPE = 0.2
_TIME = 64


@dataclass(frozen=True)
class TransUnetConfig:
    """Channels read and written, `widths` of the four levels, `kernel` of the first convolution.

    `rows` > 0: so many pitch rows have an embedding of their own, since convolutions do not know how high a note is.
    """

    inputs: int = 5
    outputs: int = 5
    widths: tuple[int, int, int, int] = (64, 128, 256, 256)
    kernel: int = 7
    layers: int = 2
    heads: int = 4
    rows: int = 0
    positions: Literal["none", "published"] = "none"
    bottleneck: Literal["straight", "published"] = "straight"

    def __post_init__(self) -> None:
        if any(width % _GROUPS for width in self.widths) or self.widths[-1] % self.heads:
            raise ValueError(
                f"widths {self.widths} must be multiples of {_GROUPS}, the last one of heads ({self.heads})"
            )


class TransUnet(nn.Module):
    """(batch, inputs, time, pitch) and times (batch,) -> (batch, outputs, time, pitch).

    Without times, nothing is scaled or shifted by them.
    """

    def __init__(self, config: TransUnetConfig) -> None:
        super().__init__()
        one, two, three, four = config.widths
        self.time = TimeVector()
        self.read = nn.Conv2d(config.inputs, one, config.kernel, padding=config.kernel // 2)
        self.rows = nn.Parameter(torch.zeros(one, 1, config.rows)) if config.rows else None
        self.down = nn.ModuleList(ResidualBlock(a, b, _TIME) for a, b in ((one, two), (two, three), (three, four)))
        self.tokens = Transformer(four, config.layers, config.heads, published=config.positions == "published")
        self.up = nn.ModuleList(
            ResidualBlock(a, b, _TIME) for a, b in ((three + four, two), (two + two, one), (one + one, one))
        )
        self.write = nn.Conv2d(one, config.outputs, 1)
        self._straight = config.bottleneck == "straight"

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """As the class says."""
        time = None if t is None else self.time(t)
        x = self.read(x) if self.rows is None else self.read(x) + self.rows
        skips = [x]
        for block in self.down:
            skips.append(block(max_pool2d(skips[-1], 2), time))
        x = self._across(skips.pop())
        for block in self.up:
            x = block(torch.cat([skips.pop(), interpolate(x, scale_factor=2.0)], dim=1), time)
        out: Tensor = self.write(x)
        return out

    def _across(self, x: Tensor) -> Tensor:
        """The transformer over all places of the deepest level, in rows of pitch, time after time."""
        tokens = self.tokens(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(x.shape) if self._straight else tokens.reshape(x.shape)


class TimeVector(nn.Module):
    """Times (batch,) -> (batch, 64): sines, then cosines, of eight frequencies from 1 to 1/10000, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, _TIME)
        self.second = nn.Linear(_TIME, _TIME)

    def forward(self, t: Tensor) -> Tensor:
        """As the class says; phases are float32, as published."""
        frequency = torch.exp(torch.arange(8, device=t.device, dtype=torch.float32) * -(math.log(10000.0) / 7))
        phase = t.to(torch.float32)[:, None] * frequency
        out: Tensor = self.second(gelu(self.first(torch.cat([phase.sin(), phase.cos()], dim=1))))
        return out


class ConvUnit(nn.Module):
    """3x3 convolution, group norm, then scale and shift where given, and a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, outputs)

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None) -> Tensor:
        """`film`: scale and shift, each (batch, outputs, 1, 1); the scale multiplies as it is, not as 1 + scale."""
        x = self.norm(self.conv(x))
        return leaky_relu(x if film is None else film[0] * x + film[1], _SLOPE)


class ResidualBlock(nn.Module):
    """Two units with one scale and shift beside a 1x1 convolution; without `time` features there is no modulation."""

    def __init__(self, inputs: int, outputs: int, time: int = 0) -> None:
        super().__init__()
        self.film = nn.Linear(time, 2 * outputs) if time else None
        self.first = ConvUnit(inputs, outputs)
        self.second = ConvUnit(outputs, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """(batch, inputs, time, pitch) -> (batch, outputs, time, pitch)."""
        film = None
        if self.film is not None and time is not None:
            scale, shift = self.film(leaky_relu(time, _SLOPE))[..., None, None].chunk(2, dim=1)
            film = (scale, shift)
        out: Tensor = self.shortcut(x) + self.second(self.first(x, film), film)
        return out


class Attention(nn.Module):
    """Self-attention of tokens (batch, token, width); `published` adds the term of a fixed table of distances.

    The table (2048, head width) is drawn once from a normal distribution. Token i gives token j <= i the extra score
    q_i . table[2047 - (i - j)], and later tokens none, though it attends to them.
    """

    table: Tensor

    def __init__(self, width: int, heads: int, published: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        if published:
            self.register_buffer("table", torch.randn(2048, width // heads))
        self._published = published

    def forward(self, x: Tensor) -> Tensor:
        """As the class says. At most 2048 tokens where there is a table."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        extra = self._distances(q) if self._published else None
        mixed: Tensor = scaled_dot_product_attention(q, k, v, attn_mask=extra)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _distances(self, q: Tensor) -> Tensor:
        place = torch.arange(q.shape[2], device=q.device)
        back = place[:, None] - place
        scores = q @ self.table[-len(place) :].to(q).T
        scores = scores.gather(-1, (len(place) - 1 - back).clamp(max=len(place) - 1).expand(scores.shape))
        return scores.masked_fill(back < 0, 0.0) / math.sqrt(q.shape[-1])


class TokenLayer(nn.Module):
    """Two attentions and two linear layers, a norm after each."""

    def __init__(self, width: int, heads: int, published: bool) -> None:
        super().__init__()
        self.first = Attention(width, heads, published)
        self.second = Attention(width, heads, published)
        self.narrow = nn.Linear(width, width // 2)
        self.widen = nn.Linear(width // 2, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, token, width), kept."""
        x = self.norms[0](x + self.first(x))
        x = self.norms[1](x + self.second(x))
        out: Tensor = self.norms[2](x + self.widen(gelu(self.narrow(x))))
        return out


class Transformer(nn.Module):
    """Token layers between two linear ones."""

    def __init__(self, width: int, layers: int, heads: int, published: bool) -> None:
        super().__init__()
        self.read = nn.Linear(width, width, bias=False)
        self.layers = nn.ModuleList(TokenLayer(width, heads, published) for _ in range(layers))
        self.write = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, token, width), kept."""
        x = self.read(x)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.write(x)
        return out


class RollDecoder(nn.Module):
    """Nearly clean rolls (batch, channel, time, pitch) -> logits of the same shape: Mixture2Music's independent decoder."""

    def __init__(self, channels: int = 5, width: int = 64) -> None:
        super().__init__()
        self.read = nn.Conv2d(channels, width, 7, padding=3)
        self.blocks = nn.ModuleList(ResidualBlock(width, width) for _ in range(2))
        self.write = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        x = self.read(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.write(x)
        return out
