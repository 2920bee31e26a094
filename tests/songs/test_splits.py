"""Splits: as published where they are, else by a hash that no other song can change."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.errors import SongError
from stemwise.songs import Song, split, split_of


def song(name: str, where: str | None = None) -> Song:
    return Song(name, {}, 8000, 8000, metadata={"split": where} if where else {})


@settings(max_examples=20, deadline=None)
@given(names=st.sets(st.text(max_size=8), min_size=2, max_size=20), seed=st.integers(0, 2**40))
def test_songs_decide_for_themselves(names: set[str], seed: int) -> None:
    every = sorted(names)
    alone = {name: split_of(song(name), seed) for name in every}
    for kind in ("train", "validation", "test"):
        expected = [name for name in every if alone[name] == kind]
        if expected:
            assert [one.name for one in split([song(name) for name in every], kind, seed)] == expected
            fewer = every[1:]
            if set(expected) & set(fewer):
                found = [one.name for one in split([song(name) for name in fewer], kind, seed)]
                assert found == [name for name in expected if name in fewer]


def test_shares_seeds_and_the_hash_are_what_they_were() -> None:
    found = Counter(split_of(song(f"song {n}")) for n in range(4000))
    assert 3100 < found["train"] < 3300 and 330 < found["validation"] < 470 and 330 < found["test"] < 470
    other = [split_of(song(f"song {n}"), seed=1) for n in range(200)]
    assert other != [split_of(song(f"song {n}")) for n in range(200)]
    half = Counter(split_of(song(f"song {n}"), shares={"a": 1, "b": 1}) for n in range(1000))
    assert set(half) == {"a", "b"} and abs(half["a"] - 500) < 80
    # A new version must not move the songs of a training that goes on.
    assert "".join(split_of(song(f"song {n}"))[1] for n in range(12)) == "rarrrarrrrrr"


def test_published_splits_win_and_an_empty_one_is_said() -> None:
    songs = [song("a", "train"), song("b", "test"), song("c", "omitted"), song("d", "validation")]
    assert [one.name for one in split(songs, "train")] == ["a"]
    assert [one.name for one in split(songs, "valid")] == ["d"] == [one.name for one in split(songs, "validation")]
    with pytest.raises(
        SongError, match=r"no song in the split 'dev2'; there are: omitted \(1\), test \(1\), train \(1\)"
    ):
        split(songs, "dev2")
