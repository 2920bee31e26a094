"""The folder of one training run: its recipe, checkpoints that survive a kill at any moment, and its logs.

- recipe.yaml: the resolved recipe
- metrics.csv: step,name,value; and the same for TensorBoard in tensorboard/
- checkpoints/step-000001000.ckpt: everything that a resumed training needs
- best/: the averaged weights with the lowest validation loss, as a model folder
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from stemwise import checkpoint
from stemwise.errors import ModelError, RecipeError, TrainingError
from stemwise.files import atomic_file, write_atomically
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
        raise TrainingError(f"{run}: none of its {len(files)} checkpoint(s) can be read; use another run folder")
    return None


def save_state(run: Path, state: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint so that a kill leaves the old ones or all of the new one; keep the newest `keep`.

    Raises TrainingError where it cannot be written.
    """
    folder = run / "checkpoints"
    file = folder / f"step-{state['step']:09d}.ckpt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as handle:
            torch.save(dict(state), handle)
    except (OSError, RuntimeError) as error:
        fault = error if isinstance(error, OSError) else error.__context__  # torch's own words hide a full disk
        if not isinstance(fault, OSError):
            raise
        before = checkpoints(run)
        left = f"the last checkpoint, {before[-1]}, is safe" if before else "there is no checkpoint before it"
        raise TrainingError(
            f"{file}: cannot be written ({fault.strerror or fault}); {left}. Free some space, and start the same command again"
        ) from error
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
        places = [place for key in _FIXED for place in differences(before[key], now[key], key)]
        places = [place for place in places if not place.startswith(("model.init", "model.parts"))]
        places += differences(before["optim"]["muon"], now["optim"]["muon"], "optim.muon")
        if places:
            raise RecipeError(
                f"{run} holds a run with other settings: {'; '.join(places)}. "
                "Resume with the same ones, or give another folder (run=...)"
            )
    write_atomically(run / RECIPE, dump(recipe).encode())


def export(
    run: Path | str,
    folder: Path | str,
    *,
    weights: Literal["auto", "best", "last"] = "auto",
    dtype: torch.dtype = torch.float32,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a run's averaged weights as a model folder: the best by validation, or the last.

    "auto" takes the best where there is one. `dtype` and `metadata` as for `save_model`. Raises ModelError.
    """
    run = Path(run)
    if not (run / RECIPE).is_file():
        raise ModelError(f"{run}: no {RECIPE} in it; give the run folder of `stemwise train`")
    recipe = load_recipe(run / RECIPE)
    has_best = (run / BEST / checkpoint.CONFIG).is_file()
    if weights == "best" and not has_best:
        raise ModelError(f"{run}: no validated weights yet; export the last ones, or give data.valid and train on")
    if weights != "last" and has_best:
        module = checkpoint.load_model(run / BEST)
        source: dict[str, Any] = dict(checkpoint.read_info(run / BEST).metadata)
    else:
        state = newest_state(run)
        if state is None:
            raise ModelError(f"{run}: no checkpoint yet; train at least train.checkpoint_every steps")
        module = checkpoint.build(recipe.model.type, recipe.model.config, "model.config")
        module.load_state_dict(state["model"])
        module.load_state_dict(state["ema"], strict=False)  # it has no buffers: those are the model's own
        source = {"recipe": recipe.name, "step": state["step"]}
    return checkpoint.save_model(folder, module, dtype=dtype, metadata={**source, **(metadata or {})})


def differences(before: Any, now: Any, place: str) -> list[str]:
    """What changed between two documents of plain values: "place was ..., now ..." for each."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [line for key in keys for line in differences(before.get(key), now.get(key), f"{place}.{key}")]
    return [] if before == now else [f"{place} was {before!r}, now {now!r}"]


class Metrics:
    """Scalars of a run, for `metrics.csv` and TensorBoard; rows after `step`, from before a kill, are dropped."""

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
        self._handle = open(file, "a", newline="")  # noqa: SIM115 - closed on leaving
        self._rows = csv.writer(self._handle, lineterminator="\n")
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, scalars: Mapping[str, float | Tensor]) -> None:
        """Log scalars at a step (counted from 1)."""
        for name, value in scalars.items():
            number = float(value)
            self._rows.writerow([step, name, f"{number:.7g}"])
            self._board.add_scalar(name, number, step)
        self._handle.flush()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
        self._board.close()
