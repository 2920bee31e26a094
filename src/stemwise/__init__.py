"""stemwise: music at the level of stems."""

from __future__ import annotations

__version__ = "0.1.0"
