"""The recorded behaviour of the published CompoNet: its fixtures, and weights rebuilt from the names of its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from published_msgld import tensor
from stemwise.nets.control import ControlNet
from stemwise.nets.pretrained import audioldm2_unet

FIXTURES = Path(__file__).parent / "fixtures" / "componet"
#: Our names of the adapter's parts -> the published ones.
PUBLISHED = {
    "encoder.": "controlnet.",
    "condition.": "controlnet.controlnet_cond_embedding.",
    "skips.": "controlnet.controlnet_down_blocks.",
    "middle.": "controlnet.controlnet_mid_block.",
}


def config(case: str) -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads((FIXTURES / f"{case}_config.json").read_text())["unet"]
    return arguments


def tensors(case: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{case}.safetensors")


def published_name(name: str) -> str:
    head, _, tail = name.partition(".")
    return PUBLISHED[f"{head}."] + tail


def unet(case: str) -> Any:
    net = audioldm2_unet(config(case))
    net.load_state_dict({name: tensor(f"unet.{name}", list(t.shape)) for name, t in net.state_dict().items()})
    return net.eval().requires_grad_(False)


def control(case: str) -> ControlNet:
    net = ControlNet(config(case))
    net.load_state_dict({name: tensor(published_name(name), list(t.shape)) for name, t in net.state_dict().items()})
    return net.eval()


def context(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "encoder_hidden_states": found["generated_prompt"],
        "encoder_hidden_states_1": found["t5_prompt"],
        "encoder_attention_mask_1": found["t5_mask"],
    }


def near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)
