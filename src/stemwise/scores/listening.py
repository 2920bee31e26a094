"""Scoring files and arrays of any length: embed their windows, compare, and say how sure the means are."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stemwise.audio_io import AUDIO_SUFFIXES, open_audio
from stemwise.coherence.cocola import PartName
from stemwise.coherence.scoring import Curve, Direction, Encoder, Heard, curve, hear
from stemwise.coherence.search import Grid, audible_pairs, scores_of_moves
from stemwise.coherence.windows import aligned_windows
from stemwise.errors import AudioFileError, QueryError, ScoreError
from stemwise.hosts import without_autocast
from stemwise.loading import load_coherence
from stemwise.longform import ProgressCallback, tell
from stemwise.metrics.statistics import Interval, bootstrap
from stemwise.outputs import MIX_NAMES, read_folder, stem_slots
from stemwise.scores.results import Move, Offset, Score, StemScores
from stemwise.signals import Signal, plain
from stemwise.stems import Audio, Part, known_names

HOP_SECONDS = 2.5
CONTEXT, MADE = "context", "accompaniment"
Stems = Mapping[str, Signal] | Audio | str | Path
"""Named signals, or a folder of stems as any verb of stemwise writes them."""


@dataclass(frozen=True)
class Listening:
    """How to listen: the encoder (a bundled model's name or a model folder, read anew for every score, or the module of
    `loading.load_coherence`), where it runs, and how.
    """

    model: str | Path | Encoder = "cocola"
    device: str = "auto"
    hop: float = HOP_SECONDS
    direction: Direction = "context first"
    progress: ProgressCallback | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.hop <= 5:
            raise QueryError(f"hop is {self.hop:g} s; it must be between 0.1 and 5")

    def encoder(self) -> Encoder:
        """The module."""
        return load_coherence(self.model, self.device) if isinstance(self.model, str | Path) else self.model


DEFAULT = Listening()


@without_autocast
def score(context: Signal, made: Signal, *, rate: int | None = None, how: Listening = DEFAULT) -> Score:
    """How well `made` fits to `context`, two files or arrays of the same song; `rate` is that of arrays, in hertz.

    Files may differ in rate and channels; the shorter one is padded with silence. A signal against itself has no
    special score.

    Raises:
        ScoreError: under 1 s of sound, or never audible together.
        AudioFileError, QueryError, ModelError: unusable files, arrays (also with NaN) or weights.
    """
    return score_parts({CONTEXT: context, MADE: made}, [CONTEXT], [MADE], rate=rate, how=how)


@without_autocast
def score_parts(
    stems: Stems, context: Sequence[str], made: Sequence[str], *, rate: int | None = None, how: Listening = DEFAULT
) -> Score:
    """The sum of the stems `made` against the sum of the stems `context`. Errors as `score`."""
    signals, rate = signals_of(stems, rate)
    x, y = (frozenset(known_names(names, tuple(signals))) for names in (context, made))
    encoder = how.encoder()
    used = {name: signals[name] for name in signals if name in x | y}
    heard, seconds = _heard(encoder, used, [x, y], rate, how)
    found = _score(encoder, heard, x, y, how.direction, seconds)
    if found is None:
        raise ScoreError(
            f"{_said(y, signals)} and {_said(x, signals)}: never both audible (above -60 dBFS) in the same "
            f"{encoder.window / encoder.rate:g} s, so there is nothing to score; are they of one song, and not silent?"
        )
    return found


@without_autocast
def score_stems(stems: Stems, *, rate: int | None = None, how: Listening = DEFAULT) -> StemScores:
    """How the stems of one song fit together: each against the sum of the others, and each pair. Errors as `score`."""
    signals, rate = signals_of(stems, rate)
    names = tuple(signals)
    rests = {name: frozenset(names) - {name} for name in names}
    encoder = how.encoder()
    heard, seconds = _heard(encoder, signals, [*map(_part, names), *rests.values()], rate, how)
    each = {name: _score(encoder, heard, rests[name], _part(name), how.direction, seconds) for name in names}
    pairs = {(a, b): _mean(curve(encoder, heard, _part(a), _part(b), how.direction)) for a, b in permutations(names, 2)}
    if not any(each.values()):
        raise ScoreError(f"none of {', '.join(names)} is ever audible together with the others (above -60 dBFS)")
    return StemScores(each, pairs, seconds)


@without_autocast
def search_offset(
    stems: Stems,
    stem: str,
    grid: Grid,
    *,
    context: Sequence[str] = (),
    part: PartName = "both",
    windows: int = 8,
    rate: int | None = None,
    how: Listening = DEFAULT,
) -> Offset:
    """Find the move in time and pitch with which a stem fits best to the sum of `context` (all others).

    Every move is tried on the same `windows` windows, spread over the song; one after which the stem is silent in any of
    them is left out. A model that hears semitones in a channel of
    their own transposes there. For others copies pass through a phase vocoder, which blurs onsets and costs them much
    of their score: shifts are found more surely than transpositions.

    Raises:
        ScoreError: fewer than two windows in which both are audible.
        ModuleNotFoundError: the phase vocoder needs librosa (`pip install 'stemwise[eval]'`).
    """
    signals, rate = signals_of(stems, rate)
    (name,) = known_names([stem], tuple(signals))
    y = _part(name)
    x = frozenset(known_names(context, tuple(signals))) if context else frozenset(signals) - y
    used = {name: signals[name] for name in signals if name in x | y}
    encoder = how.encoder()
    margin = round(grid.margin * encoder.rate)
    length = encoder.window + 2 * margin
    mixing = np.array([[name in part for name in used] for part in (x, y)], np.float32)
    every = ((start, mixing @ w) for start, w in _told(used, rate, encoder.rate, length, encoder.window, how.progress))
    pairs = audible_pairs(every, margin, windows)
    if len(pairs) < 2:
        raise ScoreError(
            f"{stem}: a search needs at least two windows of {length / encoder.rate:.1f} s in which it is audible "
            f"together with {', '.join(sorted(x))}; there are {len(pairs)}"
        )
    table = scores_of_moves(encoder, pairs, grid, part=part, direction=how.direction)
    base = table[grid.semitones.index(0), grid.shifts.index(0)]
    level = 1 - 0.05 / (len(grid.shifts) * len(grid.semitones))  # Bonferroni; of few windows, nearly all must gain
    moves = [
        Move(shift, semitones, float(table[i, j].mean()), bootstrap(table[i, j] - base, level=level))
        for i, semitones in enumerate(grid.semitones)
        for j, shift in enumerate(grid.shifts)
        if np.isfinite(table[i, j]).all()
    ]
    return Offset(tuple(sorted(moves, key=lambda move: -move.score)), len(pairs))


def signals_of(stems: Stems, rate: int | None = None) -> tuple[Mapping[str, Signal], int | None]:
    """Named signals and the rate of those that are arrays. Raises ScoreError for fewer than two stems."""
    if isinstance(stems, Audio):
        one = plain(stems)
        found: Mapping[str, Signal] = {name: one.data[0, i] for i, name in enumerate(one.names)}
        rate = stems.rate
    elif isinstance(stems, str | Path):
        found = _files(Path(stems))
    else:
        found = stems
    if len(found) < 2:
        where = f"{stems}: " if isinstance(stems, str | Path) else ""
        raise ScoreError(f"{where}a score needs at least two stems; found {', '.join(found) or 'none'}")
    return found, rate


def _files(folder: Path) -> dict[str, Path]:
    """The stems in a folder: by its manifest, else every audio file but a mix."""
    if not folder.is_dir():
        raise AudioFileError(f"{folder}: not a folder of stems. Give one, or two audio files.")
    names = sorted({f.stem.lower() for f in folder.iterdir() if f.suffix.lower() in AUDIO_SUFFIXES} - set(MIX_NAMES))
    return stem_slots(read_folder(folder, names))


def _heard(
    encoder: Encoder, signals: Mapping[str, Signal], parts: Sequence[Part], rate: int | None, how: Listening
) -> tuple[Heard, float]:
    hop = round(min(how.hop * encoder.rate, encoder.window))
    windows = _told(signals, rate, encoder.rate, encoder.window, hop, how.progress)
    heard = hear(encoder, tuple(signals), windows, parts)
    return heard, _longest(signals, rate)


def _told(
    signals: Mapping[str, Signal],
    rate: int | None,
    target: int,
    window: int,
    hop: int,
    progress: ProgressCallback | None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The windows, while the progress is told."""
    total, started = _longest(signals, rate), time.monotonic()
    for start, signal in aligned_windows(signals, target, window, hop, rate):
        yield start, signal
        done = min(total, (start + window) / target)
        tell(progress, done, total, started)


def _score(
    encoder: Encoder, heard: Heard, context: Part, made: Part, direction: Direction, seconds: float
) -> Score | None:
    found = curve(encoder, heard, context, made, direction)
    means = {part: _interval(found.stretches(values)) for part, values in found.scores.items()}
    both = means["both"]
    if both is None:
        return None
    return Score(
        both,
        means.get("harmonic"),
        means.get("percussive"),
        _interval(found.stretches(found.chances)),
        heard.correlation(context, made),
        found.coverage,
        seconds,
        tuple(map(float, found.starts)),
        {part: tuple(map(float, values)) for part, values in found.scores.items()},
    )


def _mean(found: Curve) -> Interval | None:
    return _interval(found.stretches(found.scores["both"]))


def _interval(values: NDArray[np.float64]) -> Interval | None:
    return bootstrap(values) if len(values) else None


def _longest(signals: Mapping[str, Signal], rate: int | None) -> float:
    return max(_seconds(signal, rate) for signal in signals.values())


def _seconds(signal: Signal, rate: int | None) -> float:
    if isinstance(signal, str | Path):
        with open_audio(signal) as source:
            return source.frames / source.rate
    if isinstance(signal, Audio):
        return signal.seconds
    shape = getattr(signal, "shape", ())  # what is no signal is named where it is read
    return int(shape[-1]) / rate if rate and shape else math.inf


def _part(name: str) -> Part:
    return frozenset({name})


def _said(part: Part, signals: Mapping[str, Signal]) -> str:
    """The files of a part, or its names where they are arrays."""
    chosen = {name: signal for name, signal in signals.items() if name in part}
    return " + ".join(str(signal) if isinstance(signal, str | Path) else name for name, signal in chosen.items())
