"""The published networks of rolls give the recorded numbers from the same weights; ours differ where they should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from published_mixture2music import facts, published, tensors, weights
from stemwise.convert.mixture2music import rename
from stemwise.nets.transunet import RollDecoder, TransUnet, TransUnetConfig

TINY = TransUnetConfig(inputs=3, outputs=2, widths=(8, 16, 16, 16), kernel=3, layers=1)


@torch.no_grad()
def test_recorded_evaluations() -> None:
    recorded, tolerance = tensors("forward"), facts("forward")["tolerance"]
    net = published().net
    seen: dict[str, Tensor] = {}
    hooks = [
        net.tokens.register_forward_hook(
            lambda _, given, out: seen.update(transformer_in=given[0], transformer_out=out)
        ),
        net.time.register_forward_hook(lambda _, given, out: seen.update(time_vector=out)),
    ]
    seen["eps"] = net(recorded["x_t"], recorded["t"])
    for hook in hooks:
        hook.remove()
    for name in ("time_vector", "transformer_in", "transformer_out", "eps"):
        torch.testing.assert_close(seen[name], recorded[name], **tolerance[name])


@torch.no_grad()
def test_recorded_evaluation_of_another_size_and_without_a_time() -> None:
    recorded, tolerance = tensors("forward_small"), facts("forward")["small"]["tolerance"]
    torch.testing.assert_close(published().net(recorded["x_t"], recorded["t"]), recorded["eps"], **tolerance)
    torch.testing.assert_close(published().net(recorded["x_t"]), recorded["eps_without_time"], **tolerance)


@torch.no_grad()
def test_recorded_decoder() -> None:
    recorded = tensors("decoder")
    decoder = published().decoder
    assert decoder is not None
    logits = decoder(recorded["x_1"])
    torch.testing.assert_close(logits, recorded["logits"], **facts("decoder")["tolerance"]["logits"])
    labels = published().decode(recorded["x_1"], recorded["mixture"])
    firm = recorded["firm"]
    assert torch.equal(labels[firm], recorded["labels"][firm])


def test_names_and_shapes_are_those_of_the_checkpoints() -> None:
    keys = facts("keys")
    for part, prefix, net in (("transunet", "model.", published().net), ("decoder", "decoder.", published().decoder)):
        assert net is not None
        named = {rename(key.removeprefix(prefix)): tuple(shape) for key, shape in keys[part].items()}
        own = {name: tuple(value.shape) for name, value in net.state_dict().items() if not name.endswith(".table")}
        assert named == own
    assert sum(p.numel() for p in published().net.parameters()) == keys["transunet_parameters"]
    assert sum(p.numel() for p in RollDecoder().parameters()) == keys["decoder_parameters"]


def test_spot_checks_of_the_rebuilt_weights() -> None:
    rebuilt = weights("transunet") | weights("decoder")
    for key, first in facts("keys")["spot_checks"].items():
        assert rebuilt[key].flatten()[:3].tolist() == pytest.approx(first)


@torch.no_grad()
def test_the_oddities_are_the_published_networks_alone() -> None:
    state, time = torch.randn(1, 3, 16, 24), torch.tensor([5])

    def out(**changes: str) -> Tensor:
        torch.manual_seed(0)
        net = TransUnet(TransUnetConfig(**(vars(TINY) | changes))).eval()
        plain = TransUnet(TINY).state_dict()
        net.load_state_dict({**net.state_dict(), **plain})
        made: Tensor = net(state, time)
        return made

    torch.manual_seed(0)
    plain = out()
    assert not torch.allclose(plain, out(bottleneck="published"))
    assert not torch.allclose(plain, out(positions="published"))
    assert "tokens.layers.0.first.table" in TransUnet(TransUnetConfig(positions="published")).state_dict()


@torch.no_grad()
def test_rows_have_embeddings_of_their_own() -> None:
    net = TransUnet(TransUnetConfig(**(vars(TINY) | {"rows": 24}))).eval()
    assert net.rows is not None
    state = torch.randn(1, 3, 16, 24)
    before = net(state)
    net.rows.data[..., 5] = 10.0
    assert not torch.allclose(before, net(state))
    with pytest.raises(ValueError, match="multiples of 8"):
        TransUnetConfig(widths=(8, 12, 16, 16))
