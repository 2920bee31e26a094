"""Songs on disk: layout, restart, the description, MIDI, the command line entry."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stemwise.coherence.features import HarmonicPercussivePitch
from stemwise.errors import SongError
from stemwise.songs import Song
from stemwise.songs.folder import song
from stemwise.songs.splits import split_of
from stemwise.songs.synthetic import COMPOSER, compose, write, write_midi, write_songs
from stemwise.songs.synthetic.render import built_in_palette
from stemwise.songs.synthetic.write import write_midi_songs

RATE = 16000


def test_a_song_folder_holds_its_sounding_stems_and_a_description(tmp_path: Path) -> None:
    folders = list(write_songs(tmp_path / "out", [3, 12], fonts="builtin", rate=RATE, seconds=5))
    assert [f.name for f in folders] == ["song-000003", "song-000012"]
    for folder in folders:
        about = json.loads((folder / "song.json").read_text())
        files = {p.stem for p in folder.glob("*.wav")}
        assert files == set(about["stems"]) and files
        assert about["format"] == 1 and about["composer"] == COMPOSER and about["fonts"] == "builtin"
        assert about["rate"] == RATE and about["frames"] == 5 * RATE
        total = np.zeros((5 * RATE, 2))
        for stem in files:
            audio, rate = soundfile.read(folder / f"{stem}.wav", always_2d=True)
            assert rate == RATE and audio.shape == (5 * RATE, 2)
            assert soundfile.info(folder / f"{stem}.wav").subtype == "PCM_16"
            assert np.abs(audio).max() > 1e-3
            total += audio
        assert np.abs(total).max() <= 0.901
        assert set(about["programs"]) == set(about["sounds"]) == set(about["levels"]) == files
    assert not list((tmp_path / "out").glob(".*"))


def test_finished_songs_are_skipped_and_missing_ones_made(tmp_path: Path) -> None:
    def write_two() -> None:
        list(write_songs(tmp_path, [1, 2], fonts="builtin", rate=RATE, seconds=3))

    write_two()
    first, second = tmp_path / "song-000001", tmp_path / "song-000002"
    stamp = (first / "song.json").stat().st_mtime_ns
    kept = {p.name: p.read_bytes() for p in second.iterdir()}
    shutil.rmtree(second)
    write_two()
    assert (first / "song.json").stat().st_mtime_ns == stamp
    assert {p.name: p.read_bytes() for p in second.iterdir()} == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fonts": "train"}, r"song-000001: made with builtin fonts; give another folder, or --first"),
        ({"rate": 8000}, r"song-000001: made with 16000 Hz;"),
        ({"seconds": 2.5, "fonts": "test"}, r"song-000001: made with builtin fonts, 3 s;"),
    ],
)
def test_finished_songs_of_other_settings_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"fonts": "builtin", "rate": RATE, "seconds": 3.0}
    list(write_songs(tmp_path, [1], **asked))
    with pytest.raises(SongError, match=message):
        list(write_songs(tmp_path, [1], **asked | change))


def test_a_folder_is_not_continued_with_other_fonts_or_by_another_composer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"fonts": "builtin", "rate": RATE, "seconds": 2.0}
    (song,) = write_songs(tmp_path, [1], **asked)
    about = json.loads((song / "song.json").read_text())
    (song / "song.json").write_text(json.dumps({**about, "palette": "of another machine"}))
    for seeds in ([1, 2], [2]):
        with pytest.raises(SongError, match="made with other builtin fonts than are installed"):
            list(write_songs(tmp_path, seeds, **asked))
    monkeypatch.setattr(write, "COMPOSER", write.COMPOSER + 1)
    with pytest.raises(SongError, match=f"made with composer {write.COMPOSER - 1}"):
        list(write_songs(tmp_path, [1], **asked))


def test_a_look_at_the_fonts_is_one_where_a_song_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(write, "palette", lambda *_, log: log("a look") or built_in_palette())
    for seeds in ([1], [1], [1, 2, 3]):
        list(write_songs(tmp_path, seeds, fonts="test", rate=RATE, seconds=2, log=looks.append))
        looks.append("end")
    assert looks == ["a look", "end", "end", "a look", "end"]


def test_finished_midi_of_another_length_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("symusic")
    assert list(write_midi_songs(tmp_path, [1, 2], seconds=20)) == list(write_midi_songs(tmp_path, [1, 2], seconds=20))
    with pytest.raises(SongError, match=r"song-000001\.mid: made with 20 s; give another folder, or --first"):
        list(write_midi_songs(tmp_path, [1], seconds=30))
    (tmp_path / "song-000002.mid").write_bytes(b"MThd")
    with pytest.raises(SongError, match=r"song-000002\.mid: cannot be read as MIDI"):
        list(write_midi_songs(tmp_path, [2], seconds=20))


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "song-000001").mkdir()
    (tmp_path / "song-000001" / "take.wav").write_bytes(b"mine")
    with pytest.raises(SongError, match="not a song of the composer"):
        list(write_songs(tmp_path, [1], fonts="builtin", rate=RATE, seconds=2))
    assert (tmp_path / "song-000001" / "take.wav").read_bytes() == b"mine"


def test_an_error_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(write, "write_midi", fail)
    with pytest.raises(OSError, match="no space"):
        list(write_songs(tmp_path, [1], fonts="builtin", rate=RATE, seconds=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("midi", [False, True])
def test_a_full_disk_is_said_and_leaves_nothing_partial(tmp_path: Path, midi: bool) -> None:
    """A limit on the size of files stands for a full disk; it cannot be lifted again, hence the process."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            if midi:
                list(write_midi_songs(tmp_path, [3], seconds=20))
            else:
                list(write_songs(tmp_path, [3], fonts="builtin", rate=RATE, seconds=5))
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not list(tmp_path.iterdir())


def test_what_a_kill_has_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(write, "write_midi", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        list(write_songs(tmp_path, [3], fonts="builtin", rate=RATE, seconds=5))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [place.name.startswith(".") for place in tmp_path.iterdir()] == [True]
    list(write_songs(tmp_path, [3], fonts="builtin", rate=RATE, seconds=5))
    assert [place.name for place in tmp_path.iterdir()] == ["song-000003"]


def test_midi_matches_the_notes(tmp_path: Path) -> None:
    symusic = pytest.importorskip("symusic")
    piece = compose(21, seconds=20)
    write_midi(piece, tmp_path / "song.mid")
    score = symusic.Score(tmp_path / "song.mid").to("second")
    assert {t.name for t in score.tracks} == set(piece.stems)
    for stem in piece.stems:
        want = sorted(float(s) for t in piece.tracks if t.stem == stem for s in t.notes["start"])
        got = sorted(float(n.time) for t in score.tracks if t.name == stem for n in t.notes)
        assert len(got) == len(want)
        assert np.abs(np.array(got) - np.array(want)).max() < 0.01


def test_one_composition_in_several_keys(tmp_path: Path) -> None:
    folders = list(write_songs(tmp_path, [3], fonts="builtin", rate=RATE, seconds=5, keys=3))
    found = [song(folder) for folder in folders]
    assert {one.metadata["work"] for one in found} == {"song-000003"} and len({one.name for one in found}) == 3
    shifts = [one.metadata["transposed"] for one in found]
    assert shifts == sorted(set(shifts)) and max(shifts) - min(shifts) <= 6
    assert [one.name for one in found] == [f"song-000003{shift:+d}" for shift in shifts]
    assert len({split_of(one) for one in found}) == 1

    def semitones(one: Song) -> np.ndarray:
        """Levels of the bass's semitones, each less the mean of all."""
        bass = torch.from_numpy(one.read(0, one.frames, ["bass"])[0].mean(0))
        levels = HarmonicPercussivePitch()(bass[None])[0, 2].mean(1).numpy()
        return levels - levels.mean()

    first, *others = [semitones(one) for one in found]
    for other, shift in zip(others, shifts[1:]):
        matches = [float(other[8 + k : 56 + k] @ first[8:56]) for k in range(-7, 8)]
        assert np.argmax(matches) - 7 == shift - shifts[0]
    drums = [one.read(0, one.frames, ["drums"]).flatten() for one in found]
    assert np.corrcoef(drums).min() > 0.99
