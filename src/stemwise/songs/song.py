"""A song: where its stems lie on disk, and how a window of them is read without decoding the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile

from stemwise.errors import SongError
from stemwise.songs.source import File, read

#: The name under which a whole song is read.
MIXTURE = "mixture"


@dataclass(frozen=True)
class Song:
    """Stems of one song on disk.

    `stems` maps a stem name to the files that are summed to make it; a name that is absent is silence. `rate` is in
    hertz, `frames` the length of the longest file, `channels` 1 or 2 (the widest file; mono files are duplicated).
    """

    name: str
    stems: Mapping[str, tuple[File, ...]]
    rate: int
    frames: int
    channels: int = 2
    mixture: File | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate

    def read(self, start: int, frames: int, names: Sequence[str]) -> np.ndarray:
        """Frames [start, start + frames) of the named stems: float32, (stem, channel, frames), in the order of `names`.

        `MIXTURE` is the sum of all stems, or the mixture's own file where the song has no stems. Outside the song, and
        where a stem is absent or shorter than the song, there is silence. One seek a file.
        """
        out = np.zeros((len(names), self.channels, frames), np.float32)
        for row, name in zip(out, names):
            for file in self._files(name):
                _add(row, file, start)
        return out

    def has(self, name: str) -> bool:
        """Whether there is anything to read under a name."""
        return bool(self._files(name))

    def _files(self, name: str) -> tuple[File, ...]:
        if name != MIXTURE or name in self.stems:
            return self.stems.get(name, ())
        if self.stems or self.mixture is None:
            return tuple(file for files in self.stems.values() for file in files)
        return (self.mixture,)


def _add(row: np.ndarray, file: File, start: int) -> None:
    """Add the frames of `file` from `start` on to `row` (channel, frames); a negative start means silence first."""
    lead = max(0, -start)
    wanted = row.shape[1] - lead
    if wanted <= 0:
        return
    try:
        block = read(file, max(start, 0), wanted)
    except (soundfile.LibsndfileError, OSError) as error:
        raise SongError(
            f"{file}: cannot be read at frame {max(start, 0)} ({error}); was it moved or cut short? "
            "`stemwise songs verify` on its data set names every such file"
        ) from error
    if not np.isfinite(block).all():
        raise SongError(f"{file}: holds samples that are not finite, after frame {max(start, 0)}; export it again")
    row[:, lead : lead + len(block)] += block.T  # a mono block broadcasts over the channels
