"""Evaluating: right figures, nothing lost by a kill, shards that add up, and failures that are never silent."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_songs import STEMS, blurred, read, write_songs

import stemwise.evaluate.results as results_module
from stemwise.errors import Cancelled, EvaluationError, QueryError, RecipeError
from stemwise.evaluate import Entrant, Protocol, Question, Results, evaluate, figures, metric
from stemwise.evaluate.baselines import ground_truth, mixture_over_k, oracle_mask
from stemwise.evaluate.results import SongResult, read_results
from stemwise.metrics.separation import si_sdr
from stemwise.songs import Song
from stemwise.stems import Audio

ASKED = Protocol(metrics=["si-sdr", "si-sdri", "sdr"])


@pytest.fixture
def songs(tmp_path: Path) -> list[Song]:
    return write_songs(tmp_path / "songs", silent=("piano",))


def all_rows(results: Results) -> list[tuple]:
    return [(song, *vars(row).values()) for song in results.finished() for row in results.read(song).rows]


def test_rows_are_the_metric_of_the_answer(songs: list[Song], tmp_path: Path) -> None:
    (results,) = evaluate([Entrant("blurred", blurred, {})], songs, ASKED, tmp_path / "out")
    rows = {(row.stem, row.metric): row for row in results.read("song-1").rows}
    assert len(rows) == 9
    truth = read(songs[1])
    mix = truth.sum(0)
    for i, stem in enumerate(STEMS):
        expected = si_sdr(truth[i] + np.float32(0.1) * mix, truth[i])
        assert rows[stem, "si-sdr"].value == pytest.approx(expected, abs=1e-4)
        assert rows[stem, "si-sdri"].value == pytest.approx(expected - si_sdr(mix, truth[i]), abs=1e-4)


def test_silent_references_have_no_value_and_are_counted(songs: list[Song], tmp_path: Path) -> None:
    (results,) = evaluate([Entrant("blurred", blurred, {})], songs, ASKED, tmp_path / "out")
    silent = [row for row in results.read("song-0").rows if row.stem == "piano"]
    assert [row.value for row in silent] == [None] * 3 and all("silent" in row.note for row in silent)
    found = figures(results, results.finished())
    assert (found["sdr", "piano"].windows, found["sdr", "piano"].songs, found["sdr", "piano"].without) == (2, 2, 1)
    assert found["sdr", "bass"].songs == 3


def test_nothing_is_improved_where_one_stem_plays_alone(tmp_path: Path) -> None:
    """There the mixture is the stem, and a good answer would be infinitely worse."""
    (song, *_) = write_songs(tmp_path / "songs", count=1, silent=("piano", "drums"))
    (results,) = evaluate([Entrant("blurred", blurred, {})], [song], ASKED, tmp_path / "out")
    rows = {row.metric: row for row in results.read("song-0").rows if row.stem == "bass"}
    assert rows["si-sdri"].value is None and "alone" in rows["si-sdri"].note
    assert rows["si-sdr"].value is not None


def test_baselines_rank_as_they_must(songs: list[Song], tmp_path: Path) -> None:
    systems = {"ceiling": ground_truth, "mask": oracle_mask, "floor": mixture_over_k}
    entrants = [Entrant(label, system, {}) for label, system in systems.items()]
    means = [
        figures(run, run.finished())["si-sdri", "all"].interval().mean
        for run in evaluate(entrants, songs, ASKED, tmp_path / "out")
    ]
    assert means[0] == 100.0  # limited
    assert means[0] > means[1] > 3
    assert means[2] == pytest.approx(0, abs=1e-4)


def test_interrupted_runs_go_on_without_asking_again(songs: list[Song], tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(question: Question) -> Audio:
        asked.append(question.song.name)
        return blurred(question)

    with pytest.raises(Cancelled, match="are kept"):
        evaluate([Entrant("x", counting, {})], songs, ASKED, tmp_path / "a", notice=lambda event: False)
    assert asked == ["song-0"]
    (resumed,) = evaluate([Entrant("x", counting, {})], songs, ASKED, tmp_path / "a")
    assert asked == ["song-0", "song-1", "song-2"]
    (whole,) = evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "b")
    assert all_rows(resumed) == all_rows(whole)


@pytest.mark.slow
def test_a_kill_costs_one_song(songs: list[Song], tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from small_songs import blurred\n"
        "from stemwise.evaluate import Entrant, Protocol, evaluate\n"
        "from stemwise.songs import folder\n"
        "def fatal(question):\n"
        "    if question.song.name == 'song-2': os.kill(os.getpid(), 9)\n"
        "    return blurred(question)\n"
        "asked = Protocol(metrics=['si-sdr', 'si-sdri', 'sdr'])\n"
        "evaluate([Entrant('x', fatal, {})], folder(sys.argv[2]), asked, sys.argv[3])\n"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "songs"), str(tmp_path / "out")]
    assert subprocess.run(words, check=False).returncode == -9
    asked: list[str] = []

    def counting(question: Question) -> Audio:
        asked.append(question.song.name)
        return blurred(question)

    (results,) = evaluate([Entrant("x", counting, {})], songs, ASKED, tmp_path / "out")
    assert asked == ["song-2"] and len(results.finished()) == 3


def test_shards_add_up_to_the_whole(songs: list[Song], tmp_path: Path) -> None:
    entrants = [Entrant("x", blurred, {})]
    for shard in range(2):
        (part,) = evaluate(entrants, songs, ASKED, tmp_path / "shared", shard=(shard, 2))
        assert len(part.finished()) == (2, 3)[shard]
    (merged,) = evaluate([Entrant("x", ground_truth, {})], songs, ASKED, tmp_path / "shared")  # asks nobody
    (whole,) = evaluate(entrants, songs, ASKED, tmp_path / "whole")
    assert all_rows(merged) == all_rows(whole)


@pytest.mark.parametrize("key", ["system", "protocol", "instruments", "songs", "files", "unreadable"])
def test_damaged_settings_are_named(songs: list[Song], tmp_path: Path, key: str) -> None:
    (results,) = evaluate([Entrant("x", blurred, {})], songs[:1], ASKED, tmp_path / "out")
    file = results.folder / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: 5}))
    with pytest.raises(EvaluationError, match=f"{key}: damaged"):
        read_results(results.folder)


@pytest.mark.parametrize("damage", [("song", "song-1"), ("failure", None), ("rows", [[0.0, 6.0, "", "", "bass", "sdr", "x"]]),
                                    ("rows", [[0.0, 6.0, "", "", "bass", "sdr", float("nan")]])])  # fmt: skip
def test_a_song_whose_figures_are_damaged_is_evaluated_again(
    songs: list[Song], tmp_path: Path, damage: tuple[str, object]
) -> None:
    (results,) = evaluate([Entrant("x", blurred, {})], songs[:1], ASKED, tmp_path / "out")
    before, (file,) = all_rows(results), (results.folder / "songs").glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), damage[0]: damage[1]}))
    assert not results.has("song-0")
    (again,) = evaluate([Entrant("x", blurred, {})], songs[:1], ASKED, tmp_path / "out")
    assert all_rows(again) == before


def test_a_song_is_finished_only_with_its_frames(songs: list[Song], tmp_path: Path, monkeypatch) -> None:
    (results,) = evaluate([Entrant("x", blurred, {})], songs[:1], ASKED, tmp_path / "out")
    write = results_module.write_atomically

    def killed(file: Path, content: bytes) -> None:
        if file.suffix == ".npz":
            raise KeyboardInterrupt
        write(file, content)

    monkeypatch.setattr(results_module, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        results.keep(SongResult("song-7", ()), {"emb": np.zeros((2, 3))})
    assert not results.has("song-7")


def test_what_other_machines_are_writing_is_left_alone(songs: list[Song], tmp_path: Path) -> None:
    evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out", shard=(0, 2))
    young, old = (tmp_path / "out" / "x" / "songs" / name for name in (".young.tmp", ".old.tmp"))
    for file in (young, old):
        file.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out", shard=(1, 2))
    assert young.exists() and not old.exists()


def test_other_settings_in_the_same_folder_are_refused(songs: list[Song], tmp_path: Path) -> None:
    evaluate([Entrant("x", blurred, {"steps": 1})], songs, ASKED, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"system\.steps was 1, now 2.*another folder \(-o\)"):
        evaluate([Entrant("x", blurred, {"steps": 2})], songs, ASKED, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"protocol\.seed was 0, now 1"):
        other = ASKED.model_copy(update={"seed": 1})
        evaluate([Entrant("x", blurred, {"steps": 1})], songs, other, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"songs\.song-2 was .*, now None"):
        evaluate([Entrant("x", blurred, {"steps": 1})], songs[:2], ASKED, tmp_path / "out")


def broken(question: Question) -> Audio:
    if question.song.name == "song-1":
        raise RuntimeError("out of luck")
    return blurred(question)


def test_a_failing_song_is_named_and_tried_again(songs: list[Song], tmp_path: Path) -> None:
    heard = []
    runs = evaluate(
        [Entrant("x", broken, {}), Entrant("y", blurred, {})], songs, ASKED, tmp_path / "out", notice=heard.append
    )
    assert [len(run.finished()) for run in runs] == [2, 3]
    assert "out of luck" in runs[0].failures()["song-1"] and runs[1].failures() == {}
    assert [list(event.failures) for event in heard] == [[], ["x"], []]
    (mended,) = evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out")
    assert mended.failures() == {} and len(mended.finished()) == 3


def test_a_song_that_cannot_be_read_fails_for_all(songs: list[Song], tmp_path: Path) -> None:
    (tmp_path / "songs" / "song-1" / "bass.wav").write_bytes(b"no audio")
    entrants = [Entrant("x", blurred, {}), Entrant("y", blurred, {})]
    runs = evaluate(entrants, songs, ASKED, tmp_path / "out", unreadable={"song-9": "no stems"})
    for run in runs:
        assert list(run.failures()) == ["song-9", "song-1"] and "bass.wav" in run.failures()["song-1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t: t.select(["bass"]), "gave no drums, piano"),
        (lambda t: Audio(t.names, t.data[..., 1:], t.rate), "gave 15999 samples.*where 16000 of 2"),
        (lambda t: Audio(t.names, t.data, 44100), "at 44100 Hz, where"),
        (lambda t: Audio(t.names, t.data * torch.nan, t.rate), "NaN"),
    ],
)
def test_answers_that_are_none_are_failures(songs: list[Song], tmp_path: Path, wrong, message: str) -> None:
    (run,) = evaluate([Entrant("x", lambda q: wrong(q.truth), {})], songs[1:2], ASKED, tmp_path / "out")
    assert re.search(message, run.failures()["song-1"])


def test_a_full_disk_keeps_what_was_finished(songs: list[Song], tmp_path: Path, monkeypatch) -> None:
    write = results_module.write_atomically

    def full(file: Path, content: bytes) -> None:
        if "song-1" in file.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content)

    monkeypatch.setattr(results_module, "write_atomically", full)
    with pytest.raises(EvaluationError, match=r"No space left on device.*finished so far are kept"):
        evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out")
    monkeypatch.undo()
    (run,) = evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out", notice=lambda event: None)
    assert len(run.finished()) == 3


def test_what_goes_for_every_song_stops_at_once(songs: list[Song], tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="called the same"):
        evaluate([Entrant("x", blurred, {}), Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out")
    with pytest.raises(QueryError, match="several songs are called song-0"):
        evaluate([Entrant("x", blurred, {})], [*songs, songs[0]], ASKED, tmp_path / "out")


def test_metrics_are_known_by_name_and_task() -> None:
    with pytest.raises(QueryError, match=r"no metric named 'sisdr' \(did you mean 'si-sdr'\?\); there are: si-sdr"):
        metric("sisdr")
    with pytest.raises(QueryError, match="no metric named 'sdr:vggish'"):
        metric("sdr:vggish")
    with pytest.raises(ValueError, match="has no meaning where the task is accompany; for it there are: coherence"):
        Protocol(task="accompany", metrics=["si-sdr"])
