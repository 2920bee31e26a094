"""From a piece to audio: each stem through its instrument, its effects and the mixing desk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stemwise.errors import SongError
from stemwise.songs.synthetic import effects, synth
from stemwise.songs.synthetic.fonts import Font
from stemwise.songs.synthetic.piece import NOTE, STEMS, Piece, Track

Audio = NDArray[np.float32]

#: usual loudness of a sounding stem in dB (root mean square where it plays), before each song's own balance
BALANCE = {"bass": -20.0, "drums": -19.5, "guitar": -22.0, "piano": -22.0, "other": -22.5}


@dataclass(frozen=True)
class Palette:
    """Which sounds a song may use.

    `fonts` may be empty: then all sounds are built in. `built_in` is the chance that a stem uses the built-in
    synthesiser, `shift` the largest timbre shift in semitones, `double` the chance that two fonts play together, `gate`
    how far (log scale) a track's notes may be shortened or lengthened, `grit` the chance of coarse interpolation;
    `mixed` songs draw a font for every track, others one for all.
    """

    fonts: tuple[Font, ...] = ()
    built_in: float = 0.0
    shift: float = 0.0
    double: float = 0.0
    gate: float = 0.0
    grit: float = 0.0
    mixed: bool = False

    @property
    def melodic(self) -> tuple[Font, ...]:
        """Fonts with pitched instruments."""
        return tuple(f for f in self.fonts if not f.kit_only)

    @property
    def kits(self) -> tuple[Font, ...]:
        """Fonts with a drum kit."""
        return tuple(f for f in self.fonts if f.kit_only or f.kit(0) is not None)


def training_palette(fonts: Sequence[Font]) -> Palette:
    """Every stem its own font, with timbre shifts, doubling and own synthesis: as many timbres as can be had."""
    return Palette(tuple(fonts), built_in=0.2, shift=5.0, double=0.12, gate=0.35, grit=0.3, mixed=True)


def single_palette(fonts: Sequence[Font]) -> Palette:
    """One font plays all stems, unaltered: songs to measure on."""
    return Palette(tuple(fonts))


def built_in_palette() -> Palette:
    """No sound font at all."""
    return Palette(built_in=1.0)


@dataclass(frozen=True)
class Rendered:
    """Stems (2, frames) float32 that sum to the mix, and for each what played it."""

    stems: dict[str, Audio]
    rate: int
    sounds: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Voice:
    font: Font | None
    shift: float = 0.0
    level: float = 1.0
    quality: int = 1


def render(piece: Piece, palette: Palette, *, rate: int = 44100, seed: int | None = None) -> Rendered:
    """Play and mix a piece. Deterministic in (piece, palette, rate, seed); `seed` defaults to the piece's own.

    Silent stems are left out. One common gain brings the mix's peak below 0.9; stems always sum to the mix.
    """
    rng = np.random.default_rng([piece.seed if seed is None else seed, 0x5EED])
    frames = round(piece.seconds * rate)
    cents = float(rng.uniform(-30, 30)) if palette.shift and rng.random() < 0.4 else 0.0
    stems: dict[str, Audio] = {}
    sounds: dict[str, tuple[str, ...]] = {}
    melodic = palette.melodic
    common = melodic[int(rng.integers(len(melodic)))] if melodic else None
    for stem, child in zip(STEMS, rng.spawn(len(STEMS)), strict=True):
        tracks = [t for t in piece.tracks if t.stem == stem]
        if not tracks:
            continue
        audio = np.zeros((2, frames), dtype=np.float32)
        names: list[str] = []
        for track in tracks:
            one, used = _play(track, palette, common, child, rate, frames, cents)
            audio += one * np.float32(10 ** (child.normal(0, 2) / 20))
            names += used
        if np.abs(audio).max() > 1e-5:
            stems[stem], sounds[stem] = audio, tuple(names)
    return Rendered(mix(stems, rng, rate), rate, sounds)


def _voices(track: Track, palette: Palette, common: Font | None, rng: np.random.Generator) -> list[_Voice]:
    more = 1.3 if track.stem in ("guitar", "piano") else 0.8  # where fonts offer least variety
    if not palette.fonts or rng.random() < palette.built_in * more:
        return [_Voice(None)]
    options = palette.kits if track.is_drum else palette.melodic
    if not palette.mixed:
        return [_Voice(common)]
    if not options:
        return [_Voice(None)]
    count = 2 if rng.random() < palette.double else 1
    voices = []
    for i in range(count):
        font = options[int(rng.integers(len(options)))]
        if track.stem in ("bass", "guitar", "piano"):  # a plucked note that never stops would bury the song
            dry = [f for f in options if not _rings(f, track.program)]
            font = font if font in dry or not dry or rng.random() < 0.15 else dry[int(rng.integers(len(dry)))]
        shift = float(np.clip(rng.normal(0, 0.45 * palette.shift), -palette.shift, palette.shift))
        if rng.random() < 0.3:
            shift = 0.0
        quality = int(rng.choice((0, 0, 2))) if rng.random() < palette.grit else 1
        level = 1.0 if i == 0 else float(rng.uniform(0.2, 1.0))
        voices.append(_Voice(font, shift if track.is_drum else float(round(shift)), level, quality))
    return voices


def _play(
    track: Track, palette: Palette, common: Font | None, rng: np.random.Generator, rate: int, frames: int, cents: float
) -> tuple[Audio, list[str]]:
    """One track on its sounds, then its strip of effects, at the usual loudness."""
    distorted = {29: 0.35, 30: 0.45, 28: 0.15, 27: 0.12, 34: 0.12, 33: 0.06, 38: 0.15, 81: 0.2, 18: 0.25}.get(
        track.program, 0.03
    )
    strip = effects.draw(rng, track.stem, distorted=0.02 if track.is_drum else distorted)
    if palette.gate and not track.is_drum:
        track = _gated(track, float(np.exp(rng.normal(0, palette.gate))))
    total = np.zeros((2, frames), dtype=np.float32)
    names: list[str] = []
    for voice in _voices(track, palette, common, rng):
        if voice.font is None:
            audio, name = synth.play(track, rng, rate, frames), "built-in"
        else:
            audio, name = _sampled(track, voice, rng, rate, frames, cents), voice.font.name
        loud = loudness(audio, rate)
        if loud > -90:
            total += audio * np.float32(voice.level * 10 ** ((-20 - loud) / 20))
            names.append(name)
    total = effects.apply(total, strip, rate)
    loud = loudness(total, rate)
    total = effects.limit(total, 10 ** ((loud + rng.uniform(10, 18)) / 20))
    return total * np.float32(10 ** ((BALANCE[track.stem] - loud) / 20) if loud > -90 else 0.0), names


def _gated(track: Track, factor: float) -> Track:
    """Shorter or longer notes, as another player's touch or another patch's envelope would make them."""
    notes = track.notes.copy()
    ends = notes["start"].max() + notes["duration"].max()
    notes["duration"] = np.clip(notes["duration"] * min(factor, 1.6), 0.05, ends - notes["start"])
    return replace(track, notes=notes)


def loudness(audio: Audio, rate: int) -> float:
    """Level in dB of the sounding part: the power mean over 50 ms blocks within 35 dB of the loudest."""
    level = effects.levels(audio, rate // 20)
    sounding = level[level > level.max() * 10 ** (-35 / 20)]
    return float(10 * np.log10(np.mean(sounding**2) + 1e-12))


@lru_cache(maxsize=12)
def _synthesizer(path: str, rate: int, quality: int) -> Any:
    try:
        import symusic
    except ImportError as error:
        raise SongError(
            "sound fonts are played by symusic, which is not installed. Remedy: pip install 'stemwise[midi]'."
        ) from error
    return symusic.Synthesizer(sf_path=path, sample_rate=rate, quality=quality)


@lru_cache(maxsize=4096)
def _rings(font: Font, program: int) -> bool:
    """Whether a short note of this preset still sounds loudly half a second after its end."""
    note = np.array([(0.0, 0.3, 52, 100)], dtype=NOTE)
    rate = 22050
    audio = _notes(note, program, False, str(font.path), rate, 1)
    at = [
        effects.levels(audio[:, int(t * rate) : int((t + 0.1) * rate)], 2205)[0]
        if audio.shape[1] > (t + 0.1) * rate
        else 0.0
        for t in (0.2, 0.8)
    ]
    return bool(at[1] > 0.3 * at[0])


def _notes(notes: NDArray[np.void], program: int, is_drum: bool, path: str, rate: int, quality: int) -> Audio:
    """Play notes (seconds) on one preset. symusic 0.5 ignores velocity, controllers and pitch bends."""
    import symusic

    score = symusic.Score(480, ttype="second")
    track = symusic.Track("", program, is_drum, ttype="second")
    track.notes = symusic.Note.from_numpy(
        notes["start"].astype(np.float32),
        notes["duration"].astype(np.float32),
        notes["pitch"].astype(np.int8),
        notes["velocity"].astype(np.int8),
        "second",
    )
    score.tracks.append(track)
    return np.asarray(_synthesizer(path, rate, quality).render(score, stereo=True), dtype=np.float32)


def _sampled(track: Track, voice: _Voice, rng: np.random.Generator, rate: int, frames: int, cents: float) -> Audio:
    """A track on a sound font, (2, frames).

    The voice's `shift` moves the timbre (formants and envelopes) by that many semitones and leaves pitch and time
    alone: the score is transposed down and slowed, synthesised at a lower rate and then read at `rate`. For drums,
    which have no pitch to keep, it tunes the kit. `cents` detunes everything in the same way.

    The synthesiser plays all velocities equally loud, so the notes are rendered in layers of like velocity, each with
    its own gain.
    """
    font, shift = voice.font, voice.shift
    assert font is not None
    factor = 2 ** ((shift + cents / 100) / 12)
    internal = round(rate / factor)
    factor = rate / internal
    program, as_drum = track.program, track.is_drum
    if track.is_drum:
        kit = font.kit(track.program)
        if font.kit_only:
            program, as_drum = min(p for _, p in font.presets), False
        elif kit is None:
            return np.zeros((2, frames), dtype=np.float32)
        else:
            program = kit
    notes = track.notes.copy()
    notes["start"] *= factor
    notes["duration"] *= factor
    if not track.is_drum:
        notes["pitch"] -= round(shift)
    power = float(rng.uniform(0.9, 2.0))
    out = np.zeros((2, frames), dtype=np.float32)
    order = np.argsort(notes["velocity"], kind="stable")
    for group in np.array_split(order, min(4, max(1, len(order) // 8))):
        gain = (float(notes["velocity"][group].mean()) / 100) ** power
        audio = _notes(notes[np.sort(group)], program, as_drum, str(font.path), internal, voice.quality)[:, :frames]
        out[:, : audio.shape[1]] += np.float32(gain) * audio
    return out


def mix(stems: dict[str, Audio], rng: np.random.Generator, rate: int) -> dict[str, Audio]:
    """Balance the stems (each a few dB off its usual level), then one common gain for all of them."""
    spread = float(rng.uniform(1.5, 4.0))
    mono = rng.random() < 0.08
    out: dict[str, Audio] = {}
    for stem, audio in stems.items():
        gain = 10 ** (float(np.clip(rng.normal(0, spread), -9, 7)) / 20)
        out[stem] = (audio.mean(axis=0, keepdims=True).repeat(2, 0) if mono else audio) * np.float32(gain)
    if not out:
        return out
    fade = np.ones(next(iter(out.values())).shape[1], dtype=np.float32)
    last = min(len(fade), rate // 20)
    fade[-last:] = np.linspace(1, 0, last, dtype=np.float32)
    peak = float(np.abs(sum(out.values())).max())
    alone = max(float(np.abs(a).max()) for a in out.values())
    ceiling = 0.9 * 10 ** (-float(rng.exponential(3.0)) / 20)
    gain = ceiling / max(peak, alone, 1e-9)
    return {stem: audio * fade * np.float32(gain) for stem, audio in out.items()}
