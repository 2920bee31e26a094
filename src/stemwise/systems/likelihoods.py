"""How a mixture that was heard enters the sampling of its stems: one object for each way.

States are (batch, stem, ...), mixtures (batch, ...); all stems together sum to the mixture. `Dirac` and `Gaussian` are
those of MSDM (Mariani et al. 2024); `Even` and `Projection` need no stem to be special and far fewer evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion import Denoiser, Free, Step, SumCoupling, SumEven, SumTo, couple, exact
from stemwise.diffusion.constraints import Constraint
from stemwise.systems.local_wiener import LocalWiener, Stft
from stemwise.systems.spectra import Power


@dataclass(frozen=True)
class Conditioned:
    """What to sample from, and how: arguments of `diffusion.sample`."""

    denoiser: Denoiser
    constraint: Constraint
    step: Step


class Likelihood(Protocol):
    """Evidence that stems sum to a mixture."""

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """The denoiser of `slots` stems, restricted to or guided towards those that sum to `mix`."""
        ...


@dataclass(frozen=True)
class Dirac:
    """Stem `drop` is what the others leave of the clean mixture: d_k = e_k - e_drop. Best where `drop` is the loudest.

    Approximate: the noisy stems are held to the clean mixture. Churn and resampling repair a part of the bias.
    """

    drop: int = 0

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """The plane in the paper's coordinates; `step` must be one that does not need an x0 estimate, such as `euler`."""
        return Conditioned(denoiser, SumTo(tuple(range(slots)), mix, self.drop, slots), step)


@dataclass(frozen=True)
class Even:
    """The same plane in orthonormal coordinates, so no stem is special: d_k = e_k - mean(e)."""

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """The plane."""
        return Conditioned(denoiser, SumEven(tuple(range(slots)), mix, slots), step)


@dataclass(frozen=True)
class Gaussian:
    """The mixture is the sum of the noisy stems plus noise of gamma sigma, as the paper counts gamma.

    The released code has a further factor 1/2 in the score, so the width is sqrt(2) gamma sigma. A plain step is stable
    only while (1 - sigma'/sigma) slots / (2 gamma^2) < 2; `GaussianExact` always.
    """

    gamma: float = 0.75

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """A force on every stem."""
        return Conditioned(couple(denoiser, self._coupling(mix, slots)), _free(mix, slots), step)

    def _coupling(self, mix: Tensor, slots: int) -> SumCoupling:
        return SumCoupling(tuple(range(slots)), mix, math.sqrt(2) * self.gamma)


@dataclass(frozen=True)
class GaussianExact(Gaussian):
    """`Gaussian` with the coupling integrated exactly over every step, whatever its width."""

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """The step rule is `diffusion.exact`; `step` is not used."""
        return Conditioned(denoiser, _free(mix, slots), exact(self._coupling(mix, slots)))


Variance = Callable[[Tensor, Tensor], Tensor]
"""(denoised (batch, stem, time), sigma) -> the posterior variance of each sample, up to a factor that stems share."""


@dataclass(frozen=True)
class Projection:
    """The denoised stems are moved to sum to the mixture, each by its share of the posterior variance.

    D_k + v_k / sum(v) (mix - sum D): the exact conditional mean for independent Gaussian stems given the noisy state
    (PiGDM, Song et al. 2023, with a sum as the measurement). Needs neither churn nor resampling.
    """

    variance: Variance

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """Guidance of the estimate; `step` may be any rule."""

        def projected(x: Tensor, sigma: Tensor, /) -> Tensor:
            denoised = denoiser(x, sigma)
            v = self.variance(denoised, sigma)
            return denoised + v / v.sum(1, keepdim=True) * (mix - denoised.sum(1))[:, None]

        return Conditioned(projected, _free(mix, slots), step)


@dataclass(frozen=True)
class SpectralProjection:
    """`Projection` with a posterior variance for each frequency: of stems that are stationary noise of known spectra.

    `power`: from a number of frames to (stem, frames // 2 + 1), as in `diffusion.SpectralEdm`. What is missing below 100 Hz
    goes to the bass and the drums. A prior that knows nothing but these spectra gives the Wiener filter.
    """

    power: Power

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """Guidance of the estimate; `step` may be any rule, states are (batch, stem, time)."""
        power = self.power(mix.shape[-1]).to(mix)

        def projected(x: Tensor, sigma: Tensor, /) -> Tensor:
            denoised = denoiser(x, sigma)
            variance = power / (power / sigma.to(power) ** 2 + 1)
            lacking = torch.fft.rfft(mix - denoised.sum(1))[:, None]
            return denoised + torch.fft.irfft(variance / variance.sum(0) * lacking, n=mix.shape[-1])

        return Conditioned(projected, _free(mix, slots), step)


@dataclass(frozen=True)
class LocalProjection:
    """`Projection` with the posterior variance of every frame and bin, as the prior's own network finds it.

    What is missing goes to the stem that is loud there and not yet certain.
    """

    prior: LocalWiener

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """The denoiser is `prior`, `denoiser` is not used; `step` may be any rule, states are (batch, stem, time)."""
        heard = self.prior.transform.spectrogram(mix)

        def projected(x: Tensor, sigma: Tensor, /) -> Tensor:
            denoised, variance = self.prior.moments(x, sigma)
            share = (variance + 1e-12) / (variance + 1e-12).sum(1, keepdim=True)
            closed = denoised + share * (heard - denoised.sum(1))[:, None]
            return self.prior.transform.signal(closed, x.shape[-1])

        return Conditioned(projected, _free(mix, slots), step)


@dataclass(frozen=True)
class AdaptiveProjection:
    """`Projection` with the posterior variance p sigma^2 / (p + sigma^2) of every frame and bin, p from the estimate itself.

    For priors that tell no powers. Of a Gaussian stem of power p the estimate has the power q = p^2 / (p + sigma^2), which
    is solved for p; q is averaged over three frames and bins. `floor` is that of q, in sample units squared: stems that
    are silent share equally.
    """

    transform: Stft
    floor: float = 1e-6

    def condition(self, denoiser: Denoiser, mix: Tensor, slots: int, step: Step) -> Conditioned:
        """Guidance of the estimate; `step` may be any rule, states are (batch, stem, time)."""

        def projected(x: Tensor, sigma: Tensor, /) -> Tensor:
            denoised = denoiser(x, sigma)
            level = sigma.to(x) ** 2
            heard = self.transform.power(denoised)
            q = F.avg_pool2d(heard, 3, 1, 1, count_include_pad=False) + self.floor
            p = (q + (q * (q + 4 * level)).sqrt()) / 2
            variance = p / (p + level)
            lacking = self.transform.spectrogram((mix - denoised.sum(1))[:, None])
            return denoised + self.transform.signal(variance / variance.sum(1, keepdim=True) * lacking, x.shape[-1])

        return Conditioned(projected, _free(mix, slots), step)


def gaussian_variance(*stds: float) -> Variance:
    """The posterior variance s^2 sigma^2 / (s^2 + sigma^2) of stems that are white noise of these standard deviations."""
    power = torch.tensor(stds, dtype=torch.float64) ** 2

    def variance(denoised: Tensor, sigma: Tensor) -> Tensor:
        v = power * sigma.cpu() ** 2 / (power + sigma.cpu() ** 2)
        return v.to(denoised).reshape(1, -1, *[1] * (denoised.ndim - 2))

    return variance


def _free(mix: Tensor, slots: int) -> Free:
    return Free((mix.shape[0], slots, *mix.shape[1:]))
