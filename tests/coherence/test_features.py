"""Features: equal to the published ones and to librosa's definition, differentiable, the same for a song at once."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from published_cocola import tensors
from stemwise.coherence.features import HarmonicPercussive, HarmonicPercussivePitch, LogMel

EDGES = ("silence", "click", "dc", "mixture", "quiet mixture", "nearly silent mixture")


@pytest.fixture(scope="module")
def audio() -> torch.Tensor:
    return tensors("features_audio")["audio_int16"].float() / 32768


def test_harmonic_percussive_equals_the_published(audio: torch.Tensor) -> None:
    expected = tensors("features_hpss")["hpss"]
    assert (HarmonicPercussive()(audio.double()) - expected).abs().max() < 1e-4
    assert (HarmonicPercussive()(audio) - expected).abs().max() < 1e-2


def test_log_mel_equals_the_published(audio: torch.Tensor) -> None:
    assert (LogMel()(audio) - tensors("features_mel")["mel"]).abs().max() < 1e-2


@pytest.mark.parametrize("number", range(6), ids=EDGES)
def test_edge_cases_equal_the_published(number: int) -> None:
    edges = tensors("hpss_edges")
    audio = edges["audio"][number : number + 1]
    assert (HarmonicPercussive()(audio.double()) - edges["hpss"][number]).abs().max() < 1e-4
    tolerance = 1.0 if EDGES[number] == "dc" else 1e-2  # its empty bins hold the rounding errors of float32
    assert (LogMel()(audio) - edges["mel"][number]).abs().max() < tolerance


def test_harmonic_percussive_equals_librosa() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(24_000) / 16_000
    audio = np.sin(2 * np.pi * 440 * time) * np.exp(-3 * (time % 0.5)) + 0.05 * rng.standard_normal(24_000)
    audio = audio.astype(np.float32)
    spectrum = librosa.stft(audio, n_fft=1024, hop_length=160, win_length=400)
    parts = librosa.decompose.hpss(spectrum)
    expected = [
        librosa.power_to_db(
            librosa.feature.melspectrogram(S=np.abs(part) ** 2, sr=16_000, n_mels=64, fmin=60, fmax=7800), ref=np.max
        )
        for part in parts
    ]
    found = HarmonicPercussive()(torch.from_numpy(audio)[None].double())[0]
    assert np.abs(found.numpy() - np.stack(expected)).max() < 1e-3


def test_a_batch_is_its_rows(audio: torch.Tensor) -> None:
    for features in (HarmonicPercussive(), LogMel()):
        rows = torch.cat([features(row) for row in audio.split(1)])
        assert (features(audio) - rows).abs().max() < 1e-3


def test_windows_of_a_song_differ_from_single_ones_at_their_ends_only() -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(240_000) / 16_000
    song = sum(torch.sin(2 * torch.pi * f * place) for f in (220, 330, 440)) * (1.2 - (place * 2) % 1)
    song = 0.1 * song + 0.02 * torch.randn(240_000, generator=generator)
    starts = [0, 40_000, 80_160, 160_000]
    windows = torch.stack([song[start : start + 80_000] for start in starts])

    percussive = HarmonicPercussive()
    difference = percussive.windows(song, starts, 80_000) - percussive(windows)
    inside = difference[..., 17:-17]
    offset = inside.flatten(2).median(dim=2).values[..., None, None]  # what is 0 dB may differ
    audible = percussive(windows)[..., 17:-17] > -79.0
    assert ((inside - offset).abs() * audible).max() < 1e-2
    assert offset.abs().max() < 3.0
    assert difference[1:3].abs().mean() < 1.0
    assert (difference[0, ..., :300] - offset[0]).abs().max() < 1e-2  # a song's own beginning is silent before it, too

    mel = LogMel()
    difference = mel.windows(song, starts, 80_000) - mel(windows)
    assert difference[..., 2:-2].abs().max() < 1e-2


def test_windows_of_a_song_start_on_frames() -> None:
    with pytest.raises(ValueError, match="160"):
        HarmonicPercussive().windows(torch.randn(20_000), [100], 16_000)


def test_the_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    audio = (torch.sin(torch.arange(8000) * 0.3) + 0.3 * torch.randn(8000, generator=generator))[None].double()
    direction = torch.randn(1, 8000, generator=generator).double()
    features = HarmonicPercussive()

    def level(x: torch.Tensor) -> torch.Tensor:
        return features(x).double().mean()

    x = audio.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(level(x), x)
    step = 1e-4
    numeric = (level(audio + step * direction) - level(audio - step * direction)) / (2 * step)
    assert torch.isfinite(gradient).all()
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=0.05)


def test_the_gradient_of_silence_is_finite() -> None:
    audio = torch.zeros(1, 16_000, requires_grad=True)
    (gradient,) = torch.autograd.grad(HarmonicPercussive()(audio).sum() + LogMel()(audio).sum(), audio)
    assert torch.isfinite(gradient).all()


def test_a_third_channel_tells_semitones_apart() -> None:
    time = torch.arange(80_000) / 16_000
    notes = range(48, 100, 3)
    audio = torch.stack([0.1 * torch.sin(2 * torch.pi * 440 * 2 ** ((note - 69) / 12) * time) for note in notes])
    found = HarmonicPercussivePitch()(audio)
    assert found.shape == (len(notes), 3, 64, 501) and torch.equal(found[:, :2], HarmonicPercussive()(audio))
    inside = found[:, 2, :, 30:-30]
    for levels, note in zip(inside, notes):
        row = note - 40
        assert bool((levels.argmax(0) == row).all())
        assert float((levels[row] - levels[[row - 1, row + 1]].amax(0)).min()) > 5.0, note


@pytest.mark.parametrize("semitones", [-5, 2, 12])
def test_semitones_can_be_transposed_without_the_sound(semitones: int) -> None:
    time = torch.arange(80_000) / 16_000
    low, high = (0.1 * torch.sin(2 * torch.pi * 440 * 2 ** ((n - 69) / 12) * time) for n in (60, 60 + semitones))
    features = HarmonicPercussivePitch()
    given = features(low[None])
    moved = features.transposed(given, semitones)
    assert torch.equal(moved[:, :2], given[:, :2])
    assert torch.equal(moved[0, 2, :, 250].topk(3).indices, features(high[None])[0, 2, :, 250].topk(3).indices)
    back, row = features.transposed(moved, -semitones), 60 - 40
    assert torch.equal(back[:, 2, row - 3 : row + 4], given[:, 2, row - 3 : row + 4])
    between = features.transposed(given, semitones - 0.5)
    assert between[0, 2, row + semitones, 250] == pytest.approx(
        float(given[0, 2, [row, row + 1], 250].mean()), abs=1e-4
    )


def test_semitones_of_a_song_at_once_are_those_of_its_windows(audio: torch.Tensor) -> None:
    song = torch.cat([audio.flatten(), audio.flatten()])[:200_000]
    features, starts = HarmonicPercussivePitch(), [0, 40_160, 80_000]
    whole = features.windows(song, starts, 80_000)
    single = features(torch.stack([song[start : start + 80_000] for start in starts]))
    assert whole.shape == single.shape
    difference = (whole - single)[:, 2, :, 40:-40]
    offset = difference.flatten(1).median(dim=1).values[:, None, None]
    assert ((difference - offset).abs() * (single[:, 2, :, 40:-40] > -60)).max() < 0.05
