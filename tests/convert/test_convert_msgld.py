"""`stemwise convert msgld`: the published layouts become model folders with the recorded outputs; bad files are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from published_msgld import FIXTURES, close, facts, tensor, tensors
from stemwise import checkpoint
from stemwise.cli import app
from stemwise.codecs.melvae import MelVae
from stemwise.convert.msgld import convert_msgld
from stemwise.errors import ModelError
from stemwise.systems.msgld import Msgld

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """The recorded module, of tiny networks under the published names."""
    given = facts("checkpoint/facts")["given"]
    buffers = tensors("schedule/tensors")
    made = {}
    for key, shape in facts("checkpoint/layout").items():
        if isinstance(given.get(key), float | int):
            made[key] = torch.tensor(given[key])
        elif f"buffer.{key}" in buffers:
            made[key] = buffers[f"buffer.{key}"]
        else:
            made[key] = tensor(key, shape)
    return made


def saved(folder: Path, state: State, **entries: Any) -> Path:
    file = folder / "msgld.ckpt"
    torch.save({"epoch": 1, "global_step": 72000, "state_dict": state, **entries}, file)
    return file


@pytest.fixture(scope="module")
def converted(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("msgld")
    return convert_msgld(saved(folder, state, optimizer_states=[{"state": {}}]), folder / "model")


def test_recorded_outputs(converted: Path) -> None:
    """The averaged weights, not the raw ones; what only training needed is dropped."""
    module = checkpoint.load_model(converted)
    assert isinstance(module, Msgld)
    module.requires_grad_(False)
    inputs, expected = tensors("checkpoint/inputs"), tensors("checkpoint/expected")
    mixture = module.net.pyramid(inputs["mixture"][:, 0])
    close(module.net(inputs["x"], inputs["t"], mixture), expected["eps_ema"])
    mean, deviation = module.codec.posterior(inputs["log_mel"][:, 0])
    close((mean + deviation * inputs["posterior_noise"]) * module.scale, expected["mixture_latent"])
    levels = module.levels(inputs["z"])
    close(levels[0], expected["decoded_mel"][:, 0])
    wave = module.codec.vocode(levels)[0]
    close(wave, expected["wave"][:, 0, : wave.shape[-1]], 1e-4)
    info = checkpoint.read_info(converted)
    assert info.stems == ("bass", "drums", "guitar", "piano")
    assert info.metadata["step"] == 72000


def test_raw_weights_where_there_is_no_average(state: State, tmp_path: Path) -> None:
    raw = {name: value for name, value in state.items() if not name.startswith("model_ema.")}
    module = checkpoint.load_model(convert_msgld(saved(tmp_path, raw), tmp_path / "model"))
    assert isinstance(module, Msgld)
    inputs = tensors("checkpoint/inputs")
    with torch.no_grad():
        found = module.net(inputs["x"], inputs["t"], module.net.pyramid(inputs["mixture"][:, 0]))
    close(found, tensors("checkpoint/expected")["eps_raw"])


def test_published_file_by_the_command_line(tmp_path: Path) -> None:
    """The recorded file itself, whose tensors are stored with strides of 0."""
    file, model = str(FIXTURES / "checkpoint" / "tiny.ckpt"), str(tmp_path / "m")
    assert CliRunner().invoke(app, ["convert", "msgld", file, "--out", model]).exit_code == 0
    assert checkpoint.read_info(model).type == "msgld"
    assert "bass" in CliRunner().invoke(app, ["info", model]).output


def test_codec_files_become_a_codec(state: State, tmp_path: Path) -> None:
    """The autoencoder with its training's loss and the vocoder as pairs of weight normalisation, in one folder."""
    first = "first_stage_model."
    vae = {name.removeprefix(first): value for name, value in state.items() if name.startswith(first)}
    vocoder = {key: tensor(key, shape) for key, shape in facts("vocoder_tiny/keys").items()}
    (tmp_path / "codec").mkdir()
    vae = {name: value for name, value in vae.items() if not name.startswith("vocoder.")}
    torch.save({"state_dict": vae}, tmp_path / "codec" / "vae-ckpt.ckpt")
    torch.save({"generator": vocoder}, tmp_path / "codec" / "hifigan-ckpt.ckpt")
    module = checkpoint.load_model(convert_msgld(tmp_path / "codec", tmp_path / "model"))
    assert isinstance(module, MelVae)
    inputs = tensors("checkpoint/inputs")
    with torch.no_grad():
        mean, _ = module.posterior(inputs["log_mel"][:, 0])
    close(mean, tensors("checkpoint/expected")["moments"][:, :8])
    torch.save({"generator": vocoder}, tmp_path / "codec" / "older.pt")
    with pytest.raises(
        ModelError, match=r"several checkpoints of the vocoder \(hifigan-ckpt.ckpt, older.pt\); keep one"
    ):
        convert_msgld(tmp_path / "codec", tmp_path / "other")
    (tmp_path / "codec" / "older.pt").unlink()
    (tmp_path / "codec" / "hifigan-ckpt.ckpt").unlink()
    with pytest.raises(ModelError, match="no checkpoint of the vocoder"):
        convert_msgld(tmp_path / "codec", tmp_path / "other")


def without(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if not name.startswith(prefixes)}


def reshaped(state: State) -> State:
    return {**state, "first_stage_model.post_quant_conv.weight": torch.zeros(4, 4, 1, 1)}


def taller(state: State) -> State:
    """With three more levels in the autoencoder, whose latents the U-Net cannot halve as often as it does."""
    first = "first_stage_model.encoder.down.2."
    below = {name: value for name, value in state.items() if name.startswith(first)}
    return {
        **state,
        **{name.replace("down.2", f"down.{level}"): value for level in (3, 4, 5) for name, value in below.items()},
    }


def scaled(value: Any) -> Callable[[State], State]:
    return lambda state: {**state, "scale_factor": value}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("scale_factor"), "scale_factor is missing"),
        (scaled(torch.tensor(0.0)), r"scale_factor is 0\.0, expected one positive number"),
        (scaled(torch.tensor(float("nan"))), "scale_factor is nan"),
        (scaled(float("inf")), "scale_factor is inf"),
        (scaled(torch.ones(2)), "expected one positive number"),
        (scaled("1.0"), "expected one positive number"),
        (without("model.diffusion_model.", "model_ema."), r"holds no model\.diffusion_model"),
        (without("model_ema.diffusion_modeltime_embed0weight"), "averaged tensor"),
        (without("first_stage_model.vocoder."), "the vocoder is missing"),
        (without("first_stage_model.encoder.conv_in"), "encoder.conv_in.weight: missing"),
        (without("first_stage_model.decoder.up."), r"decoder\.up_blocks\.0\S+: missing"),
        (without("first_stage_model.vocoder.conv_pre.weight"), r"conv_pre\.weight: missing"),
        (without("first_stage_model.vocoder.ups.0.weight"), r"upsampler\.0\.weight: missing"),
        (reshaped, "do not fit the configuration"),
        (taller, "do not fit each other: a window's latent has 32 x 2 positions"),
    ],
)
def test_incomplete_checkpoints_are_named(
    state: State, tmp_path: Path, change: Callable[[State], State], named: str
) -> None:
    with pytest.raises(ModelError, match=named) as refused:
        convert_msgld(saved(tmp_path, change(state)), tmp_path / "model")
    assert "msgld.ckpt: " in str(refused.value)
    assert not (tmp_path / "model").exists()


def test_the_scale_factor_may_be_a_number(state: State, tmp_path: Path) -> None:
    module = checkpoint.load_model(convert_msgld(saved(tmp_path, scaled(0.25)(state)), tmp_path / "model"))
    assert module.scale == torch.tensor(0.25)


@pytest.mark.parametrize(
    ("half", "named"), [("weight_g", r"conv_pre\.weight_v: surplus"), ("weight_v", "weight_g: surplus")]
)
def test_vocoders_without_half_of_their_weights_are_named(state: State, tmp_path: Path, half: str, named: str) -> None:
    """Pairs of weight normalisation, of which one half is missing."""
    vae = {name.removeprefix("first_stage_model."): value for name, value in state.items() if "first_stage" in name}
    vocoder = {
        key: tensor(key, shape) for key, shape in facts("vocoder_tiny/keys").items() if key != f"conv_pre.{half}"
    }
    torch.save({"state_dict": vae}, tmp_path / "vae.ckpt")
    torch.save({"generator": vocoder}, tmp_path / "hifigan.ckpt")
    with pytest.raises(ModelError, match=named):
        convert_msgld(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"names argparse\.Namespace"):
        convert_msgld(FIXTURES / "checkpoint" / "needs_pickle.ckpt", tmp_path / "model")
    whole = (FIXTURES / "checkpoint" / "tiny.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cut short"):
        convert_msgld(tmp_path / "cut.ckpt", tmp_path / "model")
    with pytest.raises(ModelError, match="no such file"):
        convert_msgld(tmp_path / "absent.ckpt", tmp_path / "model")


def test_published_names_are_all_known() -> None:
    """The 128- and 192-channel layouts, renamed, are exactly what our networks hold."""
    from stemwise.convert.msgld import renamed_unet
    from stemwise.nets.unet_stems import UNetStems, UNetStemsConfig

    for channels in (128, 192):
        with torch.device("meta"):
            expected = {
                name: list(t.shape) for name, t in UNetStems(UNetStemsConfig(channels=channels)).state_dict().items()
            }
            published = {
                name.removeprefix("model.diffusion_model."): torch.empty(shape)
                for name, shape in facts("keys")[f"unet_{channels}"].items()
            }
        found = {name: [n for n in t.shape] for name, t in renamed_unet(published).items()}
        squeezed = {
            name: shape[:2] if ".attention." in name and len(shape) == 3 else shape for name, shape in found.items()
        }
        assert squeezed == expected
