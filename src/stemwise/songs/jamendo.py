"""MTG-Jamendo (Bogdanov et al., 2019): whole songs without stems, and tags, which become words for a prompt.

    <root>/00/7400.mp3 ... <root>/99/...        (`7400.low.mp3` in the audio of low quality)
    data/{autotagging.tsv, raw_30s.tsv, ..., splits/split-0/autotagging-train.tsv, ...}

Audio and tables come from different places: the tables are looked for in the root, in its `data/`, and beside it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemwise.errors import SongError
from stemwise.songs.scanning import SPLITS, Problem, Scan, assemble, collect, sub_folders, usable
from stemwise.songs.song import Song

LAYOUT = "jamendo"
_FILE = re.compile(r"(\d+)(\.low)?\.(mp3|flac|wav|ogg)")
_FOLDER = re.compile(r"\d\d")
#: Tables that hold every song, the cleanest tags first.
_TABLES = ("autotagging", "raw_30s_cleantags_50artists", "raw_30s_cleantags", "raw_30s", "raw")
#: Categories of tags in the order in which a person says them: a sad piano piece, calm jazz with flute.
_ORDER = ("mood/theme", "genre", "instrument")
#: Tags are written without blanks; these are the ones that people write otherwise.
_SPELT = {
    "acidjazz": "acid jazz", "acousticbassguitar": "acoustic bass guitar", "acousticguitar": "acoustic guitar",
    "alternativerock": "alternative rock", "bossanova": "bossa nova", "chillout": "chill-out",
    "classicalguitar": "classical guitar", "classicrock": "classic rock", "darkambient": "dark ambient",
    "darkwave": "dark wave", "deephouse": "deep house", "doublebass": "double bass", "drummachine": "drum machine",
    "drumnbass": "drum and bass", "easylistening": "easy listening", "edm": "electronic dance music",
    "electricguitar": "electric guitar", "electricpiano": "electric piano", "electropop": "electro pop",
    "ethno": "ethnic", "hardrock": "hard rock", "heavymetal": "heavy metal", "hiphop": "hip hop",
    "idm": "intelligent dance music", "instrumentalpop": "instrumental pop", "instrumentalrock": "instrumental rock",
    "jazzfunk": "jazz funk", "jazzfusion": "jazz fusion", "newage": "new age", "newwave": "new wave",
    "pipeorgan": "pipe organ", "popfolk": "pop folk", "poprock": "pop rock", "postrock": "post-rock",
    "punkrock": "punk rock", "rnb": "rhythm and blues", "rocknroll": "rock and roll",
    "singersongwriter": "singer-songwriter", "synthpop": "synth pop", "triphop": "trip hop",
    "worldfusion": "world fusion",
}  # fmt: skip


def jamendo(path: Path | str, fold: int = 0) -> list[Song]:
    """The songs of a copy of MTG-Jamendo, each a mixture without stems; a warning names unreadable ones.

    `metadata`: tags (as published), words (see `words`), artist and album (their ids), split (that of `fold`, 0 to 4).
    Raises SongError where no song is left.
    """
    return usable(path, scan(Path(path), fold))


def words(tags: Iterable[str]) -> tuple[str, ...]:
    """Words for a prompt from tags such as "mood/theme---calm": moods, then genres, then instruments, each once.

    >>> words(["instrument---electricguitar", "genre---hiphop", "mood/theme---calm"])
    ('calm', 'hip hop', 'electric guitar')
    """
    pairs = [tag.rpartition("---")[::2] for tag in tags]
    place = {category: number for number, category in enumerate(_ORDER)}
    ordered = sorted(pairs, key=lambda pair: place.get(pair[0], len(_ORDER)))
    return tuple(dict.fromkeys(_SPELT.get(tag, tag) for _, tag in ordered if tag))


def recognises(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, look like MTG-Jamendo."""
    return any(
        len(place.parts) > 1 and _FOLDER.fullmatch(place.parts[-2]) and _FILE.fullmatch(place.name) for place in places
    )


@dataclass(frozen=True)
class _Row:
    artist: str
    album: str
    tags: tuple[str, ...]


def scan(root: Path, fold: int = 0) -> Scan:
    """Read the headers of every file below `root` and the tables. A table's songs that are not there are counted."""
    audio = _audio(root)
    table, tables = _tables(root, audio[0].parent.parent if audio else root)
    rows = _read(table) if table else {}
    splits = _splits(tables, fold) if tables else {}

    def read(name: str, file: Path) -> Song:
        row = rows.get(name, _Row("", "", ()))
        metadata = {
            "tags": list(row.tags),
            "words": list(words(row.tags)),
            "artist": row.artist,
            "album": row.album,
            **({"split": splits[name]} if name in splits else {}),
        }
        return assemble(name, {}, file, metadata)

    numbered = {match[1]: file for file in audio if (match := _FILE.fullmatch(file.name))}
    found = collect(LAYOUT, sorted(numbered.items(), key=lambda item: int(item[0])), read)
    notes = []
    absent = len(rows.keys() - numbered.keys())
    if table is None:
        notes.append(Problem("tags", "no table (autotagging.tsv) here or in data/, so no song has words or a split"))
    elif absent:
        notes.append(Problem(table.name, f"{absent} of its {len(rows)} songs are not on this disk"))
    return Scan(found.songs, found.problems, LAYOUT, (*found.skipped, *notes))


def _audio(root: Path) -> list[Path]:
    """The audio files in folders 00 to 99 at the root, or one or two levels below it; or in one such folder."""
    if _FOLDER.fullmatch(root.resolve().name):
        return sorted(file for file in root.resolve().iterdir() if _FILE.fullmatch(file.name))
    level = [root]
    for _ in range(3):
        inside = [entry for folder in level for entry in sub_folders(folder)]
        ours = [entry for entry in inside if _FOLDER.fullmatch(entry.name)]
        if ours:
            return sorted(file for entry in ours for file in entry.iterdir() if _FILE.fullmatch(file.name))
        level = inside
    return []


def _tables(root: Path, audio: Path) -> tuple[Path | None, Path | None]:
    """The table of all songs, and the folder in which the tables lie; None where there are none."""
    near = dict.fromkeys((root, audio, root.resolve().parent, audio.resolve().parent))
    for folder in (place for base in near for place in (base / "data", base)):
        for name in _TABLES:
            if (folder / f"{name}.tsv").is_file():
                return folder / f"{name}.tsv", folder
        others = sorted(folder.glob("autotagging*.tsv"))
        if others:
            return others[0], folder
    return None, None


def _read(table: Path) -> dict[str, _Row]:
    """Rows by track number. Tags are the columns from the sixth on. Raises SongError where it is no such table."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            lines: Sequence[list[str]] = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SongError(f"{table}: is not a readable table ({error}); download it again") from error
    rows = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            rows[str(int(line[0].removeprefix("track_")))] = _Row(
                line[1], line[2], tuple(tag for tag in line[5:] if tag)
            )
        except (ValueError, IndexError) as error:
            raise SongError(
                f"{table}: line {number} is no row of MTG-Jamendo (TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION, TAGS "
                "between tabs); download the table again"
            ) from error
    return rows


def _splits(tables: Path, fold: int) -> dict[str, str]:
    """The split of each track number, from `splits/split-<fold>/*-{train,validation,test}.tsv`."""
    found: dict[str, str] = {}
    files = sorted((tables / "splits" / f"split-{fold}").glob("*.tsv"), key=lambda file: len(file.name))
    for file in files:
        split = SPLITS.get(file.stem.rpartition("-")[2].lower())
        if split:
            for name in _read(file):
                found.setdefault(name, split)
    return found
