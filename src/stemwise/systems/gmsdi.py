"""The prior of GMSDI (Postolache et al. 2024): one denoiser of mixtures, told in words which instruments play.

It never hears a stem. Asked with the words of one source it is taken for a model of that source, which negative words make
better; asked with all of them, for a model of their mixture. The paper gives no architecture: this is MSDM's waveform
network with attention to the words. Words compose by concatenation; one more, learned, is always there and is all that is
left when a description is dropped in training, so the model also knows mixtures that nobody described.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from stemwise.diffusion import Denoiser, Edm, log_normal, squared_error
from stemwise.errors import QueryError
from stemwise.nets.unet1d import UNet1d, UNet1dConfig, Words


@dataclass(frozen=True)
class Prompt:
    """What a source is described with, what it is not, and how far to go from the one to the other.

    The estimate is D(against) + weight (D(words) - D(against)); nothing in `against` means no description at all
    (classifier-free guidance). `weight` 1 is the described model alone, in one evaluation instead of two.
    """

    words: tuple[str, ...]
    against: tuple[str, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.words:
            raise QueryError("a source has no words; describe it, for example 'bass'")
        both = [word for word in self.words if word in self.against]
        if both:
            raise QueryError(f"{', '.join(both)} is wanted and unwanted at once; leave it out of the negative words")


@dataclass(frozen=True)
class GmsdiConfig:
    """What `config.json` of a model holds: ``words`` that it knows, ``window`` in samples at ``rate`` Hz.

    Training: ln sigma ~ N(``sigma_mean``, ``sigma_std``); a word is told where its stem is louder than ``floor_db`` (RMS,
    full scale), and the description is dropped with probability ``dropped``. ``extracted`` are the sources that a
    validation found to be better separated one by one than all at once.
    """

    words: tuple[str, ...] = ("bass", "drums", "guitar", "piano", "other")
    rate: int = 22050
    window: int = 2**18
    sigma_data: float = 0.2
    sigma_mean: float = -3.0
    sigma_std: float = 1.2
    dropped: float = 0.1
    floor_db: float = -50.0
    extracted: tuple[str, ...] = ()
    net: UNet1dConfig = field(default_factory=lambda: UNet1dConfig(sources=1, context=256))

    def __post_init__(self) -> None:
        if self.net.sources != 1 or not self.net.context:
            raise ValueError(
                f"net.sources is {self.net.sources} and net.context {self.net.context}; a prior of described mixtures has "
                "one source and a context, the width of its words"
            )
        if self.window % self.net.multiple:
            raise ValueError(f"window ({self.window}) must be a multiple of {self.net.multiple}, the network's step")
        if len(set(self.words)) != len(self.words) or not self.words:
            raise ValueError(f"words must be different, and one at least; got {', '.join(self.words) or 'none'}")

    @property
    def stems(self) -> tuple[str, ...]:
        """What its training reads of a song, to sum it and to know which words to tell."""
        return self.words


class Gmsdi(nn.Module):
    """E[clean | x, words] for mixtures or sources x (N, time) and sigma (N,)."""

    def __init__(self, config: GmsdiConfig) -> None:
        super().__init__()
        self.config = config
        self.net = UNet1d(config.net)
        self.table = nn.Embedding(len(config.words) + 1, config.net.context)  # the last is always there

    def forward(self, x: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
        """`told` (N, word), bool: which of the known words describe each signal."""
        words = self._words(told)
        return self._denoiser(words)(x[:, None], sigma)[:, 0]

    def told(self, *descriptions: Sequence[str]) -> Tensor:
        """Descriptions as `forward` takes them: (description, word), bool. Raises QueryError for unknown words."""
        known = self.config.words
        told = torch.zeros(len(descriptions), len(known), dtype=torch.bool)
        for row, words in zip(told, descriptions):
            for word in words:
                if word not in known:
                    near = difflib.get_close_matches(word, known, 1)
                    hint = f" (did you mean {near[0]!r}?)" if near else ""
                    raise QueryError(f"the model does not know the word {word!r}{hint}; it knows {', '.join(known)}")
                row[known.index(word)] = True
        return told.to(self.table.weight.device)

    def prompted(self, prompts: Sequence[Prompt], most: int = 64) -> Denoiser:
        """The denoiser of states (batch, slot, time), a prompt for each slot.

        All slots, with and against their words, are evaluated at once, in pieces of at most `most` signals.
        """
        told = self.told(*(prompt.words for prompt in prompts))
        guided = [slot for slot, prompt in enumerate(prompts) if prompt.weight != 1]
        against = self.told(*(prompts[slot].against for slot in guided))
        every = torch.cat([told, against])
        weight = torch.tensor([prompts[slot].weight for slot in guided])

        def denoise(x: Tensor, sigma: Tensor, /) -> Tensor:
            signals = torch.cat([x, x[:, guided]], 1)
            level = torch.as_tensor(sigma).to(x).expand(x.shape[:1] if torch.as_tensor(sigma).ndim < 2 else x.shape[:2])
            levels = (
                level[:, None].expand(signals.shape[:2]) if level.ndim == 1 else torch.cat([level, level[:, guided]], 1)
            )
            rows = zip(
                signals.flatten(0, 1).split(most),
                levels.flatten().split(most),
                every.expand(len(x), -1, -1).flatten(0, 1).split(most),
            )
            found = torch.cat([self(*row) for row in rows]).unflatten(0, signals.shape[:2])
            if not guided:
                return found
            wanted, unwanted = found.split([x.shape[1], len(guided)], 1)
            bent = unwanted + weight.to(x)[:, None] * (wanted[:, guided] - unwanted)
            return wanted.index_copy(1, torch.tensor(guided, device=x.device), bent)

        return denoise

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """EDM's loss of the mixtures of stems (B, stem, channel, time), which are only looked at to see who plays."""
        config, device = self.config, batch.device
        power = batch.square().mean((2, 3))
        told = power > 10 ** (config.floor_db / 10)
        kept = torch.rand(len(batch), generator=generator, device=generator.device).to(device) >= config.dropped
        clean = batch.sum(1).mean(1)[:, None]

        def source(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device).to(device)

        sigma = log_normal(source, clean.shape[:1], config.sigma_mean, config.sigma_std)
        weight = Edm(nn.Identity(), config.sigma_data).weight(sigma)
        denoiser = self._denoiser(self._words(told & kept[:, None]))
        return (weight * squared_error(denoiser, clean, sigma, source(clean.shape))).mean()

    def _denoiser(self, words: Words) -> Denoiser:
        return Edm(partial(self.net, words=words), self.config.sigma_data)

    def _words(self, told: Tensor) -> Words:
        always = told.new_ones(len(told), 1)
        return Words(self.table.weight.expand(len(told), -1, -1), torch.cat([told, always], 1))
