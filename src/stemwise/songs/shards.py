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
#: What a stranger's index may promise: shards, whose names have six digits, and channels, as many as libsndfile takes.
_MOST, _MOST_CHANNELS = 1_000_000, 1024
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
    found = _document(root / INDEX, ("shards", "songs", "plan"))
    if not (_is_count(found["shards"]) and found["shards"] <= _MOST):
        raise SongError(f"{root / INDEX}: {found['shards']!r} is no number of shards; {_AGAIN}")
    return found


def read_shard(root: Path, number: int, plan: str) -> Mapping[str, Any]:
    """The index of one shard. Raises SongError where it is not packed, not complete, or follows another plan."""
    file = root / f"{shard_name(number)}.json"
    tar = file.with_suffix(".tar")
    if not file.is_file():
        raise SongError(
            f"{file.name} is missing: not packed or not copied; run `stemwise songs pack` again, or copy it"
        )
    found = _document(file, ("tar", "bytes", "sha256", "songs", "left_out", "plan"))
    if found["tar"] != tar.name or not _is_whole(found):
        raise SongError(f"{file.name} is damaged: it does not say of each song where its files lie; {_AGAIN}")
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


def _is_whole(shard: Mapping[str, Any]) -> bool:
    """Whether an index of a shard says all that is read in it."""
    try:
        told = all(isinstance(left[key], str) for left in shard["left_out"] for key in ("song", "reason"))
        return told and all(_is_song(entry, shard["bytes"]) for entry in shard["songs"])
    except (KeyError, TypeError, ValueError, AttributeError):  # something is not there, or of another kind
        return False


def _is_song(entry: Mapping[str, Any], size: int) -> bool:
    """Whether an entry describes a song whose files lie in a tar file of `size` bytes."""
    files, mixture = entry["files"], entry["mixture"]
    return (
        all(isinstance(entry[key], str) for key in ("key", "name"))
        and all(_is_count(entry[key]) for key in ("rate", "frames", "channels"))
        and entry["rate"] > 0
        and 0 < entry["channels"] <= _MOST_CHANNELS
        and isinstance(entry["metadata"], dict)
        and all(_is_count(start) and _is_count(count) and start + count <= size for start, count in files.values())
        and all(name in files for names in entry["stems"].values() for name in names)
        and (not mixture or mixture in files)
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 48


def _song(entry: Mapping[str, Any], tar: Path) -> Song:
    def member(name: str) -> Member:
        offset, size = entry["files"][name]
        return Member(tar, f"{entry['key']}.{name}", offset, size)

    stems = {stem: tuple(map(member, names)) for stem, names in entry["stems"].items()}
    mixture = member(entry["mixture"]) if entry["mixture"] else None
    return Song(entry["name"], stems, entry["rate"], entry["frames"], entry["channels"], mixture, entry["metadata"])
