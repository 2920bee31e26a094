"""MIDI from the command line: files are separated, made and accompanied, whatever they hold; bad ones are named."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from stemwise import checkpoint, cli, load_notes
from stemwise.audio_io import write_audio
from stemwise.commands.midi import midi_file
from stemwise.errors import MidiFileError, QueryError
from stemwise.songs.synthetic import compose, write_midi
from stemwise.symbolic import multiset, read_midi
from stemwise.symbolic.midi import events_lost
from stemwise.symbolic.picture import draw
from tiny_band import RATE, music, write_tiny_band
from tiny_notes import tiny_assigner
from tiny_rolls import tiny_prior

symusic = pytest.importorskip("symusic")


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save_model(tmp_path_factory.mktemp("models") / "tiny-notes", tiny_assigner())


@pytest.fixture(scope="module")
def rolls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save_model(tmp_path_factory.mktemp("models") / "tiny-rolls", tiny_prior())


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("song") / "song.mid"
    write_midi(compose(5, seconds=12), file)
    return file


@pytest.fixture
def separated(notes: Path, song: Path, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Separate one file by the tiny model: the output folder and its manifest."""

    def separate(*options: object, source: Path = song) -> tuple[Path, dict[str, Any]]:
        done = run("separate", source, "--model", notes, "-o", tmp_path / "out", "--json", *options)
        assert done.exit_code == 0, done.output
        manifest = json.loads(done.stdout)["outcomes"][0]["manifest"]
        return tmp_path / "out" / "tiny-notes" / source.stem, manifest

    return separate


Separate = Callable[..., tuple[Path, dict[str, Any]]]


def test_every_note_comes_back_on_the_track_of_its_instrument(separated: Separate, song: Path) -> None:
    folder, manifest = separated("--table", "--plot")
    before, after = read_midi(song), read_midi(folder / "song.mid")
    assert np.array_equal(multiset(before.notes), multiset(after.notes))
    assert (before.tempos, before.metres, before.tpq) == (after.tempos, after.metres, after.tpq)
    assert manifest["kind"] == "midi"
    assert manifest["notes"] == len(before.notes) == sum(its["notes"] for its in manifest["stems"].values())
    assert manifest["notes_changed"] == 0
    for name, facts in manifest["stems"].items():
        mine = [k for k, (title, _, _) in enumerate(after.tracks) if title in facts["tracks"]]
        assert np.isin(after.notes["track"], mine).sum() == facts["notes"], name
        assert {after.tracks[k][2] for k in mine} == {name == "drums"}
    assert (folder / "song.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split(",") for line in (folder / "song.csv").read_text().splitlines()]
    assert rows[0] == ["onset", "duration", "pitch", "velocity", "track", "instrument", "confidence"]
    columns = [before.notes[name].tolist() for name in rows[0][:4]]
    assert [row[:4] for row in rows[1:]] == [list(map(str, one)) for one in zip(*columns, strict=True)]
    for name, facts in manifest["stems"].items():
        assert sum(row[5] == name for row in rows[1:]) == facts["notes"]
    assert all(0 < float(row[6]) <= 1 for row in rows[1:])


def test_what_is_known_stays_and_who_does_not_play_gets_nothing(separated: Separate, song: Path) -> None:
    tracks = [name for name, _, _ in read_midi(song).tracks]
    place = tracks.index("bass") + 1
    present = "--present", "bass,drums,melody"
    folder, manifest = separated(*present, "--lock", f"{place}=bass", "--lock", "guitar=melody")
    assert set(manifest["stems"]) <= {"bass", "drums", "melody"}
    source = read_midi(song)
    found = read_midi(folder / "song.mid")
    bass = np.isin(found.notes["track"], [k for k, (title, _, _) in enumerate(found.tracks) if title[:4] == "bass"])
    locked = multiset(source.notes[source.notes["track"] == place - 1])
    assert set(map(tuple, locked.tolist())) <= set(map(tuple, multiset(found.notes[bass]).tolist()))
    assert manifest["stems"]["bass"]["notes_given"] == len(locked)
    # the drums lie on channel 10, so they are known without being told
    assert manifest["stems"]["drums"]["notes_given"] > 0


def test_notes_of_another_file_are_locked_by_onset_and_pitch(notes: Path, song: Path, tmp_path: Path) -> None:
    whole, score = symusic.Score(str(song)), symusic.Score(read_midi(song).tpq)
    score.tracks.extend([track for track in whole.tracks if track.name == "piano"])
    score.dump_midi(str(tmp_path / "part.mid"))
    model = load_notes(notes, "cpu")
    music = read_midi(song)
    by_number = model.separate(music, locked={np.int32(1): "strings"})
    assert by_number.given.any()
    parts = model.separate(music, locked={tmp_path / "part.mid": "strings"})
    piano = [k for k, (name, _, _) in enumerate(music.tracks) if name == "piano"]
    strings = [one.name for one in parts.instruments].index("strings")
    assert (parts.labels[np.isin(music.notes["track"], piano)] == strings).all()
    for locked, words in (({99: "bass"}, "no track 99"), ({"tuba": "bass"}, "neither a track nor"),
                          ({1: "tuba"}, "tuba")):  # fmt: skip
        with pytest.raises(QueryError, match=words):
            model.separate(music, locked=locked)
    with pytest.raises(QueryError, match="not among those that play"):
        model.separate(music, present=["melody"], locked={1: "bass"})


def test_where_notes_cannot_be_written_is_said(notes: Path, song: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MidiFileError, match=r"file/song.mid: cannot be written .* another place"):
        load_notes(notes, "cpu").separate(song).save(tmp_path / "file" / "song.mid")
    assert (tmp_path / "file").read_bytes() == b""


def test_steps_are_a_whole_number(notes: Path, song: Path) -> None:
    with pytest.raises(QueryError, match=r"steps is 1\.5; give a whole number"):
        load_notes(notes, "cpu").separate(song, steps=1.5)  # type: ignore[arg-type]


def test_a_locked_file_is_known_by_its_content(notes: Path, song: Path, tmp_path: Path) -> None:
    part = tmp_path / "secret" / "part.mid"
    part.parent.mkdir()
    part.write_bytes(song.read_bytes())
    words = ("separate", song, "--model", notes, "-o", tmp_path / "out", "--lock", f"{part}=piano", "--json")
    (one,) = json.loads(run(*words, "--lock", "1=bass").stdout)["outcomes"]
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    assert one["manifest"]["parameters"]["locked"] == [
        {"file": "part.mid", "sha256": digest, "instrument": "piano"}, {"track": "1", "instrument": "bass"}
    ]  # fmt: skip
    assert "secret" not in Path(one["folder"], "manifest.json").read_text()
    again = (*words, "--lock", "1=bass", "--skip-existing")
    assert run(*again).exit_code == 0
    write_midi(compose(6, seconds=12), part)
    changed = run(*again)
    assert changed.exit_code == 1 and "what differs: options" in changed.output


def test_what_one_file_lacks_costs_no_other(notes: Path, song: Path, tmp_path: Path) -> None:
    (tmp_path / "beat.mid").write_bytes(file_of((0, b"\x99\x24\x50"), (60, b"\x89\x24\x00")))
    (tmp_path / "last.mid").write_bytes(song.read_bytes())
    words = (song, tmp_path / "beat.mid", tmp_path / "last.mid", "--model", notes, "-o", tmp_path / "out")
    done = run("separate", *words, "--lock", "2=bass")
    assert done.exit_code == 1 and "beat.mid: locked: there is no track 2" in done.output
    assert sorted(file.name for file in (tmp_path / "out").rglob("*.mid")) == ["last.mid", "song.mid"]
    for wrong in (("--lock", "1=tuba"), ("--present", "tuba")):
        assert run("separate", *words, *wrong).exit_code == 2


def test_a_manifest_that_says_nothing_of_its_files_is_no_midi(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1, "kind": "midi", "stems": {"bass": "x.mid"}}')
    assert midi_file(tmp_path) is None


def test_doublings_are_further_notes_and_versions_differ(separated: Separate, song: Path) -> None:
    _, plain = separated()
    folder, doubled = separated("--doublings", "--overwrite")
    found = len(read_midi(folder / "song.mid").notes)
    assert found == plain["notes"] + doubled["notes_doubled"] > plain["notes"]
    assert doubled["notes_changed"] == 0
    versions = [separated("--seed", seed, "--overwrite")[1]["stems"] for seed in (1, 2)]
    assert versions[0] != versions[1]


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in synthesiser plays: it needs no time to read a font."""
    monkeypatch.setattr("stemwise.symbolic.rendering.fonts", lambda use: [])


@pytest.mark.usefixtures("no_fonts")
def test_audio_is_made_by_stem(separated: Separate) -> None:
    folder, manifest = separated("--render", "--flac")
    assert {file.suffix for file in (folder / "audio").iterdir()} == {".flac", ".json"}
    audio = json.loads((folder / "audio" / "manifest.json").read_text())
    assert manifest["rendered_by"] == audio["model"]
    assert audio["mix"]["peak_dbfs"] > -60
    assert (folder / "audio" / "mix.flac").is_file()


def test_a_result_is_an_input_and_is_skipped_where_it_is_there(
    separated: Separate, notes: Path, tmp_path: Path
) -> None:
    folder, manifest = separated()
    again = run("separate", folder, "--model", notes, "-o", tmp_path / "again", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["outcomes"][0]["manifest"]["notes"] == manifest["notes"]
    skipped = run("separate", folder, "--model", notes, "-o", tmp_path / "again", "--json", "--skip-existing")
    assert json.loads(skipped.stdout)["outcomes"][0]["status"] == "skipped"


def file_of(*events: tuple[int, bytes], tpq: int = 480) -> bytes:
    track = b"".join(bytes(_variable(delta)) + event for delta, event in (*events, (0, b"\xff\x2f\x00")))
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, tpq) + b"MTrk" + struct.pack(">I", len(track)) + track


def _variable(value: int) -> list[int]:
    return ([0x80 | value >> 7] if value > 127 else []) + [value & 0x7F]


ON, OFF = (0, b"\x90\x3c\x40"), (100, b"\x80\x3c\x40")


def test_bad_files_are_named_and_do_not_stop_the_others(notes: Path, song: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mid").write_bytes(file_of())
    (tmp_path / "cut.mid").write_bytes(song.read_bytes()[:-40])
    (tmp_path / "text.mid").write_text("no music")
    done = run("separate", *(tmp_path / f"{n}.mid" for n in ("empty", "cut", "text")), song, "--model", notes,
               "-o", tmp_path / "out", "--json")  # fmt: skip
    assert done.exit_code == 1
    outcomes = {Path(one["input"]).stem: one for one in json.loads(done.stdout)["outcomes"]}
    assert outcomes["song"]["status"] == "done"
    assert "no notes" in outcomes["empty"]["message"]
    assert "breaks off" in outcomes["cut"]["message"]
    assert "not a MIDI file" in outcomes["text"]["message"]
    assert sorted(folder.name for folder in (tmp_path / "out").rglob("*.mid")) == ["song.mid"]


def test_only_drums_are_all_known_and_lost_events_are_named(separated: Separate, tmp_path: Path) -> None:
    kick, aftertouch = (b"\x99\x24\x50", b"\x89\x24\x00"), b"\xa9\x24\x11"
    (tmp_path / "beat.mid").write_bytes(file_of((0, kick[0]), (30, aftertouch), (60, kick[1])))
    folder, manifest = separated(source=tmp_path / "beat.mid")
    assert list(manifest["stems"]) == ["drums"]
    assert manifest["confidence"] is None
    assert manifest["events_lost"] == {"aftertouch": 1}
    assert symusic.Score(str(folder / "beat.mid")).tracks[0].is_drum


@pytest.mark.parametrize("tpq", (24, 9600))
def test_any_resolution_text_and_system_exclusive_messages_survive(
    tpq: int, separated: Separate, tmp_path: Path
) -> None:
    sysex, text = b"\xf0\x03\x7e\x7f\xf7", b"\xff\x01\x02hi"
    (tmp_path / "fine.mid").write_bytes(file_of((0, sysex), ON, (3, text), ON, OFF, OFF, tpq=tpq))
    folder, manifest = separated(source=tmp_path / "fine.mid")
    music = read_midi(folder / "fine.mid")
    assert (music.tpq, manifest["ticks_per_quarter"]) == (tpq, tpq)
    assert [event for _, event in music.census.kept] == [sysex, text]
    assert np.array_equal(multiset(music.notes), multiset(read_midi(tmp_path / "fine.mid").notes))


def test_options_for_the_other_kind_of_file_are_refused(notes: Path, rolls: Path, song: Path, tmp_path: Path) -> None:
    for words in (("separate", song, "--stems", "bass"), ("separate", song, "--model", rolls), ("separate", song, "--lock", "bass"),
                  ("separate", song, "--present", "tuba", "--model", notes),
                  ("generate", "--plot"), ("generate", "--midi", "--rank", "coherence"),
                  ("generate", "--midi", "--model", rolls, "--mp3")):  # fmt: skip
        done = run(*words, "-o", tmp_path / "out")
        assert done.exit_code == 2, (words, done.output)
    assert not list((tmp_path / "out").rglob("*.mid"))


def test_a_model_of_audio_is_not_replaced_in_silence(song: Path, tmp_path: Path) -> None:
    model = write_tiny_band(tmp_path / "tiny")
    done = run("separate", song, "--model", model, "-o", tmp_path / "out")
    assert done.exit_code == 2 and "for MIDI files give -n notes" in done.output
    assert not (tmp_path / "out").exists()


def test_a_midi_file_among_audio_costs_no_song(song: Path, tmp_path: Path) -> None:
    model = write_tiny_band(tmp_path / "tiny")
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "stray.mid").write_bytes(song.read_bytes())
    write_audio(tmp_path / "album" / "take.wav", music(0.5), RATE)
    done = run(
        "separate", tmp_path / "album", "--two-stems", "drums", "--model", model, "-o", tmp_path / "out", "--json"
    )
    assert done.exit_code == 1, done.output
    outcomes = {Path(one["input"]).name: one for one in json.loads(done.stdout)["outcomes"]}
    assert outcomes["take.wav"]["status"] == "done"
    assert "--two-stems are for audio" in outcomes["stray.mid"]["message"]


def test_overwriting_spares_files_beside_rendered_audio(separated: Separate) -> None:
    folder, _ = separated("--render")
    (folder / "audio" / "bounce.wav").write_bytes(b"mine")
    with pytest.raises(AssertionError, match="bounce"):
        separated("--render", "--overwrite")
    assert (folder / "audio" / "bounce.wav").read_bytes() == b"mine"


def test_midi_is_generated(rolls: Path, tmp_path: Path) -> None:
    done = run("generate", "--midi", "--model", rolls, "--seconds", 8, "--count", 2, "--stems", "bass,drums", "--plot",
               "-o", tmp_path, "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    first, second = (one["manifest"] for one in json.loads(done.stdout)["outcomes"])
    assert set(first["stems"]) <= {"bass", "drums"}
    assert first["parameters"]["bars"] == 4 and first["parameters"]["steps"] == 3, "the prior's own number"
    files = [tmp_path / "tiny-rolls" / f"seed-{k}" / f"seed-{k}.mid" for k in (0, 1)]
    music = [read_midi(file) for file in files]
    assert [len(one.notes) for one in music] == [first["notes"], second["notes"]]
    assert not np.array_equal(multiset(music[0].notes), multiset(music[1].notes))
    assert max(music[0].notes["onset"] + music[0].notes["duration"]) <= 4 * 4 * music[0].tpq
    assert files[0].with_suffix(".png").is_file()


@pytest.mark.usefixtures("no_fonts")
def test_what_was_played_is_kept_and_accompanied_on_its_own_clock(rolls: Path, tmp_path: Path) -> None:
    score = symusic.Score(100)  # three quarters to the bar, a pickup, a change of tempo, swung notes off the grid
    score.time_signatures.append(symusic.TimeSignature(0, 1, 4))
    score.time_signatures.append(symusic.TimeSignature(100, 3, 4))
    score.tempos.append(symusic.Tempo(0, 90))
    score.tempos.append(symusic.Tempo(400, 140))
    track = symusic.Track("lead guitar", 29, False)
    track.notes = symusic.Note.from_numpy(np.array([0, 103, 267, 901], np.int32), np.array([90, 77, 33, 400], np.int32),
                                          np.array([60, 64, 67, 72], np.int8), np.array([1, 127, 64, 90], np.int8))  # fmt: skip
    score.tracks.append(track)
    score.dump_midi(str(tmp_path / "part.mid"))
    done = run("accompany", tmp_path / "part.mid", "--model", rolls, "--want", "bass,drums", "-n", 2, "-o", tmp_path,
               "--render", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    manifest = json.loads(done.stdout)["outcomes"][0]["manifest"]
    folder = tmp_path / "tiny-rolls" / "part" / "take-1"
    before, after = read_midi(tmp_path / "part.mid"), read_midi(folder / "take-1.mid")
    assert np.array_equal(multiset(after.notes[after.notes["track"] == 0]), multiset(before.notes))
    assert (after.tempos, after.metres, after.tpq) == (before.tempos, before.metres, 100)
    assert {name for name, _, _ in after.tracks[1:]} <= {"bass", "drums"}
    assert manifest["stems"]["guitar"]["given"]
    assert manifest["stems"]["guitar"]["program"] == 29
    bars_end = 100 + 5 * 300  # the bar in which the last note ends is full
    assert (after.notes["onset"] + after.notes["duration"]).max() <= bars_end
    assert (folder / "audio" / "mix.wav").is_file()
    for words in ((tmp_path / "part.mid", "--want", "guitar"), (f"guitar={tmp_path / 'part.mid'}", "--want", "guitar")):
        both = run("accompany", *words, "--model", rolls, "-o", tmp_path)
        assert both.exit_code == 2, both.output
        assert "wanted" in both.output
    named = run("accompany", f"piano={tmp_path / 'part.mid'}", "--model", rolls, "--want", "guitar", "--name", "b",
                "-o", tmp_path)  # fmt: skip
    assert named.exit_code == 0, named.output


def test_all_parts_or_one_twice_are_refused(rolls: Path, song: Path, tmp_path: Path) -> None:
    five = [f"{name}={song}" for name in ("bass", "drums", "guitar", "piano", "other")]
    for words, said in ((five, "every stem was given"), ([five[0], five[0], "--want", "drums"], "bass is given twice")):
        done = run("accompany", *words, "--model", rolls, "-o", tmp_path)
        assert done.exit_code == 2, done.output
        assert said in done.output
    assert not (tmp_path / "tiny-rolls").exists()


def test_dollars_in_names_are_drawn(song: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    music = read_midi(song)
    draw(music, {"a$^$b": music.notes}, tmp_path / "a.png", "c$^$d")
    assert (tmp_path / "a.png").is_file()


def test_parts_of_a_song_are_made_anew(rolls: Path, song: Path, tmp_path: Path) -> None:
    done = run("accompany", song, "--model", rolls, "--want", "drums,bass", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    before, after = read_midi(song), read_midi(tmp_path / "tiny-rolls" / "song" / "song.mid")
    kept = [name for name, _, _ in before.tracks if name not in ("bass", "drums")]
    assert [name for name, _, _ in after.tracks][: len(kept)] == kept
    mine = multiset(
        before.notes[np.isin(before.notes["track"], [k for k, t in enumerate(before.tracks) if t[0] in kept])]
    )
    assert np.array_equal(multiset(after.notes[after.notes["track"] < len(kept)]), mine)


@pytest.mark.parametrize("words", [["separate", "SONG"], ["generate", "--midi"], ["accompany", "SONG"]])
def test_without_the_package_for_midi_the_remedy_is_said(
    words: list[str], song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "symusic", None)
    result = run(*(song if word == "SONG" else word for word in words))
    assert result.exit_code == 3, result.output
    assert "pip install 'stemwise[midi]'" in result.output


def midi_of(path: Path, *tracks: tuple[str, int], tempo: float = 120) -> Path:
    """A file of named tracks with so many notes each."""
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, tempo))
    for place, (name, count) in enumerate(tracks):
        track = symusic.Track(name, 0, False)
        for note in range(count):
            track.notes.append(symusic.Note(240 * note + place, 200, 60, 90))
        score.tracks.append(track)
    score.dump_midi(str(path))
    return path


def test_the_manifest_says_which_track_is_which_stem(rolls: Path, tmp_path: Path) -> None:
    part = midi_of(tmp_path / "part.mid", ("MELODY", 5), ("PIANO", 7))
    done = run("accompany", f"bass={part}", "--model", rolls, "--want", "drums", "-o", tmp_path / "one")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "one" / "tiny-rolls" / "part"
    assert json.loads((folder / "manifest.json").read_text())["stems"]["bass"]["numbers"] == [1, 2]
    done = run("accompany", folder, "--model", rolls, "--want", "piano", "-o", tmp_path / "two", "--json")
    assert done.exit_code == 0, done.output
    given = json.loads(done.stdout)["outcomes"][0]["manifest"]["stems"]["bass"]
    assert (given["tracks"], given["notes"]) == (["MELODY", "PIANO"], 12), "no note of what was given is lost"


def test_parts_of_different_tempos_are_refused(rolls: Path, tmp_path: Path) -> None:
    slow, fast = (midi_of(tmp_path / f"{pace}.mid", ("a", 4), tempo=pace) for pace in (60, 90))
    done = run("accompany", f"bass={slow}", f"guitar={fast}", "--model", rolls, "--want", "drums", "-o", tmp_path)
    assert done.exit_code == 2 and "other tempos" in done.output


def test_a_folder_in_which_nothing_sounds_has_no_notes(rolls: Path, notes: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.mkdir()
    (silent / "silent.mid").write_bytes(file_of())
    manifest = {"format": 1, "kind": "midi", "verb": "generate", "model": "rolls", "stems": {}}
    (silent / "manifest.json").write_text(json.dumps(manifest))
    for words in (("separate", silent, "--model", notes), ("accompany", silent, "--model", rolls, "--want", "bass")):
        done = run(*words, "-o", tmp_path / "out")
        assert done.exit_code == 1 and "has no notes" in done.output, done.output


def test_verbs_for_audio_say_what_midi_is(song: Path, tmp_path: Path) -> None:
    done = run("edit", song, "--remove", "drums", "--model", write_tiny_band(tmp_path / "tiny"), "-o", tmp_path / "out")
    assert done.exit_code == 1 and "this is MIDI" in done.output


def test_controllers_that_no_track_keeps_are_counted(separated: Separate, tmp_path: Path) -> None:
    score = symusic.Score(480)
    for name, count in (("left", 3), ("right", 5)):
        track = symusic.Track(name, 0, False)
        for place in range(count):
            track.notes.append(symusic.Note(480 * place, 400, 48 + place, 90))
            track.controls.append(symusic.ControlChange(480 * place, 64, 127))
        score.tracks.append(track)
    score.dump_midi(str(tmp_path / "hands.mid"))
    _, manifest = separated("--present", "piano", source=tmp_path / "hands.mid")
    assert manifest["events_lost"] == {"controller": 3}
    music = read_midi(tmp_path / "hands.mid")
    right = music.notes[music.notes["track"] == 1]
    assert events_lost(music, {"piano": right[:2], "guitar": right[2:]}) == {"controller": 3}, "counted once a track"


def test_what_accompanies_keeps_all_events_in_their_order(rolls: Path, tmp_path: Path) -> None:
    texts = [b"\xff\x01\x02" + name for name in (b"zz", b"aa", b"mm", b"aa", b"bb")]
    held = [(0, b"\xb0\x40\x7f"), *((0, text) for text in texts)]
    (tmp_path / "part.mid").write_bytes(file_of(*held, ON, OFF))
    done = run(
        "accompany", f"bass={tmp_path / 'part.mid'}", "--model", rolls, "--want", "drums", "-o", tmp_path, "--json"
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outcomes"][0]["manifest"]["events_lost"] == {}
    made = read_midi(tmp_path / "tiny-rolls" / "part" / "part.mid")
    assert [event for _, event in made.census.kept] == texts
