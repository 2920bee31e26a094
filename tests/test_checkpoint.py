"""Model folders: what is wrong is named, and nothing in a file is ever executed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import trainable_toy
from stemwise import checkpoint
from stemwise.checkpoint import load_model, read_info, save_model
from stemwise.errors import ModelError
from stemwise.files import write_atomically
from trainable_toy import Inner, Toy, ToyConfig


@pytest.fixture(autouse=True)
def _toy_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.TYPES, "toy", trainable_toy.ENTRY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", Toy(ToyConfig(inner=Inner(width=6))), metadata={"songs": "synthetic"})


def test_round_trip_is_exact(tmp_path: Path) -> None:
    module = Toy(ToyConfig(stems=("piano",), rate=16000, inner=Inner(width=6)))
    module.calls += 3
    loaded = load_model(save_model(tmp_path, module))
    assert isinstance(loaded, Toy) and loaded.config == module.config and not loaded.training
    assert isinstance(loaded.config.stems, tuple)
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert not list(tmp_path.glob(".*"))


def test_half_precision_is_smaller_and_loads_as_float32(folder: Path, tmp_path: Path) -> None:
    module = load_model(folder)
    half = save_model(tmp_path / "half", module, dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(half / "model.safetensors").values()} == {torch.float16}
    assert read_info(half).dtype == "float16"
    for name, tensor in load_model(half).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, module.state_dict()[name].half().float())


def test_info_without_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    info = read_info(folder)
    assert (info.type, info.stems, info.rate, info.window) == ("toy", ("bass", "drums"), 8000, 256)
    assert info.config["inner"] == {"width": 6} and info.metadata == {"songs": "synthetic"}
    assert json.loads((folder / "config.json").read_text())["format"] == 1


def _edit(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / "config.json").read_text())
        document[key] = value
        (folder / "config.json").write_text(json.dumps(document))

    return change


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return rewrite


def _weights(content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(content(file.read_bytes()) if callable(content) else content)

    return rewrite


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing; a model folder holds"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"model\.safetensors is missing; a model folder holds",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: not valid JSON"),
        (
            lambda folder: (folder / "config.json").write_text("[" * 100_000),
            r"config\.json: not valid JSON .nested too",
        ),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: format None, expected 1"),
        (_edit("format", 9), r"format 9, expected 1.*newer stemwise"),
        (_edit("type", "os.system"), r"unknown model type 'os\.system'; allowed: audioldm2, band, .*toy"),
        (_edit("type", ["toy"]), "unknown model type"),
        (_edit("rate", float("inf")), r"config\.json: field missing or of the wrong kind"),
        (_edit("rate", "fast"), r"config\.json: field missing or of the wrong kind"),
        (_edit("rate", 44100), r"config\.json: rate is 44100, expected 8000"),
        (
            _edit("stems", ["drums", "bass"]),
            r"config\.json: stems is \('drums', 'bass'\), expected \('bass', 'drums'\)",
        ),
        (_edit("config", {"wide": 3}), r"config\.json: config\.wide: unknown field.*allowed: stems"),
        (_edit("config", {"rate": "fast"}), r"config\.json: config\.rate: .*integer"),
        (_tensors(lambda t: t.pop("first.bias")), r"1 tensor.*first\.bias: missing, expected shape \(6,\)"),
        (_tensors(lambda t: t.update(extra=torch.ones(2, 3))), r"extra: surplus, found shape \(2, 3\)"),
        (
            _tensors(lambda t: t.update({"second.bias": torch.ones(3)})),
            r"second\.bias: expected shape \(4,\), found \(3,\)",
        ),
        (_edit("config", {"inner": {"width": 4}}), r"first\.weight: expected shape \(4, 4, 5\), found \(6, 4, 5\)"),
        (_edit("config", {"inner": {"width": 2**20}}), r"config\.json: config: describes a larger network than"),
        (_edit("config", {"inner": {"width": -2}}), r"config\.json: no toy can be built from its config"),
        (_weights(lambda content: content[:-20]), "damaged or cut short"),
        (_weights(lambda content: content[:40]), "cut short"),
        (_weights(b""), "not a safetensors file"),
        (_weights(b"I am text, not weights"), "not a safetensors file"),
    ],
)
def test_damage_is_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=f"(?s){message}"):
        load_model(folder)


def test_paths_that_are_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing: no such model folder; it must hold config\.json"):
        load_model(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file, not a model folder"):
        load_model(tmp_path / "file")


class _Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("protocol", ["torch", 0, 2, 4])
def test_pickle_in_disguise_is_refused_and_never_run(folder: Path, tmp_path: Path, protocol: object) -> None:
    bomb = _Bomb(tmp_path / "trace")
    file = folder / "model.safetensors"
    if protocol == "torch":
        torch.save(bomb, file)
    else:
        file.write_bytes(pickle.dumps(bomb, protocol=int(str(protocol))))
    message = "not a safetensors file" if protocol == 0 else "this is a pickle.*refused; ask its author for safetensors"
    with pytest.raises(ModelError, match=message):
        load_model(folder)
    assert not bomb.trace.exists()


def test_only_types_in_the_table_and_finite_weights_are_stored(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"a Linear cannot be stored as a model; types that can: audioldm2, band, .*toy"
    ):
        save_model(tmp_path / "a", torch.nn.Linear(1, 1))
    module = Toy(ToyConfig())
    module.first.weight.data[0] = 1e6
    save_model(tmp_path / "b", module)
    with pytest.raises(ModelError, match=r"first\.weight is not finite as torch\.float16; store as float32"):
        save_model(tmp_path / "c", module, dtype=torch.float16)
    with pytest.raises(ModelError, match="float32, float16 or bfloat16"):
        save_model(tmp_path / "d", module, dtype=torch.int8)
    assert not (tmp_path / "c").exists() and not (tmp_path / "d").exists()


def test_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    write_atomically(file, b"old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_file_is_on_the_disk_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        about = os.fstat(handle)
        done.append("folder" if stat.S_ISDIR(about.st_mode) else about.st_size)
        sync(handle)

    def renamed(old: Path, new: Path) -> None:
        done.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_atomically(tmp_path / "file", b"four")
    assert done == [4, "name", "folder"]


@pytest.mark.parametrize(("rate", "left"), [(8000, True), (16000, False)])
def test_a_kill_never_leaves_new_weights_under_a_configuration_of_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rate: int, left: bool
) -> None:
    def killed(file: Path, content: bytes) -> None:
        if file.name == "config.json":
            raise KeyboardInterrupt
        write_atomically(file, content)

    monkeypatch.setattr(checkpoint, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(folder, Toy(ToyConfig(rate=rate, inner=Inner(width=6))), metadata={"step": 2})
    assert (folder / "config.json").is_file() == left


def test_the_table_names_classes_that_exist() -> None:
    for kind, (path, name, _) in checkpoint.TYPES.items():
        assert issubclass(getattr(importlib.import_module(path), name), torch.nn.Module)
        assert dataclasses.is_dataclass(checkpoint.build_config(kind, {}))
