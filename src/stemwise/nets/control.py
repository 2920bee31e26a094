"""Adapters that let a pretrained latent denoiser hear something: ControlNet (Zhang et al. 2023) for audio.

A trainable copy of the first half of the base reads the noisy latent and a condition; what it finds is added inside the
base through convolutions that start at zero, so an untrained adapter changes nothing. Both halves are the stock networks of
diffusers: the copy is one that lost its second half, and hooks carry residuals, so no code of theirs is repeated here.

    with control(x, t, condition, **context).times(0.8).into(unet):
        noise = unet(x, t, **context).sample
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor, nn

from stemwise.errors import ModelError
from stemwise.files import write_atomically
from stemwise.nets.pretrained import audioldm2_unet, stable_audio_transformer

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"

Hook = Callable[..., Any]
Layer = TypeVar("Layer", bound=nn.Module)

HOOKING = threading.RLock()
"""Hooks hang on a network that other threads may share: one pass at a time has them."""


@dataclass(frozen=True, eq=False)
class UNetResiduals:
    """What is added to a U-Net: to each skip, in the order in which the encoder makes them, and to the middle's output."""

    skips: tuple[Tensor, ...]
    middle: Tensor

    def times(self, strength: float) -> UNetResiduals:
        """All of them scaled."""
        return UNetResiduals(tuple(strength * skip for skip in self.skips), strength * self.middle)

    @contextlib.contextmanager
    def into(self, base: Any) -> Iterator[None]:
        """A stock U-Net adds them in every pass inside; outside it is as it was. Zeros leave its output bit for bit."""
        left, skips = list(self.skips), sum(len(block.resnets) for block in base.up_blocks)
        if len(left) != skips:
            raise ModelError(
                f"{len(left)} residuals do not fit a U-Net of {skips} skips; take an adapter of a base of its shape"
            )
        shares = []
        for block in base.up_blocks:  # the first consumes the last skips
            count = len(block.resnets)
            shares.append(left[-count:])
            del left[-count:]

        def wider(share: list[Tensor]) -> Hook:
            def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
                skips = kwargs["res_hidden_states_tuple"]
                return args, {
                    **kwargs,
                    "res_hidden_states_tuple": tuple(a + b for a, b in zip(skips, share, strict=True)),
                }

            return hook

        with HOOKING, contextlib.ExitStack() as stack:
            for block, share in zip(base.up_blocks, shares):
                stack.enter_context(block.register_forward_pre_hook(wider(share), with_kwargs=True))
            stack.enter_context(base.mid_block.register_forward_hook(_adding(self.middle)))
            yield


@dataclass(frozen=True, eq=False)
class BlockResiduals:
    """What is added to a transformer: to the output of each of its first blocks, (batch, token, width)."""

    blocks: tuple[Tensor, ...]

    def times(self, strength: float) -> BlockResiduals:
        """All of them scaled."""
        return BlockResiduals(tuple(strength * block for block in self.blocks))

    @contextlib.contextmanager
    def into(self, base: Any) -> Iterator[None]:
        """A stock transformer adds them in every pass inside; outside it is as it was."""
        if len(self.blocks) > len(base.transformer_blocks):
            raise ModelError(
                f"residuals of {len(self.blocks)} blocks do not fit a transformer of {len(base.transformer_blocks)}"
            )
        with _hooked((block, _adding(value)) for block, value in zip(base.transformer_blocks, self.blocks)):
            yield


class _Control(nn.Module):
    """What both constructions share: the stock copy `encoder`, and how they come from a base and lie on disk."""

    kind: ClassVar[str]
    encoder: Any
    arguments: dict[str, Any]

    def start_from(self, base: Any) -> Self:
        """Take the copied weights from a base of the same shape."""
        own, given = self.encoder.state_dict(), base.state_dict()
        misfits = [name for name, value in own.items() if name not in given or given[name].shape != value.shape]
        if misfits:
            raise ModelError(
                f"this base does not fit the adapter: {len(misfits)} tensor(s) differ, such as {misfits[0]}"
            )
        self.encoder.load_state_dict({name: given[name] for name in own})
        return self

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `config.json` and `diffusion_pytorch_model.safetensors`, each whole or not at all; returns the folder."""
        from safetensors.torch import save

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        document = {"_class_name": self.kind, **self.arguments}
        for name, content in ((WEIGHTS, save(tensors)), (CONFIG, (json.dumps(document, indent=2) + "\n").encode())):
            write_atomically(target / name, content)
        return target

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """An adapter as `save_pretrained` wrote it, ready to evaluate. Raises ModelError."""
        from safetensors.torch import load_file

        place = Path(folder)
        try:
            document = json.loads((place / CONFIG).read_text(encoding="utf-8"))
            tensors = load_file(place / WEIGHTS)
        except Exception as error:  # absent, not JSON, cut short, a pickle
            raise ModelError(f"{place}: not a saved adapter ({error}); it must hold {CONFIG} and {WEIGHTS}") from error
        if not isinstance(document, dict):
            raise ModelError(f"{place / CONFIG}: a {type(document).__name__}, not the arguments of a {cls.kind}")
        kind = document.pop("_class_name", None)
        if kind != cls.kind:
            raise ModelError(f"{place}: holds a {kind}, not a {cls.kind}")
        try:
            control = cls(**document)
        except (TypeError, AttributeError, ModelError) as error:  # an unknown or missing key, a value of another kind
            raise ModelError(f"{place / CONFIG}: these are not the arguments of a {cls.kind}: {error}") from error
        missing, surplus = control.load_state_dict(tensors, strict=False)
        if missing or surplus:
            raise ModelError(
                f"{place}: {len(missing)} tensor(s) missing, {len(surplus)} surplus, such as {(missing + surplus)[0]}"
            )
        return control.eval()


class ControlNet(_Control):
    """For AudioLDM2's U-Net: copies of input convolution, time embedding, encoder and middle (Ciranni et al. 2024).

    The condition, a latent like the state (batch, channel, time, mel), passes a 3 x 3 convolution of ordinary
    initialisation and is added behind the input convolution. `unet` are the arguments of diffusers' network.
    """

    kind = "ControlNet"

    def __init__(self, unet: Mapping[str, Any]) -> None:
        super().__init__()
        self.arguments = {"unet": _plain(unet)}
        self.encoder = audioldm2_unet(unet)
        self.encoder.up_blocks, self.encoder.conv_norm_out, self.encoder.conv_out = nn.ModuleList(), None, nn.Identity()
        first = self.encoder.conv_in
        self.condition = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1)
        widths = [first.out_channels]
        for block in self.encoder.down_blocks:
            widths += [block.resnets[0].out_channels] * (len(block.resnets) + len(block.downsamplers or ()))
        self.skips = nn.ModuleList(zeroed(nn.Conv2d(width, width, 1)) for width in widths)
        self.middle = zeroed(nn.Conv2d(widths[-1], widths[-1], 1))

    @classmethod
    def of(cls, base: Any) -> ControlNet:
        """An untrained adapter of a U-Net, which it leaves as it is."""
        if not hasattr(base, "mid_block"):
            raise ModelError(f"a {type(base).__name__} is no U-Net; for a transformer take ControlTransformer")
        return cls(dict(base.config)).start_from(base)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor, **context: Any) -> UNetResiduals:
        """Residuals for a noisy latent and a condition of the same shape; the rest is as the stock U-Net takes it."""
        seen: list[Tensor] = []

        def begin(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            seen.append(output + self.condition(condition))
            return seen[0]

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            seen.extend(output[1])

        blocks: list[tuple[nn.Module, Hook]] = [(block, keep) for block in self.encoder.down_blocks]
        with _hooked([(self.encoder.conv_in, begin), *blocks]):
            end = self.encoder(sample, timestep, return_dict=False, **context)[0]
        return UNetResiduals(tuple(write(skip) for write, skip in zip(self.skips, seen, strict=True)), self.middle(end))


class ControlTransformer(_Control):
    """For transformers such as Stable Audio Open's: copies of its input and its first `blocks`, each written out by a
    matrix that starts at zero; the condition (batch, channel, time) is added to the state by another.

    `transformer` are the arguments of diffusers' network.
    """

    kind = "ControlTransformer"

    def __init__(self, transformer: Mapping[str, Any], blocks: int) -> None:
        super().__init__()
        if blocks < 1:
            raise ModelError(f"blocks is {blocks}; an adapter copies at least one")
        self.arguments = {"transformer": _plain(transformer), "blocks": blocks}
        self.encoder = stable_audio_transformer({**transformer, "num_layers": blocks})
        channels, width = self.encoder.preprocess_conv.in_channels, self.encoder.proj_in.out_features
        self.encoder.proj_out, self.encoder.postprocess_conv = nn.Identity(), nn.Identity()
        self.condition = zeroed(nn.Conv1d(channels, channels, 1))
        self.writes = nn.ModuleList(zeroed(nn.Linear(width, width)) for _ in range(blocks))

    @classmethod
    def of(cls, base: Any, share: float = 0.2) -> ControlTransformer:
        """An untrained adapter of the first `share` of a transformer's blocks (at least one)."""
        if not hasattr(base, "transformer_blocks"):
            raise ModelError(f"a {type(base).__name__} is no transformer; for a U-Net take ControlNet")
        return cls(dict(base.config), max(1, round(share * len(base.transformer_blocks)))).start_from(base)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor, **context: Any) -> BlockResiduals:
        """Residuals for a noisy latent and a condition (batch, channel, time); the rest as the stock network takes it."""
        seen: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Tensor) -> None:
            seen.append(output)

        with _hooked((block, keep) for block in self.encoder.transformer_blocks):
            self.encoder(sample + self.condition(condition), timestep, return_dict=False, **context)
        return BlockResiduals(tuple(write(found) for write, found in zip(self.writes, seen, strict=True)))


def zeroed(layer: Layer) -> Layer:
    """The layer with all its weights zero."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


@contextlib.contextmanager
def recomputed(*blocks: nn.Module) -> Iterator[None]:
    """Passes inside forget the blocks' activations and compute them again on the way back (Chen et al. 2016).

    In the place of diffusers' own switch, which hands AudioLDM2's attention its masks in the wrong order (0.42).
    """
    from torch.utils.checkpoint import checkpoint

    def again(forward: Hook) -> Hook:
        return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)

    for block in blocks:
        block.forward = again(block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextlib.contextmanager
def _hooked(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    with HOOKING, contextlib.ExitStack() as stack:
        for module, hook in hooks:
            stack.enter_context(module.register_forward_hook(hook))
        yield


def _adding(value: Tensor) -> Hook:
    return lambda _, __, output: output + value


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as JSON gives them back, without diffusers' own notes."""
    return {key: json.loads(json.dumps(value)) for key, value in arguments.items() if not key.startswith("_")}
