"""What is asked: sets that are given, chunks, silence, and that it depends on nothing but protocol and song."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_songs import RATE, STEMS, read, write_songs

from stemwise.errors import QueryError, SongError
from stemwise.evaluate import Chunks, Protocol, Question
from stemwise.evaluate.questions import ask, judged
from stemwise.songs import Song


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Song]:
    return write_songs(tmp_path_factory.mktemp("songs"), silent=("piano",))


def questions(song: Song, **fields: object) -> list[Question]:
    return list(ask(song, Protocol.model_validate(fields), STEMS, 0))


def test_separation_hears_the_sum_and_wants_every_stem(songs: list[Song]) -> None:
    (question,) = questions(songs[1])
    ((part, heard),) = question.query.heard.items()
    assert question.query.task == "separate" and part == question.query.wanted == set(STEMS)
    np.testing.assert_array_equal(heard.mix()[0].numpy(), read(songs[1]).sum(0))
    np.testing.assert_array_equal(question.truth.data[0].numpy(), read(songs[1]))
    assert "bass" not in heard.names, "the heard signal must not hold the true stems"


def test_stems_that_are_not_judged_are_heard_all_the_same(songs: list[Song]) -> None:
    def mixture(of: str) -> np.ndarray:
        (question,) = ask(songs[1], Protocol.model_validate({"mixture": of}), ("bass", "drums"), 0)
        assert question.truth.names == ("bass", "drums")
        return next(iter(question.query.heard.values())).mix()[0].numpy()

    np.testing.assert_allclose(mixture("song"), read(songs[1]).sum(0), atol=1e-7)
    np.testing.assert_allclose(mixture("stems"), read(songs[1])[:2].sum(0), atol=1e-7)


def test_leave_one_out_and_all_sets(songs: list[Song]) -> None:
    wanted = [q.wanted for q in questions(songs[1], task="accompany", metrics=["coherence"])]
    assert wanted == ["bass", "drums", "piano"]
    every = questions(songs[1], task="accompany", metrics=["coherence"], given="all")
    assert [(q.given, q.wanted) for q in every] == [
        ("bass", "drums+piano"), ("drums", "bass+piano"), ("piano", "bass+drums"),
        ("bass+drums", "piano"), ("bass+piano", "drums"), ("drums+piano", "bass"),
    ]  # fmt: skip
    own = questions(songs[1], task="accompany", metrics=["coherence"], given=[["bass", "drums"], ["piano"]])
    assert [q.wanted for q in own] == ["piano", "bass+drums"]


def test_silent_stems_are_neither_given_nor_wanted(songs: list[Song]) -> None:
    assert [q.wanted for q in questions(songs[0], task="accompany", metrics=["coherence"])] == ["bass", "drums"]
    with pytest.raises(SongError, match="no chunk of it can be asked about"):
        questions(songs[0], task="accompany", metrics=["coherence"], given=[["piano"]])


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_random_sets_are_proper_and_repeatable(songs: list[Song], seed: int) -> None:
    fields = {"task": "accompany", "metrics": ["coherence"], "given": "random", "seed": seed}
    fields["chunks"] = {"seconds": 0.5, "per_song": 3}
    first, again = questions(songs[2], **fields), questions(songs[2], **fields)
    for one, other in zip(first, again, strict=True):
        heard = frozenset().union(*one.query.heard)
        assert heard and one.query.wanted and not heard & one.query.wanted
        assert (one.start, one.seed, one.given) == (other.start, other.seed, other.given)


def test_questions_do_not_depend_on_other_songs(songs: list[Song]) -> None:
    protocol = Protocol(task="accompany", metrics=["coherence"], chunks=Chunks(seconds=0.5, per_song=2), given="random")
    at = [[q.start for q in ask(songs[1], protocol, STEMS, index)] for index in (0, 7)]
    assert at[0] == at[1]


def test_consecutive_chunks_drop_the_end_and_join_to_the_song(songs: list[Song]) -> None:
    found = questions(songs[1], chunks={"seconds": 0.6})
    assert [round(q.start, 6) for q in found] == [0.0, 0.6, 1.2]
    pieces = np.concatenate([q.truth.data[0].numpy() for q in found], -1)
    np.testing.assert_array_equal(pieces, read(songs[1])[..., : pieces.shape[-1]])
    assert all(round((b.start - a.start) * RATE) == a.frames for a, b in pairwise(found))


def test_a_single_stem_is_judged_where_it_sounds(songs: list[Song]) -> None:
    asked = Protocol(stems=["bass"], chunks=Chunks(seconds=0.5, per_song=2))
    assert len(list(ask(songs[1], asked, ("bass",), 0))) == 2


def test_rate_and_channels_of_the_protocol(songs: list[Song]) -> None:
    (question,) = questions(songs[1], rate=4000, channels=1)
    assert (question.truth.rate, *question.truth.data.shape[1:]) == (4000, 3, 1, 8000)


def test_what_cannot_be_asked(songs: list[Song], tmp_path: Path) -> None:
    with pytest.raises(SongError, match="too short"):
        questions(songs[1], chunks={"seconds": 3})
    with pytest.raises(QueryError, match="no song has a stem named vocals; there are: bass, drums, piano"):
        judged(songs, Protocol(stems=["vocals"]))
    with pytest.raises(QueryError, match="needs songs with at least two stems"):
        judged(songs, Protocol(task="accompany", metrics=["fad"], stems=["bass"]))
    for given_stems in (["vocals"], list(STEMS), []):
        with pytest.raises(
            QueryError, match="some, but not all, of the judged stems bass, drums, piano; or give leave"
        ):
            judged(songs, Protocol(task="accompany", metrics=["fad"], given=[given_stems]))
    with pytest.raises(SongError, match="has none of the stems"):
        list(ask(songs[1], Protocol(), ("vocals",), 0))
