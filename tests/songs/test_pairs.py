"""Pairs of sub-mixes: disjoint, of the published sizes, and bounded in overlap within a batch, whatever the songs."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.errors import SongError
from stemwise.songs import Song
from stemwise.songs.pairs import Pair, PairOptions, Pairs, room
from stemwise.songs.window import Batches

RATE = 800
SMALL = PairOptions(rate=RATE, frames=100, batch=6)


def write_song(folder: Path, name: str, frames: int, stems: int, rate: int = RATE, silent_from: int = 0) -> Song:
    """Stem k is the constant 2**-k, so that the level of a sum tells which stems are in it; some may be silent."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for k in range(stems):
        files[f"part {k}"] = (folder / f"{name}-{k}.wav",)
        level = 0.0 if silent_from and k >= silent_from else 2.0 ** -(k + 1)
        soundfile.write(files[f"part {k}"][0], np.full((frames, 1), level), rate, subtype="FLOAT")
    return Song(name, files, rate, frames, 1)


def parts(song: Song, level: float) -> set[str]:
    """The stems of a `write_song` whose sum is `level`."""
    return {name for k, name in enumerate(song.stems) if round(level * 2**20) >> (19 - k) & 1}


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Song]:
    root = tmp_path_factory.mktemp("pairs")
    return [write_song(root, f"song {n}", 400 + 150 * n, 2 + n) for n in range(4)]


def overlaps(pairs: list[Pair], frames: int) -> list[float]:
    """Share of its span that each window has in common with each other one of its song."""
    return [
        max(0, frames - abs(one.start - other.start)) / frames
        for one, other in itertools.combinations(pairs, 2)
        if one.song is other.song
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 12),
    per_song=st.integers(1, 12),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    first=st.integers(0, 10**6),
)
def test_laws(songs: list[Song], seed: int, batch: int, per_song: int, overlap: float, first: int) -> None:
    options = dataclasses.replace(SMALL, batch=batch, per_song=per_song, overlap=overlap)
    stream = Pairs(songs, options, seed)
    made = [stream.pair(first * batch + row) for row in range(batch)]
    for pair in made:
        assert pair.anchor and pair.positive and not set(pair.anchor) & set(pair.positive)
        assert pair.signals.shape == (2, 1, 100) and pair.signals.dtype == np.float32
        assert parts(pair.song, float(pair.signals[0, 0, 0])) == set(pair.anchor)
        assert parts(pair.song, float(pair.signals[1, 0, 50])) == set(pair.positive)
        assert 0 <= pair.start <= pair.song.frames - 100
    assert all(share <= overlap + 1e-9 for share in overlaps(made, 100))
    counts = Counter(pair.song.name for pair in made)
    if batch <= len(songs) * min(per_song, min(room(song, options) for song in songs)):
        assert max(counts.values()) <= per_song
    again = Pairs(songs, options, seed)
    for row in reversed(range(batch)):
        assert np.array_equal(again[first * batch + row].numpy(), made[row].signals)


def test_sizes_are_drawn_as_published(tmp_path: Path) -> None:
    """Anchor U{1..N-1}, positive U{1..N-|anchor|}: for four stems 1/3 each, and 1/(4-a) for each positive size."""
    stream = Pairs([write_song(tmp_path, "one", 4000, 4)], dataclasses.replace(SMALL, batch=1), 0)
    found = Counter((len(pair.anchor), len(pair.positive)) for pair in map(stream.pair, range(1800)))
    expected = {(a, p): 600 / (4 - a) for a in (1, 2, 3) for p in range(1, 5 - a)}
    assert found.keys() == expected.keys()
    for sizes, count in expected.items():
        assert abs(found[sizes] - count) < 5 * count**0.5, sizes
    used = Counter(name for pair in map(stream.pair, range(600)) for name in (*pair.anchor, *pair.positive))
    assert max(used.values()) < 1.15 * min(used.values())


def test_silent_stems_are_not_chosen_and_silent_windows_are_left(tmp_path: Path) -> None:
    quiet = write_song(tmp_path, "quiet", 3000, 5, silent_from=2)
    stream = Pairs([quiet], dataclasses.replace(SMALL, batch=1), 0)
    for pair in map(stream.pair, range(50)):
        assert {*pair.anchor, *pair.positive} == {"part 0", "part 1"}
    dumb = write_song(tmp_path, "dumb", 30_000, 3, silent_from=1)
    both = Pairs([quiet, dumb], dataclasses.replace(SMALL, batch=1), 0)
    assert {both.pair(index).song.name for index in range(40)} == {"quiet"}
    alone = Pairs([dumb], dataclasses.replace(SMALL, batch=1), 0)
    assert alone.pair(0).anchor  # nothing better is to be had: a pair all the same


def test_songs_of_any_rate_give_windows_of_one(tmp_path: Path) -> None:
    songs = [write_song(tmp_path, f"{rate}", rate, 3, rate) for rate in (500, 800, 1200)]
    stream = Pairs(songs, dataclasses.replace(SMALL, batch=3), 1)
    for pair in map(stream.pair, range(9)):
        assert pair.signals.shape == (2, 1, 100)
        assert parts(pair.song, round(float(pair.signals[0, 0, 50]) * 64) / 64) == set(pair.anchor)


def test_workers_share_one_stream(songs: list[Song]) -> None:
    stream = Pairs(songs, dataclasses.replace(SMALL, per_song=2), 5)
    loader: torch.utils.data.DataLoader[torch.Tensor] = torch.utils.data.DataLoader(
        stream, batch_sampler=Batches(1, 4, 6, 0, 1), num_workers=2
    )
    assert torch.equal(torch.cat(list(loader)), torch.stack([stream[index] for index in range(6, 24)]))


def test_weights_decide_how_often_a_song_is_drawn(songs: list[Song]) -> None:
    stream = Pairs(songs[:2], dataclasses.replace(SMALL, batch=1), 0, weights=[3.0, 1.0])
    found = Counter(stream.pair(index).song.name for index in range(400))
    assert 260 < found["song 0"] < 340


def test_what_cannot_be_done_is_said(songs: list[Song], tmp_path: Path) -> None:
    with pytest.raises(SongError, match=r"none of the 1 song\(s\) has two stems"):
        Pairs([write_song(tmp_path, "solo", 1000, 1)], SMALL, 0)
    with pytest.raises(SongError, match=r"a batch of 6 pairs needs as many windows that share at most 0%.* hold 4"):
        Pairs(songs[:1], dataclasses.replace(SMALL, overlap=0.0), 0)


def versions(root: Path, keys: int = 2) -> list[Song]:
    """Songs of one work: stem 0 is unpitched and the same in all, the others tell their key by their sign and slope."""
    songs = []
    for key in range(keys):
        song = write_song(root / f"key {key}", "work", 3000, 3)
        for k, name in enumerate(song.stems):
            level = 2.0 ** -(k + 1) * (1.0 if k == 0 else -1.0) ** key
            soundfile.write(song.stems[name][0], level * np.linspace(1, 2, 3000)[:, None], RATE, subtype="FLOAT")
        about = {"work": "one", "transposed": key, "unpitched": ["part 0"]}
        songs.append(dataclasses.replace(song, name=f"work {key}", metadata=about))
    return songs


def test_a_decoy_is_the_positive_in_another_key_or_at_another_time(tmp_path: Path) -> None:
    options = dataclasses.replace(SMALL, batch=1, decoy="key")
    stream = Pairs([*versions(tmp_path), write_song(tmp_path, "alone", 30, 1)], options, 0)
    assert len(stream.songs) == 1
    heard = set()
    for pair in map(stream.pair, range(80)):
        _, positive, decoy = pair.signals[:, 0]
        heard.add(pair.song.name)
        if {"part 0"} in ({*pair.anchor}, {*pair.positive}):  # a key cannot be heard, so the decoy is early or late
            slope = (positive[-1] - positive[0]) / 99
            moved = (decoy[0] - positive[0]) / slope / RATE
            assert 0.02 < abs(moved) < 1.01 and np.allclose(np.diff(decoy), np.diff(positive), atol=1e-6)
        elif "part 0" not in pair.positive:
            assert np.allclose(decoy, -positive)
        else:
            assert not np.allclose(decoy, positive, atol=0.05)
    assert heard == {"work 0", "work 1"}
    assert len({tuple(pair.signals[1, 0]) for pair in map(stream.pair, range(5))}) > 1


def test_works_are_of_a_data_set_and_their_decoys_in_another_key(tmp_path: Path) -> None:
    """Works of one name in two sets are two; versions in the key of the song are no decoys, but count."""
    songs = [*versions(tmp_path / "a"), *versions(tmp_path / "b"), *versions(tmp_path / "c", keys=1)]
    stream = Pairs(songs, dataclasses.replace(SMALL, batch=1), 0, [1.0, 2.0, 3.0, 0.0, 1.0], origins=[0, 0, 1, 1, 2])
    assert stream.songs == [songs[0], songs[2], songs[4]]
    drawn = Counter(Path(pair.song.stems["part 0"][0]).parts[-3] for pair in map(stream.pair, range(700)))
    assert abs(drawn["a"] - 300) < 80 and abs(drawn["b"] - 300) < 80 and abs(drawn["c"] - 100) < 50
    same = [dataclasses.replace(song, metadata={"work": "one", "transposed": 1}) for song in songs[:2]]
    for pair in map(Pairs(same, dataclasses.replace(SMALL, batch=1, decoy="key"), 0).pair, range(40)):
        _, positive, decoy = pair.signals[:, 0]
        assert np.allclose(np.diff(decoy), np.diff(positive), atol=1e-6) and not np.allclose(decoy, positive, atol=1e-6)


def test_gains_are_drawn_for_each_stem_within_their_range(tmp_path: Path) -> None:
    song = write_song(tmp_path, "one", 4000, 2)
    stream = Pairs([song], dataclasses.replace(SMALL, batch=1, gain_db=6.0), 0)
    gains = []
    for pair in map(stream.pair, range(200)):
        for level, names in zip(pair.signals[:, 0, 0], (pair.anchor, pair.positive)):
            gains.append(20 * np.log10(float(level) / 2.0 ** -(list(song.stems).index(*names) + 1)))
    assert -6.01 < min(gains) < -5.5 and 5.5 < max(gains) < 6.01 and abs(np.mean(gains)) < 0.6
