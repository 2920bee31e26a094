"""Laws of the lapped codec: exact inverse, additive, orthonormal without tilt, MDCT by its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.codecs import Lapped


@settings(max_examples=20, deadline=None)
@given(bins=st.sampled_from([8, 64, 96, 1024]), blocks=st.integers(1, 6), tilt=st.floats(0, 1), seed=st.integers(0, 99))
def test_decode_undoes_encode(bins: int, blocks: int, tilt: float, seed: int) -> None:
    codec = Lapped(bins, 44100, tilt)
    wave = torch.randn(2, 3, bins * blocks, generator=torch.Generator().manual_seed(seed))
    state = codec.encode(wave)
    assert state.shape == (2, 3, codec.frames(wave.shape[-1]), bins)
    assert codec.samples(state.shape[-2]) == wave.shape[-1]
    torch.testing.assert_close(codec.decode(state), wave, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99))
def test_a_sum_of_signals_is_a_sum_of_states(seed: int) -> None:
    codec = Lapped(64)
    a, b = torch.randn(2, 64 * 4, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(codec.encode(a + b), codec.encode(a) + codec.encode(b), atol=1e-5, rtol=1e-5)
    assert codec.additive


def test_without_tilt_energy_is_kept_and_decode_is_the_adjoint() -> None:
    codec = Lapped(64, tilt=0.0)
    wave = torch.randn(64 * 5)
    state = codec.encode(wave)
    torch.testing.assert_close(state.square().sum(), wave.square().sum())
    other = torch.randn_like(state)
    torch.testing.assert_close((state * other).sum(), (wave * codec.decode(other)).sum(), atol=1e-4, rtol=1e-4)


def test_encode_is_the_mdct_of_the_definition() -> None:
    bins = 16
    wave = torch.randn(bins * 3, dtype=torch.float64)
    padded = torch.nn.functional.pad(wave, (bins, bins))
    n, k = torch.arange(2 * bins, dtype=torch.float64), torch.arange(bins, dtype=torch.float64)
    window = torch.sin(math.pi / (2 * bins) * (n + 0.5))
    basis = math.sqrt(2 / bins) * torch.cos(math.pi / bins * (n[:, None] + 0.5 + bins / 2) * (k + 0.5))
    expected = torch.stack([(padded[i * bins :][: 2 * bins] * window) @ basis for i in range(4)])
    codec = Lapped(bins, tilt=0.0)
    torch.testing.assert_close(codec.encode(wave.float()), expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.encode_complex(wave.float()).real, expected.float(), atol=1e-5, rtol=1e-5)


def test_a_length_that_is_no_whole_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        Lapped(64).frames(65)
