"""Log-mel distances against librosa's spectrogram and simple cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stemwise.codecs.mel import FLOOR
from stemwise.errors import MetricError
from stemwise.metrics.logmel import log_mel, log_mel_l1, log_mel_mse


def noise(seed: int, samples: int = 8000) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((1, samples))).astype(np.float32)


def test_spectrogram_is_librosas() -> None:
    librosa = pytest.importorskip("librosa")
    wave = noise(0)[0]
    theirs = librosa.feature.melspectrogram(
        y=wave, sr=16000, n_fft=1024, hop_length=160, n_mels=64, fmin=0, fmax=8000, power=1.0, pad_mode="reflect"
    )
    ours = log_mel(torch.from_numpy(wave)).numpy()
    np.testing.assert_allclose(ours, np.log(np.maximum(theirs, FLOOR)).T[: len(ours)], atol=1e-4)


def test_gain_is_a_constant_difference() -> None:
    wave = noise(1)
    assert log_mel_l1(2 * wave, wave, 16000) == pytest.approx(math.log(2), abs=1e-5)
    assert log_mel_mse(2 * wave, wave, 16000) == pytest.approx(math.log(2) ** 2, abs=1e-5)
    assert log_mel_mse(wave, wave, 16000) == log_mel_l1(wave, wave, 16000) == 0


def test_silence_has_a_value() -> None:
    silent = np.zeros((2, 8000), np.float32)
    assert log_mel_mse(silent, silent, 16000) == 0
    assert math.isfinite(log_mel_mse(np.repeat(noise(1), 2, 0), silent, 16000))


def test_other_rates_are_resampled() -> None:
    time = np.arange(44100) / 44100
    a, b = (0.2 * np.sin(2 * np.pi * f * time)[None] for f in (440, 460))
    low_a, low_b = (0.2 * np.sin(2 * np.pi * f * np.arange(16000) / 16000)[None] for f in (440, 460))
    assert log_mel_l1(a, b, 44100) == pytest.approx(log_mel_l1(low_a, low_b, 16000), rel=0.2)


def test_bad_signals() -> None:
    with pytest.raises(MetricError, match="channel, time"):
        log_mel_mse(noise(0), noise(0)[:, 1:], 16000)
    with pytest.raises(MetricError, match="too short"):
        log_mel_mse(noise(0, 400), noise(0, 400), 16000)
