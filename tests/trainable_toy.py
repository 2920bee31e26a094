"""A network of a few hundred weights that fulfils the training contract, songs for it, a program that trains it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from stemwise import checkpoint
from stemwise.train import Progress


@dataclass(frozen=True)
class Inner:
    width: int = 4


@dataclass(frozen=True)
class ToyConfig:
    stems: tuple[str, ...] = ("bass", "drums")
    rate: int = 8000
    window: int = 256
    explode_at: int = -1
    noise: float = 1.0
    dropout: float = 0.2
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.window % 2:
            raise ValueError("window must be even")


class Toy(nn.Module):
    """Denoises with two convolutions; dropout draws from the global generator, a buffer counts the calls."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        channels, width = 2 * len(config.stems), config.inner.width
        self.first = nn.Conv1d(channels, width, 5, padding=2)
        self.drop = nn.Dropout(config.dropout)
        self.second = nn.Conv1d(width, channels, 5, padding=2)
        self.register_buffer("calls", torch.zeros(()))

    calls: Tensor

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        clean = batch.flatten(1, 2)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        estimate = self.second(torch.relu(self.drop(self.first(clean + self.config.noise * noise))))
        if self.training:
            self.calls += 1
        error = (estimate - clean).square().mean()
        if int(self.calls) == self.config.explode_at:
            error = error * float("inf")
        return {"loss": error, "level": clean.abs().mean()}


#: Arguments of `program` that are not overrides of the recipe.
OWN = ("kill-step", "kill-write", "devices")
ENTRY = ("trainable_toy", "Toy", "ToyConfig")


def write_songs(folder: Path, count: int = 3, frames: int = 4000, rate: int = 8000) -> Path:
    """Songs of two noisy stems."""
    draw = np.random.default_rng(0)
    for number in range(count):
        song = folder / f"song-{number}"
        song.mkdir(parents=True)
        for name in ("bass", "drums"):
            soundfile.write(song / f"{name}.wav", 0.1 * draw.standard_normal((frames, 2)), rate, subtype="PCM_16")
    return folder


def write_recipe(file: Path, songs: Path, run: Path, valid: bool = True, **train: object) -> Path:
    """A recipe (JSON is YAML) for the toy."""
    plan = {"steps": 24, "batch": 2, "checkpoint_every": 8, "validate_every": 6, "validate_windows": 3, "log_every": 3}
    data: dict[str, object] = {"train": str(songs), "augmentation": {"remix": 0.3}}
    if valid:
        data["valid"] = str(songs)
    document = {
        "format": 1,
        "name": "toy",
        "run": str(run),
        "model": {"type": "toy"},
        "data": data,
        "optim": {"lr": 0.01, "warmup": 4, "muon": ["second"]},
        "train": {**plan, "ema": 0.9, "precision": "32", **train},
    }
    file.write_text(json.dumps(document))
    return file


def _kill_at_step(number: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def _kill_in_write(number: int) -> None:
    """SIGKILL in the sync of the `number`-th checkpoint: its temporary file is written, but not renamed."""
    sync, seen = os.fsync, 0

    def kill(handle: int) -> None:
        nonlocal seen
        target = os.readlink(f"/proc/self/fd/{handle}")
        if ".ckpt." in target and target.endswith(".tmp"):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = kill


def program(arguments: Sequence[str]) -> None:
    """RECIPE [kill-step=N | kill-write=N | devices=N] [dotted overrides ...]: train the toy in this process."""
    from stemwise.recipe import load_recipe
    from stemwise.train import train

    torch.set_num_threads(1)
    checkpoint.TYPES["toy"] = ENTRY
    own = {key: int(number) for key, _, number in (entry.partition("=") for entry in arguments) if key in OWN}
    overrides = [entry for entry in arguments[1:] if entry.partition("=")[0] not in OWN]
    if "kill-write" in own:
        _kill_in_write(own["kill-write"])
    devices = own.get("devices", 1)
    train(
        load_recipe(arguments[0], overrides),
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        accelerator="cpu",
        progress=_kill_at_step(own.get("kill-step", -1)),
    )


if __name__ == "__main__":
    sys.modules["trainable_toy"] = sys.modules["__main__"]
    program(sys.argv[1:])
