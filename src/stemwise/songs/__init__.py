"""Songs on disk, windows of them, and an endless synthetic supply."""

from __future__ import annotations

from stemwise.songs.folder import folder, scan
from stemwise.songs.song import Song
from stemwise.songs.verification import Report, verify
from stemwise.songs.window import Augmentation, WindowOptions, Windows

__all__ = ["Augmentation", "Report", "Song", "WindowOptions", "Windows", "folder", "scan", "verify"]
