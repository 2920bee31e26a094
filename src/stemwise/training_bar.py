"""A training as one line on a terminal, or as a line now and then where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from stemwise.train import Progress


class TrainingBar:
    """Context manager whose instances take every `Progress` of a training: `train(recipe, progress=bar)`."""

    def __init__(self, console: Console | None = None, every: float = 30.0) -> None:
        """`every`: seconds between lines where the console is no terminal."""
        self._console = console or Console(stderr=True)
        self._every = every
        self._said = 0.0
        self._bar = RichProgress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("training", total=None, figures="")

    def __call__(self, progress: Progress) -> None:
        """Show the state after a step. The bar appears with the first: of several processes one alone has any to show."""
        if self._console.is_terminal:
            self._bar.start()
        figures = f"loss {progress.loss:.4f}  {progress.windows_per_second:.1f} windows/s"
        if progress.validation is not None:
            best = "" if progress.best is None else f" (best {progress.best:.4f})"
            figures += f"  validation {progress.validation:.4f}{best}"
        self._bar.update(self._task, completed=progress.step, total=progress.steps, figures=figures)
        quiet = time.monotonic() - self._said < self._every and progress.step < progress.steps
        if not self._console.is_terminal and not quiet:
            self._said = time.monotonic()
            self._console.print(f"step {progress.step}/{progress.steps}  {figures}", highlight=False, soft_wrap=True)

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
