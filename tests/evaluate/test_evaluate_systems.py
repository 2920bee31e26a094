"""Systems by name: baselines, models and folders of outputs answer alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_songs import STEMS, blurred, read, write_songs

import plain_encoder
from stemwise.errors import EvaluationError, ModelError, QueryError, SongError
from stemwise.evaluate import Entrant, Protocol, Question, SystemSection, entrant, evaluate, figures, systems
from stemwise.evaluate.baselines import best_of, energy, ground_truth, oracle_mask, random_submix
from stemwise.evaluate.questions import ask
from stemwise.evaluate.systems import outputs
from stemwise.songs import Song
from stemwise.stems import Audio
from tiny_band import write_tiny_band

ACCOMPANY = Protocol(task="accompany", metrics=["coherence"], chunks={"seconds": 0.5, "per_song": 2})


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Song]:
    return write_songs(tmp_path_factory.mktemp("songs"))


def first(song: Song, protocol: Protocol = ACCOMPANY) -> Question:
    return next(ask(song, protocol, STEMS, 0))


def test_the_random_submix_is_real_and_of_another_song(songs: list[Song]) -> None:
    system = random_submix(songs, ACCOMPANY)
    for song in songs:
        question = first(song)
        made = system(question)
        assert set(made.names) == question.query.wanted
        np.testing.assert_array_equal(system(question).data, made.data)
        others = [read(other, made.names) for other in songs if other.name != song.name]
        piece = made.data[0, 0, 0, :100].numpy()
        found = [np.lib.stride_tricks.sliding_window_view(other[0, 0], 100) == piece for other in others]
        assert any(match.all(1).any() for match in found)
    with pytest.raises(EvaluationError, match="at least two songs"):
        random_submix(songs[:1], ACCOMPANY)(first(songs[0]))


def test_the_oracle_mask_sums_to_the_mixture(songs: list[Song]) -> None:
    question = first(songs[0], Protocol())
    stems = oracle_mask(question).data[0].sum(0).numpy()
    np.testing.assert_allclose(stems, read(songs[0]).sum(0), atol=1e-5)


def test_the_best_of_several_is_the_loudest(songs: list[Song]) -> None:
    seen: list[float] = []

    def drawn(question: Question) -> Audio:
        level = torch.rand((), generator=torch.Generator().manual_seed(question.seed))
        seen.append(float(level))
        return Audio(question.truth.names, level * torch.ones_like(question.truth.data), question.truth.rate)

    answer = best_of(drawn, 5, energy)(first(songs[0]))
    assert len(set(seen)) == 5 and float(answer.data.max()) == pytest.approx(max(seen))


def test_a_folder_of_outputs_is_judged_as_the_system_that_made_it(songs: list[Song], tmp_path: Path) -> None:
    import soundfile

    for song in songs:
        stems = blurred(first(song, Protocol())).data[0].numpy()
        (tmp_path / "made" / song.name).mkdir(parents=True)
        for name, signal in zip(STEMS, stems):
            soundfile.write(tmp_path / "made" / song.name / f"{name}.wav", signal.T, song.rate, subtype="FLOAT")
    from_folder = entrant(SystemSection(system=str(tmp_path / "made")), songs, Protocol())
    assert from_folder.label == "made"
    for asked in (Protocol(metrics=["sdr"]), Protocol(metrics=["sdr"], chunks={"seconds": 0.5})):
        place = tmp_path / f"out-{asked.chunks is None}"
        runs = evaluate([from_folder, Entrant("x", blurred, {})], songs, asked, place)
        means = [figures(run, run.finished())["sdr", "all"].interval().mean for run in runs]
        assert means[0] == pytest.approx(means[1], abs=1e-4)
    loud = tmp_path / "made" / "song-0" / "bass.wav"
    soundfile.write(loud, 2 * soundfile.read(loud)[0], songs[0].rate, subtype="FLOAT")
    assert entrant(SystemSection(system=str(tmp_path / "made")), songs, Protocol()).identity != from_folder.identity
    shutil.rmtree(tmp_path / "made" / "song-1")
    (tmp_path / "made" / "song-2" / "bass.wav").unlink()
    again = entrant(SystemSection(system=str(tmp_path / "made")), songs, Protocol())
    assert again.identity != from_folder.identity
    (run,) = evaluate([again], songs, Protocol(metrics=["sdr"]), tmp_path / "again")
    assert "no outputs for it (no folder song-1)" in run.failures()["song-1"]
    assert "has no bass; found drums, piano" in run.failures()["song-2"]


def test_a_name_is_a_model_before_it_is_a_folder(
    songs: list[Song], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "band" / "song-0").mkdir(parents=True)
    assert "outputs" not in entrant(SystemSection(system="band"), songs, Protocol(), "cpu").identity
    assert "outputs" in entrant(SystemSection(system="./band"), songs, Protocol(), "cpu").identity
    write_tiny_band(tmp_path / "run" / "best")
    assert entrant(SystemSection(system="run/best"), songs, Protocol(), "cpu").label == "run"
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(ModelError, match="give the weights in it, run/best"):
        entrant(SystemSection(system="run"), songs, Protocol(), "cpu")


def test_outputs_are_refused_where_they_cannot_answer(songs: list[Song], tmp_path: Path) -> None:
    (tmp_path / "made" / "song-0").mkdir(parents=True)
    section = SystemSection(system=str(tmp_path / "made"))
    with pytest.raises(QueryError, match=r"one version of each stem.*use --given leave-one-out"):
        entrant(section, songs, Protocol(task="accompany", metrics=["fad"], given="random"))
    with pytest.raises(QueryError, match="give --per-song"):
        entrant(section, songs, Protocol(task="generate", metrics=["fad"], chunks={"seconds": 0.5}))


def test_generated_outputs_are_taken_in_order(songs: list[Song], tmp_path: Path) -> None:
    for number, song in enumerate(songs[:2]):
        shutil.copytree(next(iter(song.stems["bass"])).parent, tmp_path / "made" / f"take-{number}")
    system = outputs(tmp_path / "made")
    asked = Protocol(task="generate", metrics=["fad"], chunks={"seconds": 0.5, "per_song": 1})
    made = system(next(ask(songs[2], asked, STEMS, 1)))
    np.testing.assert_allclose(made.data[0].numpy(), read(songs[1])[..., :4000], atol=1e-7)
    with pytest.raises(SongError, match="holds 2 outputs, and this is question 3"):
        system(next(ask(songs[2], asked, STEMS, 2)))


def test_a_model_takes_part_in_every_task(songs: list[Song], tmp_path: Path) -> None:
    write_tiny_band(tmp_path / "tiny")
    for task in ("separate", "accompany", "generate"):
        asked = Protocol(task=task, metrics=["fad"], chunks={"seconds": 0.5, "per_song": 1})
        one = entrant(SystemSection(system=str(tmp_path / "tiny"), steps=1), songs, asked, "cpu")
        question = first(songs[0], asked)
        made = one.answer(question)
        assert set(made.names) >= question.query.wanted and made.rate == question.truth.rate
        assert made.data.shape[2:] == question.truth.data.shape[2:]
        assert one.identity["steps" if task != "separate" else "evaluations"] == 1
    unknown = Audio(("vocals",), question.truth.data[:, :1], question.truth.rate)
    from dataclasses import replace

    from stemwise.query import Query

    with pytest.raises(QueryError, match="vocals"):
        one.answer(replace(question, truth=unknown, query=Query({}, frozenset({"vocals"}))))


def test_unknown_systems_are_named_with_what_there_is(songs: list[Song], tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"no system named 'foo'; baselines: ground-truth.*models: .*folder of outputs"
    ):
        entrant(SystemSection(system="foo"), songs, ACCOMPANY)
    with pytest.raises(QueryError, match="cannot be called 'a/b'"):
        entrant(SystemSection(system="ground-truth", name="a/b"), songs, ACCOMPANY)
    assert ground_truth(first(songs[0])).names == STEMS


def test_candidates_for_nothing_that_was_heard_are_ranked_by_how_their_stems_fit(
    songs: list[Song], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemwise.scores.Listening.encoder", lambda _: plain_encoder.PlainEncoder())
    stems = plain_encoder.song(11.0)
    real, silent = (
        Audio.of({name: gain * stem[None] for name, stem in stems.items()}, plain_encoder.RATE) for gain in (1.0, 1e-9)
    )
    question = first(songs[0], Protocol(task="generate", metrics=["coherence"], chunks={"seconds": 0.5, "per_song": 1}))
    assert not question.query.heard
    rank = systems._coherence("cpu", {})
    assert rank(question, real) > rank(question, silent) == float("-inf")
