"""A small synthesiser whose instruments are drawn at random: the sounds that no sound font provides.

Three ways of making a tone (decaying modes, swept wave tables, frequency modulation) and a drum kit. Every pitch of a
track is made once, at the length of its longest note, and then placed like a sample, which keeps it fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemwise.songs.synthetic.piece import Track

Audio = NDArray[np.float32]
_TABLE = 2048


@dataclass(frozen=True)
class Timbre:
    """A random instrument. `kind` is modes, table or fm; times in seconds; spectra are partial amplitudes."""

    kind: str
    bright: NDArray[np.float64]
    dark: NDArray[np.float64]
    ratios: NDArray[np.float64]
    attack: float
    decay: float
    sustain: float
    release: float
    sweep: float
    detune: float
    vibrato: tuple[float, float]
    noise: float
    fm: tuple[float, float] = (1.0, 1.0)


def timbre(rng: np.random.Generator, program: int) -> Timbre:
    """Draw an instrument of the family that a General MIDI program (0-based) belongs to."""
    count = 24
    n = np.arange(1, count + 1)
    ratios = n.astype(float)
    tilt = float(rng.uniform(0.7, 1.7))
    shape = np.exp(rng.normal(0, 0.45, count))
    plucked = (
        program in range(24, 32)
        or program in range(32, 38)
        or program in (0, 1, 2, 3, 6, 7, 45, 46, 104, 105, 106, 107)
    )
    if program in (4, 5) or (program in (0, 2) and rng.random() < 0.15):
        return Timbre("fm", n * 0.0, n * 0.0, ratios, 0.003, float(rng.uniform(0.8, 3)), 0.0, float(rng.uniform(0.08, 0.3)),
                      float(rng.uniform(0.1, 0.8)), float(rng.uniform(0, 0.002)), (5.0, 0.0), 0.0,
                      (float(rng.choice((1, 1, 2, 3, 7, 14))), float(rng.uniform(0.4, 3.0))))  # fmt: skip
    if plucked:
        point = float(rng.uniform(0.08, 0.45))
        stiffness = float(np.exp(rng.uniform(np.log(1e-5), np.log(8e-4))))
        spectrum = np.abs(np.sin(np.pi * n * point)) / n**tilt * shape + 1e-4
        low = program < 8
        return Timbre("modes", spectrum, spectrum, n * np.sqrt(1 + stiffness * n**2), 0.002, float(rng.uniform(0.8, 4 if low else 3)),
                      0.0, float(rng.uniform(0.03, 0.25)), float(rng.uniform(0.1, 0.7)), float(rng.uniform(0, 0.0012)),
                      (5.0, 0.0), float(rng.uniform(0, 0.08)))  # fmt: skip
    if program in range(8, 16):
        family = np.array(((1, 3.93, 9.5, 16.3), (1, 2.76, 5.4, 8.9), (1, 2.0, 3.01, 4.1), (1, 4.0, 10.1, 17.0)))
        ratios = family[int(rng.integers(4))]
        spectrum = np.array((1, *(rng.uniform(0.05, 0.6, 3))))
        return Timbre("modes", spectrum, spectrum, ratios, 0.002, float(rng.uniform(0.3, 2.5)), 0.0, float(rng.uniform(0.1, 0.8)),
                      float(rng.uniform(0.3, 1.0)), 0.0, (5.0, 0.0), float(rng.uniform(0, 0.1)))  # fmt: skip
    return _table_timbre(rng, program, n, tilt, shape)


def _table_timbre(
    rng: np.random.Generator, program: int, n: NDArray[np.int64], tilt: float, shape: NDArray[np.float64]
) -> Timbre:
    if program in range(16, 24):  # drawbars
        bright = np.where(np.isin(n, (1, 2, 3, 4, 6, 8, 10, 12, 16)), rng.uniform(0, 1, len(n)), 0.0)
        bright[0] += 0.5
        dark, attack, sustain, sweep = bright, 0.005, 1.0, 1.0
    else:
        odd = rng.random() < 0.25
        bright = np.where(odd & (n % 2 == 0), 0.05, 1.0) / n**tilt * shape
        if program in range(52, 55):  # a vowel
            for centre in rng.uniform(2, 14, 2):
                bright = bright * (0.3 + 2 * np.exp(-0.5 * ((n - centre) / 1.5) ** 2))
        dark = bright / n ** float(rng.uniform(0.3, 1.5))
        pad = program in range(48, 55) or program in range(88, 96)
        attack = float(rng.uniform(0.05, 0.4) if pad else rng.uniform(0.004, 0.08))
        sustain, sweep = float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.1, 1.0))
    if program in (38, 39):
        sustain, attack = float(rng.uniform(0.2, 1.0)), 0.004
    vibrato = (float(rng.uniform(4, 6.5)), float(rng.uniform(0, 0.004)) if rng.random() < 0.6 else 0.0)
    return Timbre("table", bright, dark, n.astype(float), attack, float(rng.uniform(0.15, 1.2)), sustain,
                  float(rng.uniform(0.04, 0.5)), sweep, float(rng.uniform(0, 0.006)), vibrato, float(rng.uniform(0, 0.02)))  # fmt: skip


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


def _swept(timbre: Timbre, frequency: float, time: Audio, rate: int) -> Audio:
    usable = timbre.ratios * frequency < 0.45 * rate
    cycle = np.arange(_TABLE) / _TABLE
    waves = np.sin(2 * np.pi * np.outer(timbre.ratios * (1 + 0.0), cycle) + (timbre.ratios**2)[:, None])
    bright, dark = ((s * usable) @ waves for s in (timbre.bright, timbre.dark))
    bright, dark = (w.astype(np.float32) / np.float32(np.abs(w).max() + 1e-9) for w in (bright, dark))
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
        return _drums(track, rng, rate, frames)
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


def _sweep(rng: np.random.Generator, rate: int, top: float, bottom: float, decay: float, click: float) -> Audio:
    time = np.arange(int(rate * decay * 6), dtype=np.float32) / rate
    drop = float(rng.uniform(0.01, 0.05))
    phase = bottom * time + (top - bottom) * drop * (1 - np.exp(-time / drop))
    body = np.sin(2 * np.pi * phase) * np.exp(-time / decay)
    return (body + click * rng.standard_normal(len(time)) * np.exp(-time / 0.004)).astype(np.float32)


def _hiss(rng: np.random.Generator, rate: int, decay: float, order: int, metal: float) -> Audio:
    """High-passed noise (`order` differences) with inharmonic square partials mixed in."""
    time = np.arange(int(rate * decay * 6), dtype=np.float32) / rate
    noise = rng.standard_normal(len(time)).astype(np.float32)
    if metal:
        for f in rng.uniform(300, 6000, 6):
            noise += np.float32(metal) * np.sign(np.sin(np.float32(2 * np.pi * f) * time))
    for _ in range(order):
        noise[1:] -= noise[:-1].copy()
    noise /= np.abs(noise).max() + 1e-9
    return noise * np.exp(-time / np.float32(decay))


def _drum(rng: np.random.Generator, pitch: int, rate: int, kit: dict[str, float]) -> Audio:
    if pitch in (35, 36):
        return _sweep(rng, rate, kit["kick top"], kit["kick"], kit["kick decay"], 0.25)
    if pitch in (38, 40):
        body = _sweep(rng, rate, kit["snare"] * 1.6, kit["snare"], 0.07, 0.2)
        wires = _hiss(rng, rate, kit["wires"], 1, 0.0)
        size = max(len(body), len(wires))
        return (0.6 * np.pad(body, (0, size - len(body))) + 0.8 * np.pad(wires, (0, size - len(wires)))).astype(
            np.float32
        )
    if pitch in (41, 43, 45, 47, 48, 50):
        return _sweep(rng, rate, (pitch - 20) * 9.0, (pitch - 20) * 5.0 * kit["tom"], 0.16, 0.1)
    if pitch in (42, 44):
        return 0.5 * _hiss(rng, rate, kit["hat"], 2, kit["metal"])
    if pitch in (46, 70, 82, 54):
        return 0.5 * _hiss(rng, rate, 0.05 if pitch in (70, 82) else kit["open"], 2, kit["metal"])
    if pitch in (49, 51, 52, 53, 55, 57, 59):
        soft = pitch in (51, 53, 59)
        return (0.2 if soft else 0.5) * _hiss(rng, rate, kit["cymbal"] * (0.3 if soft else 1.0), 1, kit["metal"])
    if pitch == 39:
        return 0.7 * _hiss(rng, rate, 0.06, 1, 0.0)
    return 0.6 * _sweep(rng, rate, 200.0 + 17 * pitch, 100.0 + 9 * pitch, 0.05, 0.1)


def _drums(track: Track, rng: np.random.Generator, rate: int, frames: int) -> Audio:
    kit = {
        "kick": rng.uniform(38, 68), "kick top": rng.uniform(110, 420), "kick decay": rng.uniform(0.06, 0.3),
        "snare": rng.uniform(140, 250), "wires": rng.uniform(0.04, 0.16), "tom": rng.uniform(0.7, 1.4),
        "hat": rng.uniform(0.015, 0.05), "open": rng.uniform(0.1, 0.35), "cymbal": rng.uniform(0.3, 1.0),
        "metal": rng.uniform(0, 0.8),
    }  # fmt: skip
    power = float(rng.uniform(1.0, 1.8))
    out = np.zeros((2, frames), dtype=np.float32)
    samples: dict[int, Audio] = {}
    sides: dict[int, tuple[float, float]] = {}
    for note in track.notes:
        pitch = int(note["pitch"])
        if pitch not in samples:
            samples[pitch] = _drum(rng, pitch, rate, kit)
            pan = 0.0 if pitch in (35, 36, 38, 40) else float(rng.uniform(-0.6, 0.6))
            sides[pitch] = (1 - max(pan, 0), 1 + min(pan, 0))
        begin = int(note["start"] * rate)
        piece = samples[pitch][: frames - begin] * np.float32((note["velocity"] / 127) ** power)
        for channel, level in enumerate(sides[pitch]):
            out[channel, begin : begin + len(piece)] += np.float32(level) * piece
    return out
