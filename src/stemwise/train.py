"""One training loop for everything that has a loss.

A trainable is an `nn.Module` with `config`, `stems`, `rate` (Hz), `window` (frames) and

    loss(batch, generator) -> scalar Tensor, or a dict of scalars with the key "loss"

where `batch` is float32 (batch, stem, channel, time) and `generator` lives on its device. A module may also have
`validate(batch, generator)`, with the same result, where validation should measure something else than the loss.

Step i uses the windows, noise and learning rate that belong to (seed, i, process) and nothing else, so a run that was killed
anywhere continues from its last checkpoint to the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stemwise import checkpoint, runs
from stemwise.errors import ModelError, RecipeError, TrainingError
from stemwise.recipe import OptimSection, Recipe, load_recipe
from stemwise.songs.folder import describe, scan
from stemwise.songs.song import Song
from stemwise.songs.window import Augmentation, WindowOptions, Windows

#: Validation windows and noise are the same in every run, so that runs can be compared.
VALIDATION_SEED = 20_011
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
    """How a training ended: `interrupted` by a signal (a checkpoint is there), or done."""

    run: Path
    step: int
    loss: float
    best: float | None
    interrupted: bool


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
    """Train until `train.steps`, resuming where the run folder left off. Writes checkpoints, logs and the best model there.

    `devices`, `nodes`, `strategy` and `accelerator` go to Lightning. `notice` receives lines for a person. Raises RecipeError,
    SongError, ModelError, and TrainingError where the loss is no longer finite. SIGINT and SIGTERM end it after a checkpoint.
    """
    from lightning.fabric import Fabric

    if strategy not in STRATEGIES:
        raise RecipeError(f"strategy {strategy!r}: the whole network must be on each device; allowed: {', '.join(STRATEGIES)}")
    training, validation = (_songs(folders, notice) for folders in (recipe.data.train, recipe.data.valid))
    fabric = Fabric(
        accelerator=accelerator,
        devices=int(devices) if str(devices).isdigit() else devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=_precision(recipe.train.precision, accelerator),
    )
    fabric.launch()
    if fabric.global_rank == 0:
        runs.open_run(recipe)
    loop = _Loop(recipe, fabric, training, validation)
    if fabric.global_rank == 0:
        how = f"resumes at step {loop.done}" if loop.done else "starts"
        notice(
            f"{recipe.name}: {how} of {recipe.train.steps}, {sum(p.numel() for p in loop.module.parameters()):,} parameters, "
            f"{len(training)} songs ({sum(song.seconds for song in training) / 3600:.1f} h), {fabric.device}, "
            f"{fabric.world_size} process(es), precision {fabric._precision.precision}"
        )
    return loop.run(progress or (lambda _: None))


def export(
    run: Path | str,
    folder: Path | str,
    *,
    weights: Literal["auto", "best", "last"] = "auto",
    dtype: torch.dtype = torch.float32,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a run's averaged weights as a model folder: the best by validation, or the last; "auto": best where there is one."""
    run = Path(run)
    if not (run / runs.RECIPE).is_file():
        raise ModelError(f"{run}: no {runs.RECIPE} in it; give the run folder of `stemwise train`")
    recipe = load_recipe(run / runs.RECIPE)
    has_best = (run / runs.BEST / checkpoint.CONFIG).is_file()
    if weights == "best" and not has_best:
        raise ModelError(f"{run}: no validated weights yet; export with weights 'last', or give data.valid and train on")
    if weights != "last" and has_best:
        module = checkpoint.load_model(run / runs.BEST)
        source: dict[str, Any] = dict(checkpoint.read_info(run / runs.BEST).metadata)
    else:
        state = runs.newest_state(run)
        if state is None:
            raise ModelError(f"{run}: no checkpoint yet; train at least train.checkpoint_every steps")
        module = checkpoint.build(recipe.model.type, recipe.model.config, "model.config")
        module.load_state_dict(state["model"])
        Ema(module, recipe.train.ema).load(state["ema"], into=module)
        source = {"recipe": recipe.name, "step": state["step"]}
    return checkpoint.save_model(folder, module, dtype=dtype, metadata={**source, **(metadata or {})})


class Ema:
    """Running mean of a module's parameters, in float32. The decay rises from 0.1 to its value, so early weights fade soon."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in module.named_parameters()]
        self._live = [parameter.data for parameter in module.parameters()]
        self.mean = [tensor.detach().float().clone() for tensor in self._live]

    def update(self, step: int) -> None:
        """Move the mean towards the present weights; `step` counts from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, [tensor.float() for tensor in self._live], 1.0 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module carries the mean inside, its own weights again outside."""
        kept = [tensor.clone() for tensor in self._live]
        torch._foreach_copy_(self._live, self.mean)
        try:
            yield
        finally:
            torch._foreach_copy_(self._live, kept)

    def state(self) -> dict[str, Tensor]:
        """The mean by parameter name."""
        return dict(zip(self._names, self.mean))

    def load(self, state: dict[str, Tensor], into: nn.Module | None = None) -> None:
        """Take a stored mean; `into` also puts it into a module."""
        for mean, name in zip(self.mean, self._names):
            mean.copy_(state[name])
        if into is not None:
            into.load_state_dict(self.state(), strict=False)


def learning_rate(optim: OptimSection, step: int, steps: int) -> float:
    """Rate of step 0 <= step < steps: linear warm-up, then the decay that the recipe names."""
    if step < optim.warmup:
        return optim.lr * (step + 1) / optim.warmup
    if optim.decay == "constant":
        return optim.lr
    if optim.decay == "rsqrt":
        return optim.lr * math.sqrt(max(optim.warmup, 1) / (step + 1))
    done = (step - optim.warmup) / max(1, steps - optim.warmup)
    return optim.lr * (optim.final + (1.0 - optim.final) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))


class _Loop:
    """State of a training between two steps."""

    def __init__(self, recipe: Recipe, fabric: Any, training: list[Song], validation: list[Song]) -> None:
        self.recipe, self.fabric = recipe, fabric
        torch.manual_seed(_seed(recipe.seed, _INIT))
        self.module = checkpoint.build(recipe.model.type, recipe.model.config, "model.config")
        state = runs.newest_state(recipe.run)
        if state is not None:
            self.module.load_state_dict(state["model"])
        elif recipe.model.init is not None:
            checkpoint.load_weights(self.module, recipe.model.init)
        optim = recipe.optim
        matrices = [p for p in self.module.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in self.module.parameters() if p.requires_grad and p.ndim <= 1]  # biases and norms do not decay
        groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=optim.lr, betas=optim.betas)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
        self.wrapped, self.optimizer = fabric.setup(self.module, optimizer)
        self.wrapped.mark_forward_method("loss")
        self.ema = Ema(self.module, recipe.train.ema)
        self.done, self.best, self.validation = 0, None, None
        if state is not None:
            self.ema.load(state["ema"])
            self.done, self.best, self.validation = state["step"], state["best"], state["validation"]
        self.loss = math.nan
        self.windows = Windows(training, self._options(augment=recipe.data.augmentation is not None), recipe.seed)
        self.held_out = Windows(validation, self._options(augment=False), VALIDATION_SEED) if validation else None

    def _options(self, augment: bool) -> WindowOptions:
        data, module = self.recipe.data, self.module
        change = Augmentation(**data.augmentation.model_dump()) if augment and data.augmentation else None
        return WindowOptions(
            names=tuple(module.stems),  # type: ignore[call-overload]
            rate=int(module.rate),  # type: ignore[arg-type]
            frames=data.frames or int(module.window),  # type: ignore[arg-type]
            channels=int(getattr(module, "channels", 2)),
            min_active=data.min_active,
            floor_db=data.floor_db,
            augmentation=change,
        )

    def run(self, progress: Callable[[Progress], None]) -> Outcome:
        plan, first, since = self.recipe.train, self.done, time.monotonic()
        lead = self.fabric.global_rank == 0
        with contextlib.ExitStack() as stack:
            asked = stack.enter_context(_signals())
            metrics = stack.enter_context(runs.Metrics(self.recipe.run, self.done)) if lead else None
            interrupted = False
            for batch in self._batches():
                scalars = self._step(batch)
                self.done += 1
                last = self.done == plan.steps
                speed = (self.done - first) * plan.batch * self.fabric.world_size / (time.monotonic() - since)
                if self.held_out is not None and (last or self.done % plan.validate_every == 0):
                    scalars |= self._validate(self.held_out)
                if metrics and (last or self.done % plan.log_every == 0 or "validation/loss" in scalars):
                    metrics.write(self.done, scalars | {"windows_per_second": speed})
                interrupted = self._agreed(asked.is_set())
                if last or interrupted or self.done % plan.checkpoint_every == 0:
                    self._save()
                if lead:
                    progress(Progress(self.done, plan.steps, self.loss, speed, self.validation, self.best))
                if interrupted:
                    break
        return Outcome(self.recipe.run, self.done, self.loss, self.best, interrupted and self.done < plan.steps)

    def _batches(self) -> Iterator[Tensor]:
        data, fabric = self.recipe.data, self.fabric
        indices = _Indices(self.done, self.recipe.train.steps, self.recipe.train.batch, fabric.global_rank, fabric.world_size)
        loader: Any = torch.utils.data.DataLoader(
            self.windows,
            batch_sampler=indices,
            num_workers=data.workers,
            prefetch_factor=data.prefetch if data.workers else None,
            pin_memory=fabric.device.type == "cuda",
            worker_init_fn=_quiet_worker,
        )
        for batch in loader:
            yield batch.to(fabric.device, non_blocking=True)

    def _step(self, batch: Tensor) -> dict[str, float]:
        """One optimizer step; returns the scalars to log."""
        recipe, rate = self.recipe, learning_rate(self.recipe.optim, self.done, self.recipe.train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
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
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.done + 1)
        named = {f"train/{name}": float(value) for name, value in parts.items()}
        return {"train/loss": self.loss, **named, "train/gradient_norm": norm, "lr": rate}

    @torch.no_grad()
    def _validate(self, windows: Windows) -> dict[str, float]:
        """Mean over the fixed validation windows with the averaged weights; keeps them when they are the best so far."""
        plan, fabric = self.recipe.train, self.fabric
        measure = getattr(self.module, "validate", self.module.loss)
        sums: dict[str, Tensor] = {}
        count = torch.zeros((), device=fabric.device)
        self.module.eval()
        with self.ema.applied():
            for number, first in enumerate(range(0, plan.validate_windows, plan.batch)):
                if number % fabric.world_size != fabric.global_rank:
                    continue
                rows = [windows[index] for index in range(first, min(first + plan.batch, plan.validate_windows))]
                generator = self._generator(VALIDATION_SEED, _VALIDATE, number, 0)
                with fabric.autocast():
                    loss, parts = _loss_and_parts(measure(torch.stack(rows).to(fabric.device), generator))
                for name, value in {"loss": loss, **parts}.items():
                    sums[name] = sums.get(name, torch.zeros((), device=fabric.device)) + len(rows) * value.float()
                count += len(rows)
            means = self._means(sums, count)
            self.validation = means["loss"]
            if self.best is None or self.validation < self.best:
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
                "optimizer": self.optimizer.optimizer.state_dict(),
            }
            runs.save_state(self.recipe.run, state, self.recipe.train.keep)
        self.fabric.barrier()

    def _generator(self, *key: int) -> torch.Generator:
        """Generator of one step on the device; the global one is seeded too, for dropout."""
        seed = _seed(*key)
        torch.manual_seed(seed)
        return torch.Generator(self.fabric.device).manual_seed(seed)

    def _mean(self, value: Tensor) -> Tensor:
        return self.fabric.all_reduce(value, reduce_op="mean") if self.fabric.world_size > 1 else value  # type: ignore[no-any-return]

    def _agreed(self, asked: bool) -> bool:
        """Whether any process was asked to stop; all must leave the loop at the same step."""
        if self.fabric.world_size == 1:
            return asked
        return float(self.fabric.all_reduce(torch.tensor(float(asked), device=self.fabric.device), reduce_op="sum")) > 0

    def _diverged(self, what: str) -> TrainingError:
        files = runs.checkpoints(self.recipe.run)
        left = f"the last checkpoint is {files[-1]}" if files else "there is no checkpoint yet"
        return TrainingError(
            f"step {self.done + 1}: {what}; {left}. Lower optim.lr or optim.clip, raise optim.warmup, or set train.precision=32"
        )


class _Indices(torch.utils.data.Sampler[list[int]]):
    """Which items of the stream make the batch of each step in one process."""

    def __init__(self, start: int, stop: int, batch: int, rank: int, world: int) -> None:
        self.start, self.stop, self.batch, self.rank, self.world = start, stop, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))

    def __len__(self) -> int:
        return self.stop - self.start


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1


def _loss_and_parts(result: Tensor | dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    if isinstance(result, Tensor):
        return result, {}
    return result["loss"], {name: value.detach() for name, value in result.items() if name != "loss"}


def _songs(folders: list[Path], notice: Callable[[str], None]) -> list[Song]:
    songs: list[Song] = []
    for path in folders:
        scanned = scan(path)
        if scanned.problems:
            notice(describe(path, scanned.problems))
        songs.extend(scanned.songs)
    return songs


def _precision(wanted: str, accelerator: str) -> Any:
    """Lightning's name of the precision; "auto" is bf16 where the arithmetic unit has it."""
    if wanted != "auto":
        return {"32": "32-true"}.get(wanted, wanted)
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    on_cpu = accelerator in ("auto", "cpu") and not torch.backends.mps.is_available()
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return "bf16-mixed" if on_cpu and any(getattr(torch.cpu, test, bool)() for test in tests) else "32-true"


def _quiet_worker(_: int) -> None:
    """A key press interrupts the whole process group; only the main process acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; a second signal acts as it always does."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
