"""AudioLDM2 as diffusers saves it, with or without a released checkpoint of CompoNet -> a model folder.

The folder is a pipeline's (`unet`, `vae`, `vocoder`, `scheduler`, tokenizers and text encoders, as safetensors). Without a
checkpoint it becomes a base to train adapters of. The text encoders do not travel: stems are few, so the states of all
prompts do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stemwise import checkpoint
from stemwise.codecs.mel import Mel
from stemwise.codecs.melvae import MelVaeConfig
from stemwise.convert.reading import read_pickle
from stemwise.errors import ModelError
from stemwise.files import read_json
from stemwise.nets.audioldm2_text import GENERATED, TextEncoders
from stemwise.nets.control import ControlNet
from stemwise.nets.pretrained import audioldm2_unet
from stemwise.systems.componet import Componet, ComponetConfig, ComponetSampling
from stemwise.systems.componet_base import AudioLdm2, AudioLdm2Config, TextConfig
from stemwise.systems.componet_prompts import Form, prompt, subsets

_GIVE = "the folder of an AudioLDM2 pipeline, with the .ckpt of CompoNet in it"
_CONTROL, _UNET = "controlnet.", "unet."
#: Published names of the adapter's parts -> ours; all others are copies of the U-Net's.
_NAMES = {
    "controlnet_cond_embedding.": "condition.",
    "controlnet_down_blocks.": "skips.",
    "controlnet_mid_block.": "middle.",
}
STEMS = ("bass", "drums", "guitar", "piano")


def convert_componet(file: Path, folder: Path, stems: Sequence[str] = STEMS, form: Form = "released") -> Path:
    """Write the model folder of a pipeline's folder and the checkpoint in it, and return it.

    `stems` are the tags that it was trained with, `form` that of its prompts (`componet_prompts.prompt`). Raises ModelError
    where something is missing, damaged or not as published; nothing is written then.
    """
    if not file.is_dir():
        raise ModelError(f"{file}: not a folder; give {_GIVE}")
    found = sorted(file.glob("*.ckpt"))
    if len(found) > 1:
        raise ModelError(f"{file}: holds {len(found)} checkpoints ({', '.join(f.name for f in found)}); leave one")
    if not found:
        return checkpoint.save_model(folder, _base(file, tuple(stems), form), metadata={"converted_from": file.name})
    state = _state(found[0])
    unet, control = _published_nets(_arguments(_document(file, "unet")), state, found[0])
    base = _base(file, tuple(stems), form)
    base.unet = unet or base.unet  # one released checkpoint trained the base's attention, too
    with torch.device("meta"):
        model = Componet(ComponetConfig(base.config, ComponetSampling(rule="euler", steps=150, spacing="leading")))
    model.base, model.control = base, control
    return checkpoint.save_model(folder, model, metadata={"converted_from": found[0].name})


def _state(file: Path) -> Mapping[str, Tensor]:
    state = read_pickle(file, "CompoNet", _GIVE).get("state_dict")
    if not isinstance(state, dict) or not any(name.startswith(_CONTROL) for name in state):
        raise ModelError(f"{file}: holds no {_CONTROL}* tensors, so it is no checkpoint of CompoNet")
    return state


def _published_nets(
    config: dict[str, Any], state: Mapping[str, Tensor], file: Path
) -> tuple[nn.Module | None, ControlNet]:
    """The U-Net, where the checkpoint holds one, and the adapter."""
    with torch.device("meta"):
        control, unet = ControlNet(config), audioldm2_unet(config)
    _load(control, {_ours(name): value for name, value in _part(state, _CONTROL).items()}, file)
    own = _part(state, _UNET)
    if own:
        _load(unet, own, file)
    return unet if own else None, control


def _base(folder: Path, stems: tuple[str, ...], form: Form) -> AudioLdm2:
    """The base with all its weights, and the states of all prompts."""
    unet, vae, vocoder, scheduler = (_document(folder, part) for part in ("unet", "vae", "vocoder", "scheduler"))
    try:
        codec = _codec(vae, vocoder)
        config = AudioLdm2Config(stems, codec, _arguments(unet), TextConfig(tokens=(GENERATED, 1)), **_noise(scheduler))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}: its configurations describe no AudioLDM2: {error}") from error
    encoders = TextEncoders(folder)
    sides = [[name for name, there in zip(stems, row) if there] for row in subsets(len(stems)).tolist()]
    states = encoders.encode([*(prompt(heard, wanted, form) for heard in sides for wanted in sides), ""])
    widths, tokens = (states.generated.shape[2], states.words.shape[2]), (GENERATED, states.words.shape[1])
    text = TextConfig("table", widths, tokens, form)
    with torch.device("meta"):
        base = AudioLdm2(AudioLdm2Config(stems, codec, config.unet, text, **_noise(scheduler)))
    for module, part in (("unet", "unet"), ("codec.vae", "vae"), ("codec.vocoder", "vocoder")):
        _load(base.get_submodule(module), _weights(folder, part), folder / part)
    _load(base.words, {"first": states.generated, "second": states.words, "second_mask": states.mask}, folder)
    base.scale = torch.tensor(float(vae.get("scaling_factor", 1.0)))
    return base


def _document(folder: Path, part: str) -> dict[str, Any]:
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    try:
        document = read_json(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read ({error}); give {_GIVE}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{file}: not a configuration; give {_GIVE}")
    return document


def _codec(vae: Mapping[str, Any], vocoder: Mapping[str, Any]) -> MelVaeConfig:
    rate = int(vocoder["sampling_rate"])
    mel = Mel(rate=rate, bands=int(vocoder["model_in_dim"]))
    if rate != Mel.rate:
        raise ValueError(f"the vocoder is made for {rate} Hz; AudioLDM2's spectrograms are of {Mel.rate} Hz")
    return MelVaeConfig(
        mel=mel,
        widths=tuple(vae["block_out_channels"]),
        blocks=vae["layers_per_block"],
        latent=vae["latent_channels"],
        groups=vae["norm_num_groups"],
        vocoder_width=vocoder["upsample_initial_channel"],
        vocoder_rates=tuple(vocoder["upsample_rates"]),
        vocoder_kernels=tuple(vocoder["upsample_kernel_sizes"]),
    )


def _noise(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    for key, expected in (("beta_schedule", "scaled_linear"), ("prediction_type", "epsilon")):
        if scheduler.get(key, expected) != expected:
            raise ValueError(f"scheduler.{key} is {scheduler[key]!r}, expected {expected!r}")
    return {
        "timesteps": int(scheduler["num_train_timesteps"]),
        "beta_start": float(scheduler["beta_start"]),
        "beta_end": float(scheduler["beta_end"]),
    }


def _arguments(unet: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in unet.items() if not key.startswith("_")}


def _weights(folder: Path, part: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    files = sorted((folder / part).glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder / part}: no safetensors; pickles (.bin) are not read: download it as safetensors")
    try:
        return {name: value for file in files for name, value in load_file(file).items()}
    except Exception as error:
        raise ModelError(f"{folder / part}: damaged or cut short ({error}); download it again") from error


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _ours(name: str) -> str:
    for published, ours in _NAMES.items():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    return f"encoder.{name}"


def _load(module: nn.Module, tensors: Mapping[str, Tensor], place: Path) -> None:
    own = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    differences = checkpoint.differences(module, own)
    if differences:
        raise ModelError(f"{place}: not whole, or of another model; {differences}")
    module.load_state_dict(own, assign=True)
