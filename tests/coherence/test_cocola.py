"""The encoder and the scores equal the published ones; masks, shapes and the loss do what they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import published_cocola as published
from stemwise.checkpoint import load_model, save_model
from stemwise.coherence.cocola import PARTS, Cocola, CocolaConfig, PartName
from stemwise.errors import ScoreError
from stemwise.nets.efficientnet import EfficientNet, StochasticDepth


@pytest.fixture(scope="module")
def model() -> Cocola:
    return published.model("hpss")


@pytest.fixture(scope="module")
def small() -> Cocola:
    """Without its batch norms' statistics a fresh network in evaluation maps everything to one point."""
    torch.manual_seed(0)
    model = Cocola(CocolaConfig(scale=0.25, embedding=16)).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.embed(model.features(torch.randn(16, 16_000) * torch.rand(16, 16_000).cumsum(1).sin()))
    return model.eval()


@pytest.mark.parametrize("part", PARTS)
@torch.no_grad()
def test_embeddings_and_similarities_equal_the_published(model: Cocola, part: PartName) -> None:
    features = published.tensors("encoder_input")["features"].float()
    expected = published.tensors("encoder_expected")
    hidden = model.embed(model.mask(features, part))
    assert (hidden - expected[f"hidden.{part}"]).abs().max() < 1e-4
    assert (model.similarity(hidden[:3], hidden[3:]) - expected[f"similarity.{part}"]).abs().max() < 1e-3
    assert (model.pairwise(hidden[:3], hidden[3:]) - expected[f"pairwise.{part}"]).abs().max() < 1e-3


@pytest.mark.parametrize("part", PARTS)
@torch.no_grad()
def test_scores_of_signals_equal_the_published_in_every_part(model: Cocola, part: PartName) -> None:
    audio = published.tensors("features_audio")["audio_int16"].float() / 32768
    expected = torch.tensor(published.facts()["audio_to_score"][part])
    assert (model.score(audio, audio, part) - expected.diagonal()).abs().max() < 5e-3
    assert (model.score(audio, audio.flip(0), part) - expected.flip(1).diagonal()).abs().max() < 5e-3


@torch.no_grad()
def test_silence_has_the_published_score(model: Cocola) -> None:
    silence = torch.zeros(1, model.window)
    assert float(model.score(silence, silence)) == pytest.approx(
        published.facts()["silence"]["silent_silent"], abs=1e-3
    )


@torch.no_grad()
def test_the_single_channel_model_equals_the_published() -> None:
    model, expected = published.model("mel"), published.tensors("encoder_mel")
    hidden = model.embed(expected["features"].float())
    assert (hidden - expected["hidden"]).abs().max() < 1e-4
    assert (model.similarity(hidden[:2], hidden[2:]) - expected["similarity"]).abs().max() < 1e-3
    assert model.parts == ("both",)
    with pytest.raises(ScoreError, match="HPSS"):
        model.mask(expected["features"].float(), "harmonic")


def test_masks_leave_their_input_and_the_other_channel_alone(small: Cocola) -> None:
    features = torch.randn(2, 2, 64, 60)
    before = features.clone()
    harmonic, percussive = small.mask(features, "harmonic"), small.mask(features, "percussive")
    assert torch.equal(features, before)
    assert torch.equal(harmonic + percussive, features)
    assert not harmonic[:, 1].any() and not percussive[:, 0].any()


@torch.no_grad()
def test_a_model_folder_keeps_the_scores(small: Cocola, tmp_path) -> None:
    again = load_model(save_model(tmp_path / "model", small))
    audio = torch.randn(2, 2, 16_000)
    assert isinstance(again, Cocola)
    assert torch.equal(again.score(*audio), small.score(*audio))


@torch.no_grad()
def test_cosine_is_symmetric_and_bounded() -> None:
    model = Cocola(CocolaConfig(similarity="cosine", temperature=0.2, scale=0.25, embedding=16)).eval()
    a, b = torch.randn(3, 16), torch.randn(3, 16)
    assert torch.allclose(model.similarity(a, b), model.similarity(b, a).T)
    assert torch.allclose(model.similarity(a, b).diagonal(), model.pairwise(a, b), atol=1e-5)
    assert torch.allclose(model.pairwise(a, a), torch.tensor(5.0), atol=1e-4)


def test_what_cannot_be_scored_is_refused(small: Cocola) -> None:
    with pytest.raises(ScoreError, match=r"\(3, 16000\) and \(1, 16000\)"):
        small.score(torch.randn(3, 16_000), torch.randn(1, 16_000))
    with pytest.raises(ScoreError, match=r"at least 0\.32 s"):
        small.score(torch.randn(1, 5119), torch.randn(1, 5119))
    assert small.score(torch.randn(1, 5120), torch.randn(1, 5120)).isfinite()
    with pytest.raises(ScoreError, match="NaN"):
        small.score(torch.zeros(1, small.window), torch.full((1, small.window), torch.nan))


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_similarities(small: Cocola) -> None:
    batch = torch.randn(4, 2, 1, 16_000)
    found = small.validate(batch, torch.Generator())
    hidden = small.embed(small.features(batch.squeeze(2).transpose(0, 1).flatten(0, 1)))
    scores = small.similarity(hidden[:4], hidden[4:])
    assert found["loss"] == pytest.approx(float(-scores.log_softmax(1).diagonal().mean()), rel=1e-4)
    assert found["accuracy"] == (scores.argmax(1) == torch.arange(4)).float().mean()


@torch.no_grad()
def test_what_is_longer_than_the_window_gives_shifted_candidates() -> None:
    torch.manual_seed(0)
    model = Cocola(CocolaConfig(scale=0.25, embedding=16, seconds=1.0, dropout=0.0)).train()
    heard: list[int] = []
    model.features.register_forward_hook(lambda _, inputs, output: heard.append(len(inputs[0])))
    batch = torch.randn(6, 2, 1, 24_000)
    torch.manual_seed(1)
    model.loss(batch, torch.Generator().manual_seed(1))
    model.loss(batch[..., :16_000], torch.Generator().manual_seed(1))
    model.validate(batch, torch.Generator())
    assert heard == [6, 8, 6, 6, 6, 6]


@torch.no_grad()
def test_noise_is_added_to_candidates_in_training_alone() -> None:
    model = Cocola(CocolaConfig(scale=0.25, embedding=16, seconds=1.0, noise=0.5))
    heard: list[torch.Tensor] = []
    model.features.register_forward_hook(lambda _, inputs, output: heard.append(inputs[0]))
    batch = torch.randn(4, 2, 1, 16_000)
    model.loss(batch, torch.Generator().manual_seed(1))
    model.validate(batch, torch.Generator())
    contexts, noisy, _, clean = heard
    assert torch.equal(contexts, batch[:, 0, 0]) and torch.equal(clean, batch[:, 1, 0])
    assert float((noisy - clean).std()) == pytest.approx(0.5, rel=0.02)


def test_a_third_signal_is_a_wrong_candidate_for_all() -> None:
    torch.manual_seed(0)
    model = Cocola(CocolaConfig(features="pitch", encoder="timeline", embedding=32, seconds=1.0, masks="batch")).eval()
    batch = torch.randn(3, 3, 1, 16_000)
    own, more = (model.validate(x, torch.Generator()) for x in (batch[:, :2], batch))
    assert float(more["loss"].detach()) > float(own["loss"].detach())
    scores = model.similarity(
        *(model.embed(model.features(x)) for x in (batch[:, 0, 0], batch[:, 1:, 0].transpose(0, 1).flatten(0, 1)))
    )
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(3))
    assert float(more["loss"].detach()) == pytest.approx(float(expected.detach()), abs=1e-4)


def test_shifted_candidates_are_windows_that_start_elsewhere(small: Cocola) -> None:
    long = torch.arange(3.0 * (small.window + 8000)).view(3, -1)
    (found,) = small._shifted(long, 8000, torch.Generator().manual_seed(0))
    shifts = found[:, 0] - long[:, 4000]
    assert found.shape == (3, small.window)
    assert torch.equal(found - found[:, :1], torch.arange(float(small.window)).expand(3, -1))
    assert all(400 <= abs(shift) <= 4000 for shift in shifts.tolist())
    assert not small._shifted(long, 600, torch.Generator())


@torch.no_grad()
def test_context_and_part_are_heard_in_the_same_third(small: Cocola) -> None:
    contexts, made = torch.randn(2, 3, 2, 64, 101)
    found = small.contrast(contexts, made, PARTS)
    kept = [small.mask(x[i : i + 1], part) for x in (contexts, made) for i, part in enumerate(PARTS)]
    assert torch.allclose(found["loss"], small.contrast(torch.cat(kept[:3]), torch.cat(kept[3:]))["loss"], atol=1e-4)


def test_masks_are_drawn_for_each_pair_or_for_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    each = Cocola(CocolaConfig(scale=0.25, embedding=16))._draw_parts(3000, generator)
    assert all(abs(each.count(part) / 3000 - 1 / 3) < 0.04 for part in PARTS)
    batch = Cocola(CocolaConfig(scale=0.25, embedding=16, masks="batch"))
    drawn = [batch._draw_parts(32, generator) for _ in range(400)]
    assert all(len(parts) == 1 for parts in drawn)
    assert abs(sum(parts == ["both"] for parts in drawn) / 400 - 0.5) < 0.1
    single = Cocola(CocolaConfig(scale=0.25, embedding=16, features="mel", masks="batch"))
    assert set(single._draw_parts(32, generator)) == {"both"}


@torch.no_grad()
def test_the_loss_depends_on_its_generator_alone(small: Cocola) -> None:
    batch = torch.randn(6, 2, 1, 16_000)
    losses = [float(small.loss(batch, torch.Generator().manual_seed(seed))["loss"]) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_every_weight_learns_and_every_batch_norm_keeps_a_long_mean() -> None:
    model = Cocola(CocolaConfig(scale=0.25, embedding=16)).train()
    model.loss(torch.randn(4, 2, 1, 16_000), torch.Generator())["loss"].backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 49 and all(norm.momentum == 0.01 and norm.eps == 1e-3 for norm in norms)


def test_residual_branches_drop_whole_examples_in_training_only() -> None:
    drops = [module for module in EfficientNet(2, 0.25).modules() if isinstance(module, StochasticDepth)]
    assert [round(drop.probability, 4) for drop in drops] == [round(0.2 * k / 16, 4) for k in range(16)]
    torch.manual_seed(0)
    drop = StochasticDepth(0.5)
    rows = drop(torch.ones(200, 3, 2, 2)).flatten(1)
    assert set(rows.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(rows.min(1).values, rows.max(1).values)
    assert torch.equal(drop.eval()(torch.ones(2, 3)), torch.ones(2, 3))
