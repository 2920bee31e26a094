"""Items of a stream that are costly to make, made once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stemwise.errors import SongError
from stemwise.files import write_atomically


class Kept(torch.utils.data.Dataset[Tensor]):
    """The first `count` items of a stream, changed by `change`, as float16; an endless stream of them in random orders.

    `change` takes a batch of one. What `folder` lacks is made on construction, so a killed run goes on where it stopped;
    files appear whole. Every `count` items are all of them once; item i is a function of (seed, i). Raises SongError for
    a file that cannot be written or read.
    """

    def __init__(self, stream: Any, change: Callable[[Tensor], Tensor], folder: Path, count: int, seed: int) -> None:
        self.source, self.folder, self.count, self.seed = stream, folder, count, seed
        self._order: tuple[int, np.ndarray] = (-1, np.arange(count))
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            if not self._file(index).is_file():
                self._write(index, change(stream[index][None])[0])

    def __getitem__(self, index: int) -> Tensor:
        """Item `index` of the stream."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        turn, place = divmod(index, self.count)
        if self._order[0] != turn:
            self._order = (turn, np.random.default_rng((self.seed, turn)).permutation(self.count))
        file = self._file(int(self._order[1][place]))
        try:
            return load_file(file)["latents"]
        except (SafetensorError, OSError, KeyError) as error:
            raise SongError(
                f"{file}: cannot be read ({error}); delete it, and the next start makes it again"
            ) from error

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:07d}.safetensors"

    def _write(self, index: int, value: Tensor) -> None:
        from safetensors.torch import save

        file = self._file(index)
        try:
            write_atomically(file, save({"latents": value.detach().half().cpu().contiguous()}))
        except OSError as error:
            raise SongError(
                f"{file}: cannot be written ({error.strerror or error}); what was made before it is kept. Free some space, "
                "and start again, or ask for fewer windows"
            ) from error


def fingerprint(*things: Any) -> str:
    """Sixteen hexadecimal digits that differ where weights or the text of other things differ."""
    digest = hashlib.sha256()
    for thing in things:
        if isinstance(thing, torch.nn.Module):
            for name, value in thing.state_dict().items():
                digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(repr(thing).encode())
    return digest.hexdigest()[:16]
