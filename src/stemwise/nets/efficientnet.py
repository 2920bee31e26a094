"""EfficientNet-B0 (Tan and Le 2019) over spectrograms: the network of transformers, mended for training.

Its paddings are those of an image of 224 pixels, whatever the size of the input, as in the most used port to PyTorch,
so published audio encoders built on that port keep their numbers. For training three things are put right: its batch
norms keep 1 % or 10 % of their running mean where 99 % were meant; its residual branches lose single values where whole
branches were meant (stochastic depth); and its batch norms start with gains near 0 instead of 1, so that layer by layer
the signal dies out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stemwise.extras import needed

_MOMENTUM = 0.01
_DROP = 0.2


class EfficientNet(nn.Module):
    """(batch, channels, height, width) -> (batch, outputs): B0 without its classifier, averaged over both axes.

    `scale` multiplies the number of channels of every layer (B0 is 1). Raises ModelError without the extra `eval`.
    """

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        transformers = needed("transformers", "eval")
        self.outputs = _rounded(1280 * scale)
        config = transformers.EfficientNetConfig(
            num_channels=channels,
            image_size=224,
            width_coefficient=float(scale),
            depth_coefficient=1.0,
            hidden_dim=self.outputs,
            batch_norm_eps=1e-3,
            batch_norm_momentum=_MOMENTUM,
            drop_connect_rate=_DROP,
        )
        model = transformers.EfficientNetModel(config)
        self.stem, self.blocks = model.embeddings, model.encoder.blocks
        encoder = model.encoder
        self.head = nn.Sequential(encoder.top_conv, encoder.top_bn, encoder.top_activation)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = _MOMENTUM
            if isinstance(module, nn.BatchNorm2d | nn.Conv2d):
                module.reset_parameters()
        for block in self.blocks:
            block.projection.dropout = StochasticDepth(block.projection.dropout.p)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the last feature map; at least 33 values high and wide, or nothing is left of the map."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = self.head(x).mean(dim=(2, 3))
        return pooled


class StochasticDepth(nn.Module):
    """In training, sets whole examples to zero with a probability and scales up the others (Huang et al. 2016)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> the same shape."""
        if not self.training or not self.probability:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.probability
        return x * kept.to(x.dtype) / (1.0 - self.probability)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, as every layer of the family has."""
    return max(8, int(channels + 4) // 8 * 8)
