"""From a name to a system: a baseline, a model, or a folder of outputs that some system has made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field

from stemwise.audio_io import resample
from stemwise.errors import ModelError, QueryError, ScoreError, SongError
from stemwise.evaluate.baselines import RANDOM, SIMPLE, best_of, energy, random_submix
from stemwise.evaluate.protocol import Protocol
from stemwise.evaluate.questions import Question, Shape, System, Take
from stemwise.files import digest
from stemwise.recipe import Count, Section
from stemwise.signals import cut
from stemwise.songs import Song
from stemwise.songs.folder import song as read_song
from stemwise.songs.window import read_at
from stemwise.stems import Audio

if TYPE_CHECKING:
    from stemwise.model import Model


class SystemSection(Section):
    """A system and its settings.

    `system`: a baseline's or a model's name, a model folder, or a folder of outputs. `name`: what reports call it.
    `steps` of sampling, network `evaluations` a window when separating, by default the model's own. Of `candidates` answers
    the one with the highest `rank` counts: "energy" (L2 norm of what was made) or "coherence" with what was heard.
    """

    system: str = Field(min_length=1)
    name: str = ""
    steps: Count | None = None
    evaluations: Count | None = None
    candidates: Count = 1
    rank: Literal["energy", "coherence"] = "energy"


@dataclass(frozen=True)
class Entrant:
    """A system that takes part.

    Attributes:
        label: its name in reports and its results folder.
        answer: the system itself.
        identity: plain values that say what it is; other values are another system.
    """

    label: str
    answer: System
    identity: Mapping[str, Any]


def entrant(
    section: SystemSection,
    songs: Sequence[Song],
    protocol: Protocol,
    device: str = "auto",
    weights: Mapping[str, Path] = MappingProxyType({}),
) -> Entrant:
    """Find a system; what ranks candidates listens with the `weights` that measure. Raises ModelError with what there is."""
    from stemwise.loading import name_of

    name = section.system
    settings: dict[str, Any] = {}
    if name in SIMPLE:
        answer: System = SIMPLE[name]
    elif name == RANDOM:
        answer = random_submix(songs, protocol)
    elif _is_outputs(name):
        _check_outputs(protocol)
        answer = outputs(Path(name))
        settings["outputs"] = _content(Path(name))
    else:
        answer, settings = _model(name, section, protocol, device)
    if section.candidates > 1:
        answer = best_of(
            answer, section.candidates, energy if section.rank == "energy" else _coherence(device, weights)
        )
        settings |= {"candidates": section.candidates, "rank": section.rank}
    label = section.name or name_of(Path(name))
    if "/" in label or label.startswith("."):
        raise QueryError(f"a system cannot be called {label!r}; its results lie in a folder of that name")
    return Entrant(label, answer, {"system": label if settings.get("outputs") else name, **settings})


def of_model(model: Model, *, steps: int | None = None, evaluations: int | None = None) -> System:
    """A model as a system."""

    def answer(question: Question) -> Audio:
        query, truth = question.query, question.truth
        wanted = [name for name in model.stems if name in query.wanted]
        if query.task == "separate":
            unknown = sorted(query.wanted - set(wanted))
            if unknown:
                raise QueryError(
                    f"the model {model.name} knows {', '.join(model.stems)}, not {', '.join(unknown)}; judge only stems "
                    "that it knows (--stems)"
                )
            (mixture,) = query.heard.values()
            assert isinstance(mixture, Audio)
            return model.separate(mixture, evaluations=evaluations).select(wanted)
        reason = model.system.answers(query)
        if reason is not None:
            raise QueryError(f"{reason}. Judge only stems that it knows (--stems)")
        if query.task == "generate":
            made = model.generate(truth.seconds, stems=wanted, seed=question.seed, steps=steps)
            return _brought(made, truth)
        given = {joined(part): signal for part, signal in query.heard.items()}
        return model.accompany(given, wanted, seed=question.seed, steps=steps).select(wanted)

    def joined(part: frozenset[str]) -> str:
        (name,) = part
        return name

    return answer


def outputs(folder: Path) -> System:
    """A folder of finished outputs: one sub-folder a song, named as the song, or `generate`'s in order of their names."""
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def answer(question: Question) -> Audio:
        truth = question.truth
        wanted = tuple(name for name in truth.names if name in question.query.wanted)
        generated = question.query.task == "generate"
        if generated and question.number >= len(entries):
            raise SongError(f"{folder} holds {len(entries)} outputs, and this is question {question.number + 1}")
        place = entries[question.number] if generated else folder / question.song.name
        if not place.is_dir():
            raise SongError(f"{folder} has no outputs for it (no folder {place.name})")
        made = read_song(place)
        missing = [name for name in wanted if name not in made.stems]
        if missing:
            raise SongError(f"{place}: has no {', '.join(missing)}; found {', '.join(sorted(made.stems))}")
        needed = truth.seconds if generated else question.song.seconds
        if made.seconds < needed - 0.05:
            raise SongError(f"{place}: {made.seconds:.2f} s long, where {needed:.2f} s are needed")
        start = 0 if generated else round(question.start * made.rate)
        shape = Shape(truth.rate, truth.frames, truth.data.shape[2])
        return Audio(wanted, torch.from_numpy(read_at(made, start, wanted, shape))[None], truth.rate)

    return answer


def _check_outputs(protocol: Protocol) -> None:
    """Raises QueryError for questions that one output a song cannot answer."""
    if protocol.task == "accompany" and protocol.given in ("all", "random"):
        raise QueryError(
            f"a folder of outputs has one version of each stem, not one for every set that is heard ({protocol.given}); "
            "use --given leave-one-out, or the one set that its stems were made for"
        )
    if protocol.task == "generate" and protocol.chunks is not None and protocol.chunks.per_song is None:
        raise QueryError(
            "outputs of generate are taken in order: give --per-song, so that it is known how many there are"
        )


def _model(name: str, section: SystemSection, protocol: Protocol, device: str) -> tuple[System, dict[str, Any]]:
    from stemwise.loading import bundled, is_pipeline, load, models
    from stemwise.outputs import model_digest

    if name not in bundled() and not (Path(name) / "config.json").is_file() and not is_pipeline(Path(name)):
        raise ModelError(
            f"no system named {name!r}; baselines: {', '.join([*SIMPLE, RANDOM])}; models: {', '.join(models())}; or give a "
            "model folder, or a folder of outputs with one sub-folder a song"
        )
    model = load(name, device)
    spent = (
        {"evaluations": section.evaluations or model.evaluations}
        if protocol.task == "separate"
        else {"steps": section.steps or (model.steps_beside if protocol.task == "accompany" else model.steps)}
    )
    system = of_model(model, steps=section.steps, evaluations=section.evaluations)
    return system, {"weights": model_digest(model.folder)[:16], "precision": model.precision, **spent}


def _coherence(device: str, weights: Mapping[str, Path]) -> Any:
    from stemwise.scores import Listening, score, score_stems

    how = Listening(Listening(weights.get("cocola", "cocola"), device).encoder())

    def rank(question: Question, answer: Audio) -> float:
        try:
            if not question.query.heard:
                fit = score_stems(answer, how=how).coherence
                return float("-inf") if fit is None else fit
            heard = Take(question, answer).heard()
            return score(heard, answer[question.query.wanted][0], rate=answer.rate, how=how).coherence.mean
        except ScoreError:
            return float("-inf")

    return rank


def _brought(made: Audio, truth: Audio) -> Audio:
    """An answer at its own rate, length and channels -> those of the truth."""
    channels = truth.data.shape[2]
    data = made.data[0]
    if data.shape[1] != channels:
        data = data.mean(1, keepdim=True).expand(-1, channels, -1)
    flat = resample(data.flatten(0, 1).contiguous().numpy(), made.rate, truth.rate)
    stems = torch.from_numpy(flat).view(len(made), channels, -1)
    return Audio(made.names, cut(stems, 0, truth.frames)[None], truth.rate)


def _is_outputs(name: str) -> bool:
    """Whether it is a folder of folders, and neither a model nor called as one."""
    from stemwise.loading import bundled, is_pipeline

    path = Path(name)
    if name in bundled() or not path.is_dir() or (path / "config.json").is_file() or is_pipeline(path):
        return False
    if (path / "recipe.yaml").is_file():
        raise ModelError(f"{path}: the folder of a training; give the weights in it, {path / 'best'}")
    return any(entry.is_dir() for entry in path.iterdir())


def _content(folder: Path) -> str:
    """A digest of the files and their names."""
    return digest(folder, (file for file in folder.rglob("*") if file.is_file()))[:16]
