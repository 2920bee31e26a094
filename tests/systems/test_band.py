"""The band prior and its system: what the slots mean, what training asks, sums, reproducible sampling."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch

from stemwise.errors import ModelError
from stemwise.model import Model
from stemwise.nets.bandnet import BandNetConfig, TransformerLayer
from stemwise.query import Query
from stemwise.stems import Audio
from stemwise.systems import band as band_module
from stemwise.systems import band_system
from stemwise.systems.band import ABSENT, CLEAN, Band, BandConfig, draw_levels, loudness, remixed, rotate
from stemwise.systems.band_system import VIEWS, BandSystem, Context

NET = BandNetConfig(patches=((64, 4), (64, 8)), widths=(8, 8), depths=(1, 1), attention_heads=2, embedding=16, layers=1)
CONFIG = BandConfig(bins=128, frames=16, net=NET)
RATE = CONFIG.rate


@pytest.fixture(scope="module")
def prior() -> Band:
    torch.manual_seed(0)
    band = Band(CONFIG).eval()
    for parameter in band.parameters():  # zero-initialised layers would hide mistakes
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return band


def state(prior: Band, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, 2, CONFIG.frames, CONFIG.bins, generator=generator)


def test_an_absent_slot_is_not_read(prior: Band) -> None:
    sigma = torch.full((2, 6), 0.5)
    sigma[:, 1] = ABSENT
    x, y = state(prior), state(prior)
    y[:, 1] = 7.0
    with torch.no_grad():
        torch.testing.assert_close(prior(x, sigma), prior(y, sigma))


def test_a_clean_slot_is_returned(prior: Band) -> None:
    sigma = torch.full((2, 6), 0.5)
    sigma[:, 2] = CLEAN
    x = state(prior)
    with torch.no_grad():
        torch.testing.assert_close(prior(x, sigma)[:, 2], x[:, 2], atol=0.1, rtol=0.02)


def test_no_noise_passes_where_a_stem_has_no_power() -> None:
    """Of a network that says nothing, the noise of a free stem is left as far as its power allows; what is heard stays."""
    band = Band(CONFIG)
    for linear in band.net.write.maps:
        torch.nn.init.zeros_(linear.weight)
    band.power[0, 40:] = 0
    sigma = torch.full((2, 6), 0.5)
    sigma[:, -1], sigma[:, 2] = ABSENT, CLEAN
    x = state(band)
    with torch.no_grad():
        estimate = band.estimate(x, sigma)
    share = CONFIG.sigma_data**2 / (CONFIG.sigma_data**2 + 0.25)
    torch.testing.assert_close(estimate[:, 0, ..., :40], share * x[:, 0, ..., :40])
    assert not estimate[:, 0, ..., 40:].any()
    torch.testing.assert_close(estimate[:, 2], x[:, 2], atol=1e-3, rtol=1e-3)


def test_noise_passes_as_far_as_the_network_expects_sound() -> None:
    """Wiener's share at the power that it says, a factor of the usual."""
    band = Band(CONFIG)
    patches = [patch for _, patch in CONFIG.net.patches]
    for linear, patch in zip(band.net.write.maps, patches, strict=True):
        torch.nn.init.zeros_(linear.weight)
        linear.bias.data.view(5, 2, band.net.OUTPUTS, patch)[1, 0, -1] = math.log(9)
    sigma = torch.full((2, 6), 0.5)
    sigma[:, -1] = ABSENT
    x = state(band)
    with torch.no_grad():
        estimate = band.estimate(x, sigma)
    power = CONFIG.sigma_data**2
    torch.testing.assert_close(estimate[:, 1, 0], 9 * power / (9 * power + 0.25) * x[:, 1, 0])
    torch.testing.assert_close(estimate[:, 1, 1], power / (power + 0.25) * x[:, 1, 1])


def test_training_measures_the_power_of_every_stem_and_use_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band_module, "MOMENTUM", 0.5)
    band = Band(CONFIG)
    batch = torch.randn(4, 5, 2, CONFIG.window, generator=torch.Generator().manual_seed(0))
    batch[:, 0] *= 0.1
    before = band.power.clone()
    with torch.no_grad():
        band.eval().loss(batch, torch.Generator().manual_seed(0))
        assert torch.equal(band.power, before)
        band.train()
        for _ in range(20):
            band.loss(batch, torch.Generator().manual_seed(0))
    quiet, loud = band.power[0], band.power[1]
    torch.testing.assert_close(quiet / loud, torch.full_like(quiet, 0.01), rtol=0.3, atol=0)


def test_an_unheard_mixture_is_the_sum_of_the_stems(prior: Band) -> None:
    sigma = torch.full((2, 6), 0.5)
    with torch.no_grad():
        estimate = prior(state(prior), sigma)
    torch.testing.assert_close(estimate[:, -1], estimate[:, :-1].sum(1))


def test_the_loss_teaches_and_repeats(prior: Band) -> None:
    torch.manual_seed(1)
    band = Band(CONFIG)
    batch = 0.1 * torch.randn(4, 5, 2, CONFIG.window)

    def loss() -> torch.Tensor:
        return band.loss(batch, torch.Generator().manual_seed(3))

    first = loss()
    assert torch.equal(first, loss())
    optimizer = torch.optim.Adam(band.parameters(), 1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < first - 0.02


def test_training_covers_every_task() -> None:
    levels = draw_levels(4000, 5, torch.Generator().manual_seed(0))
    stems, mixture = levels[:, :5], levels[:, 5]
    separating = (mixture <= CLEAN).float().mean()
    assert 0.71 < separating < 0.81
    assert sorted(mixture.unique().tolist()) == pytest.approx([CLEAN, ABSENT])
    assert ((stems > 1.01 * CLEAN).any(1)).all(), "every window asks for at least one stem"
    accompanying = ((stems < 1.01 * CLEAN).any(1) & (mixture == ABSENT)).float().mean()
    assert accompanying > 0.12
    assert (~(stems < 1.01 * CLEAN).any(1) & (mixture == ABSENT)).float().mean() > 0.05


@pytest.mark.parametrize(("mixture", "best"), [(ABSENT, 0.4), (CLEAN, 0.0)])
def test_generation_learns_the_mean_and_separation_the_median(
    mixture: float, best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stem that plays in two windows of five, before anything else is known."""
    levels = torch.full((5, 6), ABSENT)
    levels[:, -1] = mixture
    monkeypatch.setattr(band_module, "draw_levels", lambda *_: levels)
    band = Band(CONFIG).eval()
    batch = torch.randn(1, 5, 2, CONFIG.window, generator=torch.Generator().manual_seed(0)).repeat(5, 1, 1, 1)
    batch[2:, 0] = 0
    batch /= loudness(batch.sum(1))[:, None, None, None]
    stems = band.encode(batch)

    def loss(share: float) -> float:
        guess = torch.cat([share * stems[:1, :1].expand(5, -1, -1, -1, -1), stems[:, 1:]], 1)
        monkeypatch.setattr(band, "forward", lambda *_: torch.cat([guess, guess.sum(1, keepdim=True)], 1))
        return float(band.loss(batch, torch.Generator().manual_seed(0)))

    shares = [k / 20 for k in range(21)]
    assert min(shares, key=loss) == pytest.approx(best, abs=0.051)


@pytest.mark.parametrize(("level", "least", "most"), [(0.2, 0.5, 1.0), (0.02, 0.0, 0.1)])
def test_a_quiet_stem_counts_but_for_one_that_rests(
    level: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To miss a stem at -14 dB costs more than half of what a loud one costs (in SI-SDR as much); at -34 dB it is silence."""
    levels = torch.full((1, 6), ABSENT)
    levels[:, -1] = CLEAN
    monkeypatch.setattr(band_module, "draw_levels", lambda *_: levels)
    band = Band(CONFIG).eval()
    batch = torch.randn(1, 5, 2, CONFIG.window, generator=torch.Generator().manual_seed(0))
    batch[:, 0] *= level
    stems = band.encode(batch / loudness(batch.sum(1)))

    def loss(missed: int) -> float:
        guess = stems.clone()
        guess[:, missed] = 0
        monkeypatch.setattr(band, "forward", lambda *_: torch.cat([guess, guess.sum(1, keepdim=True)], 1))
        return float(band.loss(batch, torch.Generator().manual_seed(0)))

    assert least < loss(0) / loss(1) < most


def test_every_weight_is_trained(prior: Band) -> None:
    """Else the processes of a distributed training wait for each other's gradients."""
    band = copy.deepcopy(prior).train()
    batch = torch.randn(2, 5, 2, CONFIG.window, generator=torch.Generator().manual_seed(0))
    band.loss(batch, torch.Generator().manual_seed(0)).backward()
    assert [name for name, parameter in band.named_parameters() if parameter.grad is None] == []


def test_a_layer_hears_the_whole_window_and_begins_as_nothing() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2)
    x = torch.randn(1, 6, 5, 8)
    assert torch.equal(layer(x), x)
    torch.nn.init.normal_(layer.out.weight)
    moved = x.clone()
    moved[:, 5, 4] *= -1
    heard = (layer(moved) - layer(x)).abs().amax(-1)[0]
    assert heard.min() > 1e-5


def test_only_separating_windows_are_remixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stem of them stays its own stem; the others, which learn how stems fit, keep theirs."""
    monkeypatch.setattr(band_module, "REMIXED", 0.5)
    batch = torch.arange(60.0).view(12, 5, 1, 1).expand(-1, -1, 2, 4)
    separating = torch.arange(12) < 8
    mixed = remixed(batch, separating, torch.Generator().manual_seed(0))
    assert torch.equal(mixed[8:], batch[8:])
    assert torch.equal(mixed[..., 0, 0] % 5, batch[..., 0, 0] % 5)
    moved = (mixed != batch)[:8].flatten(2).any(2).any(1).sum()
    assert 1 <= moved < 8


def test_mid_and_side_are_orthonormal() -> None:
    wave = torch.randn(3, 2, 50)
    torch.testing.assert_close(rotate(rotate(wave)), wave)
    torch.testing.assert_close(loudness(rotate(wave)), loudness(wave))


@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_separated_stems_sum_to_the_window(prior: Band, evaluations: int) -> None:
    wave = 0.3 * torch.randn(2, 2, CONFIG.window)
    stems, left = BandSystem(prior).separate(wave, evaluations)
    assert stems.shape == (2, 5, 2, CONFIG.window)
    torch.testing.assert_close(stems.sum(1), wave, atol=1e-5, rtol=1e-4)
    assert left.shape == wave.shape


@pytest.mark.parametrize(("side", "lower"), [*VIEWS, (1, 1), (-1, 0)])
def test_every_view_is_of_the_same_window(side: int, lower: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that gives every stem a fifth of what it hears leaves nothing of the window over, however it was played."""
    monkeypatch.setattr(band_system, "VIEWS", ((side, lower),))
    torch.manual_seed(0)
    band = Band(CONFIG)
    for linear in band.net.write.maps:
        torch.nn.init.zeros_(linear.weight)
    spectrum = torch.zeros(1, 2, CONFIG.window // 2 + 1, dtype=torch.complex64)
    spectrum[..., : CONFIG.window // 8] = torch.randn(1, 2, CONFIG.window // 8, dtype=torch.complex64)
    wave = torch.fft.irfft(spectrum)
    wave = 0.2 * wave / wave.std()
    lacking = BandSystem(band).separate(wave)[1]
    assert lacking.abs().max() < 1e-2


def test_separation_may_hear_more_at_once_than_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    system = BandSystem(Band(dataclasses.replace(CONFIG, heard_frames=48)).eval())
    model = Model("own", system, torch.device("cpu"), Path("own"), {})
    heard: list[tuple[int, ...]] = []
    estimate = system.prior.estimate

    def watched(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        heard.append((len(x), x.shape[-2]))
        return estimate(x, sigma)

    monkeypatch.setattr(system.prior, "estimate", watched)
    song = 0.1 * torch.randn(2, 20_000)
    stems = model.separate(song, rate=RATE)
    torch.testing.assert_close(stems.data[0].sum(0), song, atol=1e-5, rtol=1e-4)
    assert set(heard) == {(1, 48)}, "long windows come one by one"
    for frames, window in ((20, 16), (15 * 128, 16), (15 * 128 + 1, 18), (30 * 128, 32), (47 * 128 + 1, 48)):
        heard.clear()
        model.separate(song[:, :frames], rate=RATE)
        assert {seen for _, seen in heard} == {window}, "no longer than the song needs"
    heard.clear()
    model.generate(0.05, steps=1)
    assert {frames for _, frames in heard} == {CONFIG.frames}


def test_separation_scales_with_its_input(prior: Band) -> None:
    wave = 0.3 * torch.randn(1, 2, CONFIG.window)
    system = BandSystem(prior)
    torch.testing.assert_close(system.separate(0.01 * wave)[0], 0.01 * system.separate(wave)[0], atol=1e-6, rtol=1e-3)


def test_silence_separates_into_silence(prior: Band) -> None:
    stems, _ = BandSystem(prior).separate(torch.zeros(1, 2, CONFIG.window))
    assert stems.abs().max() < 1e-3


def test_sampling_repeats_by_seed_and_hears_its_context(prior: Band) -> None:
    system = BandSystem(prior)
    drums = {"drums": 0.2 * torch.randn(2, CONFIG.window)}
    answers = [
        system.sample(["bass", "piano"], Context(context, {}, 0.2), seed=seed, steps=4)
        for context, seed in ((drums, 1), (drums, 1), (drums, 2), ({}, 1))
    ]
    assert answers[0].shape == (2, 2, CONFIG.window)
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])
    assert not torch.allclose(answers[0], answers[3])


def test_everything_happens_where_the_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that refuses to meet tensors of another: no graphics card is needed to see it."""
    band = Band(CONFIG).to("meta")
    monkeypatch.setattr(
        band.net, "forward", lambda slots, *_: slots.new_zeros(len(slots), 5, 2, band.net.OUTPUTS, *slots.shape[-2:])
    )
    signal = torch.zeros(2, band.config.window, device="meta")
    held = torch.zeros(band.config.window, dtype=torch.bool, device="meta")
    system = BandSystem(band)
    context = Context({"drums": signal}, {"bass": (signal, held)}, 0.1)
    assert system.sample(("bass", "piano"), context, seed=0, steps=2).is_meta
    assert all(part.is_meta for part in system.separate(signal[None], 2))


def test_answers_come_in_the_order_asked_for(prior: Band) -> None:
    system = BandSystem(prior)
    one = system.sample(["piano", "bass"], Context({}, {}, 0.1), seed=5, steps=3)
    other = system.sample(["bass", "piano"], Context({}, {}, 0.1), seed=5, steps=3)
    torch.testing.assert_close(one, other.flip(0))


def test_what_is_fixed_in_time_stays(prior: Band) -> None:
    system = BandSystem(prior)
    signal = 0.1 * torch.randn(2, CONFIG.window)
    where = torch.zeros(CONFIG.window, dtype=torch.bool)
    where[: CONFIG.window // 2] = True
    made = system.sample(["bass"], Context({}, {"bass": (signal, where)}, 0.1), seed=0, steps=3)[0]
    kept = (CONFIG.window // 2 // CONFIG.bins - 1) * CONFIG.bins
    torch.testing.assert_close(made[:, :kept], signal[:, :kept], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(made[:, -kept:], signal[:, -kept:], atol=1e-3)


def test_what_the_system_cannot_answer_has_a_reason(prior: Band) -> None:
    system = BandSystem(prior)
    one = Audio(("x",), torch.zeros(1, 1, 2, 8), 44100)
    assert system.answers(Query({}, frozenset({"bass"}))) is None
    assert "vocals" in str(system.answers(Query({}, frozenset({"vocals"}))))
    assert "sub-mix" in str(system.answers(Query({frozenset({"bass", "drums"}): one}, frozenset({"piano"}))))


@pytest.mark.parametrize("shape", [(1, 5, 2, 1000), (1, 5, 2, 8 * 128), (1, 5, 1, 7 * 128)])
def test_windows_that_do_not_fit_are_answered_with_what_does(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"set data\.channels=2 and, for example, data\.frames=896"):
        Band(CONFIG).loss(torch.zeros(shape), torch.Generator())


def test_a_configuration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="cover the 256 bins"):
        BandConfig(bins=256, frames=16, net=NET)
    with pytest.raises(ValueError, match="multiples of 2"):
        BandConfig(bins=128, frames=15, net=NET)
    with pytest.raises(ValueError, match="multiples of 2"):
        BandConfig(bins=128, frames=16, heard_frames=33, net=NET)
    with pytest.raises(ValueError, match="must not be below frames, 16"):
        BandConfig(bins=128, frames=16, heard_frames=8, net=NET)
    with pytest.raises(ValueError, match=r"net\.attention_heads must divide the last of net\.widths, 8"):
        BandConfig(bins=128, frames=16, net=dataclasses.replace(NET, attention_heads=3))
    assert math.isclose(CONFIG.window, 15 * 128)
