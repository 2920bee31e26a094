"""What is asked of every system, and how its answers are measured: all that a figure depends on but system and songs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from stemwise.errors import QueryError, RecipeError
from stemwise.evaluate.metrics import METRICS, metric
from stemwise.recipe import Count, Section, mistakes

Task = Literal["separate", "accompany", "generate"]
Subsets = Literal["leave-one-out", "all", "random"]


class Chunks(Section):
    """How songs are cut: pieces of `seconds` (or exactly `frames`).

    `per_song` pieces at random places with at least `min_active` stems above the floor; without it, all consecutive
    ones, the incomplete end dropped. `joined` measures the answers of a song end to end instead of one by one.
    """

    seconds: Annotated[float, Field(gt=0.0, le=3600.0)] | None = None
    frames: Count | None = None
    per_song: Count | None = None
    min_active: Annotated[int, Field(ge=0)] = 2
    joined: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> Chunks:
        if (self.seconds is None) == (self.frames is None):
            raise ValueError("a chunk's length is seconds or frames, one of the two")
        if self.joined and self.per_song is not None:
            raise ValueError("chunks at random places cannot be joined; leave per_song or joined out")
        return self

    def length(self, rate: int) -> int:
        """In samples at `rate`."""
        return self.frames or max(1, round((self.seconds or 0.0) * rate))


class Protocol(Section):
    """The questions and the ruler.

    Attributes:
        task: separate, accompany or generate.
        metrics: names, see `METRICS`.
        stems: those that are judged; by default all that the songs have.
        given: accompany: which stems are heard, of those above the floor. "leave-one-out": all but one, in turn; "all":
            every non-empty proper subset; "random": one of these for every chunk; or a list of sets, which are heard
            where all of their stems are above the floor.
        rate, channels: songs are brought to these first; by default they stay as they are.
        mixture: separate: the sum of all stems of the song, or of the judged ones alone.
        chunks: how songs are cut; by default they are taken whole.
        floor_db: a stem whose root mean square over the chunk is lower counts as silent (dB full scale).
        pool: a figure is the mean over songs of each song's mean, or the mean over all its windows.
        seed: of chunks, subsets and systems.
    """

    task: Task = "separate"
    metrics: list[str] = Field(default=["si-sdr", "si-sdri"], min_length=1)
    stems: list[str] = Field(default=[])
    given: Subsets | list[list[str]] = "leave-one-out"
    rate: Annotated[int, Field(ge=4000, le=192_000)] | None = None
    channels: Literal[1, 2] | None = None
    mixture: Literal["song", "stems"] = "song"
    chunks: Chunks | None = None
    floor_db: Annotated[float, Field(le=0.0)] = -60.0
    pool: Literal["songs", "windows"] = "songs"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Protocol:
        for name in self.metrics:
            try:
                tasks = metric(name).tasks
            except QueryError as error:
                raise ValueError(str(error)) from error
            if self.task not in tasks:
                allowed = ", ".join(key for key, entry in METRICS.items() if self.task in entry.tasks)
                raise ValueError(
                    f"the metric {name} has no meaning where the task is {self.task}; for it there are: {allowed}"
                )
        if self.task != "accompany" and self.given != "leave-one-out":
            raise ValueError(f"given says what is heard where the task is accompany; the task is {self.task}")
        if self.joined and (self.task != "separate" or any(metric(name).embedding for name in self.metrics)):
            raise ValueError("chunks are joined for separation and its ratios only")
        if len(set(self.metrics)) < len(self.metrics) or len(set(self.stems)) < len(self.stems):
            raise ValueError("metrics and stems are named once each")
        return self

    @property
    def joined(self) -> bool:
        """Whether a song's chunks are measured end to end."""
        return self.chunks is not None and self.chunks.joined

    def active(self, levels: Sequence[float]) -> list[bool]:
        """Which root mean squares are above the floor."""
        return [level > 0 and 20 * math.log10(level) > self.floor_db for level in levels]


#: Protocols of papers. MSDM (Mariani et al. 2024): 2^18 samples at 22 050 Hz, mono, end to end; see the metric.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "msdm": {
        "task": "separate",
        "metrics": ["msdm-si-sdri", "msdm-si-sdri-active"],
        "stems": ["bass", "drums", "guitar", "piano"],
        "rate": 22_050,
        "channels": 1,
        "mixture": "stems",
        "chunks": {"frames": 262_144, "joined": True},
        "pool": "windows",
    },
}


def protocol(document: dict[str, Any], source: str = "protocol") -> Protocol:
    """A protocol from plain values. Raises RecipeError with every mistake and the allowed values."""
    try:
        return Protocol.model_validate(document)
    except ValidationError as error:
        raise RecipeError("\n".join([f"{source}:", *mistakes(error, Protocol)])) from error
