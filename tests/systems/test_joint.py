"""The joint system: its likelihoods against closed forms, and what every verb promises, with networks of random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.checkpoint import build, build_config, save_model
from stemwise.diffusion import dpmpp_2m, euler, karras, last, sample, seeded
from stemwise.errors import ModelError, QueryError
from stemwise.loading import load
from stemwise.metrics.separation import si_sdr_improvement
from stemwise.nets.unet1d import UNet1dConfig
from stemwise.query import Query
from stemwise.stems import Audio
from stemwise.systems.joint import Joint, evaluations_of, likelihood, likelihood_of, posterior
from stemwise.systems.likelihoods import (
    AdaptiveProjection,
    Dirac,
    GaussianExact,
    Projection,
    SpectralProjection,
    gaussian_variance,
)
from stemwise.systems.msdm import (
    PUBLISHED_ACCOMPANIMENT,
    PUBLISHED_DIRAC,
    PUBLISHED_GENERATION,
    Generation,
    Msdm,
    MsdmConfig,
    Separation,
    WeakMsdm,
)
from stemwise.systems.system import Context

STDS = (0.2, 0.05, 0.1, 0.02)
NET = UNet1dConfig(2, 8, 2, (1, 1, 2), (2, 2), (1, 1), (False, True), 2, 4, 1, 4)
RATE = 8000
RECIPES = Path(__file__).parents[2] / "recipes"


def config(sources: int = 2, **changes: Any) -> MsdmConfig:
    net = UNet1dConfig(**{**NET.__dict__, "sources": sources})
    how = Separation(steps=3, sigma_max=0.3, resample=1)
    return MsdmConfig(("bass", "drums"), RATE, 2048, net=net, separation=how, **changes)


def joint(sources: int = 2) -> Joint:
    torch.manual_seed(0)
    prior = Msdm(config()) if sources == 2 else WeakMsdm(config(1))
    return Joint.of(prior.eval())


def ideal(x: Tensor, sigma: Tensor) -> Tensor:
    power = torch.tensor(STDS, dtype=x.dtype)[:, None] ** 2
    return power / (power + sigma**2) * x


def test_ten_projected_steps_come_near_wiener_where_the_published_rule_needs_hundreds() -> None:
    """Gain of the loudest of four Gaussian stems: Wiener 0.756, the published Dirac rule 0.63 without churn."""
    mix = torch.ones(1, 1, dtype=torch.float64)
    for steps, least in ((10, 0.70), (30, 0.70)):
        made = Projection(gaussian_variance(*STDS)).condition(ideal, mix, 4, euler)
        x = last(
            sample(
                made.denoiser, karras(steps, 1e-4, 1.0), lambda s: torch.zeros(s).double(), constraint=made.constraint
            )
        ).x
        assert float(x.sum()) == pytest.approx(1.0, abs=1e-9)
        assert least < float(x[0, 0, 0]) < 0.78


@settings(max_examples=20, deadline=None)
@given(steps=st.integers(2, 12), seed=st.integers(0, 99), gamma=st.floats(0.05, 1.0))
def test_the_exact_gaussian_never_diverges(steps: int, seed: int, gamma: float) -> None:
    mix = seeded(seed)((1, 16))
    made = GaussianExact(gamma).condition(ideal, mix, 4, euler)
    levels = karras(steps, 1e-3, 1.0)
    x = last(sample(made.denoiser, levels, seeded(seed + 1), constraint=made.constraint, step=made.step)).x
    assert float(x.abs().max()) < 10


@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 6), seed=st.integers(0, 99), loud=st.floats(0.1, 5.0))
def test_projected_stems_sum_to_the_mixture_whatever_the_network_says(steps: int, seed: int, loud: float) -> None:
    mix = seeded(seed)((2, 64))
    made = Projection(gaussian_variance(loud, 1.0, 0.5, 0.1)).condition(lambda x, s: (3 * x).sin(), mix, 4, dpmpp_2m)
    x = last(sample(made.denoiser, karras(steps, 1e-2, 1.0), seeded(1), constraint=made.constraint, step=made.step)).x
    torch.testing.assert_close(x.sum(1), mix, atol=1e-5, rtol=1e-5)


class Blocks:
    """Four Gaussian stems, independent from block to block, with a spectrum for every block; their ideal denoiser."""

    def __init__(self, power: Tensor) -> None:
        self.power, self.samples = power, 2 * (power.shape[-1] - 1)  # (stem, block, bin)
        white = seeded(1)((1, 4, power.shape[1] * self.samples))
        self.truth = self.filtered(white, power.sqrt())
        self.mix = self.truth.sum(1)

    def filtered(self, x: Tensor, gain: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x.unflatten(-1, (-1, self.samples)))
        return torch.fft.irfft(spectrum * gain, n=self.samples).flatten(2)

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor:
        return self.filtered(x, self.power / (self.power + sigma**2))

    def improvement(self, how: Separation) -> float:
        made = posterior(self, likelihood(how, 4, rate=RATE), how, self.mix, 4, how.steps, seeded(0))
        return self.score(made)

    def best(self) -> float:
        wiener = self.filtered(self.mix[:, None].expand_as(self.truth), self.power / self.power.sum(0))
        return self.score(wiener)

    def score(self, made: Tensor) -> float:
        """SI-SDR over the mixture's in dB, mean over the stems."""
        stems = zip(made[0], self.truth[0], strict=True)
        return sum(float(si_sdr_improvement(stem, truth, self.mix[0])) for stem, truth in stems) / 4


def jumping(blocks: int, samples: int, seed: int) -> Tensor:
    """Loudness of -20, -40 or -60 dB, drawn for every stem and block; the spectra are white."""
    steps = torch.randint(1, 4, (4, blocks, 1), generator=torch.Generator().manual_seed(seed))
    return (100.0**-steps).expand(-1, -1, samples // 2 + 1)


def overlapping(samples: int) -> Tensor:
    """Humps at a ninth, three ninths and so on of the spectrum, half of whose power lies in that of the next."""
    place, bins = torch.tensor([1.0, 3.0, 5.0, 7.0])[:, None] / 9, torch.linspace(0, 1, samples // 2 + 1)
    return 0.01 * (torch.exp(-(((bins - place) / 0.15) ** 2)) + 1e-3)[:, None]


TOYS = {
    "jumping": jumping(12, 1000, 0),
    "jumping otherwise": jumping(12, 1000, 1),
    "coloured": overlapping(12000),
    "both": jumping(12, 1000, 2) * 100 * overlapping(1000),
}


@pytest.mark.parametrize("name", TOYS)
def test_the_default_without_spectra_is_near_the_wiener_filter_and_above_300_published_evaluations(name: str) -> None:
    toy = Blocks(TOYS[name])
    assert evaluations_of(Separation()) <= 24
    ours, published = toy.improvement(Separation()), toy.improvement(PUBLISHED_DIRAC)
    assert ours > published + 1
    assert ours > toy.best() - 0.5


def test_a_prior_that_tells_no_powers_gets_the_projection_that_finds_them() -> None:
    made = likelihood_of(Separation(), Msdm(config()))
    assert isinstance(made, AdaptiveProjection)
    for name, kind in (("projection", SpectralProjection), ("adaptive", AdaptiveProjection)):  # of one that tells them
        assert isinstance(likelihood(Separation(name), 2, power=lambda time: torch.ones(2, time // 2 + 1)), kind)  # type: ignore[arg-type]
    mix = seeded(0)((2, 2048))
    conditioned = made.condition(lambda x, s: (3 * x).sin(), mix, 2, euler)
    found = conditioned.denoiser(seeded(1)((2, 2, 2048)), torch.tensor(0.1))
    torch.testing.assert_close(found.sum(1), mix, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sources", [1, 2])
def test_separated_windows_sum_and_equal_channels_stay_equal(sources: int) -> None:
    wave = 0.1 * torch.randn(1, 1, 2048, generator=torch.Generator().manual_seed(1)).expand(2, -1, -1)
    stems, lacking = joint(sources).separate(wave, 3)
    assert stems.shape == (2, 2, 1, 2048)
    assert lacking.shape == wave.shape
    torch.testing.assert_close(stems.sum(1), wave, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(stems[0], stems[1], atol=1e-6, rtol=1e-5)


def test_independent_networks_give_the_same_batched_as_one_by_one() -> None:
    prior = joint(1).prior
    x, sigma = torch.randn(2, 2, 2048), torch.tensor([0.3, 0.05])
    one_by_one = prior(x, sigma).detach()
    with torch.no_grad():
        torch.testing.assert_close(prior(x, sigma), one_by_one, atol=1e-6, rtol=1e-5)
        for parameter in prior.parameters():
            parameter.mul_(0.9)  # the batched weights are views: they must follow
        changed = prior(x, sigma)
    torch.testing.assert_close(changed, prior(x, sigma).detach(), atol=1e-6, rtol=1e-5)


def test_independent_networks_lowered_after_an_evaluation_are_evaluated_lower() -> None:
    prior, lowered, x, sigma = joint(1).prior, joint(1).prior, torch.randn(1, 2, 2048), torch.tensor([0.3])
    lowered.lower(torch.bfloat16)
    with torch.no_grad():
        before = prior(x, sigma)
        prior.lower(torch.bfloat16)
        assert torch.equal(prior(x, sigma), lowered(x, sigma))
    assert not torch.equal(prior(x, sigma), before)


def test_independent_networks_are_stacked_with_no_more_than_one_of_their_tensors_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = joint(1).prior
    sizes, made = [p.untyped_storage().nbytes() for p in prior.parameters()], []
    most, stack = 0, torch.stack

    def watched(tensors: list[Tensor], dim: int = 0) -> Tensor:
        nonlocal most
        out = stack(tensors, dim)
        made.append(out)  # all of them are kept
        alive = [*prior.parameters(), *made]
        most = max(most, sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive}.values()))
        return out

    monkeypatch.setattr(torch, "stack", watched)
    with torch.no_grad():
        prior(torch.randn(1, 2, 2048), torch.tensor([0.3]))
    assert made
    assert most <= sum(sizes) + 2 * max(sizes)


def test_what_is_given_stays_and_the_rest_is_seeded() -> None:
    system, drums = joint(), 0.1 * torch.randn(1, 2048)
    where = torch.arange(2048) < 700
    signal = 0.1 * torch.randn(1, 2048)
    context = Context({"drums": drums}, {"bass": (signal, where)}, 0.1)
    made = system.sample(["bass"], context, seed=1, steps=3)
    assert made.shape == (1, 1, 2048)
    assert torch.equal(made[0, 0, :700], signal[0, :700])
    assert torch.equal(made, system.sample(["bass"], context, seed=1, steps=3))
    assert not torch.equal(made, system.sample(["bass"], context, seed=2, steps=3))


def test_every_verb_works_with_a_model_folder(tmp_path: Path) -> None:
    """Stereo at another rate: each channel is separated by itself; new stems are mono."""
    torch.manual_seed(0)
    model = load(save_model(tmp_path / "msdm", Msdm(config())), device="cpu")
    song = (0.1 * np.random.default_rng(0).standard_normal((2, 12000))).astype(np.float32)
    stems = model.separate(song, rate=11025)
    assert (stems.names, stems.data.shape) == (("bass", "drums"), (1, 2, 2, 12000))
    torch.testing.assert_close(stems.data.sum(1)[0], torch.from_numpy(song), atol=1e-6, rtol=1e-5)
    assert model.evaluations == 3
    made = model.generate(0.5, steps=2)
    assert made.data.shape == (1, 2, 1, 4000)
    band = model.accompany({"drums": song}, ["bass"], rate=11025, steps=2)
    assert torch.equal(band["drums"][0], torch.from_numpy(song))
    edited = model.edit(stems, replace=["bass"], span=(0.3, 0.6), steps=2)
    assert edited.names == ("bass'", "drums")
    outside = torch.arange(12000) / 11025 < 0.29
    assert torch.equal(edited.mix()[..., outside], stems.mix()[..., outside])


@pytest.mark.parametrize(
    ("how", "evaluations"),
    [
        (Separation(steps=4), 4),
        (Separation(rule="heun", steps=4), 7),
        (Separation(rule="dpm2_ancestral", steps=4), 7),
        (Separation("gaussian-exact", "heun", steps=4), 4),
        (Separation(steps=4, resample=2), 8),
        (Separation(rule="heun", steps=4, resample=2), 14),
    ],
)
def test_the_evaluations_that_are_told_and_allowed_are_those_that_are_spent(how: Separation, evaluations: int) -> None:
    system, spent = joint(), []
    system.prior.register_forward_hook(lambda *_: spent.append(1))
    system = replace(system, separation=how, likelihood=likelihood_of(how, system.prior))
    mix = torch.randn(1, 1, 2048)
    assert system.evaluations == evaluations
    system.separate(mix, system.evaluations)
    assert len(spent) == evaluations
    for allowed in (1, 2, 5):
        spent.clear()
        system.separate(mix, allowed)
        assert 1 <= len(spent) <= allowed


def test_a_likelihood_can_be_asked_for_and_brings_what_was_published_of_it(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "msdm", Msdm(config()))
    for name, evaluations in (("dirac", 300), ("gaussian", 300), ("even", 12), ("projection", 3)):
        assert load(folder, "cpu", likelihood=name).evaluations == evaluations
    weak, dirac = joint(1).asked(likelihood="dirac"), joint().asked(likelihood="dirac")
    assert isinstance(dirac.likelihood, Dirac)
    assert dirac.separation == PUBLISHED_DIRAC
    assert weak.separation == replace(PUBLISHED_DIRAC, churn=40.0)
    with pytest.raises(
        QueryError, match="unknown likelihood 'dirak'; choose dirac, gaussian, gaussian-exact, even, proj"
    ):
        load(folder, "cpu", likelihood="dirak")
    with pytest.raises(QueryError, match="the model band takes no likelihood"):
        load("band", "cpu", likelihood="dirac")


@pytest.mark.parametrize(("name", "churn"), [("msdm-slakh", 20.0), ("msdm-weak-slakh", 40.0)])
def test_the_recipes_hold_the_published_constants(name: str, churn: float) -> None:
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    made = build_config(recipe["model"]["type"], recipe["model"]["config"])
    assert replace(made.separation, drop="") == replace(PUBLISHED_DIRAC, churn=churn)
    assert (made.generation, made.accompaniment) == (PUBLISHED_GENERATION, PUBLISHED_ACCOMPANIMENT)


def test_stems_beside_others_have_steps_and_churn_of_their_own(tmp_path: Path) -> None:
    """And a model that was stored before they had has the defaults."""
    made = config(generation=Generation(3, churn=0.0), accompaniment=Generation(5, churn=2.0))
    folder = save_model(tmp_path / "msdm", Msdm(made))
    model, calls = load(folder, "cpu"), []
    model.system.prior.register_forward_hook(lambda *_: calls.append(1))
    model.generate(0.1)
    assert len(calls) == 3
    model.accompany({"drums": np.zeros((1, 800), np.float32)}, ["bass"], rate=RATE)
    assert len(calls) == 3 + 5
    song = Audio.of({"bass": 0.1 * torch.randn(1, 800), "drums": torch.zeros(1, 800)}, RATE)
    model.edit(song, replace=["bass"])
    assert len(calls) == 3 + 5 + 5
    stored = json.loads((folder / "config.json").read_text())
    del stored["config"]["accompaniment"], stored["config"]["generation"]["steps"]
    (folder / "config.json").write_text(json.dumps(stored))
    again = load(folder, "cpu")
    assert (again.steps, again.steps_beside) == (24, 24)


def test_the_churn_beside_others_is_that_of_the_accompaniment() -> None:
    torch.manual_seed(0)
    prior = Msdm(config()).eval()
    quiet, churned = Generation(2, "euler", churn=0.0), Generation(2, "euler", churn=2.0)
    heard = Context({"drums": 0.1 * torch.randn(1, 2048)}, {}, 0.1)

    def made(generation: Generation, accompaniment: Generation | None, context: Context) -> Tensor:
        system = replace(Joint.of(prior), generation=generation, accompaniment=accompaniment)
        return system.sample(["bass"], context, seed=0, steps=2)

    assert torch.equal(made(quiet, churned, heard), made(churned, None, heard))
    assert not torch.equal(made(quiet, churned, heard), made(quiet, None, heard))
    nothing = Context({}, {}, 0.1)
    assert torch.equal(made(quiet, churned, nothing), made(quiet, None, nothing))


def test_training_and_its_mistakes() -> None:
    for kind, sources in (("msdm", 2), ("msdm-weak", 1)):
        module = build(kind, {"stems": ["bass", "drums"], "window": 2048, "net": {**NET.__dict__, "sources": sources}})
        batch = 0.1 * torch.randn(2, 2, 2, 2048)
        loss = module.loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is not None for p in module.parameters())
        with pytest.raises(ModelError, match=r"net\.sources is"):
            build(kind, {"stems": ["bass", "drums"], "window": 2048, "net": {**NET.__dict__, "sources": 3 - sources}})
    with pytest.raises(ModelError, match="must be a multiple of"):
        build("msdm", {"window": 1000})
    with pytest.raises(ModelError, match="choose from bass"):
        build("msdm", {"separation": {"drop": "violin"}})


def test_questions_it_cannot_answer() -> None:
    system = joint()
    assert "not violin" in str(system.answers(Query({}, frozenset({"violin"}))))
    heard = Audio.of({"drums": torch.zeros(1, 8)}, RATE)
    assert system.answers(Query({frozenset({"drums"}): heard}, frozenset({"bass"}))) is None
    with pytest.raises(QueryError, match="use the rule euler or heun"):
        likelihood_of(Separation("dirac", "dpmpp_2m"), Msdm(config()))
