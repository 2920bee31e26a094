"""The recorded behaviour of the published COCOLA: its fixtures, and weights rebuilt from the names of its tensors."""

from __future__ import annotations

import json
import zlib
from math import prod, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from stemwise.coherence.cocola import Cocola, CocolaConfig
from stemwise.convert.cocola import renamed

FIXTURES = Path(__file__).parent / "fixtures" / "cocola"


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


def facts() -> Any:
    return json.loads((FIXTURES / "published.json").read_text())


def weights(kind: Literal["hpss", "mel"]) -> dict[str, Tensor]:
    """A whole state dict under the published names."""
    shapes = dict(facts()["keys"])
    if kind == "mel":
        shapes["encoder.encoder.model.0._conv_stem.weight"] = [32, 1, 3, 3]
        statistics = {name[3:]: tensor for name, tensor in tensors("encoder_mel").items() if name.startswith("bn.")}
    else:
        statistics = tensors("encoder_bn")
    return {name: _tensor(name, shape) for name, shape in shapes.items()} | statistics


def model(kind: Literal["hpss", "mel"]) -> Cocola:
    module = Cocola(CocolaConfig(features=kind))
    module.load_state_dict(renamed(weights(kind)))
    return module.eval()


def _tensor(key: str, shape: list[int]) -> Tensor:
    """Normal values of a scale that keeps activations of order one; they depend on the key and the shape alone."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(f"public|{key}".encode())))
    normal = rng.standard_normal(prod(shape)).reshape(shape)
    if key.endswith("running_var"):
        values = 0.5 + np.abs(normal)
    elif len(shape) >= 2:
        values = normal / sqrt(prod(shape[1:]))
    else:
        values = 0.1 * normal + float(key.endswith("weight"))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
