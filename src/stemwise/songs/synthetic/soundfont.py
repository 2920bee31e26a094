"""SoundFont 2 and 3 files: which sample plays for a key and a velocity, and how.

Read from the SoundFont 2.04 specification: presets refer to instruments, instruments to samples; the generators of a
global zone are defaults for the local ones, and a preset's generators add to the instrument's. Modulators are ignored.
SoundFont 3 differs only in its samples, which are Ogg Vorbis streams.
"""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from stemwise.errors import SongError

# Generators (section 8.1.2): number -> default; times in timecents, frequencies in cents, levels in centibels.
_START, _END, _LOOP_START, _LOOP_END = 0, 1, 2, 3
_START_COARSE, _END_COARSE, _LOOP_START_COARSE, _LOOP_END_COARSE = 4, 12, 45, 50
_DEFAULTS = {
    8: 13500,
    26: -12000,
    28: -12000,
    33: -12000,
    34: -12000,
    35: -12000,
    36: -12000,
    38: -12000,
    56: 100,
    58: -1,
}
_INSTRUMENT, _KEYS, _VELOCITIES, _SAMPLE = 41, 43, 44, 53
_OFFSETS = (_START, _END, _LOOP_START, _LOOP_END, _START_COARSE, _END_COARSE, _LOOP_START_COARSE, _LOOP_END_COARSE)
# What a preset cannot add to: offsets, fixed key and velocity, loop mode, exclusive class, root key, ranges, links.
_NOT_ADDED = frozenset((*_OFFSETS, 46, 47, 54, 57, 58, _KEYS, _VELOCITIES, _SAMPLE, _INSTRUMENT))


@dataclass(frozen=True)
class Zone:
    """One sample as one preset plays it over a range of keys and velocities.

    `tune` in semitones, `scale` semitones per key, `gain` linear, `pan` -1..1, `cutoff` hertz, `resonance` dB, `sweep`
    octaves that the modulation envelope adds to the cutoff; envelope times in seconds, `decay` and `release` the time
    for 100 dB, `sustain` in dB below the peak; `choke` is the exclusive class (0 for none).
    """

    keys: tuple[int, int]
    velocities: tuple[int, int]
    sample: int
    root: int
    tune: float
    scale: float
    gain: float
    pan: float
    cutoff: float
    resonance: float
    sweep: float
    sweep_decay: float
    attack: float
    hold: float
    decay: float
    sustain: float
    release: float
    loops: bool
    offsets: tuple[int, int, int, int]
    choke: int


@dataclass(frozen=True)
class Sample:
    """A recording: mono int16, its rate and loop [start, end) in samples."""

    data: NDArray[np.int16]
    rate: int
    loop: tuple[int, int]


def _seconds(timecents: float) -> float:
    return 0.0 if timecents <= -11999 else float(2 ** (min(timecents, 8000) / 1200))


class SoundFont:
    """An opened file. Samples are read, and for SoundFont 3 decoded, when first played."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables, self._wave = _chunks(path)
        self._decoded: OrderedDict[int, Sample] = OrderedDict()
        self._headers = [struct.unpack_from("<20s5IBbHH", self._tables["shdr"], i)
                         for i in range(0, len(self._tables["shdr"]) - 46, 46)]  # fmt: skip
        self._presets: dict[tuple[int, int], int] = {}
        for i in range(0, len(self._tables["phdr"]) - 38, 38):
            program, bank, _ = struct.unpack_from("<HHH", self._tables["phdr"], i + 20)
            self._presets.setdefault((bank, program), i // 38)
        self._zones: dict[tuple[int, int], tuple[Zone, ...]] = {}

    @property
    def presets(self) -> frozenset[tuple[int, int]]:
        """(bank, program) of every preset."""
        return frozenset(self._presets)

    def zones(self, bank: int, program: int) -> tuple[Zone, ...]:
        """All zones of a preset; none where the font lacks it."""
        key = (bank, program)
        if key not in self._zones:
            self._zones[key] = tuple(self._read(self._presets[key])) if key in self._presets else ()
        return self._zones[key]

    def sample(self, index: int) -> Sample:
        """The recording behind a zone."""
        if index in self._decoded:
            self._decoded.move_to_end(index)
            return self._decoded[index]
        _, start, end, loop_start, loop_end, rate, _, _, _, kind = self._headers[index]
        if kind & 0x10:  # SoundFont 3: byte offsets of an Ogg stream, loops counted from the sample's start
            data, rate = soundfile.read(io.BytesIO(self._wave[start:end].tobytes()), dtype="int16")
            found = Sample(
                np.ascontiguousarray(data if data.ndim == 1 else data[:, 0]), int(rate), (loop_start, loop_end)
            )
        else:
            data = np.array(self._wave[2 * start : 2 * end]).view("<i2")
            found = Sample(data, int(rate), (loop_start - start, loop_end - start))
        self._decoded[index] = found
        if len(self._decoded) > 400:
            self._decoded.popitem(last=False)
        return found

    def _read(self, preset: int) -> list[Zone]:
        zones = []
        for outer in self._generators("phdr", 38, 24, "pbag", "pgen", preset, _INSTRUMENT):
            for inner in self._generators("inst", 22, 20, "ibag", "igen", outer[_INSTRUMENT], _SAMPLE):
                keys, velocities = (_overlap(inner.get(k, 0x7F00), outer.get(k, 0x7F00)) for k in (_KEYS, _VELOCITIES))
                if keys[0] > keys[1] or velocities[0] > velocities[1] or inner[_SAMPLE] >= len(self._headers):
                    continue
                values = {**_DEFAULTS, **inner}
                for number, amount in outer.items():
                    if number not in _NOT_ADDED:
                        values[number] = values.get(number, 0) + amount
                zones.append(self._zone(values, keys, velocities))
        return zones

    def _generators(
        self, heads: str, size: int, at: int, bags: str, gens: str, index: int, needed: int
    ) -> list[dict[int, int]]:
        """The local zones of one preset or instrument as {generator: amount}, the global zone filled in."""
        first, last = (struct.unpack_from("<H", self._tables[heads], (index + i) * size + at)[0] for i in (0, 1))
        common: dict[int, int] = {}
        zones = []
        for bag in range(first, last):
            begin, stop = (struct.unpack_from("<H", self._tables[bags], (bag + i) * 4)[0] for i in (0, 1))
            values: dict[int, int] = {}
            for i in range(begin, stop):
                number, amount = struct.unpack_from("<Hh", self._tables[gens], 4 * i)
                values[number] = amount & 0xFFFF if number in (_INSTRUMENT, _SAMPLE, _KEYS, _VELOCITIES) else amount
            if needed in values:
                zones.append({**common, **values})
            elif bag == first:
                common = values
        return zones

    def _zone(self, g: dict[int, int], keys: tuple[int, int], velocities: tuple[int, int]) -> Zone:
        head = self._headers[g[_SAMPLE]]
        root, correction = head[6], head[7]
        get = g.get

        def offset(fine: int, coarse: int) -> int:
            return get(fine, 0) + 32768 * get(coarse, 0)

        return Zone(
            keys=keys,
            velocities=velocities,
            sample=g[_SAMPLE],
            root=g[58] if g[58] >= 0 else (root if root <= 127 else 60),
            tune=get(51, 0) + (get(52, 0) + correction) / 100,
            scale=g[56] / 100,
            # 0.4: how the EMU hardware read attenuations, which all fonts expect
            gain=10 ** (-0.4 * max(get(48, 0), 0) / 200),
            pan=min(max(get(17, 0) / 500, -1.0), 1.0),
            cutoff=8.176 * 2 ** (min(max(g[8], 1500), 13500) / 1200),
            resonance=min(max(get(9, 0) / 10, 0.0), 24.0),
            sweep=get(11, 0) / 1200,
            sweep_decay=max(_seconds(g[28]), 0.02),
            attack=_seconds(g[34]),
            hold=_seconds(g[35]),
            decay=_seconds(g[36]),
            sustain=min(max(get(37, 0) / 10, 0.0), 100.0),
            release=_seconds(g[38]),
            loops=bool(get(54, 0) & 1),
            offsets=(offset(0, 4), offset(1, 12), offset(2, 45), offset(3, 50)),
            choke=get(57, 0),
        )


def _overlap(a: int, b: int) -> tuple[int, int]:
    return max(a & 0xFF, b & 0xFF), min(a >> 8, b >> 8)


@lru_cache(maxsize=12)
def opened(path: str) -> SoundFont:
    """An opened font, kept for the next song."""
    return SoundFont(Path(path))


def _chunks(path: Path) -> tuple[dict[str, bytes], NDArray[np.uint8]]:
    """The tables of the `pdta` list by name, and the `smpl` chunk as bytes on disk. SongError for anything else."""
    tables: dict[str, bytes] = {}
    wave: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"sfbk":
            raise SongError(f"{path}: not a SoundFont 2 or 3 file (no RIFF/sfbk header).")
        while len(chunk := file.read(8)) == 8:
            size = struct.unpack("<I", chunk[4:])[0]
            end = file.tell() + size
            kind = file.read(4) if chunk[:4] == b"LIST" else b""
            while kind in (b"pdta", b"sdta") and file.tell() + 8 <= end and len(sub := file.read(8)) == 8:
                name, length = struct.unpack("<4sI", sub)
                if name == b"smpl":
                    wave = np.memmap(path, dtype=np.uint8, mode="r", offset=file.tell(), shape=(length,))
                if kind == b"pdta":
                    tables[name.decode("latin1")] = file.read(length)
                    file.seek(length % 2, 1)
                else:
                    file.seek(length + length % 2, 1)
            # Odd chunks should be padded to an even length, but some SoundFont 3 files are not.
            file.seek(end)
            if size % 2 and file.read(4) not in (b"LIST", b"RIFF"):
                end += 1
            file.seek(end)
    if not {"phdr", "pbag", "pgen", "inst", "ibag", "igen", "shdr"} <= set(tables):
        raise SongError(f"{path}: the SoundFont has no preset table; the file is damaged.")
    return tables, wave
