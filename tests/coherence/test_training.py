"""COCOLA trains by the common command, from pairs of sub-mixes, and its recipes are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemwise.checkpoint import load_model
from stemwise.coherence.cocola import Cocola
from stemwise.errors import SongError
from stemwise.recipe import load_recipe
from stemwise.runs import export
from stemwise.train import train

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for song in range(3):
        (tmp_path / "songs" / f"song-{song}").mkdir(parents=True)
        for stem in ("bass", "drums", "piano"):
            soundfile.write(
                tmp_path / "songs" / f"song-{song}" / f"{stem}.wav", 0.1 * rng.standard_normal(6 * 8000), 8000
            )
    return tmp_path / "songs"


def changes(songs: Path, run: Path) -> list[str]:
    return [
        f"data.train={songs}", f"data.valid={songs}", f"run={run}", "model.config.seconds=1", "data.frames=24000",
        "data.workers=0", "data.pairs.per_song=2", "train.steps=2", "train.batch=4", "train.checkpoint_every=1",
        "train.validate_every=2", "train.validate_windows=4",
    ]  # fmt: skip


def test_the_bundled_recipe_trains_validates_and_exports(songs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "cocola-band.yaml", changes(songs, tmp_path / "run"))
    outcome = train(recipe, notice=lambda _: None)
    assert outcome.step == 2 and outcome.best is not None and not outcome.interrupted
    logged = (tmp_path / "run" / "metrics.csv").read_text()
    assert "train/accuracy" in logged and "validation/accuracy" in logged
    assert isinstance(load_model(export(tmp_path / "run", tmp_path / "model")), Cocola)


def test_songs_without_two_stems_are_refused(tmp_path: Path) -> None:
    (tmp_path / "songs" / "one").mkdir(parents=True)
    soundfile.write(tmp_path / "songs" / "one" / "bass.wav", np.zeros(48_000) + 0.1, 8000)
    recipe = load_recipe(RECIPES / "cocola-band.yaml", changes(tmp_path / "songs", tmp_path / "run"))
    with pytest.raises(SongError, match="two stems"):
        train(recipe, notice=lambda _: None)


@pytest.mark.parametrize("name", ["moisesdb", "slakh", "cocochorales", "all"])
def test_recipes_have_the_published_settings(name: str) -> None:
    recipe = load_recipe(RECIPES / f"cocola-{name}.yaml")
    assert recipe.train.batch == 32 and recipe.optim.lr == 1e-3 and recipe.optim.decay == "constant"
    assert recipe.optim.weight_decay == 0 and recipe.train.ema == 0
    assert recipe.model.config["features"] == "hpss" and recipe.model.config["encoder"] == "efficientnet"
    assert {one.split for one in recipe.data.train} == {"train"} and recipe.data.pairs is not None
    assert {one.split for one in recipe.data.valid} == {"validation"}
