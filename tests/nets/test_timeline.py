"""The encoder that keeps time: music in another key is the same pitch classes, turned; noise has none."""

from __future__ import annotations

import torch

from stemwise.nets.timeline import Timeline


@torch.no_grad()
def test_pitch_classes_turn_with_the_key_and_do_not_hear_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    harmony = Timeline(3).eval().harmony
    assert harmony is not None
    harmony.octaves.weight.fill_(1.0)  # the octaves alike, so that a note in another octave is the same
    levels = torch.full((1, 64, 63), -60.0)
    for row in torch.randint(12, 48, (6,), generator=generator).tolist():
        levels[:, row, int(row) % 40 :] = -5.0
    turned = harmony(levels).view(10, 2, 12)
    for semitones in (1, 6, 12):
        moved = harmony(levels.roll(semitones, 1)).view(10, 2, 12)
        assert torch.allclose(moved, turned.roll(semitones, 2), atol=1e-5)
    assert harmony(levels * 0 - 20.0).abs().max() < 1e-2  # silence, or noise that is alike everywhere, says nothing


@torch.no_grad()
def test_outputs_are_as_many_as_said_for_any_length() -> None:
    for channels in (1, 2, 3):
        net = Timeline(channels).eval()
        for frames in (33, 501, 700):
            assert net(torch.randn(2, channels, 64, frames)).shape == (2, net.outputs)
