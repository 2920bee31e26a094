"""Labelled notes for training, and what a network is told of them."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from trees import midi_bytes

from stemwise.errors import SongError
from stemwise.songs.synthetic import compose, write_midi
from stemwise.symbolic import BAND, FEATURES, NOTE, features, instrument_of
from stemwise.symbolic.composed import composed, labelled
from stemwise.symbolic.notes import bar_positions
from stemwise.symbolic.sets import NoteSets, songs_of
from stemwise.symbolic.windows import COLUMNS, NoteAugmentation, NoteWindows, _merged

NAMES = [one.name for one in BAND]
SIZE = len(FEATURES)


def test_places_in_bars_follow_the_metre_and_a_pickup() -> None:
    # a bar of one quarter as a pickup, then 3/4, then 6/8
    metres = [(0, 1, 4), (480, 3, 4), (480 + 2 * 1440, 6, 8)]
    onsets = np.array([0, 480, 960, 480 + 1440, 480 + 2880, 480 + 2880 + 720, 480 + 2880 + 1440])
    place, length = bar_positions(onsets, 480, metres)
    assert place.tolist() == [0, 0, 1, 0, 0, 1.5, 0]
    assert length.tolist() == [1, 3, 3, 3, 3, 3, 3]
    assert bar_positions(np.array([960 * 3]), 480, [])[0].tolist() == [2.0]  # 4/4 where nothing is said
    assert bar_positions(np.array([960 * 3]), 480, [(0, 0, 4)])[0].tolist() == [2.0]  # and where a file says 0/4


def test_features_count_what_sounds_below_and_above() -> None:
    notes = np.zeros(3, NOTE)
    notes["onset"], notes["duration"], notes["pitch"] = (0, 0, 240), (960, 100, 480), (40, 60, 50)
    table = {name: features(notes, 480, [])[:, k] for k, name in enumerate(FEATURES)}
    assert (4 * table["sounding_below"]).tolist() == [0, 1, 1]  # at its onset only the long low note still sounds
    assert (4 * table["sounding_above"]).tolist() == [1, 0, 0]
    assert (4 * table["struck_below"]).tolist() == [0, 1, 0]
    assert table["onset"].tolist() == [0, 0, 0.5]


def test_labels_of_a_composed_song_are_its_players(tmp_path: Path) -> None:
    piece = compose(81, seconds=20)
    song = labelled(piece)
    for stem in ("bass", "drums", "guitar", "piano"):
        mine = [track for track in piece.tracks if track.stem == stem]
        assert (song.labels == NAMES.index(stem)).sum() == sum(len(track.notes) for track in mine)
    assert len(song.notes) == sum(len(track.notes) for track in piece.tracks)
    write_midi(piece, tmp_path / "song.mid")
    assert sorted(song.notes["pitch"]) == sorted(songs_of(str(tmp_path))[0].notes["pitch"])


def test_instruments_are_recognised_by_channel_then_name_then_program() -> None:
    found = [
        instrument_of(*track)
        for track in (("bass", 0, True), ("MELODY", 0, False), ("", 33, False), ("x", 27, False), ("", 60, False))
    ]
    assert [NAMES[k] for k in found] == ["drums", "melody", "bass", "guitar", "other"]


@pytest.mark.parametrize(
    ("name", "program", "instrument"),
    [
        ("Bass Guitar", 33, "bass"), ("Bass Gtr", 34, "bass"), ("Electric Bass Guitar", 33, "bass"),
        ("Fretless Bass Guitar", 35, "bass"), ("Bass Guitar", 0, "bass"), ("Lead Guitar", 30, "guitar"),
        ("Bass1", 33, "bass"), ("SlapBass", 0, "bass"), ("BASSES", 33, "bass"), ("bass overflow", 0, "bass"),
        ("Bassoon", 70, "other"), ("Bass Clarinet", 71, "other"), ("Bass Clarinet", 0, "other"),
        ("Steel Drums", 114, "other"), ("Steel Gtr", 25, "guitar"),
        ("Bass Drum", 118, "drums"), ("Drumkit", 0, "drums"), ("Kick Drum 2", 0, "drums"), ("String Bass", 32, "bass"),
        ("String Bass", 48, "strings"), ("Strings_2", 0, "strings"), ("E-Piano", 4, "piano"), ("Vocals", 52, "melody"),
        ("Guitars", 0, "guitar"), ("Klavier", 48, "piano"), ("Padlock", 80, "other"),
    ],
)  # fmt: skip
def test_names_are_taken_at_their_word(name: str, program: int, instrument: str) -> None:
    """A bass guitar is no guitar, a bassoon no bass; where a name says two things, the program decides."""
    assert NAMES[instrument_of(name, program, False)] == instrument


def test_windows_depend_on_seed_and_index_alone() -> None:
    songs = NoteSets.of([("composer:70:73", None, None)], print)
    one, other = (NoteWindows(songs, 64, 5, NoteAugmentation()) for _ in range(2))
    assert one[3].shape == (64, COLUMNS)
    assert torch.equal(one[3], other[3])
    assert not torch.equal(one[3], one[4])
    assert torch.isfinite(torch.stack([one[k] for k in range(40)])).all()


def test_unchanged_windows_hold_the_notes_of_the_song() -> None:
    songs = NoteSets.of([("composer:70:71", None, None)], print)
    row = NoteWindows(songs, 64, 0)[0]
    song = songs.sets[0][0]
    pitches = "".join(chr(p) for p in song.notes["pitch"])
    assert "".join(chr(int(p)) for p in row[:, 0]) in pitches
    assert (row[:, SIZE + 3 : SIZE + 3 + len(BAND)].argmax(-1) == row[:, SIZE]).all()


def test_merged_unisons_keep_all_their_labels() -> None:
    notes = np.zeros(3, NOTE)
    notes["onset"], notes["duration"], notes["pitch"] = (0, 0, 10), (5, 9, 9), (60, 60, 60)
    kept, labels, bits = _merged(notes, np.array([1, 2, 2], np.int8), np.eye(len(BAND), dtype=np.float32)[[1, 2, 2]])
    assert kept["duration"].tolist() == [9, 9]
    assert labels.tolist() == [2, 2]
    assert bits.sum(1).tolist() == [2, 1]


def test_data_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    for place, split, words in (("composer:5", None, "composer:FIRST:LAST"), (str(tmp_path), None, "no MIDI file"),
                                (str(tmp_path / "nothing"), None, "is no folder")):  # fmt: skip
        with pytest.raises(SongError, match=words):
            songs_of(place, split)
    write_midi(compose(3, seconds=5), tmp_path / "one.mid")
    with pytest.raises(SongError, match=r"no song in the split 'holdout'; there are: \w+ \(1\)"):
        songs_of(str(tmp_path), "holdout")
    (tmp_path / "one.mid").write_bytes(midi_bytes(60)[:14])
    with pytest.raises(SongError, match=r"none of its 1 MIDI file\(s\) has notes"):
        songs_of(str(tmp_path))


def test_a_file_that_cannot_be_read_is_left_out_with_a_notice(tmp_path: Path) -> None:
    write_midi(compose(3, seconds=5), tmp_path / "good.mid")
    (tmp_path / "bad.mid").write_bytes(b"nothing")
    heard: list[str] = []
    assert len(songs_of(str(tmp_path), None, heard.append)) == 1
    assert "bad.mid" in heard[0]


LAYOUTS = {  # files of one song in several collections, {0} being its number
    "pop909": ("{0:03d}/{0:03d}", "{0:03d}/versions/{0:03d}-v1"),
    "slakh": ("Track{0:05d}/all_src", "Track{0:05d}/MIDI/S00", "Track{0:05d}/MIDI/S01"),
    "songs make": ("song-{0:06d}/song",),
    "songs make --midi": ("song-{0:06d}",),
    "lmd_matched": ("A/B/C/TRAAA{0:013d}/{0:031x}a", "A/B/C/TRAAA{0:013d}/{0:031x}b"),
    "flat": ("Title {0}", "Title {0}.1"),
}


@pytest.mark.parametrize("collection", LAYOUTS)
def test_the_files_of_a_song_are_on_one_side(collection: str, tmp_path: Path) -> None:
    """Parts and versions of a song stay together, and every split has songs, whose seed is the recipe's."""
    files = LAYOUTS[collection]
    for number in range(40):
        for part, place in enumerate(files):
            file = tmp_path / f"{place.format(number)}.mid"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(midi_bytes(number + 40 * part))
    pitches = {
        name: [int(song.notes["pitch"][0]) for song in songs_of(str(tmp_path), name).songs]
        for name in ("train", "validation", "test")
    }
    for its in pitches.values():
        assert Counter(pitch % 40 for pitch in its) == dict.fromkeys((pitch % 40 for pitch in its), len(files))
    assert sum(map(len, pitches.values())) == 40 * len(files)
    others = [songs_of(str(tmp_path), "validation", split_seed=seed).songs for seed in (1, 2)]
    assert any([int(song.notes["pitch"][0]) for song in songs] != pitches["validation"] for songs in others)


def test_songs_of_the_composer_can_be_sent_to_a_worker() -> None:
    songs = pickle.loads(pickle.dumps(songs_of("composer:3:5")))
    assert len(songs) == 2 and len(songs[1].notes)


def test_longer_songs_begin_as_shorter_ones_do_not_have_to() -> None:
    assert len(composed(9, 20).notes) > len(composed(9, 8).notes)
