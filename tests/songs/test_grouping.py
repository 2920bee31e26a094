"""Other stem names: nothing is lost or counted twice, and what is not named goes where it was said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.songs import GROUPINGS, Song, group, leaves

STEMS = {
    "bass": ("b",),
    "drums": ("d1", "d2"),
    "guitar": ("g",),
    "other_keys": ("k",),
    "piano": ("p",),
    "vocals": ("v",),
}
SONG = Song("one", {name: tuple(map(Path, files)) for name, files in STEMS.items()}, 8000, 100)


@settings(max_examples=30, deadline=None)
@given(
    old=st.lists(st.sampled_from([*STEMS, "absent"]), unique=True),
    new=st.lists(st.sampled_from(["low", "high", "other"]), min_size=7, max_size=7),
    rest=st.sampled_from(["other", "low", None]),
)
def test_every_file_goes_where_it_was_said_and_only_there(old: list[str], new: list[str], rest: str | None) -> None:
    mapping: dict[str, list[str]] = {}
    for name, to in zip(old, new):
        mapping.setdefault(to, []).append(name)
    grouped = group(SONG, mapping, rest)
    found = {file: name for name, files in grouped.stems.items() for file in files}
    assert sum(map(len, grouped.stems.values())) == len(found)
    for name, files in SONG.stems.items():
        to = next((new for new, olds in mapping.items() if name in olds), rest)
        for file in files:
            assert found.get(file) == to


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (4, ["vocals", "bass", "drums", "other"]),
        (5, ["vocals", "bass", "drums", "guitar", "other"]),
        (6, ["vocals", "bass", "drums", "guitar", "piano", "other"]),
    ],
)
def test_the_groupings_of_the_field(count: int, names: list[str]) -> None:
    grouped = group(SONG, GROUPINGS[count], "other")
    assert list(grouped.stems) == names
    assert Path("k") in grouped.stems["other"] and (Path("g") in grouped.stems["other"]) == (count == 4)


def test_leaves_are_the_files() -> None:
    assert list(leaves(SONG).stems) == ["bass", "drums/1", "drums/2", "guitar", "other_keys", "piano", "vocals"]
    assert [len(files) for files in leaves(SONG).stems.values()] == [1] * 7
