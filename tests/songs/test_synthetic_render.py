"""Rendering: stems that sum to the mix, pitch kept under timbre shifts, levels, effects, the built-in synthesiser."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.errors import SongError
from stemwise.songs.synthetic import (
    NOTE,
    Font,
    Piece,
    Section,
    Track,
    built_in_palette,
    compose,
    effects,
    fonts,
    render,
    single_palette,
    synth,
    training_palette,
)
from stemwise.songs.synthetic.render import loudness
from stemwise.songs.synthetic.sampler import Touch, play
from stemwise.songs.synthetic.soundfont import opened

RATE = 22050


def _scale(stem: str = "piano", program: int = 0, pitches: tuple[int, ...] = (57, 64, 69)) -> Track:
    notes = np.array([(i * 1.0, 0.8, p, 100) for i, p in enumerate(pitches)], dtype=NOTE)
    return Track(stem, program, False, "test", notes)


def _pitch(audio: np.ndarray, rate: int) -> float:
    """Fundamental in hertz by the autocorrelation of the middle of a note, refined by a parabola."""
    x = audio.mean(axis=0) * np.hanning(audio.shape[1])
    spectrum = np.abs(np.fft.rfft(x, 4 * len(x))) ** 2
    r = np.fft.irfft(spectrum)[: len(x)]
    low, high = int(rate / 600), int(rate / 150)
    k = low + int(np.argmax(r[low:high]))
    a, b, c = r[k - 1 : k + 2]
    return rate / (k + 0.5 * (a - c) / (a - 2 * b + c))


def _cents(measured: float, pitch: int) -> float:
    return 1200 * np.log2(measured / (440 * 2 ** ((pitch - 69) / 12)))


@pytest.fixture(scope="module")
def training_fonts() -> tuple[Font, ...]:
    try:
        found = fonts("train")
    except SongError:
        pytest.skip("no training font is installed")
    return found


@pytest.mark.parametrize("seed", [0, 3, 11])
def test_built_in_songs_need_no_font_and_peak_below_point_nine(seed: int) -> None:
    piece = compose(seed, seconds=8)
    song = render(piece, built_in_palette(), rate=RATE)
    assert tuple(song.stems) == tuple(s for s in piece.stems if s in song.stems) and len(song.stems) >= 1
    for stem, audio in song.stems.items():
        assert audio.shape == (2, round(8 * RATE)) and audio.dtype == np.float32, stem
        assert np.isfinite(audio).all() and np.abs(audio).max() > 1e-3
        assert song.sounds[stem] and set(song.sounds[stem]) == {"built-in"}
    mix = np.sum(list(song.stems.values()), axis=0)
    assert 0.02 < np.abs(mix).max() <= 0.9 + 1e-4


def test_rendering_is_deterministic_and_its_seed_matters() -> None:
    piece = compose(5, seconds=4)
    one, two = (render(piece, built_in_palette(), rate=RATE) for _ in range(2))
    other = render(piece, built_in_palette(), rate=RATE, seed=99)
    assert all(np.array_equal(one.stems[s], two.stems[s]) for s in one.stems)
    assert any(not np.array_equal(one.stems[s], other.stems[s]) for s in one.stems)


@pytest.mark.parametrize("program", [0, 4, 19, 25, 33, 38, 48, 73, 81])
def test_built_in_instruments_are_in_tune(program: int) -> None:
    for draw in range(3):
        audio = synth.play(_scale(program=program), np.random.default_rng(draw), RATE, 4 * RATE)
        for i, pitch in enumerate((57, 64, 69)):
            held = audio[:, int((i + 0.15) * RATE) : int((i + 0.7) * RATE)]
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            x = np.abs(np.fft.rfft(held.mean(axis=0) * np.hanning(held.shape[1]), 1 << 17))
            axis = np.fft.rfftfreq(1 << 17, 1 / RATE)
            peak = axis[np.argmax(x)] / frequency
            assert abs(peak - round(peak)) < 0.03 * round(peak) and round(peak) >= 1, (program, draw, peak)


def test_effects_keep_length_and_do_not_anticipate() -> None:
    """No strip may make sound before its input: an early ring would put stems out of sync."""
    click = np.zeros((2, RATE), dtype=np.float32)
    click[:, 8000] = 1.0
    for seed in range(40):
        strip = effects.draw(np.random.default_rng(seed), ("guitar", "drums", "other")[seed % 3], distorted=0.4)
        out = effects.apply(click, strip, RATE)
        assert out.shape == click.shape and np.isfinite(out).all()
        before, after = np.abs(out[:, :7990]).max(), np.abs(out[:, 7990:]).max()
        assert before < 2e-3 * after, seed


@settings(max_examples=15, deadline=None)
@given(frequency=st.floats(100, 6000), decibels=st.floats(-12, 12), kind=st.sampled_from(["peak", "low", "high"]))
def test_equaliser_reaches_its_gain(frequency: float, decibels: float, kind: str) -> None:
    response = effects.equaliser((effects.Band(kind, frequency, decibels),), 4096, RATE)
    axis = np.fft.rfftfreq(4096, 1 / RATE)
    index = {"peak": int(np.argmin(np.abs(axis - frequency))), "low": 0, "high": len(axis) - 1}[kind]
    assert 20 * np.log10(abs(response[index])) == pytest.approx(decibels, abs=0.6)


def test_convolution_equals_the_direct_sum() -> None:
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((2, 5000)).astype(np.float32)
    impulse = rng.standard_normal((2, 700)).astype(np.float32)
    got = effects.convolve(audio, impulse, (), RATE)
    want = np.stack([np.convolve(a, h)[:5000] for a, h in zip(audio, impulse, strict=True)])
    assert np.abs(got - want).max() < 1e-3


def test_limiter_leaves_quiet_samples_alone() -> None:
    x = np.linspace(-2, 2, 401, dtype=np.float32)[None].repeat(2, 0)
    y = effects.limit(x, 1.0)
    assert np.abs(y).max() <= 1.0
    assert np.array_equal(y[np.abs(x) < 0.7], x[np.abs(x) < 0.7])
    assert (np.diff(y[0]) >= 0).all()


def _play(one: Font, notes: np.ndarray, touch: Touch, seconds: float, program: int = 0) -> np.ndarray:
    return play(opened(str(one.path)), (0, program), notes, RATE, round(seconds * RATE), touch)


@pytest.mark.parametrize("program", [0, 24, 25, 33, 48, 61, 73])
def test_every_font_plays_in_tune(training_fonts: tuple[Font, ...], program: int) -> None:
    """Regression: a player that mistakes the root key doubles intervals or shifts them by octaves."""
    notes = _scale().notes
    for one in training_fonts:
        if one.kit_only:
            continue
        audio = _play(one, notes, Touch(), 3, program)
        for i, pitch in enumerate((57, 64, 69)):
            part = audio[:, int((i + 0.2) * RATE) : int((i + 0.75) * RATE)]
            error = (_cents(_pitch(part, RATE), pitch) + 600) % 1200 - 600  # strong overtones may win: octaves are fine
            assert abs(error) < 40 or abs(abs(error) - 498) < 40, (one.name, program, pitch, error)


@pytest.mark.parametrize("shift", [-5, 4])
def test_timbre_shift_keeps_pitch_and_time(training_fonts: tuple[Font, ...], shift: int) -> None:
    one = next(f for f in training_fonts if f.name.startswith(("FluidR3", "MuseScore")))
    plain, moved = (_play(one, _scale().notes, Touch(shift=s), 4) for s in (0, shift))
    for i, pitch in enumerate((57, 64, 69)):
        part = slice(int((i + 0.2) * RATE), int((i + 0.7) * RATE))
        for audio in (plain, moved):  # a font's samples are up to 22 cents out of tune; a shift not undone is 400
            assert abs(_cents(_pitch(audio[:, part], RATE), pitch)) < 30
        notes = [np.abs(a[:, i * RATE : (i + 1) * RATE]).max(0) for a in (plain, moved)]
        onset = [int(np.argmax(note > 0.3 * note.max())) for note in notes]
        assert abs(onset[0] - onset[1]) < 0.03 * RATE
    assert np.abs(plain - moved).max() > 0.01


def test_tuning_moves_the_pitch(training_fonts: tuple[Font, ...]) -> None:
    one = next(f for f in training_fonts if f.name.startswith(("FluidR3", "MuseScore")))
    part = slice(int(0.2 * RATE), int(0.7 * RATE))
    audio = [_play(one, _scale().notes, Touch(tune=t), 1)[:, part] for t in (0.0, 0.3)]
    assert 1200 * np.log2(_pitch(audio[1], RATE) / _pitch(audio[0], RATE)) == pytest.approx(30, abs=6)


def test_velocity_and_release_are_heard(training_fonts: tuple[Font, ...]) -> None:
    one = next(f for f in training_fonts if not f.kit_only)
    notes = np.array([(0.0, 0.4, 60, 35), (2.0, 0.4, 60, 115)], dtype=NOTE)
    audio = _play(one, notes, Touch(), 4, program=16)
    soft, loud = audio[:, : int(0.4 * RATE)], audio[:, 2 * RATE : int(2.4 * RATE)]
    assert loudness(loud, RATE) - loudness(soft, RATE) > 6
    assert np.abs(audio[:, int(3.5 * RATE) :]).max() < 0.01 * np.abs(audio).max()


def test_training_songs_mix_fonts_and_others_use_one(training_fonts: tuple[Font, ...]) -> None:
    pieces = [compose(seed, seconds=3) for seed in range(6)]
    mixed = [render(p, training_palette(training_fonts), rate=RATE) for p in pieces]
    assert max(len({n for names in song.sounds.values() for n in names}) for song in mixed) >= 3
    one = [f for f in training_fonts if f.kit(0) is not None and not f.kit_only][:1]
    for piece in pieces:
        song = render(piece, single_palette(one), rate=RATE)
        assert {n for names in song.sounds.values() for n in names} <= {one[0].name}
        assert np.abs(np.sum(list(song.stems.values()), axis=0)).max() <= 0.9 + 1e-4


def test_a_silent_piece_gives_no_stems() -> None:
    piece = Piece(0, 3.0, "pop", (4, 4), "C", "major", 0.5, 1, (Section("verse", 0, 1, 0.0, 120.0, ()),), ())
    assert render(piece, built_in_palette(), rate=RATE).stems == {}
