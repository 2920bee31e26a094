"""Other names for the stems of a song: several stems under one name, or every file a stem of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from stemwise.songs.song import Song
from stemwise.songs.source import File

#: Stems that the field's groupings to 4, 5 and 6 keep (MoisesDB, ISMIR 2023); whatever else there is becomes `other`.
GROUPINGS: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    count: {name: (name,) for name in ("vocals", "bass", "drums", "guitar", "piano")[: count - 1]}
    for count in (4, 5, 6)
}
REST = "other"


def group(song: Song, mapping: Mapping[str, Sequence[str]], rest: str | None) -> Song:
    """The song with the stems that `mapping` names (new name to old ones), each the sum of the old ones.

    Stems that it does not name are added to the stem `rest`, or dropped where that is None. A new stem none of whose
    old ones the song has is absent, as silence is everywhere.
    """
    named = {old: new for new, olds in mapping.items() for old in olds}
    stems: dict[str, list[File]] = {}
    for name, files in song.stems.items():
        new = named.get(name, rest)
        if new is not None:
            stems.setdefault(new, []).extend(files)
    order = [*mapping, *([] if rest is None or rest in mapping else [rest])]
    return dataclasses.replace(song, stems={name: tuple(stems[name]) for name in order if name in stems})


def leaves(song: Song) -> Song:
    """The song with every file a stem of its own: `guitar`, or `guitar/1`, `guitar/2`, ... where it has several."""
    stems = {
        name if len(files) == 1 else f"{name}/{number}": (file,)
        for name, files in song.stems.items()
        for number, file in enumerate(files, 1)
    }
    return dataclasses.replace(song, stems=stems)
