"""Stems described in words, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import stemwise
from stemwise import cli
from stemwise.checkpoint import save_model
from tiny_band import write_tiny_band
from tiny_gmsdi import prior


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model("words", prior())
    signal = 0.1 * np.random.default_rng(0).standard_normal(3000)
    soundfile.write("song.wav", signal, 8000, subtype="FLOAT")
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(words))
    return result.exit_code, result.output


def manifest(folder: str) -> Any:
    return json.loads((Path(folder) / "manifest.json").read_text())


def test_a_described_stem_is_separated_from_the_rest(desk: Path) -> None:
    words = ("--stem", "electric guitar", "--negative", "drums", "--guidance", "1.5", "--evaluations", "2")
    code, said = run("separate", "song.wav", "-n", "words", *words)
    assert code == 0, said
    stems = [soundfile.read(f"separated/words/song/{name}.wav")[0] for name in ("electric-guitar", "rest")]
    np.testing.assert_allclose(sum(stems), soundfile.read("song.wav")[0], atol=1e-5)
    facts = manifest("separated/words/song")
    assert facts["parameters"]["described"] == ["electric guitar", "rest"]
    assert facts["parameters"]["guidance"] == 1.5 and facts["parameters"]["negative"] == ["drums"]
    assert run("separate", "song.wav", "-n", "words", *words, "--skip-existing")[0] == 0
    code, said = run("separate", "song.wav", "-n", "words", *words[:2], "--evaluations", "2", "--skip-existing")
    assert code == 1 and "what differs: options" in said


def test_python_separates_from_the_rest(desk: Path) -> None:
    stems = stemwise.load("words", stems=["bass", "rest"]).separate("song.wav")
    assert stems.names == ("bass", "rest")
    np.testing.assert_allclose(stems.data.sum(1)[0, 0], soundfile.read("song.wav")[0], atol=1e-5)


def test_described_stems_are_made_and_accompany(desk: Path) -> None:
    described = ("--stem", "electric guitar", "--stem", "bass drums")
    code, said = run("generate", "--seconds", "0.2", "--steps", "2", "-n", "words", *described, "--gamma", "0.5")
    assert code == 0, said
    assert set(manifest("generated/words/seed-0")["stems"]) == {"electric-guitar", "bass-drums"}
    code, said = run(
        "accompany", "bass-drums=song.wav", "--steps", "2", "--model", "words", *described, "--negative", "piano"
    )
    assert code == 0, said
    kept, heard = (soundfile.read(file)[0] for file in ("accompanied/words/song/bass-drums.wav", "song.wav"))
    np.testing.assert_array_equal(kept, heard)


def test_mistakes_are_named(desk: Path) -> None:
    code, said = run("generate", "-n", "words", "--stem", "kazoo")
    assert code == 2 and "does not know the word 'kazoo'; it knows bass, drums, electric guitar, piano" in said
    code, said = run("separate", "song.wav", "-n", "words", "--stem", "bass", "--negative", "bass")
    assert code == 2 and "bass is wanted and unwanted at once" in said
    write_tiny_band(desk / "band")
    code, said = run("separate", "song.wav", "-n", "band", "--stem", "bass")
    assert code == 2 and "the model band hears no words" in said and "its stems are bass, drums" in said
    code, said = run("generate", "--midi", "--stem", "bass")
    assert code == 2 and "--stem is about audio" in said
