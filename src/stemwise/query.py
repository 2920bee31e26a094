"""What was heard and what is wanted: every task is a relation between the two."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stemwise.errors import QueryError
from stemwise.stems import Audio, Part


@dataclass(frozen=True, eq=False)
class Query:
    """Heard parts, each a signal, and the wanted stems.

    ``heard`` maps a part to its signal, an `Audio` (whose mix is meant) or a file; heard parts are disjoint unless
    one contains the other, as a mixture does. ``wanted`` are the stems to be made or found. ``span`` in seconds
    limits what may change.
    """

    heard: Mapping[Part, Audio | Path]
    wanted: Part
    span: tuple[float, float] | None = None
    words: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.wanted:
            raise QueryError("nothing is wanted; name at least one stem")
        if self.span is not None and not 0 <= self.span[0] < self.span[1]:
            raise QueryError(
                f"the span {self.span[0]:g}:{self.span[1]:g} is empty; give start:end in seconds, start before end"
            )
        parts = list(self.heard)
        for i, a in enumerate(parts):
            for b in parts[i + 1 :]:
                if a & b and not (a <= b or b <= a):
                    shared = ", ".join(sorted(a & b))
                    raise QueryError(f"{shared} is heard in two overlapping parts; give parts that share no stem")

    @property
    def task(self) -> str:
        """The relation between what is heard and what is wanted: generate, accompany, separate or regenerate."""
        heard = frozenset().union(*self.heard) if self.heard else frozenset()
        if self.span is not None:
            return "regenerate"
        if not heard:
            return "generate"
        return "accompany" if not (heard & self.wanted) else "separate"


def whole_seed(seed: Any) -> int:
    """A seed of any kind of whole number, NumPy's too, as one of Python's. Raises QueryError for anything else."""
    return whole(seed, "the seed")


def whole(number: Any, what: str) -> int:
    """As `whole_seed`, of anything that is counted."""
    try:
        return operator.index(number)
    except TypeError as error:
        raise QueryError(f"{what} is {number!r}; give a whole number") from error
