"""Every error a user can meet derives from one class, so that callers can catch the family or the kind."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class StemwiseError(Exception):
    """Something the user can act on; the message says what, where and the remedy."""


class AudioFileError(StemwiseError):
    """A file cannot be read or written as audio."""


class MidiFileError(StemwiseError):
    """A file cannot be read or written as MIDI."""


class QueryError(StemwiseError):
    """A request contradicts itself or asks for what the model cannot do."""


class ModelError(StemwiseError):
    """A model name, folder or weight file is unusable."""


class RecipeError(StemwiseError):
    """A training recipe has a mistake; the message names its place and the allowed values."""


class SongError(StemwiseError):
    """A data set or one of its songs is unusable."""


class ScoreError(StemwiseError):
    """Signals cannot be scored: too short, never audible together, or too few of them."""


class EvaluationError(StemwiseError):
    """An evaluation cannot go on, or two cannot be compared; songs that were finished are kept."""


class TrainingError(StemwiseError):
    """A training cannot go on; the message names the step and what is left on disk."""


class Cancelled(StemwiseError):
    """The caller's progress callback asked to stop; nothing partial was left behind."""


class MetricError(StemwiseError):
    """A figure cannot be computed from what was given: too few frames, or statistics of another embedding."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """ " (did you mean 'drums'?)" for a message about a name that is not known; nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f" (did you mean {near[0]!r}?)" if near else ""


def shown(value: object) -> str:
    """A value as messages quote it, shortened where it is long: with aliases, a short YAML stands for what no memory holds."""
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxlist = short.maxtuple = short.maxdict = 12
    short.maxstring = short.maxlong = short.maxother = 200
    return short.repr(value)
