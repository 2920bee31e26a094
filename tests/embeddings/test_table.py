"""The table of embeddings: unknown names and missing weights say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stemwise.checkpoint import save_model
from stemwise.embeddings import EMBEDDINGS, load_embedding
from stemwise.errors import ModelError, QueryError
from stemwise.nets.vggish import Vggish, VggishConfig


def test_unknown_name() -> None:
    with pytest.raises(QueryError, match="did you mean 'vggish'"):
        load_embedding("vgish")


def test_vggish_from_a_converted_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(tmp_path / "vggish", Vggish(VggishConfig((2, 3, 4, 5), 7, 6)))
    embedding = load_embedding("vggish", tmp_path / "vggish", "cpu")
    assert (embedding.name, embedding.rate, embedding.dimensions) == ("vggish", 16_000, 6)


def test_vggish_without_weights() -> None:
    with pytest.raises(ModelError, match="stemwise convert vggish"):
        load_embedding("vggish")


@pytest.mark.parametrize("name", ["clap-laion-audio", "encodec-emb", "encodec-emb-48k"])
def test_weights_that_are_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"hf download .*give its path"):
        load_embedding(name, device="cpu")
    with pytest.raises(ModelError, match="hf download"):
        load_embedding(name, tmp_path, "cpu")


def test_transformers_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.EncodecConfig(num_filters=2, hidden_size=8, codebook_dim=8, codebook_size=16)
    transformers.EncodecModel(config).save_pretrained(tmp_path)
    assert load_embedding("encodec-emb", tmp_path, "cpu").dimensions == 8


def test_every_entry_has_a_summary() -> None:
    assert all(entry.summary for entry in EMBEDDINGS.values()) and "cocola" in EMBEDDINGS
