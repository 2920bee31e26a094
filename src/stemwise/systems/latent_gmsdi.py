"""GMSDI with a pretrained text-to-audio model of latents as its prior.

Latents of sources do not sum to the latent of their mixture, waves do. So the coupling acts on clean estimates, where they
are decoded: sources and mixture step towards each other by the gradient of |decode(y) - sum of decode(x_k)|^2. How far is
our choice, the paper has no latents: the step that would leave least of the gap were the decoder linear about the estimate,
divided by 1 + gamma^2. Separation draws several sets of sources whose sum is pulled to what was heard and takes the one that
comes closest; an exact constraint on noisy states (Dirac) does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion import Denoiser, Free, Told, dpmpp_2m, exponential, last, sample, seeded
from stemwise.errors import QueryError
from stemwise.systems.prompts import Prompt
from stemwise.systems.sources import Sources
from stemwise.systems.system import Context, Seam, System, part
from stemwise.systems.text_to_audio import TextToAudio

Gap = Callable[[Tensor], Tensor]
"""Clean latents (batch, slot, ...) -> what their waves lack to agree (batch, channel, time)."""


@dataclass(frozen=True)
class LatentGmsdi(System):
    """A text-to-audio model, asked for `sources`; `gamma` 0 couples fully, large values not at all.

    `candidates` are drawn for every window that is separated. Latents come from the most likely encoding.
    """

    prior: TextToAudio
    sources: Sources
    gamma: float = 0.5
    candidates: int = 4
    precision: torch.dtype = torch.float32

    takes: ClassVar[tuple[str, ...]] = ("stems", "negative", "guidance", "gamma", "candidates", "likelihood")

    def asked(
        self,
        *,
        gamma: float | None = None,
        candidates: int | None = None,
        likelihood: str | None = None,
        **wishes: Any,
    ) -> LatentGmsdi:
        """For other sources (see `Sources.asked`) or with another coupling. Raises QueryError for any likelihood."""
        if likelihood is not None:
            raise QueryError(
                f"a model of latents has no {likelihood} separator: latents of stems do not sum to that of their mixture. "
                "Leave the likelihood out (the best of several candidates is taken), or use a waveform model such as "
                "gmsdi-band"
            )
        return replace(
            self,
            sources=self.sources.asked(known=None, **wishes),
            gamma=self.gamma if gamma is None else gamma,
            candidates=self.candidates if candidates is None else candidates,
        )

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1e6:
            raise QueryError(f"gamma is {self.gamma:g}; give 0 to 1e6 (small: sources follow the mixture closely)")
        if self.candidates < 1:
            raise QueryError(f"candidates is {self.candidates}; draw at least one")

    @property
    def names(self) -> tuple[str, ...]:
        """The sources' names, in order."""
        return self.sources.names

    @property
    def rate(self) -> int:
        """Sample rate in hertz."""
        return self.prior.rate

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        return self.prior.window

    @property
    def channels(self) -> int:
        """Of the model's waves."""
        return self.prior.channels

    @property
    def seam(self) -> Seam:
        """A third of the window; the next one does not hear it, so that the fade is all that joins them."""
        return Seam.about(self.window, self.rate)

    @property
    def evaluations(self) -> int:
        """Steps of a separation, each one evaluation of all sources of all candidates."""
        return 50

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int, told: Told | None = None) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, channel, time) that sum to mixtures (B, channel, time), and what the candidates lacked."""
        pairs = [
            self._closest(one[None], max(1, evaluations), part(told, index, len(wave)))
            for index, one in enumerate(wave)
        ]
        stems, lacking = (torch.cat(parts) for parts in zip(*pairs))
        return stems + lacking[:, None] / len(self.names), lacking

    def _closest(self, wave: Tensor, steps: int, told: Told | None) -> tuple[Tensor, Tensor]:
        """The candidate (1, stem, channel, time) for one mixture whose sum is nearest, and what it lacks."""
        heard = wave.expand(self.candidates, -1, -1)
        latents = self._drawn(
            self.sources.prompts(), lambda x: heard - self._waves(x).sum(1), self.candidates, 0, steps, told
        )
        stems = self._waves(latents)
        lacking = heard - stems.sum(1)
        best = int(lacking.square().mean((1, 2)).argmin())
        return stems[best, None], lacking[best, None]

    @torch.no_grad()
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), channel, time) for the wanted sources, sampled with their mixture beside them.

        What is known enters the mixture as one sub-mix. Spans of wanted stems that are known are not heard: it is for the
        caller to put them back.
        """
        order = [name for name in self.names if name in wanted]
        playing = self.sources.words((*wanted, *context.known))
        prompts = [*self.sources.prompts(order), Prompt(playing, (), self.sources.weight)]
        given = sum(
            context.known.values(), torch.zeros(self.channels, self.window, device=self._device, dtype=torch.float32)
        )
        alone = len(order) == 1 and not context.known

        def gap(x: Tensor) -> Tensor:
            waves = self._waves(x)
            return waves[:, -1] - waves[:, :-1].sum(1) - given

        latents = self._drawn(prompts[:1] if alone else prompts, None if alone else gap, 1, seed, steps, context.told)
        waves = dict(zip(order, self._waves(latents[:, : len(order)])[0]))
        return torch.stack([waves[name] for name in wanted])

    def _drawn(
        self,
        prompts: Sequence[Prompt],
        gap: Gap | None,
        count: int,
        seed: int,
        steps: int,
        told: Told | None = None,
    ) -> Tensor:
        """Latents (count, prompt, ...), from noise of their own for each item."""
        shape = (
            count,
            len(prompts),
            *self.prior.encode(
                torch.zeros(1, self.channels, self.window, device=self._device, dtype=torch.float32)
            ).shape[1:],
        )
        denoiser = self.prior.prompted(prompts)
        if gap is not None:
            denoiser = pulled(denoiser, gap, self.gamma)
        sigmas = exponential(steps, self.prior.sigma_min, self.prior.sigma_max)
        way = sample(denoiser, sigmas, seeded(seed, self._device), constraint=Free(shape), step=dpmpp_2m)
        return last(way, told).x

    def _waves(self, latents: Tensor) -> Tensor:
        """(batch, slot, channel, time), cut or padded to the window."""
        waves = self.prior.decode(latents.flatten(0, 1))[..., : self.window]
        return F.pad(waves, (0, self.window - waves.shape[-1])).unflatten(0, latents.shape[:2])

    @property
    def _device(self) -> torch.device:
        return next(self.prior.parameters()).device


def pulled(denoiser: Denoiser, gap: Gap, gamma: float) -> Denoiser:
    """Clean estimates that step down the gradient of |gap|^2 / 2, by the best step for a linear gap over 1 + gamma^2."""

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        clean = denoiser(x, sigma)
        with torch.enable_grad():
            leaf = clean.detach().requires_grad_()
            lack = gap(leaf)
            (slope,) = torch.autograd.grad(lack.square().sum() / 2, leaf)
        norm = slope.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, *[1] * (x.ndim - 1))
        reach = 1e-3 * clean.flatten(1).norm(dim=1).clamp(min=1e-6).reshape(norm.shape)
        lack = lack.detach()
        change = (lack - gap(clean - reach / norm * slope)) / _like(reach, lack)  # of the gap, for a step of norm 1
        best = (lack * change).flatten(1).sum(1) / change.square().flatten(1).sum(1).clamp(min=1e-12)
        step = best.clamp(min=0) / (1 + gamma**2)
        return clean - step.reshape(norm.shape) / norm * slope

    return guided


def _like(value: Tensor, other: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (other.ndim - 1))
