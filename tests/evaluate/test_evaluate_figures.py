"""Figures: every one is the mean of its influences, whatever is pooled; comparisons, relations and the report."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from small_songs import blurred, read, write_songs

import stemwise.evaluate.measures as measures
from stemwise.errors import EvaluationError, RecipeError
from stemwise.evaluate import Entrant, Protocol, compare, evaluate, figures, write_report
from stemwise.evaluate.baselines import ground_truth, oracle_mask
from stemwise.evaluate.compare import comparison
from stemwise.evaluate.figures import _jackknife, _ratio
from stemwise.evaluate.relations import Relation, check_relations
from stemwise.evaluate.report import _rows, document, tables_of
from stemwise.evaluate.results import SongResult, read_results
from stemwise.metrics.frechet import frechet_audio_distance
from stemwise.metrics.msdm import means, score_song
from stemwise.songs import Song
from stemwise.stems import Audio

ASKED = Protocol(metrics=["si-sdr", "sdr"])


class Moments4:
    """An embedding of 4 numbers for each tenth of a second: enough to be a set of frames."""

    name, rate, dimensions, version = "plain", 8000, 4, "1"

    def embed(self, audio: np.ndarray, rate: int) -> np.ndarray:
        assert audio.ndim == 1
        pieces = audio[: len(audio) // 800 * 800].reshape(-1, 800)
        return np.stack([f(pieces, 1) for f in (np.mean, np.std, np.max, np.min)], 1).astype(np.float32)


@pytest.fixture
def songs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Song]:
    monkeypatch.setattr(measures, "load_embedding", lambda name, model, device: Moments4())
    return write_songs(tmp_path / "songs", silent=("piano",))


@given(arrays(float, 6, elements=st.floats(-50, 50)), arrays(int, 6, elements=st.integers(0, 5)))
@settings(max_examples=50, deadline=None)
def test_the_mean_over_windows_is_the_mean_of_its_influences(sums: np.ndarray, counts: np.ndarray) -> None:
    counts[0] += 1
    sums = np.where(counts > 0, sums, 0.0)
    assert _ratio(sums, counts.astype(float)).mean() == pytest.approx(sums.sum() / counts.sum(), abs=1e-9)


def test_a_distance_is_the_mean_of_its_influences() -> None:
    draw = np.random.default_rng(0)
    for frames in (2, 20):  # below and above the number from which moments are merged
        check_distance(draw, frames)


def check_distance(draw: np.random.Generator, frames: int) -> None:
    pairs = [
        (draw.standard_normal((frames, 3)).astype("f"), draw.normal(0.5, 1, (frames, 3)).astype("f")) for _ in range(7)
    ]
    real, made = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    values = _jackknife([*pairs, (None, None)])
    assert len(values) == 8
    assert values.mean() == pytest.approx(frechet_audio_distance(real, made), abs=1e-9)


def test_the_jackknife_knows_the_spread_of_a_distance() -> None:
    """Its standard error against the spread over fresh draws of all songs."""
    draw = np.random.default_rng(1)

    def songs() -> list:
        return [(draw.standard_normal((20, 2)), draw.normal(draw.normal(1, 0.5), 1, (20, 2))) for _ in range(20)]

    found = [_jackknife(songs()) for _ in range(60)]
    error = np.median([values.std(ddof=1) / np.sqrt(len(values)) for values in found])
    assert error == pytest.approx(np.std([values.mean() for values in found]), rel=0.35)


def test_means_over_songs_and_over_windows(songs: list[Song], tmp_path: Path) -> None:
    """Songs of three lengths: windows of a long song count more only where windows are pooled."""
    asked = Protocol(metrics=["sdr"], chunks={"seconds": 0.5, "per_song": 2, "min_active": 0})
    (run,) = evaluate([Entrant("x", blurred, {})], songs, asked, tmp_path / "a")
    per_song = [
        [row.value for row in run.read(song).rows if row.stem == "piano" and row.value is not None]
        for song in run.finished()
    ]
    expected = np.mean([np.mean(values) for values in per_song if values])
    assert figures(run, run.finished())["sdr", "piano"].interval().mean == pytest.approx(expected)


def test_msdm_figures_are_those_of_its_module(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", count=2, seconds=25)
    asked = Protocol.model_validate(
        {"metrics": ["msdm-si-sdri", "msdm-si-sdri-active"], "rate": 22050, "channels": 1, "mixture": "stems",
         "pool": "windows", "chunks": {"frames": 262144, "joined": True}}
    )  # fmt: skip
    (run,) = evaluate([Entrant("x", blurred, {})], songs, asked, tmp_path / "out")
    from stemwise.evaluate.questions import ask

    windows = []
    for index, song in enumerate(songs):
        questions = list(ask(song, run.protocol, tuple(run.protocol.stems), index))
        assert len(questions) == 2
        truth = np.concatenate([q.truth.data[0, :, 0].numpy() for q in questions], 1)
        answer = np.concatenate([blurred(q).data[0, :, 0].numpy() for q in questions], 1)
        windows += score_song(answer, truth)
    found = figures(run, run.finished())
    expected = means(windows)
    got = [found["msdm-si-sdri", stem].interval().mean for stem in run.protocol.stems]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert found["msdm-si-sdri", "all"].interval().mean == pytest.approx(expected.mean(), abs=1e-6)
    assert run.failures() == {}


def test_a_song_without_the_stem_costs_no_distance(songs: list[Song], tmp_path: Path) -> None:
    asked = Protocol(metrics=["fad:plain"], stems=["piano"])  # the piano of the first song is silent
    (run,) = evaluate([Entrant("real", ground_truth, {})], songs, asked, tmp_path / "out")
    assert figures(run, run.finished())["fad:plain", "piano"].songs == len(songs) - 1


def test_distances_between_sets(songs: list[Song], tmp_path: Path) -> None:
    asked = Protocol(task="accompany", metrics=["sub-fad", "fad:plain"])

    def louder(question):
        return Audio(question.truth.names, 2 * question.truth.data, question.truth.rate)

    runs = evaluate([Entrant("real", ground_truth, {}), Entrant("loud", louder, {})], songs, asked, tmp_path / "out")
    real, loud = (figures(run, run.finished()) for run in runs)
    for name in ("sub-fad", "fad:plain"):
        assert real[name, "all"].interval().mean == pytest.approx(0, abs=1e-9)
    lines = [
        line.split(",") for line in _rows(runs, {run.label: figures(run, run.finished()) for run in runs}).splitlines()
    ]
    means = {(row[0], row[6]): float(row[8]) for row in lines if row[7] == "sub-fad"}
    assert means["loud", "all"] == pytest.approx(loud["sub-fad", "all"].interval().mean, rel=1e-5)
    embed = Moments4().embed
    pairs = []
    for song in songs[1:]:  # the piano of the first song is silent
        bass, drums, piano = read(song)
        pairs.append((embed((bass + drums + piano).mean(0), 8000), embed((bass + drums + 2 * piano).mean(0), 8000)))
    expected = frechet_audio_distance(*(np.concatenate([pair[i] for pair in pairs]) for i in (0, 1)))
    assert loud["sub-fad", "piano"].interval().mean == pytest.approx(expected, rel=1e-4)
    stems = [loud["sub-fad", stem].interval().mean for stem in ("bass", "drums", "piano")]
    assert loud["sub-fad", "all"].interval().mean == pytest.approx(np.mean(stems))


@pytest.fixture
def two(songs: list[Song], tmp_path: Path) -> Path:
    evaluate([Entrant("mask", oracle_mask, {}), Entrant("blurred", blurred, {})], songs, ASKED, tmp_path / "out")
    return tmp_path / "out"


def test_compare_is_paired(two: Path) -> None:
    found = compare(two / "mask", two / "blurred")
    assert len(found.songs) == 3 and found.missing == {"mask": (), "blurred": ()}
    for pair in found.pairs:
        assert pair.difference.difference.mean == pytest.approx(pair.a.mean - pair.b.mean)
    same = compare(two / "mask", two / "mask")
    assert all(pair.difference.difference.low == pair.difference.difference.high == 0 for pair in same.pairs)
    assert "| sdr | all |" in comparison(found)


def test_a_stem_of_one_song_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the mean over the stems, of which it is one."""
    monkeypatch.setattr(measures, "load_embedding", lambda name, model, device: Moments4())
    songs = write_songs(tmp_path / "songs", count=7)
    for song in songs[1:]:
        piano = song.stems["piano"][0]
        sound, rate = soundfile.read(piano)
        soundfile.write(piano, 0 * sound, rate, subtype="FLOAT")

    def worse(question):
        answer = blurred(question)
        return Audio(answer.names, 2 * answer.data, answer.rate)

    asked = Protocol(metrics=["sdr", "fad:plain"])
    evaluate([Entrant("a", blurred, {}), Entrant("b", worse, {})], songs, asked, tmp_path / "out")
    found = compare(tmp_path / "out" / "a", tmp_path / "out" / "b")
    for name in asked.metrics:
        pairs = {pair.stem: pair for pair in found.pairs if pair.metric == name}
        assert {stem for stem, pair in pairs.items() if pair.difference.sure} == {"bass", "drums"}
        assert {stem for stem, pair in pairs.items() if pair.difference.p_value == 1} == {"piano", "all"}
        assert [pairs[stem].a.count for stem in ("bass", "piano", "all")] == [7, 1, 1]
    (row,) = [line for line in comparison(found).splitlines() if line.startswith("| sdr | piano |")]
    assert "[" not in row and row.endswith("| 1 | undecided |")
    runs = [read_results(tmp_path / "out" / name) for name in ("a", "b")]
    figure = next(f for f in document(runs, tables_of(runs))["systems"][0]["figures"] if f["stem"] == "piano")
    assert (figure["songs"], figure["low"], figure["high"]) == (1, None, None)
    assert "A figure of one song has none" in write_report(tmp_path / "out", runs)


def test_two_systems_of_one_name_are_told_apart_by_their_folders(songs: list[Song], two: Path, tmp_path: Path) -> None:
    evaluate([Entrant("mask", blurred, {})], songs[:2], ASKED, tmp_path / "again")
    found = compare(two / "mask", tmp_path / "again" / "mask")
    assert (found.a, found.b) == (str(two / "mask"), str(tmp_path / "again" / "mask"))
    assert found.missing == {found.a: (), found.b: ("song-2",)}


def test_compare_names_missing_songs_and_refuses_other_protocols(songs: list[Song], two: Path, tmp_path: Path) -> None:
    evaluate([Entrant("few", blurred, {})], songs[:2], ASKED, tmp_path / "few")
    found = compare(two / "mask", tmp_path / "few" / "few")
    assert found.songs == ("song-0", "song-1") and found.missing["few"] == ("song-2",)
    assert "few has no figures for 1 song(s): song-2" in comparison(found)
    evaluate([Entrant("x", blurred, {})], songs, Protocol(metrics=["sdr"], floor_db=-50), tmp_path / "other")
    with pytest.raises(EvaluationError, match=r"not evaluated alike: protocol\.metrics was .*; protocol\.floor_db"):
        compare(two / "mask", tmp_path / "other" / "x")
    with pytest.raises(EvaluationError, match="did you mean one of its folders: blurred, mask"):
        compare(two, two / "mask")
    longer = write_songs(tmp_path / "longer", seconds=2.5)
    evaluate([Entrant("x", blurred, {})], longer, ASKED, tmp_path / "longer-out")
    with pytest.raises(EvaluationError, match="differ in length, rate or stems: song-0"):
        compare(two / "mask", tmp_path / "longer-out" / "x")


def test_only_what_both_have_is_compared(songs: list[Song], tmp_path: Path) -> None:
    """A system that has no value where songs are hard is not better for it."""
    runs = evaluate([Entrant("all", blurred, {}), Entrant("picky", blurred, {})], songs, ASKED, tmp_path / "out")
    rows = runs[1].read("song-0").rows
    runs[1].keep(SongResult("song-0", tuple(replace(row, value=None) for row in rows)), {})
    for pair in compare(tmp_path / "out" / "all", tmp_path / "out" / "picky").pairs:
        assert pair.difference.difference.mean == pytest.approx(0, abs=1e-9), pair
        assert pair.a.mean == pytest.approx(pair.b.mean)


def test_songs_replaced_by_others_of_their_length_are_not_gone_on_with(songs: list[Song], tmp_path: Path) -> None:
    evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out")
    file = next(iter(songs[1].stems.values()))[0]
    sound, rate = soundfile.read(file)
    sound[100] += 0.01  # a single sample
    soundfile.write(file, sound, rate, subtype="FLOAT")
    with pytest.raises(RecipeError, match=r"other settings: files\.song-1 was"):
        evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "out")
    evaluate([Entrant("x", blurred, {})], songs, ASKED, tmp_path / "again")
    found = compare(tmp_path / "out" / "x", tmp_path / "again" / "x")
    assert found.other_files == ("song-1",) and "other copies or other songs, 1 song(s): song-1" in comparison(found)


def test_names_that_are_no_text_or_long_are_evaluated(songs: list[Song], tmp_path: Path) -> None:
    named = [replace(song, name=name) for song, name in zip(songs, ("b\udce9", "歌" * 100, "歌" * 101))]
    (run,) = evaluate([Entrant("x", blurred, {})], named, ASKED, tmp_path / "out")
    assert run.finished() == tuple(song.name for song in named)
    write_report(tmp_path / "out", [run])
    assert "b\\udce9" in (tmp_path / "out" / "results.csv").read_text()


def test_relations_hold_or_do_not(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", count=6)
    noise = torch.Generator().manual_seed(0)

    def noisy(question):
        data = question.truth.data
        return Audio(question.truth.names, data + 0.3 * torch.randn(data.shape, generator=noise), question.truth.rate)

    runs = evaluate([Entrant("good", blurred, {}), Entrant("bad", noisy, {})], songs, ASKED, tmp_path / "out")
    up = Relation(better="good", worse="bad", metrics=["sdr", "coherence"])
    down = Relation(better="bad", worse="good", metrics=["sdr"], source="a paper")
    held, missing, reversed_ = check_relations([up, down], runs)
    assert (held.verdict, missing.verdict, reversed_.verdict) == ("held", "not measured", "not held (reversed)")
    assert reversed_.text == "bad better than good (a paper)"
    undecided = check_relations([Relation(better="good", worse="good", metrics=["sdr"])], runs)[0]
    assert undecided.verdict.startswith("not held (undecided")
    with pytest.raises(ValidationError, match="no metric named 'sbr'"):
        Relation(better="good", worse="bad", metrics=["sbr"])
    with pytest.raises(RecipeError, match="no system is called 'best'; there are: good, bad"):
        check_relations([Relation(better="best", worse="bad", metrics=["sdr"])], runs)


def test_the_report_states_what_it_depends_on(songs: list[Song], tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = evaluate([Entrant("x", blurred, {"steps": 3})], songs, ASKED, out, unreadable={"song-9": "no stems"})
    text = write_report(out, runs)
    assert text == (out / "report.md").read_text()
    for fact in ("scale-invariant SDR", "10 000 draws, seed 0", "-60 dB", "sum of all stems", "Seed", "steps 3",
                 "(1 without a value)", "3 of 4 songs", "song-9: no stems"):  # fmt: skip
        assert fact in text, fact
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == 3 * 3 * 2
    assert {row["stem"] for row in rows if row["value"] == ""} == {"piano"}
    plain = document(runs, tables_of(runs))
    assert plain["systems"][0]["songs"] == {"asked": 3, "finished": 3, "failed": {"song-9": "no stems"}}
    assert {f["stem"] for f in plain["systems"][0]["figures"]} == {"bass", "drums", "piano", "all"}


def test_plots_are_files(two: Path) -> None:
    pytest.importorskip("matplotlib")
    from stemwise.evaluate import read_results
    from stemwise.evaluate.plots import plot

    tables = tables_of([read_results(two / "mask"), read_results(two / "blurred")])
    files = plot(two / "plots", ASKED.metrics, tables)
    assert [file.name for file in files] == ["si-sdr.png", "sdr.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
