"""MUSDB18 (Rafii et al., 2017): 150 songs in four stems, uncompressed (HQ) or in `.stem.mp4` files.

    musdb18hq/{train,test}/<Artist - Title>/{mixture,drums,bass,other,vocals}.wav        HQ
    musdb18/{train,test}/<Artist - Title>.stem.mp4                                       five AAC sound tracks

The compressed version needs PyAV (`pip install 'stemwise[av]'`), and there the stems sum to the mixture only
approximately. The validation songs are the 14 of the training folder that the `musdb` package names.
"""

from __future__ import annotations

import os
from pathlib import Path

from stemwise.errors import SongError
from stemwise.songs.folder import COMPLEMENTS
from stemwise.songs.scanning import SUFFIXES as AUDIO
from stemwise.songs.scanning import Scan, assemble, collect, existing, folders, is_audio, split_above, usable
from stemwise.songs.song import Song
from stemwise.songs.streams import Stream, require_av

LAYOUT = "musdb"
STEMS = ("drums", "bass", "other", "vocals")
SUFFIX = ".stem.mp4"
#: What may lie in the folder of a song.
_KNOWN = frozenset({"mixture", *STEMS, *COMPLEMENTS})
#: Songs of the training folder that everybody validates on.
VALIDATION = frozenset(
    {
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)


def musdb(path: Path | str) -> list[Song]:
    """The songs of a copy of MUSDB18 or MUSDB18-HQ, by name; a warning names unreadable ones.

    `metadata`: split, artist, title. Raises SongError where no song is left, or the compressed version needs PyAV.
    """
    return usable(path, scan(Path(path)))


def recognises(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, look like MUSDB18; with a stem more they are another's songs."""
    inside: dict[Path, set[str]] = {}
    for place in places:
        if place.suffix.lower() in AUDIO and " - " in place.parent.name:
            inside.setdefault(place.parent, set()).add(place.stem)
    whole = [names - _KNOWN for names in inside.values() if names >= {"mixture", *STEMS}]
    return any(place.name.endswith(SUFFIX) for place in places) or any(not more for more in whole)


def scan(root: Path) -> Scan:
    """Read the headers of every song below `root`."""
    found = [
        file
        for folder, _, names in os.walk(root)
        for name in names
        if (file := Path(folder, name)).name.endswith(SUFFIX)
    ]
    compressed = sorted(file for file in found if not file.name.startswith("."))
    if compressed:
        require_av(compressed[0])
        named = ((file.name.removesuffix(SUFFIX), file) for file in compressed)
        return collect(LAYOUT, named, lambda name, file: _compressed(name, file, root))
    songs = folders(root, lambda folder: any(existing(folder, stem) for stem in STEMS))
    return collect(LAYOUT, ((place.name, place) for place in songs), lambda name, place: _song(name, place, root))


def _song(name: str, place: Path, root: Path) -> Song:
    files = {stem: existing(place, stem) for stem in STEMS}
    absent = [stem for stem, file in files.items() if file is None]
    if absent:
        raise SongError(f"{', '.join(f'{stem}.wav' for stem in absent)} missing; download the song again")
    more = sorted(file.name for file in place.iterdir() if is_audio(file) and file.stem not in _KNOWN)
    if more:
        raise SongError(
            f"has {', '.join(more)}, which MUSDB18 has not; move it elsewhere, or the song to another data set"
        )
    stems = {stem: (file,) for stem, file in files.items() if file is not None}
    return assemble(name, stems, existing(place, "mixture"), _metadata(name, place, root))


def _compressed(name: str, file: Path, root: Path) -> Song:
    stems = {stem: (Stream(file, number),) for number, stem in enumerate(STEMS, 1)}
    return assemble(name, stems, Stream(file, 0), _metadata(name, file, root))


def _metadata(name: str, place: Path, root: Path) -> dict[str, str]:
    where = split_above(place, root)
    if name in VALIDATION and where.get("split", "train") == "train":
        where = {"split": "validation"}
    artist, _, title = name.partition(" - ")
    return {**where, "artist": artist, "title": title or name}
