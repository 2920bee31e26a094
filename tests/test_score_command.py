"""`stemwise score` as a user types it, with an encoder without weights in the place of the bundled one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from plain_encoder import RATE, PlainEncoder, song
from stemwise import cli
from stemwise.audio_io import write_audio
from stemwise.checkpoint import save_model
from stemwise.coherence.cocola import Cocola, CocolaConfig
from stemwise.coherence.plot import plot_over_time

STEMS = song(16.0)
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command among files of a song; `code` is the exit code that must come."""
    monkeypatch.chdir(tmp_path)
    for name, stem in STEMS.items():
        write_audio(f"song/{name}.wav", stem, RATE)
    write_audio("song/mix.wav", sum(STEMS.values()), RATE)
    monkeypatch.setattr("stemwise.loading.load_coherence", lambda model, device: PlainEncoder())

    def call(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(cli.app, ["score", *words])
        assert result.exit_code == code, f"{result.exit_code}\n{result.output}\n{result.exception!r}"
        assert "Traceback" not in result.output
        return result

    return call


def document(result: Any) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(result.stdout, parse_constant=refuse)
    assert found["format"] == 1 and found["verb"] == "score"
    return found


def test_two_files(run: Run) -> None:
    shown = run("song/bass.wav", "song/piano.wav").stdout
    assert "song/piano.wav against song/bass.wav: 16.0 s, 100% of the windows scored" in shown
    for row in ("coherence", "harmonic", "percussive", "in place"):
        assert row in shown
    (result,) = document(run("song/bass.wav", "song/piano.wav", "--json"))["results"]
    assert f"{result['coherence']['mean']:.2f} [" in shown
    assert result["status"] == "done"
    turned = document(run("song/piano.wav", "song/bass.wav", "--json"))["results"][0]
    both = [document(run(*sides, "--symmetric", "--json"))["results"][0]["coherence"]["mean"]
            for sides in (("song/piano.wav", "song/bass.wav"), ("song/bass.wav", "song/piano.wav"))]  # fmt: skip
    assert both[0] == pytest.approx(both[1], abs=2e-4)
    assert both[0] == pytest.approx((result["coherence"]["mean"] + turned["coherence"]["mean"]) / 2, abs=2e-4)


def test_a_folder_of_stems_names_and_several_folders(run: Run) -> None:
    write_audio("song/guitar.wav", song(16.0, seed=5)["guitar"], RATE)
    shown = run("song").stdout
    assert "fits least: guitar" in shown
    assert "mix" not in shown
    files = [f"{name}=song/{name}.wav" for name in STEMS]
    named = document(run(*files, "--json"))["results"][0]
    folder = document(run("song", "--json"))["results"][0]
    assert named["stems"] == {name: folder["stems"][name] for name in named["stems"]}
    assert folder["odd_one"] == "guitar"
    Path("album").mkdir()
    Path("song").rename("album/one")
    write_audio("album/two/bass.wav", STEMS["bass"], RATE)  # one stem only
    result = run("album", code=1)
    assert "album/one" in result.stdout
    assert "album/two: a score needs at least two stems; found bass" in result.stderr


def test_dollars_in_names_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_over_time({"a$^$b": ([0.0], [1.0])}, 5.0, tmp_path / "a.svg", "c$^$d")
    assert (tmp_path / "a.svg").is_file()


def test_a_folder_that_lacks_the_stem_costs_no_other(run: Run) -> None:
    for folder in ("s1", "s2", "s3"):
        for name in ("bass", "piano", "guitar"):
            if (folder, name) != ("s2", "guitar"):
                write_audio(f"{folder}/{name}.wav", STEMS["bass" if name == "bass" else "piano"], RATE)
    result = run("s2", "s1", "s3", "--stem", "guitar", code=1)
    assert "s2: " in result.stderr and "guitar" in result.stderr
    assert "s1" in result.stdout and "s3" in result.stdout


def test_one_stem_is_searched_and_drawn(run: Run, tmp_path: Path) -> None:
    write_audio("song/piano.wav", np.roll(STEMS["piano"], RATE // 4, 1), RATE)
    words = ("song", "--stem", "piano", "--search", "--bpm", "120", "--shifts", "-0.5:0.5:0.5", "--semitones", "0:0")
    result = run(*words, "--plot", "over time.png")
    assert "fits best when moved by -0.250 s (-0.5 beats) and +0 semitones" in result.stdout
    assert Path("over time.png").read_bytes()[:4] == b"\x89PNG"
    best = document(run(*words, "--json"))["results"][0]["search"]["best"]
    assert (best["seconds"], best["semitones"]) == (-0.25, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["over time.png", "song"]


def test_the_same_file_twice_is_scored_and_said(run: Run) -> None:
    result = run("song/bass.wav", "song/bass.wav")
    assert "given as both sides" in result.stderr


def test_a_copy_of_the_context_is_said(run: Run) -> None:
    bass, piano, guitar = np.random.default_rng(3).standard_normal((3, 1, 8 * RATE)) * 0.1
    for name, stem in (("bass", bass), ("piano", piano), ("guitar", guitar)):
        write_audio(f"take/{name}.wav", stem, RATE)
    assert "copy" not in run("take").stdout
    write_audio("take/guitar.wav", -0.5 * (bass + piano), RATE)
    said = "guitar: 100% of it may be a copy of the context upside down (correlation -1.00)"
    assert said in run("take").stdout
    assert said.removeprefix("guitar") in run("take", "--stem", "guitar").stdout
    write_audio("take/guitar.wav", bass + piano, RATE)
    assert "guitar: 100% of it may be a copy of the context (correlation +1.00)" in run("take").stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("song/bass.wav",), 2, "give two files"),
        (("song/bass.wav", "song"), 2, "give two files"),
        (("song/bass.wav", "song/piano.wav", "song/guitar.wav"), 2, "give two files"),
        (("song/bass.wav", "song/piano.wav", "--stem", "piano"), 2, "--stem chooses from a folder"),
        (("song", "--stem", "pianos"), 2, "did you mean 'piano'"),
        (("song", "--search"), 2, "--stem"),
        (("song", "--hop", "9"), 2, "--hop"),
        (("song", "--bpm", "90"), 2, "add --search"),
        (("song", "song2", "--plot", "a.png"), 1, "song2: there is no such file"),
        (("song", "--plot", "a.mp3"), 2, "a.mp3"),
        (("song", "--plot", "nowhere/a.png"), 1, "nowhere/a.png"),
        (("song", "--stem", "bass", "--search", "--shifts", "1:0:0.1"), 2, "--shifts"),
        (("song", "--stem", "bass", "--search", "--shifts=-0.05:0.05:0.125"), 2, "but 0; give smaller steps"),
        (("song", "--stem", "bass", "--search", "--shifts", "0:1"), 2, "START:END:STEP"),
        (("song", "--stem", "bass", "--search", "--shifts", "0:nan:1"), 2, "--shifts"),
        (("song", "--stem", "bass", "--search", "--semitones", "0:30"), 2, "24 semitones"),
        (("bass=song/bass.wav", "bass=song/piano.wav"), 2, "name of its own"),
        (("bass=song/bass.wav",), 1, "at least two stems"),
        (("song/bass.wav", "song/none.wav"), 1, "no such file"),
        (("empty",), 1, "no audio files"),
        (("silent.wav", "song/bass.wav"), 1, "never both audible"),
        (("song/bass.wav", "click.wav"), 1, "0.010 s long"),
        (("song/bass.wav", "nan.wav"), 1, "nan"),
        (("song/bass.wav", "text.wav"), 1, "not an audio file"),
    ],
)
def test_bad_input(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    import soundfile

    Path("empty").mkdir()
    write_audio("silent.wav", 0 * STEMS["bass"], RATE)
    write_audio("click.wav", STEMS["bass"][:, :160], RATE)
    soundfile.write("nan.wav", np.full(40000, np.nan), RATE, subtype="FLOAT")
    Path("text.wav").write_text("not audio")
    result = run(*words, code=code)
    assert said in result.stderr
    assert not list(Path().glob("*.png"))


def test_missing_packages_name_their_extra_before_the_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "stemwise[eval]" in run("song", "--plot", "a.png", code=3).stderr


def test_a_model_folder_is_loaded_and_others_refused(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    save_model(Path("tiny"), Cocola(CocolaConfig(scale=0.25)))
    (result,) = document(run("song/bass.wav", "song/piano.wav", "--model", "tiny", "--hop", "5", "--json"))["results"]
    assert result["coherence"]["stretches"] == 3  # windows at 0, 5, 10 and 11 s
    assert "no model named 'cocolla'" in run("song", "--model", "cocolla", code=3).stderr
    assert "does not score coherence" in run("song", "--model", "band", code=3).stderr
