"""An AudioLDM2 pipeline small enough for tests, with random weights, as diffusers saves it."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

UNET: dict[str, Any] = {
    "sample_size": 32, "in_channels": 8, "out_channels": 8, "norm_num_groups": 4, "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16], "cross_attention_dim": [[None, 16, 24]] * 2, "attention_head_dim": 2,
}  # fmt: skip


def tiny_pipeline() -> Any:
    """With a language model that has the methods which diffusers' own roll-out calls; the published one has not."""
    from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AutoencoderKL, DDIMScheduler
    from tokenizers import pre_tokenizers
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        GPT2Config,
        GPT2LMHeadModel,
        RobertaTokenizer,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
        T5Config,
        T5EncoderModel,
        T5Tokenizer,
    )

    from stemwise.nets.pretrained import audioldm2_unet

    torch.manual_seed(0)
    sentence = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    letters = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_letters, *string.digits, *"_:;,"]
    clap = ClapConfig(
        text_config={"vocab_size": len(sentence), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "max_position_embeddings": 80, "pad_token_id": 1, "projection_dim": 12},
        audio_config={"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 1], "hidden_size": 16,
                      "spec_size": 32, "patch_size": 4, "patch_stride": [4, 4], "num_mel_bins": 8, "window_size": 4,
                      "projection_dim": 12},
        projection_dim=12,
    )  # fmt: skip
    t5 = T5Config(vocab_size=len(letters), d_model=24, d_ff=16, d_kv=4, num_heads=2, num_layers=1)
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=16000, upsample_initial_channel=32, upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4], resblock_kernel_sizes=[3, 7, 11], resblock_dilation_sizes=[[1, 3, 5]] * 3,
        normalize_before=False,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 8), layers_per_block=1, latent_channels=8, norm_num_groups=4, scaling_factor=0.411,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )
    pipeline = AudioLDM2Pipeline(
        vae=vae,
        text_encoder=ClapModel(clap),
        text_encoder_2=T5EncoderModel(t5),
        projection_model=AudioLDM2ProjectionModel(12, 24, 16),
        language_model=GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=80, n_embd=16, n_layer=2, n_head=2)),
        tokenizer=RobertaTokenizer(
            vocab={token: index for index, token in enumerate(sentence)}, merges=[], model_max_length=60
        ),
        tokenizer_2=T5Tokenizer(
            vocab=[(piece, -float(index)) for index, piece in enumerate(letters)], extra_ids=0, model_max_length=60
        ),
        feature_extractor=ClapFeatureExtractor(),
        unet=audioldm2_unet(UNET),
        scheduler=scheduler,
        vocoder=SpeechT5HifiGan(vocoder),
    )
    for name in ("vae", "text_encoder", "text_encoder_2", "projection_model", "language_model", "unet", "vocoder"):
        getattr(pipeline, name).eval()
    return pipeline


def save_pipeline(pipeline: Any, folder: Path) -> Path:
    """The published language model is one without a head."""
    from transformers import GPT2Model

    pipeline.save_pretrained(folder)
    bare = GPT2Model(pipeline.language_model.config)
    bare.load_state_dict(pipeline.language_model.transformer.state_dict())
    bare.save_pretrained(folder / "language_model")
    return folder
