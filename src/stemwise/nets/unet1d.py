"""The waveform U-Net of MSDM (Mariani et al. 2024): patches, strided convolutions, attention at the deep levels.

The same numbers from the same weights as the published checkpoints, whose keys `stemwise.convert.msdm` renames. What
the paper's figure does not tell: the bottleneck's attention has no residual, deep levels have no positional encoding,
skips are scaled by 2^-1/2, and the first and last normalisation have a group for every source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL_FACTOR = 2  # kernel of a resampling convolution over its stride
SKIP_SCALE = 2**-0.5


@dataclass(frozen=True)
class UNet1dConfig:
    """Shape of the network; the defaults are those of the published four-source models (405 million parameters).

    ``multipliers`` times ``channels`` are the widths of the levels, one more than there are ``factors`` (strides),
    ``blocks`` and ``attention``. ``patch`` samples of time are folded into channels before the first level. ``context``
    is the width of the words' embeddings that the transformers hear, 0 where there are no words.
    """

    sources: int = 4
    channels: int = 256
    patch: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4, 4, 4, 4)
    factors: tuple[int, ...] = (4, 4, 4, 2, 2, 2)
    blocks: tuple[int, ...] = (2, 2, 2, 2, 2, 2)
    attention: tuple[bool, ...] = (False, False, False, True, True, True)
    heads: int = 8
    head_features: int = 128
    expansion: int = 2
    groups: int = 8
    context: int = 0

    def __post_init__(self) -> None:
        levels = len(self.factors)
        if not len(self.blocks) == len(self.attention) == len(self.multipliers) - 1 == levels > 0:
            raise ValueError(
                "a U-Net of n levels has n factors, n blocks, n attention flags and n + 1 multipliers; got "
                f"{levels}, {len(self.blocks)}, {len(self.attention)} and {len(self.multipliers)}"
            )
        shape = (self.sources, self.channels, self.patch, self.heads, self.head_features, self.expansion, self.groups)
        if min(*shape, *self.multipliers, *self.factors) < 1:
            raise ValueError("every size of a U-Net must be at least 1 (blocks and context may be 0)")
        if self.channels % self.patch or (self.channels // self.patch) % self.ends:
            raise ValueError(
                f"channels ({self.channels}) / patch ({self.patch}) must be a whole multiple of {self.ends}, "
                "the smaller of patch and sources"
            )
        if any(width % self.groups for width in self.widths[1:]):
            raise ValueError(f"every level's width {self.widths[1:]} must be a multiple of groups ({self.groups})")

    @property
    def ends(self) -> int:
        """Groups of the normalisations next to the signal: one for each source."""
        return min(self.patch, self.sources)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level, the patched signal first."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def multiple(self) -> int:
        """What the number of samples must be a multiple of."""
        return self.patch * math.prod(self.factors)


class Words(NamedTuple):
    """What a signal is described with: embeddings (B, word, width) and which of them are there (B, word), bool."""

    embeddings: Tensor
    there: Tensor


class UNet1d(nn.Module):
    """(B, source, time), noise labels (B,) -> (B, source, time); time must be a multiple of ``config.multiple``.

    The state may be float32 while the weights are bfloat16 (`lower`): it is converted at both ends.
    """

    def __init__(self, config: UNet1dConfig) -> None:
        super().__init__()
        self.config = config
        widths, mapping = config.widths, 4 * config.channels
        levels = list(zip(widths, widths[1:], config.factors, config.blocks, config.attention))
        inner = config.channels // config.patch
        self.time = TimeEmbedding(config.channels // 2, mapping)
        self.read = ResBlock(config.sources, inner, config.ends, mapping)
        self.down = nn.ModuleList(Down(config, *level) for level in levels)
        self.before = ResBlock(widths[-1], widths[-1], config.groups, mapping)
        self.middle = Attention(widths[-1], config.heads, config.head_features)
        self.after = ResBlock(widths[-1], widths[-1], config.groups, mapping)
        self.up = nn.ModuleList(Up(config, *level) for level in reversed(levels))
        self.write = ResBlock(inner, config.sources, config.ends, mapping)

    def forward(self, x: Tensor, label: Tensor, words: Words | None = None) -> Tensor:
        """Run the network; `label` is ln(sigma) / 4 where it is preconditioned as in `diffusion.Edm`.

        `words` are for networks with `context`; each signal needs one at least.
        """
        patch = self.config.patch
        embedding = F.silu(self.time(label.float()))
        h = x.to(self.read.second.weight.dtype)
        film = embedding.to(h.dtype)
        h = self.read(h, film)
        h = h.unflatten(2, (-1, patch)).transpose(2, 3).flatten(1, 2)
        patched, skips = h, []
        for down in self.down:
            h, kept = down(h, film, words)
            skips.append(kept)
        h = self.before(h, film)
        h = self.middle(h.transpose(1, 2)).transpose(1, 2)
        h = self.after(h, film)
        for up in self.up:
            h = up(h, skips.pop(), film, words)
        h = (h + patched).unflatten(1, (-1, patch)).transpose(2, 3).flatten(2)
        return self.write(h, film).to(x.dtype)


def lower(net: UNet1d, dtype: torch.dtype) -> UNet1d:
    """Store the weights in another type, in place; the noise embedding keeps float32, for its angles are large."""
    for name, child in net.named_children():
        if name != "time":
            child.to(dtype)
    return net


class TimeEmbedding(nn.Module):
    """(B,) noise labels -> (B, width): the label, sines and cosines of learned frequencies, then three dense layers."""

    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(frequencies))
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in (2 * frequencies + 1, width, width))

    def forward(self, label: Tensor) -> Tensor:
        """Embed the labels."""
        angles = label[:, None] * self.frequencies * (2 * math.pi)
        h = torch.cat([label[:, None], angles.sin(), angles.cos()], dim=1)
        for layer in self.layers:
            h = F.gelu(layer(h))
        return h


class ResBlock(nn.Module):
    """(B, inputs, time) -> (B, outputs, time): two normalised convolutions, the second modulated by the noise level."""

    def __init__(self, inputs: int, outputs: int, groups: int, mapping: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(groups, inputs)
        self.first = nn.Conv1d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(mapping, 2 * outputs)
        self.second_norm = nn.GroupNorm(groups, outputs)
        self.second = nn.Conv1d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """`film` is the activated noise embedding (B, mapping)."""
        h = self.first(F.silu(self.first_norm(x)))
        scale, shift = self.film(film).chunk(2, dim=1)
        h = self.second(F.silu(self._modulated(h, scale + 1, shift)))
        return h + self.shortcut(x)

    def _modulated(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """The second normalisation, its gain and bias merged with the modulation: one pass over h less."""
        norm = self.second_norm
        gain, bias = norm.weight * scale, torch.addcmul(shift, norm.bias, scale)
        if len(h) == 1 and not torch.is_grad_enabled():
            return F.group_norm(h, norm.num_groups, gain[0], bias[0], norm.eps)
        return torch.addcmul(bias[..., None], F.group_norm(h, norm.num_groups, eps=norm.eps), gain[..., None])


class Attention(nn.Module):
    """(B, time, width) -> (B, time, width), normalised before and after; no residual, no positions."""

    def __init__(self, width: int, heads: int, features: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GainNorm(width)
        self.query = nn.Linear(width, heads * features, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * features, bias=False)
        self.out = nn.Linear(heads * features, width, bias=False)
        self.out_norm = GainNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        h = self.norm(x)
        q, k, v = (
            z.unflatten(2, (self.heads, -1)).transpose(1, 2) for z in (self.query(h), *self.key_value(h).chunk(2, 2))
        )
        # Plain products: there are a few hundred positions at most, and `vmap` over networks knows them.
        weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3, dtype=torch.float32)
        h = weights.to(v.dtype) @ v
        return self.out_norm(self.out(h.transpose(1, 2).flatten(2)))


class Transformer(nn.Module):
    """(B, width, time) -> the same shape: attention and a dense network, each with a residual."""

    def __init__(self, width: int, config: UNet1dConfig) -> None:
        super().__init__()
        hidden = config.expansion * width
        self.attention = Attention(width, config.heads, config.head_features)
        self.words = WordAttention(width, config) if config.context else None
        self.norm = GainNorm(width)
        self.widen = nn.Linear(width, hidden, bias=False)
        self.hidden_norm = GainNorm(hidden)
        self.narrow = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, words: Words | None = None) -> Tensor:
        """Transform."""
        h = x.transpose(1, 2)
        h = h + self.attention(h)
        if self.words is not None:
            assert words is not None, "a network with context needs words"
            h = h + self.words(h, words)
        h = h + self.narrow(self.hidden_norm(F.gelu(self.widen(self.norm(h)))))
        return h.transpose(1, 2)


class WordAttention(nn.Module):
    """(B, time, width) and words -> (B, time, width): what every position takes from the words; at first, nothing."""

    def __init__(self, width: int, config: UNet1dConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_features
        self.heads = config.heads
        self.norm, self.word_norm = GainNorm(width), GainNorm(config.context)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(config.context, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, words: Words) -> Tensor:
        """Attend to the words that are there."""
        heard = self.key_value(self.word_norm(words.embeddings.to(x.dtype))).chunk(2, 2)
        q, k, v = (z.unflatten(2, (self.heads, -1)).transpose(1, 2) for z in (self.query(self.norm(x)), *heard))
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=words.there[:, None, None])
        return self.out(h.transpose(1, 2).flatten(2))


class GainNorm(nn.Module):
    """Layer normalisation over the last axis with a gain and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., width)."""
        return F.layer_norm(x, self.gain.shape, self.gain)


class Down(nn.Module):
    """One level of the encoder: a strided convolution, residual blocks, perhaps a transformer."""

    def __init__(
        self, config: UNet1dConfig, inputs: int, outputs: int, factor: int, blocks: int, attention: bool
    ) -> None:
        super().__init__()
        mapping = 4 * config.channels
        self.resample = nn.Conv1d(
            inputs, outputs, KERNEL_FACTOR * factor + 1, stride=factor, padding=factor * KERNEL_FACTOR // 2
        )
        self.blocks = nn.ModuleList(ResBlock(outputs, outputs, config.groups, mapping) for _ in range(blocks))
        self.transformer = Transformer(outputs, config) if attention else None

    def forward(self, x: Tensor, film: Tensor, words: Words | None = None) -> tuple[Tensor, list[Tensor]]:
        """The level's output, and what the decoder's level will see again."""
        h, skips = self.resample(x), []
        for block in self.blocks:
            h = block(h, film)
            skips.append(h)
        if self.transformer is not None:
            h = self.transformer(h, words)
            skips.append(h)
        return h, skips


class Up(nn.Module):
    """One level of the decoder: a residual block for every skip, perhaps a transformer, a transposed convolution."""

    def __init__(
        self, config: UNet1dConfig, outputs: int, inputs: int, factor: int, blocks: int, attention: bool
    ) -> None:
        super().__init__()
        mapping = 4 * config.channels
        self.blocks = nn.ModuleList(
            ResBlock(2 * inputs, inputs, config.groups, mapping) for _ in range(blocks + attention)
        )
        self.transformer = Transformer(inputs, config) if attention else None
        self.resample = nn.ConvTranspose1d(
            inputs,
            outputs,
            KERNEL_FACTOR * factor,
            stride=factor,
            padding=factor // 2 + factor % 2,
            output_padding=factor % 2,
        )

    def forward(self, x: Tensor, skips: list[Tensor], film: Tensor, words: Words | None = None) -> Tensor:
        """Take the last skip first."""
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop() * SKIP_SCALE], dim=1), film)
        if self.transformer is not None:
            x = self.transformer(x, words)
        y: Tensor = self.resample(x)
        return y
