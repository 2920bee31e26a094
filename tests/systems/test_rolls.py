"""Whatever a prior of rolls thinks, what was heard is kept: mixtures, known stems, and nothing sounds off the mixture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.codecs.roll import BAND
from stemwise.diffusion import sample, seeded
from stemwise.diffusion.schedules import karras
from stemwise.errors import Cancelled, QueryError
from stemwise.nets.transunet import TransUnetConfig
from stemwise.stems import Rolls
from stemwise.systems.mixture2music import Mixture2Music, Mixture2MusicConfig
from stemwise.systems.roll_system import RollSystem, solve
from stemwise.systems.rolls import FREE, Heard, Questions, RollPriorConfig, cells, pitch_classes, planes
from tiny_rolls import NET, tiny_prior, tiny_system

NAMES = BAND.stems


def music(length: int, seed: int = 0, density: float = 0.03) -> Tensor:
    """Random cells of five stems (stem, time, pitch)."""
    generator = torch.Generator().manual_seed(seed)
    sounds = torch.rand(5, length, 72, generator=generator) < density
    begins = torch.rand(5, length, 72, generator=generator) < 0.5
    return (sounds * (1 + (sounds & begins).to(torch.uint8))).to(torch.uint8)


def test_separated_stems_mix_to_the_mixture_over_many_windows() -> None:
    mixture = music(150).amax(0)
    for temperature in (0.0, 1.0):
        made = tiny_system().separate(mixture, seed=3, temperature=temperature)
        assert made.names == NAMES
        assert torch.equal(made.mix()[0], mixture)
        again, other = (tiny_system().separate(mixture, seed=seed, temperature=temperature) for seed in (3, 4))
        assert torch.equal(made.data, again.data)
        assert torch.equal(made.data, other.data) == (temperature == 0.0)


def test_separation_keeps_known_stems() -> None:
    truth = music(100)
    known = Rolls(("drums", "bass"), truth[[1, 0]][None])
    made = tiny_system().separate(truth.amax(0), known=known)
    assert torch.equal(made["bass"], known["bass"])
    assert torch.equal(made["drums"], known["drums"])
    assert torch.equal(made.mix()[0], truth.amax(0))


def test_nothing_of_the_state_is_ever_off_the_mixture() -> None:
    prior, truth = tiny_prior(), music(64)[None]
    heard = Heard(truth.amax(1), truth, torch.zeros(1, 5, 64, dtype=torch.bool), torch.arange(64)[None] % 16 == 0)
    denoiser, constraint = prior.condition(heard)
    off = ~heard.support()
    for state in sample(denoiser, karras(4, 0.1, 10.0), seeded(0), constraint=constraint):
        assert not state.x[off].any()
        assert state.x[~off].all()


def test_accompaniment_and_generation_have_the_length_asked_for() -> None:
    system, heard = tiny_system(), Rolls(("guitar",), music(90)[2][None, None])
    made = system.accompany(heard, ["bass", "drums"], seed=1)
    assert (made.names, tuple(made.data.shape)) == (("bass", "drums"), (1, 2, 90, 72))
    new = system.generate(bars=5, metre=(3, 4))
    assert (new.names, new.data.shape[2]) == (NAMES, 60)
    assert system.generate(["piano"], bars=1).names == ("piano",)


def test_what_was_heard_changes_what_is_made() -> None:
    system = tiny_system()
    one, other = (system.accompany(Rolls(("piano",), music(64, seed)[3][None, None]), ["bass"]) for seed in (0, 1))
    assert not torch.equal(one.data, other.data)


def test_a_window_continues_the_one_before() -> None:
    prior, truth = tiny_prior(), music(64)[None]
    known = (torch.arange(64) < 32).expand(1, 5, 64)
    heard = Heard(torch.full((1, 64, 72), FREE, dtype=torch.uint8), truth, known, torch.zeros(1, 64, dtype=torch.bool))
    made = solve(prior, heard, 2, seeded(0))
    assert torch.equal(made[:, :, :32], truth[:, :, :32])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_cells_cover_every_mixture(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    likely = torch.rand(2, 10, 4, 6, generator=generator)
    mixture = torch.randint(0, 4, (2, 4, 6), generator=generator, dtype=torch.uint8)
    made, told = cells(likely, mixture).amax(1), mixture != FREE
    assert torch.equal(made[told], mixture[told])
    assert bool((made <= 2).all())


def test_requests_that_contradict_themselves() -> None:
    system, truth = tiny_system(), music(64)
    with pytest.raises(QueryError, match="both given and wanted"):
        system.accompany(Rolls(("bass",), truth[:1][None]), ["bass"])
    with pytest.raises(QueryError, match="no stem named 'flute'"):
        system.generate(["flute"])
    with pytest.raises(QueryError, match="at least one bar"):
        system.generate(bars=0)
    with pytest.raises(QueryError, match=r"a roll is uint8 \(time, 72\)"):
        system.separate(truth.amax(0).float())
    with pytest.raises(QueryError, match=r"a roll is uint8 \(64, 72\)"):
        system.separate(truth.amax(0), known=Rolls(("bass",), truth[:1, :60][None]))
    with pytest.raises(Cancelled):
        system.separate(truth.amax(0), progress=lambda share: share < 0.1)


def test_published_prior_separates_masked_and_nothing_else() -> None:
    torch.manual_seed(0)
    net = TransUnetConfig(widths=(8, 8, 8, 8), layers=1, positions="published", bottleneck="published")
    system = RollSystem(Mixture2Music(Mixture2MusicConfig(net=net, evaluations=3)).eval())
    mixture = music(100).amax(0)
    made = system.separate(mixture)
    assert made.names == ("piano", "guitar", "bass", "string", "drum")
    assert torch.equal(made.mix()[0] > 0, mixture > 0)
    for ask in (lambda: system.generate(), lambda: system.separate(mixture, known=made)):
        with pytest.raises(QueryError, match="only separates"):
            ask()


def test_loss_asks_every_kind_of_question_and_learns() -> None:
    prior = tiny_prior().requires_grad_(True)
    batch = torch.cat([music(64)[None], torch.zeros(1, 1, 64, 72, dtype=torch.uint8)], dim=1).repeat(2, 1, 1, 1)
    batch[:, -1, ::16] = 1
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = prior.loss(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss["loss"].backward()
        optimizer.step()
        losses.append(float(loss["loss"].detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert set(loss) == {"loss", "separate", "make"}


def test_questions_are_drawn_as_configured() -> None:
    prior, data = tiny_prior(), music(64)[None].repeat(400, 1, 1, 1)
    bars = torch.zeros(400, 64, dtype=torch.bool)
    heard = prior._question(data, bars, torch.Generator().manual_seed(0))
    told = (heard.mixture != FREE).flatten(1).any(1)
    assert float(told.float().mean()) == pytest.approx(Questions().mixture, abs=0.08)
    ends = heard.known[:, :, :16].all(2).all(1)
    assert float(ends.float().mean()) == pytest.approx(Questions().beginning, abs=0.08)
    some = heard.known[:, :, -1].any(1)
    assert 0.2 < float(some.float().mean()) < Questions().stems
    assert not bool(heard.known[:, :, -1].all(1).any())


def test_pitch_classes_do_not_know_octaves_and_average_over_time() -> None:
    sounding = torch.zeros(1, 2, 16, 72)
    sounding[0, 0, 4, 7] = sounding[0, 0, 4, 31] = 1.0  # one class in two octaves
    sounding[0, 1, 0, 71] = 1.0
    near, far = pitch_classes(sounding, (2, 64)).chunk(2, dim=1)
    assert near[0, 0, :, 19].nonzero().flatten().tolist() == [3, 4, 5]  # one step before and after, in every octave
    assert near[0, 0, 4, 7] == near[0, 0, 4, 67] == pytest.approx(2 * 2 / 3)
    assert near[0, 0, :, 8].abs().sum() == 0
    assert far[0, 1, 15, 11] == pytest.approx(2 / 16)  # the whole window where it is shorter than the span
    assert pitch_classes(sounding, ()).shape == (1, 0, 16, 72)


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="layout is 'orchestra'; choose from published, band"):
        RollPriorConfig(layout="orchestra", net=NET)
    with pytest.raises(ValueError, match=r"even numbers of steps"):
        RollPriorConfig(harmony=(8, 63), net=NET)
    with pytest.raises(ValueError, match=r"net\.inputs must be 29 and net.outputs 10"):
        RollPriorConfig(net=TransUnetConfig())
    assert planes(torch.tensor([[[[0, 1, 2]]]], dtype=torch.uint8)).tolist() == [[[[0, 1, 1]], [[0, 0, 1]]]]


def test_seeds_are_whole_numbers_of_any_kind() -> None:
    one, other = (tiny_system().generate(bars=1, seed=seed) for seed in (10, np.int64(10)))
    assert torch.equal(one.data, other.data)
    with pytest.raises(QueryError, match="give a whole number"):
        tiny_system().generate(bars=1, seed=1.5)  # type: ignore[arg-type]
