"""Pretrained text-to-audio models as GMSDI's prior: the pipelines' own numbers, coupling where latents are decoded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from typer.testing import CliRunner

import stemwise
from stemwise import cli
from stemwise.errors import ModelError, QueryError
from stemwise.nets.vocabulary import text_encoder
from stemwise.systems.latent_gmsdi import LatentGmsdi, pulled
from stemwise.systems.prompts import Prompt
from stemwise.systems.text_to_audio import AudioLdm2, MusicLdm, StableAudio, text_to_audio
from tiny_pipeline import save_pipeline, tiny_pipeline
from tiny_stable_audio import save_stable_audio, tiny_stable_audio


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    pipeline = tiny_stable_audio()
    return pipeline, save_stable_audio(pipeline, tmp_path_factory.mktemp("stable-audio"))


@pytest.fixture(scope="module")
def ldm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    pipeline = tiny_pipeline()
    return pipeline, save_pipeline(pipeline, tmp_path_factory.mktemp("audioldm2"))


@torch.no_grad()
def test_stable_audio_is_told_and_denoises_as_its_pipeline_does(stable: tuple[Any, Path]) -> None:
    pipeline, folder = stable
    model = StableAudio(folder)
    assert (model.rate, model.channels, model.window) == (8000, 2, 128)
    told = model.told(["slap bass", ""])
    spoken = pipeline.encode_prompt(["slap bass"], "cpu", False)
    first, last = pipeline.encode_duration(0.0, 128 / 8000, "cpu", False, 1)
    words, times = torch.cat([spoken, first, last], 1), torch.cat([first, last], 2)
    torch.testing.assert_close(told["words"][:1], words)
    torch.testing.assert_close(told["times"][:1], times)
    assert not told["words"][1].any()
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(5)
    x = 3 * torch.randn(1, 3, 64)
    sigma = scheduler.sigmas[2]
    angle = sigma.atan() * 2 / torch.pi  # as CosineDPMSolverMultistepScheduler, the published one, which needs torchsde
    rotary = get_rotary(pipeline, 64 + 1)
    raw = pipeline.transformer(
        scheduler.precondition_inputs(x, sigma), angle[None], encoder_hidden_states=words,
        global_hidden_states=times, rotary_embedding=rotary, return_dict=False,
    )[0]  # fmt: skip
    expected = scheduler.precondition_outputs(x, raw, sigma)
    denoiser = model.prompted([Prompt(("slap bass",))])
    torch.testing.assert_close(denoiser(x[:, None], sigma)[:, 0], expected, atol=1e-5, rtol=1e-5)


def get_rotary(pipeline: Any, length: int) -> Any:
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    return get_1d_rotary_pos_embed(pipeline.rotary_embed_dim, length, use_real=True, repeat_interleave_real=False)


@torch.no_grad()
def test_audioldm2_is_told_and_denoises_as_its_pipeline_does(ldm: tuple[Any, Path]) -> None:
    pipeline, folder = ldm
    model = AudioLdm2(folder, seconds=0.64)
    told = model.told(["bass"])
    alphas = pipeline.scheduler.alphas_cumprod
    x = torch.randn(1, 8, 16, 16)
    sigma = ((1 - alphas[400]) / alphas[400]).sqrt()
    noise = pipeline.unet(
        x / (1 + sigma**2).sqrt(), torch.tensor([400]), **told, return_dict=False,
    )[0]  # fmt: skip
    found = model.prompted([Prompt(("bass",))])(x[:, None], sigma)[:, 0]
    torch.testing.assert_close(found, x - sigma * noise, atol=1e-3, rtol=1e-3)
    wave = 0.1 * torch.randn(2, 1, model.window)
    latent = model.encode(wave)
    expected = pipeline.vae.decode(latent / pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(
        model.decode(latent)[:, 0], pipeline.mel_spectrogram_to_waveform(expected)[:, : model.window]
    )


@torch.no_grad()
def test_musicldm_is_told_by_clap_alone(ldm: tuple[Any, Path], tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    for part in ("vae", "vocoder", "scheduler", "text_encoder", "tokenizer"):
        shutil.copytree(ldm[1] / part, tmp_path / part)
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=8, out_channels=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(8, 16), class_embed_type="simple_projection", projection_class_embeddings_input_dim=12,
        class_embeddings_concat=True,
    ).eval()  # fmt: skip
    unet.save_pretrained(tmp_path / "unet")
    (tmp_path / "model_index.json").write_text('{"_class_name": "MusicLDMPipeline"}')
    model = text_to_audio(tmp_path)
    assert isinstance(model, MusicLdm)
    told = model.told(["slap bass", "drums"])
    assert told["class_labels"].shape == (2, 12)
    assert not torch.allclose(told["class_labels"][0], told["class_labels"][1])
    alphas = ldm[0].scheduler.alphas_cumprod
    x, sigma = torch.randn(1, 8, 16, 16), ((1 - alphas[300]) / alphas[300]).sqrt()
    noise = unet(x / (1 + sigma**2).sqrt(), torch.tensor([300]), None, class_labels=told["class_labels"][:1]).sample
    found = model.prompted([Prompt(("slap bass",))])(x[:, None], sigma)[:, 0]
    torch.testing.assert_close(found, x - sigma * noise, atol=1e-3, rtol=1e-3)


def test_estimates_step_towards_agreement() -> None:
    """Two slots decoded by a known matrix: the step is the best one along the slope, less with gamma, none without end."""
    torch.manual_seed(0)
    matrix, mix = torch.randn(12, 6), torch.randn(3, 1, 12)

    def gap(x: Tensor) -> Tensor:
        return mix - (x @ matrix.T).sum(1, keepdim=True)

    def free(x: Tensor, sigma: Tensor, /) -> Tensor:
        return x

    x = torch.randn(3, 2, 6)
    slope = (-gap(x) @ matrix).expand(-1, 2, -1)
    along = (slope @ matrix.T).sum(1, keepdim=True)
    best = -(gap(x) * along).sum((1, 2)) / along.square().sum((1, 2))
    for gamma in (0.0, 0.5, 3.0):
        found = pulled(free, gap, gamma)(x, torch.tensor(1.0))
        expected = x - best[:, None, None] / (1 + gamma**2) * slope
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(pulled(free, gap, 1e4)(x, torch.tensor(1.0)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["stable", "ldm"])
def test_every_verb_through_the_public_interface(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)[1]
    model = stemwise.load(folder, stems=["bass", "drums"], guidance=2.0, candidates=2)
    if kind == "ldm":
        model.system.prior.window = 8 * 640  # type: ignore[attr-defined]
    assert model.stems == ("bass", "drums")
    seconds = 1.2 * model.window / model.rate
    song = (0.1 * np.random.default_rng(0).standard_normal((2, round(seconds * model.rate)))).astype(np.float32)
    stems = model.separate(song, rate=model.rate, evaluations=2)
    np.testing.assert_allclose(stems.data[0].sum(0).numpy(), song, atol=1e-5)
    made = model.generate(seconds, steps=2)
    assert made.names == model.stems and bool(made.data.isfinite().all())
    made = model.accompany({"drums": song}, ["bass"], rate=model.rate, steps=2)
    np.testing.assert_array_equal(made["drums"][0].numpy(), song)


@torch.no_grad()
def test_the_candidate_that_comes_closest_is_taken(stable: tuple[Any, Path]) -> None:
    system = stemwise.load(stable[1], stems=["bass", "drums"]).system
    assert isinstance(system, LatentGmsdi)
    wave = 0.1 * torch.randn(1, 2, system.window)
    lacks = [float(system.asked(candidates=count).separate(wave, 3)[1].square().sum()) for count in (1, 6)]
    assert lacks[1] <= lacks[0]
    tight, loose = (float(system.asked(gamma=g).separate(wave, 6)[1].square().sum()) for g in (0.0, 1e6))
    assert tight < loose


def test_mistakes_are_named(stable: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"no dirac separator.*best of several candidates"):
        stemwise.load(stable[1], likelihood="dirac")
    with pytest.raises(QueryError, match="takes no phase"):
        stemwise.load(stable[1], phase="vocoder")
    for gamma in (-1.0, 1e155):
        with pytest.raises(QueryError, match="give 0 to 1e6"):
            stemwise.load(stable[1], gamma=gamma)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ModelError, match="a FluxPipeline is not known; pipelines that are: StableAudioPipeline"):
        text_to_audio(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableAudioPipeline"}')
    with pytest.raises(ModelError, match="no tokenizer; give the whole folder"):
        text_to_audio(tmp_path)


@pytest.mark.parametrize("opened", ["pipeline", "text encoder"])
def test_code_in_a_folder_is_not_run_whatever_is_typed(
    opened: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    part = tmp_path / "tokenizer"
    part.mkdir()
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableAudioPipeline"}')
    own = {"auto_map": {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None]}}
    (part / "config.json").write_text(json.dumps({"model_type": "own", **own}))
    (part / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", **own}))
    (part / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with pytest.raises(ModelError):
        text_to_audio(tmp_path) if opened == "pipeline" else text_encoder("t5", str(part))
    assert not (tmp_path / "run").exists()


def test_through_the_command_line(stable: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stable[1].rename(tmp_path / "stable")
    try:
        soundfile.write("song.wav", 0.1 * np.random.default_rng(0).standard_normal((300, 2)), 8000, subtype="FLOAT")
        words = ["separate", "song.wav", "-n", "stable", "--stem", "slap bass", "--evaluations", "1"]
        result = CliRunner().invoke(cli.app, words)
        assert result.exit_code == 0, result.output
        stems = [soundfile.read(f"separated/stable/song/{name}.wav")[0] for name in ("slap-bass", "rest")]
        np.testing.assert_allclose(sum(stems), soundfile.read("song.wav")[0], atol=1e-5)
        result = CliRunner().invoke(cli.app, ["info", "stable", "--json"])
        assert json.loads(result.stdout)["rate_hz"] == 8000
    finally:
        (tmp_path / "stable").rename(stable[1])
