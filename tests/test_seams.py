"""Where windows join: a latent model's wave has a phase of its own in each, and yet nothing clicks."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor

import stemwise
import tiny_componet
import tiny_gmsdi
import tiny_msgld
from stemwise import checkpoint
from stemwise.model import Model
from stemwise.stems import Audio
from stemwise.systems.componet_system import ComponetSystem
from stemwise.systems.msgld_system import MsgldSystem
from stemwise.systems.system import Seam

TONE, RATE = 110.0, 8000
ORDINARY = 2 * math.pi * TONE / RATE
"""The largest step from one sample to the next of a tone of amplitude 1."""


def out_of_phase(codec: torch.nn.Module) -> None:
    """Let a codec's vocoder make a tone, a radian and a half later with every call."""
    turn = count()

    def vocode(levels: Tensor) -> Tensor:
        time = torch.arange(4096) / RATE
        return torch.sin(2 * math.pi * TONE * time + 1.5 * next(turn)).expand(len(levels), -1)

    codec.vocode = vocode  # type: ignore[assignment]


def loaded(tmp_path: Path, module: torch.nn.Module) -> Model:
    model = stemwise.load(checkpoint.save_model(tmp_path / "model", module))
    system = model.system
    assert isinstance(system, MsgldSystem | ComponetSystem)
    out_of_phase(system.prior.codec if isinstance(system, MsgldSystem) else system.prior.base.codec)
    return model


@pytest.mark.parametrize("module", [tiny_msgld.tiny, tiny_componet.tiny], ids=["msgld", "componet"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.generate(1.2, stems=["bass"], steps=1),
        lambda model: model.accompany({"drums": torch.zeros(1, 9600)}, ["bass"], rate=RATE, steps=1).select(["bass"]),
    ],
    ids=["generate", "accompany"],
)
def test_new_stems_do_not_jump(
    tmp_path: Path, module: Callable[[], torch.nn.Module], ask: Callable[[Model], Audio]
) -> None:
    made = ask(loaded(tmp_path, module())).data[0, 0, 0]
    assert made.shape == (9600,) and float(made.abs().max()) > 0.9
    assert float(made.diff().abs().max()) < 1.1 * ORDINARY


def test_new_mixes_do_not_jump(tmp_path: Path) -> None:
    model = loaded(tmp_path, tiny_componet.tiny())
    made = stemwise.recompose(model, None, (), ("bass", "drums"), seconds=1.2, steps=1).data[0, 0, 0]
    assert made.shape == (9600,) and float(made.diff().abs().max()) < 1.1 * ORDINARY


def test_windows_of_latent_models_overlap_in_whole_latents(tmp_path: Path) -> None:
    assert Seam.about(163_840, 16_000, 640) == Seam(54_400, 480)
    seam = loaded(tmp_path, tiny_msgld.tiny()).system.seam
    assert seam.overlap % tiny_msgld.CODEC.stride == 0 and seam.fade == 240


def test_waves_that_are_repeated_exactly_are_joined_as_they_are(tmp_path: Path) -> None:
    model = stemwise.load(checkpoint.save_model(tmp_path / "model", tiny_gmsdi.prior()))
    assert model.system.seam == Seam(model.window // 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_band_does_not_click_where_its_windows_meet(seed: int) -> None:
    model = stemwise.load("band", "cpu")
    steps = model.generate(6.5, stems=["bass"], seed=seed, steps=2).data[0, 0, 0].diff().abs()
    seam = model.window - 1
    beside = torch.cat([steps[seam - 4000 : seam - 10], steps[seam + 10 : seam + 4000]])
    assert float(steps[seam - 10 : seam + 10].max()) < 1.5 * float(beside.max())
