"""The prior of GMSDI (Postolache et al. 2024): one denoiser of mixtures, told in words which instruments play.

It never hears a stem. Asked with the words of one source it is taken for a model of that source, which negative words make
better; asked with all of them, for a model of their mixture. The paper gives no architecture: this is MSDM's waveform
network with attention to the words (`nets.vocabulary`). One word, learned, is always there and is all that is left when a
description is dropped in training, so the model also knows mixtures that nobody described.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from stemwise.diffusion import Denoiser, Edm, SpectralEdm, log_normal
from stemwise.diffusion.denoisers import align
from stemwise.nets.unet1d import UNet1d, UNet1dConfig, Words
from stemwise.nets.vocabulary import TextConfig, Vocabulary
from stemwise.systems.msdm import Generation, Separation, noise_from
from stemwise.systems.prompts import Prompt, descriptions, folded
from stemwise.systems.spectra import KNOTS, Spectra, powers
from stemwise.systems.system import check_shares


@dataclass(frozen=True)
class GmsdiConfig:
    """What `config.json` of a model holds: ``words`` that it was trained with, ``window`` in samples at ``rate`` Hz.

    Training: ln sigma ~ N(``sigma_mean``, ``sigma_std``), and the description is dropped with probability ``dropped``.
    ``spectra``, a row for each word, are the mean spectra that mixtures have because of it: they spare the network the
    learning of a Wiener filter (`diffusion.SpectralEdm`). ``extracted`` are the sources that a validation found to be better
    separated one by one than all at once.
    """

    words: tuple[str, ...] = ("bass", "drums", "guitar", "piano", "other")
    rate: int = 22050
    window: int = 2**18
    sigma_data: float = 0.2
    spectra: Spectra = ()
    sigma_mean: float = -3.0
    sigma_std: float = 1.2
    dropped: float = 0.1
    extracted: tuple[str, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)
    net: UNet1dConfig = field(default_factory=lambda: UNet1dConfig(sources=1, context=256))
    separation: Separation = field(
        default_factory=lambda: Separation("projection", "dpmpp_2m", 24, 1e-3, 1.0, temperature=1.0)
    )
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        check_shares(dropped=self.dropped)
        if self.net.sources != 1 or not self.net.context:
            raise ValueError(
                f"net.sources is {self.net.sources} and net.context {self.net.context}; a prior of described mixtures has "
                "one source and a context, the width of its words"
            )
        if self.window % self.net.multiple:
            raise ValueError(f"window ({self.window}) must be a multiple of {self.net.multiple}, the network's step")
        if len(set(self.words)) != len(self.words) or not self.words:
            raise ValueError(f"words must be different, and one at least; got {', '.join(self.words) or 'none'}")
        if self.spectra and [len(row) for row in self.spectra] != [len(KNOTS)] * len(self.words):
            raise ValueError(f"spectra must be a row of {len(KNOTS)} numbers for each of {len(self.words)} words")

    @property
    def stems(self) -> tuple[str, ...]:
        """The words, which are what a song's stems are called where it has any."""
        return self.words


class Gmsdi(nn.Module):
    """E[clean | x, words] for mixtures or sources x (N, time) and sigma (N,)."""

    learns_from = "mixtures"

    def __init__(self, config: GmsdiConfig) -> None:
        super().__init__()
        self.config = config
        self.net = UNet1d(config.net)
        self.vocabulary = Vocabulary(config.words, config.text, config.net.context)

    def forward(self, x: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
        """`told` (N, word), bool: which of the known words describe each signal."""
        edm = self._edm(self.vocabulary(told), self._powers(told.float(), x.shape[-1]))
        return edm(x[:, None], sigma)[:, 0]

    def prompted(self, prompts: Sequence[Prompt], most: int = 64) -> Denoiser:
        """The denoiser of states (batch, slot, time), see `prompts.folded`. Raises QueryError for unknown words."""
        asked = descriptions(prompts)
        words, shares = self.vocabulary.described(*asked), self._shares(asked)

        def evaluate(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
            powers = self._powers(shares[rows], x.shape[-1])
            return self._edm(Words(*(z[rows] for z in words)), powers)(x[:, None], sigma)[:, 0]

        return folded(evaluate, prompts, most)

    def powers(self, prompts: Sequence[Prompt], frames: int) -> Tensor | None:
        """The power spectral densities (slot, frames // 2 + 1) that prompts ask for; None where the model has none."""
        powers = self._powers(self._shares([prompt.words for prompt in prompts]), frames)
        return None if powers is None else powers[:, 0]

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """EDM's loss of described mixtures: {"mixture": (B, channel, time), "told": bool (B, word)}."""
        config, clean = self.config, batch["mixture"].mean(1, keepdim=True)
        source = noise_from(generator, clean.device)
        kept = torch.rand(len(clean), generator=generator, device=generator.device).to(clean.device) >= config.dropped
        told = batch["told"] & kept[:, None]
        sigma = log_normal(source, clean.shape[:1], config.sigma_mean, config.sigma_std)
        if config.text.trained_on == "audio":
            words = self.vocabulary.heard_as(clean[:, 0], config.rate, kept)
        else:
            words = self.vocabulary(told)
        edm = self._edm(words, self._powers(told.float(), clean.shape[-1]))
        error = edm(clean + sigma[:, None, None] * source(clean.shape), sigma) - clean
        return (align(edm.weight(sigma), error) * error.square()).mean()

    def _edm(self, words: Words, power: Tensor | None) -> Edm | SpectralEdm:
        net = partial(self.net, words=words)
        return Edm(net, self.config.sigma_data) if power is None else SpectralEdm(net, power)

    def _shares(self, descriptions: Sequence[Sequence[str]]) -> Tensor:
        """(description, word): 1 for the words that are known; an average one for texts that are not."""
        words = self.config.words
        rows = [
            [float(word in texts) for word in words]
            if not texts or set(texts) & set(words)
            else [1 / len(words)] * len(words)
            for texts in descriptions
        ]
        return torch.tensor(rows, device=self.vocabulary.always.device)

    def _powers(self, shares: Tensor, frames: int) -> Tensor | None:
        """(N, 1, bins): what the shares (N, word) say, and that of all words together where nothing is described."""
        if not self.config.spectra:
            return None
        each = powers(self.config.spectra, self.config.rate)(frames).to(shares.device)
        return torch.where(shares.any(1, keepdim=True), shares, 1.0).to(each)[:, None] @ each
