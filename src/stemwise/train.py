"""One training loop for everything that has a loss.

A trainable is an `nn.Module` of the table in `stemwise.checkpoint`, with a `config` (a frozen dataclass), with `stems`,
`rate` (Hz) and `window` (frames) on itself or on its config, and with

    loss(batch, generator) -> scalar Tensor, or a dict of scalars with the key "loss"

where `batch` is float32 (batch, stem, channel, time), or what `training_data` has for the kind that the module names with
`learns_from`, and `generator` lives on its device. A module may also have `validate(batch, generator)`, with the same
kind of result, where validation should measure something else, and `begin()`, called once before the first step, when
`model.parts` have their weights.

Step i uses the windows, noise and learning rate that belong to (seed, i, process) and nothing else, so a run that was
killed anywhere continues from its last checkpoint to the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stemwise import checkpoint, runs, training_data
from stemwise.errors import RecipeError, TrainingError
from stemwise.interruption import ignore_stop_signals, stop_signals
from stemwise.optimization import Ema, native_bfloat16, optimizers, schedule
from stemwise.recipe import Recipe
from stemwise.songs.window import Batches
from stemwise.training_data import VALIDATION_SEED, Material, Stream

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
_STEP, _VALIDATE, _INIT = 0, 1, 2  # kinds of randomness, for seeds that never meet


@dataclass(frozen=True)
class Progress:
    """Reported after every step: steps done and planned, loss of the step, windows a second, last validation loss."""

    step: int
    steps: int
    loss: float
    windows_per_second: float
    validation: float | None
    best: float | None


@dataclass(frozen=True)
class Outcome:
    """How a training ended: `interrupted` by a signal (a checkpoint is there), or done; `loss` of the last step, None
    where there was none left to do; `lead`: of the first of several processes.
    """

    run: Path
    step: int
    loss: float | None
    best: float | None
    interrupted: bool
    lead: bool = True


def train(
    recipe: Recipe,
    *,
    devices: int | str = 1,
    nodes: int = 1,
    strategy: str = "auto",
    accelerator: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    notice: Callable[[str], None] = print,
) -> Outcome:
    """Train until `train.steps`, resuming where the run folder left off; checkpoints, logs and the best model go there.

    `devices`, `nodes`, `strategy` and `accelerator` go to Lightning; `notice` receives lines for a person. SIGINT and
    SIGTERM end it after a checkpoint. Raises RecipeError, SongError, ModelError, and TrainingError at an infinite or
    undefined loss.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    if strategy not in STRATEGIES:
        allowed = ", ".join(STRATEGIES)
        raise RecipeError(f"strategy {strategy!r}: every device must hold the whole network; allowed: {allowed}")
    material = training_data.read(recipe, notice)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=int(devices) if str(devices).isdigit() else devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=_precision(recipe.train.precision, accelerator),
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise RecipeError(
            f"--accelerator {accelerator} with --devices {devices} cannot be had ({error}); "
            "take accelerator auto, cpu, gpu or mps, and as devices a number of those that are there"
        ) from error
    fabric.launch()
    if fabric.global_rank == 0:
        runs.open_run(recipe)
    loop = _Loop(recipe, fabric, material)
    if fabric.global_rank == 0:
        notice(loop.describe())
    return loop.run(progress or (lambda _: None))


class _Loop:
    """State of a training between two steps."""

    def __init__(self, recipe: Recipe, fabric: Any, material: Material[Any]) -> None:
        self.recipe, self.fabric, self.material = recipe, fabric, material
        torch.manual_seed(_seed(recipe.seed, _INIT))
        self.module = checkpoint.build(recipe.model.type, recipe.model.config, "model.config")
        state = runs.newest_state(recipe.run)
        if state is not None:
            self.module.load_state_dict(state["model"])
        elif recipe.model.init is not None:
            checkpoint.load_weights(self.module, recipe.model.init)
        else:
            for part, folder in recipe.model.parts.items():
                checkpoint.load_weights(self.module.get_submodule(part), folder)
            getattr(self.module, "begin", lambda: None)()
        made = optimizers(self.module, recipe.optim)
        settings = [[_settings(group) for group in optimizer.param_groups] for optimizer in made]
        self.rates = [[group["lr"] for group in groups] for groups in settings]
        self.wrapped, *self.optimizers = fabric.setup(self.module, *made)
        for optimizer, stored, groups in zip(made, state["optimizers"] if state else (), settings):
            optimizer.load_state_dict(stored)  # after the setup, which moves parameters, but no state, to the device
            for group, setting in zip(optimizer.param_groups, groups):
                group.update(setting)  # the recipe's, also where the stored state brings others
        self.wrapped.mark_forward_method("loss")
        self.ema = Ema(self.module, recipe.train.ema)
        self.done = 0
        self.best: float | None = None
        self.validation: float | None = None
        if state is not None:
            self.ema.load(state["ema"])
            self.done, self.best, self.validation = state["step"], state["best"], state["validation"]
        self.loss = math.nan
        self.recent: list[float] = []  # losses since the last line of the log
        self.stream, self.held_out = material.streams(self.module)
        self.waited = 0.0  # seconds for data, since the last line of the log

    def describe(self) -> str:
        """What is about to happen, in one line."""
        fabric = self.fabric
        return (
            f"{self.recipe.name}: {f'resumes at step {self.done}' if self.done else 'starts'}, "
            f"{self.recipe.train.steps} steps in all, {sum(p.numel() for p in self.module.parameters()):,} parameters, "
            f"{self.material.describe(self.stream)}, {fabric.world_size} process(es) "
            f"on {fabric.device.type}, precision {fabric._precision.precision}, run folder {self.recipe.run}"
        )

    def run(self, progress: Callable[[Progress], None]) -> Outcome:
        plan, first = self.recipe.train, self.done
        since = logged = time.monotonic()
        lead = self.fabric.global_rank == 0
        with contextlib.ExitStack() as stack:
            asked = stack.enter_context(stop_signals())
            metrics = stack.enter_context(runs.Metrics(self.recipe.run, self.done)) if lead else None
            interrupted = False
            for batch in self._batches():
                scalars = self._step(batch)
                self.done += 1
                last = self.done == plan.steps
                windows = (self.done - first) * plan.batch * self.fabric.world_size
                speed = windows / (time.monotonic() - since)
                if self.held_out is not None and (last or self.done % plan.validate_every == 0):
                    scalars |= self._validate(self.held_out)
                if metrics and (last or self.done % plan.log_every == 0 or "validation/loss" in scalars):
                    now = time.monotonic()
                    mean = {"train/loss": float(np.mean(self.recent)), "windows_per_second": speed}
                    metrics.write(self.done, scalars | mean | {"data_wait": self.waited / (now - logged)})
                    self.recent.clear()
                    self.waited, logged = 0.0, now
                interrupted = self._agreed(asked.is_set())
                if last or interrupted or self.done % plan.checkpoint_every == 0:
                    self._save()
                if lead:
                    progress(Progress(self.done, plan.steps, self.loss, speed, self.validation, self.best))
                if interrupted:
                    break
        loss = self.loss if self.done > first else None
        return Outcome(self.recipe.run, self.done, loss, self.best, self.done < plan.steps, lead)

    def _batches(self) -> Iterator[Any]:
        data, plan, fabric = self.recipe.data, self.recipe.train, self.fabric
        indices = Batches(self.done, plan.steps, plan.batch, fabric.global_rank, fabric.world_size)
        loader: Any = torch.utils.data.DataLoader(
            self.stream,
            batch_sampler=indices,
            num_workers=data.workers,
            prefetch_factor=data.prefetch if data.workers else None,
            pin_memory=fabric.device.type == "cuda",
            worker_init_fn=ignore_stop_signals,
        )
        batches = iter(loader)
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - asked
            if batch is None:
                return
            yield fabric.to_device(batch)

    def _step(self, batch: Any) -> dict[str, float | Tensor]:
        """One optimizer step; returns the scalars to log."""
        recipe, factor = self.recipe, schedule(self.recipe.optim, self.done, self.recipe.train.steps)
        for optimizer, rates in zip(self.optimizers, self.rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * factor
        generator = self._generator(recipe.seed, _STEP, self.done, self.fabric.global_rank)
        self.module.train()
        loss, parts = _loss_and_parts(self.wrapped.loss(batch, generator))
        self.loss = float(self._mean(loss.detach()))
        if not math.isfinite(self.loss):
            raise self._diverged(f"the loss is {self.loss}")
        self.fabric.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), recipe.optim.clip))
        if not math.isfinite(norm):
            raise self._diverged(f"the loss is {self.loss:.4g} but the norm of its gradient {norm}")
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.done + 1)
        self.recent.append(self.loss)
        lr = recipe.optim.lr * factor
        return {**{f"train/{name}": value for name, value in parts.items()}, "train/gradient_norm": norm, "lr": lr}

    @torch.no_grad()
    def _validate(self, stream: Stream) -> dict[str, float | Tensor]:
        """Mean over the fixed validation windows with the averaged weights; keeps these when they are the best yet."""
        plan, fabric = self.recipe.train, self.fabric
        measure: Any = getattr(self.module, "validate", self.module.loss)
        sums: dict[str, Tensor] = {}
        count = torch.zeros((), device=fabric.device)
        self.module.eval()
        with self.ema.applied():
            for number, first in enumerate(range(0, plan.validate_windows, plan.batch)):
                if number % fabric.world_size != fabric.global_rank:
                    continue
                rows = [stream[index] for index in range(first, min(first + plan.batch, plan.validate_windows))]
                generator = self._generator(VALIDATION_SEED, _VALIDATE, number, 0)
                with fabric.autocast():
                    batch = fabric.to_device(torch.utils.data.default_collate(rows))
                    loss, parts = _loss_and_parts(measure(batch, generator))
                for name, value in {"loss": loss, **parts}.items():
                    sums[name] = sums.get(name, torch.zeros((), device=fabric.device)) + len(rows) * value.float()
                count += len(rows)
            means = self._means(sums, count)
            self.validation = means["loss"]
            if math.isfinite(self.validation) and (self.best is None or self.validation < self.best):
                self.best = self.validation
                if fabric.global_rank == 0:
                    about = {"recipe": self.recipe.name, "step": self.done, "validation_loss": self.best}
                    checkpoint.save_model(self.recipe.run / runs.BEST, self.module, metadata=about)
        return {f"validation/{name}": value for name, value in means.items()}

    def _means(self, sums: dict[str, Tensor], count: Tensor) -> dict[str, float]:
        if self.fabric.world_size > 1:
            gathered: list[Any] = [None] * self.fabric.world_size
            plain = ({name: float(value) for name, value in sums.items()}, float(count))
            torch.distributed.all_gather_object(gathered, plain)
            names = next(entry[0] for entry in gathered if entry[1])
            total = sum(entry[1] for entry in gathered)
            return {name: sum(entry[0].get(name, 0.0) for entry in gathered) / total for name in names}
        return {name: float(value / count) for name, value in sums.items()}

    def _save(self) -> None:
        if self.fabric.global_rank == 0:
            state = {
                "step": self.done,
                "best": self.best,
                "validation": self.validation,
                "model": self.module.state_dict(),
                "ema": self.ema.state(),
                "optimizers": [optimizer.optimizer.state_dict() for optimizer in self.optimizers],
            }
            runs.save_state(self.recipe.run, state, self.recipe.train.keep)
        self.fabric.barrier()

    def _generator(self, *key: int) -> torch.Generator:
        """Generator of one step on the device; the global one is seeded too, for dropout."""
        seed = _seed(*key)
        torch.manual_seed(seed)
        return torch.Generator(self.fabric.device).manual_seed(seed)

    def _mean(self, value: Tensor) -> Tensor:
        mean: Tensor = self.fabric.all_reduce(value, reduce_op="mean") if self.fabric.world_size > 1 else value
        return mean

    def _agreed(self, asked: bool) -> bool:
        """Whether any process was asked to stop; all must leave the loop at the same step."""
        if self.fabric.world_size == 1:
            return asked
        return float(self.fabric.all_reduce(torch.tensor(float(asked), device=self.fabric.device), reduce_op="sum")) > 0

    def _diverged(self, what: str) -> TrainingError:
        files = runs.checkpoints(self.recipe.run)
        left = f"the last checkpoint is {files[-1]}" if files else "there is no checkpoint yet"
        return TrainingError(
            f"step {self.done + 1}: {what}; {left}. "
            "Lower optim.lr or optim.clip, raise optim.warmup, or set train.precision=32"
        )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1


def _loss_and_parts(result: Tensor | dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    if isinstance(result, Tensor):
        return result, {}
    return result["loss"], {name: value.detach() for name, value in result.items() if name != "loss"}


def _precision(wanted: str, accelerator: str) -> Any:
    """Lightning's name of the precision; "auto" is bf16 where the arithmetic unit has it."""
    if wanted != "auto":
        return {"32": "32-true"}.get(wanted, wanted)
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    on_cpu = accelerator in ("auto", "cpu") and not torch.backends.mps.is_available()
    return "bf16-mixed" if on_cpu and native_bfloat16() else "32-true"
