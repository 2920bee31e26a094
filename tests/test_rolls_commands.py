"""Priors of rolls from the command line: phrases and MIDI are made, trained on, separated into samples."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

import stemwise.songs.phrases as phrases_module
from stemwise import checkpoint, cli
from stemwise.songs.phrases import roll_songs
from tiny_rolls import tiny_prior

symusic = pytest.importorskip("symusic")
ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "mixture2music"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def midi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rolls") / "midi"
    done = run("songs", "make", folder, "--midi", "--count", 3, "--seconds", 20)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("lakh"), tmp_path_factory.mktemp("phrases") / "out"
    for name in ("grid", "rules"):
        (source / f"{name}.mid").write_bytes((FIXTURES / f"preprocess_{name}.mid").read_bytes())
    (source / "bad.mid").write_bytes(b"MThd")
    (out.parent / "melodies.json").write_text('{"rules.mid": 24, "grid": 73}')
    done = run("songs", "phrases", source, out, "--melodies", out.parent / "melodies.json", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["phrases"] == 8
    return out


def test_songs_are_made_as_midi_alone(midi: Path) -> None:
    assert sorted(file.name for file in midi.iterdir()) == [f"song-00000{k}.mid" for k in range(3)]
    assert {t.name for t in symusic.Score(str(midi / "song-000000.mid")).tracks} <= {
        "bass",
        "drums",
        "guitar",
        "piano",
        "other",
    }


@pytest.mark.parametrize(("recipe", "net"), [
    ("mixture2music-band", "{inputs: 29, outputs: 10, widths: [8, 8, 8, 8], kernel: 3, layers: 1, heads: 2, rows: 72}"),
    ("mixture2music-lakh", "{widths: [8, 8, 8, 8], layers: 1, positions: published, bottleneck: published}"),
])  # fmt: skip
def test_recipes_train_resume_and_export(recipe: str, net: str, midi: Path, phrases: Path, tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text())
    document["data"].update({"train": str(midi if recipe.endswith("band") else phrases), "valid": [], "workers": 0})
    document["run"] = str(tmp_path / "run")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document))
    shared = [f"model.config.net={net}", "train.batch=2", "train.checkpoint_every=1"]
    for steps in (2, 3):
        done = run("train", tmp_path / "r.yaml", *shared, f"train.steps={steps}", "optim.muon=[]", "-q")
        assert done.exit_code == 0, done.output
    done = run("export", tmp_path / "run", tmp_path / "model", "--dtype", "float16")
    assert done.exit_code == 0, done.output
    assert checkpoint.load_model(tmp_path / "model").config.window == 64


def test_samples_are_pictures_sounds_and_midi(midi: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = checkpoint.save_model(tmp_path / "model", tiny_prior())
    out = tmp_path / "samples"
    done = run("rolls", midi, "--model", model, "-o", out, "--count", 1, "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["consistency"] == 0.0
    assert 0 <= figures["label_accuracy"] < 1
    assert sorted(file.name for file in (out / "000").iterdir()) == [
        "image.png", "original.mid", "original.wav", "separated.mid", "separated.wav"
    ]  # fmt: skip
    again = run("rolls", midi, "--model", model, "-o", out)
    assert again.exit_code == 1
    assert "exists already" in again.output
    (out / "thesis.txt").write_text("mine")
    kept = run("rolls", midi, "--model", model, "-o", out, "--count", 1, "--overwrite")
    assert kept.exit_code == 1 and "'thesis.txt'" in kept.output and (out / "thesis.txt").is_file()
    (out / "thesis.txt").rename(out / "000" / "thesis.txt")
    kept = run("rolls", midi, "--model", model, "-o", out, "--count", 1, "--overwrite")
    assert kept.exit_code == 1 and "'thesis.txt'" in kept.output
    (out / "000" / "thesis.txt").unlink()
    (out / "mine").mkdir()
    (out / "mine" / "image.png").touch()
    kept = run("rolls", midi, "--model", model, "-o", out, "--count", 1, "--overwrite")
    assert kept.exit_code == 1 and "'mine/image.png'" in kept.output and (out / "mine" / "image.png").is_file()
    kept = run("rolls", midi, "--model", model, "-o", out / "mine" / "image.png", "--overwrite")
    assert kept.exit_code == 1 and "is a file" in kept.output and (out / "mine" / "image.png").is_file()
    (out / "mine" / "image.png").unlink()
    (out / "mine").rmdir()
    assert run("rolls", midi, "--model", model, "-o", out, "--count", 1, "--overwrite").exit_code == 0
    wrong = run("rolls", midi, "--model", model, "-o", tmp_path / "x", "--published")
    assert wrong.exit_code == 2
    assert not (tmp_path / "x").exists()


def test_a_split_is_that_of_the_training(midi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another seed than the recipe's, its test songs may have been training songs."""
    pytest.importorskip("matplotlib")
    model = checkpoint.save_model(tmp_path / "model", tiny_prior())
    heard: list[set[str]] = []
    monkeypatch.setattr(phrases_module, "RollWindows", lambda songs, *_: heard.append({s.name for s in songs}) or [])
    for seed in (0, 3):
        run("rolls", midi, "--model", model, "--split", "train", "--split-seed", seed, "-o", tmp_path / str(seed))
        assert heard.pop() == {song.name for song in roll_songs(midi, "train", seed)}
    assert {s.name for s in roll_songs(midi, "train", 0)} != {s.name for s in roll_songs(midi, "train", 3)}


def test_a_split_goes_with_a_folder(midi: Path, tmp_path: Path) -> None:
    done = run("rolls", midi / "song-000000.mid", "--split", "test", "-o", tmp_path / "out")
    assert done.exit_code == 2 and "--split goes with a folder" in done.output


def test_the_extra_for_pictures_is_asked_for_before_sampling(
    midi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    model = checkpoint.save_model(tmp_path / "model", tiny_prior())
    done = run("rolls", midi, "--model", model, "-o", tmp_path / "out", "--count", 1)
    assert done.exit_code == 3 and "stemwise[eval]" in done.output
    assert not (tmp_path / "out").exists()


def test_recipes_that_do_not_fit_their_data(midi: Path, tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "mixture2music-band.yaml"
    missing = run(
        "train", recipe, f"data.train={midi}", "data.valid=[]", "data.rolls=null", f"run={tmp_path / 'a'}", "-q"
    )
    assert missing.exit_code != 0
    other = run(
        "train",
        ROOT / "recipes" / "band-tiny.yaml",
        f"data.train={midi}",
        "data.rolls={}",
        f"run={tmp_path / 'b'}",
        "-q",
    )
    assert other.exit_code == 2
    assert "does not learn from rolls" in other.output
    unused = run("train", recipe, f"data.train={{path: {midi}, weight: 2}}", f"run={tmp_path / 'c'}", "-q")
    assert unused.exit_code == 2 and "data sets of rolls have no weight" in unused.output
    bad = run("songs", "phrases", midi, midi / "inside")
    assert bad.exit_code == 2
