"""What systems can be asked: Table 1 of the COCOLA paper (Ciranni et al. 2024, v1), and the same of those that are here.

The paper's rows are copied as they stand. Of ours every tick is a test (`tests/evaluate/test_abilities.py`);
`python benchmarks/abilities.py` writes both into `docs/componet.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

#: The paper's columns -> tasks as we call them. Separating is also extracting and removing.
TASKS: Mapping[str, str] = {"UG": "generate", "AG": "accompany", "SS": "separate", "EA": "add", "ER": "replace"}

Way = Literal["one pass", "two passes", "no"]
Side = Literal["stems or the mixture", "any sub-mix"]


@dataclass(frozen=True)
class Published:
    """A row of the paper: what can be done with many sources at once ("MS") or with one ("1S"), and how."""

    name: str
    cells: tuple[str, str, str, str, str]
    methodology: str
    input: str
    output: str
    coherence: bool


@dataclass(frozen=True)
class Ability:
    """A system that is here, with many stems at once in every task, unless it makes one at a time.

    Attributes:
        name: of the system.
        type: of its model folders, see `stemwise.checkpoint`.
        ways: by task: in one pass of sampling, in two (a mix is separated, then others are made for what is kept), or not.
        hears, makes: the signals of one pass.
        learns: from what.
        coherent: whether what it makes was trained to belong together.
    """

    name: str
    type: str
    ways: Mapping[str, Way]
    hears: Side
    makes: Literal["stems", "any sub-mix", "a stem"]
    learns: str
    coherent: bool


_EDITS_BY_PARTS: Mapping[str, Way] = {
    "generate": "one pass", "accompany": "one pass", "separate": "one pass", "add": "two passes", "replace": "two passes",
}  # fmt: skip
_ALL: Mapping[str, Way] = dict.fromkeys(TASKS.values(), "one pass")
_ACCOMPANIES: Mapping[str, Way] = {**dict.fromkeys(TASKS.values(), "no"), "accompany": "one pass"}

PUBLISHED = (
    Published(
        "MSDM", ("yes", "MS", "MS", "no", "no"), "training, supervised", "multi / source", "multi / source", True
    ),
    Published(
        "GMSDI",
        ("yes", "MS", "MS", "no", "no"),
        "inference, weakly supervised",
        "multi / sub-mix",
        "multi / sub-mix",
        True,
    ),
    Published(
        "StemGen", ("yes", "1S", "no", "no", "no"), "training, supervised", "single / sub-mix", "single / source", True
    ),
    Published(
        "AUDIT",
        ("yes", "no", "remove 1S", "1S", "1S"),
        "training, supervised",
        "single / sub-mix",
        "single / sub-mix",
        False,
    ),
    Published(
        "InstructME",
        ("yes", "no", "extract 1S, remove 1S", "1S", "1S"),
        "training, supervised",
        "single / sub-mix",
        "single / sub-mix",
        True,
    ),
    Published(
        "CompoNet",
        ("yes", "MS", "MS", "MS", "MS"),
        "training, supervised, fine-tuning",
        "single / sub-mix",
        "single / sub-mix",
        True,
    ),
)

ABILITIES = (
    Ability("band", "band", _EDITS_BY_PARTS, "stems or the mixture", "stems", "stems", True),
    Ability("MSDM", "msdm", _EDITS_BY_PARTS, "stems or the mixture", "stems", "stems", True),
    Ability("weak MSDM", "msdm-weak", _EDITS_BY_PARTS, "stems or the mixture", "stems", "stems, each by itself", False),
    Ability("GMSDI", "gmsdi", _EDITS_BY_PARTS, "stems or the mixture", "stems", "mixtures and words", True),
    Ability("MSG-LD", "msgld", _EDITS_BY_PARTS, "stems or the mixture", "stems", "stems", True),
    Ability("CompoNet", "componet", _ALL, "any sub-mix", "any sub-mix", "stems; an adapter of a model of mixtures and words", True),
    Ability("CompoNet as AUDIT", "componet", _ALL, "any sub-mix", "any sub-mix", "stems; what is heard beside the state", True),
    Ability("CompoNet as InstructME", "componet", _ALL, "any sub-mix", "any sub-mix", "stems; the adapter is its encoder", True),
    Ability("CompoNet as StemGen", "componet", _ACCOMPANIES, "any sub-mix", "a stem", "stems; one from a mix of others", True),
)  # fmt: skip


def published_table() -> str:
    """The paper's table as Markdown."""
    rows = [
        [row.name, *row.cells, row.methodology, row.input, row.output, "yes" if row.coherence else "no"]
        for row in PUBLISHED
    ]
    return _table(["model", *TASKS, "methodology", "input", "output", "coherence"], rows)


def abilities_table() -> str:
    """Ours as Markdown: ●● in one pass, ● in two, - not."""
    signs: Mapping[Way, str] = {"one pass": "●●", "two passes": "●", "no": "-"}
    rows = [
        [
            row.name,
            *(signs[row.ways[task]] for task in TASKS.values()),
            row.hears,
            row.makes,
            row.learns,
            "yes" if row.coherent else "no",
        ]
        for row in ABILITIES
    ]
    return _table(["system", *TASKS, "hears", "makes", "learns from", "coherence"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
