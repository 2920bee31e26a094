"""Files that appear whole or not at all, and what tells one file from another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises OSError, or ValueError where it is none that can be read."""
    if file.is_fifo():  # to open it would wait for who writes into it, for ever where nobody does
        raise ValueError("a pipe")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sha256(file: Path) -> str:
    """The hex digest of a file's bytes."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(folder: Path, files: Iterable[Path]) -> str:
    """The hex digest of files in a folder: of their places in it and their bytes."""
    found = hashlib.sha256()
    for file in sorted(files):
        found.update(os.fsencode(f"{file.relative_to(folder).as_posix()}:{sha256(file)}\n"))
    return found.hexdigest()


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that at any moment it has the old content or the new."""
    with atomic_file(file) as handle:
        handle.write(content)


@contextlib.contextmanager
def atomic_file(file: Path) -> Iterator[IO[bytes]]:
    """A binary handle on a temporary neighbour, synced and renamed to `file` on leaving; removed if the body raises.

    Several processes and machines may write the same file at once; the last one stays.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace(partial: Path, file: Path) -> None:
    """Rename a file into its place, so that a power cut does not undo it."""
    os.replace(partial, file)
    if os.name == "posix":
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
