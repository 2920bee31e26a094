"""The spatial filter: what sits elsewhere is told apart, what does not stays a mask, and the parts sum to the mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.codecs.lapped import Lapped
from stemwise.metrics.separation import si_sdr
from stemwise.systems import spatial
from stemwise.systems.spatial import covariances, place_filter, places


def panned(angles: list[float], frames: int = 40, bins: int = 48) -> Tensor:
    """Complex noise (1, stem, 2, frame, bin) of powers that change in time and frequency, each stem at its own angle."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(len(angles), frames, bins, dtype=torch.complex64, generator=generator)
    source = source * torch.rand(len(angles), frames, bins, generator=generator).add(0.02)
    gains = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
    return (gains[:, :, None, None] * source[:, None])[None]


def filtered(stems: Tensor, mix: Tensor) -> Tensor:
    """By the places that the stems themselves say: the real part, and that of the mixture turned by a quarter."""
    place = places(covariances(stems))
    return torch.complex(*(spatial.filtered(stems, turn * mix, place) for turn in (1, -1j)))


def quality(estimate: Tensor, truth: Tensor) -> float:
    """Mean SI-SDR over stems."""
    rows = zip(torch.view_as_real(estimate[0]).flatten(1), torch.view_as_real(truth[0].contiguous()).flatten(1))
    return sum(float(si_sdr(one[None], other[None])) for one, other in rows) / len(truth[0])


def test_stems_that_leak_into_each_other_are_told_apart_by_where_they_are() -> None:
    truth = panned([0.2, 1.3])
    mix = truth.sum(1)
    confused = 0.7 * truth + 0.3 * truth.flip(1)
    assert quality(filtered(confused, mix), truth) > quality(confused, truth) + 6


def test_in_one_place_it_is_a_mask_of_the_mixture() -> None:
    """The same real gain on both channels: nothing is moved, nothing turned."""
    truth = panned([0.7, 0.7, 0.7])
    mix = truth.sum(1)
    mask = filtered(truth, mix) / mix[:, None]
    assert mask.imag.abs().amax() < 1e-2
    torch.testing.assert_close(mask[:, :, 0].real, mask[:, :, 1].real, atol=1e-2, rtol=0)


@pytest.mark.parametrize("angles", [[0.2, 1.3, 0.7], [0.7, 0.7, 0.7]])
def test_they_sum_to_the_mixture(angles: list[float]) -> None:
    truth = panned(angles)
    mix = truth.sum(1)
    assert (filtered(truth, mix).sum(1) - mix).abs().square().mean() < 1e-4 * mix.abs().square().mean()


def test_silence_and_silent_stems_stay_silent() -> None:
    truth = panned([0.2, 1.3])
    truth[:, 1] = 0
    assert not filtered(truth, truth.sum(1))[:, 1].abs().amax() > 1e-3 * truth.abs().amax()
    assert not filtered(0 * truth, 0 * truth.sum(1)).abs().amax() > 0


# --- a whole song ----------------------------------------------------------------------------------------------------

CODEC = Lapped(64, 8000)
ANGLES = [0.2, 1.3]


def song(frames: int, seed: int = 0, angles: list[float] = ANGLES) -> np.ndarray:
    """Noise (stem, 2, n), each stem at its own angle."""
    source = np.random.default_rng(seed).standard_normal((len(angles), 1, frames)).astype(np.float32)
    return source * np.array([[math.cos(a), math.sin(a)] for a in angles], np.float32)[:, :, None]


def confused(truth: np.ndarray) -> np.ndarray:
    return 0.8 * truth + 0.2 * truth[::-1]


def through(stems: np.ndarray, *cuts: int) -> np.ndarray:
    """(stem, channel, n) through the filter in blocks."""
    parts = np.split(stems.reshape(-1, stems.shape[-1]), sorted(cuts), axis=1)
    return np.concatenate(list(place_filter(iter(parts), len(stems), CODEC)), axis=1).reshape(stems.shape)


def gain(stems: np.ndarray, truth: np.ndarray) -> float:
    return float(
        np.mean([si_sdr(a, b) for a, b in zip(through(stems), truth)])
        - np.mean([si_sdr(a, b) for a, b in zip(stems, truth)])
    )


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 20_000), cuts=st.lists(st.integers(0, 20_000), max_size=4), ahead=st.sampled_from([8, 100])
)
def test_a_song_keeps_its_length_and_sum_and_how_it_is_cut_does_not_matter(
    length: int, cuts: list[int], ahead: int
) -> None:
    stems = confused(song(length))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spatial, "AHEAD", ahead)
        whole, cut = through(stems), through(stems, *cuts)
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_allclose(whole.sum(0), stems.sum(0), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_sums_to_the_song(channels: int) -> None:
    stems = np.random.default_rng(0).standard_normal((3, channels, 3000)).astype(np.float32)
    np.testing.assert_allclose(through(stems).sum(0), stems.sum(0), atol=1e-4)


def test_pairs_of_channels_do_not_hear_each_other() -> None:
    truth = confused(song(5000))
    other = confused(song(5000, seed=1, angles=[0.9, 0.1]))
    together = through(np.concatenate([truth, other], axis=1))
    np.testing.assert_allclose(together[:, :2], through(truth), atol=1e-5)
    np.testing.assert_allclose(together[:, 2:], through(other), atol=1e-5)


def test_a_song_is_told_apart_by_where_its_stems_are() -> None:
    truth = song(20_000)
    assert gain(confused(truth), truth) > 3


def test_where_a_stem_was_heard_before_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimates of the second half are of no use for telling places; those of the first are."""
    monkeypatch.setattr(spatial, "AHEAD", 64)
    frames = 64 * 64
    clear, late = song(8 * frames), song(frames, seed=1)
    alike = 0.5 * np.repeat(late.sum(0, keepdims=True), 2, axis=0) + 0.01 * late
    told = through(np.concatenate([clear, alike], axis=2))[..., 8 * frames :]
    alone = through(alike)
    assert all(si_sdr(a, s) > si_sdr(b, s) + 3 for a, b, s in zip(told, alone, late))


def test_nothing_is_asked_for_a_song_without_samples() -> None:
    nothing: Iterator[np.ndarray] = iter([])
    assert list(place_filter(nothing, 2, CODEC)) == []
