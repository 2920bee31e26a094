"""Several inputs, one after another: which they are, what they are called, how it went. One bad file stops no other."""

from __future__ import annotations

import glob
import os
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from stemwise.audio_io import AUDIO_SUFFIXES
from stemwise.errors import AudioFileError, Cancelled, ModelError, QueryError, StemwiseError
from stemwise.outputs import is_stem_folder

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Item:
    """One input: a file or a folder of stems, and its name below the output folder ("song", "album/song").

    `problem` says why it cannot be worked on at all; it fails with that message when its turn comes.
    """

    source: Path
    track: str
    problem: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How one input fared: where its output is, the manifest; or the error's message and traceback."""

    item: Item
    status: Status
    folder: Path | None = None
    message: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    trace: str | None = None


def find(
    inputs: Sequence[str],
    stems: Collection[str],
    suffixes: Collection[str] = AUDIO_SUFFIXES,
    apart: Path | None = None,
) -> list[Item]:
    """The items behind files, folders and glob patterns, in the order given, each with a track name of its own.

    A folder of stems (see `outputs.is_stem_folder`; `stems` are the known names) is one item; in other folders every
    file below with one of the `suffixes` counts, and its sub-folders stay part of the track name; but not what lies in the
    folder `apart`, where the output goes. Nothing raises here: a missing file is an item that fails when its turn comes.
    """
    aside = None if apart is None else os.path.realpath(apart)
    items: list[Item] = []
    for given in inputs:
        path = Path(given)
        if not os.path.exists(given) and glob.has_magic(given):
            found = sorted(glob.glob(given, recursive=True))
            matches = [match for match in found if os.path.realpath(match) != aside] or found
            items += [item for match in matches for item in _expand(Path(match), stems, suffixes, aside)]
            if not matches:
                items.append(
                    Item(
                        path, "unmatched", f"{given}: no file matches this pattern. Check the spelling and the folder."
                    )
                )
        elif len(inputs) == 1 or os.path.realpath(given) != aside:  # which a shell's * names among the rest
            items += _expand(path, stems, suffixes, aside)
    unique: dict[str, Item] = {}
    for item in items:
        unique.setdefault(os.path.realpath(item.source), item)
    return _name_apart(list(unique.values()))


def work_through(
    items: Sequence[Item], work: Callable[[Item], Outcome], notice: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Do `work` on each item. A bad input becomes a failed outcome and the next one follows; `notice` hears of each.

    What would fail for every input alike is raised: ModelError, QueryError and Cancelled.
    """
    outcomes: list[Outcome] = []
    for item in items:
        try:
            if item.problem is not None:
                raise AudioFileError(item.problem)
            outcome = work(item)
        except (ModelError, QueryError, Cancelled):
            raise
        except Exception as error:  # whatever is wrong with one input must not cost the others
            outcome = Outcome(item, "failed", message=explain(error, item.source), trace=traceback.format_exc())
        outcomes.append(outcome)
        notice(outcome)
    return outcomes


@contextmanager
def alone(item: Item, of: int) -> Iterator[None]:
    """Of several inputs, one may not fit what is asked (too short for a span, a stem lacking): that costs no other."""
    try:
        yield
    except QueryError as error:
        if of == 1:
            raise
        raise AudioFileError(f"{item.source}: {error}") from error


def explain(error: BaseException, source: Path) -> str:
    """A message that names the file, the problem and the remedy also for errors that are not ours."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        return f"{source}: not enough memory. Close other programs, give a shorter file, or take --device cpu."
    if isinstance(error, OSError):
        place = error.filename or source
        return f"{place}: {error.strerror or error}. Check the path, the access rights and the space on the disk."
    if isinstance(error, StemwiseError):
        return str(error)
    return (
        f"{source}: an error that should not happen ({type(error).__name__}: {error}). Please report it with what -v "
        "shows. The other inputs are not affected."
    )


def _expand(path: Path, stems: Collection[str], suffixes: Collection[str], aside: str | None) -> Iterator[Item]:
    try:
        if not path.is_dir():
            yield Item(path, path.stem or path.name)
            return
        if is_stem_folder(path, stems):
            yield Item(path, path.resolve().name)
            return
    except OSError as error:
        yield Item(path, path.name, explain(error, path))
        return
    found = list(_below(path, path, stems, suffixes, aside, {os.path.realpath(path)}))
    if not found:
        endings = ", ".join(sorted(suffixes))
        yield Item(path, path.name, f"{path}: no audio files in this folder. Looked for names ending in {endings}.")
    yield from found


def _below(
    folder: Path, root: Path, stems: Collection[str], suffixes: Collection[str], aside: str | None, walked: set[str]
) -> Iterator[Item]:
    """`walked` holds the folders that were come to, so that links to them end."""
    label = folder.relative_to(root)
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        if folder != root and is_stem_folder(folder, stems):
            yield Item(folder, label.as_posix())
            return
    except OSError as error:
        yield Item(folder, label.as_posix(), explain(error, folder))
        return
    for entry in entries:
        label = entry.relative_to(root)
        try:
            inner = entry.is_dir()
        except OSError as error:
            yield Item(entry, label.as_posix(), explain(error, entry))
            continue
        if inner:
            real = os.path.realpath(entry)
            if real != aside and real not in walked:
                walked.add(real)
                yield from _below(entry, root, stems, suffixes, aside, walked)
        elif entry.suffix.lower() in suffixes:
            yield Item(entry, label.with_suffix("").as_posix())


def _name_apart(items: list[Item]) -> list[Item]:
    """Give items that would share an output folder, or hold another's, longer names: the ending, the folders they lie in, then
    a number.
    """
    level = [0] * len(items)
    while True:
        names = [_track(item, level[index], index) for index, item in enumerate(items)]
        places = [PurePosixPath(name.casefold()) for name in names]
        taken = Counter(places)
        taken.update({outer for place in places for outer in place.parents})
        shared = [index for index, place in enumerate(places) if taken[place] > 1]
        if not shared:
            return [replace(item, track=name) for item, name in zip(items, names)]
        for index in shared:
            level[index] += 1


def _track(item: Item, level: int, index: int) -> str:
    """Level 0: the plain name; 1: with its ending; 2, 3, ...: in one, two, ... of its parent folders; then numbered."""
    ending = "" if os.path.isdir(item.source) else item.source.suffix.lstrip(".").lower()
    name = f"{item.track}_{ending}" if level and ending else item.track
    parents = Path(os.path.abspath(item.source)).parts[1:-1]
    depth = max(0, level - 1)
    number = f"_{index + 1}" * max(0, depth - len(parents))
    return "/".join([*parents[len(parents) - min(depth, len(parents)) :], name]) + number
