"""A latent model through the public interface: every verb, both ways to the waves of separated stems."""

from __future__ import annotations

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
from tiny_msgld import tiny

RATE = 22050


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save_model(tmp_path_factory.mktemp("model") / "latent", tiny(steps=2))


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    time = np.arange(RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 220 * time) + 0.02 * np.random.default_rng(0).standard_normal(RATE)
    return np.stack([tone, 0.5 * tone]).astype(np.float32)


def test_stereo_stems_of_another_rate_sum_to_the_song(folder: Path, song: np.ndarray) -> None:
    model = stemwise.load(folder)
    stems, report = model.separate_report(song, rate=RATE)
    assert stems.data.shape == (1, 4, 2, RATE)
    np.testing.assert_allclose(stems.data[0].sum(0).numpy(), song, atol=1e-5)
    assert report.null_dbfs < -100


def test_the_vocoders_stems_are_not_closed(folder: Path, song: np.ndarray) -> None:
    """Nothing is added to what the vocoder made, and the null test says what it lacks."""
    stems, report = stemwise.load(folder, phase="vocoder").separate_report(song, rate=RATE)
    assert stems.data.shape == (1, 4, 2, RATE)
    assert float((stems.data[0].sum(0) - torch.from_numpy(song)).abs().max()) > 1e-3
    assert report.null_dbfs > -100
    lacking = torch.from_numpy(song) - stems.data[0].sum(0)
    assert report.unassigned_share == pytest.approx(float(lacking.square().sum()) / float((song**2).sum()), rel=1e-3)


def test_generate_accompany_and_edit(folder: Path, song: np.ndarray) -> None:
    model = stemwise.load(folder)
    piece = model.generate(0.7)
    assert piece.data.shape == (1, 4, 1, 5600)
    assert torch.equal(piece.data, model.generate(0.7, steps=2).data), "the configuration's number of steps"
    both = model.accompany({"guitar": song}, ["bass"], rate=RATE, steps=2)
    assert both.names == ("guitar", "bass")
    np.testing.assert_array_equal(both["guitar"][0].numpy(), song)
    changed = model.edit(both, replace=["bass"], span=(0.2, 0.6), steps=2)
    outside = round(0.2 * RATE)
    torch.testing.assert_close(changed.data[..., :outside], both.data[..., :outside], atol=0, rtol=0)


def test_guidance_towards_the_mixture_can_be_asked_for(folder: Path, song: np.ndarray) -> None:
    """0 does not hear the mixture, 1 is the model's own; the other wish stays as it was."""
    own, exaggerated, deaf = (
        stemwise.load(folder, phase="vocoder", guidance=guidance).separate(song, rate=RATE, evaluations=2).data
        for guidance in (1.0, 3.0, 0.0)
    )
    plain = stemwise.load(folder, phase="vocoder").separate(song, rate=RATE, evaluations=2).data
    louder = stemwise.load(folder, phase="vocoder", guidance=0.0).separate(2 * song, rate=RATE, evaluations=2).data
    assert torch.equal(own, plain) and not torch.equal(own, exaggerated) and torch.equal(deaf, louder)
    assert stemwise.load(folder, guidance=3.0).system.sums


@pytest.mark.parametrize("words", [("--stem", "slap bass"), ("--negative", "voice")], ids=["stem", "negative"])
@pytest.mark.parametrize(
    "verb", [("generate", "--seconds", "0.5"), ("separate", "song.wav")], ids=["generate", "separate"]
)
def test_words_for_a_model_that_hears_none_are_refused_with_its_stems(
    folder: Path,
    song: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "song.wav", song, RATE)
    refused = CliRunner().invoke(app, [*verb, *words, "--model", str(folder)])
    said = " ".join(refused.stderr.split())
    assert refused.exit_code == 2 and "hears no words" in said
    assert "its stems are bass, drums, guitar, piano: choose among them by name" in said and "gmsdi-band" in said


def test_phase_is_for_latent_models(folder: Path) -> None:
    with pytest.raises(QueryError, match="takes no phase"):
        stemwise.load("band", phase="vocoder")
    with pytest.raises(QueryError, match="choose mixture or vocoder"):
        stemwise.load(folder, phase="magic")
