"""The recorded behaviour of the published MSDM: its fixtures, and weights rebuilt from the names of its tensors."""

from __future__ import annotations

import json
import zlib
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from stemwise.convert.msdm import read_state
from stemwise.nets.unet1d import UNet1d, UNet1dConfig

FIXTURES = Path(__file__).parent / "fixtures" / "msdm"


def facts(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


def state(shapes: dict[str, list[int]], salt: str) -> dict[str, Tensor]:
    """Values that depend on key, shape and salt alone; some gains keep attention alive and the output unclipped."""
    gains = facts("unet_tiny")["gain_after_fill"]
    made = {key: _tensor(key, shape, salt) for key, shape in shapes.items()}
    for ending, factor in gains:
        for key in made:
            if key.endswith(ending):
                made[key] = made[key] * factor
    return made


def tiny(which: str = "four_source", salt: str = "") -> UNet1d:
    """The recorded network of `unet_tiny.json`, loaded through the converter's names."""
    about = facts("unet_tiny")
    c = about["config"]
    config = UNet1dConfig(
        sources=about["weights"][which]["in_channels"],
        channels=c["channels"],
        patch=c["patch_factor"],
        multipliers=tuple(c["multipliers"]),
        factors=tuple(c["factors"]),
        blocks=tuple(c["num_blocks"]),
        attention=tuple(c["attentions"]),
        heads=c["attention_heads"],
        head_features=c["attention_features"],
        expansion=c["attention_multiplier"],
        groups=c["resnet_groups"],
    )
    made = state(about["shapes"][which], salt or about["weights"][which]["salt"])
    net = UNet1d(config)
    net.load_state_dict(read_state(net, {f"model.unet.{key}": tensor for key, tensor in made.items()}, "tiny"))
    return net.eval()


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The ideal denoiser of the recorded closed-form runs: independent Gaussian stems."""
    power = torch.tensor((0.2, 0.05, 0.1, 0.02), dtype=x.dtype)[:, None] ** 2
    return power / (power + sigma**2) * x


def _tensor(key: str, shape: list[int], salt: str) -> Tensor:
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(f"{salt}|{key}".encode())))
    normal = random.standard_normal(prod(shape)).reshape(shape)
    if len(shape) >= 2:
        values = normal / sqrt(prod(shape[1:]))
    elif key.endswith("weight"):
        values = 1.0 + 0.1 * normal
    else:
        values = 0.1 * normal
    return torch.from_numpy(np.asarray(values, np.float32))
