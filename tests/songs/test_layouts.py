"""Every published layout, built in miniature and read back; what is wrong in it is named, and nothing is lost."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trees

from stemwise.errors import SongError
from stemwise.songs import GROUPINGS, Song, group, jamendo, lakh, layouts, leaves, moisesdb, musdb, slakh, split_of
from stemwise.songs.scanning import Problem, Scan
from stemwise.songs.source import opened, read


def by_name(found: Scan) -> dict[str, object]:
    return {song.name: song for song in found.songs}


def reasons(problems: tuple[object, ...]) -> dict[str, str]:
    return {problem.name: problem.reason for problem in problems}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("build", "layout", "songs"),
    [
        (trees.slakh, "slakh", 4), (trees.msdm, "slakh", 3), (trees.musdb, "musdb", 3), (trees.moisesdb, "moisesdb", 2),
        (trees.cocochorales, "cocochorales", 4), (trees.jamendo, "jamendo", 3), (trees.lakh, "lakh", 0),
    ],
)  # fmt: skip
def test_recognised_at_the_root_above_it_and_in_a_split(
    build: Callable[[Path], Path], layout: str, songs: int, tmp_path: Path
) -> None:
    root = build(tmp_path / "downloads" / "it")
    for place in (root, root.parent):
        found = layouts.scan_any(place)
        assert (found.layout, len(found.songs)) == (layout, songs)
    if (root / "train").is_dir():
        part = layouts.scan_any(root / "train")
        assert part.layout == layout and part.songs
        assert {song.metadata["split"] for song in part.songs} <= {"train", "validation"}


def test_slakh_gives_classes_without_what_was_not_rendered(tmp_path: Path) -> None:
    found = slakh.slakh(trees.slakh(tmp_path))
    splits = {song.name: song.metadata["split"] for song in found}
    assert splits == {"Track00001": "train", "Track01501": "validation", "Track01876": "test", "Track00049": "omitted"}
    song = next(song for song in found if song.name == "Track00001")
    assert list(song.stems) == ["bass", "drums", "guitar", "piano", "strings"]
    assert (song.rate, song.channels, song.frames) == (44100, 1, trees.FRAMES)
    assert song.metadata["instruments"]["guitar"] == ["Distortion Guitar", "Acoustic Guitar (steel)"]
    assert song.metadata["programs"]["guitar"] == [30, 25]
    assert song.metadata["uuid"].startswith("1a81") and song.metadata["midi"].endswith("all_src.mid")
    both = sum(trees.noise(seed=seed) for seed in (0, 3))[:, 0]
    np.testing.assert_allclose(song.read(0, trees.FRAMES, ("guitar",))[0, 0], both, atol=1e-4)
    four = group(song, {name: (name,) for name in slakh.MSDM_STEMS}, None)
    assert tuple(four.stems) == slakh.MSDM_STEMS
    assert set(leaves(song).stems) == {"bass", "drums", "guitar/1", "guitar/2", "piano", "strings"}


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"inst_class": "Chromatic Percussion", "program_num": 9}, "chromatic_percussion"),
        ({"inst_class": "Sound effects"}, "sound_effects"),
        ({"inst_class": "Piano", "is_drum": True}, "drums"),
        ({"program_num": 33}, "bass"),
        ({"program_num": 128}, "drums"),
        ({}, "other"),
    ],
)
def test_slakh_stem_name(entry: dict[str, object], name: str) -> None:
    assert slakh.stem_name(entry) == name


def test_slakh_at_16_khz_in_wav_and_without_split_folders(tmp_path: Path) -> None:
    track = trees.slakh_track(tmp_path / "Track01600", rate=16000)
    for file in sorted((track / "stems").iterdir()):
        signal, rate = trees.soundfile.read(file, always_2d=True)
        trees.write(file.with_suffix(".wav"), signal, rate)
        file.unlink()
    (song,) = layouts.songs(tmp_path)
    assert (song.rate, song.metadata["split"]) == (16000, "validation")
    assert song.stems["bass"][0].suffix == ".wav"


def test_slakh_names_every_broken_track(tmp_path: Path) -> None:
    root = trees.slakh(tmp_path)
    (root / "train" / "Track00001" / "stems" / "S04.flac").unlink()
    (root / "test" / "Track01876" / "metadata.yaml").write_text("stems: {S00: [")
    (root / "omitted" / "Track00049" / "metadata.yaml").unlink()
    (root / "validation" / "Track01502").mkdir()
    found = layouts.scan_any(root)
    assert [song.name for song in found.songs] == ["Track01501"]
    said = reasons(found.problems)
    assert "stems/S04.flac is missing" in said["Track00001"]
    assert "metadata.yaml is damaged in line" in said["Track01876"]
    assert "metadata.yaml is missing" in said["Track00049"] and "metadata.yaml is missing" in said["Track01502"]


def test_slakh_derivative_of_msdm_linked_or_as_its_archives_unpack(tmp_path: Path) -> None:
    linked = {song.name: song for song in layouts.songs(trees.msdm(tmp_path / "linked"))}
    assert list(linked["Track00001"].stems) == list(slakh.MSDM_STEMS)
    assert list(linked["Track00002"].stems) == ["bass", "piano"] and linked["Track00002"].frames == 4000
    assert (linked["Track00001"].rate, linked["Track01876"].metadata) == (22050, {"split": "test"})
    for track in (tmp_path / "linked").glob("*/*"):
        for file in track.iterdir():
            place = tmp_path / "unpacked" / f"{file.stem}_22050" / track.parent.name / f"{track.name}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
    unpacked = {song.name: song for song in layouts.songs(tmp_path / "unpacked")}
    assert {name: list(song.stems) for name, song in unpacked.items()} == {
        name: list(song.stems) for name, song in linked.items()
    }
    assert unpacked["Track01876"].metadata == {"split": "test"}


def test_musdb_has_its_validation_songs_and_any_letters(tmp_path: Path) -> None:
    found = {song.name: song for song in musdb.musdb(trees.musdb(tmp_path / "musdb18hq"))}
    assert {name: song.metadata["split"] for name, song in found.items()} == {
        "A Classic Education - NightOwl": "train",
        "Actions - One Minute Smile": "validation",
        "Ünal & Søn - Café": "test",
    }
    assert len(musdb.VALIDATION) == 14
    song = found["Ünal & Søn - Café"]
    assert (song.metadata["artist"], song.metadata["title"]) == ("Ünal & Søn", "Café")
    assert tuple(song.stems) == musdb.STEMS and song.mixture is not None
    (tmp_path / "musdb18hq" / "train" / "A Classic Education - NightOwl" / "bass.wav").unlink()
    problems = layouts.scan_any(tmp_path).problems
    assert reasons(problems) == {"A Classic Education - NightOwl": "bass.wav missing; download the song again"}


def test_songs_with_more_stems_than_musdb_are_read_as_a_folder(tmp_path: Path) -> None:
    song = trees.musdb(tmp_path) / "test" / "Ünal & Søn - Café"
    trees.write(song / "instrumental.wav", trees.noise(channels=2), 44100)
    assert layouts.scan_any(tmp_path).layout == "musdb"
    trees.write(song / "guitar.wav", trees.noise(channels=2), 44100)
    found = layouts.scan_any(tmp_path)  # one song does not make another data set of it
    assert found.layout == "musdb"
    assert "has guitar.wav, which MUSDB18 has not" in reasons(found.problems)["Ünal & Søn - Café"]
    for other in song.parent.parent.glob("*/*"):
        trees.write(other / "guitar.wav", trees.noise(channels=2), 44100)
    found = layouts.scan_any(tmp_path)
    assert found.layout == "folder" and "guitar" in by_name(found)["test/Ünal & Søn - Café"].stems  # type: ignore[attr-defined]


def test_musdb_compressed_is_read_by_seeking(tmp_path: Path) -> None:
    pytest.importorskip("av")
    trees.stem_mp4(tmp_path / "test" / "Ünal & Søn - Café.stem.mp4")
    trees.cut(trees.stem_mp4(tmp_path / "train" / "A - B.stem.mp4"))
    found = layouts.scan_any(tmp_path)
    (song,) = found.songs
    assert (song.name, song.rate, song.channels, song.frames) == ("Ünal & Søn - Café", 8000, 1, 12000)
    assert list(reasons(found.problems)) == ["A - B"]
    whole = song.read(0, song.frames, musdb.STEMS)
    middle = slice(2000, -2000)  # the encoder needs a moment
    for number, stem in enumerate(whole, 2):
        expected = 0.1 * number * np.sin(np.arange(song.frames) / 20)
        np.testing.assert_allclose(stem[0, middle], expected[middle], atol=0.01)
    for start in (1, 1000, 5000, 11000):
        np.testing.assert_array_equal(
            song.read(start, 2000, musdb.STEMS)[..., : 12000 - start], whole[..., start : start + 2000]
        )
    file = song.stems["bass"][0]
    with opened(file) as audio:
        audio.read(9000)
        audio.seek(0)
        np.testing.assert_array_equal(audio.read(3000), whole[1, :, :3000].T)
    with pytest.raises(SongError, match="has 5 sound track"):
        read(type(file)(file.path, 7), 0, 10)  # type: ignore[call-arg, union-attr]


def test_musdb_compressed_without_pyav_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "A - B.stem.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SongError, match=r"pip install 'stemwise\[av\]'"):
        layouts.songs(tmp_path)


def test_moisesdb_has_two_levels_and_groups(tmp_path: Path) -> None:
    first, second = layouts.songs(trees.moisesdb(tmp_path))
    assert (first.metadata["title"], first.metadata["artist"], first.metadata["style"]) == (
        "夜想曲", "Sigur Rós", "singer_songwriter",
    )  # fmt: skip
    assert list(first.stems) == ["guitar", "vocals", "wind"] and (first.channels, first.frames) == (2, trees.FRAMES)
    assert first.metadata["tracks"] == {
        "guitar": ["acoustic guitar", "clean electric guitar"], "vocals": ["lead female singer"], "wind": ["flutes"],
    }  # fmt: skip
    assert first.metadata["bleed"]["guitar"] == [False, True]
    assert list(moisesdb.tracks(first).stems) == [
        "guitar/acoustic guitar", "guitar/clean electric guitar", "vocals/lead female singer", "wind/flutes",
    ]  # fmt: skip
    assert list(second.stems) == ["bass", "drums"] and second.metadata["tracks"]["bass"] == ["bass guitar"]
    guitar = first.read(0, trees.FRAMES, ("guitar",))[0]
    mono, stereo = trees.noise(1800, seed=2), trees.noise(channels=2, seed=1)
    np.testing.assert_allclose(guitar[:, 1500:1800], np.tile(mono[1500:].T, (2, 1)), atol=1e-4)
    np.testing.assert_allclose(guitar[:, :1500], (mono[:1500] + stereo[:1500]).T, atol=1e-4)
    assert not guitar[:, 1800:].any()
    grouped = {count: group(first, GROUPINGS[count], "other") for count in (4, 5, 6)}
    assert {count: list(song.stems) for count, song in grouped.items()} == {
        4: ["vocals", "other"], 5: ["vocals", "guitar", "other"], 6: ["vocals", "guitar", "other"],
    }  # fmt: skip
    assert "split" not in first.metadata
    for name in GROUPINGS[6]:
        assert name in moisesdb.TAXONOMY


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", r"data\.json is damaged"),
        ("[]", r"data\.json lacks"),
        ('{"stems": [{"tracks": []}]}', r"data\.json lacks"),
        ('{"stems": [{"stemName": "bass", "tracks": [{"id": ""}]}]}', "without an id"),
        ('{"stems": []}', "names no tracks"),
        ('{"stems": [{"stemName": "bass", "tracks": [{"id": "gone"}]}]}', r"gone\.wav is missing"),
        (None, r"data\.json is missing"),
    ],
)
def test_moisesdb_names_a_broken_song(content: str | None, reason: str, tmp_path: Path) -> None:
    broken = trees.moisesdb(tmp_path) / "moisesdb_v0.1" / "0358ee25-0002" / "data.json"
    if content is None:
        broken.unlink()
    else:
        broken.write_text(content)
    with pytest.warns(UserWarning, match=rf"1 unreadable song\(s\).*0358ee25-0002: .*{reason}"):
        assert [song.name for song in moisesdb.moisesdb(tmp_path)] == ["0358ee25-0001"]


def test_cocochorales_leaves_out_what_is_not_aligned_by_rule(tmp_path: Path) -> None:
    found = layouts.scan_any(trees.cocochorales(tmp_path))
    assert {song.name: (song.metadata["style"], song.metadata["split"]) for song in found.songs} == {
        "string_track000001": ("string", "train"), "brass_track048001": ("brass", "train"),
        "woodwind_track204001": ("woodwind", "validation"), "random_track234001": ("random", "test"),
    }  # fmt: skip
    assert "differ in length" in reasons(found.skipped)["string_track001353"]
    assert found.problems == ()
    song = next(song for song in found.songs if song.name.startswith("string"))
    assert list(song.stems) == ["0_violin", "1_violin", "2_viola", "3_cello"] and song.rate == 16000
    assert song.metadata["instruments"]["1_violin"] == ["violin"]


def test_cocochorales_partly_downloaded(tmp_path: Path) -> None:
    root = trees.cocochorales(tmp_path) / "main_dataset"
    (root / "train" / "25" / "brass_track048001" / "stems_audio" / "3_tuba.wav").unlink()
    with tarfile.open(root / "test" / "4.tar.bz2", "w:bz2") as archive:
        archive.add(root / "test" / "random_track234001", "random_track234002")
    (root / "test" / "10.tar.bz2").write_bytes(b"BZh9 cut")
    said = reasons(layouts.scan_any(tmp_path).problems)
    assert "has 3 of its 4 voices" in said["brass_track048001"]
    assert "is not unpacked (random_track234002 is not there); run: tar -xf 4.tar.bz2" in said["4.tar.bz2"]
    assert "not a whole archive" in said["10.tar.bz2"]
    assert len(said) == 3


def test_jamendo_has_words_and_a_mixture(tmp_path: Path) -> None:
    found = layouts.scan_any(trees.jamendo(tmp_path))
    songs = {song.name: song for song in found.songs}
    assert songs["1376256"].metadata["words"] == ["calm", "hip hop", "electric guitar"]
    assert {name: song.metadata.get("split") for name, song in songs.items()} == {
        "12": None, "7400": "validation", "1376256": "train",
    }  # fmt: skip
    assert songs["12"].metadata["words"] == []
    assert all(not song.stems and song.mixture for song in songs.values())
    assert reasons(found.skipped) == {"autotagging.tsv": "1 of its 3 songs are not on this disk"}
    assert [song.name for song in jamendo.jamendo(tmp_path / "56")] == ["1376256"]


def test_jamendo_tables_missing_or_damaged(tmp_path: Path) -> None:
    root = trees.jamendo(tmp_path)
    (root / "data" / "autotagging.tsv").write_text("TRACK_ID\ntrack_x\tartist\n")
    with pytest.raises(SongError, match=r"autotagging\.tsv: line 2 is no row"):
        layouts.songs(root)
    (root / "data").rename(tmp_path / "elsewhere")
    found = layouts.scan_any(root)
    assert len(found.songs) == 3 and "no song has words" in reasons(found.skipped)["tags"]


def test_words_are_ordered_and_said_once() -> None:
    assert jamendo.words(["instrument---piano", "genre---jazz", "mood/theme---calm", "genre---piano"]) == (
        "calm", "jazz", "piano",
    )  # fmt: skip
    assert jamendo.words(["loud", ""]) == ("loud",)


def test_lakh_gives_midi_by_song_and_each_content_once(tmp_path: Path) -> None:
    root = trees.lakh(tmp_path / "lmd_matched")
    found = lakh.lakh(root)
    assert [song.file.stem[-1] for song in found] == ["a", "b"]
    assert {song.metadata["song"] for song in found} == {f"TRABC{'0' * 13}"}
    assert len({song.metadata["split"] for song in found}) == 1
    scanned = layouts.scan_any(root)
    assert "is the same file as" in scanned.skipped[0].reason and "no MIDI file" in scanned.problems[0].reason
    with pytest.raises(SongError, match="2 MIDI files and no audio"), pytest.warns(UserWarning, match="1 unreadable"):
        layouts.songs(root)
    splits = {lakh.lakh(root, seed)[0].metadata["split"] for seed in range(40)}
    assert splits == {"train", "validation", "test"}


def test_lakh_honours_the_folders_of_splits_as_audio_does(tmp_path: Path) -> None:
    """What is omitted is in no split, and hides no copy."""
    for number, place in enumerate(("train/a", "deep/valid/b", "test/c", "omitted/d", "omitted/e", "rest/f")):
        file = tmp_path / f"{place}.mid"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(trees.midi_bytes(60 + number))
    (tmp_path / "train" / "e.mid").write_bytes(trees.midi_bytes(64))
    for seed in range(5):
        found = {song.name: song.metadata["split"] for song in lakh.lakh(tmp_path, seed)}
        rest = found.pop("rest/f")
        assert found == {
            "deep/valid/b": "validation", "omitted/d": "omitted", "test/c": "test", "train/a": "train", "train/e": "train",
        }  # fmt: skip
        assert rest == split_of(Song("rest/f", {}, 1, 1), seed)
    assert {song.metadata["split"] for song in lakh.lakh(tmp_path / "train")} == {"train"}


def test_lakh_recordings_that_share_a_content_are_one_song(tmp_path: Path) -> None:
    """Also through others: 0 and 3 share nothing, but 0 and 2, 2 and 1, 1 and 3 do."""
    contents = {0: "a", 1: "bc", 2: "ab", 3: "cd", 4: "e"}
    for number, held in contents.items():
        folder = tmp_path / f"TR{number:016d}"
        folder.mkdir()
        for content in held:
            (folder / f"{content * 32}.mid").write_bytes(trees.midi_bytes(60))
    songs = {song.file.stem[0]: song.metadata["song"] for song in lakh.lakh(tmp_path)}
    assert songs == {**dict.fromkeys("abcd", f"TR{0:016d}"), "e": f"TR{4:016d}"}
    assert all(
        len({s.metadata["split"] for s in lakh.lakh(tmp_path, seed) if s.file.stem[0] != "e"}) == 1 for seed in range(9)
    )


def test_files_of_a_song_follow_those_in_a_split(tmp_path: Path) -> None:
    for number, place in enumerate((f"test/TR{1:016d}/a", f"rest/TR{1:016d}/b", f"rest/TR{2:016d}/c")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{place}.mid").write_bytes(trees.midi_bytes(60 + number))
    for seed in range(20):
        splits = {song.file.stem: song.metadata["split"] for song in lakh.lakh(tmp_path, seed)}
        assert (splits["a"], splits["b"]) == ("test", "test")
    (tmp_path / f"train/TR{1:016d}").mkdir(parents=True)
    (tmp_path / f"train/TR{1:016d}/d.mid").write_bytes(trees.midi_bytes(70))
    splits = {song.file.stem: song.metadata["split"] for song in lakh.lakh(tmp_path)}
    assert (splits["a"], splits["b"], splits["d"]) == ("test", "omitted", "train"), "published splits stand"


def test_a_chain_of_false_matches_is_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lakh, "CHAIN", 3)
    for number in range(4):
        (tmp_path / f"TR{number:016d}").mkdir()
        for content in "abcde"[number : number + 2]:
            (tmp_path / f"TR{number:016d}" / f"{content * 32}.mid").write_bytes(trees.midi_bytes(60))
    splits = [{song.metadata["split"] for song in lakh.lakh(tmp_path, seed)} for seed in range(20)]
    assert splits == [{"train"}] * 20


def test_lakh_versions_of_a_title_stay_together(tmp_path: Path) -> None:
    for number, name in enumerate(("Song.mid", "Song.1.mid", "Song.2.mid", "Other.mid")):
        (tmp_path / "Artist").mkdir(exist_ok=True)
        (tmp_path / "Artist" / name).write_bytes(trees.midi_bytes(60 + number))
    assert {song.metadata["song"] for song in lakh.lakh(tmp_path)} == {"Artist/Song", "Artist/Other"}
    (tmp_path / "wrapped.mid").write_bytes(b"RIFF\0\0\0\0RMIDdata")
    (tmp_path / "copy.mid").write_bytes(trees.midi_bytes(60))
    left: list[Problem] = []
    assert len(lakh.lakh(tmp_path, left_out=left.append)) == 4
    reasons = {one.name: one.reason for one in left}
    assert (
        set(reasons) == {"wrapped", "copy"} and "unwrap it" in reasons["wrapped"] and "the same file" in reasons["copy"]
    )
    with pytest.raises(SongError, match="no MIDI file"):
        (tmp_path / "empty").mkdir()
        lakh.lakh(tmp_path / "empty")


@pytest.mark.parametrize("name", ["data.json", "index.json"])
def test_a_stray_file_changes_no_layout(name: str, tmp_path: Path) -> None:
    for song in ("one", "two"):
        (tmp_path / song).mkdir()
        soundfile.write(tmp_path / song / "bass.wav", np.full((100, 1), 0.1), 8000)
    (tmp_path / name).write_text('{"artist": "me"}')
    assert [song.name for song in layouts.songs(tmp_path)] == ["one", "two"]


def test_a_place_of_no_use_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SongError, match="does not exist"):
        layouts.songs(tmp_path / "nothing")
    (tmp_path / "slakh2100_flac_redux.tar.gz").write_bytes(b"")
    with pytest.raises(SongError, match="is an archive; unpack it"):
        layouts.songs(tmp_path / "slakh2100_flac_redux.tar.gz")
    with pytest.raises(SongError, match="nothing but archives"):
        layouts.songs(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(SongError, match=r"holds no audio.*slakh, moisesdb, cocochorales, musdb, jamendo, lakh"):
        layouts.songs(tmp_path / "photos")
    trees.musdb(tmp_path / "sets" / "musdb18hq")
    trees.moisesdb(tmp_path / "sets" / "moisesdb")
    with pytest.raises(SongError, match=r"several data sets \(moisesdb, musdb\); give one of them"):
        layouts.songs(tmp_path / "sets")
