"""CocoChorales (Wu et al., 2022): synthesised four-part chorales of four ensembles, 16 kHz mono.

    main_dataset/train/<shard>/string_track000001/{metadata.yaml, mix.wav, stems_audio/0_violin.wav, ...}

with or without the folder of the shard. A stem is called by its voice and instrument, `0_violin`: an ensemble may have
two of one instrument. One rule leaves songs out: the four voices are one performance, so a song whose voices differ in
length is not aligned. In the published version this is `string_track001353` alone.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from stemwise.errors import SongError
from stemwise.songs.scanning import (
    Problem,
    Scan,
    Skip,
    assemble,
    collect,
    existing,
    folders,
    header,
    is_audio,
    split_above,
    usable,
)
from stemwise.songs.song import Song

LAYOUT = "cocochorales"
ENSEMBLES = ("string", "brass", "woodwind", "random")
_TRACK = re.compile(rf"({'|'.join(ENSEMBLES)})_track(\d{{6}})")
_ARCHIVE = re.compile(r"\d+\.tar(\.bz2|\.gz)?")
_VOICE = re.compile(r"\d+_.+")
_VOICES = 4
#: Last track of the training and of the validation songs, whatever the ensemble (the data set's format description).
_LAST_TRAIN, _LAST_VALIDATION = 192_000, 216_000


def cocochorales(path: Path | str) -> list[Song]:
    """The songs of a copy of CocoChorales, or of some of its shards; a warning names unreadable ones.

    `metadata`: split (by the number, as published), style (the ensemble), instruments (by stem), midi. Raises SongError
    where no song is left.
    """
    return usable(path, scan(Path(path)))


def recognises(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, look like CocoChorales."""
    return any(_TRACK.fullmatch(part) for place in places for part in place.parts) or any(
        _ARCHIVE.fullmatch(place.name) and {"train", "valid", "test"} & set(place.parts) for place in places
    )


def scan(root: Path) -> Scan:
    """Read the headers of every track below `root`; archives that were not unpacked are problems."""
    tracks = list(folders(root, lambda folder: _TRACK.fullmatch(folder.name) is not None))
    found = collect(LAYOUT, ((track.name, track) for track in tracks), lambda _, track: _song(track, root))
    there = {track.name for track in tracks}
    packed = [problem for file in sorted(root.glob("**/*.tar*")) if (problem := _packed(file, there)) is not None]
    return Scan(found.songs, (*found.problems, *packed), LAYOUT, found.skipped)


def _song(track: Path, root: Path) -> Song:
    match = _TRACK.fullmatch(track.name)
    assert match is not None
    audio = track / "stems_audio"
    voices = (
        sorted(file for file in audio.iterdir() if is_audio(file) and _VOICE.fullmatch(file.stem))
        if audio.is_dir()
        else []
    )
    if len(voices) < _VOICES:
        raise SongError(f"has {len(voices)} of its {_VOICES} voices in stems_audio; download its shard again")
    frames = {voice.stem: header(voice).frames for voice in voices}
    if len(set(frames.values())) > 1:
        lengths = ", ".join(f"{voice} {count}" for voice, count in frames.items())
        raise Skip(f"its voices differ in length, so they are not one performance ({lengths} frames)")
    number = int(match[2])
    by_number = "train" if number <= _LAST_TRAIN else "validation" if number <= _LAST_VALIDATION else "test"
    midi = track / "mix.mid"
    metadata = {
        **(split_above(track, root) or {"split": by_number}),
        "style": match[1],
        "instruments": {voice.stem: [voice.stem.partition("_")[2]] for voice in voices},
        **({"midi": str(midi)} if midi.is_file() else {}),
    }
    return assemble(track.name, {voice.stem: (voice,) for voice in voices}, existing(track, "mix"), metadata)


def _packed(archive: Path, there: set[str]) -> Problem | None:
    """What is wrong with a shard's archive, if anything: it must be unpacked, which its first track tells."""
    try:
        with tarfile.open(archive, "r|*") as members:
            names = (match[0] for member in members if (match := _TRACK.search(member.name)))
            first = next(names, None)
    except (tarfile.TarError, EOFError, OSError) as error:
        return Problem(archive.name, f"is not a whole archive ({error}); download it again")
    if first is None or first in there:
        return None
    return Problem(archive.name, f"is not unpacked ({first} is not there); run: tar -xf {archive.name}")
