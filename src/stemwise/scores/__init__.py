"""How well stems fit together, for files and arrays of any length: `score`, `score_stems` and `search_offset`."""

from __future__ import annotations

from stemwise.scores.listening import (
    CONTEXT,
    MADE,
    Listening,
    Stems,
    score,
    score_parts,
    score_stems,
    search_offset,
    signals_of,
)
from stemwise.scores.results import Move, Offset, Score, StemScores

__all__ = [
    "CONTEXT",
    "MADE",
    "Listening",
    "Move",
    "Offset",
    "Score",
    "StemScores",
    "Stems",
    "score",
    "score_parts",
    "score_stems",
    "search_offset",
    "signals_of",
]
