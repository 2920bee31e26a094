"""A drum kit drawn at random: swept sines, noise bursts, metallic partials."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stemwise.songs.synthetic.piece import Track

Audio = NDArray[np.float32]


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


def play_kit(track: Track, rng: np.random.Generator, rate: int, frames: int) -> Audio:
    """A drum track (2, frames) on a kit drawn with `rng`; cymbals and percussion are panned."""
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
