"""Windows of stems -> embeddings -> coherence of one part with another over time, and its calibration.

A score is h_context^T W h_made of two 5 s windows (COCOLA, Ciranni et al. 2025): an unbounded logit, not comparable
between encoders, and not symmetric. Silence has no score: the encoder would see it as the loudest possible sound, so
windows with an inaudible side are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stemwise.coherence.cocola import PartName
from stemwise.stems import Part

AUDIBLE_DBFS = -60.0
"""Windows whose root mean square is lower count as silent."""
_BATCH = 16
_ROWS = 256

Direction = Literal["context first", "symmetric"]
"""Whether s(context, made) is meant, as the encoder was trained, or the mean of both orders."""


class Encoder(Protocol):
    """What a score needs of a model: `cocola.Cocola` is one."""

    @property
    def rate(self) -> int:
        """Sample rate in hertz."""
        ...

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        ...

    @property
    def parts(self) -> tuple[PartName, ...]:
        """Which parts of a sound can be scored: "both" and perhaps "harmonic" and "percussive"."""
        ...

    def features(self, audio: Tensor) -> Tensor:
        """(batch, time) at `rate` -> (batch, channel, band, frame)."""
        ...

    def mask(self, features: Tensor, part: PartName) -> Tensor:
        """The features with only one part left."""
        ...

    def embed(self, features: Tensor) -> Tensor:
        """(batch, channel, band, frame) -> (batch, dim)."""
        ...

    def similarity(self, context: Tensor, made: Tensor) -> Tensor:
        """(n, dim), (m, dim) -> (n, m)."""
        ...


@dataclass(frozen=True, eq=False)
class Heard:
    """Parts of a song, window by window.

    Attributes:
        rows: the stems that each row is the sum of.
        starts: (window,) seconds.
        seconds: length of a window.
        embeddings: (row, part, window, dim) on the CPU, parts in the encoder's order.
        levels: (row, window) dBFS of the mono signal.
        products: (row, row, window) mean products of two mono signals.
    """

    rows: tuple[Part, ...]
    starts: NDArray[np.float64]
    seconds: float
    embeddings: Tensor
    levels: NDArray[np.float64]
    products: NDArray[np.float64]

    def audible(self, *rows: Part) -> NDArray[np.bool_]:
        """(window,): where every one of the rows is audible."""
        return np.all(self.levels[[self.rows.index(row) for row in rows]] >= AUDIBLE_DBFS, axis=0)

    def correlation(self, context: Part, made: Part) -> float:
        """Of the two waves over the windows in which both are audible, from -1 to 1; its square is the share of one that is
        the other at some gain. 0 where there is no such window.

        Encoders of magnitudes hear neither sign nor phase, so to them the best company is a copy.
        """
        rows = [self.rows.index(context), self.rows.index(made)]
        (xx, xy), (_, yy) = self.products[np.ix_(rows, rows)][..., self.audible(context, made)].sum(-1)
        return float(np.clip(xy / np.sqrt(xx * yy), -1, 1)) if xx * yy > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Curve:
    """Coherence over time, where both sides are audible.

    Attributes:
        starts: (window,) seconds of the windows that were scored.
        scores: (window,) logits of each of the encoder's parts.
        chances: (window,) probability that the encoder, given the context, prefers what was made in place over the
            same signal of another window of the song that does not overlap; NaN where there is no such window.
        total: how many windows the song has.
        window: length of a window in seconds.
    """

    starts: NDArray[np.float64]
    scores: Mapping[PartName, NDArray[np.float64]]
    chances: NDArray[np.float64]
    total: int
    window: float

    @property
    def coverage(self) -> float:
        """Share of the song's windows that were scored."""
        return len(self.starts) / self.total if self.total else 0.0

    def stretches(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The means of one value a window over those that start within the same `window` seconds and so share sound.

        Windows whose value is not a number are left out, and stretches without any.
        """
        there = np.isfinite(values)
        _, stretch = np.unique(self.starts[there] // self.window, return_inverse=True)
        return np.bincount(stretch, values[there]) / np.bincount(stretch)


def hear(
    encoder: Encoder, names: Sequence[str], windows: Iterable[tuple[int, NDArray[np.float32]]], rows: Iterable[Part]
) -> Heard:
    """Embed sums of the signals `names`, one row each; `windows` are as `aligned_windows` gives them.

    One feature pass serves all parts (harmonic, percussive, both) of a window.
    """
    ordered = tuple(dict.fromkeys(rows))
    mixing = np.array([[name in row for name in names] for row in ordered], np.float32)
    starts: list[float] = []
    levels, products, embeddings = [], [], []
    for batch in _batches(windows, max(1, _BATCH // len(ordered))):
        starts += [start / encoder.rate for start, _ in batch]
        mixed = np.einsum("rs,wst->wrt", mixing, np.stack([signal for _, signal in batch]))
        levels.append(level_dbfs(mixed))
        products.append(mixed @ mixed.swapaxes(1, 2) / mixed.shape[-1])
        h = embed_parts(encoder, torch.from_numpy(mixed).flatten(0, 1))
        embeddings.append(h.unflatten(0, mixed.shape[:2]).cpu())
    return Heard(
        ordered,
        np.array(starts),
        encoder.window / encoder.rate,
        torch.cat(embeddings).permute(1, 2, 0, 3),
        np.concatenate(levels).T,
        np.concatenate(products).astype(np.float64).transpose(1, 2, 0),
    )


@torch.no_grad()
def features_of(encoder: Encoder, audio: Tensor) -> Tensor:
    """(batch, time) -> (batch, channel, band, frame), where the encoder is."""
    return encoder.features(audio.to(_device(encoder)))


@torch.no_grad()
def embed_parts(encoder: Encoder, audio: Tensor) -> Tensor:
    """(batch, time) -> (batch, part, dim): one feature pass, then each part alone."""
    features = features_of(encoder, audio)
    masked = torch.stack([encoder.mask(features, part) for part in encoder.parts], 1)
    return encoder.embed(masked.flatten(0, 1)).unflatten(0, masked.shape[:2]).float()


def curve(encoder: Encoder, heard: Heard, context: Part, made: Part, direction: Direction = "context first") -> Curve:
    """How well the row `made` fits to the row `context`, window by window."""
    index = np.flatnonzero(heard.audible(context, made))
    x, y = (heard.embeddings[heard.rows.index(row)][:, index] for row in (context, made))
    starts = heard.starts[index]
    scores: dict[PartName, NDArray[np.float64]] = {part: np.zeros(len(index)) for part in encoder.parts}
    chances = np.full(len(index), np.nan)
    for first in range(0, len(index), _ROWS):
        rows = np.arange(first, min(first + _ROWS, len(index)))
        for p, part in enumerate(encoder.parts):
            table = similarities(encoder, x[p, rows], y[p], direction)
            scores[part][rows] = table[rows - first, rows]
            if part == "both":
                apart = np.abs(starts[rows, None] - starts[None]) >= heard.seconds
                chances[rows] = preference(scores[part][rows], table, apart)
    return Curve(starts, scores, chances, len(heard.starts), heard.seconds)


def preference(
    scores: NDArray[np.float64], table: NDArray[np.float64], apart: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The mean of sigma(s - s_negative) over the negatives of each row, (n,); NaN for a row without any.

    The two-way decision of a model trained with cross-entropy (COCOLA), hence a number with a unit.

    Args:
        scores: s, (n,).
        table: s_negative, (n, m).
        apart: (n, m), which entries of the table are negatives.
    """
    wins = torch.from_numpy(scores[:, None] - table).sigmoid().numpy()
    count = apart.sum(1)
    return np.where(count, (wins * apart).sum(1) / np.maximum(count, 1), np.nan)


@torch.no_grad()
def similarities(encoder: Encoder, context: Tensor, made: Tensor, direction: Direction) -> NDArray[np.float64]:
    """(n, dim), (m, dim) -> (n, m) scores."""
    device = _device(encoder)
    x, y = context.to(device), made.to(device)
    table = encoder.similarity(x, y)
    if direction == "symmetric":
        table = (table + encoder.similarity(y, x).T) / 2
    return table.cpu().double().numpy()


def level_dbfs(signal: NDArray[np.float32]) -> NDArray[np.float64]:
    """Root mean square over the last axis in dB relative to full scale, at least -300."""
    power = np.square(signal, dtype=np.float64).mean(-1)
    return 10 * np.log10(np.maximum(power, 1e-30))


def _device(encoder: Encoder) -> torch.device:
    parameters = getattr(encoder, "parameters", None)
    first = next(iter(parameters()), None) if parameters is not None else None
    return torch.device("cpu") if first is None else first.device


def _batches(
    windows: Iterable[tuple[int, NDArray[np.float32]]], size: int
) -> Iterator[list[tuple[int, NDArray[np.float32]]]]:
    batch: list[tuple[int, NDArray[np.float32]]] = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
