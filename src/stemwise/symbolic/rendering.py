"""Notes made audible: by an installed sound font, else by the built-in synthesiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stemwise.errors import SongError
from stemwise.songs.synthetic import (
    NOTE as SOUNDING,
)
from stemwise.songs.synthetic import (
    STEMS,
    Font,
    Piece,
    Track,
    built_in_palette,
    fonts,
    render,
    single_palette,
)
from stemwise.symbolic.instruments import Instrument
from stemwise.symbolic.midi import Music
from stemwise.symbolic.notes import Notes

_TAIL = 1.5
"""Seconds after the last note."""


def sound(
    music: Music, parts: Mapping[str, Notes], instruments: Sequence[Instrument], rate: int = 44100
) -> tuple[dict[str, NDArray[np.float32]], str]:
    """Stereo signals (2, frames) by stem of the audio band, and what played them.

    Instruments that are no stem of their own there (strings, melody) are part of `other`.
    """
    known = {one.name: one for one in instruments}
    tracks = []
    for name, notes in parts.items():
        played = np.zeros(len(notes), SOUNDING)
        played["start"] = music.seconds(notes["onset"])
        played["duration"] = np.maximum(music.seconds(notes["onset"] + notes["duration"]) - played["start"], 0.03)
        played["pitch"], played["velocity"] = notes["pitch"], notes["velocity"]
        one = known[name]
        tracks.append(Track(name if name in STEMS else "other", one.program, one.drums, name, played))
    return play(tracks, rate)


def play(tracks: Sequence[Track], rate: int = 44100) -> tuple[dict[str, NDArray[np.float32]], str]:
    """Stereo signals (2, frames) by the stems of tracks, and what played them: the largest complete sound font."""
    end = max((float((track.notes["start"] + track.notes["duration"]).max()) for track in tracks), default=0.0)
    try:
        complete = sorted((font for font in fonts("train") if len(font.presets) >= 128), key=_size, reverse=True)
    except SongError:
        complete = []
    piece = Piece(0, end + _TAIL, "", (4, 4), "", "", 0.5, 0, (), tuple(tracks))
    palette = single_palette(complete[:1]) if complete else built_in_palette()
    made = render(piece, palette, rate=rate)
    return made.stems, complete[0].name if complete else "the built-in synthesiser"


def _size(font: Font) -> int:
    return font.path.stat().st_size
