"""`stemwise edit --heard --wanted`: any mix from any other, several takes of it in one batch, the best one first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemwise.commands.console import Voice
from stemwise.commands.ranking import Contest, Rank, Verdict, by_coherence, by_energy, hold

if TYPE_CHECKING:
    from stemwise.batch import Item, Outcome
    from stemwise.commands.produce import Place
    from stemwise.longform import ProgressCallback
    from stemwise.model import Model
    from stemwise.stems import Audio

HEARD = "heard"
"""What the given mix is called beside the made one."""


@dataclass(frozen=True)
class Recomposing:
    """What is done for each input: `seeds`, one a take; `parameters` for the manifest."""

    model: Model
    place: Place
    heard: Sequence[str]
    wanted: Sequence[str]
    steps: int
    seeds: Sequence[int]
    rank: Rank | None
    parameters: Mapping[str, Any]
    voice: Voice

    def work(self, item: Item, track: str, notice: Callable[[Outcome], None]) -> list[Outcome]:
        """Make all takes of one input and write them, best first where they are ranked."""
        from stemwise.errors import AudioFileError
        from stemwise.outputs import MIX, Made
        from stemwise.recomposing import recompose
        from stemwise.stems import Audio

        given: list[Audio] = []

        def make(seeds: Sequence[int], progress: ProgressCallback) -> list[Audio]:
            if item.problem is not None:
                raise AudioFileError(item.problem)
            given[:] = [sum_of(item.source, self.heard, self.model.stems)]
            made = recompose(
                self.model, given[0], self.heard, self.wanted, seed=tuple(seeds), steps=self.steps, progress=progress
            )
            return [Audio(made.names, one[None], made.rate) for one in made.data]

        def judge(audio: Audio) -> Verdict:
            assert self._judge is not None
            return self._judge(Audio.of({HEARD: given[0].mix(), **{n: audio[n] for n in audio}}, audio.rate))

        ranked = {"rank": str(self.rank), "candidates": len(self.seeds), "first_seed": self.seeds[0]}
        parameters = {**self.parameters, **(ranked if self.rank else {})}
        made = Made("edit", self.model.name, {MIX: item.source}, self.seeds[0], parameters)
        batch, judging = len(self.seeds), judge if self._judge else None
        return hold(Contest(item.source, track, self.seeds, make, judging, made, batch), self.place, self.voice, notice)

    @cached_property
    def _judge(self) -> Callable[[Audio], Verdict] | None:
        """Of what was made, beside what was heard."""
        made = ["+".join(self.wanted)]
        if self.rank is Rank.ENERGY:
            return by_energy(made)
        return by_coherence([HEARD], made, str(self.model.device)) if self.rank is Rank.COHERENCE else None


def one_number(
    model: Model, sides: Sequence[Sequence[str]], steps: int | None, evaluations: int | None
) -> tuple[int, int]:
    """Steps and evaluations of the one pass of sampling between two sides. Raises QueryError where both are given."""
    from stemwise import diffusion
    from stemwise.errors import QueryError
    from stemwise.systems.componet_system import ComponetSystem

    if steps and evaluations:
        raise QueryError("--steps and --evaluations are one number with --heard and --wanted; give one of them")
    own, cost, system = model.steps, 1, model.system
    if isinstance(system, ComponetSystem):  # `recompose` refuses any other
        own, cost = system.steps_for(*sides), diffusion.cost(system.how.rule)
    taken = max(1, evaluations // cost) if evaluations else steps or own
    return taken, taken * cost


def sum_of(source: Path, heard: Sequence[str], known: Sequence[str]) -> Audio:
    """What is heard of an input: of a folder those of its stems, or its mix where it holds nothing else; all of a file.

    Raises AudioFileError where a folder lacks one.
    """
    import torch

    from stemwise.audio_io import read_audio
    from stemwise.errors import AudioFileError
    from stemwise.outputs import load_stems, read_folder, stem_slots
    from stemwise.stems import Audio

    file: Path | None = source
    if source.is_dir():
        found = read_folder(source, known)
        slots = stem_slots(found)
        missing = [name for name in heard if name not in slots]
        if not missing:
            return load_stems(dataclasses.replace(found, stems={name: slots[name] for name in heard}))
        file = None if set(slots) & set(known) else found.mix
        if file is None:
            raise AudioFileError(
                f"{source}: has {', '.join(slots)}, but not {', '.join(missing)}. Name with --heard only stems that it holds."
            )
    assert file is not None
    signal, rate = read_audio(file)
    return Audio.of({HEARD: torch.from_numpy(signal)}, rate)
