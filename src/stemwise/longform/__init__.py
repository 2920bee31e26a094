"""Whole songs of any length in constant memory.

A lazy source is resampled to the model's rate, cut into overlapping windows, separated, cross-faded, resampled back and
handed on block by block; the stems are closed so that they sum to the input. To generate, each window continues the one
before. The engine knows arrays, tensors and a window function, no concrete system.
"""

from __future__ import annotations

from stemwise.longform.continuation import continue_windows
from stemwise.longform.overlap import Split, WindowFunction, Windowing
from stemwise.longform.separation import (
    SILENCE_DB,
    Progress,
    ProgressCallback,
    Report,
    SongFunction,
    in_turn,
    separate_blocks,
    separate_to_files,
    separate_whole,
    tell,
)
from stemwise.longform.sources import ArraySource, Source

__all__ = [
    "SILENCE_DB",
    "ArraySource",
    "Progress",
    "ProgressCallback",
    "Report",
    "SongFunction",
    "Source",
    "Split",
    "WindowFunction",
    "Windowing",
    "continue_windows",
    "in_turn",
    "separate_blocks",
    "separate_to_files",
    "separate_whole",
    "tell",
]
