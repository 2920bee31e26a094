"""Checkpoints of the published Mixture2Music (arXiv 2209.02696) -> a model folder.

Its trainings leave two Lightning files, the network's and the independent decoder's; the folder holds both. They are
read without executing anything. The tables of positions that the published network draws when it is built are in no
checkpoint: what it was trained with is lost, so new ones are drawn here, once, and stay the same from then on.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from stemwise import checkpoint
from stemwise.convert.reading import read_pickle
from stemwise.errors import ModelError
from stemwise.systems.mixture2music import Mixture2Music, Mixture2MusicConfig

#: Names of ours <- names of the published network, applied one after the other.
_NAMES = (
    (r"^time_expand\.1\.", "time.first."),
    (r"^time_expand\.3\.", "time.second."),
    (r"^in_layer\.", "read."),
    (r"^out_layer\.", "write."),
    (r"^(down|up)1\.block\.", r"\1.0."),
    (r"^(down|up)2\.block\.", r"\1.1."),
    (r"^(down|up)3\.block\.", r"\1.2."),
    (r"^layer_1\.", "blocks.0."),
    (r"^layer_2\.", "blocks.1."),
    (r"\.time_emb\.1\.", ".film."),
    (r"\.block1\.", ".first."),
    (r"\.block2\.", ".second."),
    (r"\.res_conv\.", ".shortcut."),
    (r"^transformer\.in_linear\.", "tokens.read."),
    (r"^transformer\.out_linear\.", "tokens.write."),
    (r"^transformer\.enc_layers\.", "tokens.layers."),
    (r"\.rga\.", ".first."),
    (r"\.rga2\.", ".second."),
    (r"\.Wq\.", ".query."),
    (r"\.Wk\.", ".key."),
    (r"\.Wv\.", ".value."),
    (r"\.fc\.", ".out."),
    (r"\.E$", ".table"),
    (r"\.FFN_pre\.", ".narrow."),
    (r"\.FFN_suf\.", ".widen."),
    (r"\.layernorm1\.", ".norms.0."),
    (r"\.layernorm2\.", ".norms.1."),
    (r"\.layernorm3\.", ".norms.2."),
)


def convert_mixture2music(file: Path, folder: Path) -> Path:
    """Write the model folder of a network's checkpoint, or of a folder that holds it and the decoder's, and return it.

    Which is which is told by the names of the tensors. Without a decoder, results are taken by a threshold. Raises
    ModelError where something is missing, damaged or not as published; nothing is written then.
    """
    files = sorted(file.rglob("*.ckpt")) if file.is_dir() else [file]
    network: Path | None = None
    decoder: Path | None = None
    states: dict[Path, dict[str, Tensor]] = {}
    for one in files:
        state = states[one] = read_state(one)
        if any(name.startswith("decoder.") for name in state):
            decoder = _only(decoder, one, "decoder")
        else:
            network = _only(network, one, "network")
    if network is None:
        raise ModelError(f"{file}: no checkpoint of the network (tensors model.*); the decoder alone separates nothing")
    module = Mixture2Music(Mixture2MusicConfig(decoder=decoder is not None))
    load_published(module.net, states[network], "model.", str(network))
    if decoder is not None and module.decoder is not None:
        load_published(module.decoder, states[decoder], "decoder.", str(decoder))
    names = {"network": network.name, "decoder": decoder.name if decoder else None}
    return checkpoint.save_model(folder, module.eval(), metadata={"converted_from": names})


def load_published(net: nn.Module, state: Mapping[str, Tensor], prefix: str, place: str) -> None:
    """Copy a published state into a network of ours; warns where its tables of positions are missing (as published).

    Raises ModelError naming every tensor that does not fit.
    """
    tensors = {rename(name.removeprefix(prefix)): tensor for name, tensor in state.items()}
    own = net.state_dict()
    lost = [name for name in own if name.endswith(".table") and name not in tensors]
    if lost:
        warnings.warn(
            f"{place}: the {len(lost)} tables of relative positions are not in it (the published training never saved "
            "them); new ones are drawn, so results differ from those of the training",
            stacklevel=2,
        )
    tensors |= {name: own[name] for name in lost}
    differences = checkpoint.differences(net, tensors)
    if differences:
        raise ModelError(f"{place}: not a whole Mixture2Music checkpoint; {differences}")
    net.load_state_dict(tensors)


def rename(name: str) -> str:
    """Our name of a published tensor, without its prefix."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def read_state(file: Path) -> dict[str, Tensor]:
    """The state dict of a Lightning file, nothing in it executed. Raises ModelError."""
    document = read_pickle(file, "Mixture2Music", "a checkpoint (.ckpt), or the folder of both")
    state = document.get("state_dict")
    if not isinstance(state, dict) or not state:
        raise ModelError(f"{file}: holds no state_dict; give the Lightning checkpoint of a training (.ckpt)")
    foreign = [name for name in state if not str(name).startswith(("model.", "decoder."))]
    if foreign:
        raise ModelError(
            f"{file}: {len(foreign)} surplus tensor(s), such as {foreign[0]}; names begin with model. or decoder."
        )
    return state


def _only(there: Path | None, file: Path, kind: str) -> Path:
    if there is not None:
        raise ModelError(f"{file}: another {kind}, besides {there}; keep one")
    return file
