"""What a person (or a script, with --json) sees: results on stdout, progress and problems on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemwise.longform import Progress


class Code(IntEnum):
    """Exit codes that scripts can rely on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    CANCELLED = 130


@dataclass(frozen=True)
class Voice:
    """How much is said, and in which form: lines for a person, or one JSON document at the end."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def say(self, text: str) -> None:
        """A result, for people."""
        if not self.quiet and not self.as_json:
            print(text, flush=True)

    def detail(self, text: str) -> None:
        """Something that only --verbose shows."""
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    def hand_over(self, verb: str, document: Mapping[str, Any], code: Code = Code.OK) -> None:
        """The result, for scripts: format 1, the verb and the exit code, and what the verb has to say."""
        if self.as_json:
            whole = {"format": 1, "verb": verb, "exit_code": int(code), **document}
            print(json.dumps(whole, indent=2), flush=True)  # ASCII: whatever stdout's encoding, it is JSON

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[Progress], None]]:
        """A callback that shows seconds of audio done and what is left: a bar on a terminal, else log lines."""
        if self.quiet:
            yield lambda _: None
        elif sys.stderr.isatty():
            with _bar(label) as show:
                yield show
        else:
            yield _Lines(label)


def complain(message: str) -> None:
    """A problem, on stderr."""
    print(f"stemwise: {message}", file=sys.stderr, flush=True)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s of audio"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(label), total=0)
        yield lambda state: bar.update(task, completed=state.done_seconds, total=state.total_seconds)


class _Lines:
    """For log files: a line after each tenth of the work, but not more than one in five seconds."""

    def __init__(self, label: str, every: float = 5.0) -> None:
        self._label, self._every = label, every
        self._said = time.monotonic()
        self._tenth = 0

    def __call__(self, state: Progress) -> None:
        now = time.monotonic()
        tenth = int(state.fraction * 10)
        if tenth == self._tenth or now - self._said < self._every or not state.fraction:
            return
        self._tenth, self._said = tenth, now
        done = f"{self._label}: {state.done_seconds:.0f} of {state.total_seconds:.0f} s of audio"
        print(f"{done}, about {state.eta_seconds:.0f} s left", file=sys.stderr, flush=True)
