"""A Stable Audio pipeline small enough for tests, with random weights, as diffusers saves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["<pad>", "</s>", "<unk>", "bass", "drums", "guitar", "piano", "slap", "funk", ","]


def tiny_stable_audio() -> Any:
    from diffusers import AutoencoderOobleck, EDMDPMSolverMultistepScheduler, StableAudioDiTModel, StableAudioPipeline
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    t5 = T5Config(vocab_size=len(WORDS), d_model=16, d_ff=16, d_kv=8, num_heads=2, num_layers=1)
    pipeline = StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=6, downsampling_ratios=[1, 2], decoder_channels=3, decoder_input_channels=3,
            audio_channels=2, channel_multiples=[2, 4], sampling_rate=8000,
        ),
        text_encoder=T5EncoderModel(t5),
        projection_model=StableAudioProjectionModel(text_encoder_dim=16, conditioning_dim=8, min_value=0, max_value=32),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=8
        ),
        transformer=StableAudioDiTModel(
            sample_size=64, in_channels=3, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            num_key_value_attention_heads=2, out_channels=3, cross_attention_dim=8, time_proj_dim=8,
            global_states_input_dim=16, cross_attention_input_dim=8,
        ),
        scheduler=EDMDPMSolverMultistepScheduler(
            sigma_min=0.3, sigma_max=500, sigma_data=1.0, prediction_type="v_prediction", sigma_schedule="exponential"
        ),
    )  # fmt: skip
    for name in ("vae", "text_encoder", "projection_model", "transformer"):
        getattr(pipeline, name).eval()
    return pipeline


def save_stable_audio(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder
