"""Mixture2Music as published (Han et al. 2022, arXiv 2209.02696): rolls of five instruments, guided by their mixture.

The network predicts noise; what it is given is zero wherever the mixture is silent, in training too, and that pattern is
all it is told of the mixture. A second network, the independent decoder, takes the last step to binary rolls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from stemwise.codecs.roll import PUBLISHED, RollLayout
from stemwise.diffusion import (
    Constraint,
    Denoiser,
    Free,
    FromEps,
    NoiseSource,
    State,
    Support,
    from_alphas_cumprod,
    last,
    nearest,
    preserving,
    sample,
)
from stemwise.diffusion.schedules import even_timesteps, linear_beta
from stemwise.nets.transunet import RollDecoder, TransUnet, TransUnetConfig


@dataclass(frozen=True)
class BetaSchedule:
    """Betas even between two values; the published code calls this schedule "cosine"."""

    steps: int = 1000
    start: float = 1e-4
    end: float = 0.02

    def alphas_cumprod(self) -> Tensor:
        """What is left of the signal's variance at each timestep, float64 (steps,)."""
        return linear_beta(self.steps, self.start, self.end)


@dataclass(frozen=True)
class Mixture2MusicConfig:
    """What `config.json` holds; the defaults are the published network, whose oddities its weights need.

    `window` in steps of a 16th. `decoder`: whether the independent decoder is part of it; without it a threshold takes
    the last step. `evaluations`: of the network a window; 999 are the published ones.
    """

    window: int = 64
    net: TransUnetConfig = field(default_factory=lambda: TransUnetConfig(positions="published", bottleneck="published"))
    schedule: BetaSchedule = field(default_factory=BetaSchedule)
    decoder: bool = True
    evaluations: int = 20

    def __post_init__(self) -> None:
        if (self.net.inputs, self.net.outputs) != (len(self.stems), len(self.stems)):
            raise ValueError(f"net.inputs and net.outputs must be {len(self.stems)}, the number of instruments")

    @property
    def layout(self) -> str:
        """The name of the layout of its rolls."""
        return "published"

    @property
    def stems(self) -> tuple[str, ...]:
        """Names, in order."""
        return PUBLISHED.stems

    @property
    def rate(self) -> int:
        """Steps to a quarter note: rolls have no hertz."""
        return PUBLISHED.steps


class Mixture2Music(nn.Module):
    """The noise network and the decoder. Rolls are (batch, instrument, time, pitch), 0 and 1, in the published layout."""

    learns_from = "rolls"

    def __init__(self, config: Mixture2MusicConfig) -> None:
        super().__init__()
        self.config = config
        self.net = TransUnet(config.net)
        self.decoder = RollDecoder(len(config.stems)) if config.decoder else None

    @property
    def layout(self) -> RollLayout:
        """How notes become rolls."""
        return PUBLISHED

    def denoiser(self) -> Denoiser:
        """E[clean | x] of the network as it is: it reads the mixture off the zeros of x."""
        return FromEps(self.net, nearest(self.config.schedule.alphas_cumprod()))

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Both published losses of windows (batch, instrument + 1, time, pitch), whose last plane is not used.

        The networks share no weight, so each learns from its own as if alone.
        """
        clean = (batch[:, : len(self.config.stems)] > 0).float()
        noise = self.noise_loss(clean, generator)
        if self.decoder is None:
            return {"loss": noise}
        decoded = self.decoder_loss(clean, generator)
        return {"loss": noise + decoded, "noise": noise, "decoder": decoded}

    def noise_loss(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Smooth L1 between the network's noise at m x_t and m z, over all cells; the prediction itself is not masked."""
        table = self.config.schedule.alphas_cumprod().to(clean)
        time = torch.randint(len(table), (len(clean),), generator=generator, device=generator.device).to(clean.device)
        kept, noise, heard = table[time][:, None, None, None], _noise(clean, generator), clean.amax(1, keepdim=True)
        noised = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        return smooth_l1_loss(self.net(heard * noised, time), heard * noise)

    def decoder_loss(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy of the decoder at the least noise of the schedule, over all cells."""
        assert self.decoder is not None
        kept = self.config.schedule.alphas_cumprod()[0].to(clean)
        noised = kept.sqrt() * clean + (1 - kept).sqrt() * _noise(clean, generator)
        return binary_cross_entropy_with_logits(self.decoder(clean.amax(1, keepdim=True) * noised), clean)

    def decode(self, x: Tensor, mixture: Tensor) -> Tensor:
        """States at the schedule's first timestep -> bool, limited to the mixture (batch, 1, time, pitch).

        As published, a cell of the mixture may be left to nobody, or go to several.
        """
        found = x > 0.5 if self.decoder is None else self.decoder(x) >= 0
        return found & mixture.bool()


def ddim(
    prior: Mixture2Music,
    mixture: Tensor,
    constraint: Constraint,
    timesteps: Tensor,
    noise: NoiseSource,
    x: Tensor | None = None,
) -> Iterator[State]:
    """DDIM with eta 0 along falling timesteps of the schedule, from noise (or `x`, of unit variance) on the mixture.

    `constraint` says what holds at every step: `masked(mixture)`, or `unmasked(mixture)` as published. States are
    variance-exploding; `preserved` gives the published ones.
    """
    sigmas = from_alphas_cumprod(prior.config.schedule.alphas_cumprod(), timesteps)[:-1]
    start = noise((len(mixture), len(prior.config.stems), *mixture.shape[2:])) * mixture if x is None else x
    return sample(
        prior.denoiser(), sigmas, noise, constraint=constraint, x=(preserving(sigmas[0]) * start).to(start.dtype)
    )


@torch.no_grad()
def as_published(prior: Mixture2Music, mixture: Tensor, evaluations: int, noise: NoiseSource) -> Tensor:
    """The published way: the mixture (batch, 1, time, pitch) limits the start and the result, nothing between.

    Bool (batch, instrument, time, pitch); published with 999 evaluations.
    """
    free = unmasked(mixture, len(prior.config.stems))
    return prior.decode(preserved(last(ddim(prior, mixture, free, strided(prior, evaluations), noise))), mixture)


def masked(mixture: Tensor, stems: int) -> Support:
    """Nothing off the mixture (batch, 1, time, pitch), at any step."""
    return Support(mixture.bool().expand(-1, stems, -1, -1))


def unmasked(mixture: Tensor, stems: int) -> Free:
    """As published: only the start is limited to the mixture, and the state drifts off it."""
    return Free((len(mixture), stems, *mixture.shape[2:]))


def preserved(state: State) -> Tensor:
    """The state with the scale that a variance-preserving model has at its level."""
    return (state.x / preserving(state.sigma)).to(state.x.dtype)


def strided(prior: Mixture2Music, evaluations: int) -> Tensor:
    """`evaluations` + 1 timesteps from the last to 0, evenly; 999 evaluations are the published walk, and the longest."""
    steps = prior.config.schedule.steps
    return even_timesteps(min(evaluations + 1, steps), steps).round()


def _noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
