"""A study: songs, systems, a protocol and published relations in one YAML file, so that one command prints a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from stemwise.audio_io.writing import is_file_name
from stemwise.embeddings import load_embedding
from stemwise.errors import ModelError, RecipeError, SongError
from stemwise.evaluate.metrics import metric
from stemwise.evaluate.protocol import Protocol, protocol
from stemwise.evaluate.relations import Relation
from stemwise.evaluate.systems import SystemSection
from stemwise.recipe import Count, Section, mistakes, read_document
from stemwise.songs import Song


class SyntheticSection(Section):
    """Songs of the built-in composer: `count` seeds from `first` on, each of `seconds`, in a set of sounds."""

    first: Annotated[int, Field(ge=0)]
    count: Count
    seconds: Annotated[float, Field(ge=5.0)] = 30.0
    fonts: Literal["train", "validation", "test", "builtin"] = "validation"


class SongsSection(Section):
    """Where the songs are from: a data set's `path`, or `synthetic` ones, which are rendered first.

    `split`: only those of train, validation, test, ... of the data set; `split_seed` as in the recipe of a training.
    """

    path: Path | None = None
    split: str | None = None
    split_seed: Annotated[int, Field(ge=0)] = 0
    synthetic: SyntheticSection | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SongsSection:
        if (self.path is None) == (self.synthetic is None):
            raise ValueError("songs are of a path or synthetic, one of the two")
        if self.path is None and self.split is not None:
            raise ValueError("split goes with a path; synthetic songs have none")
        if self.split is None and self.split_seed:
            raise ValueError("split_seed goes with a split")
        return self


class Study(Section):
    """What is evaluated, on what and how; a file may also hold `quick` and `tables`, see `read_study`.

    `optional`: metrics on embeddings that are measured where the embedding's weights are at hand.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    protocol: Protocol
    songs: SongsSection
    systems: Annotated[list[SystemSection], Field(min_length=1)]
    optional: list[str] = Field(default=[])
    relations: list[Relation] = Field(default=[])


def with_optional(asked: Study, weights: Mapping[str, Path], device: str = "auto") -> tuple[Study, dict[str, str]]:
    """The study with those optional metrics that have weights; and the others, with the reason why not."""
    found, lacking = [], {}
    for name in asked.optional:
        try:
            embedding = metric(name).embedding
            load_embedding(embedding, weights.get(embedding), device)
        except ModelError as error:
            lacking[name] = str(error)
        else:
            found.append(name)
    settled = protocol({**asked.protocol.model_dump(), "metrics": [*asked.protocol.metrics, *found]}, "optional")
    return asked.model_copy(update={"protocol": settled}), lacking


@dataclass(frozen=True)
class Material:
    """The songs of a study: those that can be read, and the others by name with the reason."""

    songs: tuple[Song, ...]
    unreadable: Mapping[str, str]


def read_study(path: Path, quick: bool = False) -> dict[str, dict[str, Any]]:
    """The tables of a study file by name, each the plain values of a study; "" is the one of a file without `tables`.

    `quick` and then each of `tables` are sections that replace others. Raises RecipeError.
    """
    document = read_document(path, Study)
    replaced, tables = (document.pop(name, None) for name in ("quick", "tables"))
    if quick and replaced is None:
        raise RecipeError(f"{path} has no section `quick`")
    if quick:
        document |= _sections(replaced, f"{path}: quick", (*Study.model_fields, "tables"))
        tables = document.pop("tables", tables)
    if tables is None:
        return {"": document}
    if not isinstance(tables, dict) or not tables or not all(map(_is_folder_name, map(str, tables))):
        raise RecipeError(f"{path}: tables holds sections by the name of their table, which is a folder's name")
    return {
        str(name): document | _sections(section, f"{path}: tables.{name}", Study.model_fields)
        for name, section in tables.items()
    }


def _is_folder_name(name: str) -> bool:
    return not name.startswith(".") and is_file_name(name)


def _sections(found: Any, where: str, allowed: Iterable[str]) -> dict[str, Any]:
    if not isinstance(found, dict) or set(found) - {*allowed}:
        raise RecipeError(f"{where} holds sections that replace others: {', '.join(allowed)}")
    return found


def study(document: dict[str, Any], source: str) -> Study:
    """A study from plain values. Raises RecipeError with every mistake, its place and the allowed values."""
    try:
        return Study.model_validate(document)
    except ValidationError as error:
        raise RecipeError("\n".join([f"{source}:", *mistakes(error, Study)])) from error


def material(section: SongsSection, folder: Path) -> Material:
    """The songs; synthetic ones are rendered into `folder` unless they are there. Raises SongError where there is none."""
    from stemwise.songs.layouts import scan_any
    from stemwise.songs.scanning import whole
    from stemwise.songs.splits import split

    if section.synthetic is not None:
        return Material(tuple(_rendered(section.synthetic, folder)), {})
    assert section.path is not None
    found = whole(scan_any(section.path))
    unreadable = {problem.name: problem.reason for problem in found.problems}
    if not found.songs:
        first = next(iter(unreadable.items()), None)
        why = f"; {len(unreadable)} cannot be read, such as {first[0]}: {first[1]}" if first else ""
        raise SongError(f"{section.path}: no songs with stems to evaluate on{why}")
    if section.split is None:
        return Material(found.songs, unreadable)
    try:
        return Material(tuple(split(found.songs, section.split, section.split_seed)), unreadable)
    except SongError as error:
        raise SongError(f"{section.path}: {error}") from error


def _rendered(section: SyntheticSection, folder: Path) -> Sequence[Song]:
    from stemwise.songs.folder import song
    from stemwise.songs.synthetic import write_songs

    seeds = range(section.first, section.first + section.count)
    place = folder / f"{section.fonts}-{section.seconds:g}"
    return [song(path) for path in write_songs(place, seeds, fonts=section.fonts, seconds=section.seconds)]
