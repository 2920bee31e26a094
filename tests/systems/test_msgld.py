"""MSG-LD: recorded sampling and arrangement runs are replayed; the system answers every kind of question."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from published_msgld import UNET, close, tensors, unet
from stemwise.diffusion import (
    Constraint,
    Free,
    Known,
    NoiseSource,
    ancestral,
    dpmpp_2m,
    euler,
    from_alphas_cumprod,
    last,
    leading_timesteps,
    preserving,
    sample,
    tape,
)
from stemwise.errors import ModelError, QueryError
from stemwise.nets.unet_stems import UNetStemsConfig
from stemwise.query import Query
from stemwise.systems.msgld import LatentSampling, Msgld, MsgldConfig
from stemwise.systems.msgld_system import MsgldSystem
from stemwise.systems.system import Context
from tiny_msgld import CODEC, NET, tiny


@pytest.fixture(scope="module")
def published() -> Msgld:
    """The recorded U-Net; the codec takes no part in these runs."""
    prior = tiny()
    prior.net = unet("unet_tiny", UNET)
    return prior


def replay(
    prior: Msgld, case: str, steps: int, start: Tensor, mixture: Tensor, constraint: Constraint, noise: NoiseSource
) -> Tensor:
    """The states after every step of the published loop, x / sqrt(1 + sigma^2); it ends at the first level of the table."""
    eta, guidance = (float(part[-1]) for part in case.split("_"))
    table = prior.alphas_cumprod
    sigmas = from_alphas_cumprod(table, torch.cat([leading_timesteps(steps, 1000, 1), torch.zeros(1)]))[:-1]
    x = preserving(sigmas[0]).float() * start
    denoiser = prior.denoiser(mixture[:, 0], guidance)
    states = sample(denoiser, sigmas, noise, constraint=constraint, step=ancestral if eta else euler, x=x)
    return torch.stack([state.x / preserving(state.sigma).float() for state in states])


def cases(folder: str) -> list[str]:
    """All that were recorded of the end of a run, of which some have their path, too."""
    return sorted(name for name in tensors(f"{folder}/expected") if not name.startswith("path_"))


@pytest.mark.parametrize("case", cases("ddim"))
def test_recorded_runs(published: Msgld, case: str) -> None:
    inputs, expected = tensors("ddim/inputs"), tensors("ddim/expected")
    free = Free(tuple(inputs["x_T"].shape))
    found = replay(published, case, 10, inputs["x_T"], inputs["mixture"], free, tape(inputs["noise"]))
    close(found[-1], expected[case])
    for state, recorded in zip(found, expected.get(f"path_{case}", found), strict=True):
        close(state, recorded)


@pytest.mark.parametrize("case", cases("inpaint"))
def test_recorded_arrangements(published: Msgld, case: str) -> None:
    """Given stems are noised anew before every update; after the last one the published run leaves them as they are."""
    inputs = tensors("inpaint/inputs")
    known = torch.zeros(1, 4, 1, 1, 1, dtype=torch.bool)
    known[:, [0, 3]] = True

    def draws() -> Iterator[Tensor]:
        for given, fresh in zip(inputs["known_noise"], inputs["noise"]):
            yield given
            if case.startswith("eta1"):
                yield fresh

    found = replay(published, case, 5, inputs["x_T"], inputs["mixture"], Known(inputs["z"], known), tape(draws()))
    expected = tensors("inpaint/expected")
    close(found[-1, :, 1:3], expected[case][:, 1:3])
    for state, recorded in zip(found, expected.get(f"path_{case}", found), strict=True):
        close(state[:, 1:3], recorded[:, 1:3])


def test_what_was_recorded() -> None:
    """Nine ends and three paths: no case above is left out, and none has no path to compare with."""
    assert (len(cases("ddim")), len(cases("inpaint"))) == (6, 3)
    paths = [name for folder in ("ddim", "inpaint") for name in tensors(f"{folder}/expected") if "path_" in name]
    assert paths == ["path_eta0_scale1", "path_eta1_scale2", "path_eta1_scale0"]


def test_one_pass_where_the_scale_needs_one() -> None:
    prior = tiny()
    calls: list[int] = []
    prior.net.register_forward_hook(lambda *_: calls.append(1))
    mixture = torch.randn(1, 4, 32, 8)
    x, sigma = torch.randn(1, 4, 4, 32, 8), torch.tensor(0.5)
    for guidance, passes in ((0.0, 1), (1.0, 1), (2.0, 2)):
        calls.clear()
        prior.denoiser(mixture, guidance)(x, sigma)
        assert len(calls) == passes
    assert not torch.equal(prior.denoiser(mixture)(x, sigma), prior.denoiser(None)(x, sigma))


@pytest.mark.parametrize("guidance", [math.nan, math.inf])
def test_guidance_that_is_no_number_is_refused(guidance: float) -> None:
    with pytest.raises(QueryError, match=r"guidance is .*give a finite number"):
        MsgldSystem(tiny()).asked(guidance=guidance)


def test_the_mixtures_pyramid_is_computed_once_a_separation() -> None:
    prior = tiny()
    pyramid, calls = prior.net.pyramid, []
    prior.net.pyramid = lambda mixture: calls.append(1) or pyramid(mixture)  # type: ignore[method-assign, func-returns-value]
    for guidance in (1.0, 2.0):
        MsgldSystem(prior).asked(guidance=guidance).separate(0.1 * torch.randn(1, 1, 1024), 3)
        assert calls == [1]
        calls.clear()


def test_half_precision_separates_nearly_alike() -> None:
    """Only the network is in bfloat16, whose numbers have three digits."""
    wave, prior = 0.1 * torch.randn(1, 1, 1024), tiny()
    types: list[torch.dtype] = []
    prior.net.write.register_forward_hook(lambda _, __, out: types.append(out.dtype))
    full, half = (MsgldSystem(prior, precision).separate(wave, 2)[0] for precision in (torch.float32, torch.bfloat16))
    assert types == [torch.float32] * 2 + [torch.bfloat16] * 2 and half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.02 * float(full.abs().max()), rtol=0)


def test_training_in_half_precision_is_finite_with_and_without_recomputing() -> None:
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        prior = Msgld(MsgldConfig(codec=CODEC, net=replace(NET, recompute=recompute)))
        torch.nn.init.normal_(prior.net.write.weight, std=0.02)
        with torch.autocast("cpu", torch.bfloat16):
            loss = prior.loss(0.1 * torch.randn(1, 4, 1, 1024), torch.Generator().manual_seed(0))
        loss.backward()
        gradients = [p.grad for p in prior.net.parameters() if p.grad is not None]
        assert torch.isfinite(loss) and gradients and all(bool(torch.isfinite(g).all()) for g in gradients)
        found.append((loss.detach(), prior.net.encoder[0].convolution.weight.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0.02)


@pytest.mark.parametrize("time", [4096, 5000])
def test_masked_stems_sum_to_the_mixture(time: int) -> None:
    """Of any length: what is no whole number of latents is padded and trimmed."""
    system = MsgldSystem(tiny())
    wave = 0.1 * torch.randn(2, 1, time)
    stems, lacking = system.separate(wave, 3)
    assert stems.shape == (2, 4, 1, time)
    torch.testing.assert_close(stems.sum(1), wave, atol=1e-5, rtol=0)
    assert float(lacking.abs().max()) < 1e-4


def test_sharpness_says_how_far_a_louder_stem_takes_the_mixture() -> None:
    """Equal shares at 0, more to the louder at 1, still more at 2; negative ones are refused."""
    levels, mix = torch.zeros(1, 4, 64, 16), torch.randn(1, 4096)
    levels[:, 0] = 1.0
    energies = []
    for sharpness in (0.0, 1.0, 2.0):
        system = MsgldSystem(tiny(sharpness=sharpness))
        energies.append(float(system.waves(levels, mix)[0, 0].square().sum() / mix.square().sum()))
    assert energies[0] == pytest.approx(1 / 16, rel=0.05)
    assert energies[0] < energies[1] < energies[2]
    with pytest.raises(QueryError, match="sharpness is -1"):
        LatentSampling(sharpness=-1.0)


def test_the_vocoders_stems_are_their_own() -> None:
    system = MsgldSystem(tiny(), phase="vocoder")
    wave = 0.1 * torch.randn(1, 1, 4096)
    stems, lacking = system.separate(wave, 3)
    torch.testing.assert_close(stems.sum(1) + lacking, wave, atol=1e-6, rtol=0)
    assert float(lacking.abs().max()) > 1e-3


def test_equal_channels_give_equal_stems_and_runs_repeat() -> None:
    system = MsgldSystem(tiny())
    wave = 0.1 * torch.randn(1, 1, 4096).expand(2, 1, -1)
    stems, _ = system.separate(wave, 3)
    torch.testing.assert_close(stems[0], stems[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(system.separate(wave, 3)[0], stems, atol=0, rtol=0)


def test_what_is_known_changes_what_is_made() -> None:
    system = MsgldSystem(tiny())
    alone = system.sample(["bass"], Context({}, {}, 1.0), seed=1, steps=3)
    assert alone.shape == (1, 1, 4096)
    drums = {"drums": 0.1 * torch.randn(1, 4096)}
    beside = system.sample(["bass"], Context(drums, {}, 1.0), seed=1, steps=3)
    where = torch.arange(4096) < 1000
    continued = system.sample(["bass"], Context(drums, {"bass": (drums["drums"] * where, where)}, 1.0), seed=1, steps=3)
    assert not torch.equal(alone, beside)
    assert not torch.equal(beside, continued)
    again = system.sample(["bass"], Context({}, {}, 1.0), seed=1, steps=3)
    torch.testing.assert_close(alone, again, atol=0, rtol=0)


def test_rules_land_on_the_clean_estimate() -> None:
    """The last step goes to level 0, so one more draw of noise has no say in the result."""
    for rule in (dpmpp_2m, euler, ancestral):
        prior = tiny()
        sigmas = from_alphas_cumprod(prior.alphas_cumprod, leading_timesteps(3, 1000, 1))
        end = last(sample(prior.denoiser(None), sigmas, torch.randn, constraint=Free((1, 4, 4, 8, 8)), step=rule))
        torch.testing.assert_close(end.x, end.denoised, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [600, 1000])
def test_as_many_steps_as_there_are_levels_begin_at_the_noisiest(steps: int) -> None:
    """Levels of the table, not more than it has."""
    prior = tiny()
    seen: list[float] = []
    prior.net.forward = lambda x, time, mixture=None: seen.append(float(time[0])) or torch.zeros_like(x)  # type: ignore[method-assign, func-returns-value]
    MsgldSystem(prior).sample(["bass"], Context({}, {}, 1.0), seed=1, steps=steps)
    assert seen[0] >= 990 and len(seen) == min(steps, 999)


def test_models_that_were_never_trained_do_not_answer() -> None:
    """Their scale is 0, by which latents would be divided."""
    system = MsgldSystem(Msgld(MsgldConfig(codec=CODEC, net=NET)).eval())
    with pytest.raises(ModelError, match="scale of this model's latents is 0: it was never trained"):
        system.separate(torch.zeros(1, 1, 4096), 1)
    with pytest.raises(ModelError, match="it was never trained"):
        system.sample(["bass"], Context({}, {}, 1.0), seed=1, steps=1)


def test_latents_that_the_network_cannot_halve_are_refused() -> None:
    """33 latents of a window, a multiple of the codec's step but not of the network's two levels; kept ones, too."""
    prior = Msgld(MsgldConfig(codec=CODEC, net=NET))
    for batch in (torch.randn(1, 4, 1, 33 * CODEC.stride), torch.randn(1, 5, 4, 33, 8)):
        with pytest.raises(ModelError, match=r"33 x 8 positions .*must be multiples of 2: .*data\.frames"):
            prior.loss(batch, torch.Generator().manual_seed(0))


def test_weights_are_of_types_that_every_device_has() -> None:
    """Apple's GPUs refuse float64."""
    assert {value.dtype for value in (*tiny().parameters(), *tiny().buffers())} == {torch.float32}


def test_training_sets_the_scale_once_and_leaves_the_codec() -> None:
    prior = Msgld(MsgldConfig(codec=CODEC, net=NET))
    generator = torch.Generator().manual_seed(0)
    batch = 0.1 * torch.randn(2, 4, 1, 4096)
    loss = prior.loss(batch, generator)
    scale = float(prior.scale)
    loss.backward()
    assert scale > 0
    assert prior.net.write.weight.grad is not None
    assert all(p.grad is None for p in prior.codec.parameters())
    prior.loss(3 * batch, generator)
    assert float(prior.scale) == scale


def test_noise_and_velocity_are_two_names_of_one_estimate() -> None:
    """A network that says the velocity of an example, or its noise, is a denoiser that gives the example back."""
    for predicts in ("noise", "velocity"):
        prior = Msgld(MsgldConfig(codec=CODEC, net=NET, predicts=predicts))  # type: ignore[arg-type]
        clean, noise = torch.randn(2, 2, 4, *CODEC.shape(4096))
        level = prior.alphas_cumprod[400]
        signal, spread = level.sqrt(), (1 - level).sqrt()
        said = {"noise": noise, "velocity": signal * noise - spread * clean}[predicts]
        prior.net.forward = lambda x, time, mixture=None, said=said: said  # type: ignore[method-assign]
        sigma = spread / signal
        assert torch.allclose(prior.denoiser(None)(clean + sigma * noise, sigma), clean, atol=1e-4)


def test_kept_latents_train_as_their_stems_do() -> None:
    """Latents of every stem and, last, of the mixture; with a codec that is sure of them, both give the same loss."""
    prior = Msgld(MsgldConfig(codec=CODEC, net=NET))
    with torch.no_grad():
        prior.codec.vae.quant_conv.bias[CODEC.latent :] = -40.0  # the logarithm of the posterior's variance
        prior.codec.vae.quant_conv.weight[CODEC.latent :] = 0.0
    batch = 0.1 * torch.randn(2, 4, 1, 4096)
    kept = prior.submixes(batch)
    assert kept.shape == (2, 5, *CODEC.shape(4096))
    assert torch.allclose(kept[:, -1], prior.codec.encode(batch.sum(1)[:, 0]), atol=1e-5)
    prior.scale.fill_(0.5)
    prior.config = replace(prior.config, dropped=0.0)
    torch.nn.init.normal_(prior.net.write.weight, std=0.02)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 3)]
    torch.randn(kept.shape, generator=generators[1])  # what waves draw from the posterior
    first, second = (float(prior.loss(x, g).detach()) for x, g in zip((batch, kept), generators))
    assert first == pytest.approx(second, rel=1e-5)


def test_a_share_of_the_examples_is_at_the_noisiest_steps() -> None:
    """All of them at 1: the last fifth of the time steps, evenly."""
    seen: list[float] = []
    for share in (0.0, 1.0):
        prior = Msgld(MsgldConfig(codec=CODEC, net=NET, noisiest=share))
        prior.net.forward = lambda x, time, mixture=None: seen.extend(time.tolist()) or torch.zeros_like(x)  # type: ignore[method-assign, func-returns-value]
        prior.loss(torch.randn(400, 5, 4, *CODEC.shape(4096)[1:]), torch.Generator().manual_seed(0))
    anywhere, late = seen[:400], seen[400:]
    assert min(anywhere) < 50 and max(anywhere) > 950
    assert 800 <= min(late) < 820 and 980 < max(late) <= 999


def test_a_separation_may_take_the_first_estimate() -> None:
    """`extracting` steps for it, `steps` for everything else; trailing spacing begins at the noisiest level."""
    prior = tiny()
    seen: list[float] = []
    prior.net.forward = lambda x, time, mixture=None: seen.append(float(time[0])) or torch.zeros_like(x)  # type: ignore[method-assign, func-returns-value]
    system = MsgldSystem(prior, sampling=LatentSampling(steps=5, extracting=1, spacing="trailing"))
    assert (system.evaluations, system.steps) == (1, 5)
    system.separate(torch.randn(1, 1, 4096), system.evaluations)
    assert seen == [999]
    system.sample(["bass"], Context({}, {}, 1.0), seed=1, steps=system.steps)
    assert len(seen) == 1 + 5 and seen[1] == 999


def test_unanswerable_questions() -> None:
    system = MsgldSystem(tiny())
    assert "knows bass" in (system.answers(Query({}, frozenset({"flute"}))) or "")
    assert "no words" in (system.answers(Query({}, frozenset({"bass"}), words={"bass": "slap bass"})) or "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"net": UNetStemsConfig(stems=3, channels=32)}, "net.stems is 3"),
        (
            {"codec": CODEC, "net": UNetStemsConfig(channels=32, multipliers=(1, 1, 1, 1, 1), attention=(False,) * 5)},
            "multiples of 16",
        ),
        ({"codec": CODEC, "net": replace(NET, folded=3)}, "latents have 4 channels"),
        ({"codec": CODEC, "net": NET, "noisiest": 1.5}, "noisiest is 1.5"),
        ({"codec": CODEC, "net": NET, "dropped": -0.1}, "dropped is -0.1"),
    ],
)
def test_impossible_configurations_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MsgldConfig(**change)  # type: ignore[arg-type]
