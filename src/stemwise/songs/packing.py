"""Packing songs into shards that give back the same windows (see `shards` for what is written).

PCM of up to 24 bits becomes FLAC, which is lossless; FLAC, float and 32-bit files are copied byte for byte, but for the
length that a FLAC's header may lack. MP3 and Ogg are decoded to 24-bit FLAC (error at most 2**-23 of full scale), where a
random window costs a seek, as it does not in them; a file that exceeds full scale or is empty becomes float WAV instead.

A shard appears when it is complete: the tar is renamed into place, then its index. So a run that was killed is simply
started again, and N machines share the work by packing every N-th shard each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from stemwise.audio_io.folders import hidden_sibling, left_behind
from stemwise.audio_io.writing import SYSTEM_ERROR
from stemwise.errors import SongError
from stemwise.files import replace, sha256, write_atomically
from stemwise.songs.scanning import Problem
from stemwise.songs.shards import FORMAT, INDEX, read_index, read_shard, shard_name
from stemwise.songs.song import Song
from stemwise.songs.source import File, identity, lost_bytes, measured, opened, size
from stemwise.songs.streams import Stream

_BLOCK = 1 << 18
#: Subtypes that FLAC holds exactly, with the integers to carry them.
_EXACT = {
    "PCM_U8": ("PCM_16", "int16"), "PCM_S8": ("PCM_16", "int16"), "PCM_16": ("PCM_16", "int16"),
    "PCM_24": ("PCM_24", "int32"),
}  # fmt: skip
_LOSSY = ("MP3", "OGG")


@dataclass(frozen=True)
class Shard:
    """A finished shard: its number, whether it was written now (or found complete), songs, bytes, songs left out."""

    number: int
    written: bool
    songs: int
    bytes: int
    left_out: tuple[Problem, ...]


def pack(
    songs: Sequence[Song],
    out: Path | str,
    *,
    megabytes: int = 1000,
    part: tuple[int, int] = (1, 1),
    unreadable: Sequence[Problem] = (),
) -> Iterator[Shard]:
    """Pack songs into shards of about `megabytes` of source files each, and yield each shard that is complete.

    `part`: (i, n) makes the i-th of n parts (from 1): every n-th shard. Shards that are there are kept. A song that
    cannot be decoded is left out, and named in the shard; `unreadable` ones are named in the first shard. Raises SongError
    where the folder holds something else, another plan, or cannot be written.
    """
    root = Path(out)
    plan = _plan(songs, megabytes)
    digest = _digest(songs, plan)
    try:
        _open(root, {"format": FORMAT, "shards": len(plan), "songs": len(songs), "plan": digest})
        for number in range(part[0] - 1, len(plan), part[1]):
            members = [(place, songs[place]) for place in plan[number]]
            yield _shard(root, number, digest, members, () if number else unreadable)
    except OSError as error:
        raise SongError(
            f"{root}: cannot be written ({error.strerror or error}); free some space or choose another place, and run it again"
        ) from error


def _plan(songs: Sequence[Song], megabytes: int) -> list[list[int]]:
    """Which songs go into which shard: consecutive ones, as many as fit."""
    plan: list[list[int]] = []
    room = 0
    for place, song in enumerate(songs):
        needed = sum(size(file) for _, file, _ in _names(song))
        if not plan or needed > room:
            plan.append([])
            room = megabytes * 1_000_000
        plan[-1].append(place)
        room -= needed
    return plan


def _digest(songs: Sequence[Song], plan: list[list[int]]) -> str:
    """What all machines must agree on; where the songs are mounted is not part of it."""
    content = [
        [song.name, song.rate, song.frames, [[name, *identity(file)] for name, file, _ in _names(song)]]
        for song in songs
    ]
    return hashlib.sha256(json.dumps([content, [len(shard) for shard in plan]]).encode()).hexdigest()


def _open(root: Path, index: dict[str, Any]) -> None:
    """Make the folder and its index, or check that the ones there belong to the same songs."""
    root.mkdir(parents=True, exist_ok=True)
    if not (root / INDEX).exists():
        # by now the index may be there: another machine began in this moment
        if any(not entry.name.startswith((".", "shard-")) and entry.name != INDEX for entry in root.iterdir()):
            raise SongError(f"{root}: is not empty, and no packed data set; give a new folder")
        write_atomically(root / INDEX, _text(index))
    before = read_index(root)
    if before["plan"] != index["plan"]:
        raise SongError(
            f"{root}: holds {before['songs']} songs in {before['shards']} shards, packed from other songs or with another "
            f"--shard-size (now {index['songs']} songs in {index['shards']} shards); give a new folder, or empty this one"
        )


def _shard(root: Path, number: int, plan: str, songs: list[tuple[int, Song]], unreadable: Sequence[Problem]) -> Shard:
    try:
        done, written = read_shard(root, number, plan), False
    except SongError:
        done, written = _write_shard(root, number, plan, songs, unreadable), True
    left_out = tuple(Problem(entry["song"], entry["reason"]) for entry in done["left_out"])
    return Shard(number, written, len(done["songs"]), done["bytes"], left_out)


def _write_shard(
    root: Path, number: int, plan: str, songs: list[tuple[int, Song]], unreadable: Sequence[Problem]
) -> dict[str, Any]:
    tar = root / f"{shard_name(number)}.tar"
    scratch = hidden_sibling(root / shard_name(number), "partial")
    for left in left_behind(scratch):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    scratch.mkdir()
    entries: list[dict[str, Any]] = []
    left_out = [{"song": problem.name, "reason": problem.reason} for problem in unreadable]
    try:
        with tarfile.open(scratch / tar.name, "w", format=tarfile.USTAR_FORMAT) as archive:
            for place, song in songs:
                try:
                    entries.append(_add(archive, f"{place:06d}", song, scratch))
                except SongError as error:
                    left_out.append({"song": song.name, "reason": str(error)})
        with tarfile.open(scratch / tar.name) as archive:
            places = {info.name: [info.offset_data, info.size] for info in archive}
        for entry in entries:
            names = [*(name for files in entry["stems"].values() for name in files), entry["mixture"]]
            entry["files"] = {name: places[f"{entry['key']}.{name}"] for name in names if name}
        document = {
            "format": FORMAT,
            "plan": plan,
            "tar": tar.name,
            "bytes": (scratch / tar.name).stat().st_size,
            "sha256": sha256(scratch / tar.name),
            "songs": entries,
            "left_out": left_out,
        }
        (scratch / "json").write_bytes(_text(document))
        _settle(scratch / tar.name, tar)
        _settle(scratch / "json", tar.with_suffix(".json"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return document


def _add(archive: tarfile.TarFile, key: str, song: Song, scratch: Path) -> dict[str, Any]:
    """Add a song's files and its description, all or (where one of them cannot be decoded) none; the description."""
    stems: dict[str, list[str]] = {stem: [] for stem in song.stems}
    mixture = None
    encoded: list[Path] = []
    for stem, file, name in _names(song):
        encoded.append(_encode(file, scratch / name))
        if stem is None:
            mixture = encoded[-1].name
        else:
            stems[stem].append(encoded[-1].name)
    about = {
        "name": song.name,
        "rate": song.rate,
        "frames": song.frames,
        "channels": song.channels,
        "stems": stems,
        "mixture": mixture,
        "metadata": dict(song.metadata),
    }
    text = json.dumps(about, default=str)
    encoded.append(scratch / "json")
    encoded[-1].write_text(text, encoding="utf-8")
    for part in encoded:
        _add_file(archive, f"{key}.{part.name}", part)
        part.unlink()
    return {"key": key, **json.loads(text)}


def _add_file(archive: tarfile.TarFile, name: str, file: Path) -> None:
    """Owner and time are left out, so that the same songs make the same bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = file.stat().st_size, 0o644
    with file.open("rb") as content:
        archive.addfile(info, content)


def _names(song: Song) -> list[tuple[str | None, File, str]]:
    """Stem (None: the mixture), file, and the file's name in the shard without key and ending; no two names are equal."""
    taken: set[str] = {"json"}

    def name(stem: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:60]  # tar has room for 100 characters
        unique = next(n for n in (plain, *(f"{plain}-{k}" for k in range(2, len(taken) + 3))) if n not in taken)
        taken.add(unique)
        return unique

    found: list[tuple[str | None, File, str]] = []
    for stem, files in song.stems.items():
        base = name(stem)
        many = len(files) > 1
        found += [(stem, file, f"{base}.{number}" if many else base) for number, file in enumerate(files, 1)]
    if song.mixture is not None:
        found.append((None, song.mixture, name("mixture")))
    return found


def _encode(file: File, target: Path) -> Path:
    """Write a file as it goes into a shard, and return where: `target` with an ending.

    Raises SongError where it cannot be decoded, OSError where the result cannot be written.
    """
    if lost_bytes(file) > 1:
        raise SongError(f"{file.name}: is cut short, its header promises more; copy it again")
    try:
        with opened(file) as audio:
            if isinstance(file, Stream) or audio.format in _LOSSY:
                return _decoded(file, target)
            if audio.frames and audio.format != "FLAC" and audio.subtype in _EXACT:
                subtype, dtype = _EXACT[audio.subtype]
                flac = target.with_name(f"{target.name}.flac")
                _save(audio, _blocks(audio, dtype, file), flac, subtype)
                return flac
            for _ in _blocks(audio, "float32", file):
                pass  # decoded only to know that it can be
    except soundfile.LibsndfileError as error:
        raise SongError(f"{file.name}: breaks off or is no audio ({error}); copy it again") from error
    copied = target.with_name(f"{target.name}{file.suffix.lower()}")
    with measured(file) as content, copied.open("wb") as copy:
        shutil.copyfileobj(content, copy, _BLOCK)
    return copied


def _decoded(file: File, target: Path) -> Path:
    """Opened twice: MP3 decoded after a seek to its start differs in the last bits."""
    with opened(file) as audio:
        peaks = [float(np.abs(block).max()) for block in _blocks(audio, "float32", file)]
    # libsndfile cannot read a FLAC without frames
    ending, subtype = (".flac", "PCM_24") if peaks and max(peaks) <= 1.0 else (".wav", "FLOAT")
    target = target.with_name(f"{target.name}{ending}")
    with opened(file) as audio:
        _save(audio, _blocks(audio, "float32", file), target, subtype)
    return target


def _blocks(audio: Any, dtype: str, file: File) -> Iterator[np.ndarray]:
    """All blocks of an open file. Raises SongError where they are fewer than it promises."""
    frames = 0
    while len(block := audio.read(_BLOCK, dtype=dtype, always_2d=True)):
        frames += len(block)
        yield block
    if frames < audio.frames:
        raise SongError(f"{file.name}: is cut short ({frames} of {audio.frames} frames); copy it again")


def _save(audio: Any, blocks: Iterator[np.ndarray], target: Path, subtype: str) -> None:
    """Write blocks with the rate and channels of `audio`."""
    try:
        out = soundfile.SoundFile(target, "w", audio.samplerate, audio.channels, subtype)
    except soundfile.LibsndfileError as error:
        if error.code != SYSTEM_ERROR:
            raise
        raise OSError(f"{target.name}: no space left ({error})") from error
    with out:
        for block in blocks:
            try:
                out.write(block)
            except (soundfile.SoundFileError, AssertionError) as error:
                raise OSError(f"{target.name}: no space left, or too long ({error})") from error


def _text(document: dict[str, Any]) -> bytes:
    return (json.dumps(document) + "\n").encode()


def _settle(partial: Path, file: Path) -> None:
    """Rename a complete file into place, once it is on the disk."""
    with partial.open("rb") as handle:
        os.fsync(handle.fileno())
    replace(partial, file)
