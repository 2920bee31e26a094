"""Output folders that appear only when they are complete."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from stemwise.errors import AudioFileError


class Existing(Enum):
    """What to do when the output is already there."""

    REFUSE = "refuse"
    OVERWRITE = "overwrite"


@contextmanager
def output_folder(target: str | Path, existing: Existing = Existing.REFUSE) -> Iterator[Path]:
    """Give a hidden sibling folder to write into; on success it becomes ``target``, on any failure it vanishes.

    With ``Existing.OVERWRITE`` the old folder is replaced as a whole, and only once the new one is complete. What a process
    that was killed has left of the same folder is removed.

    Raises:
        AudioFileError: ``target`` exists (and holds something), or its parent cannot be written.
    """
    target = Path(os.path.abspath(target))
    if existing is Existing.REFUSE:
        refuse_existing(target)
    hidden = f".{target.name}.partial-{zlib.crc32(platform.node().encode()):08x}-"
    partial = target.with_name(f"{hidden}{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{glob.escape(hidden)}*"):
            if left == partial or not _runs(left.name.removeprefix(hidden)):
                shutil.rmtree(left)
        partial.mkdir()
    except OSError as error:
        raise AudioFileError(
            f"{target.parent}: no output folder can be made here ({error.strerror}). Choose another place with -o."
        ) from error
    try:
        yield partial
        if existing is Existing.REFUSE:
            refuse_existing(target)
        _move(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, AudioFileError):  # name the folder that was asked for, not the hidden one
            raise AudioFileError(str(error).replace(str(partial), str(target))) from error
        raise


def _runs(process: str) -> bool:
    """Whether a process of this machine is alive; where that cannot be asked, it is."""
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
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise AudioFileError(
            f"{target}: this output exists already. Overwrite it with --overwrite, leave it with --skip-existing, or "
            "choose another place with -o."
        )


def _move(partial: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    try:
        had_one = target.exists() or target.is_symlink()
        if had_one:
            os.rename(target, old)
        try:
            os.rename(partial, target)
        except OSError:
            if had_one:
                os.rename(old, target)
            raise
    except OSError as error:
        raise AudioFileError(
            f"{target}: the finished folder cannot be put in place ({error.strerror}). Choose another place with -o."
        ) from error
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    elif had_one:
        old.unlink(missing_ok=True)
