"""Plays notes on a sound font: one tone for each key, placed wherever the key is struck.

Exact where it matters for music (pitch, loops, volume envelope, velocity, exclusive classes), simpler elsewhere: the
filter is fixed, or fades between its two ends where the font sweeps it; there are no vibratos and no modulators.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stemwise.songs.synthetic.effects import Band, Response, equaliser
from stemwise.songs.synthetic.soundfont import SoundFont, Zone

Audio = NDArray[np.float32]
_SILENT = 70.0  # dB below the start of the release at which a tail is cut


@dataclass(frozen=True)
class Touch:
    """How a preset is bent away from its usual sound; the defaults play it as it is.

    `shift` in semitones plays each note with the sample that belongs to a key so much lower, at the note's own pitch:
    formants and envelopes move, pitch does not. `tune` in semitones moves the pitch. `bright` in octaves moves the
    filter, `release` and `decay` scale times, `power` is the exponent from velocity to level, `coarse` reads samples
    without interpolation, as early samplers did.
    """

    shift: int = 0
    tune: float = 0.0
    bright: float = 0.0
    release: float = 1.0
    decay: float = 1.0
    power: float = 2.0
    coarse: bool = False


def play(
    font: SoundFont, preset: tuple[int, int], notes: NDArray[np.void], rate: int, frames: int, touch: Touch
) -> Audio:
    """Notes (dtype `NOTE`) on a preset (bank, program): (2, frames). Silence where the font lacks the preset."""
    out = np.zeros((2, frames), dtype=np.float32)
    zones = [_bent(z, touch) for z in font.zones(*preset)]
    struck: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
    for note, (start, stop) in zip(notes, _spans(zones, notes, touch), strict=True):
        key, velocity = int(note["pitch"]), int(note["velocity"])
        chosen = min(max(key - touch.shift, 0), 127)
        for index, zone in enumerate(zones):
            if zone.keys[0] <= chosen <= zone.keys[1] and zone.velocities[0] <= velocity <= zone.velocities[1]:
                level = (velocity / 127) ** touch.power
                struck.setdefault((index, key), []).append((round(start * rate), round(stop * rate), level))
    for (index, key), times in struck.items():
        zone = zones[index]
        tail = int(min(zone.release * _SILENT / 100, 5.0) * rate) + 64
        longest = min(max(stop - start for start, stop, _ in times) + tail, frames)
        tone = _tone(font, zone, key, longest, rate, touch)
        angle = (zone.pan + 1) * np.pi / 4
        for start, stop, level in times:
            _place(out, tone, start, stop - start, tail, zone.release * rate, level * zone.gain, angle)
    return out


def _bent(zone: Zone, touch: Touch) -> Zone:
    return replace(
        zone,
        cutoff=zone.cutoff * 2**touch.bright,
        release=max(zone.release, 0.012) * touch.release,
        decay=zone.decay * touch.decay,
    )


def _spans(zones: list[Zone], notes: NDArray[np.void], touch: Touch) -> list[tuple[float, float]]:
    """Start and end of each note in seconds; a note of an exclusive class ends where the next of its class begins."""
    classes = {}
    for zone in zones:
        if zone.choke and zone.keys[0] == zone.keys[1]:
            classes[zone.keys[0]] = zone.choke
    following: dict[int, float] = {}
    spans: list[tuple[float, float]] = []
    for note in notes[::-1]:
        start, stop = float(note["start"]), float(note["start"] + note["duration"])
        group = classes.get(int(note["pitch"]) - touch.shift)
        if group is not None:
            stop = following.get(group, max(stop, start + 2.0))
            following[group] = start
        spans.append((start, max(stop, start + 0.01)))
    return spans[::-1]


def _place(
    out: Audio, tone: Audio, start: int, held: int, tail: int, release: float, level: float, angle: float
) -> None:
    stop = min(held + tail, len(tone), out.shape[1] - start)
    if stop <= 0:
        return
    piece = tone[:stop] * np.float32(level)
    if stop > held:
        fall = np.arange(stop - held, dtype=np.float32) * np.float32(-5 * np.log(10) / release)
        piece[held:] *= np.exp(fall)
        fade = min(64, stop - held)
        piece[stop - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    out[0, start : start + stop] += np.float32(np.cos(angle)) * piece
    out[1, start : start + stop] += np.float32(np.sin(angle)) * piece


def _tone(font: SoundFont, zone: Zone, key: int, frames: int, rate: int, touch: Touch) -> Audio:
    """A key held for `frames`: sample at pitch, volume envelope, filter; full scale is one."""
    sample = font.sample(zone.sample)
    data = sample.data
    begin, end = max(0, zone.offsets[0]), len(data) + min(0, zone.offsets[1])
    first, last = sample.loop[0] + zone.offsets[2], sample.loop[1] + zone.offsets[3]
    loops = zone.loops and 0 <= first < last <= len(data) and last - first > 1
    # The key a note was moved from decides the sample, the key itself its pitch (`scale` below 1 for sound effects).
    distance = (key - touch.shift - zone.root) * zone.scale + touch.shift + zone.tune + touch.tune
    step = 2 ** (distance / 12) * sample.rate / rate
    position = begin + np.arange(frames, dtype=np.float64) * step
    if loops:
        late = position >= last
        position[late] = first + np.mod(position[late] - first, last - first)
    else:
        position = position[: int(np.searchsorted(position, end - 1))]
    if len(position) == 0:
        return np.zeros(1, dtype=np.float32)
    whole = np.minimum(position.astype(np.int64), len(data) - 1)
    wave = data[whole].astype(np.float32)
    if not touch.coarse:
        after = whole + 1
        if loops:
            after[after >= last] = first
        after = np.minimum(after, len(data) - 1)
        part = (position - whole).astype(np.float32)
        wave += part * (data[after].astype(np.float32) - wave)
    wave *= np.float32(1 / 32768)
    return _filtered(wave, zone, rate) * _envelope(zone, len(wave), rate)


def _envelope(zone: Zone, frames: int, rate: int) -> Audio:
    """Attack linear in amplitude, hold, then a decay linear in dB down to the sustain level."""
    time = np.arange(frames, dtype=np.float32) / np.float32(rate)
    fall = np.maximum(time - np.float32(zone.attack + zone.hold), 0)
    decibels = np.minimum(fall * np.float32(100 / max(zone.decay, 1e-3)), np.float32(zone.sustain))
    level = np.exp(decibels * np.float32(-np.log(10) / 20))
    rise = max(1, int(zone.attack * rate))
    level[:rise] *= np.linspace(0, 1, rise, endpoint=False, dtype=np.float32)[:frames] if rise > 1 else 1
    return level


def _filtered(wave: Audio, zone: Zone, rate: int) -> Audio:
    peak = zone.cutoff * 2 ** max(zone.sweep, 0.0)
    if zone.cutoff > 0.4 * rate and zone.sweep >= 0:
        return wave
    settled = _lowpass(wave, zone.cutoff, zone.resonance, rate)
    if abs(zone.sweep) < 0.1:
        return settled
    swept = _lowpass(
        wave, min(peak if zone.sweep > 0 else zone.cutoff * 2**zone.sweep, 0.44 * rate), zone.resonance, rate
    )
    share = np.exp(np.arange(len(wave), dtype=np.float32) * np.float32(-4 / (zone.sweep_decay * rate)))
    return settled + share * (swept - settled)


@lru_cache(maxsize=64)
def _response(semitone: int, resonance: int, size: int, rate: int) -> Response:
    return equaliser((Band("lowpass", 2 ** (semitone / 12), q=0.707 * 10 ** (resonance / 40)),), size, rate)


def _lowpass(wave: Audio, cutoff: float, resonance: float, rate: int) -> Audio:
    if cutoff > 0.42 * rate:
        return wave
    size = 1 << int(np.ceil(np.log2(len(wave) + 2048)))
    response = _response(round(12 * np.log2(max(cutoff, 40.0))), round(resonance), size, rate)
    return np.fft.irfft(np.fft.rfft(wave, size) * response, size)[: len(wave)].astype(np.float32)
