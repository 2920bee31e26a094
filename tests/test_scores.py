"""Scores of files and arrays: what comes back, and what bad input is told."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from plain_encoder import RATE, PlainEncoder, song
from stemwise.audio_io import resample, write_audio
from stemwise.coherence.search import Grid
from stemwise.errors import AudioFileError, Cancelled, QueryError, ScoreError
from stemwise.scores import Listening, score, score_parts, score_stems, search_offset
from stemwise.stems import Audio

HOW = Listening(PlainEncoder())
STEMS = song(21.0)
OTHER = song(21.0, seed=9)


def test_a_stem_of_the_song_scores_higher_than_one_of_another() -> None:
    own = score(STEMS["bass"], STEMS["piano"], rate=RATE, how=HOW)
    foreign = score(STEMS["bass"], OTHER["piano"], rate=RATE, how=HOW)
    assert own.coherence.low > foreign.coherence.high
    assert own.probability is not None and foreign.probability is not None
    assert own.probability.low > 0.5 > foreign.probability.low
    assert own.coverage == 1.0
    assert own.seconds == 21.0
    assert set(own.curves) == {"both", "harmonic", "percussive"}
    assert len(own.starts) == len(own.curves["both"]) == 8


def test_the_interval_is_over_stretches_that_share_no_sound() -> None:
    found = score(STEMS["bass"], STEMS["piano"], rate=RATE, how=HOW)
    stretches = {start // 5 for start in found.starts}
    assert found.coherence.count == len(stretches)
    means = [np.mean([v for s, v in zip(found.starts, found.curves["both"]) if s // 5 == k]) for k in stretches]
    assert found.coherence.mean == pytest.approx(np.mean(means))
    assert found.coherence.low <= found.coherence.mean <= found.coherence.high
    assert found == score(STEMS["bass"], STEMS["piano"], rate=RATE, how=HOW)  # seeded


def test_files_of_any_rate_length_and_channels(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.repeat(resample(STEMS["bass"], RATE, 44100), 2, 0), 44100)
    write_audio(tmp_path / "b.flac", STEMS["piano"][:, : 13 * RATE], RATE)
    mixed = score(tmp_path / "a.wav", tmp_path / "b.flac", how=HOW)
    plain = score(STEMS["bass"], STEMS["piano"], rate=RATE, how=HOW)
    assert mixed.seconds == pytest.approx(21.0)
    assert mixed.curves["both"][0] == pytest.approx(plain.curves["both"][0], abs=0.05)
    assert 0.5 < mixed.coverage < 1.0  # after 13 s there is nothing to hear


def test_one_short_window_has_a_score_but_no_spread_and_no_probability() -> None:
    found = score(STEMS["bass"][:, :20000], STEMS["piano"][:, :20000], rate=RATE, how=HOW)
    assert found.coherence.low == found.coherence.mean == found.coherence.high
    assert found.probability is None
    assert json.loads(json.dumps(found.plain()))["probability"] is None


def test_every_number_is_finite_for_one_file_twice() -> None:
    found = score(STEMS["bass"], STEMS["bass"], rate=RATE, how=HOW)
    assert all(math.isfinite(value) for values in found.curves.values() for value in values)


@pytest.mark.parametrize("gain", [1.0, -0.3])
def test_a_copy_is_told_from_company(gain: float) -> None:
    heard, made = np.random.default_rng(3).standard_normal((2, 1, 21 * RATE)).astype(np.float32) * 0.1
    assert abs(score(heard, made, rate=RATE, how=HOW).correlation) < 0.02
    assert score(heard, gain * heard, rate=RATE, how=HOW).correlation == pytest.approx(math.copysign(1, gain))
    some = score(heard, made + gain * heard, rate=RATE, how=HOW)
    assert some.correlation == pytest.approx(gain / math.hypot(1, gain), abs=0.02)
    assert some.plain()["correlation"] == round(some.correlation, 4)


def test_correlation_takes_no_window_that_is_not_scored() -> None:
    late = np.where(np.arange(21 * RATE) < 10 * RATE, 0.0, -STEMS["bass"]).astype(np.float32)
    assert score(STEMS["bass"], late, rate=RATE, how=dataclasses.replace(HOW, hop=5.0)).correlation == pytest.approx(-1)


def test_bad_signals_are_told_apart(tmp_path: Path) -> None:
    stem, hiss = STEMS["bass"], 1e-5 * np.random.default_rng(0).standard_normal((1, 21 * RATE))
    with pytest.raises(ScoreError, match="never both audible"):
        score(stem, 0 * stem, rate=RATE, how=HOW)
    with pytest.raises(ScoreError, match="never both audible"):
        score(stem, hiss, rate=RATE, how=HOW)
    with pytest.raises(ScoreError, match="never both audible"):
        score(0 * stem, 0 * stem, rate=RATE, how=HOW)
    with pytest.raises(ScoreError, match=r"accompaniment: 0.010 s long"):
        score(stem, stem[:, :160], rate=RATE, how=HOW)
    with pytest.raises(QueryError, match="NaN"):
        score(stem, stem * np.nan, rate=RATE, how=HOW)
    with pytest.raises(QueryError, match="channels"):
        score(stem, np.zeros((2, 1, 9)), rate=RATE, how=HOW)
    with pytest.raises(QueryError, match="rate"):
        score(stem, stem, how=HOW)
    with pytest.raises(AudioFileError, match="no such file"):
        score(stem, tmp_path / "none.wav", rate=RATE, how=HOW)
    with pytest.raises(QueryError, match="hop"):
        Listening(hop=0)


def test_the_stem_of_another_song_fits_least() -> None:
    song_scores = score_stems({**STEMS, "guitar": OTHER["guitar"]}, rate=RATE, how=HOW)
    assert song_scores.odd_one == "guitar"
    assert set(song_scores.pairs) == {(a, b) for a in STEMS for b in STEMS if a != b}
    pair = song_scores.pairs["bass", "piano"]
    foreign = song_scores.pairs["bass", "guitar"]
    assert pair is not None and foreign is not None
    assert pair.mean > foreign.mean
    alone = score(STEMS["bass"], STEMS["piano"], rate=RATE, how=HOW)
    assert pair.mean == pytest.approx(alone.coherence.mean, rel=1e-5)
    assert song_scores.coherence == pytest.approx(
        np.mean([found.coherence.mean for found in song_scores.stems.values() if found is not None])
    )


def test_a_silent_stem_has_no_score_and_spoils_none() -> None:
    found = score_stems({**STEMS, "drums": 0 * STEMS["bass"]}, rate=RATE, how=HOW)
    assert found.stems["drums"] is None
    assert found.pairs["bass", "drums"] is None
    without = score_stems(STEMS, rate=RATE, how=HOW)
    assert found.odd_one == without.odd_one
    json.dumps(found.plain(), allow_nan=False)
    with pytest.raises(ScoreError, match="none of"):
        score_stems({name: 0 * stem for name, stem in STEMS.items()}, rate=RATE, how=HOW)


def test_stems_come_from_folders_dicts_and_audio(tmp_path: Path) -> None:
    for name, stem in STEMS.items():
        write_audio(tmp_path / f"{name}.wav", stem, RATE)
    write_audio(tmp_path / "mix.wav", sum(STEMS.values()), RATE)
    whole = score_stems(tmp_path, how=HOW)
    assert set(whole.stems) == set(STEMS)
    audio = Audio.of({name: torch.from_numpy(stem) for name, stem in STEMS.items()}, RATE)
    assert score_stems(audio, how=HOW).coherence == pytest.approx(whole.coherence, rel=1e-4)
    rest = score_parts(tmp_path, ["bass", "guitar"], ["piano"], how=HOW)
    assert whole.stems["piano"] is not None
    assert rest.coherence.mean == pytest.approx(whole.stems["piano"].coherence.mean, rel=1e-5)
    with pytest.raises(QueryError, match="did you mean 'piano'"):
        score_parts(tmp_path, ["bass"], ["pianos"], how=HOW)
    with pytest.raises(ScoreError, match="at least two stems"):
        score_stems({"bass": STEMS["bass"]}, rate=RATE, how=HOW)


def test_a_shifted_stem_is_found_and_one_in_place_is_left() -> None:
    late = {**STEMS, "piano": np.roll(STEMS["piano"], RATE // 4, 1)}
    grid = Grid((-0.25, 0.0, 0.25))
    offset = search_offset(late, "piano", grid, rate=RATE, how=HOW, windows=4)
    assert (offset.best.seconds, offset.best.semitones) == (-0.25, 0.0)
    assert offset.best.gain.low > 0
    assert offset.as_is.gain.mean == 0
    in_place = search_offset(STEMS, "piano", grid, rate=RATE, how=HOW, windows=4)
    assert in_place.best == in_place.as_is
    json.dumps(offset.plain(), allow_nan=False)
    with pytest.raises(ScoreError, match="at least two windows"):
        search_offset({**STEMS, "piano": 0 * STEMS["piano"]}, "piano", grid, rate=RATE, how=HOW)


def test_a_stem_is_never_moved_into_silence() -> None:
    """To an encoder silence is as loud as anything."""
    stems = song(40.0)
    piano = np.zeros_like(stems["piano"])
    piano[..., 14 * RATE : 26 * RATE] = stems["piano"][..., 14 * RATE : 26 * RATE]
    grid = Grid((-8.0, -0.25, 0.0, 0.25, 8.0))
    offset = search_offset({**stems, "piano": piano}, "piano", grid, rate=RATE, how=HOW, windows=4)
    assert {move.seconds for move in offset.moves} == {-0.25, 0.0, 0.25}


def test_progress_is_told_and_can_cancel() -> None:
    told: list[float] = []
    score(
        STEMS["bass"],
        STEMS["piano"],
        rate=RATE,
        how=dataclasses.replace(HOW, progress=lambda p: told.append(p.fraction)),
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
    with pytest.raises(Cancelled):
        score(STEMS["bass"], STEMS["piano"], rate=RATE, how=dataclasses.replace(HOW, progress=lambda p: False))
