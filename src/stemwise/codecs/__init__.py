"""Signal to model space and back; `additive` says whether a sum of signals stays a sum."""

from __future__ import annotations

from stemwise.codecs.lapped import Lapped

__all__ = ["Lapped"]
