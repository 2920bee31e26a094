"""One question for every task: from a mix of some stems to a mix of some stems, in a single pass, of any length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stemwise.diffusion import Told
from stemwise.errors import QueryError
from stemwise.hosts import without_autocast
from stemwise.longform import ArraySource, ProgressCallback, Split, Windowing, continue_windows, separate_whole
from stemwise.making import Run
from stemwise.model import Model
from stemwise.query import whole_seed
from stemwise.signals import Signal, channels_at, cut, read_signal, stereo_back
from stemwise.stems import Audio, known_names
from stemwise.systems.componet_prompts import task
from stemwise.systems.componet_system import ComponetSystem


@without_autocast
def recompose(
    model: Model,
    source: Signal | None,
    heard: Sequence[str],
    wanted: Sequence[str],
    *,
    rate: int | None = None,
    seconds: float | None = None,
    seed: int | Sequence[int] = 0,
    steps: int | None = None,
    progress: ProgressCallback | None = None,
) -> Audio:
    """A mix of the `wanted` stems, given a mix of the `heard` ones, as one signal named after them ("bass+guitar").

    `source` has the rate, channels and length of the answer; with nothing heard it is None, `seconds` are the length, and
    the rate is the model's. Wanted stems among the heard are taken out of the source, channel by channel, and sum to it
    with the others, from the same noise whatever the seed; any other answer is new and mono, each window continuing the one
    before. Several seeds make as many candidates of that in one batch, the first axis of `data`. `steps` of sampling a window;
    None: as many as the model wants. Raises QueryError for models that hear stems one by one.
    """
    system = model.system
    if not isinstance(system, ComponetSystem):
        raise QueryError(
            f"the model {model.name} makes stems, not mixes; use separate, accompany or edit, or a CompoNet"
        )
    before, after = (known_names(side, model.stems, f"the model {model.name} has") for side in (heard, wanted))
    if not after:
        raise QueryError("nothing is wanted; name at least one stem")
    if bool(before) != (source is not None) or (source is None) != (seconds is not None):
        raise QueryError("give a source and the stems that are heard in it, or neither and seconds, to generate")
    seeds = tuple(map(whole_seed, seed)) if isinstance(seed, Sequence | np.ndarray) else (whole_seed(seed),)
    if not seeds:
        raise QueryError("no seed is given; give one for each candidate")
    separating = task(frozenset(before), frozenset(after)) == "separate"
    if separating and len(seeds) > 1:
        raise QueryError(
            f"{len(seeds)} candidates of a separation would be alike, since it starts from the same noise whatever the seed; "
            "give one seed"
        )
    run = Run(seeds[0], system.steps_for(before, after) if steps is None else steps, progress)
    name = "+".join(after)
    if seconds is not None:
        made = _continued(system, torch.zeros(1, model.frames(seconds), dtype=torch.float32), before, after, run, seeds)
        return Audio((name,), made[:, None], model.rate)
    assert source is not None
    signal, rate = read_signal(source, rate)
    if separating:
        return Audio.of({name: torch.from_numpy(_split(model, system, signal, rate, before, after, run))}, rate)
    made = _continued(system, channels_at(signal, rate, model.rate, 1), before, after, run, seeds)
    return Audio((name,), stereo_back(made, model.rate, rate, signal.shape[1], signal.shape[0])[:, None], rate)


def _continued(
    system: ComponetSystem, mix: Tensor, heard: Sequence[str], wanted: Sequence[str], run: Run, seeds: Sequence[int]
) -> Tensor:
    """(seed, 1, time) for a mix (1, time) at the model's rate."""
    overlap = system.seam.overlap
    total, device = mix.shape[-1], next(system.prior.parameters()).device

    def make(known: Tensor | None, index: int) -> Tensor:
        start = index * (system.window - overlap)
        fixed = None
        if known is not None:
            where = torch.arange(system.window) < overlap
            fixed = (cut(known[:, 0], 0, system.window).to(device), where.to(device))
        window = cut(mix[0], start, system.window).to(device)
        each = [seed * 1_000_003 + index for seed in seeds]
        told = run.within(start + overlap if index else 0, min(total, start + system.window), total, system.rate)
        made = system.answer(window, heard, wanted, seeds=each, steps=run.steps, fixed=fixed, told=told)
        return made[:, None].cpu()

    return torch.cat(list(continue_windows(make, total, system.window, overlap, fade=system.seam.fade)), -1)


def _split(
    model: Model,
    system: ComponetSystem,
    signal: np.ndarray,
    rate: int,
    heard: Sequence[str],
    wanted: Sequence[str],
    run: Run,
) -> np.ndarray:
    """(channels, frames): what of a signal the wanted stems are."""
    rest = [name for name in heard if name not in wanted]

    def split(x: Tensor, told: Told) -> Split:
        parts, left = system.split(x[:, 0].to(model.device), heard, [wanted, rest], run.steps, told)
        return Split(parts[:, :, None].cpu(), left[:, None].cpu())

    windowing = Windowing(model.rate, model.window, 1, overlap=0.25, batch=2, closed=system.sums)
    stems, _ = separate_whole(ArraySource(signal, rate), split, ("wanted", "other"), windowing, run.progress)
    return np.asarray(stems[0])
