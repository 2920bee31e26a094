"""The stem x latent U-Net gives the recorded numbers of the published one from the same weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from published_msgld import UNET, close, facts, tensors, unet
from stemwise.nets.unet_stems import UNetStems, UNetStemsConfig, time_embedding

WIDE = UNetStemsConfig(channels=64, multipliers=(1, 2), blocks=1, attention=(False, True))


@pytest.mark.parametrize(("folder", "config"), [("unet_tiny", UNET), ("unet_wide", WIDE)])
def test_recorded_evaluations(folder: str, config: UNetStemsConfig) -> None:
    recorded = tensors(f"{folder}/tensors")
    net = unet(folder, config)
    assert sum(p.numel() for p in net.parameters()) == facts(f"{folder}/config")["parameters"]
    pyramid = net.pyramid(recorded["mixture"][:, 0])
    close(net(recorded["x"], recorded["t"], pyramid), recorded["eps_with_mixture"])
    close(net(recorded["x"], recorded["t"]), recorded["eps_without_mixture"])
    silent = net.pyramid(torch.zeros_like(recorded["mixture"][:, 0]))
    close(net(recorded["x"], recorded["t"], silent), recorded["eps_without_mixture"])


@pytest.mark.parametrize("width", [32, 128, 192])
def test_recorded_time_embeddings(width: int) -> None:
    recorded = tensors("schedule/tensors")
    torch.testing.assert_close(
        time_embedding(recorded["embedding.t"], width), recorded[f"embedding.{width}"], atol=2e-4, rtol=0
    )


@pytest.mark.parametrize(("channels", "elements"), [(128, 305_165_444), (192, 686_513_860)])
def test_published_sizes(channels: int, elements: int) -> None:
    with torch.device("meta"):
        net = UNetStems(UNetStemsConfig(channels=channels))
    assert (len(net.state_dict()), sum(p.numel() for p in net.parameters())) == (368, elements)


def test_recomputed_activations_give_the_same_gradients() -> None:
    """Gradient checkpointing changes memory, not numbers."""
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        config = UNetStemsConfig(
            stems=2, channels=32, multipliers=(1, 2), blocks=1, attention=(False, True), recompute=recompute
        )
        net = UNetStems(config)
        torch.nn.init.normal_(net.write.weight)
        net(torch.ones(1, 2, 2, 4, 4), torch.tensor([5]), net.pyramid(torch.ones(1, 2, 4, 4))).square().sum().backward()
        gradients.append(net.encoder[0].convolution.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_attention_takes_the_flash_kernel() -> None:
    """Where no other kernel is allowed it runs, forth and back, with the numbers of the plain arithmetic."""
    torch.manual_seed(0)
    net = UNetStems(UNetStemsConfig(stems=2, channels=32, multipliers=(1, 2), blocks=1, attention=(True, True)))
    for layer in [net.write, *(block.attention.out for block in net.modules() if getattr(block, "attention", None))]:
        torch.nn.init.normal_(layer.weight, std=0.2)
    x, found = torch.randn(1, 2, 2, 8, 8), []
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        net.zero_grad()
        with sdpa_kernel([kernel]):  # raises where the layout of the heads does not suit it
            out = net(x, torch.tensor([5]))
            out.square().mean().backward()
        found.append((out.detach(), net.encoder[0].convolution.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-3)


FOLDED = UNetStemsConfig(stems=2, folded=3, channels=32, multipliers=(1, 2), blocks=1, attention=(False, True))


def folded() -> UNetStems:
    torch.manual_seed(0)
    net = UNetStems(FOLDED)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def test_a_folded_network_hears_the_mixture_and_silence_is_its_absence() -> None:
    """Its answer depends on the mixture at every level, and on none as on a mixture of zeros."""
    net, x, time = folded(), torch.randn(2, 2, 3, 8, 4), torch.tensor([5, 900])
    silence = net(x, time, net.pyramid(torch.zeros(2, 3, 8, 4)))
    torch.testing.assert_close(net(x, time), silence)
    heard = net.pyramid(torch.randn(2, 3, 8, 4))
    assert [tuple(level.shape[1:]) for level in heard] == [(32, 8, 4), (64, 4, 2)]
    quiet = net.pyramid(torch.zeros(2, 3, 8, 4))
    for level in range(2):
        mixed = [heard[i] if i == level else quiet[i] for i in range(2)]
        assert (net(x, time, mixed) - silence).abs().amax() > 1e-3


def test_a_folded_network_tells_places_on_the_mel_axis_apart() -> None:
    """Convolutions alone give two bands of an even state the same answer, so far from the edges that these do not reach them."""
    net = folded()
    out = net(torch.zeros(1, 2, 3, 8, 96), torch.tensor([5]))[0, 0, 0, 4]
    assert (out[40] - out[56]).abs() > 1e-3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attention": (True,)}, "attention flags"),
        ({"channels": 40}, "multiple of 32"),
        ({"multipliers": (2, 2, 3, 5)}, "first"),
    ],
)
def test_impossible_shapes_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        UNetStemsConfig(**change)  # type: ignore[arg-type]
