"""The object that users hold, with a tiny network of random weights: what is kept, what changes, what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import stemwise
from stemwise.errors import AudioFileError, Cancelled, ModelError, QueryError
from stemwise.longform import Progress
from stemwise.model import Model
from tiny_band import music, write_tiny_band

RATE = 44100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return stemwise.load(write_tiny_band(tmp_path_factory.mktemp("model") / "tiny"), precision="float32")


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"), [(44100, 2, 2.0), (48000, 1, 1.3), (22050, 2, 0.2), (96000, 5, 0.7)]
)
def test_separation_keeps_rate_length_channels_and_sum(model: Model, rate: int, channels: int, seconds: float) -> None:
    signal = music(seconds, channels, rate=rate)
    stems, report = model.separate_report(signal, rate=rate)
    assert stems.names == ("bass", "drums", "guitar", "piano", "other")
    assert stems.rate == rate and stems.data.shape == (1, 5, channels, signal.shape[1])
    assert np.abs(stems.data.sum(1)[0].numpy() - signal).max() < 1e-5
    assert report.null_dbfs <= -100
    assert torch.equal(stems.mix()[0], torch.from_numpy(signal)), "the mixture is known bit for bit"


def test_a_file_and_its_array_give_the_same_stems(model: Model, tmp_path: Path) -> None:
    signal = music(1.5)
    soundfile.write(tmp_path / "song.wav", signal.T, RATE, subtype="FLOAT")
    model.separate_file(tmp_path / "song.wav", tmp_path / "stems")
    there = model.separate(signal, rate=RATE)
    for name in model.stems:
        written, rate = soundfile.read(tmp_path / "stems" / f"{name}.wav", dtype="float32")
        assert rate == RATE
        np.testing.assert_allclose(written.T, there[name][0].numpy(), atol=1e-6)


def test_generation_is_reproducible_and_of_the_asked_length(model: Model) -> None:
    one = model.generate(1.1, seed=3, steps=3)
    assert one.data.shape == (1, 5, 2, round(1.1 * RATE))
    assert torch.equal(one.data, model.generate(1.1, seed=3, steps=3).data)
    assert not torch.equal(one.data, model.generate(1.1, seed=4, steps=3).data)
    assert model.generate(0.3, stems=["drums"], steps=2).names == ("drums",)


def test_accompaniment_keeps_what_was_given_bit_for_bit(model: Model) -> None:
    guitar, bass = music(1.2, 1, seed=1, rate=32000), music(0.8, 1, seed=2, rate=32000)
    answer = model.accompany({"guitar": guitar, "bass": bass}, ["drums"], rate=32000, steps=3)
    assert answer.names == ("guitar", "bass", "drums") and answer.rate == 32000
    assert np.array_equal(answer["guitar"][0].numpy(), guitar)
    assert np.array_equal(answer["bass"][0].numpy()[:, : bass.shape[1]], bass)
    assert not answer["bass"][0].numpy()[:, bass.shape[1] :].any()
    assert answer["drums"].shape[-1] == guitar.shape[1]


@pytest.mark.parametrize("change", [{"remove": ["drums"]}, {"extract": ["bass"]}, {"replace": ["guitar"]}, {}])
def test_a_span_edit_leaves_everything_outside_bit_for_bit(model: Model, change: dict[str, list[str]]) -> None:
    song = torch.from_numpy(music(2.0))
    edited = model.edit(song, span=(0.5, 0.9), rate=RATE, steps=2, **change)  # type: ignore[arg-type]
    changed = (edited.mix()[0] != song).any(0).nonzero()[:, 0]
    assert len(changed) > 0.3 * RATE, "something changes inside"
    assert changed.min() >= round(0.5 * RATE) and changed.max() < round(0.9 * RATE)


def test_edits_of_given_stems_leave_the_others_bit_for_bit(model: Model) -> None:
    given = stemwise.Audio(
        model.stems, torch.stack([torch.from_numpy(music(1.0, seed=i)) for i in range(5)])[None], RATE
    )
    removed = model.edit(given, remove=["drums"])
    assert removed.names == ("bass", "guitar", "piano", "other")
    assert torch.equal(removed["bass"], given["bass"])
    assert model.edit(given, extract=["bass"]).names == ("bass",)
    replaced = model.edit(given, replace=["guitar"], steps=2)
    assert replaced.names == ("bass", "drums", "guitar'", "piano", "other")
    assert all(torch.equal(replaced[name], given[name]) for name in ("bass", "drums", "piano", "other"))
    assert not torch.allclose(replaced["guitar'"], given["guitar"], atol=1e-3)


def stems(data: torch.Tensor) -> stemwise.Audio:
    return stemwise.Audio(("bass", "drums", "guitar", "piano", "other"), data, RATE)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.separate(music(1.0)), "give rate="),
        (lambda m: m.separate(np.full((2, 100), np.nan, np.float32), rate=RATE), "NaN"),
        (lambda m: m.separate(np.zeros((12, 100), np.float32), rate=RATE), "1 to 8 channels"),
        (lambda m: m.separate((music(1.0) * 32767).astype(np.int16), rate=RATE), "int16; give floats"),
        (lambda m: m.separate(torch.ones(2, 100, dtype=torch.int32), rate=RATE), "int32; give floats"),
        (lambda m: m.separate(music(1.0), rate=RATE, evaluations=0), "at least 1"),
        (lambda m: m.separate(music(1.0), rate=RATE, evaluations=5), "at most 4"),
        (lambda m: m.separate(music(1.0), rate=RATE, overlap=0.95), "overlap is 0.95; give a share"),
        (lambda m: m.generate(0), "cannot generate"),
        (lambda m: m.generate(1, stems=["drumz"]), "did you mean 'drums'"),
        (lambda m: m.generate(1, steps=0), "steps is 0"),
        (lambda m: m.accompany({"bass": music(1.0)}, ["bass"], rate=RATE), "both given and wanted"),
        (lambda m: m.accompany({}, ["bass"]), "nothing was given"),
        (
            lambda m: m.accompany({"bass": music(1.0), "drums": music(1.0, channels=4)}, ["piano"], rate=RATE),
            "differ in channels",
        ),
        (lambda m: m.accompany({"vocals": music(1.0)}, ["bass"], rate=RATE), "no stem named 'vocals'"),
        (lambda m: m.edit(music(1.0), rate=RATE), "exactly one of"),
        (lambda m: m.edit(music(1.0), rate=RATE, remove=["bass"], extract=["drums"]), "exactly one of"),
        (lambda m: m.edit(music(1.0), rate=RATE, remove=["bass"], span=(5, 6)), "does not lie in"),
        (lambda m: m.edit(music(1.0), rate=RATE, remove=["bass"], span=(0, np.inf)), "does not lie in"),
        (lambda m: m.edit(music(1.0), rate=RATE, remove=["bass"], span=(np.nan, 1)), "does not lie in"),
        (lambda m: m.separate(music(1.0), rate=44100.5), "the rate is 44100.5 Hz"),
        (lambda m: m.edit(stems(torch.full((1, 5, 1, 9), torch.nan)), replace=["bass"]), "NaN"),
        (lambda m: m.accompany({"bass": stems(torch.full((1, 5, 1, 9), torch.inf))}, ["drums"]), "NaN or infinite"),
        (lambda m: m.edit(stems(torch.zeros(2, 5, 1, 9)), remove=["bass"]), "a batch of 2"),
        (lambda m: m.separate(stems(torch.zeros(2, 5, 1, 9))), "a batch of 2"),
    ],
)
def test_contradictory_questions_are_refused(model: Model, ask, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(QueryError, match=message):
        ask(model)


def test_a_query_is_the_relation_of_what_is_heard_and_wanted() -> None:
    bass, both, rest = frozenset({"bass"}), frozenset({"bass", "drums"}), frozenset({"drums", "guitar"})
    audio = stems(torch.zeros(1, 5, 1, 9))
    for heard, wanted, span, task in (
        ({}, both, None, "generate"), ({bass: audio}, rest, None, "accompany"), ({both: audio}, bass, None, "separate"),
        ({bass: audio, both: audio}, bass, None, "separate"), ({bass: audio}, bass, (0.5, 1.0), "regenerate"),
    ):  # fmt: skip
        assert stemwise.Query(heard, wanted, span).task == task
    for heard, wanted, span, message in (
        ({bass: audio}, frozenset(), None, "nothing is wanted"), ({bass: audio}, bass, (1.0, 1.0), "the span 1:1 is empty"),
        ({bass: audio}, bass, (-1.0, 1.0), "is empty"), ({both: audio, rest: audio}, bass, None, "drums is heard in two"),
    ):  # fmt: skip
        with pytest.raises(QueryError, match=message):
            stemwise.Query(heard, wanted, span)


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_a_span_is_filled_to_its_end_at_any_rate(model: Model, rate: int) -> None:
    made = model.edit(music(3.0, rate=rate), rate=rate, span=(1.0, 2.0), steps=2)
    assert made.names[0] == "bass'"
    blocks = made.mix()[0, 0, rate : 2 * rate].unfold(0, rate // 20, rate // 20)
    assert blocks.abs().amax(1).min() > 1e-6


def test_what_was_replaced_is_heard_by_the_next_edit(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.edit(music(1.0), rate=RATE, replace=["guitar"], steps=1)
    heard: list[set[str]] = []
    sample = type(model.system).sample

    def listen(system: Any, wanted: Any, context: Any, **how: Any) -> Any:
        heard.append(set(context.known))
        return sample(system, wanted, context, **how)

    monkeypatch.setattr(type(model.system), "sample", listen)
    second = model.edit(first, replace=["bass"], steps=1)
    assert heard[0] == {"drums", "guitar", "piano", "other"}
    assert second.names == ("bass'", "drums", "guitar", "piano", "other")
    model.edit(first, replace=["guitar'"], steps=1)


def test_stems_of_double_precision_and_whole_rates_are_taken(model: Model) -> None:
    single = stems(torch.rand(1, 5, 1, 3000))
    double = stemwise.Audio(single.names, single.data.double(), 44100.0)  # type: ignore[arg-type]
    for ask in (
        lambda given: model.edit(given, replace=["bass"], steps=1),
        lambda given: model.accompany({"guitar": given}, ["bass"], steps=1),
    ):
        assert torch.equal(ask(double).data, ask(single).data)
    half = model.accompany({"guitar": torch.ones(1, 99, dtype=torch.bfloat16)}, ["bass"], rate=RATE, steps=1)
    assert half.data.dtype == torch.float32


def test_a_signal_shorter_than_one_frame_of_the_model(model: Model) -> None:
    sample = np.ones((1, 1), np.float32)
    assert model.accompany({"guitar": sample}, ["bass"], rate=96000, steps=1).frames == 1
    for names in (["bass"], list(model.stems)):
        assert model.edit(sample, replace=names, rate=96000, steps=1).frames == 1


def test_a_seed_of_any_size(model: Model) -> None:
    assert model.generate(0.5, stems=["bass"], seed=20250101120000, steps=1).data.isfinite().all()


def test_an_edit_can_be_cancelled_while_the_mix_is_separated(model: Model) -> None:
    told: list[float] = []
    with pytest.raises(Cancelled):
        model.edit(
            music(1.0), remove=["drums"], rate=RATE, progress=lambda event: told.append(event.done_seconds) or False
        )
    assert len(told) == 1


def test_progress_is_told_and_can_cancel(model: Model, tmp_path: Path) -> None:
    heard: list[float] = []
    model.generate(1.5, steps=2, progress=lambda event: heard.append(event.fraction))
    assert heard == sorted(heard) and heard[-1] == 1.0
    soundfile.write(tmp_path / "song.wav", music(1.5).T, RATE)
    with pytest.raises(Cancelled):
        model.separate_file(tmp_path / "song.wav", tmp_path / "stems", progress=lambda event: False)
    assert not list((tmp_path / "stems").glob("*.wav"))


def test_separating_and_replacing_is_one_progress(model: Model) -> None:
    told: list[Progress] = []
    model.edit(music(1.5), replace=["guitar"], span=(0.5, 0.6), rate=RATE, steps=2, progress=told.append)
    shares = [event.fraction for event in told]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert min(share for share in shares if share > 0.5) < 1
    assert {event.total_seconds for event in told} == {1.5}
    with pytest.raises(Cancelled):
        model.edit(music(1.5), replace=["guitar"], rate=RATE, steps=2, progress=lambda event: event.fraction <= 0.5)


def test_models_that_are_not_there_are_named() -> None:
    with pytest.raises(ModelError, match="no model named 'bandd'"):
        stemwise.load("bandd")
    with pytest.raises(ModelError, match="no model named"):
        stemwise.load("a" * 300)
    with pytest.raises(ModelError, match="not available"):
        stemwise.load("band", device="tpu")
    for device in ("cpu:foo", "cpu:1", "cuda:99", ""):
        with pytest.raises(ModelError, match=f"the device '{device}' is not available here; available: auto, .*cpu"):
            stemwise.load("band", device=device)


def test_every_model_that_is_named_opens() -> None:
    from stemwise.loading import bundled

    assert "band" in stemwise.models() and set(stemwise.models()) < set(bundled())
    for name in stemwise.models():
        assert stemwise.load(name).stems
    for name in set(bundled()) - set(stemwise.models()):
        with pytest.raises(ModelError):
            stemwise.load(name)


def test_a_larger_overlap_hears_more_windows_and_sums_as_well(model: Model) -> None:
    signal = music(4.0)
    plain, few = model.separate_report(signal, rate=RATE)
    stems, many = model.separate_report(signal, rate=RATE, overlap=0.75)
    assert many.windows > 2 * few.windows
    assert np.abs(stems.data.sum(1)[0].numpy() - signal).max() < 1e-5
    assert (stems.data - plain.data).abs().max() > 1e-5


def test_arrays_of_any_strides_are_heard_and_not_kept(tmp_path: Path) -> None:
    model = stemwise.load(write_tiny_band(tmp_path))
    signal = music(0.5)
    backwards = model.separate(signal[:, ::-1], rate=RATE)
    assert torch.equal(backwards.data, model.separate(signal[:, ::-1].copy(), rate=RATE).data)
    stems = model.separate(signal, rate=RATE)
    before = stems.mix().clone()
    signal[:] = 0
    assert torch.equal(stems.mix(), before)


def test_a_single_name_is_a_stem(tmp_path: Path) -> None:
    model = stemwise.load(write_tiny_band(tmp_path))
    assert model.edit(music(0.5), rate=RATE, remove="drums").names == ("bass", "guitar", "piano", "other")
    assert model.generate(0.5, stems="bass", steps=1).names == ("bass",)


def test_what_is_separated_is_not_replaced(tmp_path: Path) -> None:
    model = stemwise.load(write_tiny_band(tmp_path / "tiny"))
    file = tmp_path / "other.wav"
    soundfile.write(file, music(0.5).T, RATE)
    before = file.read_bytes()
    with pytest.raises(QueryError, match=r"other\.wav: is what is to be separated"):
        model.separate_file(file, tmp_path)
    assert file.read_bytes() == before
    with pytest.raises(AudioFileError, match="no such file"):
        model.separate_file(tmp_path / "elsewhere.wav", tmp_path)


def test_more_evaluations_and_lower_precision_still_sum(tmp_path: Path) -> None:
    model = stemwise.load(write_tiny_band(tmp_path / "tiny"), precision="bfloat16")
    signal = music(1.0)
    stems = model.separate(signal, rate=RATE, evaluations=3)
    assert np.abs(stems.data.sum(1)[0].numpy() - signal).max() < 1e-5


@contextlib.contextmanager
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("switched", [lambda: torch.autocast("cpu", torch.bfloat16), doubles])
def test_what_a_host_program_has_switched_on_changes_nothing(
    model: Model, switched: Callable[[], AbstractContextManager[Any]]
) -> None:
    signal = music(1.0)

    def answers(one: Model) -> list[stemwise.Audio]:
        made = one.accompany({"guitar": signal}, ["bass"], rate=RATE, steps=2)
        return [one.separate(signal, rate=RATE), one.generate(0.5, steps=2), made]

    alone = answers(model)
    with switched():
        hosted = answers(stemwise.load(model.folder, precision="float32"))
        assert torch.is_autocast_enabled("cpu") == (switched is not doubles), "what the host has on stays on"
    for one, other in zip(alone, hosted):
        torch.testing.assert_close(one.data, other.data, atol=1e-5, rtol=1e-5)


def test_a_mix_follows_changes_of_its_stems(model: Model) -> None:
    stems = model.separate(music(1.0), rate=RATE)
    assert torch.equal(stems.mix()[0], torch.from_numpy(music(1.0))), "as it was, bit for bit"
    quieter = dataclasses.replace(stems, data=stems.data * 0.1)
    torch.testing.assert_close(quieter.mix(), quieter.data.sum(1))
    mine = torch.ones(1, 2, stems.frames)
    assert torch.equal(dataclasses.replace(stems, mixture=mine).mix(), mine), "a mixture that is given anew stands"
    stems.data[:, 1] *= 0.999
    assert torch.equal(stems.mix(), stems.data.sum(1))
    outside = model.edit(stems, remove=["bass"], span=(0.2, 0.4)).mix()[0, :, : round(0.2 * RATE)]
    torch.testing.assert_close(outside, stems.data.sum(1)[0, :, : outside.shape[1]])


def test_stems_can_be_accompanied_as_they_are(model: Model) -> None:
    stems = model.separate(music(0.8), rate=RATE).select(["guitar", "piano"])
    made = model.accompany(stems, ["bass"], steps=1)
    assert made.names == ("guitar", "piano", "bass")
    assert torch.equal(made.data[:, :2], stems.data)


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.accompany("take.wav", ["bass"]),
        lambda m: m.separate(music(0.5), rate=RATE, evaluations=1.5),
        lambda m: m.separate(music(0.5), rate="44100"),
        lambda m: m.generate(0.5, steps=2.5),
        lambda m: m.edit(music(0.5), rate=RATE, remove=["bass"], span=(0.1, 0.2, 0.3)),
        lambda m: m.edit(music(0.5), rate=RATE, remove=["bass"], span=0.2),
        lambda m: m.edit(music(0.5), rate=RATE, remove=["bass"], span=(None, 0.2)),
        lambda m: m.edit(music(0.5), rate=RATE, remove=["bass"], span=(0.1, 0.1000001)),
    ],
)
def test_values_of_the_wrong_kind_are_questions_gone_wrong(model: Model, ask: Callable[[Model], object]) -> None:
    with pytest.raises(QueryError):
        ask(model)


def test_quiet_music_is_separated_as_loud(model: Model) -> None:
    loud, quiet = (model.separate_report(music(1.0) * gain, rate=RATE) for gain in (1.0, 1e-4))
    torch.testing.assert_close(quiet[0].data * 1e4, loud[0].data, atol=1e-4, rtol=1e-3)
    assert quiet[1].unassigned_share == pytest.approx(loud[1].unassigned_share, rel=1e-2)
