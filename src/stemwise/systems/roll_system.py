"""Answers in piano rolls of any length: separate, generate, accompany; window after window, each continuing the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stemwise.codecs.roll import RollLayout
from stemwise.diffusion import NoiseSource, dpmpp_2m, karras, last, sample, seeded
from stemwise.errors import Cancelled, QueryError
from stemwise.hosts import without_autocast
from stemwise.query import whole_seed
from stemwise.stems import Rolls, known_names
from stemwise.systems import mixture2music as published
from stemwise.systems.mixture2music import Mixture2Music
from stemwise.systems.rolls import FREE, Heard, RollPrior, cells, planes

ShareDone = Callable[[float], object]
"""Told the share that is done; returning False cancels."""


@dataclass(frozen=True, eq=False)
class RollSystem:
    """A prior of rolls, asked. Every result is a batch of one; the same seed gives the same result."""

    prior: RollPrior | Mixture2Music

    @property
    def names(self) -> tuple[str, ...]:
        """The stems it knows, in order."""
        return self.layout.stems

    @property
    def layout(self) -> RollLayout:
        """How notes become rolls."""
        return self.prior.layout

    @property
    def window(self) -> int:
        """Steps that are made at once."""
        return self.prior.config.window

    @property
    def steps(self) -> int:
        """Network evaluations a window unless told otherwise."""
        if isinstance(self.prior, Mixture2Music):
            return self.prior.config.evaluations
        return self.prior.config.sampling.steps

    @without_autocast
    def separate(
        self,
        mixture: Tensor,
        *,
        bars: Tensor | None = None,
        known: Rolls | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        steps: int | None = None,
        progress: ShareDone | None = None,
    ) -> Rolls:
        """Who plays what of a mixture uint8 (time, pitch): the stems mix to it exactly, cells and onsets.

        `bars` bool (time,): where bars begin (every four quarters). `known`: stems that are known already. At
        `temperature` 0 sampling starts without noise, near the likeliest answer; at 1 every seed is a version of its own.
        """
        self._check(mixture.shape, mixture.dtype)
        if isinstance(self.prior, Mixture2Music):
            if known is not None:
                raise QueryError("the published Mixture2Music only separates; known stems need a model of type rolls")
            return self._published(mixture, seed, steps or self.steps, progress)
        return self._walk(mixture, known, bars, self._noise(seed, temperature), steps or self.steps, progress)

    @without_autocast
    def generate(
        self,
        want: Sequence[str] | None = None,
        *,
        bars: int = 8,
        metre: tuple[int, int] = (4, 4),
        seed: int = 0,
        steps: int | None = None,
        progress: ShareDone | None = None,
    ) -> Rolls:
        """New music of so many bars; the stems that are not wanted are made too, and left away."""
        wanted = self._wanted(self.names if want is None else want)
        bar = self.layout.steps * 4 * metre[0] // metre[1]
        if bars < 1 or bar < 1:
            raise QueryError(f"{bars} bars of {metre[0]}/{metre[1]}: give at least one bar of at least a 16th")
        begins = torch.arange(bars * bar) % bar == 0
        free = torch.full((bars * bar, self.layout.rows), FREE, dtype=torch.uint8)
        return self._walk(free, None, begins, self._noise(seed), steps or self.steps, progress).select(wanted)

    @without_autocast
    def accompany(
        self,
        known: Rolls,
        want: Sequence[str],
        *,
        bars: Tensor | None = None,
        seed: int = 0,
        steps: int | None = None,
        progress: ShareDone | None = None,
    ) -> Rolls:
        """The wanted stems for known ones, of their length; `bars` as in `separate`."""
        wanted = self._wanted(want)
        both = sorted(set(wanted) & set(known.names))
        if both:
            raise QueryError(f"{', '.join(both)} is both given and wanted; take it out of one of them")
        free = torch.full(tuple(known.data.shape[2:]), FREE, dtype=torch.uint8)
        return self._walk(free, known, bars, self._noise(seed), steps or self.steps, progress).select(wanted)

    def _walk(
        self,
        mixture: Tensor,
        known: Rolls | None,
        bars: Tensor | None,
        noise: Callable[[int], NoiseSource],
        steps: int,
        progress: ShareDone | None,
    ) -> Rolls:
        prior = self.prior
        if not isinstance(prior, RollPrior):
            raise QueryError("the published Mixture2Music only separates; to make rolls take a model of type rolls")
        length, rows = mixture.shape
        given = torch.zeros(len(self.names), length, rows, dtype=torch.uint8)
        fixed = torch.zeros(len(self.names), length, dtype=torch.bool)
        if known is not None:
            for name in self._wanted(known.names):
                self._check(known[name].shape[1:], known.data.dtype, length)
                given[self.names.index(name)] = known[name][0]
                fixed[self.names.index(name)] = True
        if bars is None:
            bars = torch.arange(length) % (4 * self.layout.steps) == 0
        place = next(prior.parameters()).device
        seam = self.window // 2
        after = FREE if bool((mixture == FREE).all()) else 0
        for index, start in enumerate(range(0, max(1, length - seam), seam)):
            stop = min(length, start + self.window)

            def of(x: Tensor, fill: int = 0, start: int = start, stop: int = stop) -> Tensor:
                """The window of a tensor whose time axis is the last but one, or the last of bools; filled up."""
                whole = x[..., start:stop, :] if x.dtype == torch.uint8 else x[..., start:stop]
                missing = self.window - (stop - start)
                pad = (0, 0, 0, missing) if x.dtype == torch.uint8 else (0, missing)
                return torch.nn.functional.pad(whole, pad, value=fill)[None].to(place)

            heard = Heard(of(mixture, after), of(given), of(fixed), of(bars))
            made = solve(prior, heard, steps, noise(index))[0].cpu()[:, : stop - start]
            given[:, start:stop] = made
            fixed[:, start:stop] = True
            _tell(progress, stop / length)
        return Rolls(self.names, given[None], self.layout.steps, self.layout.lowest)

    @torch.no_grad()
    def _published(self, mixture: Tensor, seed: int, steps: int, progress: ShareDone | None) -> Rolls:
        """Windows side by side, masked at every step; what no instrument took goes to the likeliest."""
        assert isinstance(self.prior, Mixture2Music)
        length = len(mixture)
        padded = torch.nn.functional.pad(mixture, (0, 0, 0, -length % self.window))
        pieces = []
        place = next(self.prior.parameters()).device
        for index, window in enumerate(padded.split(self.window)):
            heard = (window > 0)[None, None].float().to(place)
            walk = published.ddim(
                self.prior,
                heard,
                published.masked(heard, len(self.names)),
                published.strided(self.prior, steps),
                self._noise(seed)(index),
            )
            x = published.preserved(last(walk))
            found = self.prior.decode(x, heard)
            best = torch.zeros_like(found).scatter_(1, x.argmax(1, keepdim=True), True)
            found |= best & ~found.any(1, keepdim=True) & heard.bool()
            pieces.append(found[0].to(torch.uint8).cpu())
            _tell(progress, min(1.0, (index + 1) * self.window / length))
        data = torch.cat(pieces, dim=1)[None, :, :length]
        return Rolls(self.names, data, self.layout.steps, self.layout.lowest)

    def _noise(self, seed: int, temperature: float = 1.0) -> Callable[[int], NoiseSource]:
        """Noise for every window: its own, times the temperature."""
        place, seed = next(self.prior.parameters()).device, whole_seed(seed)

        def of(window: int) -> NoiseSource:
            source = seeded(seed * 1_000_003 + window, place)
            return lambda shape: temperature * source(shape)

        return of

    def _wanted(self, names: Sequence[str]) -> tuple[str, ...]:
        return known_names(names, self.names, "this model has")

    def _check(self, shape: Sequence[int], dtype: torch.dtype, length: int | None = None) -> None:
        if len(shape) != 2 or shape[1] != self.layout.rows or dtype != torch.uint8 or length not in (None, shape[0]):
            raise QueryError(
                f"a roll is uint8 ({'time' if length is None else length}, {self.layout.rows}), got {dtype} {tuple(shape)}; "
                "stemwise.codecs.roll makes them from MIDI"
            )


@torch.no_grad()
def solve(prior: RollPrior, heard: Heard, steps: int, noise: NoiseSource) -> Tensor:
    """All stems of windows uint8 (batch, stem, time, pitch), by `steps` evaluations."""
    how = prior.config.sampling
    levels = karras(steps, how.sigma_min, how.sigma_max, how.rho)
    denoiser, constraint = prior.condition(heard)
    likely = last(sample(denoiser, levels, noise, constraint=constraint, step=dpmpp_2m)).denoised
    made = cells(torch.where(heard.fixed(), 2 * planes(heard.values) - 1, likely), heard.mixture)
    return torch.where(heard.known[..., None], heard.values, made)


def _tell(progress: ShareDone | None, share: float) -> None:
    if progress is not None and progress(share) is False:
        raise Cancelled("cancelled; nothing was written")
