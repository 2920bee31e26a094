"""Training, validation and test songs: as published, or by a stable hash of each song's name.

The hash decides for each song by itself, so adding or removing songs moves no other song, and all windows of a song are
on one side.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from stemwise.errors import SongError
from stemwise.songs.scanning import SPLITS, MidiSong
from stemwise.songs.song import Song

#: Shares of the splits where none are published (those of COCOLA, arXiv 2404.16969).
SHARES: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}

_Song = TypeVar("_Song", Song, MidiSong)
_VERSION = re.compile(r"(\.\d+|-v\d+|-[1-9]\d?)$")


def split_of(song: Song | MidiSong, seed: int = 0, shares: Mapping[str, float] = SHARES) -> str:
    """The split of a song: `metadata["split"]` where it is published, else by its name (or its work's) and the seed."""
    published = song.metadata.get("split")
    name = str(song.metadata.get("work", song.name))
    return canonical(str(published)) if published else by_name(name, seed, shares)


def by_name(name: str, seed: int = 0, shares: Mapping[str, float] = SHARES) -> str:
    """The split of whatever has this name, drawn by a hash of the seed and the name in proportion to the shares."""
    digest = hashlib.blake2b(f"{seed}\n{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64 * sum(shares.values())
    for split_name, share in shares.items():
        place -= share
        if place < 0:
            return split_name
    return next(reversed(list(shares)))


def split(songs: Sequence[_Song], name: str, seed: int = 0, shares: Mapping[str, float] = SHARES) -> list[_Song]:
    """The songs of one split. Raises SongError, with the splits that there are, where it is empty."""
    wanted = canonical(name)
    splits = [split_of(song, seed, shares) for song in songs]
    found = [song for song, its in zip(songs, splits) if its == wanted]
    if not found:
        there = ", ".join(f"{its} ({count})" for its, count in sorted(Counter(splits).items()))
        raise SongError(f"no song in the split {name!r}; there are: {there or 'no songs'}")
    return found


def title(name: str) -> str:
    """The name of a file without the number of a version: Title.1, 001-v2 and 001-2 are Title and 001.

    song-000007 is a song of its own: a count has leading zeros or more than two digits.
    """
    return _VERSION.sub("", name)


def canonical(name: str) -> str:
    """The name of a split: train, validation, test, or whatever else it is called."""
    plain = name.strip().lower()
    return SPLITS.get(plain, plain)
