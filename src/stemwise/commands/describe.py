"""`stemwise info` and `stemwise doctor`: what a model is, what this machine has."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise import __version__
from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.extras import EXTRAS

if TYPE_CHECKING:
    from stemwise.checkpoint import ModelInfo

_SYMBOLIC = ("notes", "rolls", "mixture2music")
_PACKAGES = ("torch", "numpy", "soundfile", "soxr", "safetensors", "typer", "rich", "pydantic")


def info(
    model: Annotated[str, typer.Argument(help="A bundled model's name, or a model folder.")] = "band",
    as_json: o.Json = False,
) -> None:
    """Say what a model is and what it was measured to do."""
    from stemwise.checkpoint import load_model, read_info
    from stemwise.loading import folder_of, is_pipeline, name_of

    folder = folder_of(model)
    if is_pipeline(folder):
        return _pipeline(model, as_json)
    about = read_info(folder)
    card = folder / "README.md"
    facts: dict[str, Any] = {
        "name": name_of(folder),
        "type": about.type,
        "stems": list(about.stems) or None,
        **(_symbolic(about) if about.type in _SYMBOLIC else _audio(about, model)),
        "parameters": sum(weight.numel() for weight in load_model(folder).parameters()),
        "size_mb": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 1),
        **about.metadata,
        "model_card": card.name if card.is_file() else None,
    }
    voice = Voice(as_json=as_json)
    for line in _lines(facts):
        voice.say(line)
    if card.is_file():
        voice.say("\n" + card.read_text(encoding="utf-8").strip())
    voice.hand_over("info", facts)


def _audio(about: ModelInfo, model: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rate_hz": about.rate,
        "band_hz": about.rate // 2,
        "window_seconds": round(about.window / about.rate, 3),
    }
    return {**facts, **(_of_stems(model) if about.stems else {"channels": 1})}


def _of_stems(model: str) -> dict[str, Any]:
    """Without channels of what is no model of stems by itself, but a part of one."""
    from stemwise.errors import ModelError
    from stemwise.loading import load

    try:
        system = load(model, "cpu").system
    except ModelError:
        return {"channels": None}
    return {"separation_window_seconds": round(system.listening() / system.rate, 3), "channels": system.channels}


def _symbolic(about: ModelInfo) -> dict[str, Any]:
    unit = "notes" if about.type == "notes" else f"steps, {about.rate} to a quarter note"
    return {"window": f"{about.window} {unit}"}


def _pipeline(model: str, as_json: bool) -> None:
    from stemwise.loading import load

    loaded = load(model, "cpu")
    facts = {
        "name": loaded.name,
        "type": "text-to-audio pipeline; its stems are described with --stem",
        "rate_hz": loaded.rate,
        "window_seconds": round(loaded.window / loaded.rate, 3),
        "channels": loaded.channels,
        "parameters": loaded.parameters,
    }
    voice = Voice(as_json=as_json)
    for line in _lines(facts):
        voice.say(line)
    voice.hand_over("info", facts)


def doctor(as_json: o.Json = False) -> None:
    """Say what is installed and what this machine has."""
    import soundfile
    import torch

    from stemwise.loading import bundled, pick_device

    disk = shutil.disk_usage(Path.cwd())
    device = str(pick_device("auto"))
    facts: dict[str, Any] = {
        "stemwise": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "libsndfile": soundfile.__libsndfile_version__,
        "device": device,
        "devices": [name for name, there in (("cuda", torch.cuda.is_available()), ("mps", _mps())) if there] + ["cpu"],
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "memory_free_gb": _free_memory(),
        "disk_free_gb": round(disk.free / 1e9, 1),
        "models": bundled(),
        "fonts": {use: _fonts(use) for use in ("train", "validation", "test")},
        "extras": {extra: all(_version(name) for name in names) for extra, names in EXTRAS.items()},
    }
    facts["try"] = f"stemwise separate YOUR_SONG -d {device}" + (" --evaluations 2" if device == "cuda" else "")
    voice = Voice(as_json=as_json)
    for line in _lines(facts):
        voice.say(line)
    missing = [extra for extra, there in facts["extras"].items() if not there]
    if missing:
        voice.say(f"extras that are not installed: pip install 'stemwise[{','.join(missing)}]'")
    voice.hand_over("doctor", facts)


def _lines(facts: dict[str, Any]) -> list[str]:
    width = max(len(name) for name in facts)
    return [f"{name.replace('_', ' '):<{width}}  {_plain(value)}" for name, value in facts.items() if value is not None]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value) if value is not None else "not installed"


def _version(name: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fonts(use: str) -> list[str]:
    """Installed fonts by name; nothing is rendered with them."""
    from stemwise.errors import SongError
    from stemwise.songs.synthetic.fonts import fonts

    try:
        return [font.name for font in fonts(use)]  # type: ignore[arg-type]
    except SongError:
        return []


def _mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def _free_memory() -> float | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(line for line in file if line.startswith("MemAvailable"))
        return round(int(available.split()[1]) / 1e6, 1)
    except (OSError, StopIteration):
        return None
