"""What ours is measured against: the published network and sampler written down straightforwardly, in float32.

Written from the description, with our network's weights: every normalisation, modulation and activation a pass of its own,
softmax in float32, one window at a time, nothing lowered or merged; the Dirac sampler as published (Mariani et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.nets.unet1d import SKIP_SCALE, Attention, ResBlock, Transformer, UNet1d


def evaluate(net: UNet1d, x: Tensor, label: Tensor) -> Tensor:
    """(1, source, time) and (1,) -> (1, source, time)."""
    angles = label[:, None] * net.time.frequencies * 2 * math.pi
    c = torch.cat([label[:, None], angles.sin(), angles.cos()], dim=1)
    for layer in net.time.layers:
        c = F.gelu(layer(c))
    patch = net.config.patch
    h = block(net.read, x, c)
    b, channels, time = h.shape
    h = h.reshape(b, channels, time // patch, patch).permute(0, 1, 3, 2).reshape(b, channels * patch, time // patch)
    first, skips = h, []
    for down in net.down:
        h = down.resample(h)
        kept = []
        for each in down.blocks:
            h = block(each, h, c)
            kept.append(h)
        if down.transformer is not None:
            h = transform(down.transformer, h)
            kept.append(h)
        skips.append(kept)
    h = block(net.before, h, c)
    h = attend(net.middle, h.transpose(1, 2)).transpose(1, 2)
    h = block(net.after, h, c)
    for up in net.up:
        kept = skips.pop()
        for each in up.blocks:
            h = block(each, torch.cat([h, kept.pop() * SKIP_SCALE], dim=1), c)
        if up.transformer is not None:
            h = transform(up.transformer, h)
        h = up.resample(h)
    h = h + first
    h = h.reshape(b, channels, patch, time // patch).permute(0, 1, 3, 2).reshape(b, channels, time)
    return block(net.write, h, c)


def block(layer: ResBlock, x: Tensor, c: Tensor) -> Tensor:
    h = layer.first(F.silu(layer.first_norm(x)))
    scale, shift = layer.film(F.silu(c))[..., None].chunk(2, dim=1)
    h = layer.second(F.silu(layer.second_norm(h) * (scale + 1) + shift))
    return h + layer.shortcut(x)


def attend(layer: Attention, x: Tensor) -> Tensor:
    h = layer.norm(x)
    q, (k, v) = layer.query(h), layer.key_value(h).chunk(2, dim=-1)
    q, k, v = (z.reshape(*z.shape[:2], layer.heads, -1).transpose(1, 2) for z in (q, k, v))
    weights = torch.einsum("bhnd,bhmd->bhnm", q, k) * q.shape[-1] ** -0.5
    out = torch.einsum("bhnm,bhmd->bhnd", weights.softmax(-1, dtype=torch.float32), v)
    return layer.out_norm(layer.out(out.transpose(1, 2).flatten(2)))


def transform(layer: Transformer, x: Tensor) -> Tensor:
    h = x.transpose(1, 2)
    h = attend(layer.attention, h) + h
    h = layer.narrow(layer.hidden_norm(F.gelu(layer.widen(layer.norm(h))))) + h
    return h.transpose(1, 2)


def denoise(net: UNet1d, x: Tensor, sigma: float, sigma_data: float) -> Tensor:
    total = math.sqrt(sigma**2 + sigma_data**2)
    out = evaluate(net, x / total, torch.full((1,), math.log(sigma) / 4))
    return ((sigma_data / total) ** 2 * x + sigma * sigma_data / total * out).clamp(-1, 1)


def separate(
    denoiser: Callable[[Tensor, float], Tensor],
    mix: Tensor,
    sources: int,
    levels: list[float],
    churn: float = 20.0,
    resample: int = 2,
    seed: int = 0,
) -> Tensor:
    """Dirac with the first stem dropped, for one window (1, 1, time); `levels` fall and end in 0."""
    draw = torch.Generator().manual_seed(seed)
    shape = (1, sources, mix.shape[-1])
    x = levels[0] * torch.randn(shape, generator=draw)
    steps = len(levels) - 1
    for i in range(steps):
        for turn in range(resample):
            gain = min(churn / steps, math.sqrt(2) - 1)
            level = levels[i] * (1 + gain)
            x = x + math.sqrt(level**2 - levels[i] ** 2) * torch.randn(shape, generator=draw)
            x[:, :1] = mix - x[:, 1:].sum(1, keepdim=True)
            slope = (x - denoiser(x, level)) / level
            x = x + (levels[i + 1] - level) * (slope - slope[:, :1])
            if turn + 1 < resample:
                x = x + math.sqrt(levels[i] ** 2 - levels[i + 1] ** 2) * torch.randn(shape, generator=draw)
    return x
