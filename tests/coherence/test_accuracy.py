"""The K-way test: exact, and the same as drawing negatives again and again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stemwise.coherence.accuracy import embedded, found
from stemwise.coherence.cocola import Cocola, CocolaConfig

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
