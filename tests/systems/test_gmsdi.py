"""GMSDI: a prior that only hears mixtures, asked for sources in words; coupled sampling, separation, accompaniment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import stemwise
from stemwise import checkpoint
from stemwise.diffusion import Denoiser
from stemwise.errors import QueryError
from stemwise.systems.gmsdi import Gmsdi, GmsdiConfig
from stemwise.systems.gmsdi_system import GmsdiSystem
from stemwise.systems.msdm import Generation
from stemwise.systems.prompts import Prompt, folded
from stemwise.systems.sources import Sources, described
from stemwise.systems.system import Context
from tiny_gmsdi import CONFIG, NET, WORDS, prior

WORD_NAMES = tuple(name for name, _ in described(WORDS, WORDS))


def told(words: Sequence[str]) -> torch.Tensor:
    return torch.tensor([[word in words for word in WORDS]])


def system(**changes: object) -> GmsdiSystem:
    return replace(GmsdiSystem(prior(), Sources(described(WORDS, WORDS))), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [1, 3, 64])
@pytest.mark.parametrize("sources", [1, 3, 8])
def test_one_batched_forward_equals_the_loop(sources: int, most: int) -> None:
    """Sources, their mixture and negative words; in pieces too, where memory is short."""
    model = prior()
    prompts = [Prompt((WORDS[k % 4],), (WORDS[(k + 1) % 4],), 1.0 + 0.5 * (k % 3)) for k in range(sources)] + [
        Prompt(WORDS)
    ]
    x, sigma = torch.randn(2, sources + 1, 1024), torch.tensor(0.3)
    found = model.prompted(prompts, most)(x, sigma)
    for slot, prompt in enumerate(prompts):
        alone, unwanted = (
            model(x[:, slot], sigma.expand(2), told(w).expand(2, -1)) for w in (prompt.words, prompt.against)
        )
        expected = alone if prompt.weight == 1 else unwanted + prompt.weight * (alone - unwanted)
        torch.testing.assert_close(found[:, slot], expected, atol=1e-5, rtol=1e-5)


def test_a_batch_that_does_not_fit_into_memory_is_split() -> None:
    pieces = []

    def evaluate(x: torch.Tensor, sigma: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("too large")
        pieces.append(len(x))
        return x * sigma[:, None] + rows[:, None]

    x = torch.randn(3, 2, 8)
    found = folded(evaluate, [Prompt(("bass",)), Prompt(("drums",))])(x, torch.tensor(0.5))
    torch.testing.assert_close(found, x * 0.5 + torch.tensor([0.0, 1.0])[:, None])
    assert max(pieces) <= 2 and sum(pieces) >= 6


def test_words_matter_and_their_order_does_not() -> None:
    model = prior()
    x, sigma = torch.randn(1, 1, 1024), torch.tensor(0.3)
    bass, drums = (model.prompted([Prompt((word,))])(x, sigma) for word in ("bass", "drums"))
    assert not torch.allclose(bass, drums)
    both, turned = (model.prompted([Prompt(words)])(x, sigma) for words in (("bass", "drums"), ("drums", "bass")))
    torch.testing.assert_close(both, turned, atol=0, rtol=0)


def test_training_asks_with_what_is_told_unless_the_description_is_dropped() -> None:
    def loss(told: torch.Tensor, dropped: float) -> float:
        torch.manual_seed(0)
        model = Gmsdi(replace(CONFIG, dropped=dropped))
        for name, weight in model.named_parameters():
            if name.endswith("words.out.weight"):
                torch.nn.init.normal_(weight)
        mixture = 0.1 * torch.randn(2, 1, 1024, generator=torch.Generator().manual_seed(1))
        return float(model.loss({"mixture": mixture, "told": told}, torch.Generator().manual_seed(0)).detach())

    bass, drums = (told([word]).expand(2, -1) for word in ("bass", "drums"))
    assert loss(bass, 0.0) != pytest.approx(loss(drums, 0.0), rel=1e-6)
    assert loss(bass, 1.0) == loss(drums, 1.0)


def test_separators_sum_to_the_mixture() -> None:
    wave = 0.1 * torch.randn(2, 1, 1024)
    results = []
    for extracted in ((), ("drums",), tuple(described(WORDS, WORDS)[k][0] for k in range(4))):
        stems, lacking = system(extracted=extracted).separate(wave, 4)
        assert stems.shape == (2, 4, 1, 1024)
        torch.testing.assert_close(stems.sum(1), wave, atol=1e-6, rtol=0)
        assert bool(lacking.isfinite().all())
        results.append(stems)
    assert not torch.allclose(results[0][:, 1], results[1][:, 1])
    same = system().separate(wave[:1].expand(2, -1, -1), 4)[0]
    torch.testing.assert_close(same[0], same[1], atol=1e-6, rtol=0)


def test_bfloat16_changes_little() -> None:
    wave = 0.1 * torch.randn(1, 1, 1024)
    exact, rounded = (GmsdiSystem.of(prior(), kind).separate(wave, 4)[0] for kind in (torch.float32, torch.bfloat16))
    assert 0 < float((exact - rounded).norm() / exact.norm()) < 0.05


def test_sources_hang_together_with_their_mixture() -> None:
    """The tighter the coupling, the more another source's words change what a source plays."""
    alone = system(gamma=100.0).sample(["bass"], Context({}, {}, 1.0), seed=1, steps=4)
    assert alone.shape == (1, 1, 1024)
    drums = {"drums": 0.1 * torch.randn(1, 1024)}
    beside = system().sample(["bass", "piano"], Context(drums, {}, 1.0), seed=1, steps=4)
    louder = system().sample(["bass", "piano"], Context({"drums": 2 * drums["drums"]}, {}, 1.0), seed=1, steps=4)
    assert beside.shape == (2, 1, 1024)
    assert bool(beside.isfinite().all())
    assert not torch.equal(beside, louder)
    tight = system(gamma=0.01).sample(["bass", "piano"], Context({}, {}, 1.0), seed=1, steps=4)
    assert bool(tight.isfinite().all())


def test_gamma_may_be_a_schedule_and_differ_for_the_mixture() -> None:
    nothing, given = Context({}, {}, 1.0), Context({"drums": 0.1 * torch.randn(1, 1024)}, {}, 1.0)
    for context in (nothing, given):
        made = {
            name: system(**gammas).sample(["bass", "piano"], context, seed=1, steps=6)
            for name, gammas in {
                "same": {"gamma": 2.0},
                "schedule": {"gamma": lambda sigma: 2.0},
                "both": {"gamma": 2.0, "gamma_mixture": 2.0},
                "loose mixture": {"gamma": 2.0, "gamma_mixture": 50.0},
                "late": {"gamma": lambda sigma: 2.0 if sigma < 0.1 else 50.0},
            }.items()
        }
        torch.testing.assert_close(made["schedule"], made["same"], atol=0, rtol=0)
        torch.testing.assert_close(made["both"], made["same"], atol=0, rtol=0)
        assert not torch.allclose(made["loose mixture"], made["same"])
        assert not torch.allclose(made["late"], made["same"])


def test_a_guide_bends_the_sources() -> None:
    """Here towards what is given, with the wave of every source in hand, as `coherence.guidance` needs it."""
    heard = 0.1 * torch.sin(torch.arange(1024) / 5.0)

    def towards(denoiser: Denoiser, context: Context, waves: Callable[[torch.Tensor], torch.Tensor]) -> Denoiser:
        def bent(x: torch.Tensor, sigma: torch.Tensor, /) -> torch.Tensor:
            estimate = denoiser(x, sigma)
            assert waves(estimate).shape == (1, 1, 1, 1024)
            wanted = next(iter(context.known.values()))[0] if context.known else heard
            return torch.cat([0.2 * estimate[:, :1] + 0.8 * wanted, estimate[:, 1:]], 1)

        return bent

    for known in ({}, {"drums": heard[None]}):
        plain, guided = (
            system(guide=guide).sample(["bass"], Context(known, {}, 1.0), seed=1, steps=8)[0, 0]
            for guide in (None, towards)
        )
        near = [float(torch.nn.functional.cosine_similarity(made, heard, dim=0)) for made in (plain, guided)]
        assert near[1] > near[0] + 0.3


@pytest.mark.parametrize("gamma", [0.3, 1.0])
@pytest.mark.parametrize("steps", [6, 24, 100])
def test_sources_beside_known_ones_do_not_run_away(monkeypatch: pytest.MonkeyPatch, steps: int, gamma: float) -> None:
    """Of four sources that are noise of a standard deviation of 0.2, none is much louder, however tight the coupling."""

    def ideal(x: torch.Tensor, sigma: torch.Tensor, /) -> torch.Tensor:
        return x * 0.04 / (0.04 + torch.as_tensor(sigma).reshape(-1, *[1] * (x.ndim - 1)) ** 2)

    monkeypatch.setattr(Gmsdi, "prompted", lambda *_: ideal)
    heard = 0.2 * torch.randn(1, 1024, generator=torch.Generator().manual_seed(0))
    made = system(gamma=gamma).sample(WORD_NAMES[:3], Context({WORD_NAMES[3]: heard}, {}, 1.0), seed=1, steps=steps)
    assert float(made.std()) < 0.4


def test_stems_are_made_as_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, churn and the corrector count, also beside what is known, where the coupling stays stable."""
    levels: list[float] = []

    def ideal(x: torch.Tensor, sigma: torch.Tensor, /) -> torch.Tensor:
        levels.append(float(sigma))
        return x * 0.04 / (0.04 + torch.as_tensor(sigma) ** 2)

    monkeypatch.setattr(Gmsdi, "prompted", lambda *_: ideal)
    how = Generation(7, "euler", churn=40.0, resample=2)
    churned = system(prior=prior())
    monkeypatch.setattr(churned.prior, "config", replace(CONFIG, generation=how))
    assert churned.steps == 7
    for known in ({}, {"piano": 0.2 * torch.randn(1, 1024, generator=torch.Generator().manual_seed(0))}):
        levels.clear()
        made = churned.sample(["bass", "drums"], Context(known, {}, 1.0), seed=1, steps=churned.steps)
        assert len(levels) == 14
        assert levels[0] == levels[1] == pytest.approx(2**0.5)
        assert 0.05 < float(made.std()) < 0.4


def test_stems_of_silence_are_silent() -> None:
    wave = 0.1 * torch.randn(2, 1, 1024)
    wave[0, :, :700] = 0
    wave[1] = 0
    for extracted in ((), WORD_NAMES):
        stems, _ = system(extracted=extracted).separate(wave, 2)
        assert not stems[0, :, :, :500].any() and not stems[1].any() and stems[0].any()
        torch.testing.assert_close(stems.sum(1), wave, atol=1e-6, rtol=0)


def test_known_spans_are_kept() -> None:
    where = torch.arange(1024) < 400
    known = 0.1 * torch.randn(1, 1024)
    made = system().sample(["bass"], Context({}, {"bass": (known, where)}, 1.0), seed=1, steps=4)
    torch.testing.assert_close(made[0, :, :400], known[:, :400], atol=1e-6, rtol=0)


def test_through_the_public_interface(tmp_path: Path) -> None:
    folder = checkpoint.save_model(tmp_path / "words", prior())
    model = stemwise.load(folder, stems=["electric guitar", "bass drums"], guidance=2.0, gamma=0.5)
    assert model.stems == ("electric-guitar", "bass-drums")
    song = (0.1 * np.random.default_rng(0).standard_normal((1, 4000))).astype(np.float32)
    stems = model.separate(song, rate=8000, evaluations=2)
    np.testing.assert_allclose(stems.data[0].sum(0).numpy(), song, atol=1e-5)
    assert model.generate(0.2, steps=2).names == model.stems
    made = model.accompany({"bass-drums": song}, ["electric-guitar"], rate=8000, steps=2)
    np.testing.assert_array_equal(made["bass-drums"][0].numpy(), song)
    assert stemwise.load(folder).stems == ("bass", "drums", "electric-guitar", "piano")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"does not know the word 'bas' \(did you mean 'bass'\?\)"):
        prior().vocabulary.described(["bas"])
    with pytest.raises(QueryError, match="no words"):
        described([" "], WORDS)
    with pytest.raises(QueryError, match="bass is wanted and unwanted"):
        system().asked(negative=["bass"])
    with pytest.raises(QueryError, match="wanted and unwanted"):
        Prompt(("bass",), ("bass",))
    with pytest.raises(QueryError, match="asked for twice"):
        described(["bass", "bass"], WORDS)
    for gamma in (0.0, 1e-200, 1e155, float("inf"), float("nan")):
        with pytest.raises(QueryError, match="give 1e-6 to 1e6"):
            system(gamma=gamma)
        with pytest.raises(QueryError, match="give 1e-6 to 1e6"):
            system(gamma_mixture=gamma)
    with pytest.raises(QueryError, match="does not know the word 'kazoo'"):
        system().asked(negative=["kazoo"])
    folder = checkpoint.save_model(tmp_path / "words", prior())
    with pytest.raises(QueryError, match="guidance is nan; give a finite number"):
        stemwise.load(folder, guidance=float("nan"))
    with pytest.raises(QueryError, match="takes no phase"):
        stemwise.load(folder, phase="vocoder")
    with pytest.raises(ValueError, match="context"):
        GmsdiConfig(net=replace(NET, context=0))
