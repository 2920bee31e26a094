"""The small models that ship: within their size, and better than the mixture at what they were trained for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stemwise
from stemwise.loading import BUNDLED
from stemwise.metrics.separation import si_sdr_improvement
from stemwise.songs.synthetic import built_in_palette, compose, render


@pytest.mark.parametrize(
    ("name", "size"), [("msdm-band", 8e6), ("gmsdi-band", 12e6), ("componet-band", 8e6), ("msgld-band", 25e6)]
)
def test_they_are_small_and_separate_better_than_the_mixture(name: str, size: float) -> None:
    assert sum(file.stat().st_size for file in (BUNDLED / name).iterdir()) < size
    model = stemwise.load(name, "cpu")
    figures = []
    for seed in (970_001, 970_002):
        song = render(compose(seed, seconds=9.0), built_in_palette(), rate=model.rate)
        stems = {stem: song.stems[stem].mean(0)[None] for stem in model.stems if stem in song.stems}
        mix = np.sum(list(stems.values()), 0).astype(np.float32)
        found = model.separate(mix, rate=model.rate)
        figures += [
            float(si_sdr_improvement(found[part][0, 0], torch.from_numpy(stem[0]), torch.from_numpy(mix[0])))
            for part, stem in stems.items()
            if stem.std() > 1e-3
        ]
    assert np.mean(figures) > 0.5
