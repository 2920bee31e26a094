"""Soft evidence reaches the band's sampler, and coherence as an energy raises its score."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stemwise.checkpoint import load_model
from stemwise.coherence.guidance import coherence_energy, resampled
from stemwise.diffusion.guidance import energy_at_x0
from stemwise.systems.band import Band
from stemwise.systems.band_system import BandSystem
from stemwise.systems.system import Context
from tiny_band import RATE, music, write_tiny_band


class Loudness(nn.Module):
    """Scores how loud the same 20 stretches of a third of a second are on both sides."""

    rate, window, parts = 8000, 2660, ("both",)

    def features(self, audio: Tensor) -> Tensor:
        return audio.square().unflatten(1, (20, -1)).mean(2)

    def mask(self, features: Tensor, part: str) -> Tensor:
        return features

    def embed(self, features: Tensor) -> Tensor:
        return features

    def similarity(self, context: Tensor, made: Tensor) -> Tensor:
        return context @ made.T


def test_a_guided_window_scores_higher_from_the_same_seed(tmp_path: Path) -> None:
    band = load_model(write_tiny_band(tmp_path / "tiny"))
    assert isinstance(band, Band)
    heard = torch.from_numpy(music(1.0))[:, : band.config.window]
    context, encoder, asked = Context({"drums": heard}, {}, 0.2), Loudness(), []

    def guide(denoiser, given, decode, strength=5000):  # type: ignore[no-untyped-def]
        asked.append(decode(torch.zeros(1, 2, 2, band.codec.frames(band.config.window), band.config.bins)).shape)
        assert given is context
        energy = coherence_energy(encoder, heard, RATE, decode, lambda sigma: strength / (1 + sigma**2))
        return energy_at_x0(denoiser, energy)

    plain = BandSystem(band)
    made = {}
    for name, system in (
        ("plain", replace(plain, guide=lambda d, _, __: d)),
        ("little", replace(plain, guide=partial(guide, strength=100))),
        ("more", replace(plain, guide=guide)),
    ):
        made[name] = system.sample(("bass", "piano"), context, seed=3, steps=4)
    assert asked == [(1, 2, 2, band.config.window)] * 2

    def score(stems: Tensor) -> float:
        sides = [resampled(x.mean(0), RATE, 8000)[None, :2660] for x in (heard, stems.sum(0))]
        return float(encoder.similarity(*(encoder.embed(encoder.features(side)) for side in sides)))

    assert made["more"].isfinite().all()
    assert score(made["more"]) > 1.05 * score(made["plain"]) > 0
    assert score(made["more"]) > score(made["little"]) > score(made["plain"])
    assert pytest.approx(made["plain"].shape) == made["more"].shape
