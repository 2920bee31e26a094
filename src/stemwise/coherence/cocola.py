"""COCOLA: do two parts of a song belong together? (Ciranni et al., arXiv 2404.16969.)

An encoder hears each part for itself; a bilinear form compares the two. It is trained to find, among the parts of a
batch, the one that was taken from the same window of the same song. A score is a logit: sigmoid(score of a - score of
b) is the probability that a and not b belongs to the context, and scores of different models do not compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from stemwise.coherence.features import RATE, HarmonicPercussive, LogMel
from stemwise.errors import ScoreError
from stemwise.nets.efficientnet import EfficientNet

PartName = Literal["both", "harmonic", "percussive"]
PARTS: tuple[PartName, ...] = ("both", "harmonic", "percussive")
#: Which channels (harmonic, percussive) each part keeps; a masked channel is 0 dB, as in silence.
_KEPT = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
#: Frames below which nothing is left of the encoder's last map.
_SHORTEST = 33
#: Temperature of the cosine similarity, that of COLA (Saeed et al. 2021).
_TEMPERATURE = 0.2


@dataclass(frozen=True)
class CocolaConfig:
    """What `config.json` of a COCOLA holds.

    features: "hpss" (harmonic and percussive channels) or "mel" (the first version's); similarity: "bilinear", or
    "cosine" over a temperature. `scale` is that of `EfficientNet`. `stems` stays empty: any part has a score.
    """

    features: Literal["hpss", "mel"] = "hpss"
    similarity: Literal["bilinear", "cosine"] = "bilinear"
    scale: float = 1.0
    embedding: int = 512
    dropout: float = 0.1
    seconds: float = 5.0
    stems: tuple[str, ...] = ()

    @property
    def rate(self) -> int:
        """Sample rate in hertz."""
        return RATE

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        return round(self.seconds * RATE)


class Cocola(nn.Module):
    """The encoder and the similarity. Signals are mono, (batch, time) at 16 kHz; windows of 5 s were trained on, other
    lengths from 0.5 s run, but their scores mean less.
    """

    def __init__(self, config: CocolaConfig) -> None:
        super().__init__()
        self.config = config
        self.features: HarmonicPercussive | LogMel = HarmonicPercussive() if config.features == "hpss" else LogMel()
        self.net = EfficientNet(self.features.channels, config.scale)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(self.net.outputs, config.embedding)
        self.norm = nn.LayerNorm(config.embedding)
        self.bilinear: nn.Parameter | None = None
        if config.similarity == "bilinear":
            self.bilinear = nn.Parameter(0.05 * torch.randn(config.embedding, config.embedding))

    @property
    def rate(self) -> int:
        """Sample rate in hertz."""
        return self.config.rate

    @property
    def window(self) -> int:
        """Length of a window in samples."""
        return self.config.window

    @property
    def stems(self) -> tuple[str, ...]:
        """Empty: a score is of any parts."""
        return self.config.stems

    @property
    def parts(self) -> tuple[PartName, ...]:
        """The parts that `mask` can select: "both", and with HPSS features "harmonic" and "percussive"."""
        return PARTS if self.features.channels == 2 else PARTS[:1]

    def mask(self, features: Tensor, part: PartName) -> Tensor:
        """The features with only one part left; they are not changed in place. Raises ScoreError without HPSS."""
        if part not in self.parts:
            raise ScoreError(
                f"part {part!r}: this model hears {', '.join(self.parts)} only; use one with HPSS features"
            )
        if part == "both":
            return features
        return features * features.new_tensor(_KEPT[PARTS.index(part)])[:, None, None]

    def embed(self, features: Tensor) -> Tensor:
        """(batch, channel, 64, frame) -> (batch, embedding), each value in (-1, 1). Raises ScoreError if too short."""
        if features.shape[-1] < _SHORTEST:
            seconds = _SHORTEST * 0.01
            raise ScoreError(f"{features.shape[-1]} frames of 10 ms cannot be scored; give at least {seconds:.1f} s")
        return self.norm(self.projection(self.dropout(self.net(features)))).tanh()

    def similarity(self, context: Tensor, made: Tensor) -> Tensor:
        """Scores of every context against everything made: embeddings (n, e) and (m, e) -> (n, m)."""
        if self.bilinear is not None:
            return context @ self.bilinear @ made.T
        return normalize(context, dim=-1) @ normalize(made, dim=-1).T / _TEMPERATURE

    def pairwise(self, context: Tensor, made: Tensor) -> Tensor:
        """Scores of embeddings in pairs, (n, e) and (n, e) -> (n,): the diagonal of `similarity`."""
        _same_shape(context, made)
        if self.bilinear is not None:
            return ((context @ self.bilinear) * made).sum(-1)
        return (normalize(context, dim=-1) * normalize(made, dim=-1)).sum(-1) / _TEMPERATURE

    def score(self, context: Tensor, made: Tensor, part: PartName = "both") -> Tensor:
        """Scores of signals in pairs: (batch, time) and (batch, time) -> (batch,). Raises ScoreError if they differ."""
        _same_shape(context, made)
        features = self.mask(self.features(torch.cat([context, made])), part)
        return self.pairwise(*self.embed(features).chunk(2))

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of finding each context's own part, and how often it was found.

        `batch` is (pair, signal, channel, time): the context, what belongs to it, and any number of signals that do
        not. A context's candidates are all that is not a context. With HPSS features a third of the pairs is heard
        whole, a third only in its harmonic and a third only in its percussive part.
        """
        choice = torch.randint(len(self.parts), (len(batch),), generator=generator, device=generator.device)
        return self.contrast(self.hear(batch), choice.to(batch.device))

    def validate(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`loss`, every pair heard whole."""
        return self.contrast(self.hear(batch), torch.zeros(len(batch), dtype=torch.long, device=batch.device))

    def hear(self, batch: Tensor) -> Tensor:
        """Features of (pair, signal, channel, time): (pair, signal, channel, 64, frame), always in float32."""
        with torch.autocast(batch.device.type, enabled=False):
            flat = self.features(batch.float().mean(2).flatten(0, 1))
        return flat.unflatten(0, batch.shape[:2])

    def contrast(self, features: Tensor, choice: Tensor) -> dict[str, Tensor]:
        """`loss` of features as `hear` gives them; `choice` (pair,) says which of `parts` each pair is heard in."""
        pairs = len(features)
        kept = features.new_tensor(_KEPT)[choice, : features.shape[2]]
        heard = features * kept[:, None, :, None, None]
        embedded = self.embed(heard.transpose(0, 1).flatten(0, 1)).float()
        scores = self.similarity(embedded[:pairs], embedded[pairs:])
        own = torch.arange(pairs, device=scores.device)
        return {
            "loss": cross_entropy(scores, own),
            "accuracy": (scores.argmax(dim=1) == own).float().mean(),
        }


def _same_shape(context: Tensor, made: Tensor) -> None:
    if context.shape != made.shape:
        raise ScoreError(
            f"pairs need equal shapes, found {tuple(context.shape)} and {tuple(made.shape)}; "
            "cut both to one length, and compare all with all by `similarity`"
        )
