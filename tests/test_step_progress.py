"""Sampling and separating report every step, whatever the model: a bar moves, and "cancel" is heard within a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import stemwise
import tiny_componet
import tiny_gmsdi
import tiny_msgld
from stemwise.checkpoint import save_model
from stemwise.errors import Cancelled
from stemwise.longform import Progress
from stemwise.model import Model
from stemwise.nets.unet1d import UNet1dConfig
from stemwise.systems.gmsdi_system import GmsdiSystem
from stemwise.systems.msdm import Msdm, MsdmConfig
from tiny_band import write_tiny_band
from tiny_pipeline import save_pipeline, tiny_pipeline


def msdm(folder: Path) -> Path:
    net = UNet1dConfig(2, 8, 2, (1, 1, 2), (2, 2), (1, 1), (False, True), 2, 4, 1, 4)
    return save_model(folder, Msdm(MsdmConfig(("bass", "drums"), 8000, 2048, net=net)))


KINDS: dict[str, Callable[[Path], Path]] = {
    "band": write_tiny_band,
    "msdm": msdm,
    "gmsdi": lambda folder: save_model(folder, tiny_gmsdi.prior()),
    "msgld": lambda folder: save_model(folder, tiny_msgld.tiny()),
    "componet": lambda folder: save_model(folder, tiny_componet.tiny()),
    "pipeline": lambda folder: save_pipeline(tiny_pipeline(), folder),
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    torch.manual_seed(0)
    if request.param == "pipeline":
        pytest.importorskip("diffusers")
        return stemwise.load(KINDS[request.param](tmp_path / "model"), stems={"bass": "a bass", "drums": "drums"})
    return stemwise.load(KINDS[request.param](tmp_path / "model"))


def test_every_step_is_told_and_can_cancel(model: Model) -> None:
    told: list[float] = []
    stems = model.stems[:2]
    seconds = 1.5 * model.window / model.rate  # two windows
    model.generate(seconds, stems=stems, steps=3, progress=lambda event: told.append(event.fraction))
    assert len(set(told)) >= 2 * 3
    assert all(b > a - 1e-9 for a, b in pairwise(told)) and told[-1] == 1.0
    heard: list[float] = []
    with pytest.raises(Cancelled):
        model.generate(seconds, stems=stems, steps=3, progress=lambda event: heard.append(event.fraction) or False)
    assert heard == told[:1] and heard[0] < 0.5


def test_every_step_of_a_separation_is_told_and_can_cancel(model: Model) -> None:
    told: list[float] = []
    song = 0.1 * torch.randn(2, round(1.5 * model.window), generator=torch.Generator().manual_seed(0))

    def split(progress: Callable[[Progress], object]) -> None:
        model.separate(song, rate=model.rate, evaluations=4, overlap=0.25, progress=progress)

    split(lambda event: told.append(event.fraction))
    assert len(set(told)) >= 4
    assert all(b > a - 1e-9 for a, b in pairwise(told)) and told[-1] == 1.0
    heard: list[float] = []
    with pytest.raises(Cancelled):
        split(lambda event: heard.append(event.fraction) or False)
    assert heard == told[:1] and heard[0] < 0.5


def test_each_of_several_extractions_is_a_part_of_the_work() -> None:
    """GMSDI with the bass against the rest, and the others together: two runs of a window."""
    told: list[float] = []
    system = replace(GmsdiSystem.of(tiny_gmsdi.prior()), extracted=("bass",))
    system.separate(0.1 * torch.randn(1, 1, system.window), 4, told.append)
    steps = len(told) // 2
    assert told == pytest.approx([(i + 1) / (2 * steps) for i in range(2 * steps)])
