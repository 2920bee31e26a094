"""The bundled COCOLA: small, needs no extra, and hears when a part is out of place."""

from __future__ import annotations

import sys

import pytest
import torch

from stemwise.loading import BUNDLED, load_coherence
from stemwise.songs.synthetic import compose
from stemwise.songs.synthetic.render import built_in_palette, render


def test_it_is_small_and_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    load_coherence("cocola", "cpu")
    assert sum(file.stat().st_size for file in (BUNDLED / "cocola").iterdir()) < 12e6


@torch.no_grad()
def test_drums_score_higher_in_place_than_an_eighth_of_a_beat_later() -> None:
    model = load_coherence("cocola", "cpu")
    piece = compose(3, seconds=16.0)
    stems = {
        name: torch.from_numpy(x.mean(0)) for name, x in render(piece, built_in_palette(), rate=16_000).stems.items()
    }
    drums, rest = stems["drums"], sum(audio for name, audio in stems.items() if name != "drums")
    late = round(60 / piece.tempo / 8 * 16_000)
    starts = (16_000, 88_000, 160_000)
    context = torch.stack([rest[start : start + model.window] for start in starts])
    in_place, moved = (
        torch.stack([drums[start - shift : start - shift + model.window] for start in starts]) for shift in (0, late)
    )
    assert model.score(context, in_place).mean() > model.score(context, moved).mean()
