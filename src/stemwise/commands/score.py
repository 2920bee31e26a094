"""`stemwise score`: do these belong together?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Code, Voice, complain
from stemwise.errors import AudioFileError, QueryError
from stemwise.extras import needed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemwise.batch import Item, Outcome
    from stemwise.coherence.search import Grid
    from stemwise.scores import Listening
    from stemwise.signals import Signal

Name = Annotated[
    str | None, typer.Option("--stem", help="Only this one, against the sum of the others.", show_default=False)
]
Shifts = Annotated[
    str | None,
    typer.Option("--shifts", help="START:END:STEP in seconds, -0.5:0.5:0.125; with --bpm in beats, -1:1:0.25.",
                 show_default=False),
]  # fmt: skip
Semitones = Annotated[
    str | None, typer.Option("--semitones", help="START:END or START:END:STEP, -6:6.", show_default=False)
]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Draw coherence over time (.png, .pdf, .svg).", show_default=False)
]
Bpm = Annotated[
    float | None, typer.Option("--bpm", min=20, max=400, help="Tempo, for shifts in beats.", show_default=False)
]


def score(
    inputs: Annotated[
        list[str], typer.Argument(help="CONTEXT and ACCOMPANIMENT, two files; folders of stems; or NAME=FILE ...")
    ],
    stem: Name = None,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="The mean of both orders of the two sides.")] = False,
    hop: Annotated[float, typer.Option("--hop", min=0.1, max=5, help="Seconds from window to window.")] = 2.5,
    search: Annotated[
        bool, typer.Option("--search", help="Find the shift and transposition with which it would fit best.")
    ] = False,
    shifts: Shifts = None,
    semitones: Semitones = None,
    bpm: Bpm = None,
    plot: Plot = None,
    model: Annotated[str, typer.Option("--model", help="A bundled encoder's name, or a model folder.")] = "cocola",
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Score how well an accompaniment fits to its context, or every stem of a song to the others.

    Scores compare under one model only. "in place" is a probability, 50 % is a guess.
    """
    from stemwise.batch import Item, alone, work_through
    from stemwise.coherence.search import transposes
    from stemwise.loading import load_coherence
    from stemwise.scores import Listening

    voice = Voice(quiet, verbose, as_json)
    if not search and (shifts, semitones, bpm) != (None, None, None):
        raise QueryError("--shifts, --semitones and --bpm say what to search; add --search")
    moves = Moves(_grid(shifts, semitones, bpm), bpm) if search else None
    tasks = _tasks(inputs, stem)
    _check_plot(plot, tasks)
    if moves is not None and any(task.stem is None for task in tasks.values()):
        raise QueryError("--search looks for one stem; say which with --stem")
    encoder = load_coherence(model, device)
    if moves is not None and any(moves.grid.semitones) and not transposes(encoder):
        needed("librosa", "eval")
    how = Listening(encoder, hop=hop, direction="symmetric" if symmetric else "context first")
    work = _Work(tasks, how, moves, plot, voice)
    items = [Item(Path(label), label) for label in tasks]

    def fitting(item: Item) -> Outcome:
        with alone(item, len(items)):
            return work(item)

    outcomes = work_through(items, fitting, lambda outcome: _tell(voice, outcome))
    code = Code.FAILED if any(outcome.status == "failed" for outcome in outcomes) else Code.OK
    results = [{"input": o.item.track, "status": o.status, "message": o.message, **o.manifest} for o in outcomes]
    voice.hand_over("score", {"model": model, "symmetric": symmetric, "results": results}, code)
    raise typer.Exit(code)


@dataclass(frozen=True)
class Task:
    """Named signals, or a folder of them; and the one that is scored against the others, or None for each."""

    stems: Mapping[str, Signal] | Path
    stem: str | None


@dataclass(frozen=True)
class Moves:
    """What to search, and the tempo if shifts are told in beats."""

    grid: Grid
    bpm: float | None


@dataclass(frozen=True)
class _Work:
    """What is done to each song."""

    tasks: Mapping[str, Task]
    how: Listening
    moves: Moves | None
    plot: Path | None
    voice: Voice

    def __call__(self, item: Item) -> Outcome:
        from dataclasses import replace

        from stemwise.batch import Outcome
        from stemwise.commands.score_tables import offset_lines, score_lines, song_lines
        from stemwise.scores import score_parts, score_stems, search_offset, signals_of

        task = self.tasks[item.track]
        signals, _ = signals_of(task.stems)
        with self.voice.progress(item.track) as progress:
            how = replace(self.how, progress=progress)
            if task.stem is None:
                song = score_stems(signals, how=how)
                lines = {name: found for name, found in song.stems.items() if found is not None}
                self._say(song_lines(item.track, song))
                document = song.plain()
            else:
                others = [name for name in signals if name != task.stem]
                found = score_parts(signals, others, [task.stem], how=how)
                lines = {task.stem: found}
                self._say(score_lines(item.track, found))
                document = {"stem": task.stem, **found.plain()}
                if self.moves is not None:
                    offset = search_offset(signals, task.stem, self.moves.grid, how=how)
                    self._say(offset_lines(offset, self.moves.bpm))
                    document["search"] = offset.plain()
        if self.plot is not None:
            from stemwise.coherence.plot import plot_over_time

            curves = {name: (found.starts, found.curves["both"]) for name, found in lines.items()}
            encoder = self.how.encoder()
            plot_over_time(curves, encoder.window / encoder.rate, self.plot, item.track)
            self._say([f"  {self.plot}"])
        return Outcome(item, "done", manifest=document)

    def _say(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.voice.say(line)


def _tell(voice: Voice, outcome: Outcome) -> None:
    if outcome.status == "failed":
        complain(str(outcome.message))
        voice.detail(outcome.trace or "")


def _check_plot(plot: Path | None, tasks: Mapping[str, Task]) -> None:
    """Before anything is scored. Raises QueryError, ModelError."""
    from stemwise.coherence.plot import SUFFIXES

    if plot is None:
        return
    if len(tasks) > 1:
        raise QueryError("--plot draws one song; give one folder, or two files")
    if plot.suffix.lower() not in SUFFIXES:
        raise QueryError(f"--plot {plot}: choose a name that ends in {', '.join(SUFFIXES)}")
    needed("matplotlib", "eval")


# -- what is asked ---------------------------------------------------------------------------------------------------


def _tasks(inputs: Sequence[str], stem: str | None) -> dict[str, Task]:
    """What to score, by a name for people. Raises QueryError where the arguments do not say, see also `check_there`."""
    named = [text for text in inputs if "=" in text and not Path(text).exists()]
    if len(named) == len(inputs):
        return {" ".join(inputs): Task(_files(inputs), stem)}
    folders = [text for text in inputs if Path(text).is_dir()]
    if len(folders) == len(inputs):
        return {str(folder): Task(folder, stem) for text in inputs for folder in _stem_folders(Path(text))}
    if named or folders or len(inputs) != 2:
        o.check_there(inputs)
        raise QueryError(
            f"{' '.join(inputs)}: give two files, CONTEXT and ACCOMPANIMENT; or folders of stems; or NAME=FILE, two or more"
        )
    if stem is not None:
        raise QueryError("--stem chooses from a folder of stems; of two files the second is scored")
    from stemwise.scores import CONTEXT, MADE

    context, made = map(Path, inputs)
    if context.exists() and made.exists() and context.samefile(made):
        complain(f"{made}: given as both sides; a signal against itself has no special score")
    return {f"{made} against {context}": Task({CONTEXT: context, MADE: made}, MADE)}


def _files(inputs: Sequence[str]) -> dict[str, Signal]:
    files: dict[str, Signal] = {}
    for text in inputs:
        name, _, file = text.partition("=")
        if not name or name in files:
            raise QueryError(f"{text}: every stem needs a name of its own, NAME=FILE")
        files[name] = Path(file)
    return files


def _stem_folders(folder: Path) -> list[Path]:
    """The folder if it holds audio, else the folders below it that do."""
    from stemwise.audio_io import AUDIO_SUFFIXES

    inner = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in AUDIO_SUFFIXES and not _hidden(f, folder)]
    found = list(dict.fromkeys(file.parent for file in inner))
    if folder in found:
        return [folder]
    if not found:
        raise AudioFileError(f"{folder}: no audio files in this folder or below")
    return found


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _grid(shifts: str | None, semitones: str | None, bpm: float | None) -> Grid:
    """The moves to try. Raises QueryError."""
    from stemwise.coherence.search import Grid

    steps = _steps("--shifts", shifts or ("-0.5:0.5:0.125" if bpm is None else "-1:1:0.25"), None)
    if bpm is not None and not math.isfinite(bpm):
        raise QueryError(f"--bpm is {bpm}; give beats a minute, such as 120")
    beat = 1.0 if bpm is None else 60 / bpm
    grid = Grid(tuple(step * beat for step in steps), _steps("--semitones", semitones or "-6:6", 1.0))
    if grid.margin > 30 or max(map(abs, grid.semitones)) > 24 or len(grid.shifts) * len(grid.semitones) > 5000:
        raise QueryError(
            "a search goes to 30 seconds, 24 semitones and 5000 moves at most; give a smaller range or larger steps"
        )
    return grid


def _steps(option: str, text: str, step: float | None) -> tuple[float, ...]:
    """ "-1:1:0.25" -> multiples of the step from start to end; 0 is always among them."""
    try:
        numbers = [float(number) for number in text.split(":")]
        start, end = numbers[:2]
        (width,) = numbers[2:] or ([] if step is None else [step])
    except ValueError as error:
        raise QueryError(f"{option} {text!r}: give START:END:STEP, for example -1:1:0.25") from error
    if not (start <= end and width > 0 and abs(start) < 1e4 and abs(end) < 1e4 and (end - start) / width < 5000):
        raise QueryError(f"{option} {text!r}: the start must not lie behind the end, and the step must be above 0")
    first, last = math.ceil(start / width - 1e-6), math.floor(end / width + 1e-6)
    steps = {round(i * width, 6) for i in range(first, last + 1)} | {0.0}
    if steps == {0.0} and (start, end) != (0, 0):
        raise QueryError(f"{option} {text!r}: no multiple of {width:g} lies in it but 0; give smaller steps")
    return tuple(sorted(steps))
