"""The bundled COCOLA: small, needs no extra, and hears when a part is out of place."""

from __future__ import annotations

import sys
from functools import cache

import pytest
import torch

from stemwise.coherence.search import Grid
from stemwise.loading import BUNDLED, load_coherence
from stemwise.scores import Listening, search_offset
from stemwise.songs.synthetic import compose
from stemwise.songs.synthetic.render import built_in_palette, render


def test_it_is_small_and_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    load_coherence("cocola", "cpu")
    assert sum(file.stat().st_size for file in (BUNDLED / "cocola").iterdir()) < 12e6


@cache
def rendered(seed: int, semitones: int) -> dict[str, torch.Tensor]:
    """Mono stems at 16 kHz of a piece in another key, not of an effect."""
    song = render(compose(seed, seconds=16.0).transposed(semitones), built_in_palette(), rate=16_000)
    return {name: torch.from_numpy(audio.mean(0)) for name, audio in song.stems.items()}


@torch.no_grad()
def test_drums_score_higher_in_place_than_an_eighth_of_a_beat_later() -> None:
    model = load_coherence("cocola", "cpu")
    stems, piece = rendered(3, 0), compose(3, seconds=16.0)
    drums, rest = stems["drums"], sum(audio for name, audio in stems.items() if name != "drums")
    late = round(60 / piece.tempo / 8 * 16_000)
    starts = (16_000, 88_000, 160_000)
    context = torch.stack([rest[start : start + model.window] for start in starts])
    in_place, moved = (
        torch.stack([drums[start - shift : start - shift + model.window] for start in starts]) for shift in (0, late)
    )
    assert model.score(context, in_place).mean() > model.score(context, moved).mean()


@torch.no_grad()
@pytest.mark.parametrize("semitones", [1, 6])
def test_a_bass_in_the_key_scores_higher_than_one_in_another(semitones: int) -> None:
    model, differences = load_coherence("cocola", "cpu"), []
    for seed in (3, 5):
        stems, moved = rendered(seed, 0)["bass"], rendered(seed, semitones)["bass"]
        context = sum(audio for name, audio in rendered(seed, 0).items() if name not in ("bass", "drums"))
        cut = [slice(start, start + model.window) for start in (16_000, 96_000, 160_000)]
        scores = [
            model.score(torch.stack([context[c] for c in cut]), torch.stack([x[c] for c in cut]))
            for x in (stems, moved)
        ]
        differences.append(scores[0] - scores[1])
    assert torch.cat(differences).mean() > 0


@pytest.mark.parametrize("semitones", [0, 1])
def test_a_search_finds_a_bass_in_another_key_without_a_vocoder(
    monkeypatch: pytest.MonkeyPatch, semitones: int
) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    stems = {name: audio for name, audio in rendered(5, 0).items() if name != "drums"}
    stems["bass"] = rendered(5, semitones)["bass"]
    how = Listening(load_coherence("cocola", "cpu"), hop=5.0)
    found = search_offset(stems, "bass", Grid((0.0,), (-2, -1, 0, 1, 2)), rate=16_000, how=how)
    assert found.best.semitones == -semitones
