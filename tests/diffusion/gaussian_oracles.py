"""Exact denoisers: jointly Gaussian stems, white in time, and finite sets. States are (batch, slot, time), float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stemwise.diffusion.denoisers import Denoiser


def gaussian(cov: Tensor, mean: Tensor | None = None) -> Denoiser:
    """E[x0 | x] for x0 ~ N(mean (slot, time), cov (slot, slot)) at every time; sigma (), (batch,) or (batch, slot)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = torch.as_tensor(sigma).to(x)
        level = level.reshape(level.shape + (1,) * (2 - level.ndim)).expand(x.shape[:2])
        gain = cov @ torch.linalg.inv(cov + torch.diag_embed(level**2))
        middle = torch.zeros_like(x[0]) if mean is None else mean
        return middle + gain @ (x - middle)

    return denoise


def independent(std: Tensor) -> Denoiser:
    """Independent stems of standard deviation std (slot,)."""
    return gaussian(torch.diag(std**2))


def posterior_variance(std: Tensor) -> Callable[[Tensor], Tensor]:
    """Var[x0 | x] of independent stems as a function of sigma, (slot,)."""
    return lambda sigma: std**2 * sigma**2 / (std**2 + sigma**2)


def given_sum(cov: Tensor, mix: Tensor, part: Tensor, slack: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean (slot, time) and cov of the stems given part . stems + N(0, slack^2) = mix (time,)."""
    gain = cov @ part / (part @ cov @ part + slack**2)
    return gain[:, None] * mix, cov - torch.outer(gain, part @ cov)


def finite(points: Tensor) -> Denoiser:
    """E[x0 | x] for x0 uniform over points (n, slot, time)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        distance = (x[:, None] - points).flatten(2).square().sum(-1)
        return torch.einsum("bn,nst->bst", torch.softmax(-distance / (2 * sigma**2), 1), points)

    return denoise


def silence(shape: tuple[int, ...]) -> Tensor:
    """A noise source that gives zeros: what is left is the response to the evidence."""
    return torch.zeros(shape, dtype=torch.float64)
