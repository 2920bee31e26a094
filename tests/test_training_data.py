"""What a training hears: any layout, several sets, and the same windows whatever reads them and however often it stops."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import tiny_rolls
import trainable_toy
from stemwise import checkpoint, cli, training_data
from stemwise.errors import RecipeError, SongError
from stemwise.recipe import load_recipe, plain
from stemwise.songs.folder import folder
from stemwise.songs.packing import pack
from stemwise.systems.band import Band
from stemwise.systems.componet_base import AudioLdm2
from stemwise.train import train
from tiny_componet import BASE

TINY = Path(__file__).parent.parent / "recipes" / "band-tiny.yaml"


@pytest.fixture(autouse=True)
def _toy_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.TYPES, "toy", trainable_toy.ENTRY)


def write_song(folder: Path, stems: dict[str, float], frames: int = 4000, rate: int = 8000) -> None:
    folder.mkdir(parents=True)
    for name, level in stems.items():
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}.wav", np.full((frames, 2), level), rate, subtype="FLOAT")


def opened(tmp_path: Path, *overrides: str) -> tuple[training_data.Stream, str, list[str]]:
    """The training stream of the toy's recipe, how it is described, and what was noticed."""
    said: list[str] = []
    plain = ["data.augmentation=null", "data.valid=[]", *overrides]
    recipe = load_recipe(trainable_toy.write_recipe(tmp_path / "toy.yaml", tmp_path, tmp_path / "run"), plain)
    material = training_data.read(recipe, said.append)
    stream, _ = material.streams(checkpoint.build(recipe.model.type, recipe.model.config))
    return stream, material.describe(stream), said


def test_sets_are_drawn_by_length_or_by_weight(tmp_path: Path) -> None:
    write_song(tmp_path / "a" / "one", {"bass": 0.1})
    write_song(tmp_path / "b" / "one", {"bass": 0.3}, frames=12_000)

    def share(sets: str) -> float:
        stream, _, _ = opened(tmp_path, f"data.train={sets}")
        levels = Counter(round(float(stream[index][0, 0, 0]), 1) for index in range(400))
        return levels[0.1] / 400

    a, b = tmp_path / "a", tmp_path / "b"
    assert abs(share(f"[{a}, {b}]") - 0.25) < 0.07
    write_song(a / "of no use", {"voice": 0.5}, frames=40_000)
    assert abs(share(f"[{{path: {a}, weight: 3}}, {{path: {b}, weight: 1}}]") - 0.75) < 0.07


def test_validation_hears_the_songs_as_they_are_and_the_same_in_every_run(tmp_path: Path) -> None:
    songs = trainable_toy.write_songs(tmp_path / "songs", count=1)
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run")
    raw = np.stack([soundfile.read(songs / "song-0" / f"{name}.wav")[0].T for name in ("bass", "drums")])
    heard = []
    for seed in (0, 1):
        recipe = load_recipe(path, [f"seed={seed}", "data.augmentation={gain_db: [-6, -3], polarity: 1}"])
        material = training_data.read(recipe, lambda _: None)
        training, held_out = material.streams(checkpoint.build(recipe.model.type, recipe.model.config))
        assert held_out is not None
        heard.append((training[0], held_out[0]))
    assert torch.equal(heard[0][1], heard[1][1]) and not torch.equal(heard[0][0], heard[1][0])
    window = heard[0][1].numpy()
    start = int(np.flatnonzero(np.isclose(raw[0, 0], window[0, 0, 0], atol=1e-6))[0])
    np.testing.assert_allclose(window, raw[..., start : start + window.shape[-1]], atol=1e-6)


def test_songs_that_do_not_fill_a_window_are_counted(tmp_path: Path) -> None:
    write_song(tmp_path / "data" / "short", {"bass": 0.1})
    write_song(tmp_path / "data" / "long", {"bass": 0.1}, frames=12_000)
    _, said, _ = opened(tmp_path, f"data.train={tmp_path / 'data'}", "data.frames=8000")
    assert "2 songs" in said and "1 of them padded with silence (shorter than the 1.0 s of a window)" in said
    _, said, _ = opened(tmp_path, f"data.train={tmp_path / 'data'}", "data.frames=4000")
    assert "padded" not in said


def test_stems_get_the_names_that_the_recipe_says(tmp_path: Path) -> None:
    write_song(tmp_path / "data" / "one", {"contrabass": 0.1, "drums": 0.2, "harp": 0.4})
    write_song(tmp_path / "data" / "two", {"harp": 0.4})
    path = tmp_path / "data"
    stream, said, _ = opened(tmp_path, f"data.train={path}")
    assert "1 song" in said and "1 more left out (without its stems)" in said
    assert "stems not heard: contrabass (1), harp (1)" in said
    stream, said, _ = opened(tmp_path, f"data.train={{path: {path}, stems: {{bass: [contrabass]}}, rest: drums}}")
    assert "2 songs" in said and "left out" not in said and "not heard" not in said
    levels = {tuple(round(float(level), 1) for level in stream[index][:, 0, 0]) for index in range(30)}
    assert levels == {(0.1, 0.6), (0.0, 0.4)}
    stream, said, _ = opened(tmp_path, f"data.train={{path: {path}, stems: {{bass: [contrabass]}}, rest: drop}}")
    assert "1 song" in said and torch.all(stream[0][1] == 0)


def test_stems_to_rename_that_no_song_has_are_named(tmp_path: Path) -> None:
    """A slip would send all bass to the rest; the built-in groupings name what a data set may lack."""
    write_song(tmp_path / "data" / "one", {"bass": 0.1, "drums": 0.2})
    write_song(tmp_path / "data" / "two", {"drums": 0.2, "harp": 0.4})
    wanted = "stems: {bass: [bas, harp], drums: [drums]}, rest: other"
    said = r"data: stems: no song has a stem named bas \(did you mean 'bass'\?\); there are: bass, drums, harp"
    with pytest.raises(SongError, match=said):
        opened(tmp_path, f"data.train={{path: {tmp_path / 'data'}, {wanted}}}")
    stream, _, _ = opened(tmp_path, f"data.train={{path: {tmp_path / 'data'}, stems: 6}}")
    assert len(stream.songs) == 2


def test_splits_of_a_set_and_songs_left_out_are_told(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_song(tmp_path / "data" / split / f"song of {split}", {"bass": 0.1})
    (tmp_path / "data" / "train" / "empty").mkdir()
    stream, _, said = opened(tmp_path, f"data.train={{path: {tmp_path / 'data'}, split: test}}")
    assert [Path(song.name).name for song in stream.songs] == ["song of test"]
    assert len(said) == 1 and "1 unreadable song" in said[0] and "empty" in said[0]
    with pytest.raises(SongError, match=r"data: no song in the split 'valid'; there are: test \(1\), train \(1\)"):
        opened(tmp_path, f"data.train={{path: {tmp_path / 'data'}, split: valid}}")


def test_more_active_stems_than_there_are_is_refused(tmp_path: Path) -> None:
    """Every window would be read 16 times."""
    write_song(tmp_path / "data" / "one", {"bass": 0.1, "harp": 0.1})
    write_song(tmp_path / "data" / "two", {"drums": 0.1})
    train, two = f"data.train={tmp_path / 'data'}", "data.min_active=2"
    opened(tmp_path, train)
    opened(tmp_path, train, two, "data.augmentation={remix: 1.0}")
    with pytest.raises(
        RecipeError, match=r"data\.min_active: is 2, but the songs of data\.train have at most 1 of what"
    ):
        opened(tmp_path, train, two)
    with pytest.raises(RecipeError, match=r"is 3, but the songs of data\.train have at most 2"):
        opened(tmp_path, train, "data.min_active=3", "data.augmentation={remix: 1.0}")
    (tmp_path / "data" / "song.mid").write_bytes(b"MThd")
    rolls = [
        "data.rolls={min_active: 6}",
        "data.augmentation=null",
        "data.valid=[]",
        "model.type=rolls",
        "optim.muon=[]",
        train,
    ]
    recipe = load_recipe(trainable_toy.write_recipe(tmp_path / "toy.yaml", tmp_path, tmp_path / "run"), rolls)
    with pytest.raises(
        RecipeError, match=r"data\.rolls\.min_active: is 6, but the layout 'band' has 5 stems; lower it"
    ):
        training_data.read(recipe, lambda _: None).streams(tiny_rolls.tiny_prior())


def test_pairs_hear_every_file_unless_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable_toy.Toy, "learns_from", "pairs", raising=False)
    write_song(tmp_path / "data" / "one", {"bass": 0.1, "guitar/a": 0.2, "guitar/b": 0.4})
    pairs = ["data.pairs={per_song: 2}", "train.batch=2", "data.frames=500"]
    stream, _, _ = opened(tmp_path, f"data.train={tmp_path / 'data'}", *pairs)
    assert isinstance(stream, training_data.Pairs)
    assert stream[0].shape == (2, 1, 500) and stream.options.batch == 2
    assert {name for k in range(40) for name in stream.pair(k).anchor} == {"bass", "guitar/1", "guitar/2"}
    stream, _, _ = opened(tmp_path, f"data.train={{path: {tmp_path / 'data'}, stems: 5}}", *pairs)
    assert isinstance(stream, training_data.Pairs)
    assert {name for k in range(40) for name in stream.pair(k).anchor} == {"bass", "guitar"}
    with pytest.raises(RecipeError, match=r"data\.pairs: missing; a model of type toy learns from pairs"):
        opened(tmp_path, f"data.train={tmp_path / 'data'}")
    monkeypatch.undo()
    monkeypatch.setitem(checkpoint.TYPES, "toy", trainable_toy.ENTRY)
    with pytest.raises(RecipeError, match=r"data\.pairs: a model of type toy does not learn from pairs; remove it"):
        opened(tmp_path, f"data.train={tmp_path / 'data'}", *pairs)
    with pytest.raises(RecipeError, match="mixtures and pairs exclude each other"):
        opened(tmp_path, "data.mixtures={}", *pairs)


def test_pairs_are_validated_at_their_own_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable_toy.Toy, "learns_from", "pairs", raising=False)
    write_song(tmp_path / "data" / "one", {"bass": 0.1, "drums": 0.2})
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", tmp_path / "data", tmp_path / "run")
    recipe = load_recipe(path, ["data.pairs={per_song: 2, gain_db: 6}", "train.batch=2", "data.augmentation=null"])
    streams = training_data.read(recipe, lambda _: None).streams(checkpoint.build("toy", {}))
    assert [stream.options.gain_db for stream in streams] == [6, 0]  # type: ignore[union-attr]


def test_kept_latents_are_those_of_the_models_floor(tmp_path: Path) -> None:
    """Below it a stem is in no mix, so a model with another floor has other latents."""
    write_song(tmp_path / "data" / "one", {"bass": 0.1, "drums": 0.2}, frames=8192)
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", tmp_path / "data", tmp_path / "run")
    kept = [f"data.latents={{folder: {tmp_path / 'kept'}, windows: 1}}", "data.channels=1", "data.augmentation=null"]
    folders = []
    for config in (BASE, replace(BASE, floor_db=-10.0), BASE):
        told = json.dumps({"type": "audioldm2", "config": plain(asdict(config))})
        recipe = load_recipe(path, [*kept, "data.valid=[]", "optim.muon=[]", f"model={told}"])
        stream, _ = training_data.read(recipe, lambda _: None).streams(AudioLdm2(config))
        assert isinstance(stream, training_data.Kept)
        folders.append(stream.folder)
    assert folders[0] == folders[2] != folders[1]
    loud, quiet = (load_file(next(folder.iterdir()))["latents"] for folder in folders[:2])
    assert loud.shape == quiet.shape and not torch.equal(loud, quiet)


def test_a_training_on_shards_is_the_training_on_the_folder(tmp_path: Path) -> None:
    songs = trainable_toy.write_songs(tmp_path / "songs")
    list(pack(folder(songs), tmp_path / "packed"))
    weights = []
    for name in ("songs", "packed"):
        path = trainable_toy.write_recipe(tmp_path / "toy.yaml", tmp_path / name, tmp_path / f"run-{name}", steps=3)
        train(load_recipe(path), accelerator="cpu", notice=lambda _: None)
        weights.append(
            torch.load(next((tmp_path / f"run-{name}" / "checkpoints").iterdir()), weights_only=True)["model"]
        )
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_workers_restarts_and_resuming_give_the_same_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny recipe through the command; what reaches the loss is compared."""
    songs = trainable_toy.write_songs(tmp_path / "songs", count=2, frames=60_000, rate=44_100)
    heard: list[str] = []
    loss = Band.loss

    def listening(self: Band, batch: torch.Tensor, generator: torch.Generator) -> Any:
        heard.append(hashlib.sha256(batch.numpy().tobytes()).hexdigest())
        return loss(self, batch, generator)

    monkeypatch.setattr(Band, "loss", listening)

    def run(name: str, *overrides: str) -> list[str]:
        heard.clear()
        words = [f"data.train={songs}", f"run={tmp_path / name}", "train.batch=1", "train.precision='32'", *overrides]
        result = CliRunner().invoke(cli.app, ["train", str(TINY), *words, "--quiet", "--accelerator", "cpu"])
        assert result.exit_code == 0, result.output
        return list(heard)

    reference = run("reference", "train.steps=4")
    assert len(set(reference)) == 4
    assert run("one", "train.steps=4", "data.workers=1") == reference
    assert run("two", "train.steps=2", "data.workers=2") == reference[:2]
    assert run("two", "train.steps=4", "data.workers=2") == reference[2:]
    assert run("seed", "train.steps=2", "seed=1") != reference[:2]
