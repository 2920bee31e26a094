"""What a user holds: `load("band")`, then `separate`, `generate`, `accompany`, `edit`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stemwise.audio_io import FLOAT_WAV, Encoding, StemWriter, open_audio, resampled_frames
from stemwise.diffusion import Told
from stemwise.errors import QueryError
from stemwise.hosts import without_autocast
from stemwise.longform import (
    ArraySource,
    ProgressCallback,
    Report,
    Source,
    Split,
    WindowFunction,
    Windowing,
    in_turn,
    separate_to_files,
    separate_whole,
)
from stemwise.making import Run, make
from stemwise.query import Query, whole, whole_seed
from stemwise.signals import Signal, channels_at, plain, read_signal, span_weights, stereo_back, together
from stemwise.stems import Audio, Part, known_names, named
from stemwise.systems.system import System

LONGEST = 3600.0
"""Seconds that are generated at most."""
LEVEL = 0.125
"""Root mean square of a generated mixture, -18 dBFS."""
OVERLAP = 0.25
"""Share of a window that the next one hears, too, when separating."""


@dataclass(frozen=True, eq=False)
class Model:
    """A system with its stem names, rate and window; every method builds on one window at a time.

    Signals in memory are float, full scale 1. `progress` is called with `Progress`; returning False cancels
    (`Cancelled`).
    """

    name: str
    system: System
    device: torch.device
    folder: Path
    card: Mapping[str, Any]

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems it knows, in order."""
        return self.system.names

    @property
    def rate(self) -> int:
        """Its sample rate in hertz; files of other rates are resampled on entry and back."""
        return self.system.rate

    @property
    def window(self) -> int:
        """Its window in samples at its own rate."""
        return self.system.window

    @property
    def channels(self) -> int:
        """Its channels; of a signal with more, each (or each pair) is separated by itself."""
        return self.system.channels

    @property
    def evaluations(self) -> int:
        """Network evaluations a window when separating, unless told otherwise."""
        return self.system.evaluations

    @property
    def steps(self) -> int:
        """Sampling steps a window when making something new, unless told otherwise."""
        return self.system.steps

    @property
    def steps_beside(self) -> int:
        """As `steps`, beside stems that are given."""
        return self.system.steps_beside

    @property
    def precision(self) -> str:
        """What the network is evaluated in."""
        return str(self.system.precision).removeprefix("torch.")

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(p.numel() for p in self.system.prior.parameters())

    def frames(self, seconds: float) -> int:
        """How many samples of new music a length is. Raises QueryError for less than one, or more than an hour."""
        frames = round(seconds * self.rate) if 0 < seconds <= LONGEST else 0
        if frames < 1:
            raise QueryError(f"cannot generate {seconds:g} seconds; ask for 1/{self.rate} (a sample) to {LONGEST:g}")
        return frames

    # -- separate ----------------------------------------------------------------------------------------------------

    def separate(
        self,
        source: Signal,
        *,
        rate: int | None = None,
        evaluations: int | None = None,
        overlap: float = OVERLAP,
        progress: ProgressCallback | None = None,
    ) -> Audio:
        """All stems of a mixture, at its rate and exact length, channels as given; they sum to it.

        `evaluations` is the number of network evaluations a window; None: as many as the model wants. `overlap` is the share
        of a window, from 0 to 0.9, that the next one hears, too.
        """
        return self.separate_report(source, rate=rate, evaluations=evaluations, overlap=overlap, progress=progress)[0]

    @without_autocast
    def separate_report(
        self,
        source: Signal,
        *,
        rate: int | None = None,
        evaluations: int | None = None,
        overlap: float = OVERLAP,
        progress: ProgressCallback | None = None,
    ) -> tuple[Audio, Report]:
        """As `separate`, with the report (null test, share of energy that the model did not itself assign)."""
        signal, rate = read_signal(source, rate)
        song = ArraySource(signal, rate, Path(source).name if isinstance(source, str | Path) else "array")
        stems, report = separate_whole(
            song,
            self._window(evaluations),
            self.stems,
            self._windowing(overlap, song),
            progress,
            self.system.over_song,
        )
        return Audio(self.stems, torch.from_numpy(stems)[None], rate, torch.tensor(signal)[None]), report

    @without_autocast
    def separate_file(
        self,
        path: str | Path,
        folder: str | Path,
        *,
        encoding: Encoding = FLOAT_WAV,
        evaluations: int | None = None,
        overlap: float = OVERLAP,
        progress: ProgressCallback | None = None,
    ) -> Report:
        """Separate a file of any length into `folder`/STEM.wav in constant memory; files appear only when complete, and replace
        those of the same names that are there.
        """
        window = self._window(evaluations)
        with open_audio(path) as source:
            windowing = self._windowing(overlap, source)
            for stem in self.stems:
                file = Path(folder) / f"{stem}.{encoding.extension}"
                if file.exists() and file.samefile(path):
                    raise QueryError(f"{file}: is what is to be separated, and would be replaced; give another folder")
            writer = StemWriter(folder, self.stems, source.rate, source.channels, encoding, source.frames)
            return separate_to_files(source, window, writer, windowing, progress, self.system.over_song)

    def _windowing(self, overlap: float, source: Source) -> Windowing:
        if not 0 <= overlap <= 0.9:
            raise QueryError(f"overlap is {overlap:g}; give a share of the window from 0 to 0.9")
        listening = self.system.listening(resampled_frames(source.frames, source.rate, self.rate) or None)
        batch = max(1, 2 * self.window // listening)  # long windows come one by one, for the sake of memory
        return Windowing(self.rate, listening, self.channels, overlap, batch, self.system.sums)

    def _window(self, evaluations: int | None) -> WindowFunction:
        spent = self.evaluations if evaluations is None else whole(evaluations, "evaluations")
        if spent < 1:
            raise QueryError(f"evaluations is {spent}; it must be at least 1")
        most = self.system.most_evaluations
        if most is not None and spent > most:
            raise QueryError(f"evaluations is {spent}; this model has use for at most {most} a window")

        def split(x: Tensor, told: Told) -> Tensor | Split:
            stems, left = self.system.separate(x.to(self.device), spent, told)
            return Split(stems.cpu(), left.cpu()) if self.system.sums else stems.cpu()

        return split

    # -- generate, accompany -----------------------------------------------------------------------------------------

    @without_autocast
    def generate(
        self,
        seconds: float,
        *,
        stems: Sequence[str] | None = None,
        seed: int = 0,
        steps: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Audio:
        """New stems that belong together, at the model's rate and channels; the same seed gives the same music. `steps` of
        sampling a window; None: as many as the model wants. `stems`: which ones; None: all.
        """
        wanted = self._names(self.stems if stems is None else stems)
        self._ask({}, wanted)
        run = self._run(seed, steps, progress)
        made = make(self.system, wanted, {}, run, scale=LEVEL, frames=self.frames(seconds))
        return Audio(wanted, made[None], self.rate)

    @without_autocast
    def accompany(
        self,
        given: Mapping[str, Signal] | Audio,
        want: Sequence[str],
        *,
        rate: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Audio:
        """New stems for what was played: the given stems bit for bit (shorter ones padded), then the wanted ones; `steps` as in
        `generate`.
        """
        if isinstance(given, Audio):
            given = {name: given.select([name]) for name in given}
        if not isinstance(given, Mapping):
            raise QueryError(f"given is {given!r}; say which stem it is, for example {{'guitar': 'take.wav'}}")
        wanted = self._names(want)
        heard = self._names(tuple(given))
        both = sorted(set(wanted) & set(heard))
        if both:
            raise QueryError(f"{', '.join(both)} is both given and wanted; to replace a stem use edit with replace")
        if not heard:
            raise QueryError("nothing was given to accompany; give at least one stem, or use generate")
        signals, at = together({name: read_signal(source, rate) for name, source in given.items()})
        counts = {name: signal.shape[0] for name, signal in signals.items() if signal.shape[0] > 1}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise QueryError(f"the given stems differ in channels ({said}); make them alike, or mono")
        parts = {frozenset({name}): Audio.of({name: torch.from_numpy(signal)}, at) for name, signal in signals.items()}
        self._ask(parts, wanted)
        context = {name: channels_at(signal, at, self.rate, self.channels) for name, signal in signals.items()}
        run = self._run(seed, self.steps_beside if steps is None else steps, progress)
        made = make(self.system, wanted, context, run, scale=self._scale(context))
        frames = next(iter(signals.values())).shape[1]
        channels = max(signal.shape[0] for signal in signals.values())
        new = stereo_back(made, self.rate, at, frames, channels)
        old = [torch.from_numpy(np.broadcast_to(signal, (channels, frames)).copy()) for signal in signals.values()]
        return Audio((*heard, *wanted), torch.stack([*old, *new])[None], at)

    # -- edit --------------------------------------------------------------------------------------------------------

    @without_autocast
    def edit(
        self,
        source: Signal,
        *,
        remove: Sequence[str] = (),
        extract: Sequence[str] = (),
        replace: Sequence[str] = (),
        span: tuple[float, float] | None = None,
        rate: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        evaluations: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Audio:
        """Change one instrument inside a mix. Stems of an `Audio` are taken as they are, anything else is separated
        first.

        Exactly one of `remove`, `extract` and `replace` (a replaced stem is new content, named ``guitar'``), or a
        `span` (start, end in seconds) alone, which makes all stems anew there. With a span, mixture and stems
        outside it stay as they were, bit for bit.
        """
        remove, extract, replace = named(remove), named(extract), named(replace)
        verbs = [verb for verb, names in (("remove", remove), ("extract", extract), ("replace", replace)) if names]
        if len(verbs) > 1 or not (verbs or span):
            raise QueryError(
                f"edit needs exactly one of remove, extract, replace, or a span alone; got {verbs or 'none'}"
            )
        taking = verbs in (["remove"], ["extract"])
        passes = in_turn(progress, 1 if taking or isinstance(source, Audio) else 2)
        if isinstance(source, Audio):  # what an edit before has made anew (guitar') is a guitar to this one
            stems = plain(source)
            stems = dataclasses.replace(stems, names=tuple(name.rstrip("'") for name in stems))
        else:
            stems = self.separate(source, rate=rate, evaluations=evaluations, progress=passes[0])
        known = stems.names
        chosen = known_names([name.rstrip("'") for name in remove or extract or replace or known], known)
        where = span_weights(span, stems.frames, stems.rate)
        old = stems.data[0]
        mix = stems.mix()[0]
        if taking:
            dropped = [name for name in known if (name in chosen) == (verbs == ["remove"])]
            gain = torch.ones(len(known), 1, stems.frames, dtype=torch.float32)
            gain[[known.index(name) for name in dropped]] = 1 - where
            keep = [i for i, name in enumerate(known) if name not in dropped or span is not None]
            new = (old * gain)[keep]
            mixture = torch.where(where > 0, new.sum(0), mix) if span is not None else new.sum(0)
            return Audio(tuple(known[i] for i in keep), new[None], stems.rate, mixture[None])
        if steps is None and len(chosen) < len(known):
            steps = self.steps_beside
        return self._replaced(stems, chosen, where, self._run(seed, steps, passes[-1]))

    def _replaced(self, stems: Audio, chosen: tuple[str, ...], where: Tensor, run: Run) -> Audio:
        self._names(chosen)
        unheard = [name for name in stems.names if name not in self.stems]
        if unheard:
            raise QueryError(
                f"the model {self.name} cannot hear {', '.join(unheard)}, so what is new would not fit; its stems are "
                f"{', '.join(self.stems)}: give the mix alone, which it separates"
            )
        self._ask({frozenset({name}): stems.select([name]) for name in stems.names}, chosen)
        old = stems.data[0]
        inside = torch.nonzero(where)[:, 0]
        first, last = int(inside[0]), int(inside[-1]) + 1
        margin = self.window // 2 * stems.rate // self.rate
        start, end = max(0, first - margin), min(stems.frames, last + margin)
        at_model = {
            name: channels_at(old[i, :, start:end].numpy(), stems.rate, self.rate, self.channels)
            for i, name in enumerate(stems.names)
        }
        context = {name: signal for name, signal in at_model.items() if name not in chosen}
        before = resampled_frames(first - start, stems.rate, self.rate)
        edge = before, max(before + 1, resampled_frames(last - start, stems.rate, self.rate))
        scale = max(float(sum(at_model.values()).square().mean().sqrt()), 1e-3)  # type: ignore[union-attr]
        frames = next(iter(at_model.values())).shape[-1]
        replaced = {name: at_model[name] for name in chosen}
        made = make(self.system, chosen, context, run, scale=scale, frames=frames, old=replaced, inside=edge)
        new = stereo_back(made, self.rate, stems.rate, end - start, old.shape[1])
        data = old.clone()
        names = list(stems.names)
        for row, name in enumerate(chosen):
            i = names.index(name)
            fade = where[start:end]
            data[i, :, start:end] = torch.where(
                fade > 0, old[i, :, start:end] * (1 - fade) + new[row] * fade, old[i, :, start:end]
            )
            names[i] = f"{name}'"
        mixture = torch.where(where > 0, data.sum(0), stems.mix()[0])
        return Audio(tuple(names), data[None], stems.rate, mixture[None])

    # -- the common ground -------------------------------------------------------------------------------------------

    def _run(self, seed: int, steps: int | None, progress: ProgressCallback | None) -> Run:
        return Run(whole_seed(seed), self.steps if steps is None else steps, progress)

    def _ask(self, heard: Mapping[Part, Audio | Path], wanted: Sequence[str]) -> None:
        """Put the question to the system. Raises `QueryError` with the reason why it cannot answer."""
        reason = self.system.answers(Query(heard, frozenset(wanted)))
        if reason is not None:
            raise QueryError(reason)

    def _names(self, names: Sequence[str]) -> tuple[str, ...]:
        return known_names(names, self.stems, f"the model {self.name} has")

    def _scale(self, context: Mapping[str, Tensor]) -> float:
        """What the root mean square of the whole mixture may be, stems being about equally strong."""
        energy = float(sum(signal.square().mean() for signal in context.values()))
        return max(math.sqrt(energy * len(self.stems) / len(context)), 1e-3)
