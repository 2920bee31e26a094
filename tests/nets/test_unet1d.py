"""The waveform U-Net gives the recorded numbers of the published one from the same weights, stage by stage."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from published_msdm import facts, tensors, tiny
from stemwise.convert.msdm import read_state
from stemwise.diffusion import Edm, clamped
from stemwise.nets.unet1d import UNet1d, UNet1dConfig, lower


@pytest.mark.parametrize("which", ["four_source", "one_source"])
def test_recorded_evaluations(which: str) -> None:
    recorded = tensors(f"unet_tiny_{which}")
    x, sigma = recorded["x"], recorded["sigma"]
    net = tiny(which)
    with torch.no_grad():
        raw = net(x / torch.hypot(sigma, torch.tensor(0.2))[:, None, None], sigma.log() / 4)
        denoised = clamped(Edm(net, 0.2))(x, sigma)
    torch.testing.assert_close(raw, recorded["raw"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denoised, recorded["denoised"], atol=5e-6, rtol=1e-5)


def test_recorded_stages() -> None:
    recorded = tensors("unet_tiny_stages")
    net = tiny()
    seen: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: object, out: object) -> None:
            value = out[0] if isinstance(out, tuple) else out
            assert isinstance(value, Tensor)
            seen[name] = value

        module.register_forward_hook(hook)

    for i in range(3):
        record(f"down{i}", net.down[i])
        record(f"up{i}", net.up[i])
    record("mapping", net.time)
    record("bottleneck_attention", net.middle)
    record("bottleneck", net.after)
    with torch.no_grad():
        raw = net(recorded["net_input"], recorded["c_noise"])
    seen["bottleneck_attention"] = seen["bottleneck_attention"].transpose(1, 2)
    for name, value in seen.items():
        torch.testing.assert_close(value, recorded[f"stage.{name}"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(raw, recorded["raw"], atol=2e-5, rtol=1e-5)


def test_single_items_and_batches_agree() -> None:
    """A batch of one takes a shorter way through the modulated normalisation."""
    recorded = tensors("unet_tiny_stages")
    net = tiny()
    with torch.no_grad():
        both = net(recorded["net_input"], recorded["c_noise"])
        one = net(recorded["net_input"][1:], recorded["c_noise"][1:])
    torch.testing.assert_close(one, both[1:], atol=2e-6, rtol=1e-5)


def test_estimates_beyond_full_scale_are_clamped() -> None:
    recorded = tensors("unet_tiny_stages")
    with torch.no_grad():
        denoised = clamped(Edm(tiny(), 0.2))(recorded["clamp.x"], recorded["clamp.sigma"])
    torch.testing.assert_close(denoised, recorded["clamp.denoised"], atol=5e-6, rtol=1e-5)
    assert (denoised.abs() == 1).float().mean() > 0.1


@pytest.mark.parametrize(("which", "sources"), [("four_source", 4), ("one_source", 1)])
def test_published_keys_and_shapes(which: str, sources: int) -> None:
    """All 868 names of a published checkpoint, twice the same 434 tensors, and nothing else; no storage is needed."""
    published = facts("keys")[which]
    with torch.device("meta"):
        net = UNet1d(UNet1dConfig(sources=sources))
        state = {name: torch.empty(shape) for name, shape in published["shapes"].items()}
    assert sum(p.numel() for p in net.parameters()) == published["parameters"]
    assert len(read_state(net, state, "keys")) == 434


def test_bfloat16_weights_keep_the_noise_embedding() -> None:
    recorded = tensors("unet_tiny_stages")
    net = lower(tiny(), torch.bfloat16)
    with torch.no_grad():
        raw = net(recorded["net_input"], recorded["c_noise"])
    assert raw.dtype == torch.float32
    assert net.time.frequencies.dtype == torch.float32
    error = (raw - recorded["raw"]).square().mean().sqrt() / recorded["raw"].square().mean().sqrt()
    assert error < 0.03


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"multipliers": (1, 2)}, "n \\+ 1 multipliers"),
        ({"patch": 3}, "channels"),
        ({"patch": 0}, "at least 1"),
        ({"groups": 0}, "at least 1"),
        ({"factors": (4, 4, 4, 2, 2, 0)}, "at least 1"),
        ({"channels": 64, "groups": 48}, "multiple of groups"),
    ],
)
def test_impossible_shapes_are_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UNet1dConfig(**changes)  # type: ignore[arg-type]
