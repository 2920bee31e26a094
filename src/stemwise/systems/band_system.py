"""The band prior as a system: answers about one window, by binding what was heard to its slots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.diffusion import (
    Denoiser,
    Known,
    Told,
    absent,
    bind,
    classifier_free,
    clean,
    dpmpp_2m,
    euler,
    karras,
    last,
    sample,
    seeded,
)
from stemwise.diffusion.constraints import Constraint, Free
from stemwise.systems.band import ABSENT, CLEAN, Band, loudness
from stemwise.systems.spatial import place_filter
from stemwise.systems.system import Context, Guide, Seam, System

QUIET = 1e-6
GUIDANCE = 1.5
VIEWS = ((1, 0), (-1, 1), (1, 2), (1, 3))
"""Views of a window for averaging: sign of the side channel (left and right swapped) and how many semitones lower it is played, in
as many steps of the network's as are nearest."""


@dataclass(frozen=True)
class BandSystem(System):
    """Separation in one or a few evaluations, sampling for everything else.

    With `precision` bfloat16 the network (not the state) is evaluated in it, about 40 dB below the estimate. `guide`
    bends the denoiser when something is sampled, for example by `coherence.guidance`.
    """

    prior: Band
    precision: torch.dtype = torch.float32
    guide: Guide | None = None

    def _at_precision(self, denoise: Denoiser) -> Denoiser:
        def evaluate(x: Tensor, sigma: Tensor, /) -> Tensor:
            with torch.autocast(x.device.type, self.precision):
                return denoise(x, sigma)

        return denoise if self.precision == torch.float32 else evaluate

    def listening(self, frames: int | None = None) -> int:
        """Longer, by its configuration: who plays is easier to tell from more of it; but hardly longer than the song."""
        config = self.prior.config
        heard = config.heard_frames or config.frames
        if frames is not None:
            needed = math.ceil((frames / config.bins + 1) / config.step) * config.step
            heard = max(config.frames, min(heard, needed))
        return (heard - 1) * config.bins

    @property
    def channels(self) -> int:
        """Left and right."""
        return 2

    @property
    def seam(self) -> Seam:
        """A third of the window in whole frames. It fades: the last frame that is known overlaps one that is made."""
        return Seam.about(self.window, self.rate, self.prior.config.bins)

    @property
    def evaluations(self) -> int:
        """One is enough for the posterior mean."""
        return 1

    @property
    def most_evaluations(self) -> int:
        """One for each view."""
        return len(VIEWS)

    @torch.no_grad()
    def separate(self, wave: Tensor, evaluations: int = 1, told: Told | None = None) -> tuple[Tensor, Tensor]:
        """Stems (B, stem, 2, time) that sum to the mixtures (B, 2, time), and what the network left over (B, 2, time).

        The estimate is the posterior mean, averaged over the first `evaluations` of the `VIEWS` of the window; what is
        left over is shared among the stems as in training (`Band.close`).
        """
        scale = loudness(wave).clamp_min(QUIET)[:, None, None]
        mix = self.prior.encode(wave / scale)
        views, means = VIEWS[:evaluations], []
        for view in views:
            means.append(self._mean(wave / scale, *view))
            if told is not None:
                told(len(means) / len(views))
        stems = torch.stack(means).mean(0)
        lacking = self.prior.decode(mix - stems.sum(1)) * scale
        return self.prior.decode(self.prior.close(stems, mix, self._unknown(mix)[1])) * scale[:, None], lacking

    def over_song(self, stems: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Filtered by where they sit between left and right (`place_filter`)."""
        return place_filter(stems, len(self.names), self.prior.codec)

    def _unknown(self, mix: Tensor) -> tuple[Tensor, Tensor]:
        """State and noise levels when the mixture is all that was heard."""
        slots = mix.new_zeros(mix.shape[0], len(self.names) + 1, *mix.shape[1:])
        slots[:, -1] = mix
        sigma = mix.new_full(slots.shape[:2], ABSENT)
        sigma[:, -1] = CLEAN
        return slots, sigma

    def _mean(self, wave: Tensor, side: int, lower: int) -> Tensor:
        """E[stems | mixture] seen with left and right swapped and played slower, by about so many semitones."""
        length, codec = wave.shape[-1], self.prior.codec
        step = self.prior.config.step * codec.bins
        # Of a short window a step is more than a semitone; every view is to differ.
        longer = length + step * max(lower, round((2 ** (lower / 12) - 1) * length / step))
        played = resized(wave if side > 0 else wave.flip(1), longer)
        stems = self._at_precision(self.prior.estimate)(*self._unknown(self.prior.encode(played)))
        stems = torch.cat([stems[:, :, :1], stems[:, :, 1:] * side], dim=2)
        return stems if longer == length else codec.encode(resized(codec.decode(stems), length))

    def sample(
        self, wanted: Sequence[str], context: Context, *, seed: int, steps: int, guidance: float = GUIDANCE
    ) -> Tensor:
        """New content (len(wanted), 2, time) for the wanted stems, given the context; scaled like it.

        Known stems are bound clean to their slots, the others and the mixture are absent; where a wanted stem is
        fixed in time it is imputed (`Known`). Guidance is classifier-free: away from the answer that has not heard
        the known stems.
        """
        prior, names = self.prior, self.names
        device = prior.power.device
        free = [i for i, name in enumerate(names) if name in wanted]
        order = [list(wanted).index(names[i]) for i in free]
        shape = (1, len(free), 2, prior.codec.frames(self.window), prior.config.bins)
        nothing = absent(torch.zeros(shape[:1] + shape[2:], device=device, dtype=torch.float32), ABSENT)
        rest = {i: nothing for i in range(len(names) + 1) if i not in free}
        heard = {
            names.index(name): clean(prior.encode(signal / context.scale)[None], CLEAN)
            for name, signal in context.known.items()
        }
        prior_at = self._at_precision(prior)
        denoiser: Denoiser = bind(prior_at, {**rest, **heard})
        if heard and guidance != 1:
            denoiser = classifier_free(denoiser, bind(prior_at, rest), guidance)
        if self.guide is not None:
            denoiser = self.guide(denoiser, context, lambda state: prior.decode(state) * context.scale)
        constraint: Constraint = Free(shape)
        if context.fixed:
            constraint = self._fixed(free, context, torch.zeros(shape, device=device, dtype=torch.float32))
        noise = seeded(seed, device)
        sigmas = karras(steps, 0.01, 0.99 * ABSENT, 5.0)
        # A force falls with sigma^2, so a multistep rule, which subtracts a share of the estimate before, would turn its sign.
        step = dpmpp_2m if self.guide is None else euler
        x = last(sample(denoiser, sigmas, noise, step=step, constraint=constraint), context.told).x
        made = prior.decode(x)[0] * context.scale
        return made[[order.index(i) for i in range(len(order))]]

    def _fixed(self, free: Sequence[int], context: Context, values: Tensor) -> Known:
        mask = torch.zeros_like(values, dtype=torch.bool)
        bins = self.prior.config.bins
        for row, index in enumerate(free):
            if self.names[index] in context.fixed:
                signal, where = context.fixed[self.names[index]]
                values[0, row] = self.prior.encode(signal / context.scale)
                padded = F.pad(where.float(), (bins, bins), value=1.0)
                mask[0, row] = padded.unfold(0, 2 * bins, bins).amin(-1).bool()[None, :, None]
        return Known(values, mask)


def resized(wave: Tensor, length: int) -> Tensor:
    """(..., time) -> (..., length): played slower or faster, as if periodic."""
    before = wave.shape[-1]
    return wave if length == before else torch.fft.irfft(torch.fft.rfft(wave) * (length / before), length)
