"""The folder of one training run: its recipe, checkpoints that survive a kill at any moment, and its logs.

    recipe.yaml                     the resolved recipe
    metrics.csv                     step,name,value
    tensorboard/                    the same, for TensorBoard
    checkpoints/step-000001000.ckpt everything a resumed training needs
    best/                           the averaged weights with the lowest validation loss, as a model folder
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from stemwise.checkpoint import atomic_file, write_atomically
from stemwise.errors import RecipeError, TrainingError
from stemwise.recipe import Recipe, dump, load_recipe

RECIPE = "recipe.yaml"
BEST = "best"
#: What a resumed run may not change: with other values the stored state means something else.
_FIXED = ("format", "seed", "model")


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*.ckpt"))


def newest_state(run: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None where a run has none. Raises TrainingError if all are damaged."""
    files = checkpoints(run)
    for file in reversed(files):
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes the reader raise
            warnings.warn(f"{file}: damaged ({error}); trying the one before", stacklevel=2)
            continue
        assert isinstance(state, dict)
        return state
    if files:
        raise TrainingError(f"{run}: none of its {len(files)} checkpoint(s) can be read; restore one or use another run folder")
    return None


def save_state(run: Path, state: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint so that a kill leaves the old ones or all of the new one; keep the newest `keep`."""
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"step-{state['step']:09d}.ckpt"
    with atomic_file(file) as handle:
        torch.save(dict(state), handle)
    for old in checkpoints(run)[:-keep]:
        old.unlink(missing_ok=True)
    return file


def open_run(recipe: Recipe) -> None:
    """Make the run folder, or check that the one there belongs to this recipe; write the resolved recipe into it."""
    run = recipe.run
    run.mkdir(parents=True, exist_ok=True)
    for stale in [*run.glob(".*.tmp"), *run.glob("*/.*.tmp")]:
        stale.unlink(missing_ok=True)  # left by a kill in the middle of a write
    if (run / RECIPE).is_file() and checkpoints(run):
        before = load_recipe(run / RECIPE).model_dump(mode="json")
        now = recipe.model_dump(mode="json")
        places = [place for key in _FIXED for place in _differences(before[key], now[key], key)]
        places = [place for place in places if not place.startswith("model.init")]
        if places:
            raise RecipeError(
                f"{run} holds a run with other settings: {'; '.join(places)}. "
                "Resume with the same ones, or give another folder (run=...)"
            )
    write_atomically(run / RECIPE, dump(recipe).encode())


def _differences(before: Any, now: Any, place: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [line for key in keys for line in _differences(before.get(key), now.get(key), f"{place}.{key}")]
    return [] if before == now else [f"{place} was {before!r}, now {now!r}"]


class Metrics:
    """Scalars of a run, appended to `metrics.csv` and to TensorBoard; rows after `step` (from before a kill) are dropped."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        file = run / "metrics.csv"
        kept: list[list[str]] = []
        if file.is_file():
            with open(file, newline="") as handle:
                kept = [row for row in csv.reader(handle) if len(row) == 3 and row[0].isdigit() and int(row[0]) <= step]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["step", "name", "value"], *kept])
        write_atomically(file, text.getvalue().encode())
        self._handle = open(file, "a", newline="")
        self._rows = csv.writer(self._handle, lineterminator="\n")
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars at a step (counted from 1)."""
        for name, value in scalars.items():
            self._rows.writerow([step, name, f"{value:.7g}"])
            self._board.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self._handle.flush()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handle.close()
        self._board.close()  # type: ignore[no-untyped-call]
