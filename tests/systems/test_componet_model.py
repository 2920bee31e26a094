"""CompoNet through the public interface: every verb, what may be wished, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import stemwise
from stemwise import checkpoint
from stemwise.cli import app
from stemwise.errors import ModelError, QueryError
from stemwise.systems.componet_base import AudioLdm2
from stemwise.systems.componet_system import ComponetSystem
from tiny_componet import BASE, MELVAE, tiny

RATE = 11025


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save_model(tmp_path_factory.mktemp("model") / "componet", tiny())


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    time = np.arange(RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 220 * time) + 0.02 * np.random.default_rng(0).standard_normal(RATE)
    return np.stack([tone, 0.5 * tone]).astype(np.float32)


def test_every_verb(folder: Path, song: np.ndarray) -> None:
    model = stemwise.load(folder)
    stems = model.separate(song, rate=RATE)
    assert stems.names == ("bass", "drums", "guitar", "piano") and stems.data.shape == (1, 4, 2, RATE)
    np.testing.assert_allclose(stems.data[0].sum(0).numpy(), song, atol=1e-5)
    assert model.generate(0.7, stems=["bass", "drums"], steps=2).data.shape == (1, 2, 1, 5600)
    both = model.accompany({"guitar": song}, ["bass"], rate=RATE, steps=2)
    assert both.names == ("guitar", "bass")
    np.testing.assert_array_equal(both["guitar"][0].numpy(), song)
    changed = model.edit(both, replace=["bass"], span=(0.2, 0.6), steps=2)
    torch.testing.assert_close(changed.data[..., : RATE // 5], both.data[..., : RATE // 5], atol=0, rtol=0)
    assert model.edit(song, remove=["bass"], rate=RATE).names == ("drums", "guitar", "piano")
    assert model.edit(song, extract=["bass", "drums"], rate=RATE).names == ("bass", "drums")


def test_new_stems_take_the_models_own_number_of_steps(tmp_path: Path) -> None:
    """On the command line, too, where the manifest says how many."""
    folder = checkpoint.save_model(tmp_path / "componet", tiny(steps=3))
    model = stemwise.load(folder)
    own, told, other = (model.generate(0.5, stems=["bass"], steps=steps).data for steps in (None, 3, 4))
    assert model.steps == 3 and torch.equal(own, told) and not torch.equal(own, other)
    with pytest.raises(QueryError, match="steps is 0"):
        model.generate(0.5, steps=0)
    words = [
        "generate",
        "--seconds",
        "0.5",
        "--stems",
        "bass",
        "--model",
        str(folder),
        "--quiet",
        "-o",
        str(tmp_path / "out"),
    ]
    for more, spent in (([], 3), (["--steps", "1", "--name", "quick"], 1)):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.output
        made = tmp_path / "out" / "componet" / ("quick" if more else "seed-0")
        assert json.loads((made / "manifest.json").read_text())["parameters"]["steps"] == spent


def test_wishes(folder: Path, song: np.ndarray) -> None:
    model = stemwise.load(folder, phase="vocoder", guidance=2.0, strength=0.5, start=0.1, end=0.9)
    assert isinstance(model.system, ComponetSystem)
    how = model.system.how
    assert (how.guidance, how.strength, how.start, how.end) == (2.0, 0.5, 0.1, 0.9) and not model.system.sums
    with pytest.raises(QueryError, match="0 <= start < end"):
        stemwise.load(folder, start=0.9, end=0.1)
    with pytest.raises(QueryError, match="choose mixture or vocoder"):
        stemwise.load(folder, phase="magic")
    with pytest.raises(QueryError, match="takes no gamma; it takes phase, guidance"):
        stemwise.load(folder, gamma=1.0)
    with pytest.raises(QueryError, match="flute"):
        model.accompany({"guitar": song}, ["flute"], rate=RATE)


def test_both_codecs_come_back_from_disk(tmp_path: Path) -> None:
    for base in (BASE, MELVAE):
        module = checkpoint.load_model(checkpoint.save_model(tmp_path / "model", tiny(base)))
        assert module.config.base == base
    with pytest.raises(ModelError, match=r"config\.base\.codec\.patches: unknown field \(did you mean 'patch'"):
        checkpoint.build_config("componet", {"base": {"codec": {"patches": [4, 8], "rounds": 3}}})


def test_a_base_alone_is_no_model_of_stems(tmp_path: Path) -> None:
    folder = checkpoint.save_model(tmp_path / "base", AudioLdm2(BASE))
    with pytest.raises(ModelError, match="a text-to-audio model, which hears nothing; train an adapter"):
        stemwise.load(folder)
