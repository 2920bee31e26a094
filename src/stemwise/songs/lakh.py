"""MIDI collections: the Lakh MIDI data set (Raffel, 2016) in its three forms, and any tree of MIDI files (POP909, ...).

    lmd_full/0/0a1b...f.mid        lmd_matched/A/B/C/TRABC.../0a1b...f.mid        clean_midi/Artist/Title.1.mid

MIDI files have no stems of sound, so the reader gives `MidiSong`s, not `Song`s. What belongs to one song stays on one
side of a split: files in the folder of one matched recording (TR...) or of one track of Slakh (its parts), and numbered
versions of one title, in one folder or in its `versions` (POP909). The same file under two names (Lakh's names are the MD5
sums of the contents) is one song, and so are two recordings that it was matched with.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from stemwise.errors import SongError
from stemwise.songs.scanning import MidiSong, Problem, Scan, split_above
from stemwise.songs.splits import by_name, title

LAYOUT = "lakh"
SUFFIXES = (".mid", ".midi")
_MD5 = re.compile(r"[0-9a-f]{32}")
#: Folders of one song: a recording of lmd_matched, a track of Slakh.
_RECORDING = re.compile(r"TR[A-Z0-9]{16}|Track\d{5}")
_VERSIONS = "versions"
CHAIN = 100
"""Files of one song, beyond which, and beyond 1 % of all, they are no song's but a chain of false matches: for training."""


def lakh(
    path: Path | str,
    seed: int = 0,
    left_out: Callable[[Problem], object] | None = None,
    suffixes: Collection[str] = SUFFIXES,
) -> list[MidiSong]:
    """The MIDI files below a folder, each content once, in the order of their paths.

    `metadata`: song (the recording, the title or the content; of those that share a content, the first name), split (that
    of a folder above, as of audio, else drawn by a hash of the seed and the song). `left_out` hears of every file that is
    none, or is another again; of files without one of the `suffixes` nobody hears. Raises SongError where there is no
    MIDI file.
    """
    root = Path(path)
    if not root.is_dir():
        raise SongError(f"{root}: is no folder; give one that holds MIDI files (.mid)")
    found = scan(root, seed, suffixes)
    if not found.midi:
        raise SongError(f"{root}: has no MIDI file that can be read (.mid) at any depth; unpack the archive here")
    if left_out is not None:
        for problem in (*found.problems, *found.skipped):
            left_out(problem)
    return list(found.midi)


def recognises(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, look like a collection of MIDI files."""
    return any(place.suffix.lower() in SUFFIXES for place in places)


def scan(root: Path, seed: int = 0, suffixes: Collection[str] = SUFFIXES) -> Scan:
    """Every MIDI file below `root`, by its first bytes; no file is parsed (`verify` does that)."""
    found: list[tuple[str, Path, str]] = []
    held: list[tuple[str, str]] = []
    problems: list[Problem] = []
    skipped: list[Problem] = []
    first: dict[str, str] = {}
    splits = {file: split_above(file, root).get("split") for file in _files(root, suffixes)}
    for file in sorted(splits, key=lambda file: splits[file] == "omitted"):  # last: its copies elsewhere stay
        name = file.relative_to(root).with_suffix("").as_posix()
        try:
            content = _content(file)
        except (SongError, OSError) as error:
            problems.append(Problem(name, str(error)))
            continue
        song = _song(file, root, content)
        held.append((content, song))
        same = first.setdefault(content, name)
        if same != name:
            skipped.append(Problem(name, f"is the same file as {same}"))
        else:
            found.append((name, file, song))
    one = _united(held)
    files = Counter(one[song] for _, _, song in found)
    drawn = {
        song: "train" if most > max(CHAIN, len(found) // 100) else by_name(song, seed) for song, most in files.items()
    }
    published: dict[str, set[str]] = {}
    for _, file, song in found:
        if (split := splits[file]) not in (None, "omitted"):
            published.setdefault(one[song], set()).add(split)
    # a song's other files go where those of it are that lie in a split; where these are in several, nowhere
    drawn |= {song: min(its) if len(its) == 1 else "omitted" for song, its in published.items()}
    songs = tuple(
        MidiSong(name, file, {"song": one[song], "split": splits[file] or drawn[one[song]]})
        for name, file, song in sorted(found, key=lambda entry: entry[1])
    )
    return Scan((), tuple(problems), LAYOUT, tuple(skipped), songs)


def _united(held: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each song of these (content, song) the first name of all that share a content, directly or through others."""
    above: dict[str, str] = {}
    holder: dict[str, str] = {}

    def top(song: str) -> str:
        while above.setdefault(song, song) != song:
            above[song] = song = above[above[song]]
        return song

    for content, song in held:
        one, other = top(song), top(holder.setdefault(content, song))
        above[max(one, other)] = min(one, other)
    return {song: top(song) for song in list(above)}


def _files(root: Path, suffixes: Collection[str]) -> list[Path]:
    found = []
    for folder, _, names in os.walk(root):
        files = (Path(folder, name) for name in names if name[0] != ".")
        found += [file for file in files if file.suffix.lower() in suffixes]
    return sorted(found)


def _content(file: Path) -> str:
    """The MD5 sum of a MIDI file: its name, in Lakh. Raises SongError where it is no MIDI file."""
    with file.open("rb") as handle:
        head = handle.read(4)
        if head != b"MThd":
            found = {b"": "empty", b"RIFF": "wrapped in RIFF; unwrap it"}.get(head, "it starts otherwise")
            raise SongError(f"{file.name} is no MIDI file ({found}); remove it")
        if _MD5.fullmatch(file.stem):
            return file.stem
        return hashlib.md5(head + handle.read(), usedforsecurity=False).hexdigest()


def _song(file: Path, root: Path, content: str) -> str:
    parents = file.relative_to(root).parent
    recording = next((part for part in reversed(parents.parts) if _RECORDING.fullmatch(part)), None)
    if recording or _MD5.fullmatch(file.stem):
        return recording or content
    if parents.name == _VERSIONS:
        parents = parents.parent
    return (parents / title(file.stem)).as_posix()
