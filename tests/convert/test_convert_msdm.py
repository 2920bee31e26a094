"""`stemwise convert msdm`: published checkpoints become model folders, others are refused, nothing is executed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from published_msdm import FIXTURES, facts, state, tensors
from stemwise.checkpoint import load_model, read_info
from stemwise.cli import app
from stemwise.commands.convert import System
from stemwise.convert.msdm import STEMS, convert_msdm, read_checkpoint
from stemwise.errors import ModelError
from stemwise.systems.msdm import Msdm, WeakMsdm

JOINT = FIXTURES / "checkpoint_four_source.ckpt"
SINGLE = FIXTURES / "checkpoint_one_source.ckpt"
MAPPING = "model.unet.to_mapping.0.bias"


def test_a_joint_checkpoint_gives_the_recorded_numbers(tmp_path: Path) -> None:
    module = load_model(convert_msdm(JOINT, tmp_path / "model"))
    assert isinstance(module, Msdm)
    recorded = tensors("checkpoint_expected")
    x, sigma = recorded["four_source.x"], recorded["four_source.sigma"]
    with torch.no_grad():
        denoised = module(x, sigma)
        raw = module.net(x / torch.hypot(sigma, torch.tensor(0.2))[:, None, None], sigma.log() / 4)
    torch.testing.assert_close(raw, recorded["four_source.raw"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denoised, recorded["four_source.denoised"], atol=1e-5, rtol=1e-5)
    info = read_info(tmp_path / "model")
    assert (info.stems, info.rate, info.window) == (STEMS, 22050, 2**18)
    assert info.metadata["epoch"] == 1
    assert (module.config.sigma_mean, module.config.sigma_std) == (-3.0, 1.0)


def test_weak_checkpoints_become_one_model(tmp_path: Path) -> None:
    """Told by the stem in the name or by the published run's folder; the copies need not share storage."""
    folder = tmp_path / "weakly-msdm"
    (folder / "ruby-dew-290").mkdir(parents=True)
    shutil.copy(SINGLE, folder / "ruby-dew-290" / "epoch=236.ckpt")
    for stem in STEMS[:3]:
        shutil.copy(FIXTURES / "checkpoint_one_source_unshared.ckpt", folder / f"{stem}.ckpt")
    module = load_model(convert_msdm(folder, tmp_path / "model"))
    assert isinstance(module, WeakMsdm)
    recorded = tensors("checkpoint_expected")
    x, sigma = recorded["one_source.x"], recorded["one_source.sigma"]
    with torch.no_grad():
        denoised = module(x.expand(-1, 4, -1).contiguous(), sigma)
        raw = [net(x / torch.hypot(sigma, torch.tensor(0.2))[:, None, None], sigma.log() / 4) for net in module.nets]
    for out in raw:
        torch.testing.assert_close(out, recorded["one_source.raw"], atol=1e-5, rtol=1e-5)
    expected = recorded["one_source.denoised"].expand(-1, 4, -1)
    torch.testing.assert_close(denoised, expected, atol=1e-5, rtol=1e-5)


def test_recorded_hyper_parameters_are_read() -> None:
    config, tensors_, about = read_checkpoint(JOINT)
    assert (config.sources, config.channels, config.patch, config.factors) == (4, 16, 2, (4, 2))
    assert len(tensors_) == facts("checkpoint")["checkpoints"]["four_source"]["entries"]
    assert about["sigma_data"] == 0.2


def rewritten(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    about = facts("checkpoint")["checkpoints"]["four_source"]
    settings = {k: v for k, v in about["hyper_parameters"].items() if k != "diffusion_sigma_distribution"}
    weights = {f"model.unet.{k}": t for k, t in state(about["shapes"], "x").items()}
    document = {"state_dict": weights, "hyper_parameters": settings, "epoch": 1, "global_step": 2}
    change(document)
    torch.save(document, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


def _drop(document: dict[str, Any]) -> None:
    del document["state_dict"]["model.unet.bottleneck.attention.fn.norm.g"]


def _add(document: dict[str, Any]) -> None:
    document["state_dict"]["model.embedder.weight"] = torch.zeros(2)


def _put(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["state_dict"].__setitem__(name, value)


def _set(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["hyper_parameters"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop, r"middle\.norm\.gain: missing"),
        (_add, r"surplus tensor\(s\), such as model\.embedder\.weight"),
        (_set("channels", 32), r"expected shape"),
        (_set("use_nearest_upsample", True), "use_nearest_upsample is True, expected False"),
        (_set("multipliers", [1, 2]), "multipliers"),
        (_set("patch_factor", 0), "patch_factor is 0, expected whole numbers of at least 1"),
        (_set("resnet_groups", 0), "resnet_groups is 0, expected whole numbers"),
        (_set("channels", "16"), "channels is '16', expected whole numbers"),
        (_set("factors", [4, 2.0]), r"factors is \[4, 2\.0\], expected whole numbers"),
        (_set("diffusion_sigma_data", None), "diffusion_sigma_data is None, expected a positive number"),
        (_set("diffusion_sigma_data", float("nan")), "diffusion_sigma_data is nan, expected a positive number"),
        (_set("diffusion_sigma_distribution", "uniform"), "'uniform', expected an instance of .*LogNormalDistribution"),
        (
            _set("diffusion_type", "v"),
            r"no published network has: diffusion_type \('v'\); expected none but in_channels, channels",
        ),
        (_set("sample_rate", 44100), "sample_rate is 44100, expected 22050"),
        (_set("stems", ["drums", "bass", "guitar", "piano"]), r"stems is \['drums'.*expected \('bass', 'drums', "),
        (lambda document: document.update(hyper_parameters=[1]), "hyper_parameters is a list"),
        (_put("model.unet.foo", 3), "model.unet.foo in its state_dict is int, expected a tensor"),
        (
            _put("model.unet.foo", torch.ones(2, dtype=torch.int64)),
            "model.unet.foo .* is torch.int64, expected a tensor",
        ),
        (_put(MAPPING, torch.full((64,), float("nan"))), f"{MAPPING} is not finite everywhere; .*download it again"),
        (lambda document: document.pop("state_dict"), "no state_dict"),
    ],
)
def test_checkpoints_of_another_kind_are_named(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as refusal:
        convert_msdm(rewritten(tmp_path, change), tmp_path / "model")
    assert "changed.ckpt" in str(refusal.value)
    assert not (tmp_path / "model").exists()


def _copied(document: dict[str, Any]) -> dict[str, Any]:
    weights = document["state_dict"]
    weights.update({name.replace("model.unet.", "model.diffusion.net."): t.clone() for name, t in [*weights.items()]})
    return weights


def _altered(document: dict[str, Any]) -> None:
    _copied(document)[MAPPING][0] += 1e-3


def _one_less(document: dict[str, Any]) -> None:
    del _copied(document)["model.diffusion.net.to_mapping.0.bias"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_altered, rf"{MAPPING} and model\.diffusion\.net\.to_mapping\.0\.bias differ"),
        (_one_less, rf"model\.diffusion\.net\.to_mapping\.0\.bias is missing, expected the same tensor as {MAPPING}"),
    ],
)
def test_copies_that_disagree_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        convert_msdm(rewritten(tmp_path, change), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_one_copy_is_enough_and_the_published_rate_and_order_may_be_stated(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["hyper_parameters"] |= {"sample_rate": 22050, "stems": list(STEMS)}
        document["epoch"] = torch.tensor(1)  # no plain number: left away

    module = load_model(convert_msdm(rewritten(tmp_path, change), tmp_path / "model"))
    assert isinstance(module, Msdm)


def test_without_hyper_parameters_the_published_shape_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected shape \(1024, 1024\)"):
        convert_msdm(rewritten(tmp_path, lambda d: d.pop("hyper_parameters")), tmp_path / "model")


def test_foreign_classes_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"unlisted_package\.things\.Thing"):
        convert_msdm(FIXTURES / "checkpoint_unlisted_class.ckpt", tmp_path / "model")
    (tmp_path / "short.ckpt").write_bytes(JOINT.read_bytes()[:200_000])
    with pytest.raises(ModelError, match="cut short"):
        convert_msdm(tmp_path / "short.ckpt", tmp_path / "model")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ModelError, match="not a checkpoint"):
        convert_msdm(tmp_path / "text.ckpt", tmp_path / "model")


def test_single_networks_and_odd_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"1 source.*expected 4.*22050 Hz.*the folder that holds them"):
        convert_msdm(SINGLE, tmp_path / "model")
    shutil.copy(SINGLE, tmp_path / "bass.ckpt")
    with pytest.raises(ModelError, match=r"no checkpoint .* of drums, guitar, piano; found bass"):
        convert_msdm(tmp_path, tmp_path / "model")
    shutil.copy(SINGLE, tmp_path / "bass-2.ckpt")
    with pytest.raises(ModelError, match="another network of the bass"):
        convert_msdm(tmp_path, tmp_path / "model")
    (tmp_path / "bass-2.ckpt").rename(tmp_path / "unknown.ckpt")
    with pytest.raises(ModelError, match="its stem is told by neither"):
        convert_msdm(tmp_path, tmp_path / "model")


def test_the_command_converts_and_refuses_with_exit_code_3(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["convert", "msdm", str(JOINT), "--out", str(tmp_path / "model")])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "model" / "model.safetensors").is_file()
    for place, out in (
        (JOINT, ["--out", str(tmp_path / "model")]),
        (Path("."), []),
        (Path("."), ["--out", str(JOINT)]),
    ):
        run = CliRunner().invoke(app, ["convert", "msdm", str(place), *out])
        assert run.exit_code == 2, run.output
        assert "give another folder" in run.output or "give a folder" in run.output
    run = CliRunner().invoke(app, ["convert", "msdm", str(tmp_path / "none.ckpt"), "--out", str(tmp_path / "x")])
    assert run.exit_code == 3


@pytest.mark.parametrize("option", ["--stems", "--prompts"])
@pytest.mark.parametrize("system", sorted(set(System) - {System.componet}))
def test_options_of_componet_are_refused_for_all_others(system: str, option: str) -> None:
    run = CliRunner().invoke(app, ["convert", system, str(JOINT), option, "released", "--out", "unwritten"])
    said = " ".join(run.output.split())
    assert run.exit_code == 2
    assert f"{option} is for componet alone; {system} is converted as it was published" in said
    assert not Path("unwritten").exists()
