"""Sources that are described in words: what GMSDI is asked for, whatever its prior is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stemwise.errors import QueryError
from stemwise.systems.prompts import Prompt

#: The source that is whatever the others leave.
REST = "rest"


@dataclass(frozen=True)
class Sources:
    """Names and words of sources; `weight` is the guidance away from `negative` words, by default those of the others."""

    described: tuple[tuple[str, tuple[str, ...]], ...]
    negative: tuple[str, ...] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        self.prompts()  # words that are wanted and unwanted are found here, not in the middle of a song

    def asked(
        self,
        *,
        known: Sequence[str] | None,
        stems: Sequence[str] | None = None,
        negative: Sequence[str] | None = None,
        guidance: float | None = None,
    ) -> Sources:
        """Of other descriptions (see `described`), away from other words; a guidance of 2 unless they say or had another."""
        weight = guidance if guidance is not None else 2.0 if negative and self.weight == 1 else self.weight
        return Sources(
            self.described if stems is None else described(stems, known),
            self.negative if negative is None else tuple(negative),
            weight,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(name for name, _ in self.described)

    def words(self, names: Iterable[str]) -> tuple[str, ...]:
        """All words of some sources, each once."""
        table = dict(self.described)
        return tuple(dict.fromkeys(word for name in names for word in table[name]))

    def every(self) -> tuple[str, ...]:
        """All words that are wanted or unwanted."""
        return (*self.words(self.names), *(self.negative or ()))

    def prompts(self, playing: Sequence[str] | None = None) -> list[Prompt]:
        """A prompt for each source that plays (all). Negatives of a source are words of the others that play, unless there
        are words for that.
        """
        playing = self.names if playing is None else playing
        made = []
        for name, words in self.described:
            if name in playing:
                others = self.words(other for other in playing if other != name)
                against = self.negative if self.negative is not None else tuple(w for w in others if w not in words)
                made.append(Prompt(words, against if self.weight != 1 else (), self.weight))
        return made


def described(stems: Sequence[str], known: Sequence[str] | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Names and words of sources from descriptions: "slap bass" becomes "slap-bass" and its words.

    A description is one known word, or several that are known, or, for a text encoder (`known` may be None), any text. `REST`
    has no words: it is what nobody described. Raises QueryError for two of the same name.
    """
    sources: dict[str, tuple[str, ...]] = {}
    for stem in stems:
        name, words = "-".join(stem.split()), tuple(stem.split())
        if not name or name in sources:
            raise QueryError(
                f"{'a stem has no words' if not name else f'{name} is asked for twice'}; describe each stem once"
            )
        several = known is not None and stem not in known and len(words) > 1 and set(words) <= set(known)
        sources[name] = () if name == REST else words if several else (stem,)
    return tuple(sources.items())
