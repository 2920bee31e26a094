"""What `stemwise songs verify` says of real layouts: splits, rules, damage; every file is read once, to its end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trees
from typer.testing import CliRunner

from stemwise import cli
from stemwise.songs import verification
from stemwise.songs.verification import verify


def test_an_intact_data_set_with_its_traps_is_fit(tmp_path: Path) -> None:
    slakh = verify(trees.slakh(tmp_path / "slakh"))
    assert slakh.ok and (slakh.layout, slakh.songs, slakh.gaps) == ("slakh", 4, ())
    assert slakh.splits == {"omitted": 1, "test": 1, "train": 1, "validation": 1}
    moises = verify(trees.moisesdb(tmp_path / "moisesdb"))
    assert moises.ok and moises.splits == {"not published": 2}
    assert [(p.name[-1], p.reason.split()[0]) for p in moises.unequal] == [("1", "guitar"), ("1", "wind")]
    assert [p.reason for p in moises.silent] == ["drums is silent (peak below -80 dBFS)"]
    chorales = verify(trees.cocochorales(tmp_path / "chorales"))
    assert chorales.ok and [p.name for p in chorales.skipped] == ["string_track001353"]
    assert chorales.stems["1_violin"] == 2 and chorales.missing["1_violin"] == 2
    jamendo = verify(trees.jamendo(tmp_path / "jamendo"))
    assert jamendo.ok and (jamendo.songs, jamendo.stems) == (3, {})


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    root = trees.slakh(tmp_path)
    track = root / "train" / "Track00001"
    trees.write(track / "stems" / "S02.flac", trees.noise(9000), 44100)
    trees.cut(track / "stems" / "S02.flac")
    for name in ("S00", "S01"):
        file = track / "stems" / f"{name}.flac"
        file.rename(file.with_suffix(".wav"))
    trees.write(track / "stems" / "S00.wav", trees.noise(3000), 44100)
    trees.write(track / "stems" / "S01.wav", trees.noise(3000), 44100)
    trees.cut(track / "stems" / "S00.wav")
    report = verify(root)
    assert not report.ok and {p.name for p in report.corrupt} == {"Track00001"}
    assert sorted(p.reason.split()[0] for p in report.corrupt) == ["S00.wav", "S02.flac"]


def test_the_sum_is_compared_across_blocks_channels_and_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_BLOCK", 256)
    mono, stereo = trees.noise(1000), trees.noise(700, channels=2, seed=1)
    mixture = np.tile(mono, (1, 2))
    mixture[:700] += stereo
    for name, error in (("exact", 0.0), ("off", 0.01)):
        trees.write(tmp_path / name / "bass.wav", mono, 8000)
        trees.write(tmp_path / name / "drums.wav", stereo, 8000)
        trees.write(tmp_path / name / "mixture.wav", mixture + error, 8000)
    (gap,) = verify(tmp_path).gaps
    level = 10 * np.log10(0.01**2 / np.mean((mixture + 0.01) ** 2))
    assert gap.name == "off" and f"the difference is {level:.0f} dB" in gap.reason


def test_a_mixture_without_stems_must_be_whole(tmp_path: Path) -> None:
    root = trees.jamendo(tmp_path)
    trees.write(root / "00" / "7401.wav", trees.noise(5000), 44100)
    trees.cut(root / "00" / "7401.wav")
    assert ["7401.wav" in p.reason for p in verify(root).corrupt] == [True]


def test_midi_files_are_parsed(tmp_path: Path) -> None:
    pytest.importorskip("symusic")
    (tmp_path / "good.mid").write_bytes(trees.midi_bytes(60))
    (tmp_path / "bad.mid").write_bytes(trees.midi_bytes(61)[:-4])
    header = trees.midi_bytes(62)[:14]
    (tmp_path / "empty.mid").write_bytes(header + b"MTrk" + (4).to_bytes(4, "big") + b"\x00\xff\x2f\x00")
    report = verify(tmp_path)
    assert (report.midi, report.songs, report.ok) == (3, 0, False)
    assert [(p.name, p.reason[:14]) for p in report.corrupt] == [("bad", "cannot be pars"), ("empty", "holds no notes")]


def test_progress_counts_seconds_of_audio(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    verify(trees.musdb(tmp_path), lambda done, total: seen.append((done, total)))
    assert len(seen) == 3 and seen[-1][0] == pytest.approx(seen[-1][1])


def _run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["songs", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_command_reports_and_its_exit_code_says_whether_training_would_break(tmp_path: Path) -> None:
    root = trees.musdb(tmp_path / "musdb18hq")
    code, said = _run("verify", root)
    assert code == 0
    for expected in (
        "musdb, 3 songs",
        "bass in 3",
        "44100 in 3",
        "test in 1, train in 1, validation in 1",
        "can be used",
    ):
        assert expected in said
    (root / "test" / "Ünal & Søn - Café" / "vocals.wav").unlink()
    code, said = _run("verify", root)
    assert code == 1 and "corrupt: Ünal & Søn - Café: vocals.wav missing" in said
    result = CliRunner().invoke(cli.app, ["songs", "verify", str(root), "--json"])
    document = json.loads(result.stdout)
    assert (document["format"], document["verb"], document["exit_code"]) == (1, "songs verify", 1)
    assert result.exit_code == 1 and not document["ok"] and document["layout"] == "musdb"
    assert document["corrupt"][0]["song"] == "Ünal & Søn - Café"


def test_command_says_how_many_more_there_are(tmp_path: Path) -> None:
    for number in range(12):
        trees.write(tmp_path / f"song {number:02d}" / "bass.wav", np.zeros((100, 1)), 8000)
    code, said = _run("verify", tmp_path)
    assert code == 0 and said.count("silent:") == 11 and "silent: and 2 more" in said


@pytest.mark.parametrize("verb", ["verify", "stats"])
def test_command_on_a_place_of_no_use(verb: str, tmp_path: Path) -> None:
    code, said = _run(verb, tmp_path / "nothing")
    assert code == 1 and "does not exist" in said
