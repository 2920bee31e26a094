"""The published checkpoints of MSDM and weakly supervised MSDM (arXiv 2302.02257) -> a model folder.

They are Lightning files: pickles that hold the network twice, under two names, and an instance of one class of the
library that it was trained with. The class is not needed: the file is read without executing anything, an empty
stand-in takes the place of that name and of no other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stemwise import checkpoint
from stemwise.convert.reading import read_pickle
from stemwise.errors import ModelError
from stemwise.nets.unet1d import UNet1dConfig
from stemwise.systems.msdm import Msdm, MsdmConfig, WeakMsdm

STEMS = ("bass", "drums", "guitar", "piano")
"""The order in which the published joint networks have their sources."""

RUNS = {"laced-dream-329": "bass", "ancient-voice-289": "drums", "honest-fog-332": "guitar", "ruby-dew-290": "piano"}
"""The published weakly supervised networks, by the name of their training run."""

_PREFIXES = ("model.unet.", "model.diffusion.net.")
_CLASS = "audio_diffusion_pytorch.diffusion.LogNormalDistribution"

#: Names of our network <- names of the published one, applied one after the other.
_NAMES = (
    (r"^to_time\.0\.0\.weights$", "time.frequencies"),
    (r"^to_time\.0\.1\.", "time.layers.0."),
    (r"^to_mapping\.0\.", "time.layers.1."),
    (r"^to_mapping\.2\.", "time.layers.2."),
    (r"^to_in\.module_list\.0\.block\.", "read."),
    (r"^to_out\.module_list\.0\.block\.", "write."),
    (r"^(down|up)samples\.(\d+)\.(?:down|up)sample\.", r"\1.\2.resample."),
    (r"^(down|up)samples\.", r"\1."),
    (r"^bottleneck\.pre_block\.", "before."),
    (r"^bottleneck\.post_block\.", "after."),
    (r"^bottleneck\.attention\.", "middle."),
    (r"\.block1\.groupnorm\.", ".first_norm."),
    (r"\.block1\.project\.", ".first."),
    (r"\.block2\.groupnorm\.", ".second_norm."),
    (r"\.block2\.project\.", ".second."),
    (r"\.to_scale_shift\.to_scale_shift\.1\.", ".film."),
    (r"\.fn\.norm\.g$", ".norm.gain"),
    (r"\.fn\.to_q\.", ".query."),
    (r"\.fn\.to_kv\.", ".key_value."),
    (r"\.fn\.attention\.to_out\.0\.", ".out."),
    (r"\.fn\.attention\.to_out\.1\.g$", ".out_norm.gain"),
    (r"\.feed_forward\.0\.g$", ".norm.gain"),
    (r"\.feed_forward\.1\.", ".widen."),
    (r"\.feed_forward\.3\.g$", ".hidden_norm.gain"),
    (r"\.feed_forward\.4\.", ".narrow."),
    (r"\.to_out\.", ".shortcut."),
)

#: Fields of our configuration <- hyper-parameters of a checkpoint.
_FIELDS = {
    "sources": "in_channels", "channels": "channels", "patch": "patch_factor", "multipliers": "multipliers",
    "factors": "factors", "blocks": "num_blocks", "attention": "attentions", "heads": "attention_heads",
    "head_features": "attention_features", "expansion": "attention_multiplier", "groups": "resnet_groups",
}  # fmt: skip

#: What all published checkpoints have in common, and our network can do no other way. They state neither rate nor stems.
_EXPECTED = {
    "patch_blocks": 1, "kernel_multiplier_downsample": 2, "use_nearest_upsample": False, "use_skip_scale": True,
    "use_attention_bottleneck": True, "use_context_time": True, "diffusion_dynamic_threshold": 0.0,
    "sample_rate": MsdmConfig.rate, "stems": STEMS,
}  # fmt: skip

#: Hyper-parameters that are read, and those that change nothing: of the optimiser, and sizes that the network does not use.
_READ = (*_FIELDS.values(), "diffusion_sigma_data", "diffusion_sigma_distribution")
_IDLE = ("learning_rate", "beta1", "beta2", "kernel_sizes_init")


class _LogNormal:
    """Stands for the training noise's distribution; the reader gives it the attributes `mean` and `std`."""

    mean: float
    std: float


def convert_msdm(file: Path, folder: Path) -> Path:
    """Write the model folder of a joint checkpoint, or of a folder of weakly supervised ones, and return it.

    In a folder every checkpoint (at any depth) must be told by its path: the stem's name, or the published run's.
    Raises ModelError where something is missing, damaged or not as published; nothing is written then.
    """
    module, facts = _weak(file) if file.is_dir() else _joint(file)
    return checkpoint.save_model(folder, module, metadata=facts)


def _joint(file: Path) -> tuple[Msdm, dict[str, Any]]:
    config, state, facts = read_checkpoint(file)
    if config.sources != len(STEMS):
        raise ModelError(
            f"{file}: a network of {config.sources} source(s), expected {len(STEMS)} ({', '.join(STEMS)}, at 22050 Hz); "
            "weakly supervised networks, of one source each, are converted together: give the folder that holds them, "
            "the files named by their stems"
        )
    with torch.device("meta"):
        module = Msdm(_config(config, STEMS, facts))
    module.net.load_state_dict(read_state(module.net, state, str(file)), assign=True)
    return module, {"converted_from": file.name, **facts}


def _weak(folder: Path) -> tuple[WeakMsdm, dict[str, Any]]:
    files = _by_stem(folder)
    read = {stem: read_checkpoint(file) for stem, file in files.items()}
    first = next(iter(files))
    config, _, facts = read[first]
    if config.sources != 1:
        raise ModelError(
            f"{files[first]}: a network of {config.sources} sources, expected 1; a joint checkpoint is converted alone"
        )
    for stem, (other, _, _) in read.items():
        if other != config:
            raise ModelError(
                f"{files[stem]}: its configuration differs from {files[first].name}'s: {other} and {config}"
            )
    with torch.device("meta"):
        module = WeakMsdm(_config(config, tuple(files), facts))
    for net, (stem, (_, state, _)) in zip(module.nets, read.items()):
        net.load_state_dict(read_state(net, state, str(files[stem])), assign=True)
    return module, {"converted_from": {stem: file.name for stem, file in files.items()}, **facts}


def _by_stem(folder: Path) -> dict[str, Path]:
    """The checkpoints below a folder by stem, in the published order, then by name."""
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.ckpt")):
        parts = [part.lower() for part in (*file.relative_to(folder).parts[:-1], file.stem)]
        stems = {RUNS[run] for run in RUNS if run in parts} | {stem for stem in STEMS for part in parts if stem in part}
        if len(stems) != 1:
            told = f"could be {' or '.join(sorted(stems))}" if stems else "is told by neither its name nor its folder's"
            raise ModelError(f"{file}: its stem {told}; call it bass.ckpt, drums.ckpt, guitar.ckpt or piano.ckpt")
        (stem,) = stems
        if stem in files:
            raise ModelError(f"{file}: another network of the {stem}, besides {files[stem]}; keep one")
        files[stem] = file
    missing = [stem for stem in STEMS if stem not in files]
    if missing:
        raise ModelError(f"{folder}: no checkpoint (.ckpt) of {', '.join(missing)}; found {', '.join(files) or 'none'}")
    return {stem: files[stem] for stem in STEMS}


def read_state(net: torch.nn.Module, state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """A published state dict under the names and in the shapes of `net`. Raises ModelError naming what does not fit."""
    tensors = _renamed(state, place)
    expected = {name: tensor.shape for name, tensor in net.state_dict().items()}
    for name, tensor in tensors.items():
        # what differs by axes of length 1 is only spelt differently
        if name in expected and [n for n in tensor.shape if n != 1] == [n for n in expected[name] if n != 1]:
            tensors[name] = tensor.reshape(expected[name])
    differences = checkpoint.differences(net, tensors)
    if differences:
        raise ModelError(f"{place}: not a whole MSDM checkpoint, or one of another configuration; {differences}")
    return tensors


def read_checkpoint(file: Path) -> tuple[UNet1dConfig, dict[str, Tensor], dict[str, Any]]:
    """Shape, state dict as it is, and facts (epoch, step, training noise) of one file. Raises ModelError."""
    give = "a Lightning checkpoint (.ckpt) that was published, or the folder of the four weak ones"
    document = read_pickle(file, "MSDM", give, {_CLASS: _LogNormal})
    state = document.get("state_dict")
    if not isinstance(state, dict) or not state:
        raise ModelError(f"{file}: holds no state_dict; give the Lightning checkpoint of a training (.ckpt)")
    _check_copies(state, file)
    settings = document.get("hyper_parameters") or {}
    _check_settings(settings, file)
    try:
        config = UNet1dConfig(**{field: _plain(settings[name]) for field, name in _FIELDS.items() if name in settings})
    except (TypeError, ValueError) as error:
        raise ModelError(f"{file}: its hyper-parameters describe no network of this kind: {error}") from error
    first = state.get(f"{_PREFIXES[0]}to_in.module_list.0.block.block1.project.weight")
    if "in_channels" not in settings and first is not None and first.ndim > 1:
        config = replace(config, sources=first.shape[1])
    noise = settings.get("diffusion_sigma_distribution")
    counts = {"epoch": document.get("epoch"), "step": document.get("global_step")}
    facts = {
        **{name: count for name, count in counts.items() if isinstance(count, int)},
        "sigma_data": float(settings.get("diffusion_sigma_data", MsdmConfig.sigma_data)),
        "sigma_mean": float(getattr(noise, "mean", MsdmConfig.sigma_mean)),
        "sigma_std": float(getattr(noise, "std", MsdmConfig.sigma_std)),
    }
    return config, state, facts


def _check_settings(settings: Any, file: Path) -> None:
    """Raises ModelError for hyper-parameters that no published network has, or with values that none could have."""
    if not isinstance(settings, Mapping):
        raise ModelError(f"{file}: hyper_parameters is a {type(settings).__name__}, expected names and values")
    unknown = [f"{name} ({value!r})" for name, value in settings.items() if name not in (*_READ, *_IDLE, *_EXPECTED)]
    if unknown:
        raise ModelError(
            f"{file}: hyper-parameters that no published network has: {', '.join(unknown)}; "
            f"expected none but {', '.join((*_READ, *_IDLE, *_EXPECTED))}"
        )
    for name, expected in _EXPECTED.items():
        if name in settings and _plain(settings[name]) != expected:
            raise ModelError(
                f"{file}: {name} is {settings[name]!r}, expected {expected!r} as in the published networks"
            )
    for name in _FIELDS.values():
        value = _plain(settings.get(name, 1))
        least = 0 if name == "attentions" else 1
        if not all(isinstance(n, int) and n >= least for n in (value if isinstance(value, tuple) else (value,))):
            raise ModelError(f"{file}: {name} is {settings[name]!r}, expected whole numbers of at least {least}")
    noise = settings.get("diffusion_sigma_distribution", _LogNormal())
    if not isinstance(noise, _LogNormal):
        raise ModelError(f"{file}: diffusion_sigma_distribution is {noise!r}, expected an instance of {_CLASS}")
    for name, value, positive in (
        ("diffusion_sigma_data", settings.get("diffusion_sigma_data", MsdmConfig.sigma_data), True),
        ("diffusion_sigma_distribution.std", getattr(noise, "std", MsdmConfig.sigma_std), True),
        ("diffusion_sigma_distribution.mean", getattr(noise, "mean", MsdmConfig.sigma_mean), False),
    ):
        if not isinstance(value, int | float) or not math.isfinite(value) or (positive and value <= 0):
            raise ModelError(f"{file}: {name} is {value!r}, expected a {'positive ' if positive else ''}number")


def _check_copies(state: Mapping[Any, Any], file: Path) -> None:
    """Raises ModelError for anything but finite tensors, or where two copies of the network are not the same."""
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ModelError(f"{file}: {name} in its state_dict is {kind}, expected a tensor of floating-point numbers")
    remedy = "the file was changed or its training diverged: download it again, or give an earlier checkpoint"
    copies = [{n.removeprefix(p): tensor for n, tensor in state.items() if n.startswith(p)} for p in _PREFIXES]
    for name in {**copies[0], **copies[1]}:
        first, second = (f"{prefix}{name}" for prefix in _PREFIXES)
        if all(copies) and not (first in state and second in state):  # one copy alone is enough
            lacking, other = (first, second) if second in state else (second, first)
            raise ModelError(f"{file}: {lacking} is missing, expected the same tensor as {other}; {remedy}")
        tensor = state[first if copies[0] else second]
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{file}: {first if copies[0] else second} is not finite everywhere; {remedy}")
        if all(copies) and not torch.equal(tensor, state[second]):
            raise ModelError(f"{file}: {first} and {second} differ, expected the same tensor twice; {remedy}")


def _renamed(state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Tensors under our names, the second copy left away. Raises ModelError for any that belong to neither copy."""
    tensors: dict[str, Tensor] = {}
    surplus = []
    for name, tensor in state.items():
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            surplus.append(name)
            continue
        ours = name.removeprefix(prefix)
        for pattern, replacement in _NAMES:
            ours = re.sub(pattern, replacement, ours)
        tensors.setdefault(ours, tensor)
    if surplus:
        named = ", ".join(surplus[:5])
        raise ModelError(
            f"{place}: {len(surplus)} surplus tensor(s), such as {named}; expected only names that begin with "
            f"{' or '.join(_PREFIXES)}"
        )
    return tensors


def _config(net: UNet1dConfig, stems: tuple[str, ...], facts: dict[str, Any]) -> MsdmConfig:
    """The published rate and window; a network with another step takes the nearest longer window that it can."""
    noise = {name: facts.pop(name) for name in ("sigma_data", "sigma_mean", "sigma_std")}
    window = -(-MsdmConfig.window // net.multiple) * net.multiple
    return MsdmConfig(stems=stems, window=window, net=net, **noise)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
