"""Embeddings of sound, which distances between sets of songs are computed from; one closed table of them.

Anything with the four attributes and the method of `Embedding` will do in their place.
"""

from __future__ import annotations

from stemwise.embeddings.cache import FrameCache, cache_folder, read_frames
from stemwise.embeddings.embedding import Embedding, NetworkEmbedding
from stemwise.embeddings.statistics_file import read_statistics, write_statistics
from stemwise.embeddings.table import EMBEDDINGS, check_embedding, load_embedding

__all__ = [
    "EMBEDDINGS",
    "Embedding",
    "FrameCache",
    "NetworkEmbedding",
    "cache_folder",
    "check_embedding",
    "load_embedding",
    "read_frames",
    "read_statistics",
    "write_statistics",
]
