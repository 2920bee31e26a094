"""Windows of labelled notes for training: item i of a stream is a function of (seed, i) alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stemwise.symbolic.instruments import BAND
from stemwise.symbolic.notes import FEATURES, Labelled, Notes, features, in_order
from stemwise.symbolic.sets import NoteSets

_PITCHED = np.array([not one.drums for one in BAND])
_COUNT = len(BAND)
_DRUMS = int(np.argmin(_PITCHED))
#: Columns of a row after the features: label, is it known, is this a note; then a bit for each label that the note has,
#: a bit for each label of the window, and whether these are told.
COLUMNS = len(FEATURES) + 3 + 2 * _COUNT + 1


@dataclass(frozen=True)
class NoteAugmentation:
    """Random changes to a window of notes; chances are probabilities in [0, 1].

    `transpose`: all pitched notes by up to so many semitones; `octave`: an instrument by an octave; `drop`: an
    instrument is silent; `remix`: each instrument from one of two songs of one metre; `double`: an instrument plays
    along with another; `merge`: notes of equal onset and pitch become one that has several labels; `flat`: one velocity
    for all; `grid`: onsets on a grid, otherwise jittered; `shift`: bars begin elsewhere than where they are said to;
    `rescale`: written in notes of half or double the length; `channel`: drums are known, as on channel 10; `told`: which
    instruments play is known; `locked`: some notes are.
    """

    transpose: float = 6
    octave: float = 0.04
    drop: float = 0.12
    remix: float = 0.12
    double: float = 0.1
    merge: float = 0.15
    flat: float = 0.15
    grid: float = 0.25
    shift: float = 0.05
    rescale: float = 0.05
    channel: float = 0.5
    told: float = 0.3
    locked: float = 0.2


#: Nothing is changed; nothing is known but, in every second window, the drums.
STILL = NoteAugmentation(0, *(0.0,) * 9, channel=0.5, told=0.0, locked=0.0)


class NoteWindows(torch.utils.data.Dataset[Tensor]):
    """The stream: `windows[i]` is float32 (`notes`, `COLUMNS`) for any i >= 0."""

    def __init__(self, songs: NoteSets, notes: int, seed: int, augmentation: NoteAugmentation = STILL) -> None:
        self.songs, self.notes, self.seed, self.augmentation = songs, notes, seed, augmentation
        self._shares = np.array(songs.weights) / sum(songs.weights)

    def __getitem__(self, index: int) -> Tensor:
        """Item `index` of the stream."""
        draw = np.random.default_rng((self.seed, index))
        chosen = self.songs.sets[int(draw.choice(len(self._shares), p=self._shares))]
        song = chosen[int(draw.integers(len(chosen)))]
        if draw.random() < self.augmentation.remix:
            song = _remixed(song, chosen[int(draw.integers(len(chosen)))], draw)
        return torch.from_numpy(self._row(song, draw))

    def _row(self, song: Labelled, draw: np.random.Generator) -> NDArray[np.float32]:
        how = self.augmentation
        song = _dropped(song, how.drop, draw)
        first = int(draw.integers(0, max(1, len(song.notes) - self.notes // 2)))
        cut = slice(first, first + self.notes)
        song = dataclasses.replace(song, notes=song.notes[cut].copy(), labels=song.labels[cut])
        notes, labels, metres = _varied(song, how, draw)
        bits = np.eye(_COUNT, dtype=np.float32)[labels]
        if draw.random() < how.merge:
            notes, labels, bits = _merged(notes, labels, bits)
        notes, labels, bits = notes[: self.notes], labels[: self.notes], bits[: self.notes]
        known = np.zeros(len(notes), dtype=bool)
        if draw.random() < how.channel:
            known |= labels == _DRUMS
        if draw.random() < how.locked:
            some = draw.random(len(notes)) < draw.uniform(0.02, 0.4)
            known |= some if draw.random() < 0.6 else labels == labels[int(draw.integers(len(notes)))]
        row = np.zeros((self.notes, COLUMNS), dtype=np.float32)
        size = len(FEATURES)
        row[: len(notes), :size] = features(notes, song.tpq, metres)
        row[: len(notes), size] = labels
        row[: len(notes), size + 1] = known
        row[: len(notes), size + 2] = 1.0
        row[: len(notes), size + 3 : size + 3 + _COUNT] = bits
        if draw.random() < how.told:
            row[:, size + 3 + _COUNT : -1] = bits.max(axis=0)
            row[:, -1] = 1.0
        return row


def _remixed(one: Labelled, other: Labelled, draw: np.random.Generator) -> Labelled:
    if one.tpq != other.tpq or [m[1:] for m in one.metres] != [m[1:] for m in other.metres]:
        return one
    from_other = draw.random(_COUNT) < 0.5
    notes = np.concatenate([one.notes[~from_other[one.labels]], other.notes[from_other[other.labels]]])
    labels = np.concatenate([one.labels[~from_other[one.labels]], other.labels[from_other[other.labels]]])
    if not len(notes):
        return one
    order = in_order(notes)
    return Labelled(notes[order], labels[order], one.tpq, one.metres)


def _dropped(song: Labelled, chance: float, draw: np.random.Generator) -> Labelled:
    present = np.unique(song.labels)
    silent = draw.random(_COUNT) < chance
    if silent[present].all():
        silent[draw.choice(present)] = False
    keep = ~silent[song.labels]
    return dataclasses.replace(song, notes=song.notes[keep], labels=song.labels[keep])


def _varied(
    song: Labelled, how: NoteAugmentation, draw: np.random.Generator
) -> tuple[Notes, NDArray[np.int8], tuple[tuple[int, int, int], ...]]:
    """Notes played and written in another way, in order again."""
    notes, labels, metres, tpq = song.notes, song.labels, song.metres, song.tpq
    if how is STILL:
        return notes, labels, metres
    pitched = _PITCHED[labels]
    if draw.random() < how.double:
        source, target = draw.choice(np.unique(labels)), int(draw.integers(_COUNT))
        if _PITCHED[source] and _PITCHED[target] and source != target:
            copied = notes[labels == source].copy()
            copied["pitch"] += 12 * int(draw.choice((0, 0, 0, 1, -1)))
            notes = np.concatenate([notes, copied])
            labels = np.concatenate([labels, np.full(len(copied), target, np.int8)])
            pitched = _PITCHED[labels]
    moved = int(draw.integers(-int(how.transpose), int(how.transpose) + 1))
    octaves = np.where(draw.random(_COUNT) < how.octave, draw.choice((-12, 12), _COUNT), 0)
    notes["pitch"] = np.clip(notes["pitch"] + np.where(pitched, moved + octaves[labels], 0), 0, 127)
    loud = draw.normal(0, 6, _COUNT)[labels] + draw.normal(0, 1, len(notes))
    velocity: NDArray[np.floating] = notes["velocity"] + loud
    if draw.random() < how.flat:
        velocity = np.full(len(notes), draw.integers(40, 128)) + (loud if draw.random() < 0.3 else 0)
    notes["velocity"] = np.clip(np.round(velocity), 1, 127)
    lengths = np.exp(draw.normal(0, 0.2, _COUNT))[labels] if draw.random() < 0.3 else np.ones(len(notes))
    begin = notes["onset"].astype(float)
    length = notes["duration"] * lengths
    if draw.random() < how.grid:
        step = tpq / int(draw.choice((4, 12, 24)))
        begin, length = np.round(begin / step) * step, np.maximum(np.round(length / step), 1) * step
    elif draw.random() < 0.3:
        begin = begin + draw.normal(0, draw.uniform(0, 0.01) * tpq, len(notes))
    if draw.random() < how.rescale:
        factor = float(draw.choice((0.5, 2.0)))
        begin, length = begin * factor, length * factor
    if draw.random() < how.shift:
        begin = begin + draw.integers(0, 4 * tpq)
        metres = ()
    notes["onset"], notes["duration"] = np.maximum(np.round(begin), 0), np.maximum(np.round(length), 1)
    order = in_order(notes)
    return notes[order], labels[order], metres


def _merged(
    notes: Notes, labels: NDArray[np.int8], bits: NDArray[np.float32]
) -> tuple[Notes, NDArray[np.int8], NDArray[np.float32]]:
    """One note for all of equal onset and pitch, the longest, with the labels of them all."""
    key = notes["onset"] * 128 + notes["pitch"]
    _, group = np.unique(key, return_inverse=True)
    every = np.zeros((group.max() + 1, _COUNT), dtype=np.float32)
    np.maximum.at(every, group, bits)
    order = np.lexsort((notes["duration"], group))
    last = np.append(np.diff(group[order]) > 0, True)
    keep = np.sort(order[last])
    return notes[keep], labels[keep], every[group[keep]]
