"""Windows of mixtures and the words that describe them: what a prior trains on that never hears a stem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stemwise.errors import SongError
from stemwise.songs.song import MIXTURE, Song
from stemwise.songs.window import ATTEMPTS, Places, WindowOptions, augment, loud, read_at


class Mixtures(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The stream: `mixtures[i]`, for any i >= 0, has "mixture", float32 (channel, frames), and "told", bool (word,).

    `options.names` are the words. Songs with stems are told by those that are louder than `floor_db` in the window, and are
    the sum of all they have; whole songs by the `words` of their metadata. Songs that no word describes are left out;
    `songs` holds the others. Windows that are silent, or of which less than `min_active` words are true, are drawn again.
    """

    def __init__(
        self, songs: Sequence[Song], options: WindowOptions, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        useful = [place for place, song in enumerate(songs) if not words_of(song).isdisjoint(options.names)]
        if not useful:
            found = sorted({word for song in songs for word in words_of(song)})
            raise SongError(
                f"none of the {len(songs)} song(s) is described by {', '.join(options.names)}; "
                f"found: {', '.join(found[:20]) or 'nothing'}. Give the model other words, or the songs other names"
            )
        self.songs = [songs[place] for place in useful]
        self.options, self.seed = options, seed
        self._places = Places(self.songs, None if weights is None else [weights[place] for place in useful])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Item `index` of the stream."""
        for attempt in range(ATTEMPTS):
            draw = np.random.default_rng((self.seed, index, attempt))
            mixture, told = self._draw(draw)
            augment(mixture, self.options, draw)
            if loud(mixture, self.options.floor_db).all() and told.sum() >= self.options.min_active:
                break
        return {"mixture": torch.from_numpy(mixture[0]), "told": torch.from_numpy(told)}

    def _draw(self, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A window (1, channel, frames), and which words are true of it."""
        words = self.options.names
        song, start = self._places.draw(draw, self.options)
        if not song.stems:
            return read_at(song, start, (MIXTURE,), self.options), np.isin(words, list(words_of(song)))
        stems = read_at(song, start, (*words, *(name for name in song.stems if name not in words)), self.options)
        return stems.sum(0, keepdims=True), loud(stems[: len(words)], self.options.floor_db)


def words_of(song: Song) -> frozenset[str]:
    """What describes a song: the names of its stems, or where it has none, its tags."""
    return frozenset(song.stems or song.metadata.get("words", ()))
