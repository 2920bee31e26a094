"""The usual VGGish file becomes a model folder; anything else is refused, and nothing in it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stemwise.checkpoint import load_model
from stemwise.convert.vggish import convert_vggish
from stemwise.errors import ModelError
from stemwise.nets.vggish import Vggish, VggishConfig


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Vggish]:
    """A file of the published layout with small layers."""
    net = Vggish(VggishConfig((2, 3, 4, 5), 7, 6)).eval()
    state = {**net.state_dict(), "pproc.pca_means": torch.zeros(6, 1)}
    torch.save(state, tmp_path / "vggish.pth")
    return tmp_path / "vggish.pth", net


def test_same_answers(published: tuple[Path, Vggish], tmp_path: Path) -> None:
    file, net = published
    loaded = load_model(convert_vggish(file, tmp_path / "out"))
    x = torch.randn(2, 96, 64)
    torch.testing.assert_close(loaded(x), net(x))


@pytest.mark.parametrize("damage", ["missing", "shape", "surplus"])
def test_other_tensors_are_refused(published: tuple[Path, Vggish], tmp_path: Path, damage: str) -> None:
    file, net = published
    state = dict(net.state_dict())
    if damage == "missing":
        del state["features.3.weight"]
    elif damage == "shape":
        state["embeddings.2.weight"] = torch.zeros(7, 8)
    else:
        state["head"] = torch.zeros(1)
    torch.save(state, file)
    with pytest.raises(ModelError, match=r"VGGish"):
        convert_vggish(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"features.0.weight": Bomb()}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="nothing in it was run"):
        convert_vggish(tmp_path / "bad.pth", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    for file in (tmp_path / "text.pth", tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(ModelError):
            convert_vggish(file, tmp_path / "out")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match=r"holds a list; give the \.pth of torchvggish"):
        convert_vggish(tmp_path / "list.pth", tmp_path / "out")
