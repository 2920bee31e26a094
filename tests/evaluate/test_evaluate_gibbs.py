"""Gibbs sampling around a separator, tested with stand-ins whose answers are known."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from small_songs import RATE, STEMS, write_songs
from torch import Tensor

from stemwise.audio_io import resample
from stemwise.errors import QueryError
from stemwise.evaluate import Protocol, Question
from stemwise.evaluate.gibbs import gibbs, gibbs_system
from stemwise.evaluate.questions import ask
from stemwise.songs import folder

DOCS = Path(__file__).parents[2] / "docs" / "evaluate.md"


def halves(mixture: Tensor) -> Tensor:
    """A separator that gives away only a part of what it hears."""
    return torch.stack([0.6 * mixture, 0.2 * mixture], dim=1)


def test_stems_sum_to_the_mixture_after_any_number_of_steps() -> None:
    mixture = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))
    for steps in (1, 2, 50):
        torch.testing.assert_close(gibbs(halves, mixture, steps).sum(1), mixture)


def test_a_perfect_separator_is_left_alone() -> None:
    low, high = torch.zeros(1, 1, 64), torch.zeros(1, 1, 64)
    low[..., :32], high[..., 32:] = 1.0, 2.0

    def perfect(mixture: Tensor) -> Tensor:
        return torch.stack([mixture * (low > 0), mixture * (high > 0)], dim=1)

    torch.testing.assert_close(gibbs(perfect, low + high, 64), torch.stack([low, high], dim=1))


def test_the_same_seed_gives_the_same_stems_and_every_step_separates_at_most_once() -> None:
    calls = []

    def counted(mixture: Tensor) -> Tensor:
        calls.append(1)
        return halves(mixture)

    mixture = torch.ones(1, 2, 16)
    first = gibbs(counted, mixture, 32, seed=3)
    assert len(calls) <= 32
    assert torch.equal(first, gibbs(halves, mixture, 32, seed=3))


def test_bad_questions_are_refused() -> None:
    with pytest.raises(QueryError, match="at least one step"):
        gibbs(halves, torch.ones(1, 1, 8), 0)
    with pytest.raises(QueryError, match="gave the shape"):
        gibbs(lambda mixture: mixture, torch.ones(1, 1, 8))


def test_two_stems_stay_as_they_are() -> None:
    mixture = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gibbs(halves, mixture, 64), gibbs(halves, mixture, 1))


# -- as a system ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home") / "songs"
    write_songs(home, count=1)
    return home


def question(place: Path, **protocol: object) -> Question:
    """Two seconds of three stems in stereo at 8 kHz."""
    (song,) = folder(place)
    (asked,) = ask(song, Protocol.model_validate(protocol), STEMS, 0)
    return asked


class Watched:
    """Gives the stems piano, bass, drums, in that order, a half, a third and a sixth of what it hears, which it keeps."""

    names = ("piano", "bass", "drums")
    shares = (1 / 2, 1 / 3, 1 / 6)

    def __init__(self) -> None:
        self.heard: list[Tensor] = []

    def __call__(self, mixture: Tensor) -> Tensor:
        self.heard.append(mixture)
        return torch.stack([share * mixture for share in self.shares], dim=1)


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (8000, 1), (4000, 2), (None, None)])
def test_the_separator_hears_its_own_rate_and_channels(
    place: Path, rate: int | None, channels: Literal[1, 2] | None
) -> None:
    asked, separator = question(place), Watched()
    answer = gibbs_system(separator, Watched.names, 1, rate, channels)(asked)
    (heard,) = separator.heard
    assert heard.shape == (1, channels or 2, 2 * (rate or RATE))
    mixture = asked.truth.data[0].sum(0).numpy()
    sides = mixture.mean(0, keepdims=True) if channels == 1 else mixture
    np.testing.assert_allclose(heard[0].numpy(), resample(sides, RATE, rate or RATE), atol=1e-6)
    assert (answer.names, answer.rate, answer.data.shape) == (STEMS, RATE, asked.truth.data.shape)
    back = resample(heard[0].numpy(), rate or RATE, RATE) * np.ones((2, 1), np.float32)
    for name, share in zip(Watched.names, Watched.shares):
        np.testing.assert_allclose(answer[name][0].numpy(), share * back + (mixture - back) / 3, atol=1e-5)


def test_every_step_is_at_the_separators_rate(place: Path) -> None:
    separator = Watched()
    gibbs_system(separator, Watched.names, 16, 44100, 2)(question(place))
    assert len(separator.heard) > 1
    assert {tuple(heard.shape) for heard in separator.heard} == {(1, 2, 88200)}


def test_it_separates_alone(place: Path) -> None:
    song = question(place, task="generate", metrics=["fad"], chunks={"seconds": 1.0, "per_song": 1})
    with pytest.raises(QueryError, match="cannot generate"):
        gibbs_system(Watched(), Watched.names)(song)


def test_the_documented_wrapping_of_demucs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code in the docs, with a stand-in for the package that hears what Demucs would."""
    (block,) = re.findall(r"```text\n(from demucs.*?)```", DOCS.read_text(), re.DOTALL)
    separator = Watched()
    fake: dict[str, Any] = {name: ModuleType(name) for name in ("demucs", "demucs.apply", "demucs.pretrained")}
    fake["demucs.apply"].apply_model = lambda model, mix, shifts: separator(mix)
    model = SimpleNamespace(sources=list(Watched.names), samplerate=44100, audio_channels=2)
    fake["demucs.pretrained"].get_model = lambda name: model
    for name, module in fake.items():
        monkeypatch.setitem(sys.modules, name, module)
    made: dict[str, Any] = {}
    exec(compile(block, str(DOCS), "exec"), made)
    asked = question(place)
    answer = made["system"](asked)
    assert separator.heard[0].shape == (1, 2, 88200)
    assert float(separator.heard[0].std()) == pytest.approx(1.0, rel=1e-3)
    mixture = asked.truth.data.sum(1)
    torch.testing.assert_close(answer.mix(), mixture, atol=1e-5, rtol=0)
    assert float(answer["piano"].std()) == pytest.approx(float(mixture.std()) / 2, rel=0.05)
