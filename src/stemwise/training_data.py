"""What a training hears: the data sets of a recipe as a stream of windows, of pairs of sub-mixes, or of piano rolls."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from stemwise import checkpoint
from stemwise.errors import RecipeError
from stemwise.recipe import DataSection, DataSetSection, Recipe
from stemwise.songs.corpus import Corpus, DataSet, gather
from stemwise.songs.grouping import GROUPINGS, REST, group, leaves
from stemwise.songs.pairs import PairOptions, Pairs
from stemwise.songs.phrases import RollOptions, RollSong, RollWindows, roll_songs
from stemwise.songs.song import Song
from stemwise.songs.window import Augmentation, WindowOptions, Windows
from stemwise.symbolic.sets import NoteSets
from stemwise.symbolic.windows import NoteAugmentation, NoteWindows

#: Validation windows and noise are the same in every run, so that runs can be compared.
VALIDATION_SEED = 20_011

Stream = Windows | Pairs | RollWindows | NoteWindows
Material = Corpus | list[RollSong] | NoteSets


def read(recipe: Recipe, notice: Callable[[str], None]) -> tuple[Material, Material | None]:
    """Songs to train on and to validate on; `notice` hears of those left out. Raises SongError."""
    data = recipe.data

    def corpus(sections: Sequence[DataSetSection]) -> Material:
        if data.notes is not None:
            return NoteSets.of([(str(one.path), one.split, one.weight) for one in sections], notice)
        if data.rolls is not None:
            return [song for one in sections for song in roll_songs(one.path, one.split, data.split_seed)]
        sets = [DataSet(one.path, one.split, _regroup(one, data), one.weight) for one in sections]
        return gather(sets, notice, data.split_seed)

    return corpus(data.train), corpus(data.valid) if data.valid else None


def streams(
    recipe: Recipe, module: nn.Module, training: Material, validation: Material | None
) -> tuple[Stream, Stream | None]:
    """The streams of a module: windows of its stems; pairs or rolls where the recipe has `data.pairs` or `data.rolls`.

    Item i is a function of the seed and i alone. Raises RecipeError, SongError.
    """
    data = recipe.data
    if data.notes is not None:
        return _notes(recipe, module, training, validation)
    if not isinstance(training, Corpus) or not (validation is None or isinstance(validation, Corpus)):
        return _rolls(recipe, module, training, validation)
    if hasattr(module, "layout"):
        raise RecipeError(
            f"data.rolls: missing; a model of type {recipe.model.type} learns from rolls (data.rolls={{}})"
        )
    stems, rate, window = checkpoint.shape_of(module)
    frames = data.frames or window
    if isinstance(training, NoteSets):
        assert data.notes is not None and not isinstance(validation, Corpus)
        changes = dataclasses.replace(NoteAugmentation(), **data.notes.augmentation)
        held_out = NoteWindows(validation, frames, VALIDATION_SEED) if validation else None
        return NoteWindows(training, frames, recipe.seed, changes), held_out
    assert not isinstance(validation, NoteSets)
    if data.pairs is not None:
        pairs = PairOptions(
            rate=rate,
            frames=frames,
            channels=data.channels or 1,
            batch=recipe.train.batch,
            per_song=data.pairs.per_song,
            overlap=data.pairs.overlap,
            floor_db=data.floor_db,
            gain_db=data.pairs.gain_db,
            decoy=data.pairs.decoy,
        )
        as_it_is = dataclasses.replace(pairs, gain_db=0.0)
        held_out = Pairs(validation.songs, as_it_is, VALIDATION_SEED, validation.weights) if validation else None
        return Pairs(training.songs, pairs, recipe.seed, training.weights), held_out
    if not stems:
        raise RecipeError(
            f"data.pairs: missing; a model of type {recipe.model.type} learns from pairs (data.pairs={{}})"
        )
    options = WindowOptions(
        names=stems,
        rate=rate,
        frames=frames,
        channels=data.channels or 2,
        min_active=data.min_active,
        floor_db=data.floor_db,
        augmentation=Augmentation(**data.augmentation.model_dump()) if data.augmentation else None,
    )
    still = dataclasses.replace(options, augmentation=None)
    return (
        Windows(training.songs, options, recipe.seed, training.weights),
        Windows(validation.songs, still, VALIDATION_SEED, validation.weights) if validation else None,
    )


def _notes(recipe: Recipe, module: nn.Module, training: Any, validation: Any) -> tuple[Stream, Stream | None]:
    if recipe.model.type != "notes" or recipe.data.notes is None:
        raise RecipeError(f"data.notes: a model of type {recipe.model.type} does not learn from notes; remove it")
    length = recipe.data.frames or checkpoint.shape_of(module)[2]
    changes = dataclasses.replace(NoteAugmentation(), **recipe.data.notes.augmentation)
    held_out = NoteWindows(validation, length, VALIDATION_SEED) if validation else None
    return NoteWindows(training, length, recipe.seed, changes), held_out


def _rolls(recipe: Recipe, module: nn.Module, training: Any, validation: Any) -> tuple[Stream, Stream | None]:
    layout: str | None = getattr(getattr(module, "config", None), "layout", None)
    if layout is None or recipe.data.rolls is None:
        raise RecipeError(f"data.rolls: a model of type {recipe.model.type} does not learn from rolls; remove it")
    length = recipe.data.frames or checkpoint.shape_of(module)[2]
    options = RollOptions(layout, length, **recipe.data.rolls.model_dump())
    still = dataclasses.replace(options, transpose=0, dropout=0.0)
    return (
        RollWindows(training, options, recipe.seed),
        RollWindows(validation, still, VALIDATION_SEED) if validation else None,
    )


def describe(stream: Stream, corpus: Material) -> str:
    """Songs and hours, and what of them is not heard: songs without the stems wanted, stems that the model has not."""
    if isinstance(stream, NoteWindows):
        return f"notes of {len(stream.songs)} songs"
    if isinstance(stream, RollWindows) or not isinstance(corpus, Corpus):
        return f"piano rolls of {len(stream.songs)} songs"
    said = f"{len(stream.songs)} songs ({sum(song.seconds for song in stream.songs) / 3600:.1f} h)"
    left_out = stream.left_out if isinstance(stream, Pairs) else len(corpus.songs) - len(stream.songs)
    if left_out:
        said += f", {left_out} more left out (without {'two stems' if isinstance(stream, Pairs) else 'its stems'})"
    if isinstance(stream, Windows):
        unheard = Counter(name for song in stream.songs for name in song.stems if name not in stream.options.names)
        if unheard:
            named = ", ".join(f"{name} ({count})" for name, count in unheard.most_common(6))
            said += f", stems not heard: {named} (a data set's `stems` and `rest` say where they go)"
    return said


def _regroup(section: DataSetSection, data: DataSection) -> Callable[[Song], Song] | None:
    """Pairs are of all the files that a song has, unless they are grouped."""
    if isinstance(section.stems, int):
        return partial(group, mapping=GROUPINGS[section.stems], rest=REST)
    if section.stems is not None:
        return partial(group, mapping=section.stems, rest=None if section.rest == "drop" else section.rest)
    return leaves if data.pairs is not None else None
