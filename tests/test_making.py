"""What reaches a system when something new is made: the right sound at the right time, what is known, level, seed, steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plain_system import HOP, RATE, WINDOW, plain
from stemwise.audio_io import read_audio, write_audio
from stemwise.signals import channels_at, cut, span_weights, stereo_back
from stemwise.stems import Audio


def ramp(frames: int, level: float = 1.0) -> torch.Tensor:
    """Tells where a sample comes from: (1, frames)."""
    return level * (1 + torch.arange(frames, dtype=torch.float32)[None]) / frames


def test_every_window_hears_what_is_given_there_and_continues_the_one_before() -> None:
    model, system = plain()
    take = ramp(650)
    made = model.accompany({"bass": take}, ["drums"], rate=RATE, seed=3)
    assert len(system.asked) == 3 and len({one.seed for one in system.asked}) == 3
    for index, one in enumerate(system.asked):
        assert torch.equal(one.context.known["bass"], cut(take, index * HOP, WINDOW))
        assert torch.equal(made["drums"][0, :, index * HOP : 650][..., :WINDOW], one.made[0, :, : 650 - index * HOP])
        if index:
            signal, where = one.context.fixed["drums"]
            assert where.tolist() == [True] * (WINDOW - HOP) + [False] * HOP
            assert torch.equal(signal[:, where], system.asked[index - 1].made[0, :, HOP:])
        else:
            assert not one.context.fixed


def test_the_level_is_that_of_what_is_given_and_of_a_mixture_where_nothing_is() -> None:
    model, system = plain()
    model.generate(0.05, stems=["bass", "drums"])
    model.accompany({"bass": 0.2 * torch.ones(1, 400)}, ["drums"], rate=RATE)
    model.edit(Audio(model.stems, 0.1 * torch.ones(1, 3, 1, 400), RATE), replace=["drums"])
    scales = [one.context.scale for one in system.asked]
    assert scales[0] == scales[1] == 0.125, "-18 dBFS"
    assert scales[2] == pytest.approx(0.2 * 3**0.5), "three stems as strong as this one"
    assert scales[-1] == pytest.approx(0.3)


def test_steps_and_evaluations_are_those_asked_for_or_the_models_own(tmp_path: Path) -> None:
    model, system = plain()
    song, stems = 0.1 * ramp(400), Audio(model.stems, 0.1 * torch.ones(1, 3, 1, 400), RATE)
    for steps in (None, 9):
        model.generate(0.02, stems=["bass"], steps=steps)
        model.accompany({"bass": song}, ["drums"], rate=RATE, steps=steps)
        model.edit(stems, replace=["drums"], steps=steps)
        model.edit(stems, span=(0, 0.02), steps=steps)
    assert list(dict.fromkeys(one.steps for one in system.asked[: len(system.asked) // 2])) == [5, 7]
    assert [system.asked[k].steps for k in (0, 1, len(system.asked) // 2 - 1)] == [5, 7, 5]
    assert {one.steps for one in system.asked[len(system.asked) // 2 :]} == {9}
    file = write_audio(tmp_path / "song.wav", song.numpy(), RATE)
    for evaluations in (None, 4):
        system.spent.clear()
        model.separate(song, rate=RATE, evaluations=evaluations)
        model.separate_file(file, tmp_path / "out", evaluations=evaluations)
        model.edit(song, rate=RATE, remove=["drums"], evaluations=evaluations)
        assert set(system.spent) == {evaluations or 2} and len(system.spent) == 3
    few, many = (model.separate_file(file, tmp_path / "out", overlap=overlap) for overlap in (0.0, 0.9))
    assert (few.windows, many.windows) == (2, 5)


def test_a_file_is_separated_as_an_array_is(tmp_path: Path) -> None:
    """In windows that the system chooses by the song's length at its rate; what it does over the whole song is done."""
    model, system = plain()
    system.hears, system.louder = 450, 1.5
    song = 0.1 * ramp(2000)
    stems, report = model.separate_report(song, rate=2 * RATE)
    file = write_audio(tmp_path / "song.wav", song.numpy(), 2 * RATE)
    assert model.separate_file(file, tmp_path / "out").windows == report.windows == 3
    assert system.lengths == [1000, 1000]
    inside = slice(200, 1800)
    torch.testing.assert_close(stems["bass"][0, :, inside], song[:, inside] / 2, atol=1e-4, rtol=0)
    for name in model.stems:
        assert np.array_equal(read_audio(tmp_path / "out" / f"{name}.wav")[0], stems[name][0].numpy())


def test_a_span_hears_half_a_window_around_it_and_knows_what_stays() -> None:
    model, system = plain()
    stems = Audio(model.stems, torch.stack([ramp(2000, level) for level in (0.1, 0.2, 0.3)])[None], RATE)
    made = model.edit(stems, replace=["drums"], span=(0.125, 0.1375))  # frames 1000 to 1100
    (one,) = system.asked[:1]
    assert torch.equal(one.context.known["bass"], stems["bass"][0, :, 850:1150])
    signal, where = one.context.fixed["drums"]
    assert torch.nonzero(~where)[:, 0].tolist() == list(range(150, 250))
    assert torch.equal(signal[:, where], stems["drums"][0, :, 850:1150][:, where])
    middle = slice(1040, 1060)
    weight = torch.minimum(torch.arange(41, 61), torch.arange(60, 40, -1)) / 160
    expected = stems["drums"][0, 0, middle] * (1 - weight) + one.made[0, 0, 190:210] * weight
    torch.testing.assert_close(made["drums'"][0, 0, middle], expected)


def test_a_span_fades_inside_and_not_at_the_ends_of_the_song() -> None:
    first, last = span_weights((0.0, 0.05), 800, RATE), span_weights((0.05, 9.0), 800, RATE)
    assert first[:240].eq(1).all() and first[399] == 1 / 160 and not first[400:].any()
    assert last[560:].eq(1).all() and last[400] == 1 / 160 and not last[:400].any()


def test_of_more_channels_odd_ones_are_left_and_even_ones_right() -> None:
    signal = np.arange(1, 6, dtype=np.float32)[:, None] * np.ones((1, 100), np.float32)
    assert channels_at(signal, RATE, RATE, 2)[:, 0].tolist() == [3, 3]
    assert channels_at(signal[:4], RATE, RATE, 2)[:, 0].tolist() == [2, 3]
    assert channels_at(signal, RATE, RATE, 1)[:, 0].tolist() == [3]
    assert channels_at(signal[1:2], RATE, RATE, 2)[:, 0].tolist() == [2, 2]
    made = torch.tensor([1.0, 3.0])[None, :, None].expand(1, 2, 100)
    for channels, expected in ((1, [2]), (2, [1, 3]), (3, [1, 3, 1]), (4, [0.5**0.5, 3 * 0.5**0.5] * 2)):
        back = stereo_back(made, RATE, RATE, 120, channels)
        assert back.shape == (1, channels, 120) and not back[..., 100:].any()
        assert back[0, :, 0].tolist() == pytest.approx(expected)
