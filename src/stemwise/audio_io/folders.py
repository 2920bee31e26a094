"""Output folders that appear only when they are complete."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import platform
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from stemwise.errors import AudioFileError

_START, _COUNT = uuid.uuid4().hex[:8], itertools.count()
"""What tells the jobs of this process from each other and from those of one before it with the same number."""

#: What file managers leave in a folder that was looked at.
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


class Existing(Enum):
    """What to do when the output is already there."""

    REFUSE = "refuse"
    OVERWRITE = "overwrite"


@contextmanager
def output_folder(target: str | Path, existing: Existing = Existing.REFUSE) -> Iterator[Path]:
    """Give a hidden sibling folder to write into; on success it becomes ``target``, on any failure it vanishes.

    With ``Existing.OVERWRITE`` the old folder is replaced as a whole, and only once the new one is complete. What a process
    that was killed has left of the same folder is removed; an old folder that it had moved aside is put back.

    Raises:
        AudioFileError: ``target`` exists (and holds something), or its parent cannot be written.
    """
    target = Path(os.path.abspath(target))
    if existing is Existing.REFUSE:
        refuse_existing(target)
    partial, old = hidden_sibling(target, "partial"), hidden_sibling(target, "replaced")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in left_behind(partial):
            shutil.rmtree(left)
        for left in left_behind(old):
            _settle(left, target)
        if existing is Existing.REFUSE:
            refuse_existing(target)
        partial.mkdir()
    except OSError as error:
        raise AudioFileError(
            f"{target.parent}: no output folder can be made here ({error.strerror}). Choose another place with -o."
        ) from error
    try:
        yield partial
        if existing is Existing.REFUSE:
            refuse_existing(target)
        _move(partial, old, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, AudioFileError):  # name the folder that was asked for, not the hidden one
            raise AudioFileError(str(error).replace(str(partial), str(target))) from error
        raise


def hidden_name(name: str, tail: str) -> str:
    """What a file or folder is called until it is complete: never longer than file systems allow."""
    encoded = os.fsencode(name)
    return f".{name if len(encoded) <= 200 else hashlib.sha256(encoded).hexdigest()}.{tail}"


def hidden_sibling(target: Path, what: str) -> Path:
    """A name beside `target` for what is not complete, of this process and this call alone."""
    machine = zlib.crc32(platform.node().encode())
    return target.with_name(hidden_name(target.name, f"{what}-{machine:08x}-{_START}.{next(_COUNT)}-{os.getpid()}"))


def left_behind(hidden: Path) -> list[Path]:
    """What processes that are dead have left of a hidden folder. Other threads of this one may be at work on the same."""
    shared = hidden.name.rsplit("-", 2)[0]
    return [left for left in hidden.parent.glob(f"{glob.escape(shared)}-*") if not _runs(*left.name.rsplit("-", 2)[1:])]


def _runs(job: str, process: str) -> bool:
    """Whether the process of a job is alive on this machine; where that cannot be asked, it is."""
    if process == str(os.getpid()):  # or else one before it had the same number
        return job.partition(".")[0] == _START
    if os.name != "posix" or not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def refuse_existing(target: Path) -> None:
    """Raise AudioFileError where there is something already; an empty folder is nothing."""
    if target.is_dir() and all(path.name in LITTER for path in target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise AudioFileError(
            f"{target}: this output exists already. Overwrite it with --overwrite, leave it with --skip-existing, or "
            "choose another place with -o."
        )


def _move(partial: Path, old: Path, target: Path) -> None:
    try:
        try:
            if os.path.lexists(target):
                os.rename(target, old)
            os.rename(partial, target)
        finally:  # also when interrupted between the two
            if os.path.lexists(old):
                _settle(old, target)
    except OSError as error:
        raise AudioFileError(
            f"{target}: the finished folder cannot be put in place ({error.strerror}). Choose another place with -o."
        ) from error


def _settle(old: Path, target: Path) -> None:
    """Remove what was moved aside where its place is taken, else put it back."""
    if not os.path.lexists(target):
        os.rename(old, target)
    elif old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            old.unlink()
