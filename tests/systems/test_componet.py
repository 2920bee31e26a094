"""CompoNet: relations and how often they are drawn, what is told, what is frozen, and the one question in all its forms."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stemwise.errors import ModelError, QueryError
from stemwise.nets.relations import PromptTable, Words
from stemwise.query import Query
from stemwise.stems import Audio
from stemwise.systems.componet import Componet, ComponetConfig, ComponetSampling
from stemwise.systems.componet_base import AudioLdm2, AudioLdm2Config
from stemwise.systems.componet_prompts import TASKS, Sampler, number, prompt, subsets, task
from stemwise.systems.componet_system import ComponetSystem
from stemwise.systems.system import Context
from tiny_componet import BASE, MELVAE, STEMS, tiny


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stems(*levels: float) -> Tensor:
    """One window (1, stem, 1, time)."""
    return torch.tensor(levels)[None, :, None, None] * torch.randn(1, 4, 1, 4096, generator=generator())


# -- relations -----------------------------------------------------------------------------------------------------------


def test_every_pair_of_sets_has_one_task() -> None:
    a, ab, bc, c = (frozenset(names) for names in ("a", "ab", "bc", "c"))
    pairs = {
        (frozenset[str](), a): "generate",
        (a, c): "accompany",
        (ab, a): "separate",
        (a, ab): "add",
        (ab, bc): "replace",
        (a, a): "same",
    }
    assert {pair: task(*pair) for pair in pairs} == pairs


def test_prompts_in_both_forms() -> None:
    assert prompt(["bass", "drums"], ["vocals"]) == "in: bass_1, drums_1; out: vocals_1"
    assert prompt([], ["vocals"]) == "in:; out: vocals_1"
    assert prompt(["bass", "drums"], ["vocals"], "paper") == "bass, drums SEP vocals"
    assert prompt([], ["vocals"], "paper") == "SEP vocals"


def test_sets_and_numbers() -> None:
    assert torch.equal(number(subsets(4)), torch.arange(16))


def test_tasks_are_drawn_equally_often_and_only_of_stems_that_sound() -> None:
    """Also the empty input, which the released code never draws; within a task, all its pairs equally often."""
    sounding = torch.tensor([[True] * 4, [True, False, True, False]]).repeat_interleave(2000, 0)
    heard, wanted = Sampler(STEMS).draw(sounding, generator())
    drawn = [
        task(*(frozenset(name for name, there in zip(STEMS, side) if there) for side in pair))
        for pair in zip(heard.tolist(), wanted.tolist())
    ]
    counts = Counter(drawn[:2000])
    assert set(counts) == set(TASKS) and all(abs(count - 400) < 80 for count in counts.values())
    assert not (heard | wanted)[2000:, [1, 3]].any()
    assert set(drawn[2000:]) == {"generate", "accompany", "separate", "add"}  # replacing takes three stems
    separated = Counter(zip(number(heard[:2000]).tolist(), number(wanted[:2000]).tolist()))
    assert sum(drawn == "separate" for drawn in drawn[:2000]) / 50 == pytest.approx(
        separated[(15, 1)], abs=10
    )  # 50 pairs of sets of which one holds the other


def test_of_silence_something_is_drawn() -> None:
    _, wanted = Sampler(STEMS).draw(torch.zeros(3, 4, dtype=torch.bool), generator())
    assert wanted.any(1).all()


def test_words_are_attended_to_only_where_they_are_said() -> None:
    words, table = Words(4, (6, 10)), PromptTable(4, (6, 10), (2, 3))
    heard = torch.tensor([[True, False, False, False]] * 2)
    told = words(heard, ~heard, torch.tensor([True, False]))
    assert told.first.shape == (2, 9, 6) and told.second.shape == (2, 9, 10)
    assert told.second_mask.tolist() == [[1, 1, 0, 0, 0, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0, 0]]
    table.first.copy_(torch.arange(257.0)[:, None, None].expand(-1, 2, 6))
    found = table(heard, ~heard, torch.tensor([True, False])).first[:, 0, 0]
    assert found.tolist() == [1 * 16 + 14, 256]


# -- training ------------------------------------------------------------------------------------------------------------


def trained(model: Componet, batch: Tensor, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    for step in range(steps):
        model.train()
        model.loss(batch, generator(step)).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("recompute", [False, True])
def test_only_the_adapter_learns(recompute: bool) -> None:
    torch.manual_seed(0)
    model = Componet(ComponetConfig(BASE, recompute=recompute))
    model.base.scale.fill_(0.3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained(model, stems(0.1, 0.1, 0.1, 0.1).repeat(2, 1, 1, 1))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("control.") for name in changed)
    assert {"control.condition.weight", "control.middle.weight", "control.skips.0.weight"} <= changed
    assert not model.base.training and model.control.training


def test_recomputing_changes_nothing() -> None:
    losses, gradients = [], []
    for recompute in (False, True):
        model = tiny()
        model.config = replace(model.config, recompute=recompute)
        model.control.requires_grad_(True)
        loss = model.loss(stems(0.1, 0.1, 0.1, 0.1), generator())
        loss.backward()
        losses.append(loss.detach())
        gradients.append(model.control.condition.weight.grad)
    torch.testing.assert_close(losses[0], losses[1], atol=0, rtol=0)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_training_in_half_precision_is_finite_with_and_without_recomputing() -> None:
    found = []
    for recompute in (False, True):
        model = tiny()
        model.config = replace(model.config, recompute=recompute)
        model.control.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(stems(0.1, 0.1, 0.1, 0.1), generator())
        loss.backward()
        assert torch.isfinite(loss) and all(bool(torch.isfinite(p.grad).all()) for p in model.control.parameters())
        found.append((loss.detach(), model.control.condition.weight.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0.02)


def test_half_precision_separates_nearly_alike() -> None:
    """Only the networks are in bfloat16, whose numbers have three digits."""
    wave, model = 0.1 * torch.randn(1, 1, 4096), tiny()
    types: list[torch.dtype] = []
    model.base.unet.conv_out.register_forward_hook(lambda _, __, out: types.append(out.dtype))
    full, half = (
        ComponetSystem(model, precision).separate(wave, 2)[0] for precision in (torch.float32, torch.bfloat16)
    )
    assert types == [torch.float32] * 2 + [torch.bfloat16] * 2 and half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert float((half - full).norm() / full.norm()) < 0.1  # noise of level 60 is taken off what begins at that level


def test_kept_latents_train_as_waves_do() -> None:
    """The latents of all mixes, made once, give the loss that the stems give; silent stems are told from them too."""
    model = tiny()
    batch = torch.cat([stems(0.1, 0.2, 0.1, 0.1), stems(0.1, 0.0, 1e-5, 0.2)])
    kept = model.base.submixes(batch)
    assert kept.shape == (2, 16, 16, 16, 4)
    assert torch.equal(model.base.sounding(kept), model.base.sounding(batch))
    for seed in range(3):
        torch.testing.assert_close(
            model.loss(kept, generator(seed)), model.loss(batch, generator(seed)), atol=1e-4, rtol=1e-3
        )


def test_weights_are_of_types_that_every_device_has() -> None:
    """Apple's GPUs refuse float64."""
    for model in (tiny(), tiny(MELVAE)):
        assert {value.dtype for value in (*model.parameters(), *model.buffers())} == {torch.float32}


def test_models_that_were_never_trained_do_not_answer() -> None:
    """Their scale is 0, by which latents would be divided."""
    model = tiny()
    model.base.scale.zero_()
    with pytest.raises(ModelError, match="scale of this model's latents is 0: it was never trained"):
        ComponetSystem(model).separate(torch.zeros(1, 1, 4096), 1)
    with pytest.raises(ModelError, match="it was never trained"):
        ComponetSystem(model).sample(["bass"], Context({}, {}, 1.0), seed=1, steps=1)


@pytest.mark.parametrize("steps", [600, 1000])
def test_as_many_steps_as_there_are_levels_begin_at_the_noisiest(steps: int) -> None:
    """With the published spacing, too."""
    for spacing in ("leading", "trailing"):
        model = tiny(spacing=spacing)
        seen: list[float] = []
        model.predict = lambda x, time, *_, seen=seen: seen.append(float(time[0])) or torch.zeros_like(x)  # type: ignore[method-assign, func-returns-value]
        ComponetSystem(model).sample(["bass"], Context({}, {}, 1.0), seed=1, steps=steps)
        assert seen[0] >= 990 and len(seen) in (steps, steps - 1)


def test_the_base_learns_without_hearing_and_finds_its_scale() -> None:
    base = AudioLdm2(BASE)
    batch = stems(0.1, 0.2, 0.1, 0.1)
    loss = base.loss(batch, generator())
    loss.backward()
    assert float(base.scale) > 0 and base.words.first.weight.grad is not None
    scale = float(base.scale)
    base.loss(2 * batch, generator())
    assert float(base.scale) == scale


HEARING = replace(BASE, hears=True, unet={**BASE.unet, "in_channels": 32})


def test_conditioning_of_other_systems_from_the_same_parts() -> None:
    """AUDIT's: what is heard beside the state, and no adapter. InstructME's: the adapter and the whole base learn."""
    batch = stems(0.1, 0.1, 0.1, 0.1)
    audit = Componet(ComponetConfig(HEARING, trains="all"))
    instructed = Componet(ComponetConfig(BASE, trains="all"))
    assert audit.control is None and instructed.control is not None
    for model in (audit, instructed):
        before = model.base.unet.conv_in.weight.clone()
        trained(model, batch)
        assert not torch.equal(model.base.unet.conv_in.weight, before) and model.base.training
    one, two = (
        ComponetSystem(audit.eval()).answer(mix, STEMS, ("bass",), seeds=[1], steps=1)
        for mix in 0.1 * torch.randn(2, 4096, generator=generator())
    )
    assert not torch.allclose(one, two)
    with pytest.raises(ValueError, match="no adapter; trains must be all"):
        ComponetConfig(HEARING)


def test_training_draws_the_tasks_it_is_told() -> None:
    heard, wanted = Sampler(STEMS, ("add",)).draw(torch.tensor([[True] * 4, [False] * 4] * 50), generator())
    assert bool((heard <= wanted).all()) and bool((heard != wanted).any(1).all()) and bool(heard.any(1).all())


def test_a_model_of_one_stem_learns_and_answers_no_more() -> None:
    """As StemGen: one stem beside a mix of others, of which nothing else was drawn."""
    told = replace(BASE, tasks=("accompany",), most=1)
    heard, wanted = Sampler(STEMS, told.tasks, told.most).draw(torch.ones(300, 4, dtype=torch.bool), generator())
    assert bool((wanted.sum(1) == 1).all()) and not (heard & wanted).any() and set(heard.sum(1).tolist()) == {1, 2, 3}
    system, mix = ComponetSystem(tiny(told)), torch.zeros(4096)
    assert system.answer(mix, ("bass", "drums"), ("piano",), seeds=[1], steps=1).shape == (1, 4096)
    with pytest.raises(QueryError, match=r"at most 1 stem.* at once, not guitar, piano"):
        system.answer(mix, ("bass", "drums"), ("guitar", "piano"), seeds=[1], steps=1)
    with pytest.raises(QueryError, match="trained to accompany, not to generate"):
        system.answer(mix, (), ("piano",), seeds=[1], steps=1)
    with pytest.raises(QueryError, match="trained to accompany, not to separate"):
        system.separate(mix[None, None], 1)


def test_both_targets_have_the_same_denoiser() -> None:
    """A network that says the truth, as noise or as velocity, gives back the clean latent at any level."""
    clean = torch.randn(1, 16, 16, 4, generator=generator(1))
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    for predicts in ("noise", "velocity"):
        model = Componet(ComponetConfig(replace(BASE, predicts=predicts))).eval()  # type: ignore[arg-type]
        noisy, time, target = model.base.noisy(clean, generator(2))
        model.predict = lambda *_, target=target: target  # type: ignore[assignment]
        level = model.base.alphas_cumprod[time].double()
        sigma = ((1 - level) / level).sqrt()
        denoiser = model.denoiser(clean, nothing, ~nothing, ComponetSampling())
        found = denoiser(noisy * (1 + sigma.float() ** 2).sqrt(), sigma)
        torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)


# -- the denoiser --------------------------------------------------------------------------------------------------------


def estimate(model: Componet, **how: float) -> Tensor:
    heard, wanted = torch.tensor([[True, True, False, False]]), torch.tensor([[False, False, True, False]])
    latent = torch.randn(1, 16, 16, 4, generator=generator(1))
    with torch.no_grad():
        denoiser = model.denoiser(latent, heard, wanted, ComponetSampling(**how))  # type: ignore[arg-type]
        return denoiser(torch.randn(1, 16, 16, 4, generator=generator(2)), torch.tensor(0.7))


def test_an_untrained_adapter_is_the_base_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = Componet(ComponetConfig(BASE)).eval()
    model.base.scale.fill_(0.3)
    assert torch.equal(estimate(model), estimate(model, strength=0.0))


def test_guidance_is_the_line_through_told_and_untold() -> None:
    model = tiny()
    one, two, three = (estimate(model, guidance=guidance) for guidance in (1.0, 2.0, 3.0))
    assert not torch.allclose(one, two)
    torch.testing.assert_close(three - two, two - one, atol=1e-4, rtol=1e-3)
    untold = estimate(model, guidance=0.0)
    model.base.words.first.weight[1:].zero_()  # what is said does not matter where nothing is told
    model.base.words.second.weight[1:].zero_()
    torch.testing.assert_close(estimate(model, guidance=0.0), untold, atol=1e-6, rtol=0)


def test_one_pass_where_the_guidance_needs_one() -> None:
    """Told at 1, untold at 0; both, in one batch of two, at any other."""
    model = tiny()
    sizes: list[int] = []
    model.base.unet.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    untold, told, more = (estimate(model, guidance=guidance) for guidance in (0.0, 1.0, 2.0))
    assert sizes == [1, 1, 2]
    torch.testing.assert_close(told + (told - untold), more, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("wish", ["guidance", "strength"])
def test_what_is_no_number_is_refused(wish: str) -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(QueryError, match=f"{wish} .*give finite numbers"):
            ComponetSampling(**{wish: value})  # type: ignore[arg-type]


def test_strength_and_the_span_in_which_the_adapter_acts() -> None:
    model = tiny()
    whole, none = estimate(model), estimate(model, strength=0.0)
    assert not torch.allclose(whole, none) and not torch.allclose(estimate(model, strength=0.5), whole)
    calls: list[int] = []
    model.control.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(estimate(model, start=0.99), none) and torch.equal(estimate(model, end=0.01), none) and not calls
    assert torch.equal(estimate(model, start=0.01, end=0.99), whole)
    with pytest.raises(QueryError, match="0 <= start < end <= 1"):
        ComponetSampling(start=0.5, end=0.5)


# -- the system ----------------------------------------------------------------------------------------------------------

TASK_SETS = {
    "generate": ((), ("bass",)),
    "accompany": (("bass", "drums"), ("guitar", "piano")),
    "separate": (STEMS, ("bass", "piano")),
    "add": (("bass",), ("bass", "drums")),
    "replace": (("bass", "drums"), ("bass", "guitar")),
}


@pytest.mark.parametrize("name", TASKS)
def test_one_question_for_every_task(name: str) -> None:
    system = ComponetSystem(tiny())
    heard, wanted = TASK_SETS[name]
    mix = 0.1 * torch.randn(4096, generator=generator()) if heard else torch.zeros(4096)
    made = system.answer(mix, heard, wanted, seeds=[3, 4], steps=2)
    assert made.shape == (2, 4096) and torch.isfinite(made).all() and not torch.allclose(made[0], made[1])
    alone = system.answer(mix, heard, wanted, seeds=[4], steps=2)  # a candidate does not depend on the others
    torch.testing.assert_close(alone[0], made[1], atol=1e-3 * float(made.abs().max()), rtol=0)
    if heard:
        other = system.answer(-0.5 * mix.flip(0), heard, wanted, seeds=[4], steps=2)
        assert not torch.allclose(other, alone)


@pytest.mark.parametrize("base", [BASE, MELVAE], ids=["patches", "autoencoder"])
@pytest.mark.parametrize("time", [4096, 5000])
def test_separated_stems_sum_to_the_mixture(base: AudioLdm2Config, time: int) -> None:
    system = ComponetSystem(tiny(base))
    wave = 0.1 * torch.randn(2, 1, time)
    found, lacking = system.separate(wave, 2)
    assert found.shape == (2, 4, 1, time)
    torch.testing.assert_close(found.sum(1), wave, atol=1e-5, rtol=0)
    assert float(lacking.abs().max()) < 1e-4
    made, lacking = replace(system, phase="vocoder").separate(wave, 2)
    torch.testing.assert_close(made.sum(1) + lacking, wave, atol=1e-6 * float(made.abs().max()) + 1e-6, rtol=0)


@pytest.mark.parametrize(("spacing", "first"), [("trailing", 999), ("leading", 501)])
def test_where_sampling_starts(spacing: str, first: int) -> None:
    """At the noisiest step, or where DDIM's published spacing does."""
    system = ComponetSystem(tiny(spacing=spacing))
    times: list[float] = []
    system.prior.base.unet.register_forward_pre_hook(lambda _, inputs: times.append(float(inputs[1][0])))
    system.answer(torch.zeros(4096), (), ("bass",), seeds=[0], steps=2)
    assert times[0] == pytest.approx(first, abs=1e-3) and len(times) == 2


def test_stems_are_made_one_after_the_other() -> None:
    """Each hears what was made before it, and of that what is known as it is."""
    system = ComponetSystem(tiny())
    asked: list[tuple[str, ...]] = []
    mixes: list[Tensor] = []
    denoiser = system.prior.denoiser

    def spy(latent: Tensor, heard: Tensor, wanted: Tensor, how: ComponetSampling) -> object:
        asked.append(tuple("".join(n[0] for n, there in zip(STEMS, side[0]) if there) for side in (heard, wanted)))
        mixes.append(latent)
        return denoiser(latent, heard, wanted, how)

    system.prior.denoiser = spy  # type: ignore[assignment]
    where = torch.arange(4096) < 1024
    known = {"drums": 0.1 * torch.randn(1, 4096)}
    old = 0.1 * torch.randn(1, 4096)
    made = system.sample(["piano", "bass"], Context(known, {"bass": (old, where)}, 1.0), seed=1, steps=2)
    assert asked == [("d", "b"), ("bd", "p")]
    assert made.shape == (2, 1, 4096)
    beside = system.prior.base.encode((known["drums"] + torch.where(where, old, made[1]))[:1])
    torch.testing.assert_close(mixes[1], beside, atol=0, rtol=0)
    again = system.sample(["piano", "bass"], Context(known, {"bass": (old, where)}, 1.0), seed=1, steps=2)
    torch.testing.assert_close(made, again, atol=0, rtol=0)


def test_stems_start_from_noise_of_their_own() -> None:
    """Or what the network does not remove of it would make them coherent."""
    system = ComponetSystem(tiny())
    seen: list[int] = []
    answer = system.answer

    def spy(*question: object, seeds: list[int], **rest: object) -> Tensor:
        seen.extend(seeds)
        return answer(*question, seeds=seeds, **rest)  # type: ignore[arg-type]

    object.__setattr__(system, "answer", spy)
    for seed in (0, 1):
        system.sample(STEMS, Context({}, {}, 1.0), seed=seed, steps=1)
    assert len(set(seen)) == len(seen) == 8


def test_questions_that_it_answers() -> None:
    system = ComponetSystem(tiny())
    silence = Audio.of({"x": torch.zeros(1, 8)}, 8000)
    assert system.answers(Query({frozenset({"bass", "drums"}): silence}, frozenset({"guitar"}))) is None
    assert "not flute" in (system.answers(Query({}, frozenset({"flute"}))) or "")
    assert "no words" in (system.answers(Query({}, frozenset({"bass"}), words={"bass": "slap bass"})) or "")
    with pytest.raises(QueryError, match="this model knows: bass, drums, guitar, piano"):
        system.answer(torch.zeros(4096), (), ("flute",), seeds=[0], steps=1)
    with pytest.raises(QueryError, match="nothing is wanted"):
        system.answer(torch.zeros(4096), (), (), seeds=[0], steps=1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stems": tuple("abcdef")}, "4096 relations; name at most 5"),
        ({"unet": {"in_channels": 3}}, "unet.in_channels is 3, not 16: the codec's latents have 16"),
        ({"most": 0}, "most is 0; at least one stem"),
        ({"most": 1}, "two where tasks has add"),
        ({"tasks": ("dance",)}, "tasks are some of generate, .*got dance"),
    ],
)
def test_impossible_configurations_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(BASE, **change)  # type: ignore[arg-type]
