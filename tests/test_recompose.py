"""Any mix from any other: one question for every task, of any length, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import stemwise
from stemwise import checkpoint
from stemwise.audio_io import write_audio
from stemwise.cli import app
from stemwise.errors import QueryError
from tiny_band import write_tiny_band
from tiny_componet import STEMS, tiny

RATE = 11025


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save_model(tmp_path_factory.mktemp("model") / "componet", tiny())


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, round(1.3 * RATE)))
    return noise.astype(np.float32)


@pytest.mark.parametrize(
    ("heard", "wanted"),
    [(("bass",), ("drums", "piano")), (("bass",), ("bass", "drums")), (("bass", "drums"), ("bass", "guitar"))],
    ids=["accompany", "add", "replace"],
)
def test_new_mixes_have_the_shape_of_what_was_heard(
    folder: Path, song: np.ndarray, heard: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    model = stemwise.load(folder)
    made = stemwise.recompose(model, song, heard, wanted, rate=RATE, seed=5, steps=2)
    assert made.names == ("+".join(wanted),) and made.data.shape == (1, 1, *song.shape) and made.rate == RATE
    again = stemwise.recompose(model, song, heard, wanted, rate=RATE, seed=5, steps=2)
    other = stemwise.recompose(model, song, heard, wanted, rate=RATE, seed=6, steps=2)
    assert torch.equal(made.data, again.data) and not torch.equal(made.data, other.data)


def test_candidates_of_one_batch_are_those_of_their_seeds(folder: Path, song: np.ndarray) -> None:
    """Over several windows, each continuing its own."""
    model = stemwise.load(folder)
    long = np.tile(song, 3)
    made = stemwise.recompose(model, long, ("bass",), ("drums",), rate=RATE, seed=(5, 6), steps=2)
    assert made.data.shape == (2, 1, *long.shape)
    for candidate, seed in zip(made.data, (5, 6)):
        alone = stemwise.recompose(model, long, ("bass",), ("drums",), rate=RATE, seed=seed, steps=2).data[0]
        assert float((candidate - alone).abs().max() / alone.abs().max()) < 1e-2
    with pytest.raises(QueryError, match="one for each candidate"):
        stemwise.recompose(model, song, ("bass",), ("drums",), rate=RATE, seed=())


def test_parts_of_what_was_heard_sum_to_it(folder: Path, song: np.ndarray) -> None:
    """In stereo: two wanted stems in one pass, and the other two."""
    model = stemwise.load(folder)
    halves = [
        stemwise.recompose(model, song, STEMS, side, rate=RATE, steps=2).data[0, 0]
        for side in (("bass", "drums"), ("guitar", "piano"))
    ]
    assert halves[0].shape == song.shape and not torch.allclose(halves[0][0], halves[0][1])
    rest = song - halves[0].numpy()
    assert float(np.abs(rest).max()) > 1e-3


def test_windows_continue_each_other(folder: Path) -> None:
    """What a window begins with is what the one before ended with."""
    model = stemwise.load(folder)
    calls: list[torch.Tensor] = []
    answer = model.system.answer  # type: ignore[attr-defined]

    def spy(mix: torch.Tensor, heard: object, wanted: object, *, fixed: object, **rest: object) -> torch.Tensor:
        made = answer(mix, heard, wanted, fixed=fixed, **rest)
        if calls:
            signal, where = fixed  # type: ignore[misc]
            count = int(where.sum())
            assert count and torch.equal(signal[0, :count], calls[-1][-count:])
            made = torch.where(where, signal, made)
        else:
            assert fixed is None
        calls.append(made[0])
        return made

    object.__setattr__(model.system, "answer", spy)
    made = stemwise.recompose(model, None, (), ("bass",), seconds=1.2, steps=1)
    assert made.data.shape == (1, 1, 1, 9600) and len(calls) == 3


def test_on_the_command_line(folder: Path, song: np.ndarray, tmp_path: Path) -> None:
    write_audio(tmp_path / "mix.wav", song, RATE)
    words = ["edit", str(tmp_path / "mix.wav"), "--heard", "bass,drums", "--wanted", "bass,guitar", "--model", str(folder),
             "--steps", "1", "-o", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    made = tmp_path / "out" / "componet" / "mix-bass-drums-to-bass-guitar"
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["parameters"]["wanted"] == ["bass", "guitar"] and (made / "bass+guitar.wav").is_file()
    deaf = CliRunner().invoke(app, [*words, "--strength", "0", "-o", str(tmp_path / "deaf")])
    assert deaf.exit_code == 0, deaf.output
    unheard = tmp_path / "deaf" / "componet" / made.name
    assert json.loads((unheard / "manifest.json").read_text())["parameters"]["strength"] == 0
    assert (unheard / "bass+guitar.wav").read_bytes() != (made / "bass+guitar.wav").read_bytes()
    refused = CliRunner().invoke(app, [*words, "--remove", "bass"])
    assert refused.exit_code == 2 and "go together" in refused.output


def test_questions_that_contradict_themselves(folder: Path, song: np.ndarray, tmp_path: Path) -> None:
    model = stemwise.load(folder)
    with pytest.raises(QueryError, match="no stem named 'flute'"):
        stemwise.recompose(model, song, ("flute",), ("bass",), rate=RATE)
    for source, heard in ((song, ()), (None, ("bass",)), (None, ())):
        with pytest.raises(QueryError, match="or neither and seconds"):
            stemwise.recompose(model, source, heard, ("bass",), rate=RATE)
    with pytest.raises(QueryError, match="nothing is wanted"):
        stemwise.recompose(model, song, ("bass",), (), rate=RATE)
    write_tiny_band(tmp_path / "band")
    with pytest.raises(QueryError, match="makes stems, not mixes"):
        stemwise.recompose(stemwise.load(tmp_path / "band"), song, ("bass",), ("drums",), rate=RATE)
