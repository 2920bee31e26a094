"""`stemwise convert componet`: a pipeline and a released checkpoint become a model with their outputs; bad files are named."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import stemwise
from published_componet import PUBLISHED, config, context, near, published_name, tensors
from published_componet import control as published_control
from published_msgld import tensor
from stemwise import checkpoint
from stemwise.cli import app
from stemwise.convert.componet import _ours, convert_componet
from stemwise.errors import ModelError
from stemwise.nets.audioldm2_text import TextEncoders
from stemwise.nets.control import ControlNet
from stemwise.systems.componet import Componet
from stemwise.systems.componet_base import AudioLdm2
from tiny_pipeline import UNET, save_pipeline, tiny_pipeline

STEMS = ("bass", "drums")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def given(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(pipeline, tmp_path_factory.mktemp("pipeline") / "audioldm2")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A checkpoint in the published layout: adapter, U-Net, and frozen modules that are not looked at."""
    made = {f"unet.{name}": tensor(f"unet.{name}", list(t.shape)) for name, t in unet_shapes().items()}
    for name, value in ControlNet(UNET).state_dict().items():
        published = published_name(name)
        made[published] = tensor(published, list(value.shape))
    return {**made, "vae.encoder.conv_in.weight": torch.zeros(2), "text_encoder.logit_scale_a": torch.tensor(1.0)}


def unet_shapes() -> dict[str, Tensor]:
    from stemwise.nets.pretrained import audioldm2_unet

    shapes: dict[str, Tensor] = audioldm2_unet(UNET).state_dict()
    return shapes


def with_checkpoint(given: Path, folder: Path, state: dict[str, Tensor]) -> Path:
    shutil.copytree(given, folder)
    torch.save({"epoch": 93, "global_step": 1, "state_dict": state, "optimizer_states": []}, folder / "epoch=93.ckpt")
    return folder


@pytest.mark.parametrize("text", ["in: bass_1, drums_1; out: guitar_1", "in:; out: bass_1", ""])
def test_states_are_those_of_the_pipeline(pipeline: Any, given: Path, text: str) -> None:
    """Ours calls nothing of the language model but itself, so it also works with the published one, which has no head."""
    found = TextEncoders(given).encode([text])
    words, mask, generated = pipeline.encode_prompt(text, torch.device("cpu"), 1, False, max_new_tokens=8)
    near(found.words, words, 1e-5)
    near(found.generated, generated, 1e-5)
    assert found.mask.tolist() == mask.tolist()


@pytest.fixture(scope="module")
def converted(given: Path, state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("componet")
    return convert_componet(with_checkpoint(given, root / "given", state), root / "model", STEMS)


def test_a_released_checkpoint_on_its_base(
    converted: Path, given: Path, state: dict[str, Tensor], pipeline: Any
) -> None:
    """The checkpoint's U-Net, which one release trained; codec, scale and prompts of the base."""
    model = checkpoint.load_model(converted)
    assert isinstance(model, Componet)
    assert torch.equal(model.base.unet.conv_in.weight, state["unet.conv_in.weight"])
    assert torch.equal(model.control.middle.weight, state["controlnet.controlnet_mid_block.weight"])
    assert float(model.base.scale) == pytest.approx(0.411)
    assert (model.config.base.timesteps, model.config.stems, model.config.rate) == (1000, STEMS, 16000)
    assert model.config.base.codec.window == 163_840
    levels = torch.randn(1, 64, 64)
    with torch.no_grad():
        near(model.base.codec.posterior(levels)[0], pipeline.vae.encode(levels[None]).latent_dist.mean, 1e-5)
        near(model.base.codec.vocode(levels), pipeline.vocoder(levels)[..., : 64 * 160], 1e-4)
    told = model.base.words(torch.tensor([[False, True]]), torch.tensor([[True, False]]), torch.tensor([True]))
    words, mask, generated = pipeline.encode_prompt(
        "in: drums_1; out: bass_1", torch.device("cpu"), 1, False, max_new_tokens=8
    )
    near(told.first, generated, 1e-5)
    near(told.second[:, : words.shape[1]], words, 1e-5)
    assert told.second_mask.sum() == mask.sum() and not told.second[:, words.shape[1] :].any()
    untold = model.base.words(torch.tensor([[False, True]]), torch.tensor([[True, False]]), torch.tensor([False]))
    near(untold.first, pipeline.encode_prompt("", torch.device("cpu"), 1, False, max_new_tokens=8)[2], 1e-5)


def test_a_pipeline_alone_becomes_a_base(given: Path, tmp_path: Path) -> None:
    out = tmp_path / "base"
    done = CliRunner().invoke(app, ["convert", "componet", str(given), "--stems", "bass,drums", "--out", str(out)])
    assert done.exit_code == 0, done.output
    base = checkpoint.load_model(out)
    assert isinstance(base, AudioLdm2) and base.config.stems == STEMS
    with pytest.raises(ModelError, match="which hears nothing"):
        stemwise.load(out)
    refused = CliRunner().invoke(app, ["convert", "msgld", str(given), "--stems", "a", "--out", str(tmp_path / "x")])
    assert refused.exit_code == 2 and "leave it away" in refused.output


def test_prompts_may_have_the_papers_form(pipeline: Any, given: Path, tmp_path: Path) -> None:
    words = ["convert", "componet", str(given), "--stems", "bass,drums", "--out", str(tmp_path / "base")]
    done = CliRunner().invoke(app, [*words, "--prompts", "paper"])
    assert done.exit_code == 0, done.output
    base = checkpoint.load_model(tmp_path / "base")
    assert isinstance(base, AudioLdm2) and base.config.text.form == "paper"
    told = base.words(torch.tensor([[False, True]]), torch.tensor([[True, False]]), torch.tensor([True]))
    expected = pipeline.encode_prompt("drums SEP bass", torch.device("cpu"), 1, False, max_new_tokens=8)[2]
    near(told.first, expected, 1e-5)
    refused = CliRunner().invoke(app, [*words, "--overwrite", "--prompts", "loud"])
    assert refused.exit_code == 2 and "two forms, released and paper" in refused.output


def test_recorded_names_are_those_that_are_read() -> None:
    """Renamed, the fixtures' names are exactly what our adapter holds, and they bring the recorded residuals."""
    adapter = published_control("deep")
    names = {published_name(name).removeprefix("controlnet."): name for name in adapter.state_dict()}
    assert {published: _ours(published) for published in names} == names
    assert len(names) == 1036 and len(PUBLISHED) == 4
    found = tensors("deep")
    assert config("deep")["cross_attention_dim"][0] == [None, 16, 24, None]
    with torch.no_grad():
        residuals = adapter(found["latent"], found["timestep"], found["condition"], **context(found))
    near(residuals.middle, found["control_mid"], 5e-4)


def without_control(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("controlnet.")}


def without_one(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name != "controlnet.conv_in.bias"}


def other_shape(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "unet.conv_in.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without_control, r"holds no controlnet\.\* tensors"),
        (without_one, "encoder.conv_in.bias: missing"),
        (other_shape, "conv_in.bias: expected shape"),
    ],
)
def test_checkpoints_that_are_not_whole(
    given: Path, state: dict[str, Tensor], tmp_path: Path, change: Any, named: str
) -> None:
    folder = with_checkpoint(given, tmp_path / "given", change(state))
    with pytest.raises(ModelError, match=named):
        convert_componet(folder, tmp_path / "model", STEMS)
    assert not (tmp_path / "model").exists()


def edited(part: str, **entries: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / part
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))

    return change


@pytest.mark.parametrize(
    ("change", "stems", "named"),
    [
        (lambda folder: shutil.rmtree(folder / "text_encoder_2"), STEMS, "no text_encoder_2; CompoNet tells its base in words"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), STEMS, "config.json: cannot be read"),
        (lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(), STEMS, "no safetensors; pickles"),
        (edited("vocoder/config.json", sampling_rate=44100), STEMS, "made for 44100 Hz; AudioLDM2's spectrograms are of 16000 Hz"),
        (edited("scheduler/scheduler_config.json", prediction_type="v_prediction"), STEMS, "expected 'epsilon'"),
        (edited("unet/config.json", in_channels=4), STEMS, "unet.in_channels is 4, not 8"),
        (lambda folder: None, ("bass", "Ä"), "has no tokens for all of 'in:; out: Ä_1'"),
        (lambda folder: None, tuple("abcdef"), "name at most 5"),
        (lambda folder: [(folder / name).touch() for name in ("a.ckpt", "b.ckpt")], STEMS, "holds 2 checkpoints"),
    ],
)  # fmt: skip
def test_bases_that_will_not_do(given: Path, tmp_path: Path, change: Any, stems: tuple[str, ...], named: str) -> None:
    folder = tmp_path / "given"
    shutil.copytree(given, folder)
    change(folder)
    with pytest.raises(ModelError, match=named):
        convert_componet(folder, tmp_path / "model", stems)
    assert not (tmp_path / "model").exists()


def test_missing_packages_are_named(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="not a folder"):
        convert_componet(given / "model_index.json", tmp_path / "model")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"pip install 'stemwise\[latents\]'"):
        ControlNet(UNET)
    with pytest.raises(ModelError, match=r"pip install 'stemwise\[latents\]'"):
        TextEncoders(given)
