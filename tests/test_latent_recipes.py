"""The recipes of latent models as they are shipped, from songs to answers: codec and MSG-LD, base and CompoNet.

Two steps each, in short windows; everything else is the recipes' own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import stemwise
from stemwise.cli import app
from stemwise.systems.componet_system import ComponetSystem
from stemwise.systems.msgld_system import MsgldSystem

RECIPES = Path(__file__).parent.parent / "recipes"
STEMS = ("bass", "drums", "guitar", "piano")
SHORT = [
    "train.steps=2", "train.batch=1", "train.precision='32'", "train.checkpoint_every=1", "train.validate_every=2",
    "train.validate_windows=1", "optim.warmup=0", "data.frames=5120",
]  # fmt: skip
WINDOW = 20480  # what the finished models are used with


def write_songs(root: Path, rate: int) -> Path:
    for number in range(2):
        (root / f"song-{number}").mkdir(parents=True)
        for index, name in enumerate(STEMS):
            noise = 0.1 * np.random.default_rng((number, index)).standard_normal(2 * rate)
            soundfile.write(root / f"song-{number}" / f"{name}.wav", noise, rate)
    return root


def run(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def trained(recipe: str, place: Path, *overrides: str) -> Path:
    """The run folder."""
    told = [
        f"run={place / recipe}",
        f"data.train={place / 'songs'}",
        f"data.valid={place / 'songs'}",
        *SHORT,
        *overrides,
    ]
    run("train", RECIPES / f"{recipe}.yaml", *told, "--accelerator", "cpu", "--quiet")
    return place / recipe


@pytest.fixture(scope="module")
def msgld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("msgld")
    write_songs(place / "songs", 16_000)
    codec = trained("melvae-band", place, f"model.config.window={WINDOW}")
    kept = [f"data.latents.folder={place / 'kept'}", "data.latents.windows=3"]
    own = [
        f"model.parts.codec={codec / 'best'}",
        f"model.config.codec.window={WINDOW}",
        "model.config.sampling.steps=2",
    ]
    run("export", trained("msgld-band", place, *own, *kept), place / "model", "--quiet")
    assert len(list((place / "kept").glob("*/*.safetensors"))) == 3 + 1  # for training and for validation
    return place / "model"


@pytest.mark.slow
def test_msgld_from_its_recipes(msgld: Path, tmp_path: Path) -> None:
    """Separate, generate and accompany, by the command line, with the exported folder."""
    assert isinstance(stemwise.load(msgld).system, MsgldSystem)
    mix = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(tmp_path / "mix.wav", mix, 16_000)

    def made(*words: object) -> dict[str, np.ndarray]:
        run(*words, "--model", msgld, "--quiet", "-o", tmp_path / str(words[0]))
        found = {file.stem: soundfile.read(file)[0] for file in (tmp_path / str(words[0])).rglob("*.wav")}
        assert all(np.isfinite(wave).all() and len(wave) == 16_000 and wave.any() for wave in found.values())
        return found

    stems = made("separate", tmp_path / "mix.wav")
    assert set(stems) == set(STEMS)
    np.testing.assert_allclose(sum(stems.values()), mix, atol=1e-3)
    assert {"bass", "drums"} <= set(made("generate", "--seconds", "1", "--stems", "bass,drums"))
    assert {"bass", "drums"} <= set(made("accompany", f"drums={tmp_path / 'mix.wav'}", "--want", "bass"))


@pytest.fixture(scope="module")
def componet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("componet")
    write_songs(place / "songs", 8000)
    base = trained("componet-base-band", place, f"model.config.codec.window={WINDOW}", "model.config.codec.rounds=2")
    adapter = trained("componet-band", place, f"model.parts.base={base / 'best'}")
    run("export", adapter, place / "model", "--quiet")
    return place / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heard", "wanted"),
    [
        ((), ("bass", "drums")),
        (("bass", "drums"), ("guitar",)),
        (STEMS, ("bass", "piano")),
        (("bass",), ("bass", "drums")),
        (("bass", "drums"), ("bass", "guitar")),
    ],
    ids=["generate", "accompany", "separate", "add", "replace"],
)
def test_componet_from_its_recipes(componet: Path, heard: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    model = stemwise.load(componet)
    assert isinstance(model.system, ComponetSystem)
    mix = 0.1 * np.random.default_rng(0).standard_normal((1, 8000)).astype(np.float32)
    given = {"rate": 8000} if heard else {"seconds": 1.0}
    made = stemwise.recompose(model, mix if heard else None, heard, wanted, steps=2, **given)  # type: ignore[arg-type]
    assert made.names == ("+".join(wanted),) and made.data.shape == (1, 1, 1, 8000)
    assert bool(made.data.isfinite().all()) and float(made.data.abs().max()) > 0
