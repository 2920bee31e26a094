"""`stemwise fad` as a user meets it, with an embedding of two numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy_embedding import Toy
from typer.testing import CliRunner

from stemwise import cli
from stemwise.audio_io import write_audio
from stemwise.metrics.frechet import frechet_audio_distance


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("stemwise.embeddings.load_embedding", lambda name, model, device: Toy())
    monkeypatch.setenv("STEMWISE_CACHE", str(tmp_path / "cache"))
    for folder, gain in (("real", 0.1), ("made", 0.15)):
        for index in range(4):
            random = np.random.default_rng(100 * index + int(1000 * gain))
            signal = (gain * (1 + 0.1 * index) * random.standard_normal((1, 16_000))).astype(np.float32)
            write_audio(tmp_path / folder / f"{index}.wav", signal, 8000)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["fad", *words])
    return result.exit_code, result.output


def document(*words: str) -> dict:
    code, output = run(*words, "--json")
    assert code == 0, output
    return json.loads(output)


def frames(folder: Path) -> np.ndarray:
    from stemwise.embeddings import read_frames

    return np.concatenate([read_frames(file, Toy()) for file in sorted(folder.iterdir())])


def test_folders(desk: Path) -> None:
    found = document("real", "made")
    assert found["fad"] == pytest.approx(frechet_audio_distance(frames(desk / "real"), frames(desk / "made")))
    low, high = found["interval"]
    assert 0 <= low < found["fad"] < high
    assert (found["songs"], found["generated_frames"], found["reference_frames"]) == (4, 80, 80)
    assert found == document("real", "made")
    code, output = run("real", "made")
    assert code == 0 and f"FAD {found['fad']:.4f}" in output


def test_statistics_stand_for_either_side(desk: Path) -> None:
    found = document("real", "made", "--save-statistics", "real.npz")
    assert document("real.npz", "made")["fad"] == pytest.approx(found["fad"], abs=1e-9)
    assert document("made", "real.npz")["fad"] == pytest.approx(found["fad"], abs=1e-9)


def test_songs_and_infinity(desk: Path) -> None:
    found = document("real", "made", "--per-song", "--infinity", "--smallest", "30")
    assert list(found["per_song"]) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert found["per_song"]["3.wav"] > found["per_song"]["0.wav"]
    assert found["infinity"]["sizes"][-1] == 80
    code, output = run("real", "made", "--per-song", "--infinity", "--smallest", "30")
    assert code == 0 and "FAD∞" in output and "3.wav" in output


def test_one_file_is_a_set_of_one_song(desk: Path) -> None:
    found = document("real", "made/0.wav")
    assert found["songs"] == 1 and found["interval"] is None, "one song says nothing of others"
    assert "[" not in run("real", "made/0.wav")[1]


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["nothing", "made"], 1, "no such file"),
        (["real", "empty"], 1, "no audio files"),
        (["real", "made", "--infinity"], 1, "80 frames are too few"),
        (["real", "short.wav"], 1, "short.wav: 1 frame"),
        (["short.wav", "made"], 1, "short.wav: 1 frame"),
        (["real", "made", "--save-statistics", "nowhere/out.npz"], 1, "cannot be written"),
        (["real", "text.wav"], 1, "text.wav"),
        (["text.npz", "made"], 1, "text.npz"),
        (["real", "made", "--save-statistics", "out.txt"], 2, ".npz"),
        (["real", "text.npz", "--per-song"], 2, "need generated audio"),
    ],
)
def test_bad_input(desk: Path, words: list[str], code: int, problem: str) -> None:
    write_audio(desk / "short.wav", np.full((1, 900), 0.1, np.float32), 8000)
    (desk / "text.wav").write_text("hello")
    (desk / "text.npz").write_text("hello")
    found, output = run(*words)
    assert found == code and problem in output
    assert "nan" not in output.lower() and "Traceback" not in output
