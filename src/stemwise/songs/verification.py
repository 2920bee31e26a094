"""Is a folder of songs fit to train on? Every file is read to its end: the answer is about sound, not headers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from stemwise.errors import SongError
from stemwise.songs.folder import Problem, header, scan
from stemwise.songs.song import Song

_BLOCK = 1 << 18
_SILENT = 10.0 ** (-80.0 / 20.0)
#: A gap between the sum of the stems and the mixture louder than this, relative to the mixture, is named.
_GAP_DB = -40.0


@dataclass(frozen=True)
class Report:
    """What `verify` found. `corrupt` breaks training and makes `ok` false; the other lists are for a person to judge.

    `rates` and `channels` count songs; `stems` counts the songs that have a stem, `missing` those that have not (silence
    to a training). `unequal`: stems shorter than their song (padded); `silent`: stems below -80 dBFS throughout; `gaps`:
    songs whose stems do not sum to their mixture, or whose mixture cannot be compared.
    """

    path: str
    songs: int
    hours: float
    rates: dict[int, int]
    channels: dict[int, int]
    stems: dict[str, int]
    missing: dict[str, int]
    corrupt: tuple[Problem, ...]
    unequal: tuple[Problem, ...]
    silent: tuple[Problem, ...]
    gaps: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether a training can use every song of the folder."""
        return self.songs > 0 and not self.corrupt

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        lists = {
            name: [{"song": problem.name, "reason": problem.reason} for problem in getattr(self, name)]
            for name in ("corrupt", "unequal", "silent", "gaps")
        }
        return {
            "format": 1,
            "path": self.path,
            "ok": self.ok,
            "songs": self.songs,
            "hours": round(self.hours, 4),
            "rates": {str(rate): count for rate, count in self.rates.items()},
            "channels": {str(channels): count for channels, count in self.channels.items()},
            "stems": self.stems,
            "missing": self.missing,
            **lists,
        }


@dataclass(frozen=True)
class _Findings:
    corrupt: tuple[str, ...] = ()
    unequal: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


def verify(path: Path | str) -> Report:
    """Read every song of a folder and report. Raises SongError only where the folder itself cannot be scanned."""
    scanned = scan(path)
    found = [(song, _listen(song)) for song in scanned.songs]

    def problems(kind: str) -> tuple[Problem, ...]:
        return tuple(Problem(song.name, reason) for song, findings in found for reason in getattr(findings, kind))

    names = sorted({name for song in scanned.songs for name in song.stems})
    having = {name: sum(name in song.stems for song in scanned.songs) for name in names}
    return Report(
        path=str(path),
        songs=len(scanned.songs),
        hours=sum(song.seconds for song in scanned.songs) / 3600,
        rates=dict(Counter(song.rate for song in scanned.songs)),
        channels=dict(Counter(song.channels for song in scanned.songs)),
        stems=having,
        missing={name: len(scanned.songs) - count for name, count in having.items() if count < len(scanned.songs)},
        corrupt=(*scanned.problems, *problems("corrupt")),
        unequal=problems("unequal"),
        silent=problems("silent"),
        gaps=problems("gaps"),
    )


def _listen(song: Song) -> _Findings:
    """Read a song to its end, block by block."""
    lengths = {name: max(header(file).frames for file in files) for name, files in song.stems.items()}
    short = [f"{name} is {(song.frames - frames) / song.rate:.3f} s shorter" for name, frames in lengths.items()]
    unequal = [line for line, frames in zip(short, lengths.values()) if frames != song.frames]
    try:
        for files in song.stems.values():
            for file in files:
                _decode(file)
        peaks = _peaks(song)
    except SongError as error:
        return _Findings(corrupt=(str(error),), unequal=tuple(unequal))
    silent = [f"{name} is silent (peak below -80 dBFS)" for name, peak in peaks.items() if peak < _SILENT]
    gap = _gap(song, song.mixture) if song.mixture else None
    return _Findings((), tuple(unequal), tuple(silent), (gap,) if gap else ())


def _decode(file: Path) -> None:
    """Decode a file whole. Raises SongError where it breaks off or holds samples that are not finite."""
    frames = 0
    try:
        with soundfile.SoundFile(file) as audio:
            promised = audio.frames
            for block in audio.blocks(_BLOCK, dtype="float32", always_2d=True):
                frames += len(block)
                if not np.isfinite(block).all():
                    raise SongError(f"{file.name} holds samples that are not finite; export it again")
    except (soundfile.LibsndfileError, OSError) as error:
        raise SongError(f"{file.name} breaks off after {frames} frames ({error}); copy it again") from error
    # A WAV whose data chunk promises more bytes than the file has is read up to its end without complaint.
    lost = _promised_wav_bytes(file) - file.stat().st_size if file.suffix.lower() == ".wav" else 0
    if frames < promised or lost > 1:
        raise SongError(f"{file.name} is cut short (it holds {frames} frames, its header promises more); copy it again")


def _promised_wav_bytes(file: Path) -> int:
    """Length of a RIFF file by its own header; 0 where that says nothing (RF64, streams of unknown length)."""
    with open(file, "rb") as handle:
        head = handle.read(8)
    size = int.from_bytes(head[4:8], "little")
    return size + 8 if head[:4] == b"RIFF" and size not in (0, 0xFFFFFFFF) else 0


def _peaks(song: Song) -> dict[str, float]:
    names = tuple(song.stems)
    peaks = np.zeros(len(names))
    for start in range(0, song.frames, _BLOCK):
        block = song.read(start, min(_BLOCK, song.frames - start), names)
        peaks = np.maximum(peaks, np.abs(block).max(axis=(1, 2)))
    return dict(zip(names, peaks.tolist()))


def _gap(song: Song, mixture: Path) -> str | None:
    """What is wrong between the sum of the stems and the mixture, if anything."""
    try:
        info = header(mixture)
        if info.samplerate != song.rate or info.channels > 2:
            return f"{mixture.name} has {info.samplerate} Hz and {info.channels} channels, the stems {song.rate} Hz"
        whole = Song(song.name, {"mixture": (mixture,)}, song.rate, info.frames, max(song.channels, info.channels))
        gap = total = 0.0
        for start in range(0, max(song.frames, info.frames), _BLOCK):
            heard = whole.read(start, _BLOCK, ("mixture",))[0]
            total += float(np.square(heard, dtype=np.float64).sum())
            made = song.read(start, _BLOCK, tuple(song.stems)).sum(axis=0)
            gap += float(np.square(made - heard, dtype=np.float64).sum())
    except SongError as error:
        return str(error)
    if gap <= total * 10.0 ** (_GAP_DB / 10.0):
        return None
    level = f"{10.0 * math.log10(gap / total):.0f} dB relative to it" if total > 0.0 else "all there is, it is silent"
    return f"the stems do not sum to {mixture.name}: the difference is {level}"
