"""Published checkpoints of Mixture2Music, as its trainer wrote them, become a folder that gives the recorded numbers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from published_mixture2music import facts, published, tensors, weights
from stemwise import cli
from stemwise.checkpoint import load_model
from stemwise.convert.mixture2music import convert_mixture2music
from stemwise.errors import ModelError
from stemwise.loading import load_rolls
from stemwise.systems.mixture2music import Mixture2Music


def checkpoint(file: Path, *states: dict[str, Tensor]) -> Path:
    """A Lightning file with these tensors."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "epoch": 9, "global_step": 1000, "pytorch-lightning_version": "2.6.6",
        "state_dict": {k: v for state in states for k, v in state.items()},
        "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [],
    }  # fmt: skip
    torch.save(document, file)
    return file


@torch.no_grad()
def test_both_checkpoints_make_one_folder_with_the_recorded_outputs(tmp_path: Path) -> None:
    checkpoint(tmp_path / "runs" / "a.ckpt", weights("transunet"))
    checkpoint(tmp_path / "runs" / "b.ckpt", weights("decoder"))
    done = CliRunner().invoke(
        cli.app, ["convert", "mixture2music", str(tmp_path / "runs"), "--out", str(tmp_path / "m2m")]
    )
    assert done.exit_code == 0, done.output
    module = load_model(tmp_path / "m2m")
    assert isinstance(module, Mixture2Music)
    recorded = tensors("forward_small")
    torch.testing.assert_close(module.net(recorded["x_t"], recorded["t"]), recorded["eps"], atol=1e-4, rtol=1e-5)
    assert module.decoder is not None
    state = published().state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_missing_tables_are_drawn_once_with_a_warning(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "a.ckpt", weights("transunet", tables=False))
    with pytest.warns(UserWarning, match="the 4 tables of relative positions are not in it"):
        folder = convert_mixture2music(file, tmp_path / "m2m")
    one, again = load_model(folder), load_model(folder)
    assert isinstance(one, Mixture2Music)
    assert one.decoder is None
    tables = [name for name in one.state_dict() if name.endswith(".table")]
    assert len(tables) == len(facts("keys")["not_in_checkpoint"])
    assert all(torch.equal(one.state_dict()[name], again.state_dict()[name]) for name in tables)
    assert load_rolls(folder, "cpu").names == ("piano", "guitar", "bass", "string", "drum")


def test_what_is_no_whole_checkpoint_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    state = weights("transunet", tables=False)
    cut = {name: tensor for name, tensor in state.items() if "down2" not in name}
    with pytest.warns(UserWarning), pytest.raises(ModelError, match="not a whole Mixture2Music checkpoint; 12 tensor"):
        convert_mixture2music(checkpoint(tmp_path / "cut.ckpt", cut), tmp_path / "out")
    decoder = checkpoint(tmp_path / "only" / "d.ckpt", weights("decoder"))
    with pytest.raises(ModelError, match="the decoder alone separates nothing"):
        convert_mixture2music(decoder, tmp_path / "out")
    checkpoint(tmp_path / "only" / "e.ckpt", weights("decoder"))
    with pytest.raises(ModelError, match="another decoder, besides"):
        convert_mixture2music(tmp_path / "only", tmp_path / "out")
    with pytest.raises(ModelError, match="names begin with model"):
        convert_mixture2music(checkpoint(tmp_path / "s.ckpt", {"net.a": torch.zeros(1)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code was run')",))


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    file = tmp_path / "bomb.ckpt"
    torch.save({"state_dict": Bomb()}, file)
    with pytest.raises(ModelError, match="nothing in it was run"):
        convert_mixture2music(file, tmp_path / "out")
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    with pytest.raises(ModelError):
        convert_mixture2music(plain, tmp_path / "out")
