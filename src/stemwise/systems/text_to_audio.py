"""Pretrained text-to-audio models of diffusers: latents, the waves that they stand for, a denoiser that is told in words.

A model is a folder as a pipeline's `save_pretrained` writes it, with safetensors; nothing in it is executed, and the
pipeline's own loop is not used. States are latents on the scale where noise of level sigma has the deviation sigma.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stemwise.codecs.mel import Mel
from stemwise.diffusion import Denoiser, FromEps, FromV, interpolated, scaled_linear_beta
from stemwise.errors import ModelError
from stemwise.extras import needed
from stemwise.files import read_json
from stemwise.nets.audioldm2_text import TextEncoders
from stemwise.systems.prompts import Prompt, descriptions, folded

INDEX = "model_index.json"


class TextToAudio(ABC, nn.Module):
    """What adapters have in common; subclasses say how latents are told, denoised, and turned into waves."""

    #: Sample rate in hertz, channels of a wave, its length in samples, and the noise levels that sampling runs between.
    rate: int
    channels: int
    window: int
    sigma_min: float
    sigma_max: float

    def prompted(self, prompts: Sequence[Prompt], most: int = 8) -> Denoiser:
        """The denoiser of latents (batch, slot, ...), a prompt for each slot, see `prompts.folded`."""
        told = self.told([", ".join(words) for words in descriptions(prompts)])

        def evaluate(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
            return self.denoise(x, sigma, {name: value[rows] for name, value in told.items()})

        return folded(evaluate, prompts, most)

    @abstractmethod
    def told(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the network hears of texts, by name, each (text, ...)."""

    @abstractmethod
    def denoise(self, x: Tensor, sigma: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        """E[clean | x] of latents (n, ...) at levels (n,)."""

    @abstractmethod
    def encode(self, wave: Tensor) -> Tensor:
        """Latents (n, ...) of waves (n, channel, window)."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Waves (n, channel, window) of latents (n, ...), with gradients."""


class StableAudio(TextToAudio):
    """Stable Audio Open (Evans et al. 2024): stereo at 44.1 kHz, an Oobleck autoencoder, a transformer that predicts v."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = _tokenizer(folder)
        self.text = _part(folder, "text_encoder", "transformers", "T5EncoderModel")
        self.projection = _part(folder, "projection_model", "diffusers", "StableAudioProjectionModel")
        self.transformer = _part(folder, "transformer", "diffusers", "StableAudioDiTModel")
        self.vae = _part(folder, "vae", "diffusers", "AutoencoderOobleck")
        self.rate, self.channels = int(self.vae.config.sampling_rate), int(self.vae.config.audio_channels)
        self.window = int(self.transformer.config.sample_size) * int(self.vae.hop_length)
        scheduler = _document(folder / "scheduler" / "scheduler_config.json")
        self.sigma_min, self.sigma_max = float(scheduler.get("sigma_min", 0.3)), float(scheduler.get("sigma_max", 500))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def told(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """T5's words, then the seconds at which the window begins and ends; all zero where nothing is said."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.transformer.device)
        words = self.text(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        seconds = torch.tensor([0.0, self.window / self.rate], device=words.device)
        starts, ends = (second.expand(len(texts)) for second in seconds)
        made = self.projection(text_hidden_states=words, start_seconds=starts, end_seconds=ends)
        spoken = made.text_hidden_states * tokens.attention_mask[..., None].to(words)
        times = [made.seconds_start_hidden_states, made.seconds_end_hidden_states]
        said = torch.tensor([bool(text) for text in texts], device=words.device)[:, None, None]
        return {"words": torch.cat([spoken, *times], 1) * said, "times": torch.cat(times, 2)}

    def denoise(self, x: Tensor, sigma: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        """As the pipeline's scheduler preconditions it: v, labelled by the angle of the noise."""
        return FromV(partial(self._net, told=told))(x, sigma)

    def _net(self, x: Tensor, time: Tensor, /, told: Mapping[str, Tensor]) -> Tensor:
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        width, length = self.transformer.config.attention_head_dim // 2, x.shape[2] + told["times"].shape[1]
        rotary = get_1d_rotary_pos_embed(width, length, use_real=True, repeat_interleave_real=False)
        out: Tensor = self.transformer(
            x,
            time,
            encoder_hidden_states=told["words"],
            global_hidden_states=told["times"],
            rotary_embedding=tuple(part.to(x.device) for part in rotary),
            return_dict=False,
        )[0]
        return out

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """The most likely latents."""
        latent: Tensor = self.vae.encode(wave).latent_dist.mode()
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Waves."""
        wave: Tensor = self.vae.decode(latent).sample
        return wave


class MelLatents(TextToAudio):
    """Models of mono latents at 16 kHz: an autoencoder of log-mels and a vocoder, a U-Net that predicts noise."""

    unet_class = "UNet2DConditionModel"

    def __init__(self, folder: Path, seconds: float = 10.24) -> None:
        super().__init__()
        self.unet = _part(folder, "unet", "diffusers", self.unet_class)
        self.vae = _part(folder, "vae", "diffusers", "AutoencoderKL")
        self.vocoder = _part(folder, "vocoder", "transformers", "SpeechT5HifiGan")
        scheduler = _document(folder / "scheduler" / "scheduler_config.json")
        steps, first, last = (scheduler.get(k) for k in ("num_train_timesteps", "beta_start", "beta_end"))
        if (
            scheduler.get("beta_schedule") != "scaled_linear"
            or scheduler.get("prediction_type", "epsilon") != "epsilon"
        ):
            raise ModelError(f"{folder / 'scheduler'}: scaled_linear betas and epsilon are expected")
        self.alphas = scaled_linear_beta(int(steps or 1000), float(first or 0.0015), float(last or 0.0195))
        levels = ((1 - self.alphas) / self.alphas).sqrt()
        self.sigma_min, self.sigma_max = float(levels[0]), float(levels[-1])
        self.mel = Mel(rate=int(self.vocoder.config.sampling_rate), bands=int(self.vocoder.config.model_in_dim))
        self.rate, self.channels = self.mel.rate, 1
        step = self.mel.hop * 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.window = round(seconds * self.rate / step) * step
        self.requires_grad_(False).eval()

    def denoise(self, x: Tensor, sigma: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        """The noise, labelled by time steps of the training's schedule, between its own."""
        return FromEps(partial(self._net, told=told), interpolated(self.alphas))(x, sigma)

    def _net(self, x: Tensor, time: Tensor, /, told: Mapping[str, Tensor]) -> Tensor:
        """`told` has the names of the U-Net's arguments."""
        out: Tensor = self.unet(x, time, **{"encoder_hidden_states": None, **told}, return_dict=False)[0]
        return out

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """The most likely latents, scaled as the U-Net has them."""
        latent: Tensor = self.vae.encode(self.mel.log(wave)).latent_dist.mode()
        return latent * self.vae.config.scaling_factor

    def decode(self, latent: Tensor) -> Tensor:
        """Waves of the vocoder."""
        levels = self.vae.decode(latent / self.vae.config.scaling_factor).sample
        wave: Tensor = self.vocoder(levels[:, 0])
        return wave[:, None, : self.window]


class AudioLdm2(MelLatents):
    """AudioLDM2 (Liu et al. 2023): told by GPT-2's continuation of CLAP's sentence and by T5's words."""

    unet_class = "AudioLDM2UNet2DConditionModel"

    def __init__(self, folder: Path, seconds: float = 10.24) -> None:
        super().__init__(folder, seconds)
        self._encoders = [TextEncoders(folder)]  # in a list: not parts of the module, they stay on the CPU

    def told(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """As the U-Net's two attentions hear it."""
        states, place = self._encoders[0].encode(texts), self.unet.device
        names = ("encoder_hidden_states", "encoder_hidden_states_1", "encoder_attention_mask_1")
        return {name: value.to(place) for name, value in zip(names, (states.generated, states.words, states.mask))}


class MusicLdm(MelLatents):
    """MusicLDM (Chen et al. 2024), as long as diffusers keeps it: told by CLAP's sentence alone."""

    def __init__(self, folder: Path, seconds: float = 10.24) -> None:
        super().__init__(folder, seconds)
        self._clap = [_part(folder, "text_encoder", "transformers", "ClapModel")]
        self.tokenizer = _tokenizer(folder)

    @torch.no_grad()
    def told(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """CLAP's embedding of every text, which the U-Net takes for a class."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        said = self._clap[0].get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        said = getattr(said, "pooler_output", said)  # an output object since transformers 5
        return {"class_labels": said.to(self.unet.device)}


PIPELINES: dict[str, type[StableAudio] | type[MelLatents]] = {
    "StableAudioPipeline": StableAudio,
    "AudioLDM2Pipeline": AudioLdm2,
    "MusicLDMPipeline": MusicLdm,
}


def text_to_audio(folder: Path) -> TextToAudio:
    """The adapter for a pipeline's folder. Raises ModelError for other pipelines, and where a part is missing."""
    kind = _document(folder / INDEX).get("_class_name")
    if kind not in PIPELINES:
        raise ModelError(f"{folder}: a {kind} is not known; pipelines that are: {', '.join(PIPELINES)}")
    return PIPELINES[kind](folder)


def _document(file: Path) -> dict[str, Any]:
    try:
        document = read_json(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read ({error}); give the whole folder of the pipeline") from error
    return dict(document)


def _tokenizer(folder: Path) -> Any:
    # None, which is the default, asks whoever sits at the terminal whether a folder's code may run
    return _loaded(folder, "tokenizer", "transformers", "AutoTokenizer", trust_remote_code=False)


def _part(folder: Path, part: str, library: str, kind: str) -> Any:
    options = {"low_cpu_mem_usage": False} if library == "diffusers" else {}  # which would need a further package
    return _loaded(folder, part, library, kind, use_safetensors=True, **options).eval()


def _loaded(folder: Path, part: str, library: str, kind: str, **options: Any) -> Any:
    if not (folder / part).is_dir():
        raise ModelError(f"{folder}: no {part}; give the whole folder of the pipeline, with its text encoder")
    module = needed(library, "latents")
    if kind == "StableAudioProjectionModel":
        from diffusers.pipelines.stable_audio import StableAudioProjectionModel as cls
    else:
        cls = getattr(module, kind, None)
    if cls is None:
        raise ModelError(f"{library} {module.__version__} has no {kind}: pip install -U 'stemwise[latents]'")
    try:
        return cls.from_pretrained(folder / part, local_files_only=True, **options)
    except Exception as error:  # whatever a damaged folder makes the reader raise
        raise ModelError(f"{folder / part}: does not load as a {kind}: {error}") from error
