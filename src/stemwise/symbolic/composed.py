"""The composer's songs as notes with labels: no audio is made."""

from __future__ import annotations

import numpy as np

from stemwise.songs.synthetic import Piece, compose
from stemwise.songs.synthetic.write import TICKS, ticks
from stemwise.symbolic.instruments import BAND, COMPOSER_ROLES
from stemwise.symbolic.notes import NOTE, Labelled, in_order

_NAMES = [one.name for one in BAND]


def composed(seed: int, seconds: float = 60.0) -> Labelled:
    """Song number `seed` of the composer with the instrument of `BAND` that plays each note."""
    return labelled(compose(seed, seconds=seconds))


def labelled(piece: Piece) -> Labelled:
    """The notes of a piece. Of the stem "other" the way of playing decides: a tune is a melody, held chords are strings.

    That may change from one section to the next within one track.
    """
    starts = np.array([section.start for section in piece.sections])
    found, labels = [], []
    for number, track in enumerate(piece.tracks):
        notes = np.zeros(len(track.notes), NOTE)
        begin = ticks(piece, track.notes["start"])
        end = ticks(piece, track.notes["start"] + track.notes["duration"])
        notes["onset"], notes["duration"] = begin, np.maximum(end - begin, 1)
        notes["pitch"], notes["velocity"] = track.notes["pitch"], track.notes["velocity"]
        notes["track"] = number
        found.append(notes)
        if track.stem == "other":  # a player may be early by some hundredths of a second
            section = np.searchsorted(starts, track.notes["start"] + 0.06, side="right") - 1
            roles = [track.ways.get(one.name, "") for one in piece.sections]
            names = [COMPOSER_ROLES.get(role, "other") for role in roles]
            labels.append(np.array([_NAMES.index(name) for name in names], np.int8)[section])
        else:
            labels.append(np.full(len(notes), _NAMES.index(track.stem), np.int8))
    notes = np.concatenate(found)
    order = in_order(notes)
    return Labelled(notes[order], np.concatenate(labels)[order], TICKS, ((0, *piece.meter),))
