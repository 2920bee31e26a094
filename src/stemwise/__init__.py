"""stemwise: music at the level of stems. Separate, generate, accompany and edit the parts of a song."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "Audio": "stemwise.stems",
    "Cancelled": "stemwise.errors",
    "Model": "stemwise.model",
    "Part": "stemwise.stems",
    "Progress": "stemwise.longform",
    "Query": "stemwise.query",
    "Report": "stemwise.longform",
    "Score": "stemwise.scores",
    "StemScores": "stemwise.scores",
    "StemwiseError": "stemwise.errors",
    "load": "stemwise.loading",
    "load_notes": "stemwise.loading",
    "models": "stemwise.loading",
    "recompose": "stemwise.recomposing",
    "score": "stemwise.scores",
    "score_stems": "stemwise.scores",
}

if TYPE_CHECKING:  # without __getattr__, by which every misspelt name would be one
    from stemwise.errors import Cancelled, StemwiseError
    from stemwise.loading import load, load_notes, models
    from stemwise.longform import Progress, Report
    from stemwise.model import Model
    from stemwise.query import Query
    from stemwise.recomposing import recompose
    from stemwise.scores import Score, StemScores, score, score_stems
    from stemwise.stems import Audio, Part
else:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used, so that the command line starts at once."""
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        raise AttributeError(f"module 'stemwise' has no attribute {name!r}")


__all__ = [
    "Audio",
    "Cancelled",
    "Model",
    "Part",
    "Progress",
    "Query",
    "Report",
    "Score",
    "StemScores",
    "StemwiseError",
    "__version__",
    "load",
    "load_notes",
    "models",
    "recompose",
    "score",
    "score_stems",
]


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
