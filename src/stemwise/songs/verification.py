"""Is a data set fit to train on? Every file is read to its end, once: the answer is about sound, not headers."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile

from stemwise.errors import SongError
from stemwise.extras import needed
from stemwise.songs import shards
from stemwise.songs.layouts import scan_any
from stemwise.songs.scanning import MidiSong, Problem, Scan, header
from stemwise.songs.song import Song
from stemwise.songs.source import File, lost_bytes, opened

_BLOCK = 1 << 18
_SILENT = 10.0 ** (-80.0 / 20.0)
#: A gap between the sum of the stems and the mixture louder than this, relative to the mixture, is named.
_GAP_DB = -40.0

Progress = Callable[[float, float], object]
"""Called after every song with the seconds of audio done and in all."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Report:
    """What `verify` found. `corrupt` breaks training and makes `ok` false; the other lists are for a person to judge.

    `rates`, `channels` and `splits` count songs; `stems` counts the songs that have a stem, `missing` those that have
    not (silence to a training). `unequal`: stems shorter than their song (padded); `silent`: stems below -80 dBFS
    throughout; `gaps`: songs whose stems do not sum to their mixture, or whose mixture cannot be compared; `skipped`:
    what the reader leaves out by a rule of the data set. `midi` counts the files of a MIDI collection.
    """

    path: str
    layout: str
    songs: int
    hours: float
    midi: int
    rates: dict[int, int]
    channels: dict[int, int]
    splits: dict[str, int]
    stems: dict[str, int]
    missing: dict[str, int]
    corrupt: tuple[Problem, ...]
    unequal: tuple[Problem, ...]
    silent: tuple[Problem, ...]
    gaps: tuple[Problem, ...]
    skipped: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether a training can use every song that is there, and there is one."""
        return self.songs + self.midi > 0 and not self.corrupt

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        lists = {
            name: [{"song": problem.name, "reason": problem.reason} for problem in getattr(self, name)]
            for name in KINDS
        }
        counts = {name: getattr(self, name) for name in ("layout", "songs", "midi", "splits", "stems", "missing")}
        return {
            "path": self.path,
            "ok": self.ok,
            **counts,
            "hours": round(self.hours, 4),
            "rates": {str(rate): count for rate, count in self.rates.items()},
            "channels": {str(channels): count for channels, count in self.channels.items()},
            **lists,
        }


#: The lists of a report, the worst first.
KINDS = ("corrupt", "unequal", "silent", "gaps", "skipped")


@dataclass(frozen=True)
class _Findings:
    corrupt: tuple[str, ...] = ()
    unequal: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


def verify(path: Path | str, progress: Progress | None = None) -> Report:
    """Read every song of a data set, in any layout, and report. Raises SongError only where the place is of no use."""
    scanned = scan_any(path)
    found = list(zip(scanned.songs, for_each(scanned.songs, _listen, progress)))
    packed = shards.check(path) if scanned.layout == shards.LAYOUT else ()
    known = set(scanned.problems)

    def problems(kind: str) -> tuple[Problem, ...]:
        return tuple(Problem(song.name, reason) for song, findings in found for reason in getattr(findings, kind))

    songs = scanned.songs
    metadata = [*(song.metadata for song in songs), *(song.metadata for song in scanned.midi)]
    having = {name: sum(name in song.stems for song in songs) for name in sorted({n for s in songs for n in s.stems})}
    return Report(
        path=str(path),
        layout=scanned.layout,
        songs=len(songs),
        hours=sum(song.seconds for song in songs) / 3600,
        midi=len(scanned.midi),
        rates=dict(Counter(song.rate for song in songs)),
        channels=dict(Counter(song.channels for song in songs)),
        splits=dict(Counter(str(about.get("split", "not published")) for about in metadata)),
        stems=having,
        missing={name: len(songs) - count for name, count in having.items() if count < len(songs)},
        corrupt=(*scanned.problems, *(p for p in packed if p not in known), *problems("corrupt"), *_unparsed(scanned)),
        unequal=problems("unequal"),
        silent=problems("silent"),
        gaps=problems("gaps"),
        skipped=scanned.skipped,
    )


def for_each(songs: Sequence[Song], measure: Callable[[Song], Result], progress: Progress | None) -> list[Result]:
    """What `measure` says of every song, in order. Threads suffice: decoding releases the interpreter's lock."""
    total, done, results = sum(song.seconds for song in songs), 0.0, []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(measure, song) for song in songs]
        try:
            for song, future in zip(songs, futures):
                results.append(future.result())
                done += song.seconds
                if progress is not None:
                    progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)  # an interruption waits only for the songs in progress
    return results


def _listen(song: Song) -> _Findings:
    """Read all files of a song together, block by block: faults, peaks of the stems, their sum against the mixture."""
    faults: list[str] = []
    unheard: list[str] = []
    stems = [(name, file) for name, files in song.stems.items() for file in files]
    sounds = [_blocks(file, faults) for _, file in stems]
    gap = _incomparable(song) if song.mixture else None
    mixture = None if gap else song.mixture
    if mixture is not None:
        sounds.append(_blocks(mixture, unheard if stems else faults))
    peaks = dict.fromkeys(song.stems, 0.0)
    level = difference = 0.0
    for blocks in zip_longest(*sounds):
        made: dict[str, np.ndarray] = {}
        for (name, _), block in zip(stems, blocks):
            if block is not None:
                made[name] = _sum(made.get(name), block)
        for name, block in made.items():
            peaks[name] = max(peaks[name], float(np.abs(block).max(initial=0.0)))
        if mixture is not None and stems:
            heard = blocks[-1] if blocks[-1] is not None else np.zeros((0, 1), np.float32)
            rest = -heard
            for block in made.values():
                rest = _sum(rest, block)
            # The wider of the two decides on the weight of a mono signal.
            level += _energy(heard) * rest.shape[1] / heard.shape[1]
            difference += _energy(rest)
    gaps = (*unheard, *([gap] if gap else []))
    if faults:
        return _Findings(tuple(faults), _unequal(song), (), gaps)
    silent = tuple(f"{name} is silent (peak below -80 dBFS)" for name, peak in peaks.items() if peak < _SILENT)
    if mixture is not None and stems and not unheard:
        gaps = (*gaps, *_gap(mixture, level, difference))
    return _Findings((), _unequal(song), silent, gaps)


def _blocks(file: File, faults: list[str]) -> Iterator[np.ndarray]:
    """The blocks of a file, (frames, channels), up to its end or its first fault, which is added to `faults`."""
    frames = 0
    try:
        with opened(file) as audio:
            while len(block := audio.read(_BLOCK, dtype="float32", always_2d=True)):
                frames += len(block)
                if not np.isfinite(block).all():
                    faults.append(f"{file.name} holds samples that are not finite; export it again")
                    return
                yield block
            promised = audio.frames
    except SongError as error:
        faults.append(str(error))
        return
    except (soundfile.LibsndfileError, OSError) as error:
        faults.append(f"{file.name} breaks off after {frames} frames ({error}); copy it again")
        return
    if frames < promised or lost_bytes(file) > 1:
        faults.append(f"{file.name} is cut short (it holds {frames} frames, its header promises more); copy it again")


def _unequal(song: Song) -> tuple[str, ...]:
    lines = []
    for name, files in song.stems.items():
        try:
            short = song.frames - max(header(file).frames for file in files)
        except SongError:  # gone since the scan, which is reported
            continue
        if short:
            lines.append(f"{name} is {short / song.rate:.3f} s shorter")
    return tuple(lines)


def _incomparable(song: Song) -> str | None:
    """Why a song's mixture cannot be compared with the sum of its stems."""
    assert song.mixture is not None
    try:
        about = header(song.mixture)
    except SongError as error:
        return str(error)
    if about.samplerate != song.rate or about.channels > 2:
        return f"{song.mixture.name} has {about.samplerate} Hz and {about.channels} channels, the stems {song.rate} Hz"
    return None


def _gap(mixture: File, level: float, difference: float) -> tuple[str, ...]:
    if difference <= level * 10.0 ** (_GAP_DB / 10.0):
        return ()
    loud = (
        f"{10.0 * math.log10(difference / level):.0f} dB relative to it"
        if level > 0.0
        else "all there is, it is silent"
    )
    return (f"the stems do not sum to {mixture.name}: the difference is {loud}",)


def _sum(one: np.ndarray | None, other: np.ndarray) -> np.ndarray:
    """The sum of two signals (frames, channels) of whatever lengths, mono on both channels of stereo."""
    if one is None:
        return other
    total = np.zeros((max(len(one), len(other)), max(one.shape[1], other.shape[1])), np.float32)
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def _energy(signal: np.ndarray) -> float:
    return float(np.square(signal, dtype=np.float64).sum())


def _unparsed(scanned: Scan) -> Iterator[Problem]:
    """The MIDI files that cannot be parsed or hold no notes. Raises ModelError without symusic."""
    if not scanned.midi:
        return
    symusic = needed("symusic", "midi")

    def reason(song: MidiSong) -> str | None:
        try:
            notes = symusic.Score(song.file).note_num()
        except Exception as error:  # symusic raises what its C++ parser throws, of several types
            return f"cannot be parsed ({error}); remove it"
        return None if notes else "holds no notes; remove it"

    for song in scanned.midi:
        wrong = reason(song)
        if wrong is not None:
            yield Problem(song.name, wrong)
