"""Training recipes: a YAML file, checked so that every mistake is named with its place and the allowed values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from stemwise.errors import ModelError, RecipeError, did_you_mean, shown

Count = Annotated[int, Field(ge=1)]
Chance = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Part of a recipe: unknown keys are mistakes, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """Which network: a type of `stemwise.checkpoint.TYPES`, the fields of its configuration, weights to start from.

    `init` is a folder for the whole network; `parts` are folders for parts of it (`codec: runs/melvae/best`): weights, and
    the configuration unless `config` has one.
    """

    type: str
    config: dict[str, Any] = {}
    init: Path | None = None
    parts: dict[str, Path] = {}

    @model_validator(mode="after")
    def _one_start(self) -> ModelSection:
        if self.init is not None and self.parts:
            raise ValueError("init and parts exclude each other: init has the weights of every part; remove one")
        return self


class AugmentationSection(Section):
    """Random changes to training windows; see `stemwise.songs.Augmentation`."""

    gain_db: tuple[float, float] = (-6.0, 6.0)
    swap: Chance = 0.5
    polarity: Chance = 0.5
    remix: Chance = 0.0
    dropout: Chance = 0.0
    mono: Chance = 0.0
    transpose: Annotated[int, Field(ge=0, le=12)] = 0
    equalise_db: Annotated[float, Field(ge=0.0, le=24.0)] = 0.0

    @model_validator(mode="after")
    def _range(self) -> AugmentationSection:
        if self.gain_db[0] > self.gain_db[1]:
            raise ValueError("gain_db is a range [low, high] with low <= high")
        return self


class DataSetSection(Section):
    """A data set: its place in any layout that `stemwise songs verify` knows, or the place alone.

    `split`: only the songs of train, validation, test, ... (published, or by a hash of their names). `stems`: 4, 5 or 6
    (vocals, bass, drums, then guitar, then piano, and other), or new names with the old ones that are added up for
    each; stems that such a mapping does not name go to the stem `rest`, or nowhere where that is "drop". `weight`: how
    often its windows are drawn relative to other sets; without it, every set counts by its length.
    """

    path: Path
    split: str | None = None
    stems: int | dict[str, list[str]] | None = None
    rest: str | None = None
    weight: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _grouping(self) -> DataSetSection:
        if isinstance(self.stems, int) and self.stems not in (4, 5, 6):
            raise ValueError("stems is 4, 5, 6, or a mapping such as {bass: [bass], rhythm: [drums, percussion]}")
        if isinstance(self.stems, dict) and not self.rest:
            raise ValueError("rest: say where stems go that `stems` does not name: rest: other, or rest: drop")
        if isinstance(self.stems, dict):
            olds = [old for names in self.stems.values() for old in names]
            twice = sorted({old for old in olds if olds.count(old) > 1})
            if twice:
                raise ValueError(f"stems: {', '.join(twice)} would be in two stems; name each once")
        if self.rest and not isinstance(self.stems, dict):
            raise ValueError("rest goes with a mapping in stems")
        return self


class MixturesSection(Section):
    """Mixtures with words that describe them, in place of stems; see `stemwise.songs.mixtures`."""


class LatentsSection(Section):
    """Latents of so many `windows`, made once, with their augmentation, and kept in `folder` as float16.

    Steps then need neither songs nor the first half of the codec. The model says of which mixes of the stems.
    """

    folder: Path
    windows: Count = 4096


class PairsSection(Section):
    """Pairs of disjoint sub-mixes of a window, for contrastive training; see `stemwise.songs.PairOptions`."""

    per_song: Count = 1
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    gain_db: Annotated[float, Field(ge=0.0, le=24.0)] = 0.0
    decoy: Literal["none", "key"] = "none"


class RollsSection(Section):
    """Windows of piano rolls, from MIDI files or phrases; see `stemwise.songs.phrases.RollOptions`."""

    min_active: Annotated[int, Field(ge=0)] = 2
    transpose: Annotated[int, Field(ge=0, le=24)] = 0
    dropout: Chance = 0.0


class NotesSection(Section):
    """Windows of notes in place of audio: data sets are folders of MIDI files or composer:FIRST:LAST (seeds).

    `augmentation`: changes to the chances of `stemwise.symbolic.windows.NoteAugmentation`.
    """

    augmentation: dict[str, Annotated[float, Field(ge=0.0)]] = {}

    @model_validator(mode="after")
    def _chances(self) -> NotesSection:
        from stemwise.symbolic.windows import NoteAugmentation

        allowed = [field.name for field in dataclasses.fields(NoteAugmentation)]
        unknown = sorted(set(self.augmentation) - set(allowed))
        if unknown:
            raise ValueError(f"augmentation has no {unknown[0]!r}; allowed: {', '.join(allowed)}")
        return self


def _entries(value: Any) -> Any:
    """A path, a mapping, or a list of both -> a list of mappings."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [{"path": entry} if isinstance(entry, str | Path) else entry for entry in entries]


#: Sections that say what batches hold.
_KINDS = ("mixtures", "latents", "pairs", "rolls", "notes")
#: Fields of `data` that mean nothing to them.
_UNUSED = {
    "pairs": ("min_active",),
    "rolls": ("channels", "min_active", "floor_db"),
    "notes": ("channels", "min_active", "floor_db"),
}

DataSets = Annotated[list[DataSetSection], BeforeValidator(_entries)]


class DataSection(Section):
    """Data sets (places relative to the working folder) and how windows are cut; `frames`: by default the model's.

    Batches hold windows of stems, or one of these kinds, which is what its model learns from: `mixtures`, described in
    words; `latents` kept on disk; `pairs` of sub-mixes; `rolls` of MIDI files, whose data sets have a `path` and a `split`
    only; `notes` of MIDI files. `channels`: of stems by default 2, else 1. `split_seed`: of splits that are not published.
    """

    train: DataSets = Field(min_length=1)
    valid: DataSets = []
    frames: Count | None = None
    channels: Literal[1, 2] | None = None
    min_active: Annotated[int, Field(ge=0)] = 1
    floor_db: Annotated[float, Field(le=0.0)] = -60.0
    split_seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0
    prefetch: Count = 4
    augmentation: AugmentationSection | None = AugmentationSection()
    mixtures: MixturesSection | None = None
    latents: LatentsSection | None = None
    pairs: PairsSection | None = None
    rolls: RollsSection | None = None
    notes: NotesSection | None = None

    @property
    def kind(self) -> str:
        """What batches hold."""
        return next((name for name in _KINDS if getattr(self, name) is not None), "windows")

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, values: Any) -> Any:
        asked = [name for name in _KINDS if isinstance(values, dict) and values.get(name) is not None]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} exclude each other; keep the one that the model learns from")
        if asked and asked[0] not in ("mixtures", "latents"):
            if values.get("augmentation") is not None:
                raise ValueError(f"{asked[0]} are not augmented; remove augmentation, or {asked[0]}")
            return {**values, "augmentation": None}
        return values

    @model_validator(mode="after")
    def _used(self) -> DataSection:
        for field in _UNUSED.get(self.kind, ()):
            default = type(self).model_fields[field].default  # which a complete recipe names, too
            if getattr(self, field) != default:
                own = f"; there is {self.kind}.{field}" if hasattr(getattr(self, self.kind), field) else ""
                raise ValueError(f"{field} means nothing to {self.kind}; remove it{own}")
        if self.mixtures is not None and self.augmentation is not None and self.augmentation.remix:
            raise ValueError("augmentation: remix takes stems from several songs, and mixtures are of one; set it to 0")
        return self

    @model_validator(mode="after")
    def _weights(self) -> DataSection:
        for name, sets in (("train", self.train), ("valid", self.valid)):
            if len({one.weight is None for one in sets}) > 1:
                raise ValueError(f"{name}: give every data set a weight, or none")
            unused = {"rolls": ("weight", "stems", "rest"), "notes": ("stems", "rest")}.get(self.kind, ())
            for field in unused:
                if any(getattr(one, field) is not None for one in sets):
                    raise ValueError(f"{name}: data sets of {self.kind} have no {field}; remove it")
        return self


class OptimSection(Section):
    """Rates rise for `warmup` steps, then `decay`: cosine or square root of what is left (both fall towards `final`
    times the rate), inverse square root of the step, or constant. `clip`: largest norm of the gradient.

    AdamW with `lr`, `betas`; matrices in the parts of the network that `muon` names take Muon with `muon_lr`.
    """

    lr: Annotated[float, Field(gt=0.0)] = 3e-4
    betas: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup: Annotated[int, Field(ge=0)] = 500
    decay: Literal["cosine", "sqrt", "rsqrt", "constant"] = "cosine"
    final: Chance = 0.0
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    muon: list[str] = []
    muon_lr: Annotated[float, Field(gt=0.0)] = 5e-3


class TrainSection(Section):
    """The loop: `batch` windows a process and step; all `..._every` in steps; `ema`: decay of the averaged weights."""

    steps: Count
    batch: Count = 8
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    precision: Literal["auto", "32", "bf16-mixed"] = "auto"
    log_every: Count = 20
    checkpoint_every: Count = 500
    validate_every: Count = 1000
    validate_windows: Count = 32
    keep: Count = 2


class Recipe(Section):
    """A whole recipe. `run` is the folder that a training writes to and resumes from."""

    format: Literal[1]
    name: str = Field(min_length=1)
    run: Path
    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelSection
    data: DataSection
    optim: OptimSection = OptimSection()
    train: TrainSection


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply overrides (`train.steps=100`; values are YAML) and check it.

    The model's configuration comes back complete, with the defaults filled in. Raises RecipeError with every mistake.
    """
    document = read_document(path, Recipe)
    for text in overrides:
        override(document, text)
    return check(document, str(path))


def read_document(path: Path | str, root: type[Section]) -> dict[str, Any]:
    """The YAML mapping in a file that should be a `root`; its values are not checked. Raises RecipeError."""
    import yaml

    file = Path(path)
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read ({error.strerror}); recipes ship in the folder recipes/") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{file}: not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{file}: a recipe is a YAML mapping with {', '.join(root.model_fields)}")
    return document


def check(document: dict[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from plain values. Raises RecipeError with every mistake."""
    from stemwise.checkpoint import build_config

    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError("\n".join([f"{source}:", *mistakes(error, Recipe)])) from error
    try:
        given, parts = recipe.model.config, recipe.model.parts
        taken = {part: _config_of(part, folder) for part, folder in parts.items() if part not in given}
        config = build_config(recipe.model.type, {**taken, **given}, "model.config")
    except ModelError as error:
        text = str(error)
        lines = text if text.startswith(("model.config", "model.parts")) else f"model.type: {text}"
        raise RecipeError(f"{source}:\n{lines}") from error
    complete = recipe.model.model_copy(update={"config": plain(dataclasses.asdict(config))})
    return recipe.model_copy(update={"model": complete})


def _config_of(part: str, folder: Path) -> dict[str, Any]:
    """The configuration in the folder of a part. Raises ModelError with the part's place."""
    from stemwise.checkpoint import read_info

    try:
        return dict(read_info(folder).config)
    except ModelError as error:
        raise ModelError(f"model.parts.{part}: {error}") from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML text that `load_recipe` reads back."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def plain(value: Any) -> Any:
    """The same value with tuples as lists, as YAML and JSON hold it."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def override(document: dict[str, Any], text: str) -> None:
    """Set one value in place: "train.steps=1000", whose right side is YAML. Raises RecipeError."""
    import yaml

    place, equals, value = text.partition("=")
    keys = place.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {text!r}: write it as place=value, such as train.steps=1000")
    at = document
    for key in keys[:-1]:
        inner = at.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"override {text!r}: {key} is a value, not a section")
        at = inner
    try:
        at[keys[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"override {text!r}: the value is not valid YAML: {error}") from error


def mistakes(error: ValidationError, root: type[Section]) -> list[str]:
    """One line for each mistake in a document that should be a `root`: place, what is wrong, what is allowed."""
    return [_mistake(entry, root) for entry in error.errors()]


def _mistake(entry: Any, root: type[Section]) -> str:
    place = ".".join(map(str, entry["loc"])) or "the document"
    if entry["type"] == "extra_forbidden":
        allowed = _fields_at(entry["loc"][:-1], root)
        hint = did_you_mean(str(entry["loc"][-1]), allowed)
        return f"{place}: unknown key{hint}; allowed: {', '.join(allowed)}"
    if entry["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {entry['msg'].removeprefix('Value error, ')} (found {shown(entry['input'])})"


def _fields_at(place: Sequence[Any], root: type[Section]) -> list[str]:
    section: Any = root
    for key in place:
        if isinstance(key, int):
            continue  # an entry of a list
        annotation = section.model_fields[key].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(option for option in options if isinstance(option, type) and issubclass(option, Section))
    return list(section.model_fields)
