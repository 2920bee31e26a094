"""Kept networks of diffusers, built from their own configurations; imported only when one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemwise.errors import ModelError
from stemwise.extras import needed


def audioldm2_unet(config: Mapping[str, Any]) -> Any:
    """AudioLDM2's U-Net (Liu et al. 2023), `AudioLDM2UNet2DConditionModel`. Raises ModelError."""
    return _built("AudioLDM2UNet2DConditionModel", config)


def stable_audio_transformer(config: Mapping[str, Any]) -> Any:
    """Stable Audio's transformer (Evans et al. 2024), `StableAudioDiTModel`. Raises ModelError."""
    return _built("StableAudioDiTModel", config)


def _built(name: str, config: Mapping[str, Any]) -> Any:
    diffusers = needed("diffusers", "latents")
    cls = getattr(diffusers, name, None)
    if cls is None:
        raise ModelError(f"diffusers {diffusers.__version__} has no {name}: pip install -U 'stemwise[latents]'")
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"these are no arguments of diffusers' {name}: {error}") from error
