"""Models on disk: a folder with `config.json` and `model.safetensors`. Reading one never executes code from a file.

`config.json` names a type; the one closed table below says which class that is. A config never holds an import path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import struct
import threading
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stemwise.errors import ModelError, did_you_mean, shown
from stemwise.files import read_json, write_atomically

FORMAT = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"

#: type name -> (module, class, class of its configuration); imported only when asked for.
TYPES: dict[str, tuple[str, str, str]] = {
    "band": ("stemwise.systems.band", "Band", "BandConfig"),
    "msdm": ("stemwise.systems.msdm", "Msdm", "MsdmConfig"),
    "msdm-weak": ("stemwise.systems.msdm", "WeakMsdm", "MsdmConfig"),
    "msgld": ("stemwise.systems.msgld", "Msgld", "MsgldConfig"),
    "audioldm2": ("stemwise.systems.componet_base", "AudioLdm2", "AudioLdm2Config"),
    "componet": ("stemwise.systems.componet", "Componet", "ComponetConfig"),
    "gmsdi": ("stemwise.systems.gmsdi", "Gmsdi", "GmsdiConfig"),
    "melvae": ("stemwise.codecs.melvae", "MelVae", "MelVaeConfig"),
    "cocola": ("stemwise.coherence.cocola", "Cocola", "CocolaConfig"),
    "notes": ("stemwise.systems.notes", "NoteAssigner", "NotesConfig"),
    "mixture2music": ("stemwise.systems.mixture2music", "Mixture2Music", "Mixture2MusicConfig"),
    "rolls": ("stemwise.systems.rolls", "RollPrior", "RollPriorConfig"),
    "vggish": ("stemwise.nets.vggish", "Vggish", "VggishConfig"),
}


@dataclass(frozen=True)
class ModelInfo:
    """What `config.json` says; `config` holds the fields of the type's configuration, rate in Hz, window in frames."""

    type: str
    config: Mapping[str, Any]
    stems: tuple[str, ...]
    rate: int
    window: int
    dtype: str = "float32"
    metadata: Mapping[str, Any] = field(default_factory=dict)


_BUILDING = threading.RLock()
"""Libraries that import their parts when they are first asked for are not safe for threads."""


def build(kind: str, values: Mapping[str, Any], place: str = "config") -> nn.Module:
    """A fresh module of a type in the table. Raises ModelError with each mistake, prefixed by `place`."""
    config = build_config(kind, values, place)
    module, name, _ = TYPES[kind]
    with _BUILDING:
        built = getattr(importlib.import_module(module), name)(config)
    assert isinstance(built, nn.Module)
    return built


def build_config(kind: str, values: Mapping[str, Any], place: str = "config") -> Any:
    """The configuration object of a type, from plain values as JSON or YAML hold them. Raises ModelError as `build`."""
    if kind not in TYPES:
        raise ModelError(f"unknown model type {kind!r}; allowed: {', '.join(sorted(TYPES))}{did_you_mean(kind, TYPES)}")
    module, _, name = TYPES[kind]
    cls = getattr(importlib.import_module(module), name)
    known, mistakes = _known_fields(cls, values, place)
    return _validated(cls, known, place, mistakes)


def type_of(module: nn.Module) -> str:
    """The table's name for a module's class. Raises ModelError if it has none."""
    cls = type(module)
    for kind, (path, name, _) in TYPES.items():
        if getattr(importlib.import_module(path), name) is cls:
            return kind
    raise ModelError(f"a {cls.__qualname__} cannot be stored as a model; types that can: {', '.join(sorted(TYPES))}")


def shape_of(module: nn.Module) -> tuple[tuple[str, ...], int, int]:
    """Stem names, rate (Hz) and window (frames) of a module, from its attributes or from those of its `config`."""
    stems, rate, window = (
        getattr(module, name) if hasattr(module, name) else getattr(module.config, name)
        for name in ("stems", "rate", "window")
    )
    return tuple(stems), int(rate), int(window)


def save_model(
    folder: Path | str,
    module: nn.Module,
    *,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a module (its `config`, a dataclass, has or is beside `stems`, `rate`, `window`) to a folder.

    Each file appears whole, the configuration last: a new folder that a kill left incomplete has none, and nothing takes it
    for a model. Of a model that is there, weights and configuration are replaced, nothing else; a kill between the two leaves
    new weights under the old metadata where the rest is the same (a training's `best`), no configuration where it is not.
    `dtype` is the type in which float32 tensors are stored (float32, float16 or bfloat16); loading gives float32 again.
    `metadata` is plain data for people (what it was trained on, at which step). Returns the folder.
    """
    from safetensors.torch import save

    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ModelError(f"weights cannot be stored as {dtype}; choose float32, float16 or bfloat16")
    kind, (stems, rate, window) = type_of(module), shape_of(module)
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in module.state_dict().items()}
    document = {
        "format": FORMAT,
        "type": kind,
        "config": dataclasses.asdict(module.config),  # type: ignore[call-overload]
        "stems": stems,
        "rate": rate,
        "window": window,
        "dtype": str(dtype).removeprefix("torch."),
        "metadata": dict(metadata or {}),
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    text, before = json.dumps(document, indent=2) + "\n", target / CONFIG
    if before.is_file() and not _same_but_metadata(before.read_text(encoding="utf-8", errors="replace"), text):
        before.unlink()  # it would say what the new weights are not
    write_atomically(target / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_atomically(target / CONFIG, text.encode())
    return target


def load_model(folder: Path | str) -> nn.Module:
    """The module in a model folder, ready to evaluate, float32 on the CPU. Raises ModelError."""
    info, weights = read_info(folder), Path(folder) / WEIGHTS
    _check_is_safetensors(weights)
    try:
        most = 4 * weights.stat().st_size + 1_000_000  # some are replaced while a network is built
        # what is drawn meanwhile is replaced by what is stored, so the program's own draws stay as they were
        with _BUILDING, torch.random.fork_rng(devices=[]), _at_most(most):
            module = build(info.type, info.config)
    except ModelError as error:
        raise ModelError(f"{Path(folder) / CONFIG}: {error}") from error
    except (ArithmeticError, AssertionError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{Path(folder) / CONFIG}: no {info.type} can be built from its config ({reason}); export the model again"
        ) from error
    for name, stated, own in zip(("stems", "rate", "window"), (info.stems, info.rate, info.window), shape_of(module)):
        if stated != own:
            raise ModelError(
                f"{Path(folder) / CONFIG}: {name} is {stated}, expected {own} as in its config; export the model again"
            )
    load_weights(module, folder)
    return module.float().eval()


def load_weights(module: nn.Module, folder: Path | str) -> None:
    """Copy the weights of a model folder into a module. Raises ModelError naming the tensors that do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(folder) / WEIGHTS
    _check_is_safetensors(file)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file}: damaged or cut short ({error}); copy or download it again") from error
    misfits = differences(module, tensors)
    if misfits:
        raise ModelError(f"{file}: {misfits}\nuse the {CONFIG} and {WEIGHTS} that were exported together")
    module.load_state_dict(tensors)


def differences(module: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """How tensors differ from what a module holds, in names and shapes, as lines for a person; empty if they fit."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    lines = [f"{name}: missing, expected shape {expected[name]}" for name in expected if name not in found]
    lines += [f"{name}: surplus, found shape {found[name]}" for name in found if name not in expected]
    lines += [
        f"{name}: expected shape {expected[name]}, found {found[name]}"
        for name in expected
        if name in found and expected[name] != found[name]
    ]
    if not lines:
        return ""
    more = [f"and {len(lines) - 12} more"] if len(lines) > 12 else []
    shown = "\n  ".join(lines[:12] + more)
    return f"{len(lines)} tensor(s) do not fit the configuration:\n  {shown}"


def read_info(folder: Path | str) -> ModelInfo:
    """What a model folder says about itself, without reading its weights. Raises ModelError."""
    path = Path(folder)
    if not path.is_dir():
        problem = "is a file, not a model folder" if path.exists() else "no such model folder"
        raise ModelError(f"{path}: {problem}; it must hold {CONFIG} and {WEIGHTS}")
    file = path / CONFIG
    if not file.is_file():
        raise ModelError(f"{path}: {CONFIG} is missing; a model folder holds {CONFIG} and {WEIGHTS}")
    try:
        document = read_json(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not valid JSON ({error}); export the model again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise ModelError(
            f"{file}: format {found!r}, expected {FORMAT}; is it a stemwise model? A newer one needs a newer stemwise"
        )
    kind = str(document.get("type"))
    if kind not in TYPES:
        allowed = ", ".join(sorted(TYPES))
        raise ModelError(f"{file}: unknown model type {kind!r}; allowed: {allowed}{did_you_mean(kind, TYPES)}")
    try:
        return ModelInfo(
            type=document["type"],
            config=dict(document["config"]),
            stems=tuple(document["stems"]),
            rate=int(document["rate"]),
            window=int(document["window"]),
            dtype=str(document.get("dtype", "float32")),
            metadata=dict(document.get("metadata", {})),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{file}: field missing or of the wrong kind ({error!r}); export the model again") from error


@contextlib.contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Stop a network that has more parameters than that while it is built, before they take memory. Raises ModelError."""
    builder, left = threading.get_ident(), numbers

    def count(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None and threading.get_ident() == builder:
            left -= parameter.numel()
            if left < 0:
                raise ModelError(f"config: describes a larger network than {WEIGHTS} holds; export the model again")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _same_but_metadata(before: str, after: str) -> bool:
    """Whether two documents as `save_model` writes them, metadata last, are the same but for that."""
    mark = '\n  "metadata": '
    return before.partition(mark)[0] == after.partition(mark)[0]


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    stored = tensor.to(dtype) if tensor.dtype == torch.float32 else tensor
    if stored.is_floating_point() and not torch.isfinite(stored).all():
        raise ModelError(f"tensor {name} is not finite as {stored.dtype}; store as float32, or the training diverged")
    return stored.clone(memory_format=torch.contiguous_format)


def _check_is_safetensors(file: Path) -> None:
    """Refuse by its first bytes what is not safetensors; above all a pickle, which would run code when loaded."""
    if not file.is_file():
        raise ModelError(f"{file.parent}: {file.name} is missing; a model folder holds {CONFIG} and {WEIGHTS}")
    size = file.stat().st_size
    with open(file, "rb") as handle:
        head = handle.read(9)
    # A header of safetensors may begin with the byte of a pickle, but then JSON follows its length.
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[8:9] != b"{"):
        raise ModelError(
            f"{file}: this is a pickle (a torch.save file), which could run code when loaded, so it is refused; "
            "ask its author for safetensors, or export it with `stemwise export`"
        )
    if len(head) < 9 or head[8:9] != b"{":
        raise ModelError(f"{file}: not a safetensors file ({size} bytes); copy or download it again")
    if 8 + struct.unpack("<Q", head[:8])[0] > size:
        raise ModelError(f"{file}: cut short ({size} bytes, its header alone is longer); copy or download it again")


def _known_fields(cls: type, values: Mapping[str, Any], place: str) -> tuple[dict[str, Any], list[str]]:
    """The values that a dataclass (and the dataclasses in it) has fields for, and a line for each that it has not."""
    hints = typing.get_type_hints(cls)
    allowed = [entry.name for entry in dataclasses.fields(cls)]
    known: dict[str, Any] = {}
    mistakes: list[str] = []
    for key, value in values.items():
        if key not in allowed:
            near = did_you_mean(str(key), allowed)
            mistakes.append(f"{place}.{key}: unknown field{near}; allowed: {', '.join(allowed)}")
        elif (section := _section(hints[key], value)) is not None:
            known[key], inner = _known_fields(section, value, f"{place}.{key}")
            mistakes += inner
            if section is not hints[key]:  # of several, lest one that takes anything hides the mistakes in another
                known[key] = _validated(section, known[key], f"{place}.{key}", mistakes)
        else:
            known[key] = value
    return known, mistakes


def _validated(cls: type, values: Mapping[str, Any], place: str, mistakes: list[str]) -> Any:
    """An object of a dataclass. Raises ModelError with its mistakes, after those that are known."""
    from pydantic import TypeAdapter, ValidationError

    found = list(mistakes)
    try:
        made: Any = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        for entry in error.errors():
            where = ".".join([place, *map(str, entry["loc"])])
            found.append(f"{where}: {entry['msg']} (found {shown(entry['input'])})")
    if found:
        raise ModelError("\n".join(found))
    return made


def _section(hint: Any, value: Any) -> type | None:
    """The dataclass that a mapping is meant for; of several that a field allows, the one that shares most names with it."""
    options = [cls for cls in (hint, *typing.get_args(hint)) if isinstance(cls, type) and dataclasses.is_dataclass(cls)]
    if not options or not isinstance(value, Mapping):
        return None
    return max(options, key=lambda cls: len({entry.name for entry in dataclasses.fields(cls)} & set(value)))
