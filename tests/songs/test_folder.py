"""Any folder of songs is a data set; what cannot be read is named."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trees

from stemwise import cli
from stemwise.audio_io.flac import counted_view
from stemwise.errors import SongError
from stemwise.songs import folder, layouts, scan, source, verify
from stemwise.songs.corpus import DataSet, gather
from stemwise.songs.folder import scan_stem_folders
from stemwise.songs.packing import pack
from stemwise.songs.shards import shards

RATE = 8000


def _write(file: Path, signal: np.ndarray, rate: int = RATE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    options = {"subtype": "FLOAT"} if file.suffix.lower() == ".wav" else {}
    soundfile.write(file, signal.astype(np.float32), rate, **options)
    return file


def _noise(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((frames, channels))


def test_reads_names_in_any_case_aliases_and_formats(tmp_path: Path) -> None:
    for name in ("Bass.WAV", "VOX.flac", "drums.ogg", "keys.mp3"):
        _write(tmp_path / "one" / name, _noise(4000))
    (tmp_path / "one" / "notes.txt").write_text("no audio")
    (tmp_path / ".hidden").mkdir()
    (song,) = folder(tmp_path)
    assert set(song.stems) == {"bass", "vocals", "drums", "piano"}
    assert (song.name, song.rate, song.channels, song.mixture) == ("one", RATE, 2, None)


def test_mixture_and_complements_are_no_stems(tmp_path: Path) -> None:
    for name in ("bass.wav", "Mix.wav", "instrumental.wav", "no_bass.wav"):
        _write(tmp_path / "one" / name, _noise(400))
    (song,) = folder(tmp_path)
    assert set(song.stems) == {"bass"}
    assert song.mixture == tmp_path / "one" / "Mix.wav"


def test_reads_any_window_exactly(tmp_path: Path) -> None:
    bass, mono = _noise(1000), _noise(600, channels=1, seed=1)
    _write(tmp_path / "one" / "bass.wav", bass)
    _write(tmp_path / "one" / "drums.wav", mono)
    (song,) = folder(tmp_path)
    assert (song.frames, song.seconds) == (1000, 0.125)
    whole = np.zeros((3, 2, 1400), np.float32)
    whole[1, :, 200:1200] = bass.T
    whole[2, :, 200:800] = mono.T  # duplicated to both channels, padded to the length of the song
    for start, frames in [(-200, 1400), (0, 1000), (550, 100), (590, 30), (900, 300), (1100, 50), (-150, 100)]:
        found = song.read(start, frames, ("piano", "bass", "drums"))
        assert found.dtype == np.float32 and found.shape == (3, 2, frames)
        np.testing.assert_array_equal(found, whole[:, :, 200 + start : 200 + start + frames])


def test_stem_folder_is_summed(tmp_path: Path) -> None:
    left, right = _noise(500), _noise(500, seed=1)
    _write(tmp_path / "one" / "guitar" / "a.wav", left)
    _write(tmp_path / "one" / "guitar" / "b.wav", right)
    (song,) = folder(tmp_path)
    np.testing.assert_allclose(song.read(0, 500, ("guitar",))[0], (left + right).T, atol=1e-6)


def test_splits_and_other_folders_may_stand_above_the_songs(tmp_path: Path) -> None:
    for place in ("train/one", "valid/one", "Test/two"):
        _write(tmp_path / "mine" / place / "bass.wav", _noise(100))
    _write(tmp_path / "mine" / "train" / "stacked" / "strings" / "a.wav", _noise(100))
    _write(tmp_path / "mine" / "train" / "stacked" / "strings" / "b.wav", _noise(100))
    found = {song.name: song.metadata.get("split") for song in layouts.songs(tmp_path / "mine")}
    assert found == {"Test/two": "test", "train/one": "train", "train/stacked": "train", "valid/one": "validation"}
    assert [song.name for song in layouts.songs(tmp_path)] == [f"mine/{name}" for name in found]
    assert {song.metadata["split"] for song in layouts.songs(tmp_path / "mine" / "train")} == {"train"}


def test_stem_folders_hold_songs_of_equal_names(tmp_path: Path) -> None:
    for place in (
        "Bass/Lied für Ümit.wav",
        "drums/Lied für Ümit.flac",
        "bass/two.wav",
        "mixture/two.wav",
        "no_bass/two.wav",
    ):
        stem, name = place.split("/")
        _write(tmp_path / ("Bass" if stem == "bass" else stem) / name, _noise(400))
    found = scan_stem_folders(tmp_path)
    assert {song.name: list(song.stems) for song in found.songs} == {
        "Lied für Ümit": ["bass", "drums"],
        "two": ["bass"],
    }
    assert next(song for song in found.songs if song.name == "two").mixture == tmp_path / "mixture" / "two.wav"
    (tmp_path / "no_bass" / "two.wav").unlink()
    (tmp_path / "no_bass").rmdir()
    assert layouts.scan_any(tmp_path).layout == "stem folders"
    (tmp_path / "drums" / "Lied für Ümit.flac").write_text("text")
    assert [problem.name for problem in layouts.scan_any(tmp_path).problems] == ["Lied für Ümit"]


def test_table_with_songs_relative_paths_and_metadata(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.flac"):
        _write(tmp_path / "audio" / name, _noise(300))
    table = tmp_path / "songs.csv"
    rows = [
        "song,stem,path,split,style",
        "Één,Keys,audio/a.wav,valid,jazz",
        "Één,piano,audio/b.wav,,",
        "Twee,bass,audio/c.flac,test,",
        "Drie,bass,audio/d.wav,,",
    ]
    table.write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    found = layouts.scan_any(table)
    one, two = found.songs
    assert (one.name, list(one.stems), len(one.stems["piano"])) == ("Één", ["piano"], 2)
    assert (one.metadata, two.metadata) == ({"split": "validation", "style": "jazz"}, {"split": "test"})
    assert [(problem.name, "d.wav is missing" in problem.reason) for problem in found.problems] == [("Drie", True)]


def test_table_without_songs_tells_them_from_paths(tmp_path: Path) -> None:
    for name in ("one/vocals.wav", "one/bass.wav", "bass/two.wav", "drums/two.wav"):
        _write(tmp_path / name, _noise(300))
    rows = ["instrum,path", "vocals,one/vocals.wav", "bass,one/bass.wav", "bass,bass/two.wav", "drums,drums/two.wav"]
    (tmp_path / "songs.csv").write_text("\n".join(rows))
    found = {song.name: list(song.stems) for song in layouts.songs(tmp_path / "songs.csv")}
    assert found == {"one": ["vocals", "bass"], "two": ["bass", "drums"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it needs song, stem and path"),
        (b"a,b\n1,2\n", "has the columns a, b"),
        (b"stem,path\n\xff\xfe", "save it as CSV"),
    ],
)
def test_unusable_tables_say_what_they_need(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_bytes(content)
    with pytest.raises(SongError, match=reason):
        layouts.songs(tmp_path / "songs.csv")


def test_song_json_is_metadata_and_never_an_obstacle(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name / "bass.wav", _noise(100))
    (tmp_path / "one" / "song.json").write_text(json.dumps({"key": "C"}))
    (tmp_path / "two" / "song.json").write_text("{broken")
    assert [song.metadata for song in folder(tmp_path)] == [{"key": "C"}, {}]


def test_rows_of_nothing_are_passed_over_and_files_without_a_stem_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.wav", _noise(100))
    (tmp_path / "songs.csv").write_text("song,stem,path\none,bass,a.wav\n,,\ntwo,,a.wav\n")
    found = layouts.scan_any(tmp_path / "songs.csv")
    assert [song.name for song in found.songs] == ["one"]
    (problem,) = found.problems
    assert problem.name == "two" and "without the name of its stem (a.wav)" in problem.reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_nobody_waits_at_a_pipe(tmp_path: Path) -> None:
    _write(tmp_path / "one" / "bass.wav", _noise(100))
    os.mkfifo(tmp_path / "one" / "song.json")
    assert [song.metadata for song in folder(tmp_path)] == [{}]
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "songs.csv").write_text("song,stem,path\none,bass,pipe.wav\n")
    (problem,) = layouts.scan_any(tmp_path / "songs.csv").problems
    assert "is a pipe" in problem.reason


def test_links_that_lead_round_and_round_are_passed_over(tmp_path: Path) -> None:
    _write(tmp_path / "one" / "bass.wav", _noise(100))
    for place in (tmp_path / "two", tmp_path / "one" / "drums.wav"):
        place.symlink_to(place.name)
    assert [list(song.stems) for song in layouts.songs(tmp_path)] == [["bass"]]


def test_an_ogg_file_of_several_streams_makes_its_song_a_problem(tmp_path: Path) -> None:
    for name in ("bass", "drums"):
        soundfile.write(tmp_path / f"{name}.ogg", _noise(8000), 8000)
    song = tmp_path / "songs" / "one"
    song.mkdir(parents=True)
    (song / "bass.ogg").write_bytes((tmp_path / "bass.ogg").read_bytes() + (tmp_path / "drums.ogg").read_bytes())
    (problem,) = layouts.scan_any(tmp_path / "songs").problems
    assert "bass.ogg" in problem.reason and "several streams" in problem.reason


def test_unusable_folders_say_why_and_what_to_do(tmp_path: Path) -> None:
    file = _write(tmp_path / "song" / "bass.wav", _noise(100))
    with pytest.raises(SongError, match=r"does not exist.*one sub-folder a song"):
        folder(tmp_path / "nothing")
    with pytest.raises(SongError, match="is a file"):
        folder(file)
    with pytest.raises(SongError, match="give its parent"):
        folder(tmp_path / "song")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda song: (song / "bass.wav").write_text("I am text"), r"bass\.wav is not readable audio"),
        (lambda song: (song / "bass.wav").write_bytes(b""), r"bass\.wav is not readable audio \(empty file\)"),
        (lambda song: (song / "bass.wav").unlink(), "no stems"),
        (lambda song: _write(song / "bass.wav", np.zeros((0, 2))), "every stem is empty"),
        (lambda song: _write(song / "drums.wav", _noise(100), rate=16000), r"differ in sample rate \(8000, 16000 Hz\)"),
        (lambda song: _write(song / "drums.wav", _noise(100, channels=6)), r"drums\.wav has 6 channels"),
        (lambda song: _write(song / "Bass.flac", _noise(100)), "'bass' is given twice"),
    ],
)
def test_unreadable_songs_are_counted_and_named(tmp_path: Path, break_it: object, reason: str) -> None:
    for name in ("good", "bad"):
        _write(tmp_path / name / "bass.wav", _noise(100))
    break_it(tmp_path / "bad")  # type: ignore[operator]
    with pytest.warns(UserWarning, match=rf"1 unreadable song\(s\).*bad: .*{reason}"):
        songs = folder(tmp_path)
    assert [song.name for song in songs] == ["good"]
    assert [problem.name for problem in scan(tmp_path).problems] == ["bad"]
    assert not verify(tmp_path).ok


def test_file_lost_after_the_scan_is_named(tmp_path: Path) -> None:
    file = _write(tmp_path / "one" / "bass.wav", _noise(100))
    (song,) = folder(tmp_path)
    file.unlink()
    with pytest.raises(SongError, match=r"bass\.wav: cannot be read at frame 10"):
        song.read(10, 10, ("bass",))


def test_verify_reports_what_there_is(tmp_path: Path) -> None:
    bass, drums = _noise(RATE * 2), _noise(RATE * 2, seed=1)
    _write(tmp_path / "one" / "bass.wav", bass)
    _write(tmp_path / "one" / "drums.wav", drums)
    _write(tmp_path / "one" / "mixture.wav", bass + drums)
    _write(tmp_path / "two" / "bass.wav", bass[:, :1])
    _write(tmp_path / "two" / "mixture.wav", drums)
    _write(tmp_path / "three" / "bass.wav", bass)
    _write(tmp_path / "three" / "drums.wav", np.zeros((RATE, 2)))
    report = verify(tmp_path)
    assert report.ok and report.songs == 3
    assert abs(report.hours - 6 / 3600) < 1e-9
    assert (report.rates, report.channels) == ({RATE: 3}, {2: 2, 1: 1})
    assert (report.stems, report.missing) == ({"bass": 3, "drums": 2}, {"drums": 1})
    assert [problem.name for problem in report.gaps] == ["two"]
    assert [(problem.name, problem.reason) for problem in report.unequal] == [("three", "drums is 1.000 s shorter")]
    assert [problem.name for problem in report.silent] == ["three"]
    assert json.loads(json.dumps(report.to_dict()))["gaps"][0]["song"] == "two"


@pytest.mark.parametrize("name", ["bass.wav", "bass.flac"])
def test_verify_finds_files_cut_short(tmp_path: Path, name: str) -> None:
    file = _write(tmp_path / "one" / name, _noise(40_000))
    assert verify(tmp_path).ok
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    report = verify(tmp_path)
    assert not report.ok
    assert name in report.corrupt[0].reason


@pytest.mark.parametrize("name", ["bass.wav", "bass.flac"])
def test_files_written_to_a_pipe_are_songs_and_shards_like_others(tmp_path: Path, name: str) -> None:
    """Their headers do not say how long they are; in shards they do."""
    file = _write(tmp_path / "in" / "one" / name, _noise(30_000))
    signal = soundfile.read(file, dtype="float32")[0].T
    trees.piped(file)
    (song,) = folder(tmp_path / "in")
    assert song.frames == 30_000 and verify(tmp_path / "in").ok
    list(pack([song], tmp_path / "out"))
    for one in (song, *shards(tmp_path / "out")):
        assert np.array_equal(one.read(20_000, 11_000, ("bass",))[0, :, :10_000], signal[:, 20_000:])
        assert np.array_equal(one.read(0, 30_000, ("bass",))[0], signal)


def test_a_file_written_to_a_pipe_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[Path] = []
    monkeypatch.setattr(source, "counted_view", lambda file: counts.append(file) or counted_view(file))
    trees.piped(_write(tmp_path / "one" / "bass.flac", _noise(3000)))
    (song,) = folder(tmp_path)
    assert all(song.read(start, 100, ("bass",)).any() for start in (0, 1000, 2000))
    assert len(counts) == 1


def test_a_song_with_a_file_cut_short_is_left_out_and_named(tmp_path: Path) -> None:
    _write(tmp_path / "good" / "bass.wav", _noise(3000))
    _write(tmp_path / "bad" / "drums.wav", _noise(3000))
    file = _write(tmp_path / "bad" / "bass.wav", _noise(3000))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with pytest.warns(UserWarning, match=r"bad: bass\.wav is cut short"):
        assert [song.name for song in folder(tmp_path)] == ["good"]
    heard: list[str] = []
    assert [song.name for song in gather([DataSet(tmp_path)], heard.append).songs] == ["good"]
    assert "bass.wav is cut short" in heard[0]


def test_verify_finds_samples_that_are_not_finite(tmp_path: Path) -> None:
    signal = _noise(1000)
    signal[500] = np.nan
    _write(tmp_path / "one" / "bass.wav", signal)
    assert "not finite" in verify(tmp_path).corrupt[0].reason


def test_verify_judges_a_mixture_that_cannot_be_compared(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name / "bass.wav", _noise(1000))
    _write(tmp_path / "one" / "mix.wav", _noise(1000), rate=16000)
    (tmp_path / "two" / "mix.wav").write_text("text")
    report = verify(tmp_path)
    assert report.ok and [problem.name for problem in report.gaps] == ["one", "two"]


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="file names are text there")
def test_names_that_are_no_text_are_read_and_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _write(tmp_path / "song" / "bass.wav", _noise(100))
    os.rename(os.fsencode(file.parent), os.fsencode(tmp_path) + b"/caf\xe9")
    (song,) = folder(tmp_path)
    assert song.read(0, 100, ("bass",)).any()
    (tmp_path / song.name / "bass.wav").write_bytes(b"")
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", printed)
    monkeypatch.setattr("sys.argv", ["stemwise", "songs", "verify", str(tmp_path), "--json"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        cli.main()
    printed.flush()
    assert rb"caf\udce9" in printed.buffer.getvalue()  # type: ignore[attr-defined]
