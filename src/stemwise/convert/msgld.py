"""The published checkpoints of MSG-LD (arXiv 2409.12346) -> a model folder.

The Lightning file of a training holds the U-Net twice (raw and averaged, which is what the published results use), the
autoencoder, the vocoder, and what only their trainings needed. The two codec files of the same family (autoencoder and
vocoder, in one folder) become a `melvae` model, to train on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stemwise import checkpoint
from stemwise.codecs.melvae import MelVae, MelVaeConfig
from stemwise.convert.reading import read_pickle
from stemwise.errors import ModelError
from stemwise.nets.unet_stems import UNetStemsConfig
from stemwise.systems.msgld import Msgld, MsgldConfig

_UNET, _CODEC, _VOCODER = "model.diffusion_model.", "first_stage_model.", "first_stage_model.vocoder."
_GIVE = "the checkpoint of a training, or the folder of the autoencoder's and the vocoder's"

#: Names of our U-Net <- names of the published one, applied one after the other; so are the next two tables.
_UNET_NAMES = (
    (r"^time_embed\.0\.", "time.0."),
    (r"^time_embed\.2\.", "time.1."),
    (r"^input_blocks\.(\d+)\.0\.op\.", r"encoder.\1.convolution."),
    (r"^input_blocks\.(\d+)\.0\.(weight|bias)$", r"encoder.\1.convolution.\2"),
    (r"^input_blocks\.(\d+)\.", r"encoder.\1.|"),
    (r"^output_blocks\.(\d+)\.\d\.conv\.", r"decoder.\1.enlarge."),
    (r"^output_blocks\.(\d+)\.", r"decoder.\1.|"),
    (r"^middle_block\.0\.", "middle.0.|0."),
    (r"^middle_block\.1\.", "middle.0.|1."),
    (r"^middle_block\.2\.", "middle.1.|0."),
    (r"\|0\.", "residual."),
    (r"\|1\.", "attention."),
    (r"\.in_layers\.0\.", ".first_norm."),
    (r"\.in_layers\.2\.", ".first."),
    (r"\.emb_layers\.1\.", ".noise."),
    (r"\.out_layers\.0\.", ".second_norm."),
    (r"\.out_layers\.3\.", ".second."),
    (r"\.skip_connection\.", ".shortcut."),
    (r"\.qkv\.", ".query_key_value."),
    (r"\.proj_out\.", ".out."),
    (r"^out\.0\.", "norm."),
    (r"^out\.2\.", "write."),
)

_VAE_NAMES = (
    (r"^(encoder\.)down\.(\d+)\.block\.", r"\1down_blocks.\2.resnets."),
    (r"^(encoder\.)down\.(\d+)\.downsample\.", r"\1down_blocks.\2.downsamplers.0."),
    (r"^(decoder\.)up\.(\d+)\.block\.", r"\1up_blocks.|\2.resnets."),
    (r"^(decoder\.)up\.(\d+)\.upsample\.", r"\1up_blocks.|\2.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)

_VOCODER_NAMES = ((r"^ups\.", "upsampler."),)


def convert_msgld(file: Path, folder: Path) -> Path:
    """Write the model folder of a training's checkpoint, or of a folder of codec checkpoints, and return it.

    Raises ModelError where something is missing, damaged or not as published; nothing is written then.
    """
    module, facts = _codec(file) if file.is_dir() else _whole(file)
    return checkpoint.save_model(folder, module, metadata=facts)


def _whole(file: Path) -> tuple[Msgld, dict[str, Any]]:
    document = read_pickle(file, "MSG-LD", _GIVE)
    state = _tensors(document.get("state_dict"))
    if not any(name.startswith(_UNET) for name in state):
        raise ModelError(f"{file}: holds no {_UNET}* tensors; give {_GIVE}")
    scale = _scale(document["state_dict"].get("scale_factor"), file)
    names = [name for name in state if name.startswith(_UNET)]
    averaged = {name: "model_ema." + name.removeprefix("model.").replace(".", "") for name in names}
    absent = [name for name in averaged.values() if name not in state]
    if absent and len(absent) < len(names):
        raise ModelError(
            f"{file}: {len(absent)} averaged tensor(s) are missing, such as {absent[0]}; download it again"
        )
    unet = {name.removeprefix(_UNET): state[name if absent else averaged[name]] for name in names}
    vae, vocoder = _parts(state, _CODEC, _VOCODER)
    with torch.device("meta"):
        codec, net = _codec_config(vae, vocoder, file), _unet_config(unet, file)
        try:
            module = Msgld(MsgldConfig(stems=_stems(net.stems), codec=codec, net=net))
        except ValueError as error:
            raise ModelError(f"{file}: its autoencoder and its U-Net do not fit each other: {error}") from error
    load(module.net, renamed_unet(unet), file)
    _load_codec(module.codec, vae, vocoder, file)
    module.scale = torch.tensor(scale)
    facts = {"converted_from": file.name, "averaged": not absent, "step": document.get("global_step")}
    return module, facts


def _codec(folder: Path) -> tuple[MelVae, dict[str, Any]]:
    """The autoencoder's and the vocoder's own checkpoints, told by what they hold."""
    vae: Mapping[str, Tensor] = {}
    vocoder: Mapping[str, Tensor] = {}
    files = sorted([*folder.glob("*.ckpt"), *folder.glob("*.pt")])
    holding: dict[str, list[str]] = {"autoencoder": [], "vocoder": []}
    for file in files:
        document = read_pickle(file, "MSG-LD", _GIVE)
        whole = _tensors(document.get("state_dict"))
        if "generator" in document:
            vocoder = _tensors(document["generator"])
            holding["vocoder"].append(file.name)
        elif any(name.startswith("encoder.") for name in whole):
            vae = _parts(whole, "", "vocoder.")[0]
            holding["autoencoder"].append(file.name)
    for what, names in holding.items():
        if not names:
            found = ", ".join(file.name for file in files) or "nothing"
            raise ModelError(f"{folder}: no checkpoint of the {what} (.ckpt, .pt); found {found}")
        if len(names) > 1:
            raise ModelError(f"{folder}: several checkpoints of the {what} ({', '.join(names)}); keep one")
    with torch.device("meta"):
        module = MelVae(_codec_config(vae, vocoder, folder))
    _load_codec(module, vae, vocoder, folder)
    return module, {"converted_from": sorted(name for names in holding.values() for name in names)}


def _tensors(state: object) -> dict[str, Tensor]:
    """What of a state dict are tensors; nothing, if it is none."""
    entries = state.items() if isinstance(state, Mapping) else ()
    return {str(name): value for name, value in entries if isinstance(value, Tensor)}


def _scale(value: object, file: Path) -> float:
    """The factor that brings latents to unit variance, stored as a tensor or as a number."""
    if value is None:
        raise ModelError(
            f"{file}: scale_factor is missing, without which its latents mean nothing; give the file as it was published"
        )
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, float | int) or not 0 < value < math.inf:
        raise ModelError(
            f"{file}: scale_factor is {value}, expected one positive number; the training was not begun or failed"
        )
    return float(value)


def renamed_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published U-Net's tensors under our names."""
    return _renamed(state, _UNET_NAMES)


def renamed_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published autoencoder's tensors under diffusers' names, which count the decoder's levels from below."""
    found = (re.match(r"decoder\.up\.(\d+)\.", name) for name in state)
    levels = 1 + max((int(level[1]) for level in found if level), default=0)
    out = {}
    for name, tensor in _renamed(state, _VAE_NAMES).items():
        out[re.sub(r"\|(\d+)", lambda found: str(levels - 1 - int(found[1])), name)] = tensor
    return out


def renamed_vocoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published vocoder's tensors under transformers' names, pairs of weight normalisation multiplied out.

    What lacks its other half stays as it is, for `load` to name.
    """
    fused = dict(state)
    for name, direction in state.items():
        gain = state.get(name.removesuffix("v") + "g")
        if name.endswith("weight_v") and gain is not None and gain.shape[:1] == direction.shape[:1]:
            length = direction.norm(dim=tuple(range(1, direction.ndim)), keepdim=True)
            fused[name.removesuffix("_v")] = gain * fused.pop(name) / length
            del fused[name.removesuffix("v") + "g"]
    first = fused.get("conv_pre.weight")
    if first is not None:  # the levels that published vocoders hear are not normalised
        fused |= {"mean": torch.zeros(first.shape[1]), "scale": torch.ones(first.shape[1])}
    return _renamed(fused, _VOCODER_NAMES)


def _renamed(state: Mapping[str, Tensor], names: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in state.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


def _parts(state: Mapping[str, Tensor], codec: str, vocoder: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Autoencoder and vocoder in a state dict; what only the autoencoder's training needed (`loss.`) is left away."""
    wanted = tuple(codec + part for part in ("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
    vae = {name.removeprefix(codec): tensor for name, tensor in state.items() if name.startswith(wanted)}
    return vae, {name.removeprefix(vocoder): tensor for name, tensor in state.items() if name.startswith(vocoder)}


def _unet_config(state: Mapping[str, Tensor], place: Path) -> UNetStemsConfig:
    """The shape of a published U-Net, read off its tensors."""
    first = state.get("input_blocks.0.0.weight")
    if first is None:
        raise ModelError(f"{place}: not a whole U-Net: input_blocks.0.0.weight is missing; download it again")
    channels, stems = first.shape[:2]
    multipliers, attention, blocks, index = [1], [False], 0, 1
    while True:
        residual = state.get(f"input_blocks.{index}.0.in_layers.2.weight")
        if residual is not None:
            multipliers[-1] = residual.shape[0] // channels
            attention[-1] = f"input_blocks.{index}.1.qkv.weight" in state
            blocks += len(multipliers) == 1
        elif f"input_blocks.{index}.0.op.weight" in state:
            multipliers.append(1)
            attention.append(False)
        else:
            break
        index += 1
    try:
        return UNetStemsConfig(stems, channels, tuple(multipliers), blocks, tuple(attention))
    except ValueError as error:
        raise ModelError(f"{place}: its tensors describe no U-Net of this kind: {error}") from error


def _codec_config(vae: Mapping[str, Tensor], vocoder: Mapping[str, Tensor], place: Path) -> MelVaeConfig:
    """The shapes of autoencoder and vocoder; rate, spectrogram and strides are not stored and taken as published."""
    widths: list[int] = []
    blocks = 0
    while f"encoder.down.{len(widths)}.block.0.conv1.weight" in vae:
        widths.append(vae[f"encoder.down.{len(widths)}.block.0.conv1.weight"].shape[0])
    while f"encoder.down.0.block.{blocks}.conv1.weight" in vae:
        blocks += 1
    latent, pre = vae.get("post_quant_conv.weight"), vocoder.get("conv_pre.bias")
    if not widths or latent is None or pre is None:
        missing = "vocoder" if pre is None else "autoencoder"
        raise ModelError(f"{place}: the {missing} is missing or not whole; give the file as it was published")
    try:
        return MelVaeConfig(widths=tuple(widths), blocks=blocks, latent=latent.shape[0], vocoder_width=len(pre))
    except ValueError as error:
        raise ModelError(f"{place}: its tensors describe no autoencoder of this kind: {error}") from error


def _stems(count: int) -> tuple[str, ...]:
    """The published order; other numbers of stems get numbers for names."""
    published = MsgldConfig.stems
    return published if count == len(published) else tuple(f"stem-{index + 1}" for index in range(count))


def _load_codec(module: MelVae, vae: Mapping[str, Tensor], vocoder: Mapping[str, Tensor], place: Path) -> None:
    load(module.vae, renamed_vae(vae), place)
    load(module.vocoder, renamed_vocoder(vocoder), place)


def load(module: nn.Module, tensors: dict[str, Tensor], place: Path) -> None:
    """Give a network its renamed tensors, whose storage becomes its own; 1 x 1 convolutions may be spelt as matrices."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    for name, tensor in tensors.items():
        if name in expected and [n for n in tensor.shape if n != 1] == [n for n in expected[name] if n != 1]:
            tensors[name] = tensor.reshape(expected[name]).contiguous()
    differences = checkpoint.differences(module, tensors)
    if differences:
        raise ModelError(f"{place}: not a whole MSG-LD checkpoint, or one of another kind; {differences}")
    module.load_state_dict(tensors, assign=True)
