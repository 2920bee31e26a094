"""Any folder of songs is a data set, in one of three forms.

    a song/bass.wav  a song/drums.flac  another/...        one folder a song, one file a stem
    bass/a song.wav  drums/a song.wav  ...                 one folder a stem, files of equal names are one song
    songs.csv with the columns song, stem, path            (or instrum, path), paths relative to the table

In the first form a stem may also be a sub-folder of the song, whose files are summed. Other folders may stand above the
songs; train, validation and test among them are splits.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stemwise.errors import SongError
from stemwise.files import read_json
from stemwise.songs.scanning import (
    SPLITS,
    SUFFIXES,
    Scan,
    assemble,
    collect,
    is_audio,
    split_above,
    sub_folders,
    usable,
)
from stemwise.songs.song import Song

#: Other spellings of a stem's name, matched without regard to case.
ALIASES = {
    "vox": "vocals", "voice": "vocals", "vocal": "vocals", "drum": "drums", "keys": "piano", "keyboard": "piano",
    "guitars": "guitar", "others": "other",
}  # fmt: skip
MIXTURES = ("mixture", "mix", "full_mix")
#: Sums of other stems; as stems they would count the same sound twice.
COMPLEMENTS = ("instrumental", "inst", "karaoke", "accompaniment")
#: Names that tell a folder of one stem's files from the folder of a song.
STEM_NAMES = frozenset(
    {"vocals", "bass", "drums", "guitar", "piano", "other", "percussion", "strings", "synth", "organ", "brass", "wind"}
)
_EXPECTED = "give a folder with one sub-folder a song, each with bass.wav, drums.wav, ..."


def is_sum(name: str) -> bool:
    """Whether a file of this name is a sum of other stems."""
    return name in COMPLEMENTS or name.startswith("no_")


def folder(path: Path | str) -> list[Song]:
    """The songs of a folder, by name; a warning names unreadable ones. Raises SongError where none is left."""
    return usable(path, scan(path))


def scan(path: Path | str) -> Scan:
    """Read the headers of every song below `path`. Raises SongError if it is no folder of sub-folders."""
    root = Path(path)
    if not root.is_dir():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        raise SongError(f"{root}: {'is a file' if root.exists() else f'does not exist{where}'}; {_EXPECTED}")
    entries = sub_folders(root)
    if not entries:
        loose = any(is_audio(entry) for entry in root.iterdir())
        remedy = "its files look like the stems of one song: give its parent folder" if loose else _EXPECTED
        raise SongError(f"{root}: has no sub-folders; {remedy}")
    entries = [song for entry in entries for song in _songs_in(entry)]
    named = ((entry.relative_to(root).as_posix(), entry) for entry in entries)
    return collect("folder", named, lambda name, place: song(place, name, split_above(place, root)))


def song(path: Path, name: str = "", metadata: Mapping[str, Any] | None = None) -> Song:
    """The song in one folder, from the headers of its files. Raises SongError with the first reason against it."""
    stems: dict[str, tuple[Path, ...]] = {}
    mixture: Path | None = None
    for stem, files in _named_files(path):
        if stem in MIXTURES:
            mixture = files[0]
        elif is_sum(stem):
            continue
        elif stem in stems:
            both = ", ".join(file.name for file in (*stems[stem], *files))
            raise SongError(f"stem {stem!r} is given twice ({both}); keep one, or put tracks to sum in {stem}/")
        else:
            stems[stem] = files
    if not stems:
        raise SongError(f"no stems: expected files such as bass.wav or drums.flac ({', '.join(SUFFIXES)})")
    return assemble(name or path.name, stems, mixture, {**(metadata or {}), **_metadata(path)})


def recognises_stem_folders(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, are a folder for each stem with files of equal names."""
    inside = [place for place in places if len(place.parts) > 1]
    tops = {place.parts[0] for place in inside}
    names = [place.stem for place in inside if len(place.parts) == 2]
    known = all(canonical(top) in STEM_NAMES or canonical(top) in MIXTURES for top in tops)
    return known and len(tops) > 1 and len(set(names)) < len(names)


def scan_stem_folders(path: Path | str) -> Scan:
    """Read a folder with one sub-folder a stem; files with the same path inside them (whatever the suffix) are a song."""
    root = Path(path)
    songs: dict[str, dict[str, list[Path]]] = {}
    for entry in sub_folders(root):
        for file in sorted(entry.rglob("*")):
            if is_audio(file):
                name = file.relative_to(entry).with_suffix("").as_posix()
                songs.setdefault(name, {}).setdefault(canonical(entry.name), []).append(file)

    def read(name: str, place: Path) -> Song:
        return _of_files(name, songs[name], split_above(place, root))

    return collect("stem folders", ((name, root / name) for name in sorted(songs)), read)


def scan_table(path: Path | str) -> Scan:
    """Read a CSV file: a row for each file, with the columns `song`, `stem` (or `instrum`), `path`; others are metadata.

    Paths are relative to the table. Rows of one song and stem are summed. Without the column `song`, a file called
    after its stem belongs to the song that its folder is called after, and any other file is a song by its own name.
    Raises SongError where it is no such table.
    """
    table = Path(path)
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
            columns = set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SongError(f"{table}: is not a readable CSV file ({error}); save it as CSV in UTF-8") from error
    stem_column = "stem" if "stem" in columns else "instrum"
    if not {stem_column, "path"} <= columns:
        raise SongError(
            f"{table}: has the columns {', '.join(sorted(columns)) or '(none)'}; it needs song, stem and path, with a row "
            "for each file"
        )
    songs: dict[str, dict[str, list[Path]]] = {}
    about: dict[str, dict[str, Any]] = {}
    for row in rows:
        if not any(row.values()):  # nothing but commas, as spreadsheets leave them below the last row
            continue
        stem, file = canonical(row[stem_column] or ""), table.parent / (row["path"] or "")
        own = file.parent.name if canonical(file.stem) == stem else file.stem
        name = row["song"] if row.get("song") else own
        songs.setdefault(name, {}).setdefault(stem, []).append(file)
        extra = {key: value for key, value in row.items() if key not in ("song", stem_column, "path") and key and value}
        about.setdefault(name, {}).update(extra)
    if "split" in columns:
        for found in about.values():
            found["split"] = SPLITS.get(str(found.get("split", "")).lower(), found.get("split"))
    return collect(
        "table", ((name, table) for name in songs), lambda name, _: _of_files(name, songs[name], about[name])
    )


def canonical(name: str) -> str:
    """The stem name for a file's name: lower case, blanks and dashes as underscores, aliases resolved."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return ALIASES.get(plain, plain)


def _of_files(name: str, files: Mapping[str, list[Path]], metadata: Mapping[str, Any]) -> Song:
    """The song of these files by stem; a mixture among them is its mixture, a sum of other stems is left out."""
    if "" in files:
        raise SongError(f"a file without the name of its stem ({files[''][0].name}); add the name")
    mixture = next((files[key][0] for key in MIXTURES if key in files), None)
    stems = {key: tuple(of) for key, of in files.items() if key not in MIXTURES and not is_sum(key)}
    if not stems and mixture is None:
        raise SongError("no stems, only sums of stems; add bass, drums, ...")
    return assemble(name, stems, mixture, metadata)


def _named_files(path: Path) -> Iterator[tuple[str, tuple[Path, ...]]]:
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            files = tuple(sorted(file for file in entry.iterdir() if is_audio(file)))
            if files:
                yield canonical(entry.name), files
        elif is_audio(entry):
            yield canonical(entry.stem), (entry,)


def _songs_in(path: Path) -> Iterator[Path]:
    """The folder itself if it is a song, else (a split, a data set in its parent's folder) those of its sub-folders."""
    below = sub_folders(path)
    if any(map(is_audio, path.iterdir())):
        below = []
    stacked = any(canonical(entry.name) in STEM_NAMES for entry in below)
    splits = not stacked and any(entry.name.lower() in SPLITS for entry in (path, *below))
    if below and (splits or any(map(_looks_like_song, below))):
        for entry in below:
            yield from _songs_in(entry)
    else:
        yield path


def _looks_like_song(path: Path) -> bool:
    """Whether a folder holds files called after stems, and is not called after one itself."""
    if canonical(path.name) in STEM_NAMES:
        return False
    return any(canonical(file.stem) in {*STEM_NAMES, *MIXTURES} for file in path.iterdir() if is_audio(file))


def _metadata(path: Path) -> dict[str, Any]:
    """`song.json`, where there is one; metadata never decides whether a song can be read, so a bad file is no error."""
    try:
        loaded = read_json(path / "song.json")
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
