from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from plain_encoder import RATE, PlainEncoder, song
from stemwise.coherence.scoring import Heard, curve, embed_parts, hear, level_dbfs, preference
from stemwise.coherence.windows import aligned_windows

BASS, PIANO, REST = frozenset({"bass"}), frozenset({"piano"}), frozenset({"piano", "guitar"})


def listen(stems: dict[str, np.ndarray], hop: float = 2.5, encoder: PlainEncoder | None = None) -> Heard:
    encoder = encoder or PlainEncoder()
    windows = aligned_windows(stems, RATE, encoder.window, round(hop * RATE), RATE)
    return hear(encoder, tuple(stems), windows, [BASS, PIANO, REST])


@pytest.fixture(scope="module")
def stems() -> dict[str, np.ndarray]:
    return song(27.0)


def test_rows_are_sums_and_the_parts_are_masked(stems: dict[str, np.ndarray]) -> None:
    heard, encoder = listen(stems), PlainEncoder()
    assert list(heard.starts) == [*np.arange(0, 22.1, 2.5), 22.0][: len(heard.starts)]
    second = slice(round(2.5 * RATE), round(7.5 * RATE))
    both = torch.from_numpy(stems["piano"] + stems["guitar"])[:, second]
    expected = embed_parts(encoder, both)[0]
    torch.testing.assert_close(heard.embeddings[heard.rows.index(REST), :, 1], expected, atol=1e-5, rtol=1e-4)
    harmonic = encoder.embed(encoder.mask(encoder.features(both), "harmonic"))[0]
    torch.testing.assert_close(expected[1], harmonic)
    assert not torch.allclose(expected[0], expected[2])


def test_a_curve_is_the_similarity_of_its_windows(stems: dict[str, np.ndarray]) -> None:
    heard, encoder = listen(stems), PlainEncoder()
    found = curve(encoder, heard, REST, BASS)
    x, y = heard.embeddings[heard.rows.index(REST)], heard.embeddings[heard.rows.index(BASS)]
    for p, part in enumerate(encoder.parts):
        np.testing.assert_allclose(found.scores[part], encoder.similarity(x[p], y[p]).diagonal(), rtol=1e-5)
    assert found.coverage == 1.0


def test_symmetric_is_the_mean_of_both_orders(stems: dict[str, np.ndarray]) -> None:
    heard, encoder = listen(stems), PlainEncoder()
    there, back = curve(encoder, heard, REST, BASS), curve(encoder, heard, BASS, REST)
    symmetric = curve(encoder, heard, BASS, REST, "symmetric")
    assert np.abs(there.scores["both"] - back.scores["both"]).max() > 1e-3
    np.testing.assert_allclose(symmetric.scores["both"], (there.scores["both"] + back.scores["both"]) / 2, rtol=1e-5)


def test_long_songs_are_compared_in_pieces(stems: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    heard = listen(stems)
    whole = curve(PlainEncoder(), heard, REST, BASS)
    monkeypatch.setattr("stemwise.coherence.scoring._ROWS", 3)
    pieces = curve(PlainEncoder(), heard, REST, BASS)
    np.testing.assert_allclose(pieces.scores["both"], whole.scores["both"], rtol=1e-5)
    np.testing.assert_allclose(pieces.chances, whole.chances, rtol=1e-5)


def test_windows_with_a_silent_side_are_left_out(stems: dict[str, np.ndarray]) -> None:
    """Also nearly silent ones: the encoder would hear them at full loudness."""
    quiet = {**stems, "bass": stems["bass"].copy()}
    quiet["bass"][:, 10 * RATE :] *= 10 ** (-80 / 20)
    found = curve(PlainEncoder(), listen(quiet), REST, BASS)
    assert list(found.starts) == [0.0, 2.5, 5.0, 7.5]
    assert found.coverage == pytest.approx(0.4)
    silent = curve(PlainEncoder(), listen({**stems, "bass": 0 * stems["bass"]}), REST, BASS)
    assert len(silent.starts) == 0
    assert listen({**stems, "bass": 0 * stems["bass"]}).correlation(REST, BASS) == 0.0
    assert silent.coverage == 0.0


def test_negatives_do_not_overlap_and_their_preference_is_a_mean_of_sigmoids(stems: dict[str, np.ndarray]) -> None:
    heard, encoder = listen(stems), PlainEncoder()
    found = curve(encoder, heard, REST, BASS)
    x, y = heard.embeddings[heard.rows.index(REST)][0], heard.embeddings[heard.rows.index(BASS)][0]
    table = encoder.similarity(x, y)
    far = [j for j, start in enumerate(heard.starts) if abs(start - heard.starts[0]) >= 5]
    expected = torch.sigmoid(table[0, 0] - table[0, far]).mean()
    assert found.chances[0] == pytest.approx(float(expected), rel=1e-5)
    assert found.chances.mean() > 0.6  # the stems do play together


def test_preference_of_a_row_without_negatives_is_no_number() -> None:
    chances = preference(np.zeros(2), np.zeros((2, 2)), np.array([[False, True], [False, False]]))
    assert chances[0] == 0.5
    assert np.isnan(chances[1])


def test_level_of_silence_is_finite() -> None:
    assert level_dbfs(np.zeros((2, 10), np.float32)).tolist() == [-300, -300]
    assert level_dbfs(np.ones((1, 10), np.float32)) == pytest.approx(0)


class HearsWholeOnly(PlainEncoder):
    parts = ("both",)

    def mask(self, features: Tensor, part: str) -> Tensor:
        assert part == "both"
        return features


def test_an_encoder_without_parts(stems: dict[str, np.ndarray]) -> None:
    found = curve(HearsWholeOnly(), listen(stems, encoder=HearsWholeOnly()), REST, BASS)
    assert set(found.scores) == {"both"}
