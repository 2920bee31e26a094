"""Slakh2100 (Manilow et al., WASPAA 2019): synthesised songs with every instrument of the MIDI file on its own.

Three forms of it are read: the data set itself (any of its splits, FLAC or converted to WAV, at 44.1 or 16 kHz)

    train/Track00001/{metadata.yaml, mix.flac, all_src.mid, stems/S00.flac, ..., MIDI/S00.mid, ...}

and the four-stem derivative of MSDM (Mariani et al., ICLR 2024) at 22.05 kHz, linked together or as its archives unpack:

    train/Track00001/{bass,drums,guitar,piano}.wav        bass_22050/train/Track00001.wav

Instruments of one class are one stem (`guitar`, `chromatic_percussion`); `grouping.leaves` takes them apart again. What
was not rendered (`audio_rendered: false`) is left out, as the mixture lacks it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stemwise.errors import SongError
from stemwise.songs.scanning import Scan, assemble, collect, existing, folders, split_above, sub_folders, usable
from stemwise.songs.song import Song

LAYOUT = "slakh"
#: The stems of MSDM's derivative, in the order of its tensors.
MSDM_STEMS = ("bass", "drums", "guitar", "piano")
#: Classes of General MIDI, eight programs each, as Slakh spells them.
CLASSES = (
    "piano", "chromatic_percussion", "organ", "guitar", "bass", "strings", "strings", "brass", "reed", "pipe",
    "synth_lead", "synth_pad", "synth_effects", "ethnic", "percussive", "sound_effects",
)  # fmt: skip
#: Last track of the original numbering's training and validation songs, for a copy without split folders.
_LAST_TRAIN, _LAST_VALIDATION = 1500, 1875
_TRACK = re.compile(r"Track\d{5}")
_DERIVED = re.compile(rf"({'|'.join(MSDM_STEMS)})_22050")


def slakh(path: Path | str) -> list[Song]:
    """The songs of a copy of Slakh2100 or of MSDM's derivative, by number; a warning names unreadable ones.

    `metadata`: split (also `omitted`, the duplicates of the redux), uuid (the Lakh file), midi (the source of all
    instruments), instruments (program names by stem, one for each of its files), programs (the numbers, likewise).
    Raises SongError where no song is left.
    """
    return usable(path, scan(Path(path)))


def recognises(places: list[Path]) -> bool:
    """Whether these paths, relative to a data set's root, look like Slakh."""
    return any(_TRACK.fullmatch(part.split(".")[0]) for place in places for part in place.parts[-2:]) and any(
        place.name == "metadata.yaml" or place.stem in MSDM_STEMS or _DERIVED.fullmatch(place.parts[0])
        for place in places
    )


def scan(root: Path) -> Scan:
    """Read the headers and metadata of every track below `root`."""
    derived = [entry for entry in sub_folders(root) if _DERIVED.fullmatch(entry.name)]
    if derived:
        return _archives(root, derived)
    tracks = folders(root, lambda folder: _TRACK.fullmatch(folder.name) is not None)
    return collect(LAYOUT, ((track.name, track) for track in tracks), lambda _, track: _song(track, root))


def _song(track: Path, root: Path) -> Song:
    where = split_above(track, root) or {"split": _original_split(track.name)}
    four = {name: (file,) for name in MSDM_STEMS if (file := existing(track, name)) is not None}
    if four and not (track / "stems").is_dir():
        return assemble(track.name, four, existing(track, "mix") or existing(track, "mixture"), where)
    about = _metadata(track / "metadata.yaml")
    stems: dict[str, list[Path]] = {}
    instruments: dict[str, list[str]] = {}
    programs: dict[str, list[Any]] = {}
    for source, entry in sorted(about["stems"].items(), key=lambda item: str(item[0])):
        if not isinstance(entry, Mapping) or not entry.get("audio_rendered", True):
            continue
        file = existing(track / "stems", str(source))
        if file is None:
            raise SongError(f"stems/{source}.flac is missing; download or copy the track again")
        name = stem_name(entry)
        stems.setdefault(name, []).append(file)
        instruments.setdefault(name, []).append(str(entry.get("midi_program_name", name)))
        programs.setdefault(name, []).append(entry.get("program_num"))
    if not stems:
        raise SongError("metadata.yaml names no rendered stem; download the track again")
    midi = track / "all_src.mid"
    found = {
        **where,
        "uuid": str(about.get("UUID", "")),
        "instruments": instruments,
        "programs": programs,
        **({"midi": str(midi)} if midi.is_file() else {}),
    }
    merged = {name: tuple(files) for name, files in sorted(stems.items())}
    return assemble(track.name, merged, existing(track, "mix"), found)


def stem_name(entry: Mapping[str, Any]) -> str:
    """The stem of one source of `metadata.yaml`: its instrument class, or that of its program number (0-based)."""
    if entry.get("is_drum") is True:
        return "drums"
    kind = re.sub(r"\(.*?\)", "", str(entry.get("inst_class") or "")).strip().lower()
    if kind:
        return re.sub(r"\W+", "_", kind)
    program = entry.get("program_num")
    if isinstance(program, int) and 0 <= program <= 128:
        return CLASSES[program // 8] if program < 128 else "drums"
    return "other"


def _metadata(file: Path) -> Mapping[str, Any]:
    try:
        # The C loader is ten times faster, and present wherever PyYAML came as a wheel.
        found = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise SongError(f"{file.name} is missing, so its stems have no names; download the track again") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise SongError(f"{file.name} is damaged{line}; download the track again") from error
    if not isinstance(found, dict) or not isinstance(found.get("stems"), dict):
        raise SongError(f"{file.name} has no list of stems; download the track again")
    return found


def _original_split(track: str) -> str:
    number = int(track[len("Track") :])
    return "train" if number <= _LAST_TRAIN else "validation" if number <= _LAST_VALIDATION else "test"


def _archives(root: Path, derived: list[Path]) -> Scan:
    """MSDM's derivative as its four archives unpack: a folder for each stem, the tracks by split inside."""
    tracks: dict[Path, dict[str, tuple[Path, ...]]] = {}
    for entry in derived:
        for file in sorted(entry.rglob("Track*.wav")):
            place = file.relative_to(entry).with_suffix("")
            tracks.setdefault(place, {})[entry.name.removesuffix("_22050")] = (file,)

    def read(name: str, place: Path) -> Song:
        where = split_above(root / place, root) or {"split": _original_split(name)}
        return assemble(name, dict(sorted(tracks[place].items())), None, where)

    return collect(LAYOUT, ((place.name, place) for place in sorted(tracks)), read)
