"""The stem x latent U-Net of MSG-LD (Karchkhadze et al. 2024, arXiv 2409.12346).

Stems are the convolutions' channels and the latent's own channels their depth: states are (batch, stem, depth, time,
mel). The mixture has no weights: its latent, averaged down to the grid of every level, is added to all channels before
each block of the encoder and, after the skip is joined, of the decoder. The same numbers from the same weights as the
published checkpoints, whose keys `stemwise.convert.msgld` renames. Folded (ours, for small models), it is a U-Net over time
and mel that has weights for the mixture.
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
HEIGHTS = 8  # features of a position on the mel axis


@dataclass(frozen=True)
class UNetStemsConfig:
    """Shape of the network; the defaults are those of the published 128-channel model (305 million parameters).

    ``multipliers`` times ``channels`` are the widths of the levels, each of half the resolution in time and mel of the
    one before; ``blocks`` residual blocks a level, with attention over the whole grid where ``attention`` says so.
    ``recompute`` keeps no activations inside blocks while training (gradient checkpointing). ``folded``, where not 0, is the
    number of the latent's channels, which then are channels of the network as the stems are: convolutions over time and mel
    alone, and the mixture has an encoder of its own (`Listener`). That is ours, for small models.
    """

    stems: int = 4
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 5)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, True, True, True)
    recompute: bool = False
    folded: int = 0

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
        grid, depth = (2, config.folded) if config.folded else (3, 1)
        self.time = nn.ModuleList([nn.Linear(config.channels, noise), nn.Linear(noise, noise)])
        read = Block()
        read.convolution = _convolution(grid, config.stems * depth + (HEIGHTS if config.folded else 0), widths[0])
        self.encoder, self._levels = nn.ModuleList([read]), [0]  # the level of each block's input
        skips, now, made = [widths[0]], widths[0], [0]  # `made`: the level of each block's output
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.encoder.append(Block(now, width, noise, grid=grid, attention=config.attention[level]))
                self._levels.append(level)
                made.append(level)
                now = width
                skips.append(now)
            if level + 1 < len(widths):
                halve = Block()
                halve.convolution = _convolution(grid, now, now, stride=2)
                self.encoder.append(halve)
                self._levels.append(level)
                made.append(level + 1)
                skips.append(now)
        self.listen = Listener(config) if config.folded else None
        self._hears = [level if width == widths[level] else None for level, width in zip(made, skips)]
        self.middle = nn.ModuleList(
            [Block(now, now, noise, grid=grid, attention=attention) for attention in (True, False)]
        )
        self.decoder = nn.ModuleList()
        self._up_levels: list[int] = []
        for level, width in reversed(list(enumerate(widths))):
            for index in range(config.blocks + 1):
                block = Block(now + skips.pop(), width, noise, grid=grid, attention=config.attention[level])
                if level and index == config.blocks:
                    block.enlarge = _convolution(grid, width, width)
                self.decoder.append(block)
                self._up_levels.append(level)
                now = width
        self.norm = nn.GroupNorm(GROUPS, now)
        self.write = _zero(_convolution(grid, now, config.stems * depth))

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
        # Published: the mixture is added to what blocks are given. Folded: what its encoder heard, to what they make of a level.
        folded, skips = bool(self.config.folded), list[Tensor]()
        if folded:
            silence = torch.zeros_like(x[:1, 0])
            added, heard = None, self.pyramid(silence) if mixture is None else mixture
            h = torch.cat([x.flatten(1, 2), heights(x)], dim=1)
        else:
            added, heard, h = mixture, None, x
        for block, level, hears in zip(self.encoder, self._levels, self._hears):
            h = self._run(block, h if added is None else h + added[level], noise)
            if heard is not None and hears is not None:
                h = h + heard[hears]
            skips.append(h)
        for block in self.middle:
            h = self._run(block, h, noise)
        for block, level in zip(self.decoder, self._up_levels):
            h = torch.cat([h, skips.pop()], dim=1)
            h = self._run(block, h if added is None else h.add_(added[level]), noise)
        written: Tensor = self.write(F.silu(self.norm(h)))
        return written.unflatten(1, x.shape[1:3]) if folded else written

    def pyramid(self, mixture: Tensor) -> list[Tensor]:
        """A mixture's latent (B, depth, time, mel) as (B, 1, depth, time', mel') for every level: once per window.

        Folded: what its encoder makes of it, (B, width, time', mel').
        """
        if self.listen is not None:
            heard: list[Tensor] = self.listen(mixture)
            return heard
        levels = [mixture[:, None]]
        for _ in self.config.multipliers[1:]:
            levels.append(F.avg_pool3d(levels[-1], (1, 2, 2)))
        return levels

    def _run(self, block: Callable[[Tensor, Tensor], Tensor], h: Tensor, noise: Tensor) -> Tensor:
        if self.config.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, h, noise, use_reentrant=False)
            return out
        return block(h, noise)


class Listener(nn.Module):
    """A mixture's latent (B, channel, time, mel) -> what is added to the state at every level (B, width, time', mel')."""

    def __init__(self, config: UNetStemsConfig) -> None:
        super().__init__()
        self.levels, now = nn.ModuleList(), config.folded
        for level, width in enumerate(config.widths):
            block = Block(width, width, grid=2, attention=config.attention[level])
            block.convolution = _convolution(2, now, width, stride=1 if level == 0 else 2)
            self.levels.append(block)
            now = width

    def forward(self, mixture: Tensor) -> list[Tensor]:
        """From fine to coarse."""
        levels, h = [], mixture
        for block in self.levels:
            h = block(h, None)
            levels.append(h)
        return levels


class Block(nn.Module):
    """One step of a path: a residual block, attention, a convolution that reads or halves, a doubling; each may be absent."""

    def __init__(
        self, inputs: int = 0, outputs: int = 0, noise: int = 0, *, grid: int = 3, attention: bool = False
    ) -> None:
        super().__init__()
        self.convolution: nn.Module | None = None
        self.residual = Residual(inputs, outputs, noise, grid) if outputs else None
        self.attention = Attention(outputs) if attention else None
        self.enlarge: nn.Module | None = None

    def forward(self, h: Tensor, noise: Tensor | None) -> Tensor:
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

    def __init__(self, inputs: int, outputs: int, noise: int, grid: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(GROUPS, inputs)
        self.first = _convolution(grid, inputs, outputs)
        self.noise = nn.Linear(noise, outputs) if noise else None
        self.second_norm = nn.GroupNorm(GROUPS, outputs)
        self.second = _zero(_convolution(grid, outputs, outputs))
        self.shortcut = _convolution(grid, inputs, outputs, size=1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """`noise` is the activated embedding (B, width)."""
        h = self.first(F.silu(self.first_norm(x)))
        if self.noise is not None:
            h = h + self.noise(noise).reshape(len(x), -1, *[1] * (x.ndim - 2))
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


def heights(x: Tensor) -> Tensor:
    """Where on the mel axis a position of (B, ..., time, mel) is: (B, HEIGHTS, time, mel), which convolutions cannot know."""
    at = torch.arange(x.shape[-1], device=x.device, dtype=torch.float32) / x.shape[-1]
    waves = torch.pi * at * 2.0 ** torch.arange(HEIGHTS // 2, device=x.device, dtype=torch.float32)[:, None]
    return torch.cat([waves.sin(), waves.cos()]).to(x.dtype)[None, :, None].expand(len(x), -1, x.shape[-2], -1)


def _convolution(grid: int, inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Module:
    """Over (time, mel) or (depth, time, mel), of which depth is never halved."""
    if grid == 2:
        return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)
    return nn.Conv3d(inputs, outputs, size, (1, stride, stride), padding=size // 2)


def _zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
