"""The recorded behaviour of the published Mixture2Music: its fixtures, and weights rebuilt from the names of its tensors."""

from __future__ import annotations

import functools
import json
import zlib
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from stemwise.convert.mixture2music import load_published
from stemwise.systems.mixture2music import Mixture2Music, Mixture2MusicConfig

FIXTURES = Path(__file__).parent / "fixtures" / "mixture2music"


@functools.cache
def facts(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


def weights(part: str, *, tables: bool = True) -> dict[str, Tensor]:
    """The state of "transunet" or "decoder" as a checkpoint has it, or with the tables of positions that none has."""
    shapes = facts("keys")[part] | (facts("keys")["not_in_checkpoint"] if tables and part == "transunet" else {})
    return {key: _tensor(key, tuple(shape)) for key, shape in shapes.items()}


@functools.cache
def published() -> Mixture2Music:
    """The recorded networks, loaded through the converter's names."""
    module = Mixture2Music(Mixture2MusicConfig())
    load_published(module.net, weights("transunet"), "model.", "fixture")
    assert module.decoder is not None
    load_published(module.decoder, weights("decoder"), "decoder.", "fixture")
    return module.eval().requires_grad_(False)


def _tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """Normal values that depend on the name alone: over the square root of what a cell reads, gains near 1, biases near 0."""
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(f"public|{key}".encode())))
    normal = rng.standard_normal(prod(shape)).reshape(shape)
    if len(shape) >= 2:
        values = normal / sqrt(prod(shape[1:]))
    else:
        values = (1.0 if key.endswith("weight") else 0.0) + 0.1 * normal
    return torch.from_numpy(values.astype(np.float32))
