"""The K-way test: exact, and the same as drawing negatives again and again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stemwise.coherence.accuracy import embedded, found, k_way, pairs_of
from stemwise.coherence.cocola import Cocola, CocolaConfig
from stemwise.errors import ScoreError
from stemwise.songs import Song, folder

SONGS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("negatives", ["same song", "other songs"])
@pytest.mark.parametrize("k", [2, 3])
def test_it_is_the_mean_over_draws(negatives: str, k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((10, 10)) + np.eye(10)
    chances = found(scores, SONGS, k, negatives)
    for row in range(9):
        others = [j for j in range(10) if j != row and (SONGS[j] == SONGS[row]) == (negatives == "same song")]
        drawn = [rng.choice(others, k - 1, replace=False) for _ in range(2000)]
        assert chances[row] == pytest.approx(
            np.mean([scores[row, d].max() < scores[row, row] for d in drawn]), abs=0.05
        )
    assert np.isnan(chances[9]) == (negatives == "same song")  # it is alone in its song


def test_perfect_scores_find_all_and_ties_nothing() -> None:
    assert (found(np.eye(10), SONGS, 5, "other songs") == 1).all()
    assert (found(np.zeros((10, 10)), SONGS, 2, "other songs") == 0).all()


def test_too_few_negatives_have_no_answer() -> None:
    assert np.isnan(found(np.eye(10), SONGS, 64, "other songs")).all()


def test_embeddings_are_those_of_the_encoder_whatever_the_batch() -> None:
    torch.manual_seed(0)
    encoder = Cocola(CocolaConfig(encoder="timeline", embedding=16)).eval()
    signals = torch.randn(18, 80_000)
    rows = embedded(encoder, list(signals.numpy()), "harmonic")
    with torch.no_grad():
        expected = encoder.embed(encoder.mask(encoder.features(signals[16:]), "harmonic"))
    assert rows.shape == (18, 16)
    assert torch.allclose(rows[16:], expected, atol=1e-5)


def songs(tmp_path: Path) -> list[Song]:
    rng = np.random.default_rng(0)
    for number in range(3):
        (tmp_path / f"song-{number}").mkdir()
        for stem in ("bass", "drums", "piano"):
            audio = 0.1 * rng.standard_normal(8000 * 17)
            audio[8000 * 10 :] *= stem == "bass"  # nothing to pair after 10 s
            soundfile.write(tmp_path / f"song-{number}" / f"{stem}.wav", audio, 8000)
    return folder(tmp_path)


def test_pairs_come_from_windows_with_two_sounding_stems_and_do_not_depend_on_other_songs(tmp_path: Path) -> None:
    encoder = Cocola(CocolaConfig(encoder="timeline", embedding=16)).eval()
    three = songs(tmp_path)
    pairs = pairs_of(three, encoder)
    assert pairs.signals.shape == (6, 2, 80_000)
    assert pairs.songs == ("song-0", "song-0", "song-1", "song-1", "song-2", "song-2")
    assert np.array_equal(pairs_of(three[1:], encoder).signals, pairs.signals[2:])
    assert not np.array_equal(pairs_of(three, encoder, seed=1).signals, pairs.signals)
    single = pairs_of(three, encoder, "single stems")
    assert np.abs(single.signals.std(-1) / single.signals.std() - 1).max() < 0.1
    chances = k_way(encoder, pairs, 2, "same song")
    assert chances.shape == (6,) and set(chances) <= {0.0, 1.0}


def test_silent_songs_have_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "song").mkdir()
    for stem in ("bass", "drums"):
        soundfile.write(tmp_path / "song" / f"{stem}.wav", np.zeros(8000 * 6), 8000)
    with pytest.raises(ScoreError, match="two sounding stems"):
        pairs_of(folder(tmp_path), Cocola(CocolaConfig(encoder="timeline", embedding=16)))
