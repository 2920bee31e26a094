"""Songs of two seconds on disk, for tests of everything about evaluation but its sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from stemwise.songs import Song, folder
from stemwise.stems import Audio

RATE = 8000
STEMS = ("bass", "drums", "piano")


def write_songs(place: Path, count: int = 3, seconds: float = 2.0, silent: tuple[str, ...] = ()) -> list[Song]:
    """Decaying tones (a noise for drums) in stereo; stems of the first song named in `silent` are digital silence."""
    for number in range(count):
        draw = np.random.default_rng(number)
        time = np.arange(round(seconds * RATE)) / RATE
        song = place / f"song-{number}"
        song.mkdir(parents=True)
        for place_of, name in enumerate(STEMS):
            tone = (
                np.sin(2 * np.pi * draw.uniform(80, 900) * time) if name != "drums" else draw.standard_normal(len(time))
            )
            signal = 0.1 * (1 + place_of) * tone * np.exp(-4 * (time % draw.uniform(0.3, 0.6)))
            if number == 0 and name in silent:
                signal[:] = 0
            sides = np.stack([signal, 0.7 * signal], 1).astype(np.float32)
            soundfile.write(song / f"{name}.wav", sides, RATE, subtype="FLOAT")
    return folder(place)


def read(song: Song, names: tuple[str, ...] = STEMS) -> np.ndarray:
    """The whole song (stem, channel, frames)."""
    return song.read(0, song.frames, names)


def blurred(question) -> Audio:  # type: ignore[no-untyped-def]
    """A system that is neither perfect nor useless: the truth plus a tenth of the mixture."""
    truth = question.truth
    return Audio(truth.names, truth.data + 0.1 * truth.data.sum(1, keepdim=True), truth.rate)
