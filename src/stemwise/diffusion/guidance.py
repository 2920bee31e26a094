"""Soft evidence: functions from denoiser to denoiser.

By Tweedie's formula, adding a term to the score adds to the estimate: D' = D + sigma^2 force, with
force = + gradient of a log-likelihood = - gradient of an energy. Guidance wraps the full-state denoiser, before
`restrict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stemwise.diffusion.denoisers import Denoiser, align, slot_mask
from stemwise.diffusion.sampling import Draw, Past, Step, ahead
from stemwise.errors import QueryError

Energy = Callable[[Tensor, Tensor], Tensor]
"""(clean estimate x0, sigma) -> energies, any shape; they are added up, so keep items of a batch apart."""


def classifier_free(cond: Denoiser, uncond: Denoiser, w: float) -> Denoiser:
    """D_u + w (D_c - D_u) (Ho and Salimans 2022): w = 1 is the conditional model, larger exaggerates."""

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        base = uncond(x, sigma)
        return base + w * (cond(x, sigma) - base)

    return guided


def classifier_free_folded(
    model: Callable[[Tensor, Tensor, Tensor], Tensor], cond: Tensor, uncond: Tensor, w: float
) -> Denoiser:
    """As `classifier_free` of model(x, sigma, condition (batch, ...)), in one call of twice the batch."""
    both = torch.cat([cond, uncond])

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        level = torch.as_tensor(sigma)
        level = level if level.ndim == 0 or level.shape[0] == 1 else torch.cat([level, level])
        wanted, base = model(torch.cat([x, x]), level, both).chunk(2)
        return base + w * (wanted - base)

    return guided


def negative(wanted: Denoiser, unwanted: Denoiser, w: float) -> Denoiser:
    """Away from a prompt: `classifier_free` with the unwanted prompt in the place of none, D_n + w (D_p - D_n)."""
    return classifier_free(wanted, unwanted, w)


def gaussian_sum(denoiser: Denoiser, part: tuple[int, ...], mix: Tensor, gamma: Callable[[Tensor], Tensor]) -> Denoiser:
    """The likelihood N(mix; sum of the part's noisy slots, gamma(sigma)^2): D_k + sigma^2 / gamma^2 (mix - sum x).

    Honest score. MSDM's released code has a further factor 1/2, so its gamma of 0.75 sigma is sqrt(2) 0.75 sigma here.
    Stiff: with gamma = c sigma an Euler step is stable only while (1 - sigma'/sigma) len(part) / c^2 < 2; see `exact`.
    `mix` has the state's shape without its slots.
    """

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        row = slot_mask(part, x)
        gap = mix.unsqueeze(1) - (row * x).sum(1, keepdim=True)
        return denoiser(x, sigma) + row * (align(sigma, x) / align(gamma(sigma), x)) ** 2 * gap

    return guided


def project(denoiser: Denoiser, part: tuple[int, ...], mix: Tensor, variance: Callable[[Tensor], Tensor]) -> Denoiser:
    """Make the denoised estimate sum to `mix` over `part`, sharing the gap out in proportion to posterior variance.

    D_k + v_k / sum(v) (mix - sum D), with v = variance(sigma): (len(part),), or broadcastable to the part of the state.
    The exact conditional mean where stems are independent and Gaussian given the *noisy* state; needs neither churn nor
    resampling. `mix` has the state's shape without its slots.
    """

    def projected(x: Tensor, sigma: Tensor, /) -> Tensor:
        denoised = denoiser(x, sigma)
        index = torch.tensor(part, device=x.device)
        chosen = denoised.index_select(1, index)
        v = variance(sigma).to(chosen)
        if v.ndim == 1:
            v = v.reshape(-1, *[1] * (x.ndim - 2))
        gap = mix.unsqueeze(1) - chosen.sum(1, keepdim=True)
        share = v / v.expand_as(chosen).sum(1, keepdim=True)
        return denoised.index_copy(1, index, chosen + share * gap)

    return projected


def energy(denoiser: Denoiser, fn: Energy) -> Denoiser:
    """D - sigma^2 grad_x fn(D(x), sigma): the force by autograd through the denoiser (diffusion posterior sampling)."""

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            denoised = denoiser(leaf, sigma)
            (gradient,) = torch.autograd.grad(fn(denoised, sigma).sum(), leaf)
        return denoised.detach() - align(sigma, x) ** 2 * gradient

    return guided


def energy_at_x0(denoiser: Denoiser, fn: Energy) -> Denoiser:
    """D - sigma^2 grad_x0 fn(x0, sigma) at x0 = D(x): cheaper, the denoiser's own slope is taken for 1.

    That slope falls from 1 to 0 as sigma grows, so the force is too strong at high noise; let `fn` fall with sigma.
    """

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        denoised = denoiser(x, sigma)
        with torch.enable_grad():
            leaf = denoised.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(fn(leaf, sigma).sum(), leaf)
        return denoised - align(sigma, x) ** 2 * gradient

    return guided


class Coupling(Protocol):
    """A linear pull of the slots towards agreement, sigma^2 force = - push(residual(x)), gamma in proportion to sigma.

    It is rank one over slots, residual(push(r)) = rate r without the data, so it can be integrated exactly.
    """

    @property
    def rate(self) -> float:
        """How fast the residual alone would decay: d ln r / d ln sigma."""
        ...

    def residual(self, x: Tensor) -> Tensor:
        """What does not agree, r; one slot wide."""
        ...

    def push(self, residual: Tensor, x: Tensor) -> Tensor:
        """How dx / d ln sigma changes, shaped like x."""
        ...


@dataclass(frozen=True, eq=False)
class SumCoupling:
    """The part's slots against a mixture that is data: N(mix; sum x, (factor sigma)^2), MSDM's Gaussian likelihood."""

    part: tuple[int, ...]
    mix: Tensor
    factor: float

    @property
    def rate(self) -> float:
        """K / factor^2."""
        return len(self.part) / self.factor**2

    def residual(self, x: Tensor) -> Tensor:
        """Mix - sum x."""
        return self.mix.unsqueeze(1) - (slot_mask(self.part, x) * x).sum(1, keepdim=True)

    def push(self, residual: Tensor, x: Tensor) -> Tensor:
        """- r / factor^2 on the part."""
        return slot_mask(self.part, x) * residual * (-1 / self.factor**2)


@dataclass(frozen=True)
class SlotCoupling:
    """The part's slots and one more slot, their mixture, sampled together (GMSDI, eq. 2).

    The score of slot k gains (y - sum x) / (factor_x sigma)^2, that of the mixture y (sum x - y) / (factor_y sigma)^2.
    """

    part: tuple[int, ...]
    mixture: int
    factor_x: float
    factor_y: float

    def __post_init__(self) -> None:
        if self.mixture in self.part:
            raise QueryError(f"the mixture's slot {self.mixture} cannot be one of the slots {self.part} that it sums")

    @property
    def rate(self) -> float:
        """K / factor_x^2 + 1 / factor_y^2."""
        return len(self.part) / self.factor_x**2 + 1 / self.factor_y**2

    def residual(self, x: Tensor) -> Tensor:
        """Y - sum x."""
        return (slot_mask((self.mixture,), x) * x - slot_mask(self.part, x) * x).sum(1, keepdim=True)

    def push(self, residual: Tensor, x: Tensor) -> Tensor:
        """- r / factor_x^2 on the part, + r / factor_y^2 on the mixture."""
        parts = slot_mask(self.part, x) * residual * (-1 / self.factor_x**2)
        return parts + slot_mask((self.mixture,), x) * residual * (1 / self.factor_y**2)


def couple(denoiser: Denoiser, coupling: Coupling) -> Denoiser:
    """The coupling as guidance, for any step rule; stiff for small factors, see `exact`."""
    return lambda x, sigma: denoiser(x, sigma) - coupling.push(coupling.residual(x), x)


def exact(coupling: Coupling) -> Step:
    """`dpmpp_2m` of the *uncoupled* denoiser with the coupling integrated exactly: stable for every step and factor.

    With the estimate D held over the step, dx / d ln sigma = x - D + push(r) and dr / d ln sigma = (1 + rate) r - r_D,
    r_D = residual(D). For states without `Known` slots in the coupling; with them use `couple`.
    """

    def step(
        denoiser: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, draw: Draw, past: Past | None, /
    ) -> tuple[Tensor, Tensor]:
        denoised = denoiser(x, sigma)
        estimate = ahead(denoised, sigma, sigma_next, past)
        ratio = sigma_next / sigma
        settled = coupling.residual(estimate) / (1 + coupling.rate)
        swing = ratio * torch.expm1(coupling.rate * ratio.log()) / coupling.rate
        gain = (coupling.residual(x) - settled) * swing + settled * (ratio - 1)
        return estimate + ratio * (x - estimate) + coupling.push(gain, x), denoised

    return step
