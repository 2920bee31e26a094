"""An encoder of spectrograms that keeps time: convolutions over frames alone, and an output with a place for each moment.

EfficientNet averages its last map over time, so when something sounds survives only in what its channels make of it.
Here bands are channels from the start, as pitch matters absolutely, and the output holds a few values for every 80 ms
beside the mean over time, so two parts can be compared moment by moment from the first step of a training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, silu

_CELLS = 63
_KEPT = 12
_WIDTHS = (128, 160, 192)
_DILATIONS = (1, 2, 4)


class Timeline(nn.Module):
    """(batch, channels, 64, frame) in dB -> (batch, outputs): three strided and three dilated convolutions over time.

    501 frames become 63 cells with 12 values each, followed by the mean over time of all 192. Other lengths are first
    averaged to as many cells.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels * 64
        for wider in _WIDTHS:
            layers += [nn.Conv1d(width, wider, 5, 2, 2, bias=False), nn.BatchNorm1d(wider), nn.SiLU()]
            width = wider
        self.down = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*[_Dilated(width, dilation) for dilation in _DILATIONS])
        self.local = nn.Conv1d(width, _KEPT, 1)
        self.outputs = _CELLS * _KEPT + width

    def forward(self, x: Tensor) -> Tensor:
        """What sounds at each moment, then what sounds on the whole."""
        x = self.blocks(self.down(x.flatten(1, 2) / 40.0 + 1.0))
        cells = self.local(x)
        if cells.shape[-1] != _CELLS:
            cells = adaptive_avg_pool1d(cells, _CELLS)
        return torch.cat([cells.flatten(1), x.mean(-1)], dim=1)


class _Dilated(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + silu(self.norm(self.conv(x)))
