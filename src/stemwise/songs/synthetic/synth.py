"""A small synthesiser whose instruments are drawn at random: the sounds that no sound font provides.

Three ways of making a tone (decaying modes, swept wave tables, frequency modulation) and a drum kit. Every pitch of a
track is made once, at the length of its longest note, and then placed like a sample, which keeps it fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemwise.songs.synthetic.kit import play_kit
from stemwise.songs.synthetic.piece import Track

Audio = NDArray[np.float32]
Spectrum = NDArray[np.float64]
_TABLE, _PARTIALS = 2048, 24
# programs whose tone decays after the attack: pianos, guitars, plucked basses, pizzicato, harp, sitar to kalimba
_PLUCKED = frozenset((0, 1, 2, 3, 6, 7, *range(24, 38), 45, 46, 104, 105, 106, 107, 108))


@dataclass(frozen=True)
class Timbre:
    """A random instrument. `kind` is modes, table or fm; times in seconds; spectra are partial amplitudes.

    `ratios` are partial frequencies over the fundamental; `sweep` says how fast the brightness goes, `detune` how far
    the two channels lie apart, `vibrato` is (Hz, relative depth), `noise` the level of the attack's noise, `fm` the
    modulator's frequency ratio and index.
    """

    kind: str
    bright: Spectrum
    dark: Spectrum
    ratios: Spectrum
    attack: float = 0.002
    decay: float = 1.0
    sustain: float = 0.0
    release: float = 0.1
    sweep: float = 0.5
    detune: float = 0.0
    vibrato: tuple[float, float] = (5.0, 0.0)
    noise: float = 0.0
    fm: tuple[float, float] = (1.0, 1.0)


def timbre(rng: np.random.Generator, program: int) -> Timbre:
    """Draw an instrument of the family that a General MIDI program (0-based) belongs to."""
    if program in (4, 5) or (program in (0, 2) and rng.random() < 0.15):
        return _electric(rng)
    if program in _PLUCKED:
        return _plucked(rng, struck=program < 8)
    if 8 <= program < 16:
        return _mallet(rng)
    return _organ(rng) if 16 <= program < 24 else _sustained(rng, program)


def _electric(rng: np.random.Generator) -> Timbre:
    n = np.arange(1.0, _PARTIALS + 1)
    return Timbre(
        "fm",
        n,
        n,
        n,
        attack=0.003,
        decay=float(rng.uniform(0.8, 3)),
        release=float(rng.uniform(0.08, 0.3)),
        sweep=float(rng.uniform(0.1, 0.8)),
        detune=float(rng.uniform(0, 0.002)),
        fm=(float(rng.choice((1, 1, 2, 3, 7, 14))), float(rng.uniform(0.4, 3.0))),
    )


def _plucked(rng: np.random.Generator, *, struck: bool) -> Timbre:
    """Strings: a comb from where they are plucked, stretched partials (f_n = n f sqrt(1 + B n^2)), body resonances."""
    n = np.arange(1.0, _PARTIALS + 1)
    point = float(rng.uniform(0.06, 0.45))
    stiffness = float(np.exp(rng.uniform(np.log(1e-5), np.log(8e-4))))
    body = np.exp(rng.normal(0, 0.5, _PARTIALS))
    spectrum = np.abs(np.sin(np.pi * n * point)) / n ** float(rng.uniform(0.6, 1.7)) * body + 1e-4
    return Timbre(
        "modes",
        spectrum,
        spectrum,
        n * np.sqrt(1 + stiffness * n**2),
        attack=float(rng.uniform(0.001, 0.006)),
        decay=float(rng.uniform(0.8, 4.0 if struck else 3.0)),
        release=float(rng.uniform(0.03, 0.25)),
        sweep=float(rng.uniform(0.05, 0.7)),
        detune=float(rng.uniform(0, 0.0012)),
        noise=float(rng.uniform(0, 0.1)),
    )


def _mallet(rng: np.random.Generator) -> Timbre:
    bars = ((1, 3.93, 9.5, 16.3), (1, 2.76, 5.4, 8.9), (1, 2.0, 3.01, 4.1), (1, 4.0, 10.1, 17.0))
    spectrum = np.array((1.0, *rng.uniform(0.05, 0.6, 3)))
    return Timbre(
        "modes",
        spectrum,
        spectrum,
        np.array(bars[int(rng.integers(4))], dtype=np.float64),
        decay=float(rng.uniform(0.3, 2.5)),
        release=float(rng.uniform(0.1, 0.8)),
        sweep=float(rng.uniform(0.3, 1.0)),
        noise=float(rng.uniform(0, 0.1)),
    )


def _organ(rng: np.random.Generator) -> Timbre:
    n = np.arange(1.0, _PARTIALS + 1)
    bars = np.where(np.isin(n, (1, 2, 3, 4, 6, 8, 10, 12, 16)), rng.uniform(0, 1, _PARTIALS), 0.0)
    bars[0] += 0.5
    return Timbre(
        "table",
        bars,
        bars,
        n,
        attack=float(rng.uniform(0.003, 0.02)),
        sustain=1.0,
        release=float(rng.uniform(0.02, 0.15)),
        detune=float(rng.uniform(0, 0.003)),
        vibrato=(float(rng.uniform(5, 7)), float(rng.uniform(0, 0.003))),
        noise=float(rng.uniform(0, 0.05)),
    )


def _sustained(rng: np.random.Generator, program: int) -> Timbre:
    """Bowed, blown and synthesised tones: a random spectrum that darkens; choirs get two formants."""
    n = np.arange(1.0, _PARTIALS + 1)
    hollow = (n % 2 == 0) & (rng.random() < 0.25)
    bright = np.where(hollow, 0.05, 1.0) / n ** float(rng.uniform(0.6, 1.7)) * np.exp(rng.normal(0, 0.45, _PARTIALS))
    if 52 <= program < 55:
        for centre in rng.uniform(2, 14, 2):
            bright = bright * (0.3 + 2 * np.exp(-0.5 * ((n - centre) / 1.5) ** 2))
    pad = 48 <= program < 55 or 88 <= program < 96
    bass = program in (38, 39)
    attack = 0.004 if bass else float(rng.uniform(0.05, 0.4) if pad else rng.uniform(0.004, 0.08))
    return Timbre(
        "table",
        bright,
        bright / n ** float(rng.uniform(0.3, 1.5)),
        n,
        attack=attack,
        decay=float(rng.uniform(0.15, 1.2)),
        sustain=float(rng.uniform(0.2 if bass else 0.5, 1.0)),
        release=float(rng.uniform(0.04, 0.15 if bass else 0.5)),
        sweep=float(rng.uniform(0.1, 1.0)),
        detune=float(rng.uniform(0, 0.001 if bass else 0.006)),
        vibrato=(float(rng.uniform(4, 6.5)), float(rng.uniform(0, 0.004)) if rng.random() < 0.6 else 0.0),
        noise=float(rng.uniform(0, 0.02)),
    )


def tone(timbre: Timbre, pitch: int, seconds: float, rate: int, rng: np.random.Generator) -> Audio:
    """One held note (2, samples) without its release, peak about one."""
    frames = int(seconds * rate) + 1
    time = np.arange(frames, dtype=np.float32) / np.float32(rate)
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    channels = []
    for side in (-1.0, 1.0):
        f = frequency * (1 + side * timbre.detune)
        make = {"modes": _modes, "fm": _modulated, "table": _swept}[timbre.kind]
        channels.append(make(timbre, f, time, rate))
        if timbre.detune == 0.0:
            channels.append(channels[0])
            break
    out = np.stack(channels)
    if timbre.noise:
        burst = rng.standard_normal(frames, dtype=np.float32) * np.exp(-time / 0.012)
        out += timbre.noise * burst
    ramp = np.minimum(time / timbre.attack, 1.0)
    if timbre.kind == "table":
        ramp *= timbre.sustain + (1 - timbre.sustain) * np.exp(-np.maximum(time - timbre.attack, 0) / timbre.decay)
    out *= ramp
    return (out / (np.abs(out).max() + 1e-6)).astype(np.float32)


def _modes(timbre: Timbre, frequency: float, time: Audio, rate: int) -> Audio:
    out = np.zeros_like(time)
    decay = timbre.decay * (220.0 / max(frequency, 60.0)) ** 0.4
    for ratio, level in zip(timbre.ratios[:16], timbre.bright[:16], strict=True):
        f = frequency * ratio
        if f > 0.45 * rate or level < 2e-3:
            continue
        rateof = 1 / decay * (1 + timbre.sweep * (ratio - 1))
        stop = min(len(time), int(rate * 7.0 / rateof) + 2)  # -60 dB: the rest of the mode is not worth computing
        t = time[:stop]
        out[:stop] += np.float32(level) * np.exp(-np.float32(rateof) * t) * np.sin(np.float32(2 * np.pi * f) * t)
    return out


def _modulated(timbre: Timbre, frequency: float, time: Audio, rate: int) -> Audio:
    ratio, index = timbre.fm
    if frequency * ratio > 0.4 * rate:
        ratio = 1.0
    index = index * min(1.0, 600.0 / frequency)
    depth = np.float32(index) * np.exp(-time / np.float32(timbre.sweep))
    phase = np.float32(2 * np.pi * frequency) * time
    return np.exp(-time / np.float32(timbre.decay)) * np.sin(phase + depth * np.sin(np.float32(ratio) * phase))


def _normal(wave: Spectrum) -> Audio:
    return (wave / (np.abs(wave).max() + 1e-9)).astype(np.float32)


def _swept(timbre: Timbre, frequency: float, time: Audio, rate: int) -> Audio:
    usable = timbre.ratios * frequency < 0.45 * rate
    cycle = np.arange(_TABLE) / _TABLE
    waves = np.sin(2 * np.pi * np.outer(timbre.ratios, cycle) + (timbre.ratios**2)[:, None])
    bright, dark = (_normal((s * usable) @ waves) for s in (timbre.bright, timbre.dark))
    speed, depth = timbre.vibrato
    phase = frequency * time.astype(np.float64)
    if depth:
        onset = np.minimum(time / 0.4, 1.0)
        phase = phase + onset * depth * frequency / (2 * np.pi * speed) * np.sin(2 * np.pi * speed * time)
    index = (phase * _TABLE).astype(np.int64) & (_TABLE - 1)
    share = np.exp(-time / np.float32(timbre.sweep))
    return dark[index] + share * (bright[index] - dark[index])


def play(track: Track, rng: np.random.Generator, rate: int, frames: int) -> Audio:
    """A whole track (2, frames) on an instrument drawn with `rng`."""
    if track.is_drum:
        return play_kit(track, rng, rate, frames)
    sound = timbre(rng, track.program)
    power = float(rng.uniform(1.0, 2.0))
    out = np.zeros((2, frames), dtype=np.float32)
    longest: dict[int, float] = {}
    for note in track.notes:
        longest[int(note["pitch"])] = max(longest.get(int(note["pitch"]), 0.0), min(float(note["duration"]), 6.0))
    samples = {p: tone(sound, p, s + sound.release * 3, rate, rng) for p, s in longest.items()}
    for note in track.notes:
        sample = samples[int(note["pitch"])]
        begin, held = int(note["start"] * rate), int(min(note["duration"], 6.0) * rate)
        stop = min(held + int(sound.release * 3 * rate), sample.shape[1], frames - begin)
        if stop <= 0:
            continue
        piece = sample[:, :stop] * np.float32((note["velocity"] / 127) ** power)
        if stop > held:
            fall = np.exp(-np.arange(stop - held, dtype=np.float32) / np.float32(sound.release * rate))
            piece[:, held:] *= fall * np.linspace(1, 0, stop - held, dtype=np.float32)
        out[:, begin : begin + stop] += piece
    return out
