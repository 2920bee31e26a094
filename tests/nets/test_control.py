"""Adapters: the recorded residuals, stock networks that stay as they are, both constructions on disk and in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from published_componet import config, context, control, near, tensors, unet
from stemwise.errors import ModelError
from stemwise.nets.control import ControlNet, ControlTransformer, UNetResiduals, recomputed
from stemwise.nets.pretrained import stable_audio_transformer

TRANSFORMER: dict[str, Any] = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "num_layers": 4, "attention_head_dim": 8, "num_attention_heads": 2,
    "num_key_value_attention_heads": 1, "cross_attention_dim": 8, "time_proj_dim": 8, "global_states_input_dim": 6,
    "cross_attention_input_dim": 5,
}  # fmt: skip


@pytest.mark.parametrize("case", ["small", "deep"])
@torch.no_grad()
def test_recorded_residuals_and_outputs(case: str) -> None:
    found, base, adapter = tensors(case), unet(case), control(case)
    words = context(found)
    x, t = found["latent"], found["timestep"]
    near(base(x, t, **words).sample, found["unet_output_without_control"], 1e-4)
    residuals = adapter(x, t, found["condition"], **words)
    near(residuals.middle, found["control_mid"], 5e-4)
    recorded = [name for name in found if name.startswith("control_down.")]
    assert len(recorded) >= 3
    for name in recorded:
        near(residuals.skips[int(name.removeprefix("control_down."))], found[name], 5e-4)
    for strength, name in ((1.0, "unet_output"), (0.5, "unet_output_scale_0.5")):
        with residuals.times(strength).into(base):
            near(base(x, t, **words).sample, found[name], 1e-4)
    near(base(x, t, **words).sample, found["unet_output_without_control"], 1e-4)


@torch.no_grad()
def test_an_untrained_adapter_changes_nothing() -> None:
    found, base = tensors("small"), unet("small")
    adapter = ControlNet.of(base)
    words, x, t = context(found), found["latent"], found["timestep"]
    plain = base(x, t, **words).sample
    residuals = adapter(x, t, found["condition"], **words)
    with residuals.into(base):
        assert torch.equal(base(x, t, **words).sample, plain)
    assert all(not hooks for block in base.modules() for hooks in (block._forward_hooks, block._forward_pre_hooks))


def test_only_the_adapter_has_gradients_and_checkpointing_gives_the_same() -> None:
    found, base = tensors("small"), unet("small")
    words, x, t = context(found), found["latent"], found["timestep"]

    def gradient(checkpointed: bool) -> Tensor:
        adapter = control("small")
        blocks = [*adapter.encoder.down_blocks, adapter.encoder.mid_block, *base.up_blocks] if checkpointed else []
        with recomputed(*blocks), adapter(x, t, found["condition"], **words).into(base):
            loss = base(x, t, **words).sample.square().mean()
        loss.backward()
        assert all(p.grad is None for p in base.parameters())
        assert all(p.grad is not None for p in adapter.parameters())
        assert adapter.condition.weight.grad is not None
        return adapter.condition.weight.grad

    near(gradient(checkpointed=True), gradient(checkpointed=False), 1e-5)


def transformer_inputs() -> tuple[Tensor, Tensor, dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    states = {
        "encoder_hidden_states": torch.randn(2, 3, 5, generator=draw),
        "global_hidden_states": torch.randn(2, 1, 6, generator=draw),
        "rotary_embedding": (torch.ones(17, 4), torch.zeros(17, 4)),
    }
    return torch.randn(2, 4, 16, generator=draw), torch.tensor([0.3, 0.7]), states


def test_transformers_are_steered_alike() -> None:
    torch.manual_seed(0)
    base = stable_audio_transformer(TRANSFORMER).eval().requires_grad_(False)
    adapter = ControlTransformer.of(base, share=0.5)
    assert len(adapter.encoder.transformer_blocks) == 2
    x, t, words = transformer_inputs()
    plain = base(x, t, **words).sample
    with adapter(x, t, 0.5 * x, **words).into(base):
        out = base(x, t, **words).sample
    assert torch.equal(out, plain)
    out.square().mean().backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.any() for layer in adapter.writes)
    for layer in (adapter.condition, *adapter.writes):
        torch.nn.init.normal_(layer.weight, std=0.1)
    residuals = adapter(x, t, 0.5 * x, **words)
    assert [tuple(r.shape) for r in residuals.blocks] == [(2, 17, 16)] * 2
    with residuals.into(base):
        moved = base(x, t, **words).sample
        assert not torch.allclose(moved, plain)
    with adapter(x, t, -0.5 * x, **words).into(base):
        assert not torch.allclose(base(x, t, **words).sample, moved)


def test_adapters_on_disk(tmp_path: Path) -> None:
    adapter = control("small")
    again = ControlNet.from_pretrained(adapter.save_pretrained(tmp_path / "adapter"))
    assert again.arguments == adapter.arguments
    assert all(
        torch.equal(a, b) for a, b in zip(adapter.state_dict().values(), again.state_dict().values(), strict=True)
    )
    other = ControlTransformer(TRANSFORMER, 1)
    ControlTransformer.from_pretrained(other.save_pretrained(tmp_path / "other"))
    with pytest.raises(ModelError, match="holds a ControlNet, not a ControlTransformer"):
        ControlTransformer.from_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="not a saved adapter"):
        ControlNet.from_pretrained(tmp_path / "absent")
    file = tmp_path / "adapter" / "config.json"
    written = json.loads(file.read_text())
    for content, named in (
        ([], "a list, not the arguments"),
        ({**written, "widths": [1]}, "unexpected keyword argument 'widths'"),
        ({"_class_name": "ControlNet"}, "missing 1 required positional argument: 'unet'"),
        ({**written, "unet": 3}, "not the arguments of a ControlNet"),
        ({**written, "unet": {"widths": 3}}, "no arguments of diffusers"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(ModelError, match=named) as refused:
            ControlNet.from_pretrained(tmp_path / "adapter")
        assert str(file) in str(refused.value)
    (tmp_path / "adapter" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80\x02.")
    with pytest.raises(ModelError, match="not a saved adapter"):
        ControlNet.from_pretrained(tmp_path / "adapter")


def test_bases_that_do_not_fit() -> None:
    base = unet("small")
    with pytest.raises(ModelError, match="does not fit the adapter"):
        ControlNet(config("small")).start_from(unet("deep"))
    with pytest.raises(ModelError, match="for a U-Net take ControlNet"):
        ControlTransformer.of(base)
    with pytest.raises(ModelError, match="for a transformer take ControlTransformer"):
        ControlNet.of(stable_audio_transformer(TRANSFORMER))
    found = tensors("deep")
    with torch.no_grad():
        residuals = control("deep")(found["latent"], found["timestep"], found["condition"], **context(found))
    for skips, other in ((residuals.skips, base), (residuals.skips[:-1], unet("deep"))):  # too many, too few
        wrong = UNetResiduals(skips, residuals.middle)
        with (
            pytest.raises(ModelError, match=rf"{len(skips)} residuals do not fit a U-Net of \d+ skips"),
            wrong.into(other),
        ):
            raise AssertionError("entered")
    with pytest.raises(ModelError, match="no arguments of diffusers"):
        ControlNet({"widths": [1, 2]})
