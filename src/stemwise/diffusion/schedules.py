"""Noise schedules: 1-D float64 tensors of n + 1 falling sigmas, the last of them 0; tables of discrete-time models.

Float64 costs nothing: a sampler uses single elements, and a 0-dimensional tensor never promotes a float32 state.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from stemwise.errors import QueryError


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """`n` levels from `sigma_max` to `sigma_min`, even in sigma^(1/rho), then 0 (Karras et al. 2022, eq. 5).

    Raises QueryError unless n >= 1 and 0 < sigma_min <= sigma_max.
    """
    _check(n, sigma_min, sigma_max)
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64)
    return _then_zero(ramp**rho)


def exponential(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """`n` levels from `sigma_max` to `sigma_min`, even in log sigma, then 0 (the limit of `karras` for large rho)."""
    _check(n, sigma_min, sigma_max)
    return _then_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64).exp())


def flow(n: int, sigma_max: float = 80.0, shift: float = 1.0) -> Tensor:
    """`n` steps even in the flow time t, with sigma = t / (1 - t); then 0.

    A flow starts at t = 1, where sigma is infinite; we start at the t that belongs to `sigma_max`. `shift` moves the
    times towards the noise, t' = shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23): sigma is multiplied by it.
    """
    _check(n, sigma_max, sigma_max)
    start = sigma_max / shift
    t = torch.linspace(start / (1 + start), 0.0, n + 1, dtype=torch.float64)
    return shift * t / (1 - t)


def linear_beta(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """alphas_cumprod (steps,) of betas even in beta (Ho et al. 2020)."""
    return torch.cumprod(1 - torch.linspace(start, end, steps, dtype=torch.float64), 0)


def scaled_linear_beta(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """alphas_cumprod (steps,) of betas even in sqrt(beta) (latent diffusion, Rombach et al. 2022)."""
    return torch.cumprod(1 - torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2, 0)


def cosine(steps: int = 1000, offset: float = 0.008, largest_beta: float = 0.999) -> Tensor:
    """alphas_cumprod (steps,) of the cosine schedule (Nichol and Dhariwal 2021, eq. 17), betas up to `largest_beta`."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return torch.cumprod(1 - (1 - level[1:] / level[:-1]).clamp(max=largest_beta), 0)


def sigma_table(alphas_cumprod: Tensor) -> Tensor:
    """The rising sigmas of a discrete-time model: sigma_t = sqrt((1 - a_t) / a_t), float64, shape (steps,).

    Raises QueryError where a_t leaves (0, 1): a model trained to zero signal has an infinite sigma; drop its last step.
    """
    table = alphas_cumprod.detach().to(torch.float64)
    if not bool(((table > 0) & (table < 1)).all()):
        raise QueryError("alphas_cumprod must lie strictly between 0 and 1; leave out steps without signal")
    return ((1 - table) / table).sqrt()


def from_alphas_cumprod(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Sigmas at falling `timesteps` (fractions interpolate linearly between table entries), then 0."""
    table = sigma_table(alphas_cumprod)
    t = timesteps.to(torch.float64)
    if not bool(((t >= 0) & (t <= len(table) - 1)).all()):
        raise QueryError(f"timesteps must lie in 0..{len(table) - 1}, got {float(t.min())}..{float(t.max())}")
    below = t.floor().long()
    above = t.ceil().long()
    return _then_zero(table[below] + (t - below) * (table[above] - table[below]))


def even_timesteps(n: int, steps: int) -> Tensor:
    """`n` timesteps from steps - 1 down to 0, both included ("linspace" spacing), float64."""
    return torch.linspace(steps - 1, 0, n, dtype=torch.float64)


def leading_timesteps(n: int, steps: int, offset: int = 0) -> Tensor:
    """Multiples of steps // n, falling, plus `offset` ("leading" spacing, that of DDIM; misses the noisiest steps)."""
    return torch.arange(n - 1, -1, -1, dtype=torch.float64) * (steps // n) + offset


def ddim_timesteps(n: int, steps: int) -> Tensor:
    """Leading spacing from step 1, as latent diffusion is sampled (Rombach et al. 2022): at most steps - 1 of them, falling.

    Where `n` does not divide `steps` and the whole strides would miss more than a tenth of them at the noisy end (600 of
    1000 would begin at 600), strides are as long as they are on average.
    """
    n = max(1, min(n, steps - 1))
    stride: float = steps // n
    if (n - 1) * (steps / n - stride) > steps / 10:
        stride = steps / n
    return torch.arange(n - 1, -1, -1, dtype=torch.float64).mul(stride).floor() + 1


def trailing_timesteps(n: int, steps: int) -> Tensor:
    """Falling from steps - 1 by steps / n, rounded ("trailing" spacing, Lin et al. 2024)."""
    return torch.arange(n, 0, -1, dtype=torch.float64).mul(steps / n).round() - 1


Spacing = Literal["leading", "trailing"]
"""Which steps of a discrete schedule few evaluations take: leading ones as published, trailing ones from the noisiest on.

A single one is the noisiest either way: the leading one is nearly clean, and would give the starting noise back."""


def spaced_timesteps(spacing: Spacing, n: int, steps: int) -> Tensor:
    """`ddim_timesteps` or `trailing_timesteps`: at most as many as there are."""
    return ddim_timesteps(n, steps) if spacing == "leading" and n > 1 else trailing_timesteps(min(n, steps), steps)


def _then_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _check(n: int, sigma_min: float, sigma_max: float) -> None:
    if n < 1 or not 0 < sigma_min <= sigma_max:
        raise QueryError(f"a schedule needs n >= 1 and 0 < sigma_min <= sigma_max, got {n}, {sigma_min}, {sigma_max}")
