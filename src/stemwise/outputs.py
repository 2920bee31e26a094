"""Output folders: stems, often their mix, and `manifest.json`, which says what they are. Written here, read back here.

    separated/band/song/   bass.wav drums.wav guitar.wav piano.wav other.wav manifest.json

The manifest, not the file names, says which file is which stem; a folder without one is read by its file names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stemwise import __version__
from stemwise.audio_io import (
    AUDIO_SUFFIXES,
    FLOAT_WAV,
    AudioSource,
    Encoding,
    StemWriter,
    Written,
    open_audio,
    read_audio,
)
from stemwise.audio_io.mpeg import bit_rate
from stemwise.audio_io.writing import is_file_name
from stemwise.errors import AudioFileError
from stemwise.files import digest, read_json, sha256
from stemwise.songs.folder import is_sum
from stemwise.stems import Audio
from stemwise.symbolic.midi import is_midi

FORMAT = 1
MANIFEST = "manifest.json"
MIX = "mix"
#: What a manifest says it is of, where its stems are tracks of a MIDI file.
MIDI = "midi"
#: File names (without ending) that hold the sum of the stems in a folder without a manifest.
MIX_NAMES = (MIX, "mixture")
SILENT_DBFS = -300.0
_BLOCK = 1 << 18
#: How far below the mix (dB) what its stems lack must lie: rounding is, an instrument is not. Of files that are not lossless,
#: each has lost something else (MP3 at 32 kbit/s: 16 dB); and below _UNHEARD dBFS it is the rounding of 16 bits.
_APART, _APART_LOSSY = -40.0, -12.0
_UNHEARD = -70.0
_LOSSLESS = frozenset({".wav", ".flac", ".aif", ".aiff", ".aifc", ".au", ".caf", ".rf64", ".w64"})


@dataclass(frozen=True)
class Made:
    """What a verb did, for the manifest.

    Attributes:
        verb: separate, generate, accompany or edit.
        model: its name.
        inputs: what was heard; a part's name ("mix" or a stem) to the file or folder it came from.
        seed: of the random numbers.
        parameters: the options that shaped the result, plain values.
        facts: measured figures, such as null_test_dbfs, unassigned_energy_share, elapsed_seconds.
    """

    verb: str
    model: str
    inputs: Mapping[str, Path]
    seed: int
    parameters: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StemFolder:
    """A folder of stems on disk: file of each stem, file of their mix where there is one, and the manifest if any; or where
    there is none, the audio files that nobody knows.
    """

    folder: Path
    stems: Mapping[str, Path]
    mix: Path | None
    manifest: Mapping[str, Any] | None
    unknown: Sequence[Path] = ()


def write_stems(
    folder: Path, audio: Audio, how: Encoding = FLOAT_WAV, extra: Mapping[str, np.ndarray] | None = None
) -> Written:
    """Write the first item of an `Audio` as one file a stem, and `extra` signals (channels, frames) of the same length.

    All files share one gain: 0 dB unless the encoding is bounded and a sample exceeds full scale.
    """
    signals = [audio.data[0, i].detach().cpu().numpy() for i in range(len(audio))]
    extra = extra or {}
    signals += [np.asarray(signal, np.float32) for signal in extra.values()]
    channels = signals[0].shape[0]
    names = [*audio.names, *extra]
    with StemWriter(folder, names, audio.rate, channels, how, audio.frames) as writer:
        for start in range(0, audio.frames, _BLOCK):
            writer.write(np.stack([signal[:, start : start + _BLOCK] for signal in signals]))
        return writer.close()


def write_sums(folder: Path, sums: Mapping[str, Sequence[Path]], how: Encoding = FLOAT_WAV) -> Written:
    """Write, block by block, one file for each name: the sum of its audio files. All of one rate, length and channels.

    All files share one gain, as in `write_stems`. Raises AudioFileError.
    """
    with ExitStack() as stack:
        opened = {name: [stack.enter_context(open_audio(file)) for file in files] for name, files in sums.items()}
        every = [source for sources in opened.values() for source in sources]
        first = every[0]
        for source in every:
            _check_alike(first, source)
        writer = stack.enter_context(StemWriter(folder, list(sums), first.rate, first.channels, how, first.frames))
        for blocks in zip(*(source.blocks(_BLOCK) for source in every), strict=True):
            each = iter(blocks)
            writer.write(
                np.stack([np.sum([next(each) for _ in files], axis=0, dtype=np.float64) for files in sums.values()])
            )
        return writer.close()


def finish(folder: Path, made: Made, files: Mapping[str, Path], how: Encoding = FLOAT_WAV) -> dict[str, Any]:
    """Measure and hash the files of a folder that is being made and put the manifest beside them; returns it.

    `files` maps stem names, and "mix" for their sum, to files in `folder`.
    """
    measured = {name: _measure(file, folder) for name, file in files.items()}
    first = next(iter(files.values()))
    with open_audio(first) as source:
        rate, channels, frames = source.rate, source.channels, source.frames
    document = {
        "rate": rate,
        "channels": channels,
        "frames": frames,
        "seconds": round(frames / rate, 3),
        "stems": {name: facts for name, facts in measured.items() if name != MIX},
        "mix": measured.get(MIX),
        "encoding": {
            "extension": how.extension,
            "subtype": how.subtype,
            **({"bitrate": bit_rate(first)} if how.bitrate else {}),
        },
    }
    return _write_manifest(made, document, folder)


def finish_files(folder: Path, made: Made, stems: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put a manifest beside files that are not audio; returns it. `stems`: what is known of each, with its `file`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    document = {
        "kind": MIDI,
        "stems": {name: dict(facts) for name, facts in stems.items()},
        "mix": None,
        "files": {file.relative_to(folder).as_posix(): sha256(file) for file in files},
    }
    return _write_manifest(made, document, folder)


def describe_input(path: Path) -> dict[str, Any]:
    """Name, hash and shape of what went in: a file, or a folder of stems (hash over its files' hashes, by name)."""
    if path.is_dir():
        return {"folder": path.name, "sha256": digest(path, _audio_files(path))}
    if is_midi(path):
        return {"file": path.name, "sha256": sha256(path)}
    with open_audio(path) as source:
        return {
            "file": path.name,
            "sha256": sha256(path),
            "rate": source.rate,
            "channels": source.channels,
            "frames": source.frames,
        }


def state_of_inputs(made: Made) -> dict[Path, tuple[int, int]]:
    """Size and time of change of every file that went in: tells that one was replaced, or is still being written."""
    files = [file for path in made.inputs.values() for file in (_audio_files(path) if path.is_dir() else [path])]
    states = {file: file.stat() for file in files if file.is_file()}
    return {file: (state.st_size, state.st_mtime_ns) for file, state in states.items()}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is none. Raises AudioFileError if it cannot be understood."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        document = read_json(file)
    except (OSError, ValueError) as error:
        raise AudioFileError(
            f"{file}: not readable as JSON ({error}). Delete it: stems are then read by file name."
        ) from error
    if (
        not isinstance(document, dict)
        or document.get("format") != FORMAT
        or not isinstance(document.get("stems"), dict)
    ):
        found = document.get("format") if isinstance(document, dict) else None
        raise AudioFileError(
            f"{file}: format {found!r} is not one that this version reads ({FORMAT}). Update stemwise, or delete the "
            "file: the stems are then read by file name."
        )
    named = [*document["stems"].values(), *([document["mix"]] if document.get("mix") else [])]
    if not named and document.get("kind") != MIDI:
        raise AudioFileError(f"{file}: names neither stems nor a mix. Make the folder again, or delete the file.")
    if not all(isinstance(facts, dict) and isinstance(facts.get("file"), str) for facts in named):
        raise AudioFileError(
            f"{file}: does not say of each stem which file it is. Make the folder again, or delete it."
        )
    inputs, files = document.get("inputs", {}), document.get("files", {})
    if not (isinstance(files, dict) and isinstance(inputs, dict) and all(isinstance(x, dict) for x in inputs.values())):
        raise AudioFileError(f"{file}: its inputs or files are damaged. Make the folder again, or delete the file.")
    return document


def read_folder(folder: Path, known: Collection[str]) -> StemFolder:
    """The stems in a folder: by its manifest, else by file names, of which those in `known` and mix names count.

    Raises AudioFileError if there is neither stem nor mix, a file that the manifest names is missing, a name would lead out
    of an output folder, or two files are the same stem.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        for name in manifest["stems"]:
            if name.startswith(".") or not is_file_name(name):  # outputs are named after it
                raise AudioFileError(f"{folder / MANIFEST}: {name!r} cannot be the name of a stem. Do not use it.")
        stems = {name: _inside(folder, facts) for name, facts in manifest["stems"].items()}
        mix = _inside(folder, manifest["mix"]) if manifest.get("mix") else None
        return StemFolder(folder, stems, mix, manifest)
    audio: dict[str, Path] = {}
    for file in _audio_files(folder):
        name = file.stem.lower()
        other = audio.setdefault(name, file)
        if other != file and (name in known or name in MIX_NAMES):
            raise AudioFileError(
                f"{folder}: {other.name} and {file.name} are both the {name}. Move one of them elsewhere."
            )
    stems = {name: audio[name] for name in known if name in audio}
    mix = next((audio[name] for name in MIX_NAMES if name in audio), None)
    if not stems and mix is None:
        raise AudioFileError(
            f"{folder}: no stems in this folder. Expected a {MANIFEST}, or files named after stems "
            f"({', '.join(f'{name}.wav' for name in known)}) or mix.wav."
        )
    unknown = [file for name, file in audio.items() if name not in stems and name not in MIX_NAMES and not is_sum(name)]
    return StemFolder(folder, stems, mix, None, unknown)


def is_stem_folder(folder: Path, known: Collection[str]) -> bool:
    """Whether a folder is one song rather than many: it has a manifest, a mix, or several stems and less of anything else."""
    if (folder / MANIFEST).is_file():
        return True
    names = [name for file in _audio_files(folder) if not is_sum(name := file.stem.lower())]
    stems = set(names) & set(known)
    return any(name in MIX_NAMES for name in names) or (len(stems) > 1 and 2 * len(stems) > len(names))


def load_stems(found: StemFolder) -> Audio:
    """The stems of a folder in memory, under their slots' names (a new `guitar'` is a guitar to the next verb).

    Raises AudioFileError where they differ in rate, channels or length, or two share a name.
    """
    import torch

    if not found.stems:
        raise AudioFileError(f"{found.folder}: only a mix, no stems. Separate it first.")
    slots = stem_slots(found)
    opened = {}
    for name, file in slots.items():
        opened[name] = read_audio(file)
    shapes = {(rate, *signal.shape) for signal, rate in opened.values()}
    if len(shapes) > 1:
        said = ", ".join(f"{name} {s.shape[1]} frames of {s.shape[0]} at {r} Hz" for name, (s, r) in opened.items())
        raise AudioFileError(f"{found.folder}: its stems differ in rate, channels or length ({said}). Make them alike.")
    stems = torch.stack([torch.from_numpy(signal) for signal, _ in opened.values()])
    return Audio(tuple(opened), stems[None], next(iter(shapes))[0])


def load_song(found: StemFolder) -> Audio:
    """As `load_stems`, with the folder's mix as it is, bit for bit, where it has one.

    Raises AudioFileError also where the mix is not the sum of the stems: what they lack would be lost.
    """
    import torch

    stems = load_stems(found)
    if found.mix is None:
        return stems
    mix, rate = read_audio(found.mix)
    remedy = (
        f"Give {found.mix.name} alone, as a file, to have it separated; or move it elsewhere and edit the stems alone."
    )
    if (rate, *mix.shape) != (stems.rate, *stems.data.shape[2:]):
        raise AudioFileError(f"{found.mix}: differs from the stems beside it in rate, channels or length. {remedy}")
    lacking = _rms_dbfs(mix - stems.mix()[0].numpy())
    lossy = any(file.suffix.lower() not in _LOSSLESS for file in (found.mix, *found.stems.values()))
    if lacking > max(_UNHEARD, _rms_dbfs(mix) + (_APART_LOSSY if lossy else _APART)):
        raise AudioFileError(
            f"{found.mix}: holds more than the stems beside it, {', '.join(stems.names)}, which would be lost. {remedy}"
        )
    return replace(stems, mixture=torch.from_numpy(mix)[None])


def stem_slots(found: StemFolder) -> dict[str, Path]:
    """Files by slot: the primes that mark new content are dropped. Raises AudioFileError where two coincide."""
    slots: dict[str, Path] = {}
    for name, file in found.stems.items():
        slot = name.rstrip("'")
        if slot in slots:
            raise AudioFileError(f"{found.folder}: two stems are named {slot}. Keep one of them.")
        slots[slot] = file
    return slots


def put_mixture(found: StemFolder, scratch: Path) -> Path:
    """The file with a folder's mixture: its mix, or the sum of all in it that is no sum itself, written as `scratch` (a WAV)."""
    if found.mix is not None:
        return found.mix
    return write_sums(scratch.parent, {scratch.stem: [*found.stems.values(), *found.unknown]}).paths[scratch.stem]


def model_digest(folder: Path) -> str:
    """What tells a model folder from others of its name: the hex digest of its weights and configurations."""
    return digest(folder, [*folder.rglob("*.safetensors"), *folder.rglob("*.json")])


def _write_manifest(made: Made, found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """How the folder was made, around what was found in it; returns the manifest."""
    document = {
        "format": FORMAT,
        "stemwise": __version__,
        "verb": made.verb,
        "model": made.model,
        "inputs": {part: describe_input(path) for part, path in made.inputs.items()},
        **found,
        "seed": made.seed,
        "parameters": dict(made.parameters),
        **made.facts,
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    # Names of files may hold bytes that are no text; what replaces them is how JSON writes such characters.
    (folder / MANIFEST).write_text(text, encoding="utf-8", errors="backslashreplace")
    return document


def _measure(file: Path, folder: Path) -> dict[str, Any]:
    peak, energy, count = 0.0, 0.0, 0
    with open_audio(file) as source:
        for block in source.blocks(_BLOCK):
            peak = max(peak, float(np.abs(block).max()))
            energy += float(np.square(block, dtype=np.float64).sum())
            count += block.size
    rms = math.sqrt(energy / count) if count else 0.0
    return {
        "file": file.relative_to(folder).as_posix(),
        "sha256": sha256(file),
        "peak_dbfs": _dbfs(peak),
        "rms_dbfs": _dbfs(rms),
    }


def _dbfs(amplitude: float) -> float:
    return round(max(SILENT_DBFS, 20 * math.log10(amplitude)), 2) if amplitude > 0 else SILENT_DBFS


def _rms_dbfs(signal: np.ndarray) -> float:
    return _dbfs(math.sqrt(np.square(signal, dtype=np.float64).mean()))


def _inside(folder: Path, facts: Mapping[str, Any]) -> Path:
    """The file that a manifest names, which must lie in its folder."""
    name = str(facts["file"])
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise AudioFileError(f"{folder / MANIFEST}: names a file outside its folder ({name!r}). Do not use it.")
    file = folder / name
    if not file.is_file():
        raise AudioFileError(f"{file}: named in {MANIFEST}, but missing. Make the folder again, or delete {MANIFEST}.")
    return file


def _audio_files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.suffix.lower() in AUDIO_SUFFIXES:
            yield file


def _check_alike(first: AudioSource, other: AudioSource) -> None:
    if (first.rate, first.channels, first.frames) != (other.rate, other.channels, other.frames):
        raise AudioFileError(
            f"{other.info.path}: {other.frames} frames of {other.channels} channels at {other.rate} Hz, but "
            f"{first.info.path.name} has {first.frames} of {first.channels} at {first.rate} Hz. Make them alike."
        )
