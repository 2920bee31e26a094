"""MoisesDB (Pereira et al., ISMIR 2023): recorded songs with a taxonomy of two levels, stems made of tracks.

    moisesdb/moisesdb_v0.1/<track uuid>/{data.json, <stem>/<source uuid>.wav, ...}

The first level gives the stems of a song (`guitar`), each the sum of its tracks; the second says what each track is
("acoustic guitar"). `grouping.group(song, grouping.GROUPINGS[4], "other")` makes the usual 4, 5 or 6 stems, and `tracks`
the second level. Stems and tracks differ in length: the shorter ones end in silence, and nothing is cut. There is no
published split, and no mixture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stemwise.errors import SongError
from stemwise.files import read_json
from stemwise.songs.scanning import Scan, assemble, collect, folders, split_above, usable
from stemwise.songs.song import Song
from stemwise.songs.source import File

LAYOUT = "moisesdb"
#: First level -> second level, as the paper's table of the taxonomy has them, shortened to names.
TAXONOMY: Mapping[str, tuple[str, ...]] = {
    "vocals": ("lead male singer", "lead female singer", "human choir", "background vocals", "other"),
    "bass": ("bass guitar", "bass synthesizer", "contrabass", "tuba", "bassoon"),
    "drums": ("snare drum", "toms", "kick drum", "cymbals", "overheads", "full acoustic drumkit", "drum machine"),
    "other": ("fx", "click track"),
    "guitar": ("clean electric guitar", "distorted electric guitar", "lap steel guitar", "acoustic guitar"),
    "other_plucked": ("banjo",),
    "percussion": ("a-tonal percussion", "pitched percussion"),
    "piano": ("grand piano", "electric piano"),
    "other_keys": ("organ", "synth pad", "synth lead", "other sounds"),
    "bowed_strings": (
        "violin", "viola", "cello", "violin section", "viola section", "cello section", "string section",
        "other strings",
    ),
    "wind": ("brass", "flutes", "reeds", "other wind"),
}  # fmt: skip


def moisesdb(path: Path | str) -> list[Song]:
    """The songs of a copy of MoisesDB, by their ids; a warning names unreadable ones.

    `metadata`: title, artist, style (the genre), tracks (by stem: what each of its files is), bleed (by stem: whether
    each of its files has bleed from other instruments). Raises SongError where no song is left.
    """
    return usable(path, scan(Path(path)))


def recognises(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, look like MoisesDB."""
    described = {place.parent for place in places if place.name == "data.json"}
    return any(place.parent in described and place.name in _folders() for place in places)


def _folders() -> set[str]:
    return {*TAXONOMY, *(name.replace("_", " ") for name in TAXONOMY)}


def scan(root: Path) -> Scan:
    """Read the headers and metadata of every song below `root`."""

    # A folder of stem folders without its data.json is a song too, one with a problem.
    def is_song(folder: Path) -> bool:
        return (folder / "data.json").is_file() or any((folder / name).is_dir() for name in _folders())

    found = folders(root, is_song)
    return collect(LAYOUT, ((place.name, place) for place in found), lambda _, place: _song(place, root))


def tracks(song: Song) -> Song:
    """The song with the second level as its stems: `guitar/acoustic guitar`, each the sum of the tracks of that type."""
    types = song.metadata["tracks"]
    stems: dict[str, list[File]] = {}
    for stem, files in song.stems.items():
        for file, kind in zip(files, types[stem]):
            stems.setdefault(f"{stem}/{kind}", []).append(file)
    return replace(song, stems={name: tuple(files) for name, files in stems.items()})


def second_level(stem: str, given: str) -> str:
    """The name in `TAXONOMY` for a `trackType` of a data.json, which may carry examples ("flutes (piccolo, ...)")."""
    plain = re.sub(r"[_\s]+", " ", given).strip().lower()
    known = (
        name for name in TAXONOMY.get(stem, ()) if plain == name or re.match(rf"{re.escape(name)}\b[\s]*[(,/]", plain)
    )
    return next(known, plain or "unknown")


def _song(place: Path, root: Path) -> Song:
    about = _metadata(place / "data.json")
    stems: dict[str, list[Path]] = {}
    kinds: dict[str, list[str]] = {}
    bleed: dict[str, list[bool]] = {}
    for entry in about["stems"]:
        folder = str(entry["stemName"])
        name = folder.strip().lower().replace(" ", "_")
        for track in entry.get("tracks") or ():
            file = place / folder / f"{track['id']}.{str(track.get('extension') or 'wav').lstrip('.')}"
            stems.setdefault(name, []).append(file)
            kinds.setdefault(name, []).append(second_level(name, str(track.get("trackType") or "")))
            bleed.setdefault(name, []).append(bool(track.get("has_bleed", False)))
    if not stems:
        raise SongError("data.json names no tracks; download the song again")
    metadata = {
        **split_above(place, root),
        "title": str(about.get("song") or ""),
        "artist": str(about.get("artist") or ""),
        "style": str(about.get("genre") or ""),
        "tracks": kinds,
        "bleed": bleed,
    }
    return assemble(place.name, {name: tuple(files) for name, files in sorted(stems.items())}, None, metadata)


def _metadata(file: Path) -> Mapping[str, Any]:
    try:
        found = read_json(file)
        stems = found["stems"]
        complete = all(track["id"] for entry in stems for track in (entry["stemName"] and entry.get("tracks")) or ())
    except FileNotFoundError as error:
        raise SongError(f"{file.name} is missing, so its tracks have no names; download the song again") from error
    except ValueError as error:
        raise SongError(f"{file.name} is damaged ({error}); download the song again") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise SongError(f"{file.name} lacks what MoisesDB has there ({error}); download the song again") from error
    if not complete:
        raise SongError(f"{file.name} has a track without an id; download the song again")
    assert isinstance(found, dict)
    return found
