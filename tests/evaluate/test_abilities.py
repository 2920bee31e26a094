"""The table of what systems can be asked: every tick is a question that a tiny model of the kind answers here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stemwise
import tiny_gmsdi
import tiny_msgld
from stemwise import checkpoint
from stemwise.errors import QueryError
from stemwise.evaluate.abilities import ABILITIES, PUBLISHED, TASKS, Ability, abilities_table, published_table
from stemwise.nets.bandnet import BandNetConfig
from stemwise.nets.unet1d import UNet1dConfig
from stemwise.query import Query
from stemwise.recomposing import recompose
from stemwise.stems import Audio
from stemwise.systems.band import Band, BandConfig
from stemwise.systems.componet import Componet, ComponetConfig, ComponetSampling
from stemwise.systems.msdm import Msdm, MsdmConfig, Separation, WeakMsdm
from tiny_componet import BASE, STEMS, tiny

ROOT = Path(__file__).parent.parent.parent
RATE, FRAMES = 8000, 4000
SONG = (0.1 * np.random.default_rng(0).standard_normal((1, FRAMES))).astype(np.float32)
HEARD, NEW = ("bass", "drums"), ("guitar", "piano")


def band() -> nn.Module:
    net = BandNetConfig(
        patches=((128, 16), (256, 32), (640, 80)),
        widths=(8,) * 4,
        depths=(1,) * 4,
        attention_heads=2,
        embedding=16,
        slots=5,
    )
    return Band(BandConfig(stems=STEMS, bins=1024, frames=32, net=net))


def msdm(cls: type[nn.Module], sources: int) -> nn.Module:
    net = UNet1dConfig(sources, 8, 2, (1, 1, 2), (2, 2), (1, 1), (False, True), 2, 4, 1, 4)
    return cls(MsdmConfig(STEMS, RATE, 2048, net=net, separation=Separation(steps=2, sigma_max=0.3)))


def gmsdi() -> nn.Module:
    torch.manual_seed(0)
    return type(tiny_gmsdi.prior())(replace(tiny_gmsdi.CONFIG, words=STEMS))


def variant(**changes: object) -> nn.Module:
    base = replace(BASE, **changes)  # type: ignore[arg-type]
    model = Componet(ComponetConfig(base, ComponetSampling(steps=1), trains="all"))
    model.base.scale.fill_(0.3)
    return model


BUILT: dict[str, Callable[[], nn.Module]] = {
    "band": band,
    "MSDM": lambda: msdm(Msdm, 4),
    "weak MSDM": lambda: msdm(WeakMsdm, 1),
    "GMSDI": gmsdi,
    "MSG-LD": lambda: tiny_msgld.tiny(steps=1),
    "CompoNet": lambda: tiny(steps=1),
    "CompoNet as AUDIT": lambda: variant(hears=True, unet={**BASE.unet, "in_channels": 32}),
    "CompoNet as InstructME": variant,
    "CompoNet as StemGen": lambda: variant(
        hears=True, tasks=("accompany",), most=1, unet={**BASE.unet, "in_channels": 32}
    ),
}


def mix_of(stems: Audio) -> np.ndarray:
    return stems.mix()[0].numpy()


def one_pass(model: stemwise.Model, row: Ability, task: str) -> tuple[Audio, int]:
    """The answer, and of how many stems (or of which one mix) it should be."""
    if row.hears == "any sub-mix":
        sides = {"generate": ((), NEW), "accompany": (HEARD, NEW), "separate": (STEMS, HEARD), "add": (HEARD, STEMS),
                 "replace": (HEARD, ("bass", "guitar"))}  # fmt: skip
        heard, wanted = sides[task]
        if row.makes == "a stem":
            with pytest.raises(QueryError, match="at most 1 stem"):
                recompose(model, SONG, HEARD, NEW, rate=RATE, steps=1)
            wanted = NEW[:1]
        seconds = FRAMES / RATE if not heard else None
        return recompose(model, SONG if heard else None, heard, wanted, rate=RATE, seconds=seconds, steps=1), 1
    if task == "generate":
        return model.generate(FRAMES / RATE, stems=NEW, steps=1), 2
    if task == "accompany":
        made = model.accompany({name: SONG for name in HEARD}, NEW, rate=RATE, steps=1)
        return made.select(NEW), 2
    assert task == "separate", f"{row.name} does not {task} in one pass"
    return model.edit(SONG, extract=HEARD, rate=RATE, evaluations=1), 2


def two_passes(model: stemwise.Model, task: str) -> tuple[Audio, int]:
    if task == "replace":
        changed = model.edit(SONG, replace=NEW, rate=RATE, steps=1, evaluations=1)
        return changed.select(f"{name}'" for name in NEW), 2
    stems = model.separate(SONG, rate=RATE, evaluations=1)
    kept = {name: stems[name][0].numpy() for name in HEARD}
    made = model.accompany(kept, NEW, rate=RATE, steps=1)
    whole = mix_of(made) - sum(kept.values())
    assert np.abs(whole).max() > 0  # the new mix holds the old one and something new
    return made.select(NEW), 2


@pytest.mark.parametrize("row", ABILITIES, ids=lambda row: row.name)
def test_every_tick_is_answered(row: Ability, tmp_path: Path) -> None:
    module = BUILT[row.name]()
    assert checkpoint.type_of(module) == row.type
    model = stemwise.load(checkpoint.save_model(tmp_path / "model", module))
    for task, way in row.ways.items():
        if way == "no":
            with pytest.raises(QueryError, match=f"trained to accompany, not to {task}"):
                one_pass(model, replace(row, makes="any sub-mix"), task)
            continue
        made, count = one_pass(model, row, task) if way == "one pass" else two_passes(model, task)
        assert len(made) == count, task
        assert made.data.isfinite().all() and made.data.abs().amax() > 0, task
    submix = Query({frozenset(HEARD): Audio.of({"x": torch.zeros(1, 8)}, RATE)}, frozenset(NEW))
    assert (model.system.answers(submix) is None) == (row.hears == "any sub-mix")


def test_the_page_holds_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import abilities

    text = abilities.PAGE.read_text(encoding="utf-8")
    for name, table in (("abilities", abilities_table()), ("published", published_table())):
        assert abilities.replaced(text, name, table) == text, "run: python benchmarks/abilities.py --write"
    sys.modules.pop("abilities")


def test_rows_are_whole() -> None:
    assert {row.name for row in ABILITIES} == set(BUILT)
    assert all(set(row.ways) == set(TASKS.values()) for row in ABILITIES)
    assert [row.name for row in PUBLISHED if all(cell in ("yes", "MS") for cell in row.cells)] == ["CompoNet"]
