"""COCOLA: do two parts of a song belong together? (Ciranni et al., arXiv 2404.16969.)

An encoder hears each part for itself; a bilinear form compares the two. It is trained to find, among the parts of a
batch, the one that was taken from the same window of the same song. A score is a logit: sigmoid(score of a - score of
b) is the probability that a and not b belongs to the context, and scores of different models do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from stemwise.coherence.features import RATE, HarmonicPercussive, HarmonicPercussivePitch, LogMel
from stemwise.errors import ScoreError
from stemwise.nets.efficientnet import EfficientNet
from stemwise.nets.timeline import Timeline

PartName = Literal["both", "harmonic", "percussive"]
PARTS: tuple[PartName, ...] = ("both", "harmonic", "percussive")
#: Which channels (harmonic, percussive, semitones) each part keeps; a masked channel is 0 dB, as in silence.
_KEPT = ((1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 0.0))
_FEATURES: dict[str, type[HarmonicPercussive | LogMel]] = {
    "hpss": HarmonicPercussive,
    "pitch": HarmonicPercussivePitch,
    "mel": LogMel,
}
#: Frames below which nothing is left of the encoder's last map.
_SHORTEST = 33
#: Samples (25 ms) by which a part is shifted at least to count as out of place.
_LEAST_SHIFT = 400


@dataclass(frozen=True)
class CocolaConfig:
    """What `config.json` of a COCOLA holds.

    features: "hpss" (harmonic and percussive channels), "pitch" (these, and semitones) or "mel" (the first version's).
    similarity: "bilinear" or "cosine", divided by `temperature` (bilinear: 1 as published, where it learns slowly,
    for a step of Adam moves it as a whole; cosine: 0.2 in COLA, Saeed et al. 2021). encoder: "efficientnet" (B0, the
    published one; `scale` multiplies its width) or "timeline", which trains in minutes. `stems` stays empty: any part
    has a score.

    For training: `masks`, whether each "pair" is heard whole, in its harmonic or in its percussive part (a third each, as
    published), or all of a "batch" are (half of the batches whole), so that the mask alone tells nothing; `noise`, the
    standard deviation of noise added to what belongs to a context (1e-3 in the first version); `start`, whether the
    bilinear form starts with normal values of 0.05 (as published) or near 0.02 times the identity.
    """

    features: Literal["hpss", "pitch", "mel"] = "hpss"
    similarity: Literal["bilinear", "cosine"] = "bilinear"
    temperature: float = 1.0
    encoder: Literal["efficientnet", "timeline"] = "efficientnet"
    scale: float = 1.0
    embedding: int = 512
    dropout: float = 0.1
    seconds: float = 5.0
    masks: Literal["pair", "batch"] = "pair"
    noise: float = 0.0
    start: Literal["normal", "identity"] = "normal"
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

    learns_from = "pairs"

    def __init__(self, config: CocolaConfig) -> None:
        super().__init__()
        self.config = config
        self.features: HarmonicPercussive | LogMel = _FEATURES[config.features]()
        self.net: EfficientNet | Timeline = (
            EfficientNet(self.features.channels, config.scale)
            if config.encoder == "efficientnet"
            else Timeline(self.features.channels)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(self.net.outputs, config.embedding)
        self.norm = nn.LayerNorm(config.embedding)
        self.bilinear: nn.Linear | None = None
        if config.similarity == "bilinear":
            self.bilinear = nn.Linear(config.embedding, config.embedding, bias=False)
            nn.init.normal_(
                self.bilinear.weight, std=config.temperature * (0.05 if config.start == "normal" else 0.002)
            )
            if config.start == "identity":
                self.bilinear.weight.data += 0.02 * config.temperature * torch.eye(config.embedding)

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
        return PARTS if self.features.channels > 1 else PARTS[:1]

    def mask(self, features: Tensor, part: PartName) -> Tensor:
        """The features with only one part left; they are not changed in place. Raises ScoreError without HPSS."""
        if part not in self.parts:
            raise ScoreError(
                f"part {part!r}: this model hears {', '.join(self.parts)} only; use one with HPSS features"
            )
        if part == "both":
            return features
        return features * features.new_tensor(_KEPT[PARTS.index(part)][: features.shape[1]])[:, None, None]

    def embed(self, features: Tensor) -> Tensor:
        """(batch, channel, 64, frame) -> (batch, embedding), each value in (-1, 1). Raises ScoreError if too short."""
        if features.shape[-1] < _SHORTEST:
            seconds = (_SHORTEST - 1) * 0.01
            raise ScoreError(f"{features.shape[-1]} frames of 10 ms cannot be scored; give at least {seconds:.2f} s")
        return self.norm(self.projection(self.dropout(self.net(features)))).tanh()

    def similarity(self, context: Tensor, made: Tensor) -> Tensor:
        """Scores of every context against everything made: embeddings (n, e) and (m, e) -> (n, m)."""
        if self.bilinear is not None:
            return context @ self.bilinear(made).T / self.config.temperature
        return normalize(context, dim=-1) @ normalize(made, dim=-1).T / self.config.temperature

    def pairwise(self, context: Tensor, made: Tensor) -> Tensor:
        """Scores of embeddings in pairs, (n, e) and (n, e) -> (n,): the diagonal of `similarity`."""
        _same_shape(context, made)
        if self.bilinear is not None:
            return (context * self.bilinear(made)).sum(-1) / self.config.temperature
        return (normalize(context, dim=-1) * normalize(made, dim=-1)).sum(-1) / self.config.temperature

    def score(self, context: Tensor, made: Tensor, part: PartName = "both") -> Tensor:
        """Scores of signals in pairs: (batch, time) and (batch, time) -> (batch,).

        Silence is heard as evenly loud, and its score means nothing; `stemwise.score` leaves it out. Raises ScoreError where
        the shapes differ or a sample is not a number.
        """
        _same_shape(context, made)
        if not (context.isfinite().all() and made.isfinite().all()):
            raise ScoreError("a signal holds NaN or infinite samples; replace them first")
        features = self.mask(self.features(torch.cat([context, made])), part)
        return self.pairwise(*self.embed(features).chunk(2))

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of finding, among all parts, the one that belongs to each context, and how often it was found.

        `batch` is (pair, 2 or 3, channel, time): contexts, what belongs to them and, where there are three, a wrong candidate
        for each. Where it is longer than the window, the middle is taken, and every third pair brings one more
        candidate for all: its part, shifted in time by 25 ms up to half of what is too long. With HPSS features the
        network hears the whole, only the harmonic or only the percussive part of a pair, as `config.masks` says.
        """
        signals = batch.mean(2)
        surplus = max(0, signals.shape[-1] - self.window)
        middle = signals.narrow(-1, surplus // 2, signals.shape[-1] - surplus)
        contexts, made, *wrong = middle.unbind(1)
        candidates = torch.cat([made, *self._shifted(signals[::3, 1], surplus, generator), *wrong])
        if self.config.noise:
            noise = torch.randn(candidates.shape, generator=generator, device=generator.device).to(candidates)
            candidates = candidates + self.config.noise * noise
        return self.contrast(self.hear(contexts), self.hear(candidates), self._draw_parts(len(batch), generator))

    def _shifted(self, made: Tensor, surplus: int, generator: torch.Generator) -> list[Tensor]:
        """Windows of (part, window + surplus) that start too early or too late; none where there is no room for it."""
        middle = surplus // 2
        if middle <= _LEAST_SHIFT:
            return []
        draws = torch.rand(2, len(made), generator=generator, device=generator.device).tolist()
        shifts = [
            (_LEAST_SHIFT + round(size * (middle - _LEAST_SHIFT))) * (1 if side < 0.5 else -1)
            for size, side in zip(*draws)
        ]
        return [torch.stack([row.narrow(-1, middle + shift, self.window) for row, shift in zip(made, shifts)])]

    def _draw_parts(self, pairs: int, generator: torch.Generator) -> list[PartName]:
        """What `contrast` hears of each pair."""
        choices = self.parts if self.config.masks == "pair" or len(self.parts) == 1 else ("both", *self.parts)
        count = pairs if self.config.masks == "pair" else 1
        drawn = torch.randint(len(choices), (count,), generator=generator, device=generator.device)
        return [choices[i] for i in drawn.tolist()]

    def validate(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`loss` without noise and shifts, every pair heard whole."""
        surplus = max(0, batch.shape[-1] - self.window)
        contexts, *candidates = batch.mean(2).narrow(-1, surplus // 2, batch.shape[-1] - surplus).unbind(1)
        return self.contrast(self.hear(contexts), self.hear(torch.cat(candidates)))

    def hear(self, audio: Tensor) -> Tensor:
        """`features` in float32, whatever the precision of the network."""
        with torch.autocast(audio.device.type, enabled=False):
            heard: Tensor = self.features(audio.float())
        return heard

    def contrast(
        self, contexts: Tensor, candidates: Tensor, parts: Sequence[PartName] = ("both",)
    ) -> dict[str, Tensor]:
        """`loss` of features: the i-th of the candidates (at least as many) belongs to the i-th context.

        Pair i is heard in `parts[i % len(parts)]`; candidates after the pairs are heard whole, or in the only part.
        """
        pairs = len(contexts)
        names = [parts[i % len(parts)] for i in range(pairs)]
        names += [parts[0] if len(parts) == 1 else "both"] * (len(candidates) - pairs)
        kept = contexts.new_tensor([_KEPT[PARTS.index(name)][: contexts.shape[1]] for name in names])[..., None, None]
        hidden = self.embed(torch.cat([contexts * kept[:pairs], candidates * kept])).float()
        scores = self.similarity(hidden[:pairs], hidden[pairs:])
        own = torch.arange(pairs, device=scores.device)
        return {"loss": cross_entropy(scores, own), "accuracy": (scores.argmax(dim=1) == own).float().mean()}


def _same_shape(context: Tensor, made: Tensor) -> None:
    if context.shape != made.shape:
        raise ScoreError(
            f"pairs need equal shapes, found {tuple(context.shape)} and {tuple(made.shape)}; "
            "cut both to one length, and compare all with all by `similarity`"
        )
