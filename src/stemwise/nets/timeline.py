"""An encoder of spectrograms that keeps time: convolutions over frames alone, and an output with a place for each moment.

EfficientNet averages its last map over time, so when something sounds survives only in what its channels make of it.
Here bands are channels from the start, and the output holds a few values for every 80 ms beside the mean over time, so
two parts can be compared moment by moment from the first step of a training. Semitones, where they are heard, are
folded into pitch classes, which two parts of one harmony share whatever their instruments are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, avg_pool1d, layer_norm, pad, silu

_CELLS = 63
_KEPT = 12
_WIDTHS = (128, 160, 192)
_DILATIONS = (1, 2, 4)
#: Pitch classes: octaves, ways to add them up, and moments (half a second each) that are told apart.
_OCTAVES, _VOICES, _MOMENTS = 6, 2, 10


class Timeline(nn.Module):
    """(batch, channels, 64, frame) in dB -> (batch, outputs): three strided and three dilated convolutions over time.

    501 frames become 63 cells with 12 values each, followed by the mean over time of all 192. Other lengths are first
    averaged to as many cells. A third channel holds 64 semitones, which `_Harmony` hears.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = min(channels, 2) * 64
        for wider in _WIDTHS:
            layers += [nn.Conv1d(width, wider, 5, 2, 2, bias=False), nn.BatchNorm1d(wider), nn.SiLU()]
            width = wider
        self.down = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*[_Dilated(width, dilation) for dilation in _DILATIONS])
        self.local = nn.Conv1d(width, _KEPT, 1)
        self.harmony = _Harmony() if channels > 2 else None
        self.outputs = _CELLS * _KEPT + width + (0 if self.harmony is None else self.harmony.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """What sounds at each moment, what sounds on the whole, and the pitch classes."""
        pitched = [] if self.harmony is None else [self.harmony(x[:, 2, :, ::8])]
        x = self.blocks(self.down(x[:, :2].flatten(1, 2) / 40.0 + 1.0))
        cells = self.local(x)
        if cells.shape[-1] != _CELLS:
            cells = adaptive_avg_pool1d(cells, _CELLS)
        return torch.cat([cells.flatten(1), x.mean(-1), *pitched], dim=1)


class _Dilated(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + silu(self.norm(self.conv(x)))


class _Harmony(nn.Module):
    """Levels of 64 semitones in dB, (batch, 64, cell) -> (batch, outputs): pitch classes at 10 moments.

    What stands out of its neighbourhood, which noise does not, is added up over the octaves in a few ways; the twelve
    values of each are centred and of unit variance, so that how well two of them agree is a correlation.
    """

    outputs = 12 * _VOICES * _MOMENTS

    def __init__(self) -> None:
        super().__init__()
        self.octaves = nn.Conv1d(_OCTAVES, _VOICES, 1, bias=False)
        nn.init.normal_(self.octaves.weight, mean=1.0, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, cells = x.shape
        x = x.transpose(1, 2).flatten(0, 1)[:, None]
        x = (x - avg_pool1d(x, 5, 1, 2, count_include_pad=False)).relu() / 10.0
        x = self.octaves(pad(x, (0, 12 * _OCTAVES - rows)).view(batch * cells, _OCTAVES, 12))
        x = adaptive_avg_pool1d(x.view(batch, cells, -1).transpose(1, 2), _MOMENTS).transpose(1, 2)
        return layer_norm(x.reshape(batch, _MOMENTS, _VOICES, 12), (12,)).flatten(1)
