"""CompoNet (Ciranni et al. 2024, arXiv 2404.16969 v1): an adapter by which a frozen text-to-audio model hears a mix.

One model for every relation between the stems that are heard and those that are wanted: both sides are told in words, the
mix of what is heard enters through a ControlNet. Only the adapter learns. Unlike the released code, training draws every
task equally often, the empty input too, and tells nothing in some examples, so that classifier-free guidance works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor, nn

from stemwise.diffusion import Denoiser, FromEps, FromV, Rule, Spacing, interpolated
from stemwise.errors import QueryError
from stemwise.nets.control import HOOKING, ControlNet, recomputed
from stemwise.systems.componet_base import AudioLdm2, AudioLdm2Config


@dataclass(frozen=True)
class ComponetSampling:
    """How answers are sampled; published: euler (DDIM), 150 to 200 steps, guidance 1, leading spacing.

    ``extracting``: the steps of a separation, which wants the mean of what the parts may be, as the first estimate is; 0: as
    many as all else. ``spacing`` of the time steps: trailing begins at the noisiest, where the start does not say how loud
    the answer is (Lin et al. 2024).

    ``guidance`` towards the words: 1 is the told model alone, 0 the untold, both at half the cost of any other value.
    ``strength`` of the adapter: 0 is the base alone, which hears nothing. It acts from ``start`` to ``end``, shares of the
    way from noise to clean, in time steps.
    """

    rule: Rule = "dpmpp_2m"
    steps: int = 20
    extracting: int = 0
    spacing: Spacing = "trailing"
    guidance: float = 1.0
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise QueryError(
                f"the adapter acts from {self.start:g} to {self.end:g}; give 0 <= start < end <= 1, shares of the way from "
                "noise to clean"
            )
        if not (math.isfinite(self.guidance) and math.isfinite(self.strength)):
            raise QueryError(f"guidance is {self.guidance:g} and strength {self.strength:g}; give finite numbers")


@dataclass(frozen=True)
class ComponetConfig:
    """What `config.json` of a model holds; ``recompute`` trains in less memory and more time.

    ``trains``: the adapter alone, or "all": then what the adapter finds in a mix are features of an encoder of the model's
    own, as InstructME's (Han et al. 2023). A base that hears (AUDIT's conditioning) has no adapter and trains as a whole.
    """

    base: AudioLdm2Config = field(default_factory=AudioLdm2Config)
    sampling: ComponetSampling = field(default_factory=ComponetSampling)
    trains: Literal["adapter", "all"] = "adapter"
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.base.hears and self.trains != "all":
            raise ValueError("base.hears: such a base has no adapter; trains must be all")

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems it knows, in order."""
        return self.base.stems

    @property
    def rate(self) -> int:
        """In hertz."""
        return self.base.rate

    @property
    def window(self) -> int:
        """In samples."""
        return self.base.window


class Componet(nn.Module):
    """A frozen base and its adapter."""

    def __init__(self, config: ComponetConfig) -> None:
        super().__init__()
        self.config = config
        self.base = AudioLdm2(config.base)
        self.base.unet.requires_grad_(config.trains == "all")
        self.base.words.requires_grad_(config.trains == "all")
        self.control = None if config.base.hears else ControlNet(config.base.unet).start_from(self.base.unet)

    def begin(self) -> None:
        """Before a training, after the base has its weights: the adapter starts as a copy of them."""
        if self.control is not None:
            self.control.start_from(self.base.unet)

    def submixes(self, stems: Tensor) -> Tensor:
        """As the base's."""
        return self.base.submixes(stems)

    def train(self, mode: bool = True) -> Self:
        """A frozen base always evaluates."""
        super().train(mode)
        if self.config.trains == "adapter":
            self.base.eval()
        return self

    def denoiser(self, heard: Tensor, heard_stems: Tensor, wanted_stems: Tensor, how: ComponetSampling) -> Denoiser:
        """Of latents (B, channel, time', mel'), given the scaled latent of what is heard and both sets (B, stem), bool.

        Classifier-free guidance hears the mix on both sides and leaves the words out on one; both are one batch. Where it
        needs one side alone, there is no other.
        """
        guided = how.guidance not in (0, 1)
        told = torch.full_like(heard_stems[:, 0], how.guidance != 0)
        stems, wanted = heard_stems, wanted_stems
        if guided:
            told = torch.cat([told, ~told])
            heard, stems, wanted = (torch.cat([side, side]) for side in (heard, stems, wanted))
        context = self.base.words(stems, wanted, told).context()
        last = self.config.base.timesteps - 1

        def net(x: Tensor, time: Tensor) -> Tensor:
            state, times = (torch.cat([x, x]), torch.cat([time, time])) if guided else (x, time)
            way = 1 - float(time.flatten()[0]) / last
            strength = how.strength if how.start <= way <= how.end else 0.0
            guess = self.predict(state, times, heard, context, strength)
            if not guided:
                return guess
            conditional, unconditional = guess.chunk(2)
            return unconditional + how.guidance * (conditional - unconditional)

        wrapper = FromEps if self.config.base.predicts == "noise" else FromV
        return wrapper(net, interpolated(self.base.alphas_cumprod))

    def predict(
        self, x: Tensor, time: Tensor, heard: Tensor, context: dict[str, Tensor], strength: float = 1.0
    ) -> Tensor:
        """What the U-Net says of latents (B, channel, time', mel') at time steps (B,), hearing latents; at `strength` 0 none."""
        unet = self.base.unet
        if self.control is None:
            guess: Tensor = unet(torch.cat([x, strength * heard], 1), time, **context).sample
        elif strength:
            with self.control(x, time, heard, **context).times(strength).into(unet):
                guess = unet(x, time, **context).sample
        else:
            with HOOKING:
                guess = unet(x, time, **context).sample
        return guess

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of what it predicts, for drawn relations between stems (B, stem, channel, time) of a window.

        A batch may also hold the latents of all mixes of these stems (see `AudioLdm2.submixes`), kept from before.
        """
        drawn = self.base.example(batch, generator)
        noisy, time, target = self.base.noisy(drawn.wanted, generator)
        context = self.base.words(drawn.heard_stems, drawn.wanted_stems, drawn.told).context()
        with recomputed(*self._blocks()):
            guess = self.predict(noisy, time, drawn.heard, context)
        return (guess - target).square().mean()

    def _blocks(self) -> list[nn.Module]:
        """Whose activations are forgotten and computed again."""
        if not self.config.recompute:
            return []
        halves = [self.base.unet] if self.control is None else [self.base.unet, self.control.encoder]
        return [block for net in halves for block in (*net.down_blocks, net.mid_block, *net.up_blocks)]
