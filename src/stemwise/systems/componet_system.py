"""CompoNet as a system: every task is one question, only the two sets of stems differ.

`answer` is that question. The verbs that want stems apart ask it once for each: separation asks for every stem of the mix,
generation and accompaniment for one stem after the other, each hearing those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion import Constraint, Free, Known, NoiseSource, Told, common, cost, seeded
from stemwise.errors import QueryError
from stemwise.query import Query
from stemwise.stems import known_names
from stemwise.systems.componet import Componet, ComponetSampling
from stemwise.systems.componet_base import AudioLdm2
from stemwise.systems.componet_prompts import task
from stemwise.systems.latent_system import LatentMono
from stemwise.systems.system import Context, Phase, phase_of, unanswerable


@dataclass(frozen=True)
class ComponetSystem(LatentMono):
    """A base, its adapter, and how they are sampled (`how`, by default as the model's configuration says)."""

    prior: Componet
    precision: torch.dtype = torch.float32
    phase: Phase = "mixture"
    sampling: ComponetSampling | None = None

    takes: ClassVar[tuple[str, ...]] = ("phase", "guidance", "strength", "start", "end")

    @property
    def how(self) -> ComponetSampling:
        """How it is sampled."""
        return self.sampling or self.prior.config.sampling

    def asked(self, *, phase: str | None = None, **wishes: float) -> ComponetSystem:
        """With another `phase`, `guidance`, `strength`, `start` or `end`. Raises QueryError."""
        sampling = replace(self.how, **wishes)  # type: ignore[arg-type]
        return replace(self, sampling=sampling, phase=self.phase if phase is None else phase_of(phase))

    @property
    def latents(self) -> AudioLdm2:
        """The base's."""
        return self.prior.base

    def steps_for(self, heard: Sequence[str], wanted: Sequence[str]) -> int:
        """How many a question takes, as the configuration says."""
        extracts = task(frozenset(heard), frozenset(wanted)) == "separate"
        return (self.how.extracting if extracts else 0) or self.how.steps

    def answers(self, query: Query) -> str | None:
        """None, or why this system cannot answer. It hears sub-mixes."""
        stems = {frozenset({name}): signal for part, signal in query.heard.items() for name in part}
        return unanswerable(replace(query, heard=stems), self.names, "this model")

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int, told: Told | None = None) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, 1, time) of mixtures (B, 1, time), and what they lack of them (B, 1, time)."""
        steps = max(1, evaluations // cost(self.how.rule))
        stems, lacking = self.split(wave[:, 0], self.names, [(name,) for name in self.names], steps, told)
        return stems[:, :, None], lacking[:, None]

    @torch.no_grad()
    def split(
        self,
        wave: Tensor,
        heard: Sequence[str],
        parts: Sequence[Sequence[str]],
        steps: int,
        told: Told | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Parts (B, part, time) of mixes (B, time) of the heard stems, and what they lack of the mixes (B, time).

        Of any length: padded with silence to whole latents. Every item and part starts from the same noise.
        """
        for part in parts:
            self._ask(heard, part)
        prior, time = self.prior, wave.shape[-1]
        padded = F.pad(wave, (0, -time % prior.config.base.codec.stride))
        latent = prior.base.encode(padded)
        count = len(parts)
        denoiser = prior.denoiser(
            latent.repeat_interleave(count, 0),
            self._mask([heard] * count).repeat(len(wave), 1),
            self._mask(parts).repeat(len(wave), 1),
            self.how,
        )
        free = Free((len(wave) * count, *latent.shape[1:]))
        made = self._sample(denoiser, free, steps, common(seeded(0, wave.device)), told)
        levels = prior.base.levels(made).unflatten(0, (len(wave), count))
        if self.phase == "vocoder":
            stems = prior.base.codec.vocode(levels)[..., :time]
            return stems, wave - stems.sum(1)
        mel = prior.config.base.codec.mel
        spectrum = mel.transform(padded)[:, None]
        stems = mel.inverse(spectrum * mel.shares(levels, spectrum.shape[-1]), padded.shape[-1])[..., :time]
        lacking = wave - stems.sum(1)  # rounding
        return stems + lacking[:, None] / count, lacking

    @torch.no_grad()
    def answer(
        self,
        mix: Tensor,
        heard: Sequence[str],
        wanted: Sequence[str],
        *,
        seeds: Sequence[int],
        steps: int,
        fixed: tuple[Tensor, Tensor] | None = None,
        told: Told | None = None,
    ) -> Tensor:
        """Mixes (seed, time) of the wanted stems, given a mix (time,) of the heard ones: one candidate for each seed.

        Nothing heard: generate; nothing in common: accompany; wanted among heard: extract, remove; heard among wanted:
        add; else replace. `fixed` is a signal (time,) or (seed, time) of the answer and where (time,) it is known. `mix` is a whole
        number of latents long; with nothing heard it should be silence. Raises QueryError for unknown stems, and for tasks that
        the model was not trained for.
        """
        if not wanted:
            raise QueryError("nothing is wanted; name at least one stem")
        for names in (heard, wanted):
            known_names(names, self.names, "this model knows")
        self._ask(heard, wanted)
        base, count = self.prior.base, len(seeds)
        latent = base.encode(mix[None])
        shape = (count, *latent.shape[1:])
        constraint: Constraint = Free(shape)
        if fixed is not None:
            whole = fixed[1].unflatten(0, (-1, self.prior.config.base.codec.stride)).all(1)
            known = base.encode((fixed[0] * fixed[1]).reshape(-1, fixed[1].shape[-1])).expand(shape)
            constraint = Known(known, whole[None, None, :, None].expand(shape))
        before, after = (self._mask([side]).expand(count, -1) for side in (heard, wanted))
        denoiser = self.prior.denoiser(latent.expand(shape), before, after, self.how)
        made = self._sample(denoiser, constraint, steps, candidates(seeds, mix.device), told)
        return base.codec.vocode(base.levels(made))

    @torch.no_grad()
    def sample(self, wanted: Sequence[str], context: Context, *, seed: int, steps: int) -> Tensor:
        """New content (len(wanted), 1, time) for the wanted stems, given the context.

        One stem after the other, in the model's order, each hearing what is known and what was made before it. Where a
        wanted stem is known, so is its latent, and the wave comes close to it, but for its phase. Levels are the model's
        own: `scale` is not used.
        """
        device = next(self.prior.parameters()).device
        made: dict[str, Tensor] = {}
        beside: dict[str, Tensor] = {name: signal[0] for name, signal in context.known.items()}

        def told(share: float) -> None:
            if context.told is not None:
                context.told((len(made) + share) / len(wanted))

        for name in (name for name in self.names if name in wanted):
            mix = sum(beside.values(), torch.zeros(self.window, device=device, dtype=torch.float32))
            held = context.fixed.get(name)
            fixed = None if held is None else (held[0][0], held[1])
            own = [seed * len(self.names) + self.names.index(name)]  # stems of one noise would resemble each other
            made[name] = self.answer(mix, tuple(beside), (name,), seeds=own, steps=steps, fixed=fixed, told=told)[0]
            beside[name] = made[name] if fixed is None else torch.where(fixed[1], fixed[0], made[name])
        return torch.stack([made[name] for name in wanted])[:, None]

    def _ask(self, heard: Sequence[str], wanted: Sequence[str]) -> None:
        """Raises QueryError for what training never drew."""
        config, kind = self.prior.config.base, task(frozenset(heard), frozenset(wanted))
        if kind not in (*config.tasks, "same"):
            raise QueryError(
                f"this model was trained to {', '.join(config.tasks)}, not to {kind}; use a model that was"
            )
        if len(wanted) > config.most:
            raise QueryError(
                f"this model was trained to make at most {config.most} stem(s) at once, not {', '.join(wanted)}; ask for "
                "them one after the other"
            )

    def _mask(self, sides: Sequence[Sequence[str]]) -> Tensor:
        rows = [[name in side for name in self.names] for side in sides]
        return torch.tensor(rows, device=next(self.prior.parameters()).device)


def candidates(seeds: Sequence[int], device: torch.device) -> NoiseSource:
    """Noise for a batch of which each item has a seed of its own, so that it does not depend on the others."""
    sources = [seeded(seed, device) for seed in seeds]
    return lambda shape: torch.stack([source(tuple(shape[1:])) for source in sources])
