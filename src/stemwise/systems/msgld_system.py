"""MSG-LD as a system: separation hears the mixture, arrangement knows stems, generation neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion import Free, Told, common, cost, seeded
from stemwise.systems.latent_system import LatentMono
from stemwise.systems.msgld import LatentSampling, Msgld
from stemwise.systems.system import Context, Phase, given, phase_of


@dataclass(frozen=True)
class MsgldSystem(LatentMono):
    """A latent prior of all stems, and how it is sampled (`how`, by default as the model's configuration says)."""

    prior: Msgld
    precision: torch.dtype = torch.float32
    phase: Phase = "mixture"
    sampling: LatentSampling | None = None

    takes: ClassVar[tuple[str, ...]] = ("phase", "guidance")
    separating: ClassVar[tuple[str, ...]] = ("guidance",)

    @property
    def how(self) -> LatentSampling:
        """How it is sampled."""
        return self.sampling or self.prior.config.sampling

    def asked(self, *, phase: str | None = None, guidance: float | None = None) -> MsgldSystem:
        """With another `phase`, or scale of the guidance towards the mixture when separating. Raises QueryError."""
        sampling = self.how if guidance is None else replace(self.how, guidance=guidance)
        return replace(self, sampling=sampling, phase=self.phase if phase is None else phase_of(phase))

    @property
    def latents(self) -> Msgld:
        """The prior itself."""
        return self.prior

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int, told: Told | None = None) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, 1, time) of mixtures (B, 1, time), and what they lack of them (B, 1, time).

        Of any length: the window is padded with silence to whole latents. Every item starts from the same noise.
        """
        config, time = self.prior.config, wave.shape[-1]
        padded = F.pad(wave[:, 0], (0, -time % (config.codec.stride * config.net.multiple)))
        stems = self.waves(self.spectrograms(padded, evaluations, told), padded)[..., :time]
        lacking = wave[:, 0] - stems.sum(1)
        if self.sums:
            stems = stems + lacking[:, None] / len(self.names)  # rounding
        return stems[:, :, None], lacking[:, None]

    @torch.no_grad()
    def spectrograms(self, mix: Tensor, evaluations: int, told: Told | None = None) -> Tensor:
        """Log-mels (B, stem, frame, band) of the stems of mixtures (B, time), a whole number of latents long."""
        prior, how = self.prior, self.how
        heard = prior.encode(mix)
        free = Free((len(mix), len(self.names), *heard.shape[1:]))
        steps, noise = max(1, evaluations // cost(how.rule)), common(seeded(0, mix.device))
        return prior.levels(self._sample(prior.denoiser(heard, how.guidance), free, steps, noise, told))

    @torch.no_grad()
    def waves(self, levels: Tensor, mix: Tensor) -> Tensor:
        """Stems (B, stem, time) of log-mels and the mixtures (B, time) they are of, as `phase` says."""
        if self.phase == "vocoder":
            return self.prior.codec.vocode(levels)
        mel = self.prior.config.codec.mel
        spectrum = mel.transform(mix)[:, None]
        masks = mel.shares(levels, spectrum.shape[-1], self.how.sharpness)
        return mel.inverse(spectrum * masks, mix.shape[-1])

    @torch.no_grad()
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), 1, time) for the wanted stems, given the context.

        Known stems and spans are known latents, noised to the level of the state and drawn anew each step. Stems that
        are neither wanted nor known are made too, and left away; levels are the prior's own: `scale` is not used.
        """
        device = next(self.prior.parameters()).device
        codec = self.prior.config.codec

        def whole(where: Tensor) -> Tensor:
            """Which whole latents were heard."""
            return where.unflatten(0, (-1, codec.stride)).all(1)[None, :, None]

        constraint = given(context, self.names, codec.shape(self.window), device, self.prior.encode, whole)
        x = self._sample(self.prior.denoiser(None), constraint, steps, seeded(seed, device), context.told)
        rows = [self.names.index(name) for name in wanted]
        return self.prior.codec.vocode(self.prior.levels(x[0, rows]))[:, None]
