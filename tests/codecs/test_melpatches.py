"""Latents that need no training: nothing is lost on the way, and waves come back with the right spectrogram."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from stemwise.codecs.mel import Mel
from stemwise.codecs.melpatches import CENTRE, SPREAD, MelPatches, MelPatchesConfig
from stemwise.errors import ModelError

CONFIG = MelPatchesConfig(patch=(4, 8), mel=Mel(rate=8000, fft=256, hop=64, bands=32), window=8192)


def test_latents_are_the_spectrogram_in_another_order() -> None:
    codec = MelPatches(CONFIG)
    wave = 0.1 * torch.randn(2, 3, 8192)
    latent = codec.encode(wave)
    assert latent.shape == (2, 3, *CONFIG.shape(8192)) == (2, 3, 32, 32, 4)
    torch.testing.assert_close(codec.levels(latent), CONFIG.mel.log(wave), atol=1e-5, rtol=0)
    first = CONFIG.mel.log(wave)[0, 0, :4, 8:16]  # the patch of the first frames and the second eight bands
    torch.testing.assert_close(latent[0, 0, :, 0, 1] * SPREAD + CENTRE, first.flatten(), atol=1e-5, rtol=0)


def test_rounds_of_phase_bring_the_spectrogram_nearer() -> None:
    time = torch.arange(8192) / 8000
    wave = 0.3 * (torch.sin(2 * math.pi * 440 * time) + torch.sin(2 * math.pi * 660 * time * (1 + time)))[None]
    errors = []
    for rounds in (0, 30):
        codec = MelPatches(replace(CONFIG, rounds=rounds))
        made = codec.decode(codec.encode(wave))
        assert made.shape == wave.shape
        real = CONFIG.mel.log(wave).exp()
        errors.append(float((CONFIG.mel.log(made).exp() - real).norm() / real.norm()))
    assert errors[1] < 0.7 * errors[0]


def test_silence_is_silent_and_what_no_music_has_stays_finite() -> None:
    codec = MelPatches(CONFIG)
    assert float(codec.decode(codec.encode(torch.zeros(1, 8192))).abs().max()) < 1e-3
    assert torch.isfinite(codec.decode(torch.full((1, 32, 32, 4), 1e4))).all()


def test_lengths_and_patches_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="not a multiple of 256"):
        MelPatches(CONFIG).encode(torch.zeros(1, 100))
    with pytest.raises(ValueError, match="must divide"):
        replace(CONFIG, patch=(4, 5))
