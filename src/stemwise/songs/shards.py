"""Songs in tar files: few large files in place of many small ones, for network disks and object stores.

    packed/index.json           how many shards and songs there are, and a digest of the plan that all shards follow
    packed/shard-000000.tar     000000.bass.flac, 000000.drums.flac, 000000.json, 000001.bass.flac, ...
    packed/shard-000000.json    the same songs with the place of every file in the tar, and the checksum of the tar

The tar files follow the convention of WebDataset (one sample a song, its key before the first dot). A stem made of
several files keeps them: `guitar.1.flac`, `guitar.2.flac`. A window is read by seeking in the tar, from the index.
`packing` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stemwise.errors import SongError
from stemwise.files import read_json, sha256
from stemwise.songs.scanning import Problem, Scan, usable
from stemwise.songs.song import Song
from stemwise.songs.source import Member

FORMAT = 1
INDEX = "index.json"
LAYOUT = "shards"
_AGAIN = "copy it again, or delete it and run `stemwise songs pack` again"


def shards(path: Path | str) -> list[Song]:
    """The songs of a packed data set, in their order when packed; a warning names shards that are not there.

    Raises SongError where it is none, or of another format.
    """
    return usable(path, scan(Path(path)))


def recognises(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, look like packed songs."""
    return Path(INDEX) in places and any(place.name.startswith("shard-") for place in places)


def scan(root: Path) -> Scan:
    """Read the indices below `root`: songs, shards that are missing or cut short, songs left out when packed."""
    index = read_index(root)
    songs: list[Song] = []
    problems: list[Problem] = []
    skipped: list[Problem] = []
    for number in range(index["shards"]):
        try:
            found = read_shard(root, number, index["plan"])
        except SongError as error:
            problems.append(Problem(shard_name(number), str(error)))
            continue
        songs += [_song(entry, root / found["tar"]) for entry in found["songs"]]
        skipped += [Problem(entry["song"], f"left out when packed: {entry['reason']}") for entry in found["left_out"]]
    return Scan(tuple(songs), tuple(problems), LAYOUT, tuple(skipped))


def check(path: Path | str) -> tuple[Problem, ...]:
    """Read every tar file to its end and compare its checksum: the shards that are missing or damaged."""
    root = Path(path)
    index = read_index(root)
    problems: list[Problem] = []
    for number in range(index["shards"]):
        try:
            found = read_shard(root, number, index["plan"])
            if sha256(root / found["tar"]) != found["sha256"]:
                raise SongError(f"{found['tar']} is damaged (its checksum differs from the index); {_AGAIN}")
        except (SongError, OSError) as error:
            problems.append(Problem(shard_name(number), str(error)))
    return tuple(problems)


def read_index(root: Path) -> Mapping[str, Any]:
    """The index of a packed data set. Raises SongError where there is none, or of another format."""
    if not (root / INDEX).is_file():
        raise SongError(f"{root}: has no {INDEX}; give a folder that `stemwise songs pack` has made")
    return _document(root / INDEX, ("shards", "songs", "plan"))


def read_shard(root: Path, number: int, plan: str) -> Mapping[str, Any]:
    """The index of one shard. Raises SongError where it is not packed, not complete, or follows another plan."""
    file = root / f"{shard_name(number)}.json"
    tar = file.with_suffix(".tar")
    if not file.is_file():
        raise SongError(
            f"{file.name} is missing: not packed or not copied; run `stemwise songs pack` again, or copy it"
        )
    found = _document(file, ("tar", "bytes", "sha256", "songs", "left_out", "plan"))
    if found["plan"] != plan:
        raise SongError(f"{file.name} belongs to another {INDEX}; {_AGAIN}")
    if not tar.is_file():
        raise SongError(f"{tar.name} is missing; copy it, or run `stemwise songs pack` again")
    if tar.stat().st_size != found["bytes"]:
        raise SongError(f"{tar.name} has {tar.stat().st_size} bytes, not {found['bytes']}; {_AGAIN}")
    return found


def shard_name(number: int) -> str:
    """Name of a shard's files, without ending."""
    return f"shard-{number:06d}"


def _document(file: Path, keys: tuple[str, ...]) -> Mapping[str, Any]:
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise SongError(f"{file}: not readable as JSON ({error}); {_AGAIN}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or not all(key in found for key in keys):
        version = found.get("format") if isinstance(found, dict) else None
        raise SongError(
            f"{file}: format {version!r} is not one that this version reads ({FORMAT}); pack the songs again"
        )
    return found


def _song(entry: Mapping[str, Any], tar: Path) -> Song:
    def member(name: str) -> Member:
        offset, size = entry["files"][name]
        return Member(tar, f"{entry['key']}.{name}", offset, size)

    stems = {stem: tuple(map(member, names)) for stem, names in entry["stems"].items()}
    mixture = member(entry["mixture"]) if entry["mixture"] else None
    return Song(entry["name"], stems, entry["rate"], entry["frames"], entry["channels"], mixture, entry["metadata"])
