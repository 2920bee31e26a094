"""The stem x latent U-Net of MSG-LD (Karchkhadze et al. 2024, arXiv 2409.12346).

Stems are the convolutions' channels and the latent's own channels their depth: states are (batch, stem, depth, time,
mel). The mixture has no weights: its latent, averaged down to the grid of every level, is added to all channels before
each block of the encoder and, after the skip is joined, of the decoder. The same numbers from the same weights as the
published checkpoints, whose keys `stemwise.convert.msgld` renames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stemwise.errors import ModelError

GROUPS = 32
HEAD = 32  # channels of an attention head


@dataclass(frozen=True)
class UNetStemsConfig:
    """Shape of the network; the defaults are those of the published 128-channel model (305 million parameters).

    ``multipliers`` times ``channels`` are the widths of the levels, each of half the resolution in time and mel of the
    one before; ``blocks`` residual blocks a level, with attention over the whole grid where ``attention`` says so.
    ``recompute`` keeps no activations inside blocks while training (gradient checkpointing).
    """

    stems: int = 4
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 5)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, True, True, True)
    recompute: bool = False

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.multipliers):
            raise ValueError(
                f"a U-Net of n levels has n multipliers and n attention flags; got {len(self.multipliers)} and "
                f"{len(self.attention)}"
            )
        if self.channels % GROUPS or self.multipliers[:1] != (1,) or self.blocks < 1 or self.stems < 1:
            raise ValueError(
                f"channels ({self.channels}) must be a multiple of {GROUPS}, the first multiplier 1 "
                f"({self.multipliers}), blocks ({self.blocks}) and stems ({self.stems}) at least 1"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def multiple(self) -> int:
        """What the latent's time and mel must be multiples of."""
        return 2 ** (len(self.multipliers) - 1)


class UNetStems(nn.Module):
    """(B, stem, depth, time, mel), time step labels (B,) -> (B, stem, depth, time, mel), the noise's estimate."""

    def __init__(self, config: UNetStemsConfig) -> None:
        super().__init__()
        self.config = config
        widths, noise = config.widths, 4 * config.channels
        self.time = nn.ModuleList([nn.Linear(config.channels, noise), nn.Linear(noise, noise)])
        read = Block()
        read.convolution = nn.Conv3d(config.stems, widths[0], 3, padding=1)
        self.encoder, self._levels = nn.ModuleList([read]), [0]  # the level of each block's input
        skips, now = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.encoder.append(Block(now, width, noise, attention=config.attention[level]))
                self._levels.append(level)
                now = width
                skips.append(now)
            if level + 1 < len(widths):
                halve = Block()
                halve.convolution = nn.Conv3d(now, now, 3, stride=(1, 2, 2), padding=1)
                self.encoder.append(halve)
                self._levels.append(level)
                skips.append(now)
        self.middle = nn.ModuleList([Block(now, now, noise, attention=True), Block(now, now, noise)])
        self.decoder = nn.ModuleList()
        self._up_levels: list[int] = []
        for level, width in reversed(list(enumerate(widths))):
            for index in range(config.blocks + 1):
                block = Block(now + skips.pop(), width, noise, attention=config.attention[level])
                if level and index == config.blocks:
                    block.enlarge = nn.Conv3d(width, width, 3, padding=1)
                self.decoder.append(block)
                self._up_levels.append(level)
                now = width
        self.norm = nn.GroupNorm(GROUPS, now)
        self.write = _zero(nn.Conv3d(now, config.stems, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor, mixture: Sequence[Tensor] | None = None) -> Tensor:
        """Run the network; `mixture` is the `pyramid` of the mixture's latent, None the same as one of silence.

        Raises ModelError unless it can halve time and mel as often as it does.
        """
        if any(size % self.config.multiple for size in x.shape[-2:]):
            raise ModelError(
                f"latents of {x.shape[-2]} x {x.shape[-1]} positions (time, mel); the network halves them "
                f"{len(self.config.multipliers) - 1} times, so both must be multiples of {self.config.multiple}: "
                "pad them, or train with another data.frames"
            )
        noise = F.silu(self.time[1](F.silu(self.time[0](time_embedding(time, self.config.channels).to(x.dtype)))))
        h, skips = x, []
        for block, level in zip(self.encoder, self._levels):
            h = self._run(block, h if mixture is None else h + mixture[level], noise)
            skips.append(h)
        for block in self.middle:
            h = self._run(block, h, noise)
        for block, level in zip(self.decoder, self._up_levels):
            h = torch.cat([h, skips.pop()], dim=1)
            h = self._run(block, h if mixture is None else h.add_(mixture[level]), noise)
        return self.write(F.silu(self.norm(h)))

    def pyramid(self, mixture: Tensor) -> list[Tensor]:
        """A mixture's latent (B, depth, time, mel) as (B, 1, depth, time', mel') for every level: once per window."""
        levels = [mixture[:, None]]
        for _ in self.config.multipliers[1:]:
            levels.append(F.avg_pool3d(levels[-1], (1, 2, 2)))
        return levels

    def _run(self, block: Callable[[Tensor, Tensor], Tensor], h: Tensor, noise: Tensor) -> Tensor:
        if self.config.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, h, noise, use_reentrant=False)
            return out
        return block(h, noise)


class Block(nn.Module):
    """One step of a path: a residual block, attention, a convolution that reads or halves, a doubling; each may be absent."""

    def __init__(self, inputs: int = 0, outputs: int = 0, noise: int = 0, *, attention: bool = False) -> None:
        super().__init__()
        self.convolution: nn.Module | None = None
        self.residual = Residual(inputs, outputs, noise) if outputs else None
        self.attention = Attention(outputs) if attention else None
        self.enlarge: nn.Module | None = None

    def forward(self, h: Tensor, noise: Tensor) -> Tensor:
        """(B, inputs, depth, time, mel) and the noise embedding (B, width) -> (B, outputs, depth, time', mel')."""
        if self.convolution is not None:
            h = self.convolution(h)
        if self.residual is not None:
            h = self.residual(h, noise)
        if self.attention is not None:
            h = self.attention(h)
        if self.enlarge is not None:
            h = self.enlarge(h.repeat_interleave(2, -1).repeat_interleave(2, -2))
        return h


class Residual(nn.Module):
    """Two normalised convolutions, the noise embedding added between them."""

    def __init__(self, inputs: int, outputs: int, noise: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(GROUPS, inputs)
        self.first = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.noise = nn.Linear(noise, outputs)
        self.second_norm = nn.GroupNorm(GROUPS, outputs)
        self.second = _zero(nn.Conv3d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """`noise` is the activated embedding (B, width)."""
        h = self.first(F.silu(self.first_norm(x))) + self.noise(noise)[:, :, None, None, None]
        return self.shortcut(x) + self.second(F.silu(self.second_norm(h)))


class Attention(nn.Module):
    """Self-attention of all positions of the grid, with a residual; heads are laid out so that fused kernels take it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.query_key_value = nn.Linear(width, 3 * width)  # rows ordered [head][query, key, value][HEAD]
        self.out = _zero(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, depth, time, mel) -> the same shape."""
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B, position, width)
        heads = (
            self.query_key_value(h).unflatten(2, (-1, 3, HEAD)).permute(3, 0, 2, 1, 4)
        )  # (3, B, head, position, HEAD)
        query, key, value = heads.contiguous()
        h = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)


def time_embedding(time: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Cosines, then sines of time steps (B,) at `width` / 2 frequencies from 1 to 1 / `longest`: (B, width)."""
    half = width // 2
    frequencies = torch.exp(-math.log(longest) / half * torch.arange(half, device=time.device, dtype=torch.float32))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
