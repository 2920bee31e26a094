"""`stemwise convert cocola`: the published files become model folders, anything else is refused, nothing is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import published_cocola as published
from stemwise.checkpoint import load_model
from stemwise.cli import app
from stemwise.coherence.cocola import Cocola
from stemwise.convert.cocola import convert_cocola, read_checkpoint, renamed
from stemwise.errors import ModelError


def whole(folder: Path, kind: str = "hpss", **changes: object) -> Path:
    """A whole checkpoint: the settings of a recorded one, and weights of the right shapes."""
    name = "checkpoint_cli_tiny" if kind == "hpss" else "checkpoint_cli_tiny_mel"
    settings = read_checkpoint(published.FIXTURES / f"{name}.ckpt")
    plain = {key: None if value is None else value for key, value in settings["hyper_parameters"].items()}
    plain |= {key: str(value) for key, value in plain.items() if key in ("embedding_mode", "input_type")}
    document = {"epoch": 3, "global_step": 7, "state_dict": published.weights(kind), "hyper_parameters": plain}
    torch.save({**document, **changes}, folder / "published.ckpt")
    return folder / "published.ckpt"


@pytest.mark.parametrize("name", ["checkpoint_partial", "checkpoint_cli_tiny", "checkpoint_cli_tiny_mel"])
def test_recorded_files_are_read_without_their_classes(name: str) -> None:
    document = read_checkpoint(published.FIXTURES / f"{name}.ckpt")
    settings = document["hyper_parameters"]
    mel = name.endswith("mel")
    kind = "single_channel_mel_spectrogram" if mel else "double_channel_harmonic_percussive"
    assert settings["input_type"] == kind
    assert settings["embedding_mode"] == (None if mel else "random")
    assert set(document["state_dict"]) == {"layer_norm.weight", "layer_norm.bias", "similarity.w"}


@torch.no_grad()
def test_a_whole_file_becomes_a_model_with_the_published_scores(tmp_path: Path) -> None:
    folder = convert_cocola(whole(tmp_path), tmp_path / "model")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    model = load_model(folder)
    assert isinstance(model, Cocola)
    features = published.tensors("encoder_input")["features"].float()
    hidden = model.embed(features)
    expected = published.tensors("encoder_expected")["similarity.both"]
    assert (model.similarity(hidden[:3], hidden[3:]) - expected).abs().max() < 1e-3


def test_a_single_channel_file_becomes_a_mel_model(tmp_path: Path) -> None:
    model = load_model(convert_cocola(whole(tmp_path, "mel"), tmp_path / "model"))
    assert isinstance(model, Cocola) and model.config.features == "mel"


def test_every_published_name_has_one_of_ours() -> None:
    names = published.weights("hpss")
    assert len(renamed(names)) == len(names) == 363
    assert set(renamed(names)) == set(Cocola(published.model("hpss").config).state_dict())


def test_partial_files_are_refused_by_the_names_that_lack(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"360 tensor\(s\) do not fit(.|\n)*net\.stem\.convolution\.weight: missing"):
        convert_cocola(published.FIXTURES / "checkpoint_partial.ckpt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Foreign:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("/nowhere/written", "w"))


def test_other_classes_are_refused_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": Foreign()}, file)
    with pytest.raises(ModelError, match=r"not a checkpoint of COCOLA: it names .*nothing in it was run"):
        convert_cocola(file, tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps([1, 2]), b"PK\x03\x04 cut"])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file.ckpt"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=str(file)):
        convert_cocola(file, tmp_path / "model")


def test_cut_files_are_refused(tmp_path: Path) -> None:
    content = (published.FIXTURES / "checkpoint_partial.ckpt").read_bytes()
    file = tmp_path / "file.ckpt"
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"cut short|damaged"):
        convert_cocola(file, tmp_path / "model")


def test_the_command_converts_and_does_not_overwrite(tmp_path: Path) -> None:
    file = whole(tmp_path)
    first = CliRunner().invoke(app, ["convert", "cocola", str(file)])
    assert first.exit_code == 0 and str(tmp_path / "published") in first.stdout
    again = CliRunner().invoke(app, ["convert", "cocola", str(file)])
    assert again.exit_code == 2
    missing = CliRunner().invoke(app, ["convert", "cocola", str(tmp_path / "none.ckpt")])
    assert missing.exit_code == 3
