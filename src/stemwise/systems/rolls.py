"""The joint prior of a band in piano rolls: our own, beside the published Mixture2Music.

Data are binary, so the clean state's mean is a probability: the network gives logits, and learns by cross-entropy. It is
told what was heard as inputs of its own: which cells may sound (the mixture, or all), and which stems are known where.
So one set of weights separates, generates, accompanies and continues, and nothing heard is ever noised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from stemwise.codecs.roll import LAYOUTS, ONSET, SILENT, SOUNDING, RollLayout
from stemwise.diffusion import Constraint, Denoiser, FromX0, Support
from stemwise.diffusion.denoisers import align
from stemwise.nets.transunet import TransUnet, TransUnetConfig


@dataclass(frozen=True)
class Sampling:
    """Levels of noise from `sigma_max` to `sigma_min`, then 0, spaced as `karras` does with `rho`."""

    steps: int = 16
    sigma_min: float = 0.1
    sigma_max: float = 20.0
    rho: float = 3.0


@dataclass(frozen=True)
class Questions:
    """What training asks: chances that the mixture is heard, that some stems are known, that the beginning is."""

    mixture: float = 0.5
    stems: float = 0.45
    beginning: float = 0.35


@dataclass(frozen=True)
class RollPriorConfig:
    """What `config.json` holds: a layout by name, `window` in steps, training noise ln sigma ~ N(mean, std).

    `harmony`: the network is also told how much each pitch class sounds in each stem, whatever the octave, around each
    step: within so many steps altogether, one input a stem for each number.
    """

    layout: str = "band"
    window: int = 64
    harmony: tuple[int, ...] = (8, 64)
    sigma_mean: float = 0.0
    sigma_std: float = 1.6
    net: TransUnetConfig = field(
        default_factory=lambda: TransUnetConfig(29, 10, widths=(24, 48, 96, 192), kernel=5, rows=72)
    )
    sampling: Sampling = field(default_factory=Sampling)
    questions: Questions = field(default_factory=Questions)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}; choose from {', '.join(LAYOUTS)}")
        if any(span < 2 or span % 2 for span in self.harmony):
            raise ValueError(f"harmony is {self.harmony}; it must be even numbers of steps, 2 at least")
        stems = len(self.stems)
        inputs = (3 + len(self.harmony)) * stems + 4
        if (self.net.inputs, self.net.outputs) != (inputs, 2 * stems):
            raise ValueError(f"net.inputs must be {inputs} and net.outputs {2 * stems} for {stems} stems")

    @property
    def stems(self) -> tuple[str, ...]:
        """Names, in order."""
        return LAYOUTS[self.layout].stems

    @property
    def rate(self) -> int:
        """Steps to a quarter note: rolls have no hertz."""
        return LAYOUTS[self.layout].steps


#: In a mixture: nothing was heard here, anything may sound.
FREE = 3


@dataclass(frozen=True, eq=False)
class Heard:
    """What is known of windows.

    ``mixture`` uint8 (batch, time, pitch): what all stems together are, as in `Rolls`, or FREE. ``values`` uint8 (batch,
    stem, time, pitch): what is known where ``known``, bool (batch, stem, time). ``bars``, bool (batch, time): bars begin.
    """

    mixture: Tensor
    values: Tensor
    known: Tensor
    bars: Tensor

    def support(self) -> Tensor:
        """Which planes are open: bool (batch, 2 stems, time, pitch), where the mixture allows and nothing is known."""
        stems = self.values.shape[1]
        allowed = [(self.mixture >= least)[:, None].expand(-1, stems, -1, -1) for least in (SOUNDING, ONSET)]
        return torch.cat(allowed, dim=1) & ~self.fixed()

    def fixed(self) -> Tensor:
        """Which planes are known: bool (batch, 2 stems, time, pitch)."""
        return self.known[..., None].expand_as(self.values).repeat(1, 2, 1, 1)

    def planes(self) -> Tensor:
        """The evidence as inputs of a network, float32 (batch, stems + 4, time, pitch).

        Where stems are known, where anything may sound and begin, where bars begin, and how long ago in 16 steps.
        """
        step = torch.arange(self.bars.shape[1], device=self.bars.device)
        since = step - torch.where(self.bars, step, 0).cummax(1).values
        metre = torch.stack([self.bars.float(), since.float() / 16.0], dim=1)[..., None]
        allowed = torch.stack([self.mixture >= SOUNDING, self.mixture >= ONSET], dim=1).float()
        known = self.known[..., None].expand_as(self.values).float()
        return torch.cat([known, allowed, metre.expand(-1, -1, -1, allowed.shape[-1])], dim=1)


def planes(data: Tensor) -> Tensor:
    """Rolls (batch, stem, time, pitch) as 0 and 1: all stems' sounding cells, then all stems' onsets."""
    return torch.cat([data > 0, data == ONSET], dim=1).to(torch.float32)


def pitch_classes(sounding: Tensor, spans: Sequence[int]) -> Tensor:
    """How much each pitch class sounds: planes (batch, stem, time, pitch) -> (batch, stems x spans, time, pitch).

    Summed over octaves, averaged over `span` steps around each, and given to every pitch of the class. What convolutions
    over pitch cannot see, and noise in it averages out. Twice the mean: a chord's tones are about 1.
    """
    octaves = sounding.shape[-1] // 12
    folded = sounding.unflatten(-1, (octaves, 12)).sum(-2)
    means = [
        avg_pool2d(folded, (span + 1, 1), stride=1, padding=(span // 2, 0), count_include_pad=False) for span in spans
    ]
    return 2.0 * torch.cat([folded[:, :0], *means], dim=1).repeat(1, 1, 1, octaves)


def cells(likely: Tensor, mixture: Tensor) -> Tensor:
    """Probabilities (batch, 2 stems, time, pitch) -> uint8 (batch, stem, time, pitch), every cell the likelier way.

    What is known already is 1 or -1 in place of a probability.

    What was heard in the mixture goes to one stem at least, the likeliest, sounding cells and onsets alike, and nothing
    sounds that was not heard: the stems mix to the mixture, always, wherever it is not FREE.
    """
    heard, struck = ((mixture >= least)[:, None] for least in (SOUNDING, ONSET))
    free = (mixture == FREE)[:, None]
    sounds, begins = likely.chunk(2, dim=1)
    sounding = ((sounds > 0.5) | (_largest(sounds) & ~free)) & heard
    # An onset goes to a stem that sounds anyway, where one can have it: what is known not to begin has -1.
    fit = torch.where(sounding & (begins >= 0), 1 + begins, torch.minimum(sounds, begins))
    onset = (((begins > 0.5) & sounding) | (_largest(fit) & ~free)) & struck
    sounding = sounding | onset
    return torch.where(sounding, torch.where(onset, ONSET, SOUNDING), SILENT).to(torch.uint8)


def _largest(x: Tensor) -> Tensor:
    return torch.zeros_like(x, dtype=torch.bool).scatter_(1, x.argmax(1, keepdim=True), True)


class RollPrior(nn.Module):
    """The network, its training, and the denoiser that it is once something was heard.

    States are (batch, 2 stems, time, pitch), planes as `planes` makes them, at one noise level.
    """

    learns_from = "rolls"

    def __init__(self, config: RollPriorConfig) -> None:
        super().__init__()
        self.config = config
        self.net = TransUnet(config.net)
        assert self.net.write.bias is not None
        self.net.write.bias.data.fill_(-3.0)  # most cells are silent

    @property
    def layout(self) -> RollLayout:
        """How notes become rolls."""
        return LAYOUTS[self.config.layout]

    def logits(self, x: Tensor, sigma: Tensor, heard: Heard) -> Tensor:
        """Log odds that each cell of a plane is 1, for states x at sigma ()."""
        fixed, support = heard.fixed(), heard.support()
        known, evidence = planes(heard.values), heard.planes()

        def net(state: Tensor, time: Tensor) -> Tensor:
            mixed = torch.where(fixed, known, torch.where(support, state, 0.0))
            harmony = pitch_classes(mixed.chunk(2, dim=1)[0], self.config.harmony)
            out: Tensor = self.net(torch.cat([mixed, evidence, harmony], dim=1), time)
            return out

        return FromX0(net, _time)(x, sigma)

    def condition(self, heard: Heard) -> tuple[Denoiser, Constraint]:
        """The denoiser of what is not known, and the cells that may sound. Known planes are 0 in state and estimate."""
        return lambda x, sigma: self.logits(x, sigma, heard).sigmoid(), Support(heard.support())

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of the unknown cells in nats, in proportion to the notes: of windows (batch, stem + 1, time, pitch).

        Every window is asked a question of its own, drawn as `config.questions` says.
        """
        data, bars = batch[:, :-1], batch[:, -1, :, 0] > 0
        heard = self._question(data, bars, generator)
        clean, support = planes(data), heard.support()
        draw = torch.randn(len(data), generator=generator, device=generator.device).to(clean)
        sigma = (self.config.sigma_mean + self.config.sigma_std * draw).exp()
        noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
        logits = self.logits(clean + align(sigma, clean) * noise, sigma, heard).float()
        error = binary_cross_entropy_with_logits(logits, clean, reduction="none") * support
        wanted = (clean * support).flatten(1).sum(1)
        each = error.flatten(1).sum(1) / (wanted + 32.0)
        told = (heard.mixture != FREE).flatten(1).any(1).to(each)
        return {"loss": each.mean(), "separate": _mean(each, told), "make": _mean(each, 1 - told)}

    def _question(self, data: Tensor, bars: Tensor, generator: torch.Generator) -> Heard:
        config = self.config.questions
        items, stems, length, _ = data.shape

        def chance(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=generator.device).to(data.device)

        some = chance(items, stems) < chance(items, 1)
        some &= ~some.all(1, keepdim=True) & (chance(items, 1) < config.stems)
        step = torch.arange(length, device=data.device)
        ends = torch.where(chance(items) < 0.5, length // 4, length // 2) * (chance(items) < config.beginning)
        known = some[..., None] | (step < ends[:, None])[:, None]
        told = (chance(items) < config.mixture)[:, None, None]
        return Heard(torch.where(told, data.amax(1), FREE), data, known, bars)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)


def _time(sigma: Tensor) -> Tensor:
    """What the network is told of the noise: 100 for every factor of e, 0 at sigma 0.007, 800 at 20."""
    return 100.0 * (sigma.log() + 5.0)
