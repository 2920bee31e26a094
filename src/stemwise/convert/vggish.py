"""The usual VGGish weights for PyTorch (vggish-*.pth, a plain state dict) -> a model folder."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from stemwise import checkpoint
from stemwise.errors import ModelError
from stemwise.nets.vggish import Vggish, VggishConfig

_CONVOLUTIONS = (0, 3, 6, 11)
_PCA = ("pproc.pca_eigen_vectors", "pproc.pca_means")


def convert_vggish(file: Path, folder: Path) -> Path:
    """Write the model folder of a VGGish state dict and return it; PCA parameters, if any, are left out.

    Raises ModelError where the file is no VGGish or not a whole one; nothing is written then.
    """
    tensors = {name: tensor for name, tensor in _read(file).items() if name not in _PCA}
    try:
        a, b, c, d = (len(tensors[f"features.{i}.weight"]) for i in _CONVOLUTIONS)
        config = VggishConfig((a, b, c, d), len(tensors["embeddings.0.weight"]), len(tensors["embeddings.4.weight"]))
    except KeyError as error:
        raise ModelError(f"{file}: no VGGish, the tensor {error} is missing; give the .pth of torchvggish") from error
    module = Vggish(config)
    misfits = checkpoint.differences(module, tensors)
    if misfits:
        raise ModelError(f"{file}: not a whole VGGish; {misfits}\ndownload it again")
    module.load_state_dict(tensors)
    return checkpoint.save_model(folder, module, metadata={"converted_from": file.name})


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ModelError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; give the .pth of torchvggish")
    try:
        document = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{file}: holds more than tensors, so it is no VGGish; nothing in it was run") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{file}: not a state dict, or cut short ({error}); download it again") from error
    if not isinstance(document, dict) or not all(isinstance(value, Tensor) for value in document.values()):
        raise ModelError(f"{file}: not a state dict; give the .pth of torchvggish")
    return document
