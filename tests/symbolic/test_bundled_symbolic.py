"""The bundled symbolic models: small, and better than any rule on songs that were in no training."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stemwise import cli
from stemwise.codecs.roll import ONSET, SOUNDING, on_grid
from stemwise.loading import BUNDLED, load_notes, load_rolls
from stemwise.metrics.rolls import label_accuracy
from stemwise.songs.phrases import cut
from stemwise.songs.synthetic import compose
from stemwise.songs.synthetic.write import score_of
from stemwise.stems import Rolls
from stemwise.symbolic.composed import composed
from stemwise.systems.notes import UNKNOWN, Question, assign

SEEDS = range(4_100_000, 4_100_004)


def test_they_are_small_together() -> None:
    files = [file for name in ("notes", "rolls") for file in (BUNDLED / name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 15e6
    assert {"README.md", "config.json", "model.safetensors"} == {file.name for file in files}


@pytest.mark.parametrize(("name", "window"), (("notes", "384 notes"), ("rolls", "64 steps, 4 to a quarter note")))
def test_info_says_what_they_are(name: str, window: str) -> None:
    shown = CliRunner().invoke(cli.app, ["info", name])
    assert shown.exit_code == 0, shown.output
    assert window in shown.output
    assert "Honest limits" in shown.output


def test_the_composer_of_the_figures_is_frozen() -> None:
    song = composed(4_000_000, 20.0)
    columns = song.notes[["onset", "duration", "pitch", "velocity"]].tolist()
    digest = hashlib.sha256(repr(columns).encode() + bytes(song.labels.tolist())).hexdigest()
    assert digest.startswith("9045e70009e41761"), (
        "the composer writes other songs now: measure the symbolic models again"
    )


def test_notes_err_less_than_half_as_often_as_the_most_common_instrument_of_each_pitch() -> None:
    model = load_notes("notes", "cpu").assigner
    table = np.zeros((128, len(model.stems)))
    for song in (composed(seed, 20.0) for seed in range(2_000_000, 2_000_060)):
        np.add.at(table, (song.notes["pitch"], song.labels), 1)
    wrong, rule = 0, 0
    for song in (composed(seed, 40.0) for seed in SEEDS):
        unknown, every = np.full(len(song.notes), UNKNOWN), np.ones(len(model.stems), dtype=bool)
        answer = assign(model, Question(song.notes, song.tpq, song.metres, unknown, every), steps=2)
        wrong += int((answer.labels != song.labels).sum())
        rule += int((table.argmax(1)[song.notes["pitch"]] != song.labels).sum())
    assert wrong < 0.5 * rule


@pytest.fixture(scope="module")
def window() -> tuple[torch.Tensor, torch.Tensor]:
    """Four bars of a song: stems (stem, time, pitch), and where bars begin."""
    system = load_rolls("rolls", "cpu")
    notes = on_grid(score_of(compose(4_200_001, seconds=30.0)), system.layout)
    found = torch.from_numpy(cut(notes, system.layout, int(notes.bars[4]), 64))
    return found[:-1], found[-1, :, 0] > 0


def test_rolls_know_more_than_that_all_is_one_instrument(window: tuple[torch.Tensor, torch.Tensor]) -> None:
    system, (stems, bars) = load_rolls("rolls", "cpu"), window
    mixture = stems.amax(0)
    made = system.separate(mixture, bars=bars, steps=4).sounding()
    truth = (stems > 0)[None]
    one = [torch.zeros_like(truth) for _ in system.names]
    for k, roll in enumerate(one):
        roll[:, k] = truth.any(1)
    best = max(label_accuracy(truth, roll, truth.any(1)) for roll in one)
    assert label_accuracy(truth, made, truth.any(1)) > best


@pytest.mark.parametrize("root", (0, 1))
def test_an_accompanying_bass_stays_in_the_key(root: int) -> None:
    system = load_rolls("rolls", "cpu")
    chords = torch.zeros(
        1, 2, 64, system.layout.rows, dtype=torch.uint8
    )  # I IV V I, a bar each, held by two instruments
    for bar, degree in enumerate((0, 5, 7, 0)):
        for stem, octave in enumerate((24, 36)):
            rows = [octave + (root + degree + third) % 12 for third in (0, 4, 7)]
            chords[0, stem, 16 * bar : 16 * bar + 16, rows] = SOUNDING
            chords[0, stem, 16 * bar : 16 * bar + 16 : 8, rows] = ONSET
    known = Rolls(("guitar", "piano"), chords, system.layout.steps, system.layout.lowest)
    played = torch.zeros(12)
    for seed in range(3):
        bass = system.accompany(known, ["bass"], seed=seed)["bass"][0] == ONSET
        played += bass.sum(0).unflatten(-1, (-1, 12)).sum(0)
    scale = [(root + tone) % 12 for tone in (0, 2, 4, 5, 7, 9, 11)]
    assert played.sum() >= 6
    assert played[scale].sum() / played.sum() > 0.85
