"""Notes are given their instruments: evidence is exact, every song length works, what can be learnt is learnt."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from stemwise.metrics.assignment import balanced_accuracy, confusion, note_accuracy, permuted_accuracy
from stemwise.nets.notenet import rotations
from stemwise.symbolic import BAND, FEATURES, features
from stemwise.symbolic.composed import composed
from stemwise.symbolic.notes import Labelled
from stemwise.symbolic.sets import NoteSets
from stemwise.symbolic.windows import NoteAugmentation, NoteWindows
from stemwise.systems.notes import UNKNOWN, Answer, NoteAssigner, Question, assign
from tiny_notes import tiny_assigner

COUNT = len(BAND)
SONG = composed(91, 20.0)


def question(song: Labelled = SONG, **changes: object) -> Question:
    unknown = np.full(len(song.notes), UNKNOWN)
    plain = Question(song.notes, song.tpq, song.metres, unknown, np.ones(COUNT, dtype=bool))
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def asked(song: Question, steps: int = 1, seed: int | None = None, temperature: float = 1.0) -> Answer:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return assign(tiny_assigner(), song, steps=steps, generator=generator, temperature=temperature)


def test_angles_are_worked_out_where_every_device_can(monkeypatch: pytest.MonkeyPatch) -> None:
    logspace = torch.logspace  # without a kernel on Apple's GPU, for which the device "meta" stands
    monkeypatch.setattr(torch, "logspace", lambda *ends, dtype: logspace(*ends, dtype=dtype))
    place = torch.zeros(3, device="meta")
    assert rotations(place, place, 16).device.type == "meta"


@pytest.mark.parametrize("steps", (1, 3, 10_000))
def test_labels_that_are_given_stay_and_all_others_are_allowed_ones(steps: int) -> None:
    notes = len(SONG.notes) if steps < 10 else 30
    song = dataclasses.replace(SONG, notes=SONG.notes[:notes], labels=SONG.labels[:notes])
    given = np.where(np.arange(notes) % 3, UNKNOWN, 6)
    allowed = np.isin(np.arange(COUNT), (1, 2))
    answer = asked(question(song, given=given, allowed=allowed), steps=steps)
    assert (answer.labels[::3] == 6).all()
    assert (answer.confidence[::3] == 1).all()
    rest = np.delete(answer.labels, np.s_[::3])
    assert np.isin(rest, (1, 2)).all()
    assert ((answer.confidence > 0) & (answer.confidence <= 1)).all()


def test_windows_of_a_long_song_are_averages_and_a_short_song_is_one_window() -> None:
    model = tiny_assigner()
    short = dataclasses.replace(SONG, notes=SONG.notes[:40], labels=SONG.labels[:40])
    heard: list[float] = []
    answer = assign(model, question(short), steps=1, progress=heard.append)
    assert heard == [1.0]
    long = assign(model, question(), steps=2, progress=heard.append)
    assert len(heard) == 1 + 2 * len(range(0, len(SONG.notes) - 32, 32))
    assert heard[1:] == sorted(heard[1:])
    assert len(long.labels) == len(SONG.notes) > 64
    # the first half of the first window is heard by no other
    first = dataclasses.replace(SONG, notes=SONG.notes[:64], labels=SONG.labels[:64])
    alone, whole = asked(question(first)), asked(question())
    assert np.allclose(alone.confidence[:32], whole.confidence[:32], atol=1e-5)
    assert np.array_equal(alone.labels[:32], whole.labels[:32])
    assert len(answer.labels) == 40


def test_the_likeliest_answer_is_one_and_every_seed_is_a_version() -> None:
    assert np.array_equal(asked(question(), steps=4).labels, asked(question(), steps=4).labels)
    one, same, other = (asked(question(), steps=4, seed=seed).labels for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert (one != other).mean() > 0.05
    cold = asked(question(), seed=3, temperature=1e-3).labels
    assert (cold == asked(question()).labels).mean() > 0.95


def test_labels_that_are_drawn_come_as_often_as_the_model_says() -> None:
    short = dataclasses.replace(SONG, notes=SONG.notes[:1], labels=SONG.labels[:1])
    model = tiny_assigner()
    seen = torch.from_numpy(features(short.notes, short.tpq, short.metres))[None]
    with torch.no_grad():
        chances = model(seen, torch.tensor([[COUNT]]), torch.zeros(1, COUNT + 1))[0][0, 0].softmax(-1)
    drawn = [int(asked(question(short), seed=seed).labels[0]) for seed in range(150)]
    found = np.bincount(drawn, minlength=COUNT) / 150
    assert np.abs(found - chances.numpy()).max() < 4 * np.sqrt(0.25 / 150)


def test_padding_is_not_heard() -> None:
    model = tiny_assigner()
    stream = NoteWindows(NoteSets.of([("composer:70:72", None, None)], print), 64, 0)
    row = stream[0][:40][None]
    padded = torch.cat([row, torch.zeros(1, 24, row.shape[-1])], dim=1)
    with torch.no_grad():
        one, other = (model.validate(batch, torch.Generator()) for batch in (row, padded))
    assert torch.allclose(one["loss"], other["loss"], atol=1e-5)
    assert one["accuracy"] == other["accuracy"]


def test_where_a_song_begins_does_not_matter() -> None:
    model = tiny_assigner()
    row = NoteWindows(NoteSets.of([("composer:70:72", None, None)], print), 64, 0)[0][None, :, : len(FEATURES)]
    later = row.clone()
    later[..., FEATURES.index("onset")] += 960.0
    known, present = torch.full((1, 64), COUNT), torch.zeros(1, COUNT + 1)
    with torch.no_grad():
        assert torch.allclose(model(row, known, present)[0], model(later, known, present)[0], atol=2e-3)


@pytest.mark.parametrize("net", ("attention", "lstm"))
def test_a_rule_that_pitch_alone_decides_is_learnt(net: str) -> None:
    model = tiny_assigner(net).train()
    stream = NoteWindows(NoteSets.of([("composer:70:73", None, None)], print), 64, 0, NoteAugmentation(merge=0.0))
    optimiser = torch.optim.AdamW(model.parameters(), 2e-2)
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(60):
        batch = torch.stack([stream[3 * step + k] for k in range(3)])
        size = len(FEATURES)
        batch[..., size] = (batch[..., 0] // 12 % COUNT).float()
        batch[..., size + 1] = 0
        batch[..., size + 3 : size + 3 + COUNT] = torch.eye(COUNT)[batch[..., size].long()]
        loss = model.loss(batch, generator)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.45 * np.mean(losses[:5])
    with torch.no_grad():
        assert float(model.eval().validate(batch, generator)["accuracy"]) > 0.8


def test_accuracies_of_a_table_counted_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    swapped = np.array([1, 1, 1, 0, 0, 2])  # grouped rightly, named wrongly
    table = confusion(swapped, truth, 3)
    assert table.tolist() == [[0, 3, 0], [2, 0, 0], [0, 0, 1]]
    assert note_accuracy([table]) == pytest.approx(1 / 6)
    assert permuted_accuracy([table]) == 1.0
    one = confusion(np.zeros(6, int), truth, 3)
    assert note_accuracy([one]) == pytest.approx(0.5)
    assert balanced_accuracy([one]) == pytest.approx(1 / 3)
    assert note_accuracy([table, one]) == pytest.approx(4 / 12)


def test_the_model_says_which_instruments_it_knows() -> None:
    model: NoteAssigner = tiny_assigner()
    assert model.stems == ("piano", "guitar", "bass", "strings", "drums", "melody", "other")
