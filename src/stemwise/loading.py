"""From a name or a folder to a model on a device."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stemwise.errors import ModelError, QueryError, did_you_mean
from stemwise.extras import needed
from stemwise.model import Model

if TYPE_CHECKING:
    from stemwise.checkpoint import ModelInfo
    from stemwise.coherence.cocola import Cocola
    from stemwise.note_model import NoteModel
    from stemwise.systems.roll_system import RollSystem
    from stemwise.systems.system import System

BUNDLED = Path(__file__).parent / "weights"
_NO_STEMS = ("cocola", "notes", "rolls")
"""Types of bundled models that do not work on stems of audio."""


def models() -> list[str]:
    """Names of the models that ship with the package and that `load` opens."""
    from stemwise.checkpoint import read_info

    return [name for name in bundled() if read_info(BUNDLED / name).type not in _NO_STEMS]


def bundled() -> list[str]:
    """Names of all that ships with the package: `models`, and what `load_notes`, `load_coherence` and `load_rolls` open."""
    return (
        sorted(folder.name for folder in BUNDLED.iterdir() if (folder / "config.json").is_file())
        if BUNDLED.is_dir()
        else []
    )


def load(name: str | Path = "band", device: str = "auto", precision: str = "auto", **wishes: Any) -> Model:
    """A bundled model by name, or any model folder by path. Raises `ModelError` with the names there are.

    `precision` is that of the network: "float32", "bfloat16", or "auto", bfloat16 where the device has it natively
    (the answers of the two differ by about -40 dB). The folder of a text-to-audio pipeline of diffusers is a model, too, whose
    stems are described in words (`LatentGmsdi`). What some models take besides (None: their own): `phase` ("mixture" or
    "vocoder", see `MsgldSystem`); `stems` (descriptions of the sources, "rest" for all others), `negative` (words), `guidance`
    (2 where there are negative words; of a latent model see `LatentSampling`, `ComponetSampling`), `gamma`, `likelihood` (see
    `GmsdiSystem`), `candidates`; `strength`, `start`, `end` (see `ComponetSampling`).
    """
    from stemwise.checkpoint import load_model, read_info

    folder, place = folder_of(name), pick_device(device)
    evaluated_in = pick_precision(precision, place)
    facts: dict[str, Any] = {}
    if is_pipeline(folder):
        if precision not in ("auto", "float32"):
            raise QueryError(f"precision is {precision}; a pipeline is evaluated in float32, as it was stored")
        system = _pipeline(folder, place)
    else:
        module = load_model(folder).requires_grad_(False)
        facts = dict(read_info(folder).metadata)
        system = _system(module.to(place), evaluated_in, folder)
    asked = {wish: value for wish, value in wishes.items() if value is not None}
    if asked:
        system = _wished(system, asked, str(name))
    return Model(name_of(folder), system, place, folder, facts)


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is that of a pipeline of diffusers, not a model folder."""
    return (folder / "model_index.json").is_file()


def about(name: str | Path) -> ModelInfo:
    """What a model's `config.json` says; of a pipeline, what kind it is. Raises `ModelError`."""
    from stemwise.checkpoint import ModelInfo, read_info

    folder = folder_of(name)
    return ModelInfo("pipeline", {}, (), 0, 0) if is_pipeline(folder) else read_info(folder)


def _pipeline(folder: Path, place: torch.device) -> System:
    from stemwise.systems.latent_gmsdi import LatentGmsdi
    from stemwise.systems.sources import Sources, described
    from stemwise.systems.text_to_audio import text_to_audio

    band = Sources(described(("bass", "drums", "guitar", "piano"), None))
    return LatentGmsdi(text_to_audio(folder).to(place), band)


def _system(module: nn.Module, precision: torch.dtype, folder: Path) -> System:
    """What answers with these weights. Raises `ModelError` for weights of another kind."""
    from stemwise.systems.band import Band
    from stemwise.systems.band_system import BandSystem
    from stemwise.systems.componet import Componet
    from stemwise.systems.componet_base import AudioLdm2
    from stemwise.systems.componet_system import ComponetSystem
    from stemwise.systems.gmsdi import Gmsdi
    from stemwise.systems.gmsdi_system import GmsdiSystem
    from stemwise.systems.joint import Joint
    from stemwise.systems.mixture2music import Mixture2Music
    from stemwise.systems.msdm import Msdm, WeakMsdm
    from stemwise.systems.msgld import Msgld
    from stemwise.systems.msgld_system import MsgldSystem
    from stemwise.systems.notes import NoteAssigner
    from stemwise.systems.rolls import RollPrior

    if isinstance(module, Band):
        return BandSystem(module, precision)
    if isinstance(module, Msdm | WeakMsdm):
        return Joint.of(module, precision)
    if isinstance(module, Msgld):
        return MsgldSystem(module, precision)
    if isinstance(module, Gmsdi):
        return GmsdiSystem.of(module, precision)
    if isinstance(module, Componet):
        return ComponetSystem(module, precision)
    if isinstance(module, AudioLdm2):
        raise ModelError(
            f"{folder}: a text-to-audio model, which hears nothing; train an adapter of it (recipes/componet-*.yaml)"
        )
    if isinstance(module, NoteAssigner):
        raise ModelError(
            f"{folder}: this model is for MIDI files, not for audio; give a .mid file (in Python: stemwise.load_notes()), or "
            "another model"
        )
    if isinstance(module, RollPrior | Mixture2Music):
        raise ModelError(
            f"{folder}: a model of piano rolls; use it with --midi or MIDI files, or give a model of audio"
        )
    raise ModelError(f"{folder}: a {type(module).__name__} is not a model of stems; give the folder of one")


def _wished(system: System, wishes: Mapping[str, Any], name: str) -> System:
    """The system with what was asked of it. Raises `QueryError` for what it does not take."""
    foreign = [wish for wish in wishes if wish not in system.takes]
    words = next((wish for wish in foreign if wish in ("stems", "negative")), None)
    if words is not None:
        raise QueryError(
            f"the model {name} hears no words ({words}); its stems are {', '.join(system.names)}: "
            "choose among them by name, or give a model that hears words (gmsdi-band, or a text-to-audio pipeline)"
        )
    if foreign:
        allowed = f"it takes {', '.join(system.takes)}" if system.takes else "leave it away"
        asked = "start or end (--acts)" if foreign[0] in ("start", "end") else foreign[0]
        raise QueryError(f"the model {name} takes no {asked}; {allowed}")
    for wish, value in wishes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise QueryError(f"{wish} is {value}; give a finite number")
    return system.asked(**wishes)


def load_notes(name: str | Path = "notes", device: str = "auto") -> NoteModel:
    """What gives the notes of MIDI files back to their instruments: a bundled model by name, or a model folder."""
    from stemwise.checkpoint import read_info
    from stemwise.note_model import NoteModel
    from stemwise.systems.notes import NoteAssigner

    needed("symusic", "midi")
    folder, place = folder_of(name), pick_device(device)
    assigner = _opened(folder, place, NoteAssigner, "does not assign notes; give the folder of a model of notes")
    return NoteModel(name_of(folder), assigner, place, folder, dict(read_info(folder).metadata))


def load_coherence(name: str | Path = "cocola", device: str = "auto") -> Cocola:
    """The encoder behind a coherence score: a bundled one by name, or a model folder. Raises `ModelError`."""
    from stemwise.coherence.cocola import Cocola

    return _opened(
        folder_of(name), pick_device(device), Cocola, "does not score coherence; give the folder of a COCOLA"
    )


def load_rolls(name: str | Path = "rolls", device: str = "auto") -> RollSystem:
    """What separates and makes piano rolls: a bundled prior by name, or a model folder. Raises `ModelError`."""
    from stemwise.systems.mixture2music import Mixture2Music
    from stemwise.systems.roll_system import RollSystem
    from stemwise.systems.rolls import RollPrior

    no_rolls = "knows no piano rolls; give the folder of a prior of rolls"
    return RollSystem(_opened(folder_of(name), pick_device(device), RollPrior | Mixture2Music, no_rolls))


def _opened(folder: Path, place: torch.device, kind: Any, otherwise: str) -> Any:
    """The weights in a folder, to be evaluated there. Raises `ModelError`, ending with `otherwise`, for those of another kind."""
    from stemwise.checkpoint import load_model

    module = load_model(folder)
    if not isinstance(module, kind):
        raise ModelError(f"{folder}: a {type(module).__name__} {otherwise}")
    return module.to(place).requires_grad_(False)


def folder_of(name: str | Path) -> Path:
    """The folder of a bundled model (a name, not a Path), or the folder itself. Raises `ModelError` with the names there are."""
    folder = BUNDLED / name if isinstance(name, str) and name in bundled() else Path(name)
    if not os.path.isdir(folder):  # Path.is_dir raises for names that no file system takes
        hint = did_you_mean(str(name), bundled())
        raise ModelError(f"no model named {str(name)!r}{hint}; bundled: {', '.join(bundled())}; or give a model folder")
    return folder


def name_of(folder: Path) -> str:
    """What a model is called: as its folder; the best weights of a training as the folder of its run."""
    place = folder.resolve()
    return (place.parent if place.name == "best" else place).name


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA, then Apple's GPU, then the CPU. Raises `ModelError` for a device that is not there."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": cards, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if device == "auto":
        return torch.device(next(name for name, count in there.items() if count))
    try:
        place: torch.device | None = torch.device(device)
    except RuntimeError:  # no name of a device
        place = None
    if place is None or (place.index or 0) >= there.get(place.type, 0):
        names = [name if count == 1 else f"{name}:0 to {name}:{count - 1}" for name, count in there.items() if count]
        raise ModelError(f"the device {device!r} is not available here; available: auto, {', '.join(names)}")
    return place


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type that the network is evaluated in. Raises `ModelError` for an unknown name."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision == "auto":
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        there = bool(native) and device.type == "cpu"
        if device.type == "cuda":
            with torch.cuda.device(device):
                there = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if there else torch.float32
    if precision not in names:
        raise ModelError(f"unknown precision {precision!r}; choose auto, {' or '.join(names)}")
    return names[precision]
