"""Described mixtures: what is heard is the sum of a song, what is told is who plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stemwise.errors import SongError
from stemwise.songs import Augmentation, Song, WindowOptions, folder
from stemwise.songs.mixtures import Mixtures

RATE = 8000
PLAIN = WindowOptions(("bass", "drums", "calm"), RATE, 512, channels=1)


@pytest.fixture
def songs(tmp_path: Path) -> list[Song]:
    """One of a constant bass, drums that begin in the middle, and a harp; one of a whole that is said to be calm."""
    for place in ("songs/a", "others"):
        (tmp_path / place).mkdir(parents=True)
    late = np.where(np.arange(8000) < 4000, 0.0, 0.2)
    for name, signal in (("bass", np.full(8000, 0.1)), ("drums", late), ("harp", np.full(8000, 0.05))):
        soundfile.write(tmp_path / "songs" / "a" / f"{name}.wav", signal, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "others" / "whole.wav", np.full(8000, 0.4), RATE, subtype="FLOAT")
    whole = Song("whole", {}, RATE, 8000, 1, tmp_path / "others" / "whole.wav", {"words": ("calm", "flute")})
    return [*folder(tmp_path / "songs"), whole]


def test_a_window_is_the_sum_and_is_told_who_plays_in_it(songs: list[Song]) -> None:
    found = Mixtures(songs, PLAIN, 0)
    assert len(found.songs) == 2
    seen = set()
    for index in range(40):
        item = found[index]
        assert item["mixture"].shape == (1, 512) and item["told"].dtype == torch.bool
        first, last = round(float(item["mixture"][0, 0]), 3), round(float(item["mixture"][0, -1]), 3)
        seen.add((first, last, tuple(item["told"].tolist())))
    whole = {entry for entry in seen if entry[2][2]}
    assert whole == {(0.4, 0.4, (False, False, True))}
    assert (0.15, 0.15, (True, False, False)) in seen and (0.35, 0.35, (True, True, False)) in seen
    assert all(entry[2][1] == (entry[1] == 0.35) for entry in seen - whole)


def test_items_are_functions_of_seed_and_index_and_change_with_augmentation(songs: list[Song]) -> None:
    one, again = Mixtures(songs, PLAIN, 3), Mixtures(songs, PLAIN, 3)
    for index in (7, 1, 4):
        torch.testing.assert_close(one[index]["mixture"], again[index]["mixture"], atol=0, rtol=0)
    louder = WindowOptions(**{**vars(PLAIN), "augmentation": Augmentation(gain_db=(6.0, 6.0), polarity=0.0, swap=0.0)})
    torch.testing.assert_close(Mixtures(songs, louder, 3)[0]["mixture"].abs().max() > 0.2, torch.tensor(True))


def test_songs_that_no_word_describes_are_left_out(songs: list[Song]) -> None:
    options = WindowOptions(("calm",), RATE, 512, channels=1)
    assert [song.name for song in Mixtures(songs, options, 0).songs] == ["whole"]
    with pytest.raises(
        SongError, match=r"none of the 2 song\(s\) is described by kazoo; found: bass, calm, drums, flute"
    ):
        Mixtures(songs, WindowOptions(("kazoo",), RATE, 512), 0)
