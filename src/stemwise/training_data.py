"""What a training hears: the data sets of a recipe as a stream of what its model learns from.

There is one class for each kind of material; a module names its own with `learns_from` ("windows" where it does not). Item
i of a stream is a function of the seed and i alone.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from torch import nn

from stemwise import checkpoint
from stemwise.codecs.roll import LAYOUTS
from stemwise.errors import RecipeError
from stemwise.recipe import DataSetSection, Recipe
from stemwise.songs.corpus import Corpus, DataSet, gather
from stemwise.songs.grouping import GROUPINGS, REST, group, leaves
from stemwise.songs.kept import Kept, fingerprint
from stemwise.songs.mixtures import Mixtures, words_of
from stemwise.songs.pairs import PairOptions, Pairs
from stemwise.songs.phrases import RollOptions, RollSong, RollWindows, roll_songs
from stemwise.songs.scanning import Problem
from stemwise.songs.song import Song
from stemwise.songs.source import identity
from stemwise.songs.window import Augmentation, WindowOptions, Windows
from stemwise.symbolic.sets import NoteSets
from stemwise.symbolic.windows import STILL, NoteAugmentation, NoteWindows

#: Validation windows and noise are the same in every run, so that runs can be compared.
VALIDATION_SEED = 20_011

Stream = Windows | Kept | Mixtures | Pairs | RollWindows | NoteWindows
Songs = TypeVar("Songs", Corpus, list[RollSong], NoteSets)


class Material(ABC, Generic[Songs]):
    """The songs that a recipe trains on and validates on, all of one kind. Raises SongError for what cannot be read."""

    #: The section of `data` in a recipe that asks for this kind; "windows" are what there is without one.
    kind: ClassVar[str]

    def __init__(self, recipe: Recipe, notice: Callable[[str], None]) -> None:
        self.recipe, self._notice = recipe, notice
        self.training: Songs = self._read(recipe.data.train)
        self.validation: Songs | None = self._read(recipe.data.valid) if recipe.data.valid else None

    def streams(self, module: nn.Module) -> tuple[Stream, Stream | None]:
        """What a module trains on, and what it is validated on, unchanged. Raises RecipeError, SongError."""
        wanted = getattr(module, "learns_from", "windows")
        if wanted != self.kind:
            kind = self.recipe.model.type
            raise RecipeError(
                f"data.{self.kind}: a model of type {kind} does not learn from {self.kind}; remove it"
                if wanted == "windows"
                else f"data.{wanted}: missing; a model of type {kind} learns from {wanted} (data.{wanted}={{}})"
            )
        held_out = self._stream(module, self.validation, VALIDATION_SEED, True) if self.validation is not None else None
        return self._stream(module, self.training, self.recipe.seed, False), held_out

    @abstractmethod
    def describe(self, stream: Stream) -> str:
        """Songs and hours of the training stream, and what is not heard of them."""

    @abstractmethod
    def _read(self, sections: Sequence[DataSetSection]) -> Songs: ...

    @abstractmethod
    def _stream(self, module: nn.Module, songs: Songs, seed: int, still: bool) -> Stream: ...

    def _frames(self, module: nn.Module) -> int:
        """Length of a window: the recipe's, or the model's own."""
        return self.recipe.data.frames or checkpoint.shape_of(module)[2]


class WindowMaterial(Material[Corpus]):
    """Windows of stems: float32 (stem, channel, frames)."""

    kind = "windows"

    def describe(self, stream: Stream) -> str:
        """Also stems that the model has not."""
        assert isinstance(stream, Windows)
        said = _heard(stream)
        left_out = len(self.training.songs) - len(stream.songs)
        if left_out:
            said += f", {left_out} more left out (without its stems)"
        unheard = Counter(name for song in stream.songs for name in song.stems if name not in stream.options.names)
        if unheard:
            named = ", ".join(f"{name} ({count})" for name, count in unheard.most_common(6))
            said += f", stems not heard: {named} (a data set's `stems` and `rest` say where they go)"
        return said

    def _read(self, sections: Sequence[DataSetSection]) -> Corpus:
        sets = [DataSet(one.path, one.split, self._regroup(one), _renamed(one), one.weight) for one in sections]
        return gather(sets, self._notice, self.recipe.data.split_seed)

    def _regroup(self, section: DataSetSection) -> Callable[[Song], Song] | None:
        if isinstance(section.stems, int):
            return partial(group, mapping=GROUPINGS[section.stems], rest=REST)
        if section.stems is not None:
            return partial(group, mapping=section.stems, rest=None if section.rest == "drop" else section.rest)
        return None

    def _stream(self, module: nn.Module, songs: Corpus, seed: int, still: bool) -> Stream:
        options = self._options(module, still)
        useful = songs.having(lambda song: any(map(song.has, options.names)))
        stream = Windows(useful.songs, options, seed, useful.weights)
        self._check_active((filter(song.has, options.names) for song in stream.songs), still)
        return stream

    def _check_active(self, heard: Iterable[Iterable[str]], still: bool) -> None:
        """Raise RecipeError where no song has `min_active` of the names that are heard: every window would be drawn in vain."""
        data, each = self.recipe.data, list(map(set, heard))
        remixed = data.augmentation is not None and data.augmentation.remix > 0
        most = len(set().union(*each)) if remixed else max(map(len, each))
        if data.min_active > most:
            raise RecipeError(
                f"data.min_active: is {data.min_active}, but the songs of data.{'valid' if still else 'train'} have at most "
                f"{most} of what the model hears; lower it, or give songs with more stems"
            )

    def _options(self, module: nn.Module, still: bool) -> WindowOptions:
        data, (names, rate, _) = self.recipe.data, checkpoint.shape_of(module)
        changes = Augmentation(**data.augmentation.model_dump()) if data.augmentation and not still else None
        return WindowOptions(
            names=names,
            rate=rate,
            frames=self._frames(module),
            channels=data.channels or 2,
            min_active=data.min_active,
            floor_db=data.floor_db,
            augmentation=changes,
        )


class MixtureMaterial(WindowMaterial):
    """Windows of mixtures with words that describe them: {"mixture": float32 (channel, frames), "told": bool (word,)}."""

    kind = "mixtures"

    def describe(self, stream: Stream) -> str:
        """Songs and hours."""
        assert isinstance(stream, Mixtures)
        left_out = len(self.training.songs) - len(stream.songs)
        return f"mixtures of {_heard(stream)}" + (
            f", {left_out} more left out (none of its words describes them)" if left_out else ""
        )

    def _stream(self, module: nn.Module, songs: Corpus, seed: int, still: bool) -> Stream:
        options = self._options(module, still)
        one = dataclasses.replace(options, channels=self.recipe.data.channels or 1)
        useful = songs.having(lambda song: not words_of(song).isdisjoint(one.names))
        stream = Mixtures(useful.songs, one, seed, useful.weights)
        self._check_active((words_of(song).intersection(one.names) for song in stream.songs), still)
        return stream


class LatentMaterial(WindowMaterial):
    """Latents of mixes of the stems of windows, kept on disk: float16 (mix, channel, time', mel').

    For modules that learn from windows and have `submixes(stems)`, and a `codec` on which these depend.
    """

    kind = "latents"

    def streams(self, module: nn.Module) -> tuple[Stream, Stream | None]:
        """As of windows. Raises RecipeError for a module that keeps no latents."""
        if not hasattr(module, "submixes"):
            raise RecipeError(f"data.latents: a model of type {self.recipe.model.type} keeps no latents; remove it")
        held_out = self._stream(module, self.validation, VALIDATION_SEED, True) if self.validation is not None else None
        return self._stream(module, self.training, self.recipe.seed, False), held_out

    def describe(self, stream: Stream) -> str:
        """Where they are, and of what."""
        assert isinstance(stream, Kept)
        return f"latents of {stream.count} windows in {stream.folder} of {super().describe(stream.source)}"

    def _stream(self, module: nn.Module, songs: Corpus, seed: int, still: bool) -> Stream:
        data, plan = self.recipe.data.latents, self.recipe.train
        assert data is not None
        source: Any = super()._stream(module, songs, seed, still)
        codec: Any = module.get_submodule("codec") if hasattr(module, "codec") else module.get_submodule("base.codec")
        songs_are = [
            (song.name, song.frames, [(name, [identity(file) for file in files]) for name, files in song.stems.items()])
            for song in source.songs
        ]
        told: Any = getattr(module.config, "base", module.config)
        floor = getattr(told, "floor_db", source.options.floor_db)  # below which a stem is in no mix
        asked = (self.recipe.model.type, source.options, floor, seed, songs.weights)
        folder = data.folder / fingerprint(codec, codec.config, asked, songs_are)
        device = next(module.parameters()).device

        def change(stems: Any) -> Any:
            return module.submixes(stems.to(device))  # type: ignore[operator]

        return Kept(source, change, folder, plan.validate_windows if still else data.windows, seed)


class PairMaterial(WindowMaterial):
    """Pairs of disjoint sub-mixes of one window, and a decoy; of all files that a song has, unless they are grouped."""

    kind = "pairs"

    def describe(self, stream: Stream) -> str:
        """Songs and hours."""
        assert isinstance(stream, Pairs)
        left_out = sum(len(song.stems) < 2 for song in self.training.songs)
        return _heard(stream) + (f", {left_out} more left out (without two stems)" if left_out else "")

    def _regroup(self, section: DataSetSection) -> Callable[[Song], Song] | None:
        return super()._regroup(section) or leaves

    def _stream(self, module: nn.Module, songs: Corpus, seed: int, still: bool) -> Stream:
        data = self.recipe.data
        assert data.pairs is not None
        options = PairOptions(
            rate=checkpoint.shape_of(module)[1],
            frames=self._frames(module),
            channels=data.channels or 1,
            batch=self.recipe.train.batch,
            floor_db=data.floor_db,
            **{**data.pairs.model_dump(), **({"gain_db": 0.0} if still else {})},
        )
        useful = songs.having(lambda song: len(song.stems) > 1)
        return Pairs(useful.songs, options, seed, useful.weights, useful.origins)


class RollMaterial(Material[list[RollSong]]):
    """Windows of piano rolls: uint8 (stem + 1, time, pitch), see `songs.phrases`."""

    kind = "rolls"

    def describe(self, stream: Stream) -> str:
        """Songs."""
        return f"piano rolls of {_songs(len(self.training))}"

    def _read(self, sections: Sequence[DataSetSection]) -> list[RollSong]:
        seed = self.recipe.data.split_seed

        def tell(problem: Problem) -> None:
            self._notice(f"left out: {problem.name} {problem.reason}")

        return [song for one in sections for song in roll_songs(one.path, one.split, seed, tell)]

    def _stream(self, module: nn.Module, songs: list[RollSong], seed: int, still: bool) -> Stream:
        assert self.recipe.data.rolls is not None
        layout = getattr(module.config, "layout")  # noqa: B009 - a module's attributes are not typed
        options = RollOptions(layout, self._frames(module), **self.recipe.data.rolls.model_dump())
        most = len(LAYOUTS[layout].stems)
        if options.min_active > most:
            raise RecipeError(
                f"data.rolls.min_active: is {options.min_active}, but the layout {layout!r} has {most} stems; lower it"
            )
        return RollWindows(songs, dataclasses.replace(options, transpose=0, dropout=0.0) if still else options, seed)


class NoteMaterial(Material[NoteSets]):
    """Windows of notes: float32 (note, column), see `symbolic.windows`."""

    kind = "notes"

    def describe(self, stream: Stream) -> str:
        """Songs."""
        return f"notes of {_songs(len(self.training))}"

    def _read(self, sections: Sequence[DataSetSection]) -> NoteSets:
        entries = [(str(one.path), one.split, one.weight) for one in sections]
        return NoteSets.of(entries, self._notice, self.recipe.data.split_seed)

    def _stream(self, module: nn.Module, songs: NoteSets, seed: int, still: bool) -> Stream:
        assert self.recipe.data.notes is not None
        changes = dataclasses.replace(NoteAugmentation(), **self.recipe.data.notes.augmentation)
        return NoteWindows(songs, self._frames(module), seed, STILL if still else changes)


KINDS: dict[str, type[Material[Any]]] = {
    one.kind: one for one in (WindowMaterial, MixtureMaterial, LatentMaterial, PairMaterial, RollMaterial, NoteMaterial)
}


def read(recipe: Recipe, notice: Callable[[str], None]) -> Material[Any]:
    """The songs of a recipe, as the kind of material that it asks for; `notice` hears of those left out. Raises SongError."""
    return KINDS[recipe.data.kind](recipe, notice)


def _renamed(section: DataSetSection) -> tuple[str, ...]:
    """The old names of a recipe's own mapping; the field's groupings name what a data set may lack."""
    mapping = section.stems if isinstance(section.stems, dict) else {}
    return tuple(old for olds in mapping.values() for old in olds)


def _songs(count: int) -> str:
    return f"{count} song{'' if count == 1 else 's'}"


def _heard(stream: Windows | Mixtures | Pairs) -> str:
    """How many songs and hours, and how many of the songs do not fill a window."""
    window = stream.options.frames / stream.options.rate
    short = sum(song.seconds < window for song in stream.songs)
    return f"{_songs(len(stream.songs))} ({sum(song.seconds for song in stream.songs) / 3600:.1f} h)" + (
        f", {short} of them padded with silence (shorter than the {window:.1f} s of a window)" if short else ""
    )
