"""Best of many: takes are made first, judged, and written in the order of their worth, the best one as take-1."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands.console import Voice, complain

if TYPE_CHECKING:
    from stemwise.batch import Outcome
    from stemwise.commands.produce import Files, Place
    from stemwise.longform import ProgressCallback
    from stemwise.outputs import Made
    from stemwise.stems import Audio


class Rank(StrEnum):
    """What takes are ranked by."""

    COHERENCE = "coherence"
    ENERGY = "energy"


Ranking = Annotated[
    Rank | None,
    typer.Option("--rank", help="Best take first: how well it fits (coherence), or how loud it is (energy).",
                 show_default=False),
]  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How good a take is: the higher the better; None where it cannot be told. What may be a copy of what was heard comes after all
    that is not. `facts` go with it into the manifest.
    """

    value: float | None
    facts: Mapping[str, Any]
    copy: bool = False


@dataclass(frozen=True)
class Contest:
    """Takes of the same thing from several seeds.

    Attributes:
        source: what outcomes are reported for.
        track: name of the output; with several takes, of the folder that holds take-1, take-2, ...
        seeds: one a take.
        make: takes from their seeds, `batch` of them at once.
        judge: what one is worth; None: takes stay in the order of their seeds.
        made: what the verb did, for the manifest; the seed is put in.
    """

    source: Path
    track: str
    seeds: Sequence[int]
    make: Callable[[Sequence[int], ProgressCallback], Sequence[Audio]]
    judge: Callable[[Audio], Verdict] | None
    made: Made
    batch: int = 1

    @property
    def tracks(self) -> list[str]:
        """Names below the output folder, best take first."""
        return [f"{self.track}/take-{k + 1}" for k in range(len(self.seeds))] if len(self.seeds) > 1 else [self.track]


@dataclass(frozen=True)
class _Take:
    seed: int
    verdict: Verdict
    names: tuple[str, ...]
    rate: int
    file: Path
    elapsed: float


def hold(contest: Contest, place: Place, voice: Voice, notice: Callable[[Outcome], None]) -> list[Outcome]:
    """Make every take, then write them, best first. Takes wait on disk, so memory does not grow with their number.

    Nothing is made where the output is there already: it is refused or, with `place.skip`, skipped. Where making fails, there
    is one failed outcome.
    """
    from stemwise.audio_io import Existing, refuse_existing
    from stemwise.batch import Item, Outcome, work_through
    from stemwise.commands.produce import check_replaceable, check_takes, produce, put_audio
    from stemwise.errors import AudioFileError

    folders = [place.folder(track) for track in contest.tracks]
    skipped = place.skip and all(folder.exists() for folder in folders)
    ranked: list[_Take | None] = [None] * len(folders) if skipped else []
    with tempfile.TemporaryDirectory(prefix="stemwise-takes-") as scratch:

        def compete(item: Item) -> Outcome:
            there = [folder for folder in folders if folder.exists()]
            if place.skip and there:
                raise AudioFileError(
                    f"{contest.track}: only {len(there)} of its {len(folders)} takes are there, and takes are made together. "
                    "Make all anew with --overwrite, or choose another place with -o."
                )
            check_takes(place, contest.track, len(folders))
            for folder in folders:
                if place.existing is Existing.REFUSE:
                    refuse_existing(folder)
                else:
                    check_replaceable(folder)
            surplus = [folder for folder in _beside(folders) if contest.judge and place.existing is Existing.OVERWRITE]
            for folder in surplus:
                check_replaceable(folder)
            ranked.extend(_ranked(contest, Path(scratch), voice))
            for folder in surplus:  # ranks below are of the contest before
                shutil.rmtree(folder)
            return Outcome(item, "done")

        if not skipped:
            (competed,) = work_through([Item(contest.source, contest.track)], compete)
            if competed.status == "failed":
                notice(competed)
                return [competed]
        takes, asked = dict(zip(contest.tracks, ranked)), dict(zip(contest.tracks, contest.seeds))

        def write(item: Item) -> Outcome:
            take = takes[item.track]
            there = _seed_of(place.folder(item.track)) if contest.judge else asked[item.track]
            made = replace(contest.made, seed=there if take is None else take.seed)

            def fill(folder: Path) -> tuple[Files, dict[str, Any]]:
                assert take is not None  # else it was skipped
                files, facts = put_audio(folder, _load(take), place.how)
                value = take.verdict.value
                rank = {"rank": ranked.index(take) + 1, "worth": None if value is None else round(value, 4)}
                rank = rank if contest.judge else {}
                return files, {**facts, **rank, **take.verdict.facts, "elapsed_seconds": round(take.elapsed, 3)}

            return produce(item, place, made, fill)

        return work_through([Item(contest.source, track) for track in takes], write, notice)


def _beside(folders: Sequence[Path]) -> list[Path]:
    """Takes of an earlier contest that had more of them."""
    from stemwise.outputs import MANIFEST

    if len(folders) < 2:
        return []
    return [
        path for path in sorted(folders[0].parent.glob("take-*")) if path not in folders and (path / MANIFEST).is_file()
    ]


def by_energy(made: Sequence[str]) -> Callable[[Audio], Verdict]:
    """The L2 norm of the new stems: keeps a model's silent takes at the end (COCOLA's authors took MSDM's best of 12)."""

    def judge(audio: Audio) -> Verdict:
        norm = float(audio.select(made).data[0].double().norm())
        return Verdict(norm, {})

    return judge


def by_coherence(heard: Sequence[str], made: Sequence[str], device: str) -> Callable[[Audio], Verdict]:
    """The score of the sum of the new stems against the sum of what was heard; without any, how the new stems fit
    together, the mean over stems of their scores against the sum of the others.
    """
    from stemwise.errors import ScoreError
    from stemwise.loading import load_coherence
    from stemwise.scores import Listening, score_parts, score_stems

    how = Listening(load_coherence(device=device))

    def judge(audio: Audio) -> Verdict:
        try:
            if heard:
                found = score_parts(audio, heard, made, how=how)
                rows = {key: value for key, value in found.plain().items() if key not in ("starts", "curves")}
                return Verdict(found.coherence.mean, {"score": rows}, found.may_copy)
            song = score_stems(audio, how=how)
            stems = {name: entry and entry.plain()["coherence"] for name, entry in song.stems.items()}
            copy = any(entry is not None and entry.may_copy for entry in song.stems.values())
            return Verdict(song.coherence, {"score": {"coherence": song.plain()["coherence"], "stems": stems}}, copy)
        except ScoreError as error:
            complain(str(error))
            return Verdict(None, {"score": None})

    return judge


def _ranked(contest: Contest, scratch: Path, voice: Voice) -> list[_Take]:
    """Best first, then what may be copies, then what has no value; equal ones in the order of their seeds."""
    import numpy as np

    takes = []
    for first in range(0, len(contest.seeds), contest.batch):
        seeds = contest.seeds[first : first + contest.batch]
        started = time.monotonic()
        with voice.progress(f"{contest.track}, seed {', '.join(map(str, seeds))}") as progress:
            made = contest.make(seeds, progress)
        elapsed = (time.monotonic() - started) / len(seeds)
        for seed, audio in zip(seeds, made, strict=True):
            file = scratch / f"{seed}.npy"
            np.save(file, audio.data[0].detach().cpu().numpy())
            verdict = contest.judge(audio) if contest.judge else Verdict(None, {})
            takes.append(_Take(seed, verdict, audio.names, audio.rate, file, elapsed))
            value = "no value" if verdict.value is None else f"{verdict.value:.2f}"
            voice.detail(f"{contest.track}: seed {seed}: {value}{', may be a copy' if verdict.copy else ''}")
    return sorted(takes, key=lambda take: _place(take.verdict))


def _place(verdict: Verdict) -> tuple[bool, bool, float]:
    return verdict.value is None, verdict.copy, -(verdict.value or 0)


def _load(take: _Take) -> Audio:
    import numpy as np
    import torch

    from stemwise.stems import Audio

    return Audio(take.names, torch.from_numpy(np.load(take.file))[None], take.rate)


def _seed_of(folder: Path) -> int:
    """The seed in the manifest of a take that is there already; -1, which is no seed, where there is none."""
    from stemwise.outputs import read_manifest

    manifest = read_manifest(folder) if folder.is_dir() else None
    return int((manifest or {}).get("seed", -1))
