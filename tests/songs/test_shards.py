"""Shards: the same songs bit for bit, read by seeking, readable by anyone, and packed in pieces that may be killed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import shutil
import signal
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stemwise import cli
from stemwise.audio_io.views import native_name
from stemwise.errors import SongError
from stemwise.songs import Song, WindowOptions, Windows, packing
from stemwise.songs.folder import folder
from stemwise.songs.packing import pack
from stemwise.songs.shards import check, scan, shards
from stemwise.songs.source import Member, opened
from stemwise.songs.window import read_at

RATE = 8000
#: Every kind of source: its file, and how far the packed samples may be from its own.
KINDS = {
    "eight.wav": ("PCM_U8", 0.0), "sixteen.wav": ("PCM_16", 0.0), "deep.wav": ("PCM_24", 0.0), "whole.wav": ("PCM_32", 0.0),
    "float.wav": ("FLOAT", 0.0), "flac.flac": ("PCM_16", 0.0), "flac24.flac": ("PCM_24", 0.0),
    "ogg.ogg": ("VORBIS", 2.0**-24), "mp3.mp3": ("MPEG_LAYER_III", 2.0**-24),
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs: stems of every format, one in two tracks, mono beside stereo, unequal lengths, a mixture, accents."""
    root = tmp_path_factory.mktemp("source")
    draw = np.random.default_rng(0)
    for number, name in enumerate(("Ångström - Début", "second", "third")):
        song = root / name
        (song / "guitar").mkdir(parents=True)
        for place, (file, (subtype, _)) in enumerate(KINDS.items()):
            noise = 0.1 * draw.standard_normal((9000 + 500 * place + 1000 * number, 1 + place % 2))
            soundfile.write(song / file, noise, RATE, subtype=subtype)
        for track in ("a.wav", "b.flac"):
            soundfile.write(song / "guitar" / track, 0.1 * draw.standard_normal((8000, 1)), RATE)
        soundfile.write(song / "mixture.wav", 0.1 * draw.standard_normal((8000, 2)), RATE, subtype="PCM_24")
        (song / "song.json").write_text(json.dumps({"split": "train", "tempo": 90 + number}))
    return root


@pytest.fixture(scope="module")
def packed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    assert len(list(pack(folder(source), out, megabytes=1))) == 2
    return out


@pytest.fixture(scope="module")
def both(source: Path, packed: Path) -> list[tuple[Song, Song]]:
    """Songs of the folder with the same songs of the shards."""
    return list(zip(folder(source), shards(packed), strict=True))


def same(one: Song, other: Song) -> None:
    """Everything but the places of the files."""
    strip = {"stems": {}, "mixture": None}
    assert dataclasses.replace(one, **strip) == dataclasses.replace(other, **strip)  # type: ignore[arg-type]
    assert list(one.stems) == list(other.stems)
    assert [len(files) for files in one.stems.values()] == [len(files) for files in other.stems.values()]


def test_songs_come_back_as_they_were(source: Path, packed: Path) -> None:
    for before, after in zip(folder(source), shards(packed), strict=True):
        same(before, after)
        for name in before.stems:
            expected = before.read(-100, before.frames + 200, (name,))
            found = after.read(-100, before.frames + 200, (name,))
            tolerance = next((bound for file, (_, bound) in KINDS.items() if file.startswith(f"{name}.")), 0.0)
            assert np.abs(found - expected).max() <= tolerance, name
            assert found.any()
        assert isinstance(after.mixture, Member)
        with opened(after.mixture) as mixture:
            assert np.array_equal(mixture.read(), soundfile.read(before.mixture)[0])


@settings(max_examples=30, deadline=None)
@given(start=st.integers(-300, 15_000), frames=st.integers(1, 4000), rate=st.sampled_from([8000, 11025]))
def test_windows_are_equal_bit_for_bit(both: list[tuple[Song, Song]], start: int, frames: int, rate: int) -> None:
    names = ("guitar", "sixteen", "deep", "flac", "flac24", "float", "whole", "eight")
    options = WindowOptions(names, rate, frames)
    for before, after in both:
        assert np.array_equal(read_at(before, start, names, options), read_at(after, start, names, options))


def test_the_stream_is_the_same(source: Path, packed: Path) -> None:
    options = WindowOptions(("guitar", "deep", "flac"), RATE, 500)
    one, other = Windows(folder(source), options, 3), Windows(shards(packed), options, 3)
    assert all(torch.equal(one[index], other[index]) for index in range(30))


def test_any_tar_reader_finds_samples_by_key(packed: Path) -> None:
    """WebDataset: what is before the first dot of a name is the key of its sample, and samples are consecutive."""
    keys: list[str] = []
    for file in sorted(packed.glob("shard-*.tar")):
        with tarfile.open(file) as tar:
            for info in tar:
                key, _, rest = info.name.partition(".")
                if key not in keys[-1:]:
                    assert key not in keys
                    keys.append(key)
                content = tar.extractfile(info)
                assert content is not None
                if rest == "json":
                    assert json.load(content)["stems"]["guitar"] == ["guitar.1.flac", "guitar.2.flac"]
                elif rest.startswith("guitar"):
                    assert soundfile.info(content).frames == 8000
    assert keys == ["000000", "000001", "000002"]


def test_a_window_costs_a_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source" / "long").mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal(400_000)
    soundfile.write(tmp_path / "source" / "long" / "bass.wav", noise, RATE)
    list(pack(folder(tmp_path / "source"), tmp_path / "out"))
    (song,) = shards(tmp_path / "out")
    read: list[int] = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: read.append(preadv(*args)) or read[-1])
    for start in (0, 200_000, 399_000):
        read.clear()
        assert song.read(start, 1000, ("bass",)).any()
        assert sum(read) < (tmp_path / "out" / "shard-000000.tar").stat().st_size / 5


def test_the_same_songs_make_the_same_bytes_and_finished_shards_stay(
    source: Path, packed: Path, tmp_path: Path
) -> None:
    songs = folder(source)
    assert [shard.written for shard in pack(songs, tmp_path / "out", megabytes=1, part=(2, 2))] == [True]
    assert [problem.name for problem in scan(tmp_path / "out").problems] == ["shard-000000"]
    with pytest.warns(UserWarning, match=r"shard-000000.*not packed or not copied; run `stemwise songs pack` again"):
        assert [song.name for song in shards(tmp_path / "out")] == ["Ångström - Début"]
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("shard-000001.*")}
    assert [shard.written for shard in pack(songs, tmp_path / "out", megabytes=1)] == [True, False]
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert {file.name: file.read_bytes() for file in packed.iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()
    }


def _killed_at(place: int, source: Path, out: Path) -> int:
    """Pack in a process that is killed when it is about to rename its `place`-th file; how it ended."""
    child = os.fork()
    if child == 0:
        replace, seen = os.replace, 0

        def kill(partial: Path, file: Path) -> None:
            nonlocal seen
            seen += 1
            if seen == place:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(partial, file)

        os.replace = kill
        list(pack(folder(source), out, megabytes=1))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("place", "written"),
    [
        pytest.param(1, [True, True], id="before there is an index"),
        pytest.param(2, [True, True], id="in the first shard"),
        pytest.param(3, [True, True], id="between its tar and its index"),
        pytest.param(4, [False, True], id="in the second shard"),
    ],
)
def test_killed_pack_is_continued(source: Path, packed: Path, tmp_path: Path, place: int, written: list[bool]) -> None:
    out = tmp_path / "out"
    assert _killed_at(place, source, out) == -signal.SIGKILL
    assert any(file.name.startswith(".") for file in out.iterdir())
    assert [shard.written for shard in pack(folder(source), out, megabytes=1)] == written
    assert {file.name: file.read_bytes() for file in packed.iterdir()} == {
        file.name: file.read_bytes() for file in out.iterdir() if not file.name.startswith(".index")
    }


def test_two_processes_at_one_shard_both_make_it_whole(source: Path, packed: Path, tmp_path: Path) -> None:
    out, encode = tmp_path / "out", packing._encode
    child = 0

    def encoded(file: Path, target: Path) -> Path:
        nonlocal child
        if not child:  # the other one packs all while this one is at its first file
            child = os.fork()
            if child == 0:
                packing._encode = encode
                os._exit(0 if all(shard.songs for shard in pack(folder(source), out, megabytes=1)) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return encode(file, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_encode", encoded)
        list(pack(folder(source), out, megabytes=1))
    assert {file.name: file.read_bytes() for file in packed.iterdir()} == {
        file.name: file.read_bytes() for file in out.iterdir()
    }


def test_a_shard_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "one").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "one" / "bass.wav", np.full((400, 1), 0.1), RATE)
    done: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_ino) or sync(handle))
    list(pack(folder(tmp_path / "in"), tmp_path / "out"))
    assert (tmp_path / "out" / "shard-000000.tar").stat().st_ino in done


def test_what_cannot_be_decoded_is_left_out_by_name(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "source")
    broken = tmp_path / "source" / "second" / "flac24.flac"
    broken.write_bytes(broken.read_bytes()[:20_000])
    (shard,) = pack(folder(tmp_path / "source"), tmp_path / "out", megabytes=100)
    assert shard.songs == 2 and [problem.name for problem in shard.left_out] == ["second"]
    found = scan(tmp_path / "out")
    assert [song.name for song in found.songs] == ["third", "Ångström - Début"] and not found.problems
    assert [problem.name for problem in found.skipped] == ["second"]
    assert "left out when packed: flac24.flac: breaks off" in found.skipped[0].reason
    (again,) = pack(folder(tmp_path / "source"), tmp_path / "out", megabytes=100)
    assert not again.written and again.left_out == shard.left_out


def test_a_short_wav_an_empty_stem_and_names_of_any_kind(tmp_path: Path) -> None:
    """What libsndfile reads without complaint, or writes without being able to read it, is not packed as it is."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((4000, 2))
    for song in ("short", os.fsdecode(b"Caf\xe9")):
        (tmp_path / "in" / song).mkdir(parents=True)
        soundfile.write(native_name(tmp_path / "in" / song / "bass.wav"), noise, 8000, format="WAV")
    odd = tmp_path / "in" / os.fsdecode(b"Caf\xe9")
    soundfile.write(native_name(odd / "piano.wav"), noise[:0], 8000, format="WAV")
    soundfile.write(native_name(odd / f"{'a' * 120}.wav"), noise, 8000, format="WAV")
    whole = (tmp_path / "in" / "short" / "bass.wav").read_bytes()
    songs = folder(tmp_path / "in")
    (tmp_path / "in" / "short" / "bass.wav").write_bytes(whole[: len(whole) // 2])
    (shard,) = pack(songs, tmp_path / "out")
    assert [problem.name for problem in shard.left_out] == ["short"]
    (back,) = shards(tmp_path / "out")
    assert back.name == odd.name
    assert not back.read(0, 100, ["piano"]).any() and back.read(0, 100, ["a" * 120]).any()


def test_an_ogg_without_frames_stays_silence(tmp_path: Path) -> None:
    (tmp_path / "in" / "one").mkdir(parents=True)
    for name, frames in (("bass.wav", 4000), ("piano.ogg", 0)):
        soundfile.write(tmp_path / "in" / "one" / name, np.full((frames, 1), 0.1), RATE)
    list(pack(folder(tmp_path / "in"), tmp_path / "out"))
    (back,) = shards(tmp_path / "out")
    assert not back.read(0, 100, ["piano"]).any() and back.read(0, 100, ["bass"]).any()


def test_a_machine_that_starts_with_another_is_not_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index appears after it was looked for, and before the folder is."""
    songs, out = folder(source), tmp_path / "out"
    list(pack(songs, out, megabytes=1, part=(1, 2)))
    exists, asked = Path.exists, iter([False])
    monkeypatch.setattr(Path, "exists", lambda path: next(asked, True) if path.name == "index.json" else exists(path))
    assert [shard.number for shard in pack(songs, out, megabytes=1, part=(2, 2))] == [1]


def test_damage_is_found(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    assert check(out) == ()
    tar = out / "shard-000001.tar"
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    assert ["its checksum differs" in problem.reason for problem in check(out)] == [True]
    tar.write_bytes(content[:-1000])
    assert "bytes, not" in scan(out).problems[0].reason
    (out / "shard-000000.json").write_text("{")
    assert "not readable as JSON" in scan(out).problems[0].reason
    (out / "index.json").write_text('{"format": 9}')
    with pytest.raises(SongError, match="format 9 is not one that this version reads"):
        scan(out)


@pytest.mark.parametrize(
    "change",
    [
        {"tar": "../shard-000000.tar"}, {"tar": 5}, {"songs": 5}, {"songs": {"a": 1}}, {"left_out": [3]},
        *({"songs": [entry]} for entry in (
            {}, {"stems": ["bass"]}, {"stems": {"bass": ["none.flac"]}}, {"mixture": "none.flac"}, {"metadata": 5},
            {"rate": 0}, {"rate": "x"}, {"frames": math.nan}, {"frames": 1e30}, {"channels": 10**9}, {"name": 5},
            {"files": None}, {"files": {"bass.flac": [-5, 100]}}, {"files": {"bass.flac": [512, 10**30]}},
            {"files": {"bass.flac": "ab"}},
        )),
    ],
    ids=str,
)  # fmt: skip
def test_an_index_that_is_not_what_pack_writes_is_a_problem_of_its_shard(
    packed: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    file = out / "shard-000000.json"
    document = json.loads(file.read_text())
    songs = change.get("songs")
    if isinstance(songs, list):
        change = {"songs": [{**document["songs"][0], **songs[0]} if songs[0] else {}]}
    file.write_text(json.dumps({**document, **change}))
    found = scan(out)
    assert ["does not say of each song" in problem.reason for problem in found.problems] == [True] and found.songs
    assert len(check(out)) == 1


@pytest.mark.parametrize("number", [-1, 1.0, "x", None, 10**12])
def test_a_number_of_shards_that_is_none_is_refused(packed: Path, tmp_path: Path, number: object) -> None:
    index = json.loads((packed / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "shards": number}))
    with pytest.raises(SongError, match="is no number of shards"):
        scan(tmp_path)


def test_folders_of_something_else_are_refused(source: Path, packed: Path, tmp_path: Path) -> None:
    songs = folder(source)
    with pytest.raises(SongError, match=r"holds 3 songs in 2 shards, packed from other songs.*\(now 2 songs in 1"):
        list(pack(songs[:2], packed, megabytes=100))
    with pytest.raises(SongError, match="is not empty"):
        list(pack(songs, source))
    with pytest.raises(SongError, match=r"has no index\.json"):
        shards(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SongError, match="cannot be written"):
        list(pack(songs, tmp_path / "file" / "out"))


def test_songs_replaced_by_others_of_their_size_are_other_songs(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "songs")
    list(pack(folder(tmp_path / "songs"), tmp_path / "out"))
    file = next((tmp_path / "songs").rglob("*.wav"))
    content = file.read_bytes()
    file.write_bytes(content[:-2] + b"ab")  # the end alone
    with pytest.raises(SongError, match="packed from other songs"):
        list(pack(folder(tmp_path / "songs"), tmp_path / "out"))


def test_command(source: Path, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.app, ["songs", "pack", *words])
        return result.exit_code, result.output

    out = str(tmp_path / "out")
    code, text = run(str(source), out, "--shard", "1/2", "--shard-size", "1", "--json")
    assert code == 0 and json.loads(text)["songs"] == 2
    code, text = run(str(source), out, "--shard-size", "1")
    assert code == 0 and "shard 0: is there" in text and "shard 1: written" in text and "3 songs in 2 shards" in text
    assert run(str(source), out, "--shard", "3/2")[0] == 2
    assert run(str(source), str(source / "packed"))[0] == 2
    assert run(str(tmp_path / "nowhere"), out)[0] == 1
    (source / "empty").mkdir()
    code, text = run(str(source), out, "--shard-size", "1")
    (source / "empty").rmdir()
    assert code == 1 and "empty: no stems" in text


def test_songs_that_cannot_be_read_are_named_by_the_shards(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "songs")
    (tmp_path / "songs" / "empty").mkdir()
    for _ in range(2):
        words = ["songs", "pack", str(tmp_path / "songs"), str(tmp_path / "out"), "--shard-size", "1", "--json"]
        result = CliRunner().invoke(cli.app, words)
        assert result.exit_code == 1
        assert [entry["song"] for entry in json.loads(result.stdout)["left_out"]] == ["empty"]
    assert [problem.name for problem in scan(tmp_path / "out").skipped] == ["empty"]
    verified = CliRunner().invoke(cli.app, ["songs", "verify", str(tmp_path / "out")])
    assert "skipped: empty: left out when packed: no stems" in verified.output


def test_full_disk_is_said_and_leaves_nothing_partial(source: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; it cannot be lifted again, hence the process."""
    out = tmp_path / "out"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
        try:
            list(pack(folder(source), out))
        except SongError as error:
            os._exit(7 if "cannot be written" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert [file.name for file in out.iterdir()] == ["index.json"]


def test_decoded_files_beyond_full_scale_keep_their_peaks(tmp_path: Path) -> None:
    song = tmp_path / "source" / "loud"
    song.mkdir(parents=True)
    square = np.sign(np.sin(np.arange(20_000) / 7.3))
    soundfile.write(song / "bass.ogg", square, RATE)
    list(pack(folder(tmp_path / "source"), tmp_path / "out"))
    ((before,), (after,)) = folder(tmp_path / "source"), shards(tmp_path / "out")
    found = after.read(0, 20_000, ("bass",))
    assert np.abs(found).max() > 1.0
    assert np.array_equal(found, before.read(0, 20_000, ("bass",)))
