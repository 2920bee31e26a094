"""The usual VGGish weights for PyTorch (vggish-*.pth, a plain state dict) -> a model folder."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from stemwise import checkpoint
from stemwise.convert.reading import read_pickle
from stemwise.errors import ModelError
from stemwise.nets.vggish import Vggish, VggishConfig

_CONVOLUTIONS = (0, 3, 6, 11)
_PCA = ("pproc.pca_eigen_vectors", "pproc.pca_means")


def convert_vggish(file: Path, folder: Path) -> Path:
    """Write the model folder of a VGGish state dict and return it; PCA parameters, if any, are left out.

    Raises ModelError where the file is no VGGish or not a whole one; nothing is written then.
    """
    document = read_pickle(file, "VGGish", "the .pth of torchvggish")
    if not all(isinstance(value, Tensor) for value in document.values()):
        raise ModelError(f"{file}: not a state dict; give the .pth of torchvggish")
    tensors = {name: tensor for name, tensor in document.items() if name not in _PCA}
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
