"""MIDI files: every note survives, whatever a file holds; what cannot be read or kept is named."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.errors import MidiFileError
from stemwise.songs.synthetic import compose, write_midi
from stemwise.symbolic import BAND, NOTE, Notes, assembled, is_midi, multiset, read_midi, written
from stemwise.symbolic.midi import Music, in_order, lanes, notes_of
from stemwise.symbolic.notes import features

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mixture2music"
COUNT = len(BAND)


def variable(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))


def midi(*events: tuple[int, bytes], tpq: int = 480) -> bytes:
    """A file of one track; events are (delta, bytes)."""
    track = b"".join(variable(delta) + event for delta, event in (*events, (0, b"\xff\x2f\x00")))
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, tpq) + b"MTrk" + struct.pack(">I", len(track)) + track


ON, OFF = (0, b"\x90\x3c\x40"), (480, b"\x80\x3c\x40")


def split(music: Music, labels: np.ndarray) -> dict[str, Notes]:
    return {one.name: music.notes[labels == k] for k, one in enumerate(BAND) if (labels == k).any()}


def again(music: Music, labels: np.ndarray, folder: Path) -> Music:
    """The file written with these labels, read back."""
    file = folder / "again.mid"
    file.write_bytes(written(assembled(music, split(music, labels), BAND), music.census))
    return read_midi(file)


@pytest.mark.parametrize("number", (1, 2, 3))
@pytest.mark.parametrize("kind", ("multi", "single"))
def test_recorded_files_lose_nothing(number: int, kind: str, tmp_path: Path) -> None:
    facts = json.loads((FIXTURES / f"assign_{number}.json").read_text())
    music = read_midi(FIXTURES / f"assign_{number}_{kind}.mid")
    recorded = np.array([row[:4] for row in facts["source" if kind == "multi" else "single"]])
    columns = recorded[:, [0, 1, 2, 3]]
    assert np.array_equal(multiset(music.notes), columns[np.lexsort(columns.T[::-1])])
    families = [name for name in facts["notes_per_family"]]
    labels = np.random.default_rng(number).integers(len(families), size=len(music.notes))
    back = again(music, labels, tmp_path)
    assert np.array_equal(multiset(back.notes), multiset(music.notes))
    assert list(back.tempos) == [tuple(row) for row in facts["tempos"]]
    assert list(back.metres) == [tuple(row) for row in facts["time_signatures"]]


def test_true_families_of_a_single_track_come_back_on_tracks_of_their_own(tmp_path: Path) -> None:
    facts = json.loads((FIXTURES / "assign_3.json").read_text())
    music = read_midi(FIXTURES / "assign_3_single.mid")
    names = {"string": "strings", "drum": "drums"}
    rows = np.array([tuple(row[:4]) for row in facts["single"]])
    order = np.lexsort((rows[:, 3], rows[:, 2], rows[:, 1], rows[:, 0]))
    truth = [names.get(facts["single"][k][4], facts["single"][k][4]) for k in order]
    labels = np.array([[one.name for one in BAND].index(name) for name in truth])
    back = again(music, labels, tmp_path)
    for name in set(truth):
        mine = [k for k, (track, _, _) in enumerate(back.tracks) if track.split(" ")[0] == name]
        assert np.isin(back.notes["track"], mine).sum() == truth.count(name)
        assert {back.tracks[k][1] for k in mine} == {one.program for one in BAND if one.name == name}
    controls = [len(track.controls) + len(track.pitch_bends) for track in back.score.tracks]
    assert set(controls) == {len(facts["other_events_in_single"])}  # pedal and bends go with every part


note = st.tuples(st.integers(0, 2000), st.integers(0, 900), st.integers(55, 62), st.integers(1, 127))


@settings(max_examples=60, deadline=None)
@given(
    notes=st.lists(note, min_size=1, max_size=60),
    labels=st.lists(st.integers(0, COUNT - 1), min_size=60, max_size=60),
    tpq=st.sampled_from((24, 96, 220, 480, 9600)),
)
def test_no_note_changes_however_equal_pitches_overlap(notes: list[Any], labels: list[int], tpq: int) -> None:
    import symusic

    table = np.zeros(len(notes), NOTE)
    for column, name in enumerate(("onset", "duration", "pitch", "velocity")):
        table[name] = [one[column] for one in notes]
    table = table[in_order(table)]
    music = Music(symusic.Score(tpq), table)
    score = assembled(music, split(music, np.array(labels[: len(table)])), BAND)
    back = symusic.Score.from_midi(written(score, music.census))
    assert back.ticks_per_quarter == tpq
    assert np.array_equal(multiset(notes_of(back)), multiset(table))
    for lane in lanes(table):  # and in no track does a pitch begin while it sounds, which players could not tell apart
        for pitch in np.unique(lane["pitch"]):
            one = lane[lane["pitch"] == pitch]
            assert (one["onset"][1:] >= (one["onset"] + one["duration"])[:-1]).all()


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(5_000_000, 6_000_000))
def test_composed_songs_lose_nothing(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("song")
    write_midi(compose(seed, seconds=10), folder / "song.mid")
    music = read_midi(folder / "song.mid")
    labels = np.random.default_rng(seed).integers(COUNT, size=len(music.notes))
    back = again(music, labels, folder)
    assert np.array_equal(multiset(back.notes), multiset(music.notes))
    assert (back.tempos, back.metres) == (music.tempos, music.metres)


def test_two_equal_notes_are_both_kept(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(midi(ON, (0, ON[1]), OFF, (10, OFF[1])))
    music = read_midi(tmp_path / "a.mid")
    back = again(music, np.zeros(2, int), tmp_path)
    assert [track for track, _, _ in back.tracks] == ["piano", "piano overflow"]
    assert np.array_equal(multiset(back.notes), multiset(music.notes))


def test_a_part_has_the_controllers_and_bends_of_the_track_of_most_of_its_notes(tmp_path: Path) -> None:
    few = midi((0, b"\xb0\x40\x01"), ON, OFF)[14:]
    on, off = (0, b"\x91\x40\x40"), (240, b"\x81\x40\x40")
    most = midi((0, b"\xb1\x40\x02"), (0, b"\xe1\x00\x50"), on, off, on, off)[14:]
    (tmp_path / "a.mid").write_bytes(b"MThd" + struct.pack(">IHHH", 6, 1, 2, 480) + few + most)
    back = again(read_midi(tmp_path / "a.mid"), np.zeros(3, int), tmp_path)
    (track,) = back.score.tracks
    assert ([one.value for one in track.controls], len(track.pitch_bends)) == ([2], 1)


def test_text_and_system_exclusive_messages_are_written_back_and_the_rest_is_named(tmp_path: Path) -> None:
    sysex, text, aftertouch = b"\xf0\x03\x7e\x7f\xf7", b"\xff\x01\x02hi", b"\xa0\x3c\x11"
    (tmp_path / "a.mid").write_bytes(
        midi((0, sysex), ON, (5, text), (0, aftertouch), OFF, (0, b"\x90\x40\x40"), (3, b"\xff\x04\x03sax"))
    )
    music = read_midi(tmp_path / "a.mid")
    assert music.census.kept == ((0, sysex), (5, text))
    assert music.census.lost == {"aftertouch": 1, "instrument name": 1, "note without an end": 1}
    back = again(music, np.zeros(1, int), tmp_path)
    assert back.census.kept == music.census.kept
    assert np.array_equal(multiset(back.notes), multiset(music.notes))


def test_text_of_an_unknown_encoding_keeps_its_bytes(tmp_path: Path) -> None:
    latin, marker, utf8 = (
        b"\xff\x05\x03h\xf6r",
        b"\xff\x06\x03\xc9t\xe9",
        "\xff\x05".encode("latin-1") + b"\x03" + "hö".encode(),
    )
    (tmp_path / "a.mid").write_bytes(midi((0, latin), (0, marker), (2, utf8), ON, OFF))
    music = read_midi(tmp_path / "a.mid")
    assert [event for _, event in music.census.kept] == [latin, marker]
    back = again(music, np.zeros(1, int), tmp_path)
    assert back.census.kept == music.census.kept
    assert [one.text for track in back.score.tracks for one in track.lyrics] == ["hö"]
    assert not back.score.markers


def test_a_metre_that_is_none_counts_as_four_quarters(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(midi((0, b"\xff\x58\x04\x04\x08\x18\x08"), ON, OFF))
    music = read_midi(tmp_path / "a.mid")
    assert music.metres == ((0, 4, 4),)
    assert np.isfinite(features(music.notes, music.tpq, music.metres)).all()


def test_ticks_become_seconds_by_the_tempo_map(tmp_path: Path) -> None:
    slow = b"\xff\x51\x03" + (1_000_000).to_bytes(3, "big")
    (tmp_path / "a.mid").write_bytes(midi(ON, (480, slow), (480, OFF[1])))
    music = read_midi(tmp_path / "a.mid")
    assert music.seconds(np.array([0, 240, 480, 960])) == pytest.approx([0, 0.25, 0.5, 1.5])


WHOLE = midi(ON, OFF)


@pytest.mark.parametrize(
    ("content", "words"),
    (
        (b"", "begins with nothing"),
        (b"RIFF....WAVE", "not a MIDI file"),
        (WHOLE[:10], "breaks off in its header"),
        (WHOLE[:14], "0 of 1 tracks"),
        (WHOLE[:-6], "track 1 of 1 has"),
        (WHOLE[:12] + b"\xe7\x28" + WHOLE[14:], "SMPTE"),
        (WHOLE[:12] + b"\x00\x00" + WHOLE[14:], "0 ticks"),
        (midi(), "no notes"),
        (midi(ON), "1 begin, none ends"),
        (WHOLE[:18] + b"\x00\x00\x00\x05" + WHOLE[22:27], "not complete"),
        (midi(*[(1 << 27, ON[1]), OFF] * 16), "longer than 2^31 ticks"),
    ),
)
def test_what_cannot_be_read_is_named_with_the_remedy(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "song.mid"
    file.write_bytes(content)
    with pytest.raises(MidiFileError, match=r"song\.mid") as caught:
        read_midi(file)
    assert words in str(caught.value)
    assert any(verb in str(caught.value) for verb in ("export", "copy", "give"))


def test_many_equal_notes_are_told_apart_without_a_search_through_all() -> None:
    notes = np.zeros(100_000, NOTE)
    notes["duration"] = 5
    started = time.process_time()
    assert [len(lane) for lane in lanes(notes)] == [1] * 100_000
    assert time.process_time() - started < 20  # it was hours


def test_midi_is_recognised_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(WHOLE)
    (tmp_path / "song.mid").write_bytes(b"RIFF")
    assert is_midi(tmp_path / "song.wav")
    assert not is_midi(tmp_path / "song.mid")
    assert not is_midi(tmp_path / "none.mid")


def test_independent_sequences_are_refused(tmp_path: Path) -> None:
    one = midi(ON, OFF)
    chunk = one[14:]
    (tmp_path / "a.mid").write_bytes(one[:8] + struct.pack(">HHH", 2, 2, 480) + chunk * 2)
    with pytest.raises(MidiFileError, match="2 sequences that are independent"):
        read_midi(tmp_path / "a.mid")
