"""MSDM's recipes: those of the paper hold its settings, the small one trains by the common command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stemwise.checkpoint import build, load_model
from stemwise.recipe import load_recipe
from stemwise.runs import export
from stemwise.systems.msdm import Msdm, MsdmConfig, WeakMsdm
from stemwise.train import train

RECIPES = Path(__file__).parents[2] / "recipes"
STEMS = ("bass", "drums", "guitar", "piano")


@pytest.mark.parametrize(
    ("name", "lr", "batch", "churn", "parameters"),
    [("msdm-slakh", 1e-4, 8, 20.0, 405_497_700), ("msdm-weak-slakh", 1e-5, 16, 40.0, 4 * 405_491_100)],
)
def test_recipes_have_the_published_settings(name: str, lr: float, batch: int, churn: float, parameters: int) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    with torch.device("meta"):
        module = build(recipe.model.type, recipe.model.config)
    assert isinstance(module, WeakMsdm if "weak" in name else Msdm)
    assert sum(p.numel() for p in module.parameters()) == parameters
    config: MsdmConfig = module.config
    assert (config.stems, config.rate, config.window) == (STEMS, 22050, 262144)
    assert (config.sigma_data, config.sigma_mean, config.sigma_std, config.spectra) == (0.2, -3.0, 1.0, ())
    separation = {"likelihood": "dirac", "rule": "euler", "steps": 150, "sigma_min": 1e-4, "sigma_max": 1.0, "rho": 7.0}
    assert asdict(config.separation).items() >= {**separation, "churn": churn, "resample": 2, "drop": "bass"}.items()
    assert config.separation.start == 1.0
    generation = {"rule": "euler", "sigma_min": 1e-4, "sigma_max": 20.0, "rho": 7.0, "churn": 20.0, "resample": 1}
    assert asdict(config.generation).items() >= generation.items()
    optim = recipe.optim
    assert (optim.lr, optim.betas, optim.weight_decay) == (lr, (0.9, 0.99), 0.0)
    assert (optim.warmup, optim.decay, list(optim.muon)) == (0, "constant", [])
    assert optim.clip is not None and optim.clip >= 1e6  # nothing is clipped
    assert (recipe.train.batch, recipe.train.ema, recipe.train.precision) == (batch, 0.0, "bf16-mixed")
    assert recipe.train.validate_every == 4000
    assert recipe.data.augmentation is None and recipe.data.min_active == 0  # silent stems are not left out


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for song in range(2):
        (tmp_path / "songs" / f"song-{song}").mkdir(parents=True)
        for stem in STEMS:
            noise = 0.1 * draw.standard_normal(4 * 8000)
            soundfile.write(tmp_path / "songs" / f"song-{song}" / f"{stem}.wav", noise, 8000)
    return tmp_path / "songs"


WEAK = [
    "model.type=msdm-weak",
    "model.config.net.sources=1",
    "model.config.net.widths=[24, 32, 64]",
    "optim.muon=[nets]",
]


@pytest.mark.parametrize(("changes", "kind"), [([], Msdm), (WEAK, WeakMsdm)])
def test_the_small_recipe_trains_validates_and_exports(
    songs: Path, tmp_path: Path, changes: list[str], kind: type
) -> None:
    """Joint, and weakly supervised with the changes that its comment names."""
    for change in changes:
        assert change in (RECIPES / "msdm-band.yaml").read_text().replace("\n#", "")
    few = [
        f"data.train={songs}", f"data.valid={songs}", f"run={tmp_path / 'run'}", "data.workers=0", "train.steps=2",
        "train.batch=2", "train.checkpoint_every=1", "train.validate_every=2", "train.validate_windows=2",
    ]  # fmt: skip
    outcome = train(load_recipe(RECIPES / "msdm-band.yaml", [*few, *changes]), notice=lambda _: None)
    assert outcome.step == 2 and outcome.best is not None and not outcome.interrupted
    module = load_model(export(tmp_path / "run", tmp_path / "model"))
    assert isinstance(module, kind)
