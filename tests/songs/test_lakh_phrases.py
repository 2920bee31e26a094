"""The published preprocessing of MIDI into phrases: recorded rolls, windows and filters, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from stemwise.codecs.roll import PUBLISHED
from stemwise.errors import SongError
from stemwise.songs import lakh_phrases as lp
from stemwise.songs.phrases import PhraseFile, RollOptions, RollWindows, phrase, roll_songs

symusic = pytest.importorskip("symusic")
FIXTURES = Path(__file__).parent.parent / "fixtures" / "mixture2music"
FACTS = json.loads((FIXTURES / "preprocess.json").read_text())
VARIANTS = [(file, name) for file, entry in FACTS["files"].items() for name in entry["variants"]]


def about(file: str, variant: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    tensors = load_file(FIXTURES / file.replace(".mid", ".safetensors"))
    return FACTS["files"][file]["variants"][variant], {
        k.split(".")[1]: v for k, v in tensors.items() if variant in k.split(".")
    }


@pytest.mark.parametrize(("file", "variant"), VARIANTS)
@pytest.mark.parametrize("found", [True, False], ids=["origin found", "origin given"])
def test_recorded_rolls_and_windows(file: str, variant: str, found: bool) -> None:
    facts, recorded = about(file, variant)
    score = symusic.Score(str(FIXTURES / file))
    roll, grid, kept = lp.roll_of(score, facts["melody_program"], None if found else facts["grid_origin_seconds"])
    assert grid.origin == pytest.approx(facts["grid_origin_seconds"], abs=1e-6)
    assert grid.step == pytest.approx(facts["step_seconds"])
    assert len(roll) == facts["roll_steps"]
    assert sorted((k.family, k.notes, k.track) for k in kept) == sorted((f, n, t) for f, _, n, t in facts["kept"])
    assert np.array_equal(roll, recorded["roll"])
    windows, starts = lp.windows(roll)
    assert np.array_equal(windows, recorded["windows"])
    assert starts.tolist() == facts["window_starts"]
    assert lp.dense(windows).tolist() == facts["passes_density_rule"]
    if facts["melody_program"] is not None:
        assert lp.melodious(windows).tolist() == facts["passes_melody_rule"]


def test_rows_of_the_drums_are_the_recorded_ones() -> None:
    assert PUBLISHED.drum_keys == {key: int(row) for row, keys in FACTS["drum_rows"].items() for key in keys}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "midi" / "a"
    folder.mkdir(parents=True)
    for name in ("grid", "rules"):
        (folder / f"{name}.mid").write_bytes((FIXTURES / f"preprocess_{name}.mid").read_bytes())
    (folder / "broken.mid").write_bytes(b"MThd\0\0")
    waltz = symusic.Score(str(FIXTURES / "preprocess_grid.mid"))
    waltz.time_signatures = [symusic.TimeSignature(0, 3, 4)]
    waltz.dump_midi(str(folder / "waltz.mid"))
    return tmp_path / "midi"


def test_phrases_are_linked_to_their_songs_and_rejections_to_their_rules(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "phrases"
    counts = list(lp.write_phrases(collection, out, {"rules": 24}))
    assert counts[-1] == (4, 5 + 3)
    entries = {e["source"]: e for e in map(json.loads, (out / "phrases.jsonl").read_text().splitlines())}
    assert entries["a/grid.mid"] | {"tracks": []} == {
        "file": "no_melody/a__grid-3e9fc3a2.npy", "song": entries["a/grid.mid"]["song"], "melody": False, "phrases": 5,
        "starts": [0, 16, 32, 48, 64], "origin_seconds": pytest.approx(2.0), "step_seconds": pytest.approx(0.125),
        "tracks": [], "source": "a/grid.mid",
    }  # fmt: skip
    assert entries["a/rules.mid"]["file"].startswith("melody/a__rules-") and entries["a/rules.mid"]["starts"] == [
        16,
        32,
        48,
    ]
    rejected = {e["song"]: e["reason"] for e in map(json.loads, (out / "rejected.jsonl").read_text().splitlines())}
    assert "cannot be read as MIDI" in rejected["a/broken"]
    assert rejected["a/waltz"] == "is in 3/4; only 4/4 is taken"


def test_files_of_phrases_have_names_of_their_own_that_any_disk_takes(tmp_path: Path) -> None:
    for place in ("Band/A__B", "Band__A/B", f"{'日' * 80}/{'本' * 80}"):
        file = tmp_path / "midi" / f"{place}.mid"
        file.parent.mkdir(parents=True)
        score = symusic.Score(str(FIXTURES / "preprocess_grid.mid"))
        score.tracks[0].name = place
        score.dump_midi(str(file))
    list(lp.write_phrases(tmp_path / "midi", tmp_path / "out"))
    assert len({song.file for song in roll_songs(tmp_path / "out") if isinstance(song, PhraseFile)}) == 3


def test_phrases_come_back_without_the_melody(collection: Path, tmp_path: Path) -> None:
    list(lp.write_phrases(collection, tmp_path / "out", {"rules": 24}))
    test, held = roll_songs(tmp_path / "out", "test"), roll_songs(tmp_path / "out")
    assert [type(song) for song in held] == [PhraseFile, PhraseFile]
    assert [song.name for song in test] == [song.name for song in held if "no_melody" in str(song.file)]
    recorded = about("preprocess_grid.mid", "with_melody")[1]["windows"][..., 1:].transpose(0, 3, 1, 2)
    stored = phrase(test[0].file, 2, 64, PUBLISHED)
    assert np.array_equal(stored[1:5], recorded[2, 1:])  # its melody track counts as nothing without a dictionary
    assert stored[-1, :, 0].nonzero()[0].tolist() == [0, 16, 32, 48]
    stream = RollWindows(held, RollOptions("published"), seed=0)
    assert stream[3].shape == (6, 64, 72)
    assert bool((stream[3] == stream[3]).all())
    with pytest.raises(SongError, match="no song in the split 'holdout'"):
        roll_songs(tmp_path / "out", "holdout")


@pytest.mark.parametrize("options", [RollOptions("band"), RollOptions("published", 128)], ids=["layout", "length"])
def test_phrases_are_not_read_as_what_they_are_not(options: RollOptions, collection: Path, tmp_path: Path) -> None:
    """Both layouts have five stems of 72 rows: in the other one pianos would be basses."""
    list(lp.write_phrases(collection, tmp_path / "out"))
    wanted = f"layout '{options.layout}', {options.length} steps"
    with pytest.raises(SongError, match=f"its phrases are of the layout 'published', 64 steps long; .* {wanted}"):
        RollWindows(roll_songs(tmp_path / "out"), options, seed=0)


def test_phrases_that_are_lost_are_named(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (collection / "page.mid").write_bytes(b"<html>")
    list(lp.write_phrases(collection, out, {"rules": 24}))
    assert "no MIDI file" in (out / "rejected.jsonl").read_text()
    songs = roll_songs(out)
    first = songs[0].file
    first.write_bytes(first.read_bytes()[:40])
    with pytest.raises(SongError, match="holds no phrase 0"):
        phrase(first, 0, 64, PUBLISHED)
    first.unlink()
    with pytest.raises(SongError, match=r"missing, but phrases.* names it"):
        roll_songs(out)
    for damaged in ("{", "[" * 100_000):
        (out / "phrases.jsonl").write_text(damaged)
        with pytest.raises(SongError, match="cut the phrases again"):
            roll_songs(out)


def test_a_collection_without_phrases_is_an_error(tmp_path: Path) -> None:
    score = symusic.Score(480)
    score.dump_midi(str(tmp_path / "empty.mid"))
    with pytest.raises(SongError, match="no file has a phrase; the first: empty has 0 time signatures"):
        list(lp.write_phrases(tmp_path, tmp_path / "out"))
