"""Any mix from any other: one question for every task, of any length, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import stemwise
from plain_encoder import PlainEncoder
from stemwise import checkpoint
from stemwise.audio_io import read_audio, write_audio
from stemwise.cli import app
from stemwise.errors import QueryError
from stemwise.scores import Listening, score_parts
from stemwise.signals import cut
from stemwise.stems import Audio
from stemwise.systems.componet import Componet, ComponetSampling
from stemwise.systems.componet_system import ComponetSystem
from tiny_band import music, write_tiny_band
from tiny_componet import STEMS, tiny

RATE = 11025


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save_model(tmp_path_factory.mktemp("model") / "componet", tiny())


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, round(1.3 * RATE)))
    return noise.astype(np.float32)


@pytest.mark.parametrize(
    ("heard", "wanted"),
    [(("bass",), ("drums", "piano")), (("bass",), ("bass", "drums")), (("bass", "drums"), ("bass", "guitar"))],
    ids=["accompany", "add", "replace"],
)
def test_new_mixes_have_the_shape_of_what_was_heard(
    folder: Path, song: np.ndarray, heard: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    model = stemwise.load(folder)
    made = stemwise.recompose(model, song, heard, wanted, rate=RATE, seed=5, steps=2)
    assert made.names == ("+".join(wanted),) and made.data.shape == (1, 1, *song.shape) and made.rate == RATE
    again = stemwise.recompose(model, song, heard, wanted, rate=RATE, seed=5, steps=2)
    other = stemwise.recompose(model, song, heard, wanted, rate=RATE, seed=1700000000000000000, steps=2)
    assert torch.equal(made.data, again.data) and not torch.equal(made.data, other.data)


def test_candidates_of_one_batch_are_those_of_their_seeds(folder: Path, song: np.ndarray) -> None:
    """Over several windows, each continuing its own."""
    model = stemwise.load(folder)
    long = np.tile(song, 3)
    made = stemwise.recompose(model, long, ("bass",), ("drums",), rate=RATE, seed=(5, 6), steps=2)
    assert made.data.shape == (2, 1, *long.shape)
    for candidate, seed in zip(made.data, (5, 6)):
        alone = stemwise.recompose(model, long, ("bass",), ("drums",), rate=RATE, seed=seed, steps=2).data[0]
        assert float((candidate - alone).abs().max() / alone.abs().max()) < 1e-2
    with pytest.raises(QueryError, match="one for each candidate"):
        stemwise.recompose(model, song, ("bass",), ("drums",), rate=RATE, seed=())


def test_parts_of_what_was_heard_sum_to_it(folder: Path, song: np.ndarray) -> None:
    """In stereo: two wanted stems in one pass, and the other two."""
    model = stemwise.load(folder)
    halves = [
        stemwise.recompose(model, song, STEMS, side, rate=RATE, steps=2).data[0, 0]
        for side in (("bass", "drums"), ("guitar", "piano"))
    ]
    assert halves[0].shape == song.shape and not torch.allclose(halves[0][0], halves[0][1])
    rest = song - halves[0].numpy()
    assert float(np.abs(rest).max()) > 1e-3


def test_the_first_part_is_what_was_wanted_and_every_window_hears_its_own_stretch(folder: Path) -> None:
    model = stemwise.load(folder)
    system: Any = model.system
    ramp = 0.1 * np.linspace(0, 1, 9000, dtype=np.float32)[None]

    def split(wave: torch.Tensor, heard: object, parts: list[Any], *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        shares = [0.75 if tuple(part) == ("bass",) else 0.25 for part in parts]
        return torch.stack([share * wave for share in shares], 1), 0 * wave

    object.__setattr__(system, "split", split)
    found = stemwise.recompose(model, ramp, STEMS, ("bass",), rate=model.rate).data[0, 0]
    np.testing.assert_allclose(found, 0.75 * ramp, atol=1e-6)
    heard: list[torch.Tensor] = []
    drawn: list[int] = []

    def answer(mix: torch.Tensor, *_: object, seeds: list[int], **rest: object) -> torch.Tensor:
        heard.append(mix)
        drawn.extend(seeds)
        return torch.zeros(1, system.window)

    object.__setattr__(system, "answer", answer)
    stemwise.recompose(model, ramp, ("bass",), ("drums",), rate=model.rate, seed=3)
    hop = system.window - system.seam.overlap
    assert len(heard) > 2 and len(set(drawn)) == len(heard)
    for index, mix in enumerate(heard):
        assert torch.equal(mix, cut(torch.from_numpy(ramp[0]), index * hop, system.window))


def test_a_separation_takes_its_own_number_of_steps(tmp_path: Path, song: np.ndarray) -> None:
    """As the configuration says, in every way of asking for one."""
    folder = checkpoint.save_model(tmp_path / "model", tiny(steps=3, extracting=1))
    for heard, wanted, expected in ((STEMS, ("bass",), 1), (("bass",), ("drums",), 3)):
        model = stemwise.load(folder)
        calls: list[float] = []
        model.system.prior.base.unet.register_forward_hook(lambda *_, calls=calls: calls.append(0))  # type: ignore[attr-defined]
        stemwise.recompose(model, song[:, :3000], heard, wanted, rate=model.rate)
        assert len(calls) == expected
    calls.clear()
    model.separate(song[:1, :3000], rate=model.rate)
    assert (len(calls), model.evaluations, model.steps) == (1, 1, 3)


def test_windows_continue_each_other(folder: Path) -> None:
    """What a window begins with is what the one before ended with."""
    model = stemwise.load(folder)
    calls: list[torch.Tensor] = []
    answer = model.system.answer  # type: ignore[attr-defined]

    def spy(mix: torch.Tensor, heard: object, wanted: object, *, fixed: object, **rest: object) -> torch.Tensor:
        made = answer(mix, heard, wanted, fixed=fixed, **rest)
        if calls:
            signal, where = fixed  # type: ignore[misc]
            count = int(where.sum())
            assert count and torch.equal(signal[0, :count], calls[-1][-count:])
            made = torch.where(where, signal, made)
        else:
            assert fixed is None
        calls.append(made[0])
        return made

    object.__setattr__(model.system, "answer", spy)
    made = stemwise.recompose(model, None, (), ("bass",), seconds=1.2, steps=1)
    assert made.data.shape == (1, 1, 1, 9600) and len(calls) == 3


def edited(folder: Path, source: Path, out: Path, heard: str, *more: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The made mix and the parameters in its manifest, of `stemwise edit` from `heard` to bass and guitar."""
    done = CliRunner().invoke(app, ["edit", str(source), "--heard", heard, "--wanted", "bass,guitar", "--model", str(folder),
                                    "-o", str(out), "--quiet", *more])  # fmt: skip
    assert done.exit_code == 0, done.output
    (made,) = (out / "componet").iterdir()
    return read_audio(made / "bass+guitar.wav")[0], json.loads((made / "manifest.json").read_text())["parameters"]


def test_of_a_folder_those_stems_are_heard_that_are_named(folder: Path, song: np.ndarray, tmp_path: Path) -> None:
    short = song[:, :5000]
    stems = {"bass": short, "drums": short[:, ::-1].copy(), "piano": 0.5 * short}
    for name, signal in stems.items():
        write_audio(tmp_path / "song" / f"{name}.wav", signal, RATE)
    write_audio(tmp_path / "sum.wav", stems["bass"] + stems["drums"], RATE)
    found, _ = edited(folder, tmp_path / "song", tmp_path / "folder", "bass,drums", "--steps", "1")
    expected, _ = edited(folder, tmp_path / "sum.wav", tmp_path / "file", "bass,drums", "--steps", "1")
    np.testing.assert_array_equal(found, expected)
    write_audio(tmp_path / "mixed" / "mix.wav", stems["bass"] + stems["drums"], RATE)
    again, _ = edited(folder, tmp_path / "mixed", tmp_path / "mix", "bass,drums", "--steps", "1")
    np.testing.assert_array_equal(again, expected)
    words = ["edit", str(tmp_path / "song"), "--heard", "guitar,bass", "--wanted", "bass", "--model", str(folder)]
    refused = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "refused")])
    assert refused.exit_code == 1 and "has bass, drums, piano, but not guitar" in refused.output


@pytest.mark.parametrize("heard", ["bass,drums", "bass,drums,guitar"], ids=["replace", "separate"])
def test_steps_and_evaluations_are_one_number(folder: Path, song: np.ndarray, tmp_path: Path, heard: str) -> None:
    """With a rule of two evaluations a step, and the manifest holds both."""
    heun = checkpoint.save_model(tmp_path / "models" / "componet", tiny(rule="heun"))
    source = write_audio(tmp_path / "mix.wav", song[:, :5000], RATE)
    told, first = edited(heun, source, tmp_path / "steps", heard, "--steps", "3")
    same, second = edited(heun, source, tmp_path / "evaluations", heard, "--evaluations", "6")
    own, third = edited(heun, source, tmp_path / "own", heard)
    np.testing.assert_array_equal(told, same)
    assert not np.array_equal(told, own)
    assert [(p["steps"], p["evaluations"]) for p in (first, second, third)] == [(3, 6), (3, 6), (2, 4)]
    words = ["edit", str(source), "--heard", heard, "--wanted", "bass", "--steps", "1", "--evaluations", "1"]
    refused = CliRunner().invoke(app, [*words, "--model", str(heun)])
    assert refused.exit_code == 2 and "are one number" in refused.output


def test_on_the_command_line(folder: Path, song: np.ndarray, tmp_path: Path) -> None:
    write_audio(tmp_path / "mix.wav", song, RATE)
    words = ["edit", str(tmp_path / "mix.wav"), "--heard", "bass,drums", "--wanted", "bass,guitar", "--model", str(folder),
             "--steps", "1", "-o", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    made = tmp_path / "out" / "componet" / "mix-bass-drums-to-bass-guitar"
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["parameters"]["wanted"] == ["bass", "guitar"] and (made / "bass+guitar.wav").is_file()
    deaf = CliRunner().invoke(app, [*words, "--strength", "0", "-o", str(tmp_path / "deaf")])
    assert deaf.exit_code == 0, deaf.output
    unheard = tmp_path / "deaf" / "componet" / made.name
    assert json.loads((unheard / "manifest.json").read_text())["parameters"]["strength"] == 0
    assert (unheard / "bass+guitar.wav").read_bytes() != (made / "bass+guitar.wav").read_bytes()
    refused = CliRunner().invoke(app, [*words, "--remove", "bass"])
    assert refused.exit_code == 2 and "go together" in refused.output


@pytest.mark.parametrize("rate", [0, -44100, 2**70])
def test_impossible_rates_are_refused_by_every_verb(folder: Path, song: np.ndarray, rate: int) -> None:
    model = stemwise.load(folder)
    for ask in (
        lambda: stemwise.recompose(model, song, ("bass",), ("drums",), rate=rate),
        lambda: model.separate(song, rate=rate),
        lambda: model.accompany({"bass": song}, ["drums"], rate=rate),
        lambda: model.edit(song, remove=["drums"], rate=rate),
    ):
        with pytest.raises(QueryError, match=f"the rate is {rate} Hz"):
            ask()


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-5, 4000.0, float("inf"), float("nan")])
def test_impossible_lengths_are_refused(folder: Path, seconds: float) -> None:
    model = stemwise.load(folder)
    with pytest.raises(QueryError, match="cannot generate"):
        stemwise.recompose(model, None, (), ("bass",), seconds=seconds, steps=1)
    with pytest.raises(QueryError, match="cannot generate"):
        model.generate(seconds, steps=1)


@pytest.mark.parametrize("heard", [("bass",), ("bass", "drums")], ids=["accompany", "separate"])
def test_no_steps_are_refused(folder: Path, song: np.ndarray, heard: tuple[str, ...]) -> None:
    with pytest.raises(QueryError, match="steps is 0"):
        stemwise.recompose(
            stemwise.load(folder), song, heard, (heard[-1],) if len(heard) > 1 else ("piano",), rate=RATE, steps=0
        )


@pytest.mark.parametrize("heard", [("bass",), ("bass", "drums")], ids=["accompany", "separate"])
def test_steps_count_the_same_whatever_is_asked(tmp_path: Path, song: np.ndarray, heard: tuple[str, ...]) -> None:
    """A step of Heun's rule is two evaluations, the last one only one: when new stems are made and when a mix is separated."""
    model = stemwise.load(checkpoint.save_model(tmp_path / "componet", tiny(rule="heun")))
    passes: list[int] = []
    model.system.prior.base.unet.register_forward_pre_hook(lambda *_: passes.append(1))
    wanted = ("drums",)
    stemwise.recompose(model, song[:, :5000], heard, wanted, rate=RATE, steps=3)
    assert len(passes) == 5


def test_takes_of_one_batch_are_ranked_by_what_was_heard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one pass of sampling for all seeds; what cannot be read does not cost the others."""
    monkeypatch.setattr("stemwise.loading.load_coherence", lambda model="cocola", device="auto": PlainEncoder())
    asked: list[tuple[int, ...]] = []
    answer = ComponetSystem.answer

    def spy(self: ComponetSystem, *sides: Any, seeds: list[int], **rest: Any) -> torch.Tensor:
        asked.append(tuple(seeds))
        return answer(self, *sides, seeds=seeds, **rest)

    monkeypatch.setattr(ComponetSystem, "answer", spy)
    take = write_audio(tmp_path / "take.wav", music(1.2), 8000)
    (tmp_path / "broken.wav").write_bytes(b"nothing")
    words = ["edit", str(tmp_path / "broken.wav"), str(take), "--heard", "bass", "--wanted", "bass,drums", "--steps", "1",
             "--model", str(folder), "-o", str(tmp_path / "out"), "--seed", "7"]  # fmt: skip
    ranking = ["--count", "3", "--rank", "coherence"]
    done = CliRunner().invoke(app, [*words, *ranking])
    assert done.exit_code == 1 and "broken.wav" in done.stderr
    assert {len(seeds) for seeds in asked} == {3}
    root = tmp_path / "out" / "componet" / "take-bass-to-bass-drums"
    found = [json.loads((root / f"take-{k}" / "manifest.json").read_text()) for k in (1, 2, 3)]
    worth = [m["worth"] for m in found]
    assert sorted(m["seed"] for m in found) == [7, 8, 9] and worth == sorted(worth, reverse=True)
    heard, made = (torch.from_numpy(read_audio(f)[0]) for f in (take, root / "take-1" / "bass+drums.wav"))
    both = Audio.of({"heard": heard, "made": made.expand_as(heard)}, 8000)
    best = score_parts(both, ["heard"], ["made"], how=Listening(PlainEncoder()))
    assert best.coherence.mean == pytest.approx(worth[0], abs=1e-3)
    asked.clear()
    again = CliRunner().invoke(app, [*words[:1], *words[2:], *ranking, "--skip-existing"])
    assert again.exit_code == 0 and again.output.count("skipped, ") == 3 and not asked
    plain = CliRunner().invoke(app, [*words[:1], *words[2:], "--count", "2", "-o", str(tmp_path / "plain")])
    assert plain.exit_code == 0, plain.output
    root = tmp_path / "plain" / "componet" / "take-bass-to-bass-drums"
    in_order = [json.loads((root / f"take-{k}" / "manifest.json").read_text()) for k in (1, 2)]
    assert [m["seed"] for m in in_order] == [7, 8] and "rank" not in in_order[0]
    words[words.index("bass,drums")] = "drums"
    refused = CliRunner().invoke(app, [*words[:1], *words[2:], "--heard", "bass,drums", "--count", "2"])
    assert refused.exit_code == 2 and "would be alike" in refused.output
    refused = CliRunner().invoke(app, ["edit", str(take), "--remove", "bass", "--count", "2", "--model", str(folder)])
    assert refused.exit_code == 2 and "go with --heard and --wanted" in refused.output


@pytest.mark.parametrize(
    "words",
    [("generate", "--seconds", "0.5", "--stems", "bass"), ("accompany", "bass=mix.wav", "--want", "drums"),
     ("edit", "mix.wav", "--heard", "bass", "--wanted", "drums")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_when_and_how_much_it_listens_are_options(
    folder: Path, song: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "mix.wav", song[:, :5000], RATE)
    own: list[ComponetSampling] = []
    denoiser = Componet.denoiser

    def spy(self: Componet, *sides: Any) -> Any:
        own.append(sides[-1])
        return denoiser(self, *sides)

    monkeypatch.setattr(Componet, "denoiser", spy)
    rest = ["--model", str(folder), "--steps", "1", "--json"]
    done = CliRunner().invoke(app, [*words, *rest, "--strength", "0.8", "--acts", "0.1:0.75"])
    assert done.exit_code == 0, done.output
    assert {(how.strength, how.start, how.end) for how in own} == {(0.8, 0.1, 0.75)}
    told = json.loads(done.stdout)["outcomes"][0]["manifest"]["parameters"]
    assert (told["strength"], told["start"], told["end"]) == (0.8, 0.1, 0.75)
    for acts, reason in (("now", "is not START:END"), ("0.9:0.2", "0 <= start < end <= 1")):
        refused = CliRunner().invoke(app, [*words, *rest, "--acts", acts])
        assert refused.exit_code == 2 and reason in refused.output


def test_questions_that_contradict_themselves(folder: Path, song: np.ndarray, tmp_path: Path) -> None:
    model = stemwise.load(folder)
    with pytest.raises(QueryError, match="no stem named 'flute'"):
        stemwise.recompose(model, song, ("flute",), ("bass",), rate=RATE)
    for source, heard in ((song, ()), (None, ("bass",)), (None, ())):
        with pytest.raises(QueryError, match="or neither and seconds"):
            stemwise.recompose(model, source, heard, ("bass",), rate=RATE)
    with pytest.raises(QueryError, match="nothing is wanted"):
        stemwise.recompose(model, song, ("bass",), (), rate=RATE)
    with pytest.raises(QueryError, match="2 candidates of a separation would be alike"):
        stemwise.recompose(model, song, STEMS, ("bass",), rate=RATE, seed=(1, 2))
    write_tiny_band(tmp_path / "band")
    with pytest.raises(QueryError, match="makes stems, not mixes"):
        stemwise.recompose(stemwise.load(tmp_path / "band"), song, ("bass",), ("drums",), rate=RATE)
