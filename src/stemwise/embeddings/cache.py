"""Embedding frames of files, computed once: kept in the user's cache folder, never beside the songs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stemwise.audio_io import AudioSource, open_audio, resample_blocks
from stemwise.embeddings.embedding import Embedding, Floats32
from stemwise.files import atomic_file, sha256

VARIABLE = "STEMWISE_CACHE"
"""Environment variable with another cache folder; empty for none at all."""


def cache_folder() -> Path | None:
    """Where caches lie: $STEMWISE_CACHE, else the platform's cache folder; None where caching is switched off."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    import platformdirs

    return Path(platformdirs.user_cache_dir("stemwise", appauthor=False))


class FrameCache:
    """Frames of files by one embedding.

    A file's entry is named by its content, the embedding's name and its version, so a file that changed or moved, other
    weights and another preparation are never mixed up. Entries are float32 and appear whole or not at all; a damaged one
    is made again. Without a folder, or where it cannot be written, frames are computed every time.
    """

    def __init__(self, embedding: Embedding, folder: Path | None) -> None:
        self.embedding = embedding
        self.folder = folder / "embeddings" / embedding.name if folder is not None else None

    def frames(self, file: Path) -> Floats32:
        """(frame, dimensions) of an audio file. Raises AudioFileError or MetricError."""
        entry = self._entry(file)
        found = self._stored(entry)
        if found is not None:
            return found
        frames = read_frames(file, self.embedding)
        if entry is not None:
            try:
                entry.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(entry) as handle:
                    np.save(handle, frames)
            except OSError:
                pass  # a full or read-only disk must not stop a measurement
        return frames

    def _entry(self, file: Path) -> Path | None:
        if self.folder is None or not file.is_file():
            return None
        key = hashlib.sha256(f"{sha256(file)}\n{self.embedding.name}\n{self.embedding.version}".encode()).hexdigest()
        return self.folder / f"{key}.npy"

    def _stored(self, entry: Path | None) -> Floats32 | None:
        if entry is None:
            return None
        try:
            frames = np.load(entry, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = frames.dtype == np.float32 and frames.ndim == 2 and frames.shape[1] == self.embedding.dimensions
        return frames if fits else None


def read_frames(file: Path, embedding: Embedding) -> Floats32:
    """Frames of an audio file of any rate and number of channels. Raises AudioFileError or MetricError."""
    with open_audio(file) as source:
        return embedding.embed(np.concatenate(list(_mono(source, embedding.rate))), embedding.rate)


def _mono(source: AudioSource, rate: int) -> Iterator[Floats32]:
    for block in resample_blocks((b.mean(0, keepdims=True) for b in source.blocks(1 << 18)), source.rate, rate):
        yield block[0]
