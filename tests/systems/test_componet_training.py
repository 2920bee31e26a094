"""CompoNet in `stemwise train`: a base, then its adapter, which alone changes; latents that are made once and kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from stemwise import checkpoint, training_data
from stemwise.errors import RecipeError
from stemwise.recipe import check, plain
from stemwise.songs.kept import Kept
from stemwise.systems.componet import Componet
from stemwise.systems.componet_base import AudioLdm2
from stemwise.train import train
from tiny_componet import BASE, STEMS


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one song bass is missing."""
    root = tmp_path_factory.mktemp("songs")
    for number in range(2):
        (root / f"song-{number}").mkdir()
        for index, name in enumerate(STEMS[number:]):
            noise = 0.1 * np.random.default_rng((number, index)).standard_normal(16000)
            soundfile.write(root / f"song-{number}" / f"{name}.wav", noise, 8000)
    return root


def recipe(run: Path, songs: Path, model: dict[str, Any], data: dict[str, Any] | None = None, steps: int = 2) -> Any:
    return check(
        {
            "format": 1, "name": "test", "run": str(run), "model": model,
            "data": {"train": str(songs), "valid": str(songs), "channels": 1, "augmentation": None, **(data or {})},
            "optim": {"lr": 1e-2, "warmup": 0},
            "train": {"steps": steps, "batch": 2, "precision": "32", "checkpoint_every": 1, "validate_every": 2,
                      "validate_windows": 2},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("base")
    config = plain(dataclasses.asdict(BASE))
    train(recipe(run, songs, {"type": "audioldm2", "config": config}), notice=lambda _: None)
    return run / "best"


def test_an_adapter_on_a_base_from_its_folder(base: Path, songs: Path, tmp_path: Path) -> None:
    """From its configuration to its last bit the base stays what it was; the adapter starts as its copy, and resumes."""
    asked = recipe(tmp_path / "run", songs, {"type": "componet", "parts": {"base": str(base)}}, steps=1)
    train(asked, notice=lambda _: None)
    asked = recipe(tmp_path / "run", songs, {"type": "componet", "parts": {"base": str(base)}})
    assert train(asked, notice=lambda _: None).step == 2
    module, before = checkpoint.load_model(tmp_path / "run" / "best"), checkpoint.load_model(base)
    assert isinstance(module, Componet) and isinstance(before, AudioLdm2) and module.config.base == before.config
    for name, value in before.state_dict().items():
        assert torch.equal(module.base.state_dict()[name], value), name
    assert module.control.middle.weight.any()
    copied, original = module.control.encoder.conv_in.weight, before.unet.conv_in.weight
    assert 0 < float((copied - original).detach().abs().max()) < 0.1  # two steps from where it started
    stored = torch.load(sorted((tmp_path / "run" / "checkpoints").glob("*"))[-1], weights_only=True)
    assert not any(name.startswith("base.") for name in stored["ema"])  # no second copy of what is frozen


def test_latents_are_made_once_and_kept(base: Path, songs: Path, tmp_path: Path) -> None:
    kept = {"latents": {"folder": str(tmp_path / "kept"), "windows": 3}}
    asked = recipe(tmp_path / "run", songs, {"type": "componet", "parts": {"base": str(base)}}, kept)
    said: list[str] = []
    train(asked, notice=said.append)
    assert "latents of 3 windows" in said[-1]
    files = sorted((tmp_path / "kept").glob("*/*.safetensors"))
    assert len(files) == 3 + 2  # for training and for validation, in folders of their own
    written = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    module = checkpoint.build("componet", asked.model.config)
    checkpoint.load_weights(module.get_submodule("base"), base)
    stream, _ = training_data.read(asked, said.append).streams(module)
    assert isinstance(stream, Kept)
    again = {file: file.stat().st_mtime_ns for file in files}
    assert [file for file in files if again[file] != written[file]] == files[:1]
    turn = torch.stack([stream[index] for index in range(3)])
    other = torch.stack([stream[index] for index in range(3, 6)])
    assert torch.equal(turn.sum(0), other.sum(0)) and turn.dtype == torch.float16  # all of them, in each turn
    whole = module.base.submixes(stream.source[0][None])[0]  # type: ignore[union-attr, operator]
    nearest = min(float((item.float() - whole).abs().max()) for item in turn)
    assert nearest < 0.01
    changed = dataclasses.replace(
        BASE, codec=dataclasses.replace(BASE.codec, patch=(4, 8)), unet={**BASE.unet, "in_channels": 32}
    )
    other_codec = AudioLdm2(changed)
    training_data.read(asked, said.append).streams(other_codec)
    assert len(sorted((tmp_path / "kept").iterdir())) == 4  # another codec has other latents


def test_models_without_latents_are_told(songs: Path, tmp_path: Path) -> None:
    file = Path(__file__).parent.parent.parent / "recipes" / "band-tiny.yaml"
    document = yaml.safe_load(file.read_text())
    document["data"] = {"train": str(songs), "latents": {"folder": str(tmp_path), "windows": 1}}
    asked = check(document)
    module = checkpoint.build(asked.model.type, asked.model.config)
    with pytest.raises(RecipeError, match="type band keeps no latents; remove it"):
        training_data.read(asked, lambda _: None).streams(module)
