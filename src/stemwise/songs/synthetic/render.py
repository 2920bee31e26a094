"""From a piece to audio: each stem through its instrument, its effects and the mixing desk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stemwise.songs.synthetic import effects, synth
from stemwise.songs.synthetic.fonts import Font
from stemwise.songs.synthetic.piece import STEMS, Piece, Track
from stemwise.songs.synthetic.sampler import Touch, play
from stemwise.songs.synthetic.soundfont import opened

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
    def digest(self) -> str:
        """What tells these fonts, in their order, from others: the same seed draws other sounds from others."""
        return hashlib.sha256("".join(font.sha256 for font in self.fonts).encode()).hexdigest()[:16]

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
    return Palette(tuple(fonts), built_in=0.2, shift=5.0, double=0.12, gate=0.35, grit=0.1, mixed=True)


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
    touch: Touch = field(default_factory=Touch)
    level: float = 1.0


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


def _voices(
    track: Track, palette: Palette, common: Font | None, rng: np.random.Generator, cents: float
) -> list[_Voice]:
    more = 1.3 if track.stem in ("guitar", "piano") else 0.8  # where fonts offer least variety
    if not palette.fonts or rng.random() < palette.built_in * more:
        return [_Voice(None)]
    options = palette.kits if track.is_drum else palette.melodic
    if not palette.mixed:
        return [_Voice(common, Touch(power=float(rng.uniform(1.2, 2.2))))]
    if not options:
        return [_Voice(None)]
    count = 2 if rng.random() < palette.double else 1
    voices = []
    for i in range(count):
        font = options[int(rng.integers(len(options)))]
        if track.stem in ("bass", "guitar", "piano"):  # a plucked note that never stops would bury the song
            dry = [f for f in options if not _rings(f, track.program)]
            font = font if font in dry or not dry or rng.random() < 0.15 else dry[int(rng.integers(len(dry)))]
        level = 1.0 if i == 0 else float(rng.uniform(0.2, 1.0))
        voices.append(_Voice(font, _touch(rng, palette, track.is_drum, cents), level))
    return voices


def _touch(rng: np.random.Generator, palette: Palette, is_drum: bool, cents: float) -> Touch:
    """A random departure from the font's own sound: formants, brightness, envelopes, tuning of a kit."""
    shift = float(np.clip(rng.normal(0, 0.45 * palette.shift), -palette.shift, palette.shift))
    if rng.random() < 0.3:
        shift = 0.0
    return Touch(
        shift=0 if is_drum else round(shift),
        tune=0.7 * shift if is_drum else cents / 100,
        bright=float(np.clip(rng.normal(0, 1), -2, 3)) if rng.random() < 0.4 else 0.0,
        release=float(np.exp(rng.normal(0, palette.gate))),
        decay=float(np.exp(rng.normal(0, palette.gate))),
        power=float(rng.uniform(1.0, 2.2)),
        coarse=rng.random() < palette.grit,
    )


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
    for voice in _voices(track, palette, common, rng, cents):
        if voice.font is None:
            audio, name = synth.play(track, rng, rate, frames), "built-in"
        else:
            audio, name = _sampled(track, voice, rate, frames), voice.font.name
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


@lru_cache(maxsize=4096)
def _rings(font: Font, program: int) -> bool:
    """Whether notes of this preset sound on for seconds after their end."""
    zones = [z for z in opened(str(font.path)).zones(0, program) if z.keys[0] <= 55 <= z.keys[1]]
    return any(z.release > 4.0 for z in zones)


def _sampled(track: Track, voice: _Voice, rate: int, frames: int) -> Audio:
    """A track on a sound font, (2, frames); a kit the font lacks is played by its standard kit."""
    font = voice.font
    assert font is not None
    preset = (0, track.program)
    if track.is_drum:
        kit = font.kit(track.program)
        preset = min(font.presets) if font.kit_only else (128, 0 if kit is None else kit)
    return play(opened(str(font.path)), preset, track.notes, rate, frames, voice.touch)


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
