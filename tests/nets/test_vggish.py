"""VGGish: log-mel patches against recorded ones, the network against the same layers written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import linear, max_pool2d, relu

from stemwise.nets.vggish import Vggish, VggishConfig, log_mel_patches

FIXTURE = Path(__file__).parents[1] / "fixtures" / "vggish" / "log_mel.npz"
SMALL = VggishConfig((2, 3, 4, 5), 7, 6)


def test_patches_are_the_recorded_ones() -> None:
    wave = (0.3 * np.random.default_rng(11).standard_normal(16000 * 2 + 777)).astype(np.float32)
    wave[3000:6000] = 0
    wave += (0.4 * np.sin(2 * np.pi * 440 * np.arange(len(wave)) / 16000)).astype(np.float32)
    ours = log_mel_patches(torch.from_numpy(wave)).numpy()
    theirs = np.load(FIXTURE)["patches"]
    assert ours.shape == theirs.shape == (2, 96, 64)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_number_of_patches() -> None:
    window = SMALL.window
    assert window == 15_600
    for samples, patches in ((0, 0), (399, 0), (window - 1, 0), (window, 1), (2 * window - 400, 1), (16000 * 3, 3)):
        assert len(log_mel_patches(torch.zeros(samples))) == patches


def test_silence_is_the_logarithm_of_the_offset() -> None:
    assert torch.allclose(log_mel_patches(torch.zeros(16000)), torch.tensor(0.01).log())


def test_network_is_the_layers_written_out() -> None:
    net = Vggish(SMALL).eval()
    weights = net.state_dict()
    x = torch.randn(2, 96, 64)
    y = x[:, None]
    for index in (0, 3, 6, 8, 11, 13):
        y = relu(torch.conv2d(y, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1))
        if index in (0, 3, 8, 13):
            y = max_pool2d(y, 2)
    y = y.permute(0, 2, 3, 1).reshape(2, -1)
    for index in (0, 2, 4):
        y = linear(y, weights[f"embeddings.{index}.weight"], weights[f"embeddings.{index}.bias"])
        y = relu(y) if index < 4 else y  # no activation at the end
    torch.testing.assert_close(net(x), y)


def test_published_sizes() -> None:
    with torch.device("meta"):
        net = Vggish(VggishConfig())
    assert sum(p.numel() for p in net.parameters()) == 72_141_184
    assert net.embeddings[0].in_features == 512 * 4 * 6
