"""One loop over scalar noise levels; progress, previews and cancellation are the caller's `for` body.

    for state in sample(denoiser, karras(20, 1e-3, 1.0), seeded(7), constraint=Free((1, 4, 2, 44100)), step=heun):
        show(state.index, state.denoised)
    stems = state.x

DDIM with eta 0 is `euler`, DDPM is `ancestral`, in sigma-space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from stemwise.diffusion.constraints import Constraint, restrict
from stemwise.diffusion.denoisers import Denoiser, NoiseSource
from stemwise.errors import QueryError


@dataclass(frozen=True, eq=False)
class State:
    """One iterate of `sample`."""

    index: int  # of the schedule's step, from 0
    turn: int  # of the resampling within the step, from 0
    sigma: Tensor  # the level reached, ()
    x: Tensor  # the full state at that level; at 0 the result
    denoised: Tensor  # the full-state estimate of the clean state that the step used
    share: float  # of the way that is done, up to 1


@dataclass(frozen=True, eq=False)
class Past:
    """The previous evaluation, for multistep rules."""

    sigma: Tensor
    denoised: Tensor


Draw = Callable[[], Tensor]

Told = Callable[[float], object]
"""Hears the share that is done, up to 1; an error that it raises ends the work."""


class Step(Protocol):
    """A step rule: from x at sigma to sigma_next; returns the new x and the denoised estimate at (x, sigma).

    `draw` gives standard normal noise in the space of x; `past` is the previous evaluation, None at the start and after
    noise was added: by churn or by resampling.
    """

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        sigma: Tensor,
        sigma_next: Tensor,
        draw: Draw,
        past: Past | None,
        /,
    ) -> tuple[Tensor, Tensor]:
        """Make the step."""
        ...


@dataclass(frozen=True)
class Churn:
    """Extra noise before each step: sigma rises by the factor 1 + min(amount / n, sqrt 2 - 1).

    Only at levels in [low, high]; `scale` is S_noise (Karras et al. 2022, alg. 2). MSDM uses 20 to 40 at all levels.
    """

    amount: float
    low: float = 0.0
    high: float = float("inf")
    scale: float = 1.0

    def raised(self, sigma: Tensor, n: int) -> Tensor:
        """The level before a step of an n-step schedule."""
        inside = self.low <= float(sigma) <= self.high
        return sigma * (1 + min(self.amount / n, 2**0.5 - 1)) if inside else sigma


def preserving(sigma: Tensor) -> Tensor:
    """Standard deviation of the start for a model of unit-variance data, sqrt(1 + sigma^2).

    A variance-preserving model starts from `x=preserving(sigmas[0]) * constraint.noise(noise)`.
    """
    return (1 + sigma**2).sqrt()


def euler(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, draw: Draw, past: Past | None, /
) -> tuple[Tensor, Tensor]:
    """Euler's rule for dx/dsigma = (x - D) / sigma; first order. DDIM with eta 0."""
    denoised = denoiser(x, sigma)
    return denoised + sigma_next / sigma * (x - denoised), denoised


def heun(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, draw: Draw, past: Past | None, /
) -> tuple[Tensor, Tensor]:
    """Heun's rule, second order, two evaluations except for the step to 0 (Karras et al. 2022, algorithm 1)."""
    denoised = denoiser(x, sigma)
    slope = (x - denoised) / sigma
    guess = x + (sigma_next - sigma) * slope
    if sigma_next == 0:
        return denoised, denoised
    slope_next = (guess - denoiser(guess, sigma_next)) / sigma_next
    return x + (sigma_next - sigma) * (slope + slope_next) / 2, denoised


def dpmpp_2m(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, draw: Draw, past: Past | None, /
) -> tuple[Tensor, Tensor]:
    """DPM-Solver++(2M): second order with one evaluation a step, first order at both ends (Lu et al. 2022, alg. 2)."""
    denoised = denoiser(x, sigma)
    estimate = ahead(denoised, sigma, sigma_next, past)
    return estimate + sigma_next / sigma * (x - estimate), denoised


def ahead(denoised: Tensor, sigma: Tensor, sigma_next: Tensor, past: Past | None) -> Tensor:
    """The estimate amid a step in log sigma, on the line through the last two; held at the start and the end."""
    if past is None or sigma_next == 0:
        return denoised
    ratio = (past.sigma / sigma).log() / (sigma / sigma_next).log()
    return denoised + (denoised - past.denoised) / (2 * ratio)


def ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    draw: Draw,
    past: Past | None,
    /,
    eta: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Down to sigma_down, then up by fresh noise.

    eta 1 is DDPM with the posterior variance and, the same thing, Euler ancestral; other values are DDIM's eta.
    """
    denoised = denoiser(x, sigma)
    down, up = _down_up(sigma, sigma_next, eta)
    x = denoised + down / sigma * (x - denoised)
    return (x + up * draw() if up > 0 else x), denoised


def dpm2_ancestral(
    denoiser: Denoiser,
    x: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    draw: Draw,
    past: Past | None,
    /,
    rho: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Midpoint rule (even in sigma^(1/rho)) with fresh noise, ADPM2; Euler for the step to 0."""
    denoised = denoiser(x, sigma)
    down, up = _down_up(sigma, sigma_next, 1.0)
    if sigma_next == 0:
        return denoised, denoised
    middle = ((sigma ** (1 / rho) + down ** (1 / rho)) / 2) ** rho
    half = denoised + middle / sigma * (x - denoised)
    slope = (half - denoiser(half, middle)) / middle
    return x + (down - sigma) * slope + up * draw(), denoised


def _down_up(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    up = eta * sigma_next * (1 - (sigma_next / sigma) ** 2).clamp(min=0).sqrt()
    return (sigma_next**2 - up**2).clamp(min=0).sqrt(), up


Rule = Literal["euler", "heun", "dpmpp_2m", "dpm2_ancestral", "ancestral"]
"""The step rules' names, as configurations and recipes have them."""

RULES: Mapping[str, Step] = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpm2_ancestral": dpm2_ancestral,
    "ancestral": ancestral,
}


def cost(rule: Rule) -> int:
    """Network evaluations a step."""
    return 2 if rule in ("heun", "dpm2_ancestral") else 1


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    sigmas: Tensor,
    noise: NoiseSource,
    *,
    constraint: Constraint,
    step: Step = euler,
    x: Tensor | None = None,
    churn: Churn | None = None,
    resample: int = 1,
) -> Iterator[State]:
    """Yield a State after every step down the levels `sigmas` (falling, usually ending in 0; see `schedules`).

    `denoiser` is of the full state; `constraint` (`Free(shape)` when nothing was heard) restricts it here. `x` starts
    from a full state at sigmas[0] instead of from noise of that level. `resample` > 1 repeats each step after adding
    the noise back (RePaint, Lugmayr et al. 2022; MSDM's corrector). Order of draws: start; then for every turn the
    constraint's fresh draw, churn (when the level rises), the step's own, re-noising. Stop early by leaving the loop.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2 or not bool((sigmas[1:] < sigmas[:-1]).all()):
        raise QueryError("a schedule is a 1-D tensor of at least two falling noise levels")
    u = sigmas[0] * constraint.noise(noise) if x is None else x
    past: Past | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        for turn in range(resample):
            constraint = constraint.fresh(noise)
            raised = sigma
            if churn is not None and (raised := churn.raised(sigma, len(sigmas) - 1)) > sigma:
                u = u + (raised**2 - sigma**2).sqrt() * churn.scale * constraint.noise(noise)
                past = None
            restricted = restrict(denoiser, constraint)
            u, denoised = step(restricted, u, raised, sigma_next, partial(constraint.noise, noise), past)
            past = Past(raised, denoised)
            share = (index + (turn + 1) / resample) / (len(sigmas) - 1)
            yield State(index, turn, sigma_next, constraint.lift(u, sigma_next), constraint.lift(denoised, 0.0), share)
            if turn + 1 < resample:
                u = u + (sigma**2 - sigma_next**2).sqrt() * constraint.noise(noise)
                past = None


def last(states: Iterable[State], told: Told | None = None) -> State:
    """Run to the end; the last State's x is the result. `told` hears the share that is done after every step."""
    end: State | None = None
    for end in states:
        if told is not None:
            told(end.share)
    if end is None:
        raise QueryError("nothing was sampled: there are no states")
    return end


def seeded(seed: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> NoiseSource:
    """Noise from a seed of any size, drawn on the CPU in float32 so that it is the same on every device and for every dtype."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float32).to(device=device, dtype=dtype)


def common(source: NoiseSource) -> NoiseSource:
    """The same draw for every item of a batch, so that equal items stay equal."""
    return lambda shape: source((1, *shape[1:])).expand(shape)


def tape(tensors: Iterable[Tensor]) -> NoiseSource:
    """Noise that was recorded: each call returns the next tensor. Raises QueryError at its end or for another shape."""
    recorded = enumerate(tensors)

    def play(shape: tuple[int, ...]) -> Tensor:
        position, draw = next(recorded, (-1, None))
        if draw is None:
            raise QueryError(f"the noise tape is at its end, but noise of shape {tuple(shape)} is asked for")
        if tuple(draw.shape) != tuple(shape):
            shapes = f"{tuple(draw.shape)}, but {tuple(shape)} is asked for"
            raise QueryError(f"draw {position} of the noise tape has shape {shapes}: the order of draws differs")
        return draw

    return play
