"""Songs on disk, windows of them, and an endless synthetic supply."""

from __future__ import annotations

from stemwise.songs.folder import folder, scan
from stemwise.songs.grouping import GROUPINGS, group, leaves
from stemwise.songs.pairs import PairOptions, Pairs
from stemwise.songs.song import Song
from stemwise.songs.splits import split, split_of
from stemwise.songs.verification import Report, verify
from stemwise.songs.window import Augmentation, WindowOptions, Windows

__all__ = [
    "GROUPINGS",
    "Augmentation",
    "PairOptions",
    "Pairs",
    "Report",
    "Song",
    "WindowOptions",
    "Windows",
    "folder",
    "group",
    "leaves",
    "scan",
    "split",
    "split_of",
    "verify",
]
