from __future__ import annotations

import numpy as np
import pytest
import torch

from plain_encoder import RATE, PlainEncoder, song
from stemwise.coherence.search import Grid, audible_pairs, scores_of_moves, transposed
from stemwise.coherence.windows import aligned_windows

GRID = Grid((-0.25, -0.125, 0.0, 0.125, 0.25))
PITCHES = Grid((-0.125, 0.0, 0.125), (-2.0, -1.0, 0.0, 1.0, 2.0))


def pairs(context: np.ndarray, stem: np.ndarray, grid: Grid, most: int = 4) -> list[np.ndarray]:
    margin = round(grid.margin * RATE)
    signals = {"context": context, "stem": stem}
    windows = aligned_windows(signals, RATE, 5 * RATE + 2 * margin, 3 * RATE, RATE)
    return audible_pairs((w for w in windows), margin, most)


def best(scores: np.ndarray, grid: Grid) -> tuple[float, float]:
    i, j = np.unravel_index(scores.mean(-1).argmax(), scores.shape[:2])
    return grid.shifts[j], grid.semitones[i]


@pytest.mark.parametrize("late", [0.0, 0.125, -0.25])
def test_the_search_undoes_a_shift(late: float) -> None:
    """A stem that is late by `late` seconds fits best when moved by - late."""
    stems = song(20.0)
    moved = np.roll(stems["piano"], round(late * RATE), 1)
    scores = scores_of_moves(PlainEncoder(), pairs(stems["bass"], moved, GRID), GRID)
    assert scores.shape == (1, 5, 4)
    assert best(scores, GRID) == (-late, 0.0)


@pytest.mark.slow  # librosa compiles
@pytest.mark.parametrize(("late", "high"), [(0.0, 2.0), (0.125, 1.0), (-0.125, -2.0)])
def test_the_search_undoes_a_transposition(late: float, high: float) -> None:
    stems = song(20.0)
    moved = transposed(np.roll(stems["piano"], round(late * RATE), 1)[0], RATE, high)[None]
    scores = scores_of_moves(PlainEncoder(), pairs(stems["bass"], moved, PITCHES), PITCHES)
    assert best(scores, PITCHES) == (-late, -high)


def test_the_unmoved_score_is_that_of_the_windows() -> None:
    stems, encoder = song(20.0), PlainEncoder()
    given = pairs(stems["bass"], stems["piano"], GRID)
    scores = scores_of_moves(encoder, given, GRID)
    margin = round(GRID.margin * RATE)
    for k, pair in enumerate(given):
        h = encoder.embed(encoder.features(torch.from_numpy(pair[:, margin:-margin])))
        assert scores[0, 2, k] == pytest.approx(float(encoder.similarity(h[:1], h[1:])), rel=1e-4)


def test_pairs_are_few_audible_and_spread_over_the_song() -> None:
    count, margin = 40, 10
    windows = [(k, np.full((2, 100), 1.0 + k, np.float32)) for k in range(count)]
    windows[7][1][1, margin:-margin] = 0  # silent where it counts
    chosen = [int(pair[0, 0]) - 1 for pair in audible_pairs(iter(windows), margin, 5)]
    assert len(chosen) == 5
    assert 7 not in chosen
    assert chosen[0] < 5
    assert chosen[-1] > 30
    assert audible_pairs(iter([]), margin, 5) == []


def test_a_grid_without_the_stem_as_it_is_is_refused() -> None:
    with pytest.raises(ValueError, match="0 seconds"):
        Grid((0.1, 0.2))


@pytest.mark.slow
def test_transposing_keeps_length_and_moves_the_pitch() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    higher = transposed(tone, RATE, 12)
    assert higher.shape == tone.shape
    assert abs(np.abs(np.fft.rfft(higher)).argmax() / 2 - 880) < 4
