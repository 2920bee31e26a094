"""From a published checkpoint to music: convert it, then every verb works with the folder that was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from published_msdm import FIXTURES
from stemwise.audio_io import read_audio, write_audio
from stemwise.cli import app
from stemwise.convert.msdm import STEMS
from tiny_band import music

RATE, WINDOW = 22050, 8192


def run(*words: str) -> None:
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


@pytest.fixture(scope="module", params=["joint", "weak"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes; its windows shortened, for the published 11.9 s take long."""
    home = tmp_path_factory.mktemp(request.param)
    given = home / "published.ckpt"
    if request.param == "joint":
        shutil.copy(FIXTURES / "checkpoint_four_source.ckpt", given)
    else:
        given = home / "published"
        given.mkdir()
        for stem in STEMS:
            shutil.copy(FIXTURES / "checkpoint_one_source.ckpt", given / f"{stem}.ckpt")
    run("convert", "msdm", str(given), "--out", str(home / "model"))
    file = home / "model" / "config.json"
    document = json.loads(file.read_text())
    document["window"] = document["config"]["window"] = WINDOW
    document["config"]["separation"]["steps"] = 2
    file.write_text(json.dumps(document))
    return home / "model"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_audio("song.wav", music(0.5, rate=44100), 44100)
    write_audio("drums.wav", music(0.35, channels=1, seed=1, rate=RATE), RATE)
    return tmp_path


def test_separate(model: Path, here: Path) -> None:
    """A stereo song at another rate, longer than a window."""
    run("separate", "song.wav", "-n", str(model), "--evaluations", "4")
    stems = {stem: read_audio(here / f"separated/model/song/{stem}.wav")[0].astype(float) for stem in STEMS}
    assert np.abs(sum(stems.values()) - read_audio("song.wav")[0]).max() < 1e-5
    assert all(np.abs(stem).max() > 1e-4 for stem in stems.values())


def test_generate(model: Path, here: Path) -> None:
    run("generate", "--seconds", "0.5", "--seed", "3", "--steps", "2", "--model", str(model))
    folder = here / "generated/model/seed-3"
    mix, rate = read_audio(folder / "mix.wav")
    assert (mix.shape[1], rate) == (round(0.5 * RATE), RATE)
    stems = [read_audio(folder / f"{stem}.wav")[0].astype(float) for stem in STEMS]
    assert np.abs(sum(stems) - mix).max() < 1e-4
    assert len({stem.tobytes() for stem in stems}) == len(STEMS)


def test_accompany(model: Path, here: Path) -> None:
    run("accompany", "drums=drums.wav", "--want", "bass,piano", "--steps", "2", "--model", str(model))
    (folder,) = (path.parent for path in here.glob("accompanied/model/**/bass.wav"))
    assert np.array_equal(read_audio(folder / "drums.wav")[0], read_audio("drums.wav")[0])
    assert {path.stem for path in folder.glob("*.wav")} == {"bass", "drums", "piano", "mix"}
    assert all(np.abs(read_audio(folder / f"{stem}.wav")[0]).max() > 1e-4 for stem in ("bass", "piano"))


def test_edit(model: Path, here: Path) -> None:
    """Separates, then replaces a stem in a span; nothing changes outside it."""
    run("edit", "song.wav", "--replace", "guitar", "--span", "0.1:0.3", "--steps", "2", "--model", str(model))
    (folder,) = (path.parent for path in here.glob("edited/model/**/mix.wav"))
    new, old = read_audio(folder / "mix.wav")[0], read_audio("song.wav")[0]
    start, end = round(0.1 * 44100), round(0.3 * 44100)
    assert np.array_equal(new[:, :start], old[:, :start]) and np.array_equal(new[:, end:], old[:, end:])
    assert not np.array_equal(new[:, start:end], old[:, start:end])
