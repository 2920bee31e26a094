"""`accompany -n 4 --rank` and `generate --count 4 --rank`: the best take is take-1, and its manifest says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from plain_encoder import PlainEncoder
from stemwise import cli
from stemwise.audio_io import read_audio, write_audio
from stemwise.model import Model
from stemwise.scores import Listening, score_parts
from stemwise.stems import Audio
from tiny_band import RATE, music, write_tiny_band

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_band(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stemwise.loading.load_coherence", lambda model="cocola", device="auto": PlainEncoder())
    write_audio("take.wav", music(1.5), RATE)

    def call(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(cli.app, [*words, "--model", str(model), "--steps", "1"])
        assert result.exit_code == code, f"{result.exit_code}\n{result.output}\n{result.exception!r}"
        assert "Traceback" not in result.output
        return result

    return call


def manifests(folder: str) -> list[dict[str, Any]]:
    return [json.loads((path / "manifest.json").read_text()) for path in sorted(Path(folder).iterdir())]


def test_takes_are_in_the_order_of_their_coherence(run: Run) -> None:
    words = ("accompany", "guitar=take.wav", "--want", "bass,drums", "--seed", "3")
    shown = run(*words, "-n", "3", "--rank", "coherence").stdout
    found = manifests("accompanied/tiny/take")
    assert [m["rank"] for m in found] == [1, 2, 3]
    assert sorted(m["seed"] for m in found) == [3, 4, 5]
    assert [m["worth"] for m in found] == sorted((m["worth"] for m in found), reverse=True)
    assert f"seed {found[0]['seed']}, coherence {found[0]['worth']:.2f}" in shown
    best = score_parts("accompanied/tiny/take/take-1", ["guitar"], ["bass", "drums"], how=Listening(PlainEncoder()))
    assert best.coherence.mean == pytest.approx(found[0]["worth"], abs=1e-3)
    assert found[0]["score"]["coherence"]["mean"] == found[0]["worth"]
    run(*words[:-1], str(found[0]["seed"]), "-o", "again")  # the seed in the manifest makes the same take
    again = read_audio("again/tiny/take/bass.wav")[0]
    assert np.array_equal(again, read_audio("accompanied/tiny/take/take-1/bass.wav")[0])
    assert np.array_equal(read_audio("accompanied/tiny/take/take-1/guitar.wav")[0], read_audio("take.wav")[0])


def test_a_copy_of_what_was_heard_comes_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    accompany = Model.accompany

    def copying(self: Model, *given: Any, seed: int, **wishes: Any) -> Audio:
        audio = accompany(self, *given, seed=seed, **wishes)
        if seed == 1:
            audio.data[:, audio.names.index("bass")] = -0.5 * audio.data[:, audio.names.index("guitar")]
        return audio

    monkeypatch.setattr(Model, "accompany", copying)
    run("accompany", "guitar=take.wav", "--want", "bass", "-n", "3", "--rank", "coherence")
    found = manifests("accompanied/tiny/take")
    assert found[-1]["seed"] == 1 and found[-1]["score"]["correlation"] == pytest.approx(-1, abs=1e-3)
    assert found[-1]["worth"] > found[0]["worth"] >= found[1]["worth"], "though the encoder likes it best"


def test_energy_is_the_norm_of_what_is_new(run: Run) -> None:
    run("accompany", "guitar=take.wav", "--want", "bass", "-n", "3", "--rank", "energy")
    found = manifests("accompanied/tiny/take")
    norms = [np.linalg.norm(read_audio(f"accompanied/tiny/take/take-{k}/bass.wav")[0].astype(float)) for k in (1, 2, 3)]
    assert norms == sorted(norms, reverse=True)
    assert [m["worth"] for m in found] == pytest.approx(norms, rel=1e-3)


def test_generated_pieces_are_ranked_by_how_their_stems_fit(run: Run) -> None:
    run("generate", "--seconds", "1.2", "--count", "2", "--rank", "coherence", "--seed", "5")
    found = manifests("generated/tiny/seed-5")
    assert found[0]["worth"] >= found[1]["worth"]
    assert set(found[0]["score"]["stems"]) == {"bass", "drums", "guitar", "piano", "other"}
    run("generate", "--seconds", "1.2", "--rank", "energy", "--name", "one")
    assert json.loads(Path("generated/tiny/one/manifest.json").read_text())["rank"] == 1
    assert "at least two" in run("generate", "--stems", "bass", "--rank", "coherence", code=2).stderr


def test_what_is_there_is_refused_or_skipped_before_anything_is_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("accompany", "guitar=take.wav", "--want", "bass", "-n", "2", "--rank", "energy")
    run(*words)
    before = manifests("accompanied/tiny/take")
    with monkeypatch.context() as patch:
        patch.setattr("stemwise.model.Model.accompany", lambda *args, **kwargs: pytest.fail("made"))
        assert "exists already" in run(*words, code=1).stderr
        assert "skipped" in run(*words, "--skip-existing").stdout
        assert "what differs: options" in run(*words[:-1], "coherence", "--skip-existing", code=1).stderr
        lost = Path("accompanied/tiny/take/take-2").rename("elsewhere")
        assert "only 1 of its 2 takes" in run(*words, "--skip-existing", code=1).stderr
        lost.rename("accompanied/tiny/take/take-2")
        Path("accompanied/tiny/take/take-2/own.txt").write_text("mine")
        assert "own.txt" in run(*words, "--overwrite", code=1).stderr
        Path("accompanied/tiny/take/take-2/own.txt").unlink()
    run(*words, "--overwrite")
    after = manifests("accompanied/tiny/take")
    assert [m["stems"]["bass"]["sha256"] for m in after] == [m["stems"]["bass"]["sha256"] for m in before]


def test_takes_too_short_to_be_scored_are_kept(run: Run) -> None:
    write_audio("short.wav", music(0.5), RATE)
    result = run("accompany", "guitar=short.wav", "--want", "bass", "-n", "2", "--rank", "coherence")
    assert "at least 1 s" in result.stderr
    assert [m["worth"] for m in manifests("accompanied/tiny/short")] == [None, None]
    assert [m["seed"] for m in manifests("accompanied/tiny/short")] == [0, 1]


def test_takes_and_single_results_do_not_meet(run: Run) -> None:
    words = ("accompany", "guitar=take.wav", "--want", "bass")
    run(*words, "-n", "3", "--rank", "energy")
    run(*words, "-n", "2", "--rank", "energy", "--seed", "5", "--overwrite")
    assert [m["rank"] for m in manifests("accompanied/tiny/take")] == [1, 2], "the third is of the contest before"
    assert "holds takes" in run(*words, "--overwrite", code=1).stderr
    run(*words, "-o", "one")
    for extra in ((), ("--rank", "energy")):
        assert "holds one result" in run(*words, "-n", "2", *extra, "-o", "one", code=1).stderr
    assert "give a name" in run(*words, "--name", ".", "-o", "two", code=2).stderr
