"""The metric gives what `score` gives, and joins like any metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plain_encoder import RATE, PlainEncoder, song
from stemwise.errors import QueryError, ScoreError
from stemwise.metrics.coherence import CoherenceScore
from stemwise.scores import Listening, score

SONGS = [song(11.0, seed=seed) for seed in range(3)]
CONTEXT = torch.stack([torch.from_numpy(stems["bass"]) for stems in SONGS])
MADE = torch.stack([torch.from_numpy(stems["piano"]) for stems in SONGS])


def metric() -> CoherenceScore:
    return CoherenceScore(PlainEncoder(), RATE)


def test_it_is_the_mean_over_songs_of_the_score() -> None:
    whole = metric()
    whole.update(CONTEXT, MADE)
    found = whole.compute()
    scores = [score(stems["bass"], stems["piano"], rate=RATE, how=Listening(PlainEncoder())) for stems in SONGS]
    assert float(found["coherence"]) == pytest.approx(np.mean([s.coherence.mean for s in scores]))
    assert float(found["harmonic"]) == pytest.approx(np.mean([s.harmonic.mean for s in scores if s.harmonic]))
    assert float(found["probability"]) == pytest.approx(np.mean([s.probability.mean for s in scores if s.probability]))
    assert found["low"] <= found["coherence"] <= found["high"]
    assert int(found["songs"]) == 3


def test_states_join_in_any_split() -> None:
    whole, first, second = metric(), metric(), metric()
    whole.update(CONTEXT, MADE)
    first.update(CONTEXT[:1, 0], MADE[:1, 0])
    second.update(CONTEXT[1:], MADE[1:])
    first.merge_state(second)
    for name, value in whole.compute().items():
        torch.testing.assert_close(first.compute()[name], value)
    whole.reset()
    with pytest.raises(ScoreError, match="no song"):
        whole.compute()


def test_a_process_without_a_song_joins_the_others() -> None:
    given: list[torch.Tensor] = []

    def gather(tensor: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        given.append(tensor)
        return [tensor, tensor]

    metric().sync(dist_sync_fn=gather, distributed_available=lambda: True)
    assert (tuple(given[0].shape), given[0].dtype) == ((0, 4), torch.float64)


def test_silent_songs_are_counted_not_scored() -> None:
    one = metric()
    one.update(CONTEXT, MADE * torch.tensor([1.0, 0.0, 1.0])[:, None, None])
    found = one.compute()
    assert (int(found["songs"]), int(found["silent"])) == (2, 1)
    assert all(torch.isfinite(value) for value in found.values())


def test_wrong_shapes_and_values_are_refused() -> None:
    with pytest.raises(ScoreError, match="two of one shape"):
        metric().update(CONTEXT, MADE[:1])
    with pytest.raises(ScoreError, match="two of one shape"):
        metric().update(CONTEXT[0, 0], MADE[0, 0])
    with pytest.raises(ScoreError, match=r"0\.010 s long"):
        metric().update(CONTEXT[..., :160], MADE[..., :160])
    with pytest.raises(QueryError, match="NaN"):
        metric().update(CONTEXT, MADE * torch.nan)


def test_a_training_in_lower_precision_changes_nothing() -> None:
    plain, hosted = metric(), metric()
    plain.update(CONTEXT[:1], MADE[:1])
    with torch.autocast("cpu", torch.bfloat16):
        hosted.update(CONTEXT[:1], MADE[:1])
    assert torch.equal(plain.compute()["harmonic"], hosted.compute()["harmonic"])
