"""Evaluating: every song's questions to every system, each finished song kept at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from stemwise.batch import explain
from stemwise.errors import Cancelled, EvaluationError, ModelError, QueryError, RecipeError
from stemwise.evaluate.measures import Frames, Row, Ruler
from stemwise.evaluate.protocol import Protocol
from stemwise.evaluate.questions import Question, Take, ask, judged
from stemwise.evaluate.results import Results, SongResult, describe, open_results
from stemwise.evaluate.systems import Entrant
from stemwise.query import Query
from stemwise.songs import Song
from stemwise.stems import Audio

#: What would fail for every song alike, so that going on makes no sense.
_FATAL = (QueryError, ModelError, RecipeError, Cancelled, ModuleNotFoundError)


@dataclass(frozen=True)
class Event:
    """A song is done.

    Attributes:
        song: its name.
        done, total: songs of this run, those that had been finished before included.
        left_seconds: estimate of what remains.
        failures: by system, why it has no figures for this song.
    """

    song: str
    done: int
    total: int
    left_seconds: float
    failures: Mapping[str, str]


@dataclass
class _Gathered:
    """What one system has to its name in the present song."""

    rows: list[Row] = field(default_factory=list)
    frames: dict[str, list[np.ndarray]] = field(default_factory=dict)
    takes: list[Take] = field(default_factory=list)
    failure: str = ""

    def add(self, take: Take, real: Frames, ruler: Ruler) -> None:
        """Measure an answer, or lay it aside until the song is complete."""
        for key, frames in {**real, **ruler.made(take)}.items():
            self.frames.setdefault(key, []).append(frames)
        if ruler.protocol.joined:
            self.takes.append(take)
        else:
            self.rows += ruler.rows(take)

    def result(self, song: str) -> tuple[SongResult, Frames]:
        """What is kept."""
        if self.failure:
            return SongResult(song, (), self.failure), {}
        return SongResult(song, tuple(self.rows)), {key: np.concatenate(parts) for key, parts in self.frames.items()}


def evaluate(
    entrants: Sequence[Entrant],
    songs: Sequence[Song],
    protocol: Protocol,
    folder: Path | str,
    *,
    shard: tuple[int, int] = (0, 1),
    unreadable: Mapping[str, str] | None = None,
    weights: Mapping[str, Path] | None = None,
    device: str = "auto",
    notice: Callable[[Event], object] = lambda _: None,
) -> list[Results]:
    """Evaluate systems on songs; their results lie in `folder`/LABEL and are returned.

    Finished songs are kept, so the same call goes on where another one was killed. `shard` (i, N): only every Nth song
    from the ith on, for N machines. `unreadable`: songs that could not be opened, for the report. `weights`: folders of
    embeddings' models, by name; those that are not named have weights of their own. `notice` hears of each song; False
    cancels.

    Raises:
        ModelError: an embedding has no weights.
        QueryError: a system cannot answer this kind of question, no song has the stems, two systems of one label.
        RecipeError: `folder` holds an evaluation with other settings.
        EvaluationError: results cannot be written.
        Cancelled: `notice` said so; finished songs are kept.
    """
    labels = [entrant.label for entrant in entrants]
    if len(set(labels)) < len(labels):
        raise QueryError(
            f"two systems are called the same ({', '.join(labels)}); give each a `name` in a study's YAML file, "
            "or an --out of its own"
        )
    twice = sorted(name for name, count in Counter(song.name for song in songs).items() if count > 1)
    if twice:
        raise QueryError(f"several songs are called {twice[0]}; results are kept by name, so rename them")
    names = judged(songs, protocol)
    settled = protocol.model_copy(update={"stems": list(names)})
    ruler = Ruler(settled, weights or {}, device)
    stores = [
        open_results(Path(folder) / e.label, describe(e.label, e.identity, ruler, songs, unreadable or {}))
        for e in entrants
    ]
    mine = [(index, song) for index, song in enumerate(songs) if index % shard[1] == shard[0]]
    waiting = [
        (index, song, open_ones)
        for index, song in mine
        if (open_ones := [(e, store) for e, store in zip(entrants, stores) if not store.has(song.name)])
    ]
    started = time.monotonic()
    for number, (index, song, pairs) in enumerate(waiting, 1):
        gathered = _song([entrant for entrant, _ in pairs], song, settled, names, index, ruler)
        for (_, store), one in zip(pairs, gathered):
            store.keep(*one.result(song.name))
        left = (time.monotonic() - started) / number * (len(waiting) - number)
        failures = {e.label: one.failure for (e, _), one in zip(pairs, gathered) if one.failure}
        event = Event(song.name, len(mine) - len(waiting) + number, len(mine), left, failures)
        if notice(event) is False:
            raise Cancelled("the songs finished so far are kept; run the same command again to go on")
    return stores


def _song(
    entrants: Sequence[Entrant], song: Song, protocol: Protocol, names: tuple[str, ...], index: int, ruler: Ruler
) -> list[_Gathered]:
    """All systems on one song. What goes wrong with one system is its failure; with the song, that of all."""
    every = [_Gathered() for _ in entrants]
    try:
        for question in ask(song, protocol, names, index):
            real = ruler.real(question)
            for entrant, one in zip(entrants, every):
                if not one.failure:
                    one.failure = _failure(song, _answer, entrant, question, one, real, ruler)
    except _FATAL:
        raise
    except Exception as error:
        return [_Gathered(failure=_explain(error, song)) for _ in every]
    for one in every:
        if one.takes and not one.failure:
            one.failure = _failure(song, _measure_joined, one, ruler)
    return every


def _answer(entrant: Entrant, question: Question, one: _Gathered, real: Frames, ruler: Ruler) -> None:
    one.add(Take(question, checked(entrant.answer(question), question)), real, ruler)


def _measure_joined(one: _Gathered, ruler: Ruler) -> None:
    one.rows += ruler.rows(end_to_end(one.takes))


def _failure(song: Song, work: Callable[..., None], *arguments: object) -> str:
    """Do the work; why it failed, or an empty string."""
    try:
        work(*arguments)
    except _FATAL:
        raise
    except Exception as error:
        return _explain(error, song)
    return ""


def _explain(error: Exception, song: Song) -> str:
    return explain(error, Path(song.name))


def checked(answer: Audio, question: Question) -> Audio:
    """The wanted stems of an answer, in the order of the truth. Raises EvaluationError where it is none."""
    truth = question.truth
    wanted = [name for name in truth.names if name in question.query.wanted]
    missing = [name for name in wanted if name not in answer.names]
    if missing:
        raise EvaluationError(f"the system was asked for {', '.join(wanted)} and gave no {', '.join(missing)}")
    stems = answer.select(wanted)
    expected, found = (truth.rate, *truth.data.shape[2:]), (stems.rate, *stems.data.shape[2:])
    if found != expected:
        raise EvaluationError(
            f"the system gave {found[2]} samples of {found[1]} channel(s) at {found[0]} Hz, where {expected[2]} of "
            f"{expected[1]} at {expected[0]} Hz were wanted"
        )
    if not torch.isfinite(stems.data).all():
        raise EvaluationError("the system gave NaN or infinite samples")
    return Audio(stems.names, stems.data.float().cpu(), stems.rate)


def end_to_end(takes: Sequence[Take]) -> Take:
    """Consecutive chunks as one: truth, answers and what was heard, one after the other."""
    first = takes[0].question
    heard = {
        part: _row([take.question.query.heard[part] for take in takes])  # type: ignore[misc]
        for part in first.query.heard
    }
    question = replace(
        first, query=Query(heard, first.query.wanted), truth=_row([take.question.truth for take in takes])
    )
    return Take(question, _row([take.answer for take in takes]))


def _row(pieces: Sequence[Audio]) -> Audio:
    return Audio(pieces[0].names, torch.cat([piece.data for piece in pieces], -1), pieces[0].rate)
