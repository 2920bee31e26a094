"""Studio effects drawn at random for each stem: amplifier, compressor, equaliser, echo, room, motion, panorama.

All linear time-invariant effects are one frequency response, applied by one overlap-add convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Response = NDArray[np.complex64]


@dataclass(frozen=True)
class Band:
    """One equaliser section: kind "peak", "low", "high" (shelves), "lowpass" or "highpass"; frequency in Hz."""

    kind: str
    frequency: float
    decibels: float = 0.0
    q: float = 0.707


@dataclass(frozen=True)
class Strip:
    """A channel of the mixing desk. Times in seconds, levels linear unless named decibels, `pan` in -1..1."""

    bands: tuple[Band, ...] = ()
    drive: float = 0.0
    squash: float = 0.0
    punch: float = 0.0
    tremolo: tuple[float, float] = (0.0, 0.0)
    chorus: tuple[float, float] = (0.0, 0.0)
    echo: tuple[float, float, float] = (0.0, 0.0, 0.0)
    room: tuple[float, float, float] = (0.0, 0.0, 0.0)
    width: float = 1.0
    pan: float = 0.0
    sway: float = 0.0
    seed: int = field(default=0, compare=False)


def draw(rng: np.random.Generator, stem: str, *, distorted: float = 0.0) -> Strip:
    """A random strip for a stem; `distorted` is the chance of an overdriven amplifier."""
    spread = {"bass": 0.35, "drums": 1.1, "guitar": 0.9, "piano": 1.0, "other": 1.1}[stem]
    width = float(rng.uniform(0, 0.4) if rng.random() < 0.3 else np.clip(rng.normal(spread, 0.3), 0, 1.6))
    loose = {"bass": 0.05, "drums": 0.06, "guitar": 0.45, "piano": 0.35, "other": 0.35}[stem]
    pan = 0.0 if rng.random() < 0.35 else float(np.clip(rng.normal(0, loose), -0.9, 0.9))
    drive = 0.0
    if rng.random() < distorted:
        drive = float(np.exp(rng.uniform(np.log(2), np.log(25))))
    elif rng.random() < 0.12:
        drive = float(rng.uniform(0.4, 1.6))
    wet = rng.random() < {"bass": 0.15, "drums": 0.5, "guitar": 0.55, "piano": 0.55, "other": 0.7}[stem]
    room = (
        float(np.exp(rng.uniform(np.log(0.15), np.log(2.2)))),
        float(rng.uniform(0.03, 0.45)),
        float(rng.uniform(0, 0.04)),
    )
    slap = rng.random() < {"guitar": 0.15, "other": 0.2, "piano": 0.06}.get(stem, 0.01)
    echo = (float(rng.uniform(0.08, 0.5)), float(rng.uniform(0.1, 0.4)), float(rng.uniform(0.1, 0.5)))
    moving = rng.random() < {"guitar": 0.14, "piano": 0.1, "other": 0.14}.get(stem, 0.03)
    chorus = (float(rng.uniform(0.2, 2.0)), float(rng.uniform(0.0005, 0.003))) if moving else (0.0, 0.0)
    shakes = rng.random() < {"guitar": 0.05, "piano": 0.05, "other": 0.05}.get(stem, 0.0)
    return Strip(
        bands=_bands(rng, stem, amplified=drive > 2),
        drive=drive,
        squash=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.4 else 0.0,
        punch=float(np.clip(rng.normal(0, 0.5), -1, 1)) if rng.random() < 0.35 else 0.0,
        tremolo=(float(rng.uniform(3, 7)), float(rng.uniform(0.1, 0.5))) if shakes else (0.0, 0.0),
        chorus=chorus,
        echo=echo if slap else (0.0, 0.0, 0.0),
        room=room if wet else (0.0, 0.0, 0.0),
        width=width,
        pan=pan,
        sway=float(rng.uniform(0.5, 4.0)) if rng.random() < 0.3 else 0.0,
        seed=int(rng.integers(2**31)),
    )


def _bands(rng: np.random.Generator, stem: str, *, amplified: bool) -> tuple[Band, ...]:
    bands: list[Band] = []
    if amplified:  # a loudspeaker cabinet
        bands.append(Band("lowpass", float(rng.uniform(3200, 6500)), q=float(rng.uniform(0.6, 1.2))))
        bands.append(Band("highpass", float(rng.uniform(60, 120))))
    if rng.random() < 0.7:
        tilt = float(rng.normal(0, 3.5))
        bands.append(Band("low", float(rng.uniform(120, 500)), -tilt))
        bands.append(Band("high", float(rng.uniform(1500, 6000)), tilt))
    for _ in range(int(rng.integers(0, 4))):
        frequency = float(np.exp(rng.uniform(np.log(80), np.log(9000))))
        bands.append(
            Band("peak", frequency, float(rng.normal(0, 4)), float(np.exp(rng.uniform(np.log(0.4), np.log(4)))))
        )
    if rng.random() < 0.3:
        bands.append(Band("lowpass", float(np.exp(rng.uniform(np.log(4000), np.log(16000))))))
    if rng.random() < 0.3 and stem != "bass":
        top = 60 if stem == "drums" else 250
        bands.append(Band("highpass", float(rng.uniform(30, top))))
    return tuple(bands)


def _biquad(band: Band, rate: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator and denominator of a second-order section (R. Bristow-Johnson, Audio EQ Cookbook)."""
    w = 2 * np.pi * min(band.frequency, 0.45 * rate) / rate
    alpha, cos = np.sin(w) / (2 * band.q), np.cos(w)
    gain = 10 ** (band.decibels / 40)
    if band.kind == "peak":
        b = (1 + alpha * gain, -2 * cos, 1 - alpha * gain)
        a = (1 + alpha / gain, -2 * cos, 1 - alpha / gain)
    elif band.kind in ("low", "high"):
        s = 1.0 if band.kind == "low" else -1.0
        root = 2 * np.sqrt(gain) * alpha
        b = (
            gain * ((gain + 1) - s * (gain - 1) * cos + root),
            s * 2 * gain * ((gain - 1) - s * (gain + 1) * cos),
            gain * ((gain + 1) - s * (gain - 1) * cos - root),
        )
        a = (
            (gain + 1) + s * (gain - 1) * cos + root,
            -s * 2 * ((gain - 1) + s * (gain + 1) * cos),
            (gain + 1) + s * (gain - 1) * cos - root,
        )
    else:
        s = 1.0 if band.kind == "lowpass" else -1.0
        side = (1 - s * cos) / 2
        b = (side, s * (1 - s * cos), side)
        a = (1 + alpha, -2 * cos, 1 - alpha)
    return np.array(b), np.array(a)


def equaliser(bands: tuple[Band, ...], size: int, rate: int) -> Response:
    """Frequency response (size // 2 + 1,) of all bands in series."""
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    total = np.ones(size // 2 + 1, dtype=np.complex128)
    for band in bands:
        b, a = _biquad(band, rate)
        total *= (b[0] + z * (b[1] + z * b[2])) / (a[0] + z * (a[1] + z * a[2]))
    return total.astype(np.complex64)


def _impulse(strip: Strip, rate: int) -> Audio:
    """Echo and room as an impulse response (2, samples), direct sound included."""
    decay, level, before = strip.room
    gap, repeat, feedback = strip.echo
    tail = int(min(decay, 1.6) * rate) if level else 0
    taps = 4 if repeat else 0
    impulse = np.zeros((2, 1 + max(tail + int(before * rate), int(taps * gap * rate))), dtype=np.float32)
    impulse[:, 0] = 1.0
    if level:
        rng = np.random.default_rng(strip.seed)
        time = np.arange(tail, dtype=np.float32) / rate
        noise = rng.standard_normal((2, tail), dtype=np.float32) * np.exp(-6.9 * time / decay)
        # A little memory makes the tail duller than white noise, as air and walls do.
        noise[:, 1:] = 0.5 * noise[:, 1:] + 0.5 * noise[:, :-1]
        noise *= 1.0 / np.sqrt((noise**2).sum(axis=1, keepdims=True) + 1e-9)
        begin = int(before * rate)
        impulse[:, begin + 1 : begin + tail + 1][:, : impulse.shape[1] - begin - 1] += (
            level * noise[:, : impulse.shape[1] - begin - 1]
        )
    for k in range(1, taps + 1):
        impulse[(k % 2 if strip.width > 0.8 else slice(None)), int(k * gap * rate)] += repeat * feedback ** (k - 1)
    return impulse


def convolve(audio: Audio, impulse: Audio, bands: tuple[Band, ...], rate: int) -> Audio:
    """Filter (2, n) by bands and an impulse response (2, m); same length out. Overlap-add in blocks."""
    room = impulse.shape[1] + 8192  # the equaliser's own ring fits in 8192 samples
    size = 1 << int(np.ceil(np.log2(2 * room)))
    response = np.fft.rfft(impulse, size).astype(np.complex64) * equaliser(bands, size, rate)
    step = size - room
    frames = audio.shape[1]
    out = np.zeros((2, frames + size), dtype=np.float32)
    for begin in range(0, frames, step):
        block = audio[:, begin : begin + step]
        if not block.any():
            continue
        out[:, begin : begin + size] += np.fft.irfft(np.fft.rfft(block, size) * response, size).astype(np.float32)
    return out[:, :frames]


def levels(audio: Audio, hop: int) -> NDArray[np.float64]:
    """Root mean square of each block of `hop` samples over both channels."""
    count = max(1, audio.shape[1] // hop)
    cut = audio[:, : count * hop].reshape(2, count, -1)
    return np.sqrt(np.einsum("cbs,cbs->b", cut, cut, dtype=np.float64) / (2 * cut.shape[2]) + 1e-18)


def compress(audio: Audio, amount: float, rate: int) -> Audio:
    """Feed-forward compression: blocks above their usual level are turned down by `amount` of the excess in dB."""
    hop = 256
    level = 20 * np.log10(levels(audio, hop))
    loud = level[level > level.max() - 40]
    threshold = float(np.percentile(loud, 40)) if len(loud) else 0.0
    wanted = -amount * np.clip(level - threshold, 0, None)
    gain = np.empty_like(wanted)
    state, fast, slow = 0.0, 1 - np.exp(-hop / rate / 0.008), 1 - np.exp(-hop / rate / 0.15)
    for i, target in enumerate(wanted.tolist()):
        state += (fast if target < state else slow) * (target - state)
        gain[i] = state
    curve = np.interp(np.arange(audio.shape[1]), (np.arange(len(gain)) + 0.5) * hop, 10 ** (gain / 20))
    return audio * curve.astype(np.float32)


def shape(audio: Audio, punch: float, rate: int) -> Audio:
    """Transient shaping: attacks louder (`punch` > 0) or softer (< 0) than what follows them, up to 9 dB."""
    hop = max(1, rate // 200)
    level = levels(audio, hop) + 1e-4
    memory = np.exp(-np.arange(24) / 8.0)
    slow = np.convolve(level, memory / memory.sum())[: len(level)]
    gain = np.clip((level / (slow + 1e-6)) ** punch, 0.35, 2.8)
    curve = np.interp(np.arange(audio.shape[1]), (np.arange(len(gain)) + 0.5) * hop, gain)
    return audio * curve.astype(np.float32)


def distort(audio: Audio, drive: float) -> Audio:
    """Soft, slightly asymmetric clipping; the level stays about the same."""
    peak = float(np.percentile(np.abs(audio[:, ::7]), 99.5)) + 1e-9
    x = audio * np.float32(drive / peak)
    bias = np.float32(0.15)
    return ((np.tanh(x + bias) - np.tanh(bias)) * np.float32(peak)).astype(np.float32)


def limit(audio: Audio, ceiling: float) -> Audio:
    """Bend what exceeds 0.7 of the ceiling so that nothing exceeds it; quieter samples are untouched."""
    knee = np.float32(0.7 * ceiling)
    size = np.abs(audio)
    over = size > knee
    if not over.any():
        return audio
    out = audio.copy()
    rest = np.float32(0.3 * ceiling)
    out[over] = np.sign(audio[over]) * (knee + rest * np.tanh((size[over] - knee) / rest))
    return out


def modulate(audio: Audio, speed: float, depth: float, rate: int, phase: float) -> Audio:
    """Chorus: add a copy whose delay swings by `depth` seconds, opposite in the two channels."""
    frames = audio.shape[1]
    time = np.arange(frames, dtype=np.float32)
    out = np.empty_like(audio)
    for channel in range(2):
        swing = np.sin(time * np.float32(2 * np.pi * speed / rate) + np.float32(phase + np.pi * channel))
        delay = np.float32((0.008 + depth) * rate) + np.float32(depth * rate) * swing
        whole = delay.astype(np.int32)
        part = delay - whole
        index = np.maximum(np.arange(frames, dtype=np.int32) - whole, 1)
        line = audio[channel]
        out[channel] = line + 0.7 * ((1 - part) * line[index] + part * line[index - 1])
    return out


def apply(audio: Audio, strip: Strip, rate: int) -> Audio:
    """Run (2, frames) through a strip. The level afterwards is arbitrary: the mixer sets it."""
    out = audio.astype(np.float32, copy=True)
    middle, side = (out[0] + out[1]) / 2, (out[0] - out[1]) / 2
    out[0], out[1] = middle + np.float32(strip.width) * side, middle - np.float32(strip.width) * side
    if strip.squash:
        out = compress(out, strip.squash, rate)
    if strip.punch:
        out = shape(out, strip.punch, rate)
    if strip.drive:
        out = distort(out, strip.drive)
    if strip.chorus[1]:
        out = modulate(out, *strip.chorus, rate, phase=strip.seed % 6)
    impulse = _impulse(strip, rate)
    if impulse.shape[1] > 1 or strip.bands:
        out = convolve(out, impulse, strip.bands, rate)
    curve = _motion(strip, out.shape[1], rate)
    if curve is not None:
        out *= curve
    angle = (strip.pan + 1) * np.pi / 4
    out *= np.array([[np.cos(angle)], [np.sin(angle)]], dtype=np.float32) * np.float32(np.sqrt(2))
    return out


def _motion(strip: Strip, frames: int, rate: int) -> Audio | None:
    """Tremolo and slow fader moves as a gain curve."""
    speed, depth = strip.tremolo
    if not depth and not strip.sway:
        return None
    curve = np.ones(frames, dtype=np.float32)
    if strip.sway:
        rng = np.random.default_rng(strip.seed + 1)
        knots = np.clip(rng.normal(0, strip.sway, max(3, int(frames / rate / 6) + 2)), -7, 7)
        curve *= np.interp(np.linspace(0, len(knots) - 1, frames), np.arange(len(knots)), 10 ** (knots / 20)).astype(
            np.float32
        )
    if depth:
        wave = np.sin(np.arange(frames, dtype=np.float32) * np.float32(2 * np.pi * speed / rate))
        curve *= 1 - np.float32(depth) * (0.5 + 0.5 * wave)
    return curve
