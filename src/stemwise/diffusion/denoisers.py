"""Denoisers: `(x, sigma) -> E[x0 | x]` for x = x0 + sigma noise; foreign models enter through wrappers.

`sigma` is a tensor of shape (), (batch,) or (batch, slot); x is (batch, slot, ...). Inside this package sigma is always
the noise level of a variance-exploding state; the word "time" exists only in the wrappers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from stemwise.diffusion.schedules import sigma_table
from stemwise.errors import QueryError

Predicts = Literal["noise", "velocity"]
"""What a variance-preserving network says of a noisy state."""

NoiseSource = Callable[[tuple[int, ...]], Tensor]
"""Draws standard normal noise of a shape; see `sampling.seeded` and `sampling.tape`."""

Net = Callable[[Tensor, Tensor], Tensor]
"""A raw network: (scaled state, its own time or noise label, (batch,) or (batch, slot)) -> output like the state."""

Time = Callable[[Tensor], Tensor]
"""From sigma to the time label of a foreign model, elementwise."""


class Denoiser(Protocol):
    """The mean of the clean state given a noisy one."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x], shaped like x (batch, slot, ...); sigma is (), (batch,) or (batch, slot)."""
        ...


def align(sigma: Tensor | float, x: Tensor) -> Tensor:
    """Sigma on x's device and dtype with singleton dimensions appended, so that (batch, slot) broadcasts over x."""
    level = torch.as_tensor(sigma, device=x.device, dtype=x.dtype)
    return level.reshape(level.shape + (1,) * (x.ndim - level.ndim)) if level.ndim else level


def slot_mask(part: tuple[int, ...], x: Tensor) -> Tensor:
    """A bool tensor, True for the slots of the part, that broadcasts over x (batch, slot, ...)."""
    mask = torch.zeros(x.shape[1], dtype=torch.bool)
    mask[list(part)] = True
    return mask.to(x.device).reshape(-1, *[1] * (x.ndim - 2))


def labels(values: Tensor, x: Tensor) -> Tensor:
    """Per-item values for a network: a scalar becomes (batch,), (batch, slot) stays."""
    values = torch.as_tensor(values).to(device=x.device, dtype=x.dtype)
    return values.expand(x.shape[0]) if values.ndim == 0 else values


@dataclass(frozen=True)
class Edm:
    """EDM preconditioning of a raw network, one set of coefficients for sampling and training.

    D(x) = c_skip x + c_out net(c_in x, ln(sigma) / 4) (Karras et al. 2022, table 1). `sigma_data` is the standard
    deviation of clean data, a number or a tensor shaped like sigma, e.g. (1, slot). A conditional network is bound
    first: `Edm(partial(net, words=w), 0.2)`.
    """

    net: Net
    sigma_data: float | Tensor

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x]."""
        s, data = align(sigma, x), align(self.sigma_data, x)
        total = torch.hypot(s, data)
        out = self.net(x / total, labels(torch.as_tensor(sigma).log() / 4, x))
        return (data / total) ** 2 * x + s * data / total * out

    def weight(self, sigma: Tensor) -> Tensor:
        """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2, shaped like sigma: the net's own error counts equally."""
        data = torch.as_tensor(self.sigma_data, device=sigma.device, dtype=sigma.dtype)
        return (sigma**2 + data**2) / (sigma * data) ** 2

    def loss(self, x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """Weighted squared error of D(x0 + sigma noise); not reduced, shaped like sigma: (batch,) or (batch, slot)."""
        return self.weight(sigma) * squared_error(self, x0, sigma, noise)


@dataclass(frozen=True)
class SpectralEdm:
    """`Edm` for coloured data: each frequency of each slot has a `sigma_data` of its own.

    `power` (slot, frames // 2 + 1) is the power spectral density of clean data at the bins of a window's real Fourier
    transform, on the scale where white noise of standard deviation sigma has the density sigma^2. A network that says
    nothing leaves the Wiener filter of that spectrum, which a network on `Edm` must learn first.
    """

    net: Net
    power: Tensor

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x]; x is (batch, slot, frames), sigma () or (batch,)."""
        level, power = align(sigma, x), self.power.to(x)
        total, spectrum = power + level**2, torch.fft.rfft(x)
        white = torch.fft.irfft(spectrum / total.sqrt(), n=x.shape[-1])
        out = torch.fft.rfft(self.net(white, labels(torch.as_tensor(sigma).log() / 4, x)))
        clean = spectrum * (power / total) + out * (level * (power / total).sqrt())
        return torch.fft.irfft(clean, n=x.shape[-1])

    def weight(self, sigma: Tensor) -> Tensor:
        """(batch, slot) for sigma (batch,): one over the mean squared error of the Wiener filter alone."""
        power, level = self.power.to(sigma), sigma[:, None, None] ** 2
        return 1 / (power * level / (power + level)).mean(-1)


def squared_error(denoiser: Denoiser, x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Mean of (D(x0 + sigma noise, sigma) - x0)^2 over all dimensions that sigma, (batch,) or (batch, slot), lacks."""
    if sigma.ndim == 0:
        raise QueryError("training needs sigma of shape (batch,) or (batch, slot), got a scalar")
    error = denoiser(x0 + align(sigma, x0) * noise, sigma) - x0
    return error.square().flatten(sigma.ndim).mean(-1)


def log_normal(source: NoiseSource, shape: tuple[int, ...], mean: float, std: float) -> Tensor:
    """Training noise levels with ln sigma ~ N(mean, std^2) (Karras et al. 2022, section 5)."""
    return (mean + std * source(shape)).exp()


def diffused(clean: Tensor, noise: Tensor, level: Tensor, predicts: Predicts) -> tuple[Tensor, Tensor]:
    """The variance-preserving noisy state at `level` = alphas_cumprod (batch,), and what a network should say of it.

    Velocity is sqrt(level) noise - sqrt(1 - level) clean (Salimans and Ho 2022).
    """
    signal, spread = align(level.sqrt(), clean), align((1 - level).sqrt(), clean)
    return signal * clean + spread * noise, noise if predicts == "noise" else signal * noise - spread * clean


def identity(sigma: Tensor) -> Tensor:
    """The time of a network that is labelled by sigma itself."""
    return sigma


def trigonometric(sigma: Tensor) -> Tensor:
    """t = (2 / pi) atan(sigma): v-diffusion with alpha = cos(pi t / 2)."""
    return torch.atan(sigma) * (2 / math.pi)


def interpolated(alphas_cumprod: Tensor) -> Time:
    """Fractional timestep of sigma in a discrete model's table, linear in log sigma between entries, up to its ends."""
    table = sigma_table(alphas_cumprod).log()

    def time(sigma: Tensor) -> Tensor:
        level = sigma.cpu().double().log().clamp(float(table[0]), float(table[-1]))  # not every device has float64
        above = torch.searchsorted(table, level).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        step = above - 1 + (level - low) / (high - low)
        return step if sigma.device.type == "cpu" else step.float().to(sigma.device)

    return time


def nearest(alphas_cumprod: Tensor) -> Time:
    """The whole timestep whose table entry is nearest to sigma in log sigma."""
    fraction = interpolated(alphas_cumprod)
    return lambda sigma: fraction(sigma).round()


@dataclass(frozen=True)
class FromEps:
    """A variance-preserving network that predicts the noise: D = x - sigma net(x / sqrt(1 + sigma^2), time(sigma)).

    Discrete-time models pass `time=interpolated(alphas_cumprod)` or `time=nearest(alphas_cumprod)`; so do the next two.
    """

    net: Net
    time: Time = identity

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x]."""
        return x - align(sigma, x) * _preserved(self.net, self.time, x, sigma)


@dataclass(frozen=True)
class FromV:
    """A variance-preserving network that predicts v = alpha noise - (sigma alpha) x0 (Salimans and Ho 2022).

    With alpha = 1 / sqrt(1 + sigma^2): D = alpha^2 x - sigma alpha v.
    """

    net: Net
    time: Time = trigonometric

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x]."""
        s = align(sigma, x)
        return x / (1 + s**2) - s * torch.rsqrt(1 + s**2) * _preserved(self.net, self.time, x, sigma)


@dataclass(frozen=True)
class FromX0:
    """A variance-preserving network that predicts the clean state itself."""

    net: Net
    time: Time = identity

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x]."""
        return _preserved(self.net, self.time, x, sigma)


@dataclass(frozen=True)
class FromFlow:
    """A flow-matching network: velocity = noise - x0 at x_t = (1 - t) x0 + t noise, t = sigma / (1 + sigma).

    The flow's start t = 1 is sigma = infinity: begin at a finite sigma_max (`schedules.flow`).
    """

    net: Net

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        """Return E[x0 | x] = x_t - t velocity."""
        sigma = torch.as_tensor(sigma)
        t, s = sigma / (1 + sigma), align(sigma, x)
        state = x / (1 + s)
        return state - s / (1 + s) * self.net(state, labels(t, x))


def _preserved(net: Net, time: Time, x: Tensor, sigma: Tensor) -> Tensor:
    sigma = torch.as_tensor(sigma)
    return net(x * torch.rsqrt(1 + align(sigma, x) ** 2), labels(time(sigma), x))


def clamped(denoiser: Denoiser, limit: float = 1.0) -> Denoiser:
    """Limit the estimate to [-limit, limit]. Only for denoisers of the full state: a restricted one may not give x0."""
    return lambda x, sigma: denoiser(x, sigma).clamp(-limit, limit)


@dataclass(frozen=True, eq=False)
class Slot:
    """The state of one slot that stays as it is while others are sampled: value (batch, ...) at noise level sigma."""

    value: Tensor
    sigma: float | Tensor


def clean(value: Tensor, sigma_min: float) -> Slot:
    """A slot that was heard: its clean value, labelled with the smallest level that the model knows."""
    if sigma_min <= 0:
        raise QueryError(f"clean evidence is bound at a positive sigma_min, got {sigma_min}")
    return Slot(value, sigma_min)


def absent(noise: Tensor, sigma_max: float) -> Slot:
    """A slot of which nothing is known or wanted: nothing but noise (standard normal, scaled here) at sigma_max."""
    return Slot(sigma_max * noise, sigma_max)


def bind(denoiser: Denoiser, fixed: Mapping[int, Slot]) -> Denoiser:
    """The denoiser of the remaining slots, for a model whose slots have their own noise levels.

    `fixed` maps indices of the model's slots to what they hold during sampling. The result takes and returns
    (batch, free slots, ...), the free slots in the model's order, with sigma (), (batch,) or (batch, free slots); the
    model sees (batch, slots, ...) and sigma (batch, slots).

    Raises QueryError when an index does not exist in the model's state or a value is not shaped like a slot.
    """

    def bound(x: Tensor, sigma: Tensor, /) -> Tensor:
        slots = x.shape[1] + len(fixed)
        free = [k for k in range(slots) if k not in fixed]
        if len(free) != x.shape[1]:
            raise QueryError(f"bound slots {sorted(fixed)} do not fit a model state of {slots} slots")
        level = align(sigma, x.new_empty(x.shape[:2])).expand(x.shape[:2])
        values, levels = list(x.unbind(1)), list(level.unbind(1))
        for k in sorted(fixed):
            slot = fixed[k]
            if slot.value.shape != x[:, 0].shape:
                shapes = f"{tuple(slot.value.shape)}, the state's slots have {tuple(x[:, 0].shape)}"
                raise QueryError(f"slot {k} is bound to a value of shape {shapes}")
            values.insert(k, slot.value.to(x))
            levels.insert(k, torch.as_tensor(slot.sigma).to(x).expand(x.shape[0]))
        full = denoiser(torch.stack(values, 1), torch.stack(levels, 1))
        return torch.stack([full[:, k] for k in free], 1)

    return bound
