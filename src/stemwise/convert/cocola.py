"""The published COCOLA checkpoints (COCOLA_HP_v1 and the single-channel ones of arXiv 2404.16969) -> a model folder.

They are Lightning files, pickles that name a few enumerations of the training code. The classes are not needed: the
file is read without executing anything, empty stand-ins take the place of those names and of no others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from stemwise import checkpoint
from stemwise.coherence.cocola import Cocola, CocolaConfig
from stemwise.convert.reading import read_pickle
from stemwise.errors import ModelError

#: Names of our network <- names of the published one; the first that matches counts.
_NAMES = (
    (r"encoder\.encoder\.model\.0\._conv_stem\.", "net.stem.convolution."),
    (r"encoder\.encoder\.model\.0\._bn0\.", "net.stem.batchnorm."),
    (r"encoder\.encoder\.model\.0\._conv_head\.", "net.head.0."),
    (r"encoder\.encoder\.model\.0\._bn1\.", "net.head.1."),
    (r"encoder\.encoder\.model\.0\._blocks\.(\d+)\._expand_conv\.", r"net.blocks.\1.expansion.expand_conv."),
    (r"encoder\.encoder\.model\.0\._blocks\.(\d+)\._bn0\.", r"net.blocks.\1.expansion.expand_bn."),
    (r"encoder\.encoder\.model\.0\._blocks\.(\d+)\._depthwise_conv\.", r"net.blocks.\1.depthwise_conv.depthwise_conv."),
    (r"encoder\.encoder\.model\.0\._blocks\.(\d+)\._bn1\.", r"net.blocks.\1.depthwise_conv.depthwise_norm."),
    (r"encoder\.encoder\.model\.0\._blocks\.(\d+)\._se_(reduce|expand)\.", r"net.blocks.\1.squeeze_excite.\2."),
    (r"encoder\.encoder\.model\.0\._blocks\.(\d+)\._project_conv\.", r"net.blocks.\1.projection.project_conv."),
    (r"encoder\.encoder\.model\.0\._blocks\.(\d+)\._bn2\.", r"net.blocks.\1.projection.project_bn."),
    (r"encoder\.projection\.", "projection."),
    (r"layer_norm\.", "norm."),
    (r"similarity\.w$", "bilinear.weight"),
)  # fmt: skip

#: Enumerations of the training code that a checkpoint may name.
_ENUMS = ("EmbeddingMode", "ModelInputType", "Dataset", "ModelFeatureExtractorType", "FeatureExtractionTime")
_MODULE = "contrastive_model.constants"
_FEATURES: dict[str, Literal["hpss", "mel"]] = {
    "double_channel_harmonic_percussive": "hpss",
    "single_channel_mel_spectrogram": "mel",
}


def convert_cocola(file: Path, folder: Path) -> Path:
    """Write the model folder of a published checkpoint and return it.

    Raises ModelError where the file is no such checkpoint or not a whole one; nothing is written then.
    """
    document = read_checkpoint(file)
    module = module_of(document, str(file))
    source = {"converted_from": file.name, "epoch": document.get("epoch"), "step": document.get("global_step")}
    return checkpoint.save_model(folder, module, metadata=source)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The contents of a Lightning file, the enumerations of COCOLA's training code as strings. Raises ModelError."""
    stand_ins = {f"{_MODULE}.{name}": _stand_in(name) for name in _ENUMS}
    document = read_pickle(file, "COCOLA", "the .ckpt that was published", stand_ins)
    if not isinstance(document.get("state_dict"), dict):
        raise ModelError(f"{file}: holds no state_dict; give the Lightning checkpoint of a training (.ckpt)")
    return document


def module_of(document: Mapping[str, Any], place: str) -> Cocola:
    """The model that a checkpoint's contents describe. Raises ModelError naming the tensors that do not fit."""
    tensors = renamed(document["state_dict"])
    settings = document.get("hyper_parameters", {})
    kind = str(settings.get("input_type", "double_channel_harmonic_percussive"))
    if kind not in _FEATURES:
        raise ModelError(f"{place}: input_type {kind!r} is unknown; known: {', '.join(_FEATURES)}")
    config = CocolaConfig(
        features=_FEATURES[kind],
        embedding=int(settings.get("embedding_dim", 512)),
        dropout=float(settings.get("dropout_p", 0.1)),
    )
    module = Cocola(config)
    differences = checkpoint.differences(module, tensors)
    if differences:
        raise ModelError(f"{place}: not a whole COCOLA checkpoint; {differences}\ndownload it again")
    module.load_state_dict(tensors)
    return module.eval()


class _Word(str):
    """Stands for a member of an enumeration: its value."""


def _stand_in(name: str) -> type[_Word]:
    return type(name, (_Word,), {"__module__": _MODULE})


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names; names that are not COCOLA's stay."""
    result = {}
    for name, tensor in state.items():
        for pattern, ours in _NAMES:
            new, count = re.subn(f"^{pattern}", ours, name)
            if count:
                break
        result[new if count else name] = tensor
    return result
