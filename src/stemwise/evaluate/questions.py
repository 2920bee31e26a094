"""Songs -> questions: what a system is asked, and what only an oracle may look at."""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stemwise.errors import QueryError, SongError
from stemwise.evaluate.protocol import Chunks, Protocol
from stemwise.query import Query
from stemwise.songs import Song
from stemwise.songs.window import read_at
from stemwise.stems import Audio, Part

MIXTURE = "mixture"
_ATTEMPTS = 16


@dataclass(frozen=True, eq=False)
class Question:
    """One question to a system.

    Attributes:
        query: all that a model may use; heard signals and wanted stems.
        song: where the question is from.
        start: of the chunk, in seconds.
        frames: length of the answer, at `truth.rate`.
        seed: for whatever is random in the answer.
        number: counts the questions of all songs.
        truth: the judged stems of the chunk. For oracles and references, never for a model.
        group: what figures are reported for: a set of wanted stems, or all of them where the sets are random.
    """

    query: Query
    song: Song
    start: float
    seed: int
    number: int
    truth: Audio
    group: str

    @property
    def frames(self) -> int:
        """Length of the answer, at `truth.rate`."""
        return self.truth.frames

    @property
    def given(self) -> str:
        """The stems that are heard, as "bass+drums"; empty where it is a mixture or nothing."""
        return joined(self.truth, frozenset().union(*self.query.heard)) if self.query.task == "accompany" else ""

    @property
    def wanted(self) -> str:
        """The stems that are wanted, as "bass+drums"."""
        return joined(self.truth, self.query.wanted)


System = Callable[[Question], Audio]
"""Answers a question: the wanted stems at `truth.rate`, with as many channels and frames as the truth."""


@dataclass(frozen=True, eq=False)
class Take:
    """A question with its answer, which holds exactly the wanted stems."""

    question: Question
    answer: Audio

    def heard(self) -> np.ndarray:
        """The sum of what was heard (channel, frames); silence where nothing was."""
        parts = [signal.mix()[0].numpy() for signal in self.question.query.heard.values() if isinstance(signal, Audio)]
        return sum(parts[1:], parts[0]) if parts else np.zeros_like(self.question.truth.data[0, 0].numpy())


@dataclass(frozen=True)
class Shape:
    """What is read of a song: `rate` in hertz, `frames` at that rate, channels."""

    rate: int
    frames: int
    channels: int


def joined(stems: Audio, part: Part) -> str:
    """A set's names in the order of the stems: "bass+drums"."""
    return "+".join(name for name in stems.names if name in part)


def judged(songs: Sequence[Song], protocol: Protocol) -> tuple[str, ...]:
    """The stems that are judged: the protocol's, or all that the songs have. Raises QueryError where there is none."""
    found = sorted({name for song in songs for name in song.stems})
    names = tuple(protocol.stems) or tuple(found)
    missing = [name for name in names if name not in found]
    if missing:
        raise QueryError(f"no song has a stem named {', '.join(missing)}; there are: {', '.join(found) or 'none'}")
    if len(names) < 2 and protocol.task != "separate":
        raise QueryError(f"{protocol.task} needs songs with at least two stems; they have {', '.join(names)}")
    for given in protocol.given if isinstance(protocol.given, list) else ():
        if not given or not set(given) < set(names):
            raise QueryError(
                f"given {'+'.join(given) or 'nothing'}: these must be some, but not all, of the judged stems "
                f"{', '.join(names)}; or give leave-one-out, all or random"
            )
    return names


def ask(song: Song, protocol: Protocol, names: tuple[str, ...], index: int) -> Iterator[Question]:
    """All questions about one song; `index` is its place among the songs.

    Raises SongError where the song has nothing to ask about: too short, or none of the stems.
    """
    if not set(names) & set(song.stems):
        raise SongError(f"has none of the stems {', '.join(names)}; it has {', '.join(sorted(song.stems))}")
    draw = np.random.default_rng((protocol.seed, zlib.crc32(os.fsencode(song.name))))
    asked = 0
    for start, whole in _chunks(song, protocol, names, draw):
        active = [name for name, sounds in zip(names, protocol.active(levels(whole[: len(names)]))) if sounds]
        truth = Audio(names, torch.from_numpy(whole[: len(names)])[None], protocol.rate or song.rate)
        for query, group in _queries(protocol, truth, active, whole, draw):
            yield Question(
                query, song, start, int(draw.integers(1 << 31)), index * _per_song(protocol) + asked, truth, group
            )
            asked += 1
    if not asked:
        raise SongError(
            "no chunk of it can be asked about: it is too short, or too few of its stems are above "
            f"{protocol.floor_db:g} dB at a time"
        )


def _per_song(protocol: Protocol) -> int:
    return protocol.chunks.per_song or 1 if protocol.chunks is not None else 1


def _queries(
    protocol: Protocol, truth: Audio, active: list[str], whole: np.ndarray, draw: np.random.Generator
) -> Iterator[tuple[Query, str]]:
    """The queries about a chunk; `whole` are the judged stems and, after them, the song's other ones."""
    if protocol.task == "generate":
        yield Query({}, frozenset(truth.names)), MIXTURE
    elif protocol.task == "separate":
        heard = whole if protocol.mixture == "song" else whole[: len(truth.names)]
        mix = Audio.of({MIXTURE: torch.from_numpy(heard.sum(0))}, truth.rate)
        yield Query({frozenset(truth.names): mix}, frozenset(truth.names)), MIXTURE
    else:
        for given in _subsets(protocol, active, draw):
            wanted = frozenset(active) - given
            heard_parts = {frozenset({name}): truth.select([name]) for name in truth.names if name in given}
            group = "accompaniment" if protocol.given == "random" else joined(truth, wanted)
            yield Query(heard_parts, wanted), group


def _subsets(protocol: Protocol, active: list[str], draw: np.random.Generator) -> list[Part]:
    """The sets that are given, of the active stems; never all of them."""
    if not isinstance(protocol.given, str):
        sets = [frozenset(names) for names in protocol.given]
        return [given for given in sets if given and given < set(active)]
    if len(active) < 2:
        return []
    if protocol.given == "leave-one-out":
        return [frozenset(active) - {name} for name in active]
    if protocol.given == "all":
        sizes = range(1, len(active))
        return [frozenset(names) for size in sizes for names in itertools.combinations(active, size)]
    size = int(draw.integers(1, len(active)))
    return [frozenset(draw.permutation(active)[:size].tolist())]


def _chunks(
    song: Song, protocol: Protocol, names: tuple[str, ...], draw: np.random.Generator
) -> Iterator[tuple[float, np.ndarray]]:
    """Start in seconds and signals (stem, channel, frames): the judged stems, then the song's others."""
    rate, channels = protocol.rate or song.rate, protocol.channels or song.channels
    every = (*names, *(name for name in sorted(song.stems) if name not in names))
    frames = int(song.frames * rate / song.rate)
    chunks = protocol.chunks
    if chunks is None:
        yield 0.0, read_at(song, 0, every, Shape(rate, frames, channels))
    elif chunks.per_song is None:
        length = chunks.length(rate)
        count = frames // length
        if count:
            whole = read_at(song, 0, every, Shape(rate, count * length, channels))
            for i in range(count):
                yield i * length / rate, whole[..., i * length : (i + 1) * length]
    else:
        yield from _drawn(song, chunks, protocol, every, len(names), Shape(rate, chunks.length(rate), channels), draw)


def _drawn(
    song: Song, chunks: Chunks, protocol: Protocol, every: tuple[str, ...], judged: int, shape: Shape,
    draw: np.random.Generator,
) -> Iterator[tuple[float, np.ndarray]]:  # fmt: skip
    """Chunks at random places where enough judged stems sound; a place that fails is drawn again, 16 times at most."""
    last = song.frames - math.ceil(shape.frames * song.rate / shape.rate)
    for _ in range(chunks.per_song or 1):
        for _ in range(_ATTEMPTS if last >= 0 else 0):
            start = int(draw.integers(0, last + 1))
            signals = read_at(song, start, every, shape)
            if sum(protocol.active(levels(signals[:judged]))) >= min(chunks.min_active, judged):
                yield start / song.rate, signals
                break


def levels(signals: np.ndarray) -> list[float]:
    """The root mean square of each signal (signal, channel, frames)."""
    return [float(value) for value in np.sqrt(np.square(signals, dtype=np.float64).mean((1, 2)))]
