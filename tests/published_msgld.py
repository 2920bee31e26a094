"""The recorded behaviour of the published MSG-LD: its fixtures, and weights rebuilt from the names of its tensors."""

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

from stemwise.codecs.melvae import MelVae, MelVaeConfig
from stemwise.convert.msgld import load, renamed_unet, renamed_vae, renamed_vocoder
from stemwise.nets.unet_stems import UNetStems, UNetStemsConfig

FIXTURES = Path(__file__).parent / "fixtures" / "msgld"
CODEC = MelVaeConfig(widths=(32, 64, 128), vocoder_width=64)
UNET = UNetStemsConfig(channels=32, multipliers=(1, 2, 3), attention=(False, True, True))


def facts(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


def tensor(key: str, shape: list[int]) -> Tensor:
    """The recorded runs' weights depend on the tensors' names and shapes alone."""
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(f"public|{key}".encode())))
    normal = random.standard_normal(prod(shape)).reshape(shape)
    if len(shape) >= 2:
        values = normal / sqrt(prod(shape[1:]))
    elif key.endswith("weight"):
        values = 1.0 + 0.1 * normal
    else:
        values = 0.1 * normal
    return torch.from_numpy(np.asarray(values, np.float32))


def weights(folder: str) -> dict[str, Tensor]:
    return {key: tensor(key, shape) for key, shape in facts(f"{folder}/keys").items()}


def unet(folder: str, config: UNetStemsConfig) -> UNetStems:
    net = UNetStems(config)
    load(net, renamed_unet(weights(folder)), Path(folder))
    return net.eval().requires_grad_(False)


def codec() -> MelVae:
    """The tiny autoencoder and vocoder side by side; the vocoder's gains keep it audible."""
    module = MelVae(CODEC)
    load(module.vae, renamed_vae(weights("vae_tiny")), Path("vae_tiny"))
    gains = facts("vocoder_tiny/config")["gains"]
    pairs = {key: value * gains.get(key, 1.0) for key, value in weights("vocoder_tiny").items()}
    load(module.vocoder, renamed_vocoder(pairs), Path("vocoder_tiny"))
    return module.eval().requires_grad_(False)


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    """Equal up to a share of the largest expected magnitude, as the fixtures' README says."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance * float(expected.abs().max()))
