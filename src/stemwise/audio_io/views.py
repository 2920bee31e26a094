"""How libsndfile sees files: by what name, with another beginning, or one inside another; nothing is copied or touched."""

from __future__ import annotations

import io
import os
from pathlib import Path


def native_name(path: Path) -> bytes | str:
    """A path for libsndfile: as bytes, because names in old archives may be bytes that are no text; Windows knows only text."""
    return os.fsencode(path) if os.name == "posix" else str(path)


class _View(io.RawIOBase):
    """A seekable read-only file of `size` bytes; a subclass says in `readinto` where they are."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Position in the view."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in the view."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position


class JoinedFile(_View):
    """``head`` followed by the file from ``skip`` on, as one seekable read-only file.

    Args:
        head: the new beginning.
        path: the file.
        skip: how many of its bytes the new beginning replaces.
    """

    def __init__(self, head: bytes, path: Path, skip: int) -> None:
        super().__init__(len(head) + path.stat().st_size - skip)
        self._head, self._skip = head, skip
        self._file = path.open("rb")

    def readinto(self, buffer: object) -> int:
        """Read at the position, from one of the two parts."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._position < len(self._head):
            piece = self._head[self._position : self._position + len(view)]
            view[: len(piece)] = piece
            count = len(piece)
        else:
            self._file.seek(self._skip + self._position - len(self._head))
            count = self._file.readinto(view)
        self._position += count
        return count

    def close(self) -> None:
        """Release the file."""
        self._file.close()
        super().close()


class Slice(_View):
    """``size`` bytes from byte ``offset`` on of a file that is open for this alone, and is left open."""

    def __init__(self, file: io.RawIOBase, offset: int, size: int) -> None:
        super().__init__(size)
        self._file, self._offset = file, offset

    def readinto(self, buffer: object) -> int:
        """Read at the position."""
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._position)]  # type: ignore[arg-type]
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(view) or 0
        self._position += count
        return count
