"""Coherence as a metric of torchmetrics: fed song by song, on one machine or many, and read once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from stemwise.coherence.scoring import Direction, Encoder, curve, hear
from stemwise.coherence.windows import aligned_windows
from stemwise.errors import ScoreError
from stemwise.hosts import without_autocast
from stemwise.metrics.statistics import bootstrap

_CONTEXT, _MADE = frozenset({"context"}), frozenset({"made"})


class CoherenceScore(Metric):
    """How well accompaniments fit to their contexts, as `stemwise.score` has it: the mean over songs.

    Songs of which the two sides are never audible together have no score; they are counted as `silent`. What is kept is
    a few numbers a song, so the states of several processes are joined.

    Args:
        encoder: a `coherence.cocola.Cocola` or the like; it is not part of the state.
        rate: of the signals, in hertz.
        hop: seconds from window to window.
        direction: see `coherence.scoring.Direction`.
        kwargs: for `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    songs: list[Tensor] | Tensor
    silent: Tensor

    def __init__(
        self, encoder: Encoder, rate: int, hop: float = 2.5, direction: Direction = "context first", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        object.__setattr__(self, "encoder", encoder)  # no submodule: neither moved, saved nor joined with the state
        self.rate, self.hop, self.direction = rate, hop, direction
        self.add_state("songs", default=[], dist_reduce_fx="cat")
        self.add_state("silent", default=torch.tensor(0), dist_reduce_fx="sum")

    encoder: Encoder

    @without_autocast
    def update(self, context: Tensor, made: Tensor) -> None:
        """Songs (batch, time) or (batch, channel, time), two of one shape.

        Raises ScoreError for other shapes or under 1 s, QueryError for NaN.
        """
        if context.shape != made.shape or context.ndim not in (2, 3):
            raise ScoreError(
                f"context and made are (batch, time) or (batch, channel, time), two of one shape; found "
                f"{tuple(context.shape)} and {tuple(made.shape)}"
            )
        for x, y in zip(context, made):
            row = self._song(x, y)
            if row is None:
                self.silent += 1
            else:
                assert isinstance(self.songs, list)
                self.songs.append(torch.tensor(row, dtype=torch.float64, device=self.device)[None])

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As of any metric; a process without a song gives a block of none, of the others' shape and type."""
        if isinstance(self.songs, list):
            self.songs.append(torch.zeros(0, 4, dtype=torch.float64, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """The mean `coherence` over songs, `low` and `high` of its 95 % bootstrap interval, `harmonic`, `percussive`
        and the `probability` of being preferred in place (means over the songs that have them, else absent), how many
        `songs` count and how many were `silent`. Raises ScoreError if none counts.
        """
        rows = torch.cat(self.songs) if isinstance(self.songs, list) and self.songs else self.songs
        if not isinstance(rows, Tensor) or not len(rows):
            raise ScoreError("no song has a score: nothing was given, or the two sides are never audible together")
        interval = bootstrap(rows[:, 0].cpu().numpy())
        found = {"coherence": interval.mean, "low": interval.low, "high": interval.high}
        for column, name in enumerate(("harmonic", "percussive", "probability"), 1):
            values = rows[:, column][rows[:, column].isfinite()]
            if len(values):
                found[name] = float(values.mean())
        counts = {"songs": torch.tensor(len(rows)), "silent": self.silent}
        return {**{name: torch.tensor(value) for name, value in found.items()}, **counts}

    def _song(self, context: Tensor, made: Tensor) -> list[float] | None:
        """Means over the song of the whole, harmonic and percussive score and the probability; NaN for what is not."""
        names = ("context", "made")
        hop = round(min(self.hop * self.encoder.rate, self.encoder.window))
        signals = dict(zip(names, (context, made)))
        windows = aligned_windows(signals, self.encoder.rate, self.encoder.window, hop, self.rate)
        found = curve(
            self.encoder, hear(self.encoder, names, windows, [_CONTEXT, _MADE]), _CONTEXT, _MADE, self.direction
        )
        if not len(found.starts):
            return None
        nothing = np.full(len(found.starts), np.nan)
        values = [found.scores.get(part, nothing) for part in ("both", "harmonic", "percussive")] + [found.chances]
        stretches = [found.stretches(value) for value in values]
        return [float(means.mean()) if len(means) else float("nan") for means in stretches]
