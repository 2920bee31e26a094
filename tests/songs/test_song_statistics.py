"""Statistics of a data set: known activity and levels are found, and the picture appears only when it is complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trees
from typer.testing import CliRunner

from stemwise import cli
from stemwise.errors import SongError
from stemwise.songs.statistics import draw, measure

RATE = 8000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two songs of 16 and 8 s; the bass of the first plays in its first half, at an amplitude of 0.1."""
    sine = 0.1 * np.sin(np.arange(16 * RATE) * 0.3)[:, None]
    sine[8 * RATE :] = 0
    trees.write(tmp_path / "songs" / "one" / "bass.wav", sine, RATE)
    trees.write(tmp_path / "songs" / "one" / "drums.wav", np.zeros((16 * RATE, 1)), RATE)
    trees.write(tmp_path / "songs" / "two" / "bass.wav", np.full((8 * RATE, 2), 0.01), RATE)
    return tmp_path / "songs"


def test_activity_and_level_are_those_of_the_signals(root: Path) -> None:
    found = measure(root)
    assert found.seconds.tolist() == [16, 8] and list(found.stems) == ["bass", "drums"]
    assert found.stems["bass"].activity.tolist() == [0.5, 1.0]
    np.testing.assert_allclose(found.stems["bass"].level, [-23.01, -40], atol=0.05)
    assert found.stems["drums"].activity.tolist() == [0] and np.isnan(found.stems["drums"].level).all()
    document = json.loads(json.dumps(found.to_dict()))
    assert document["stems"]["drums"]["level_db"] is None and document["stems"]["bass"]["activity"][1] == 0.75


@pytest.mark.parametrize("name", ["bass.flac", "bass.wav"])
def test_a_song_cut_short_is_named_and_the_others_count(root: Path, name: str) -> None:
    trees.write(root / "three" / name, trees.noise(4 * RATE), RATE)
    trees.cut(root / "three" / name)
    found = measure(root)
    assert [problem.name for problem in found.problems] == ["three"]
    assert len(found.stems["bass"].activity) == 2


def test_songs_that_could_not_be_read_are_told_by_the_exit_code(root: Path) -> None:
    trees.write(root / "three" / "bass.wav", trees.noise(4 * RATE), RATE)
    trees.cut(root / "three" / "bass.wav")
    result = CliRunner().invoke(cli.app, ["songs", "stats", str(root), "--json"])
    assert result.exit_code == 1 and "unreadable: three" in result.stderr
    document = json.loads(result.stdout)
    assert document["songs"] == 2
    assert (document["format"], document["verb"], document["exit_code"]) == (1, "songs stats", 1)


def test_songs_without_stems_are_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(SongError, match="no stems"):
        measure(trees.jamendo(tmp_path / "jamendo"))
    with pytest.raises(SongError, match="MIDI"):
        measure(trees.lakh(tmp_path / "lakh"))


def test_command_draws_a_picture(root: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = root.parent / "pictures" / "songs.png"
    result = CliRunner().invoke(cli.app, ["songs", "stats", str(root), "--out", str(picture)])
    assert result.exit_code == 0 and "bass" in result.output and "nan" not in result.output
    assert picture.read_bytes()[:4] == b"\x89PNG" and len(list(picture.parent.iterdir())) == 1
    result = CliRunner().invoke(cli.app, ["songs", "stats", str(root), "--out", "songs.txt"])
    assert result.exit_code == 1 and "no picture" in result.output
    (root.parent / "file").write_text("")
    with pytest.raises(SongError, match="cannot be written here"):
        draw(measure(root), root.parent / "file" / "songs.png")
