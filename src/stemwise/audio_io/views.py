"""A file seen with another beginning, so that a decoder reads a true header without the file being touched."""

from __future__ import annotations

import io
from pathlib import Path


class JoinedFile(io.RawIOBase):
    """``head`` followed by the file from ``skip`` on, as one seekable read-only file.

    Args:
        head: the new beginning.
        path: the file.
        skip: how many of its bytes the new beginning replaces.
    """

    def __init__(self, head: bytes, path: Path, skip: int) -> None:
        self._head, self._skip = head, skip
        self._file = path.open("rb")
        self._size = len(head) + path.stat().st_size - skip
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Position in the joined file."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in the joined file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

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
