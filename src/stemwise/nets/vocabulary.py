"""Descriptions as a network hears them: each is some embeddings, and several are put one after the other.

That is GMSDI's z_1 x ... x z_K (Postolache et al. 2024): a mixture is described by the descriptions of its sources, as many
as it has. Either every known word has an embedding that is learned with the network, or a pretrained text encoder, which
stays as it is, hears any text: T5 word by word (Raffel et al. 2020), or CLAP's one vector, which lies near the sound that it
describes (Wu et al. 2023).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stemwise.errors import QueryError, did_you_mean
from stemwise.nets.stored import of_transformers
from stemwise.nets.unet1d import Words

TextEncoder = Callable[[Sequence[str]], Words]
"""Texts -> embeddings (text, token, width), and which of the tokens are there (text, token)."""


@dataclass(frozen=True)
class TextConfig:
    """Where descriptions get their embeddings: ``words`` (learned), or a model of transformers, ``t5`` or ``clap``.

    ``source`` is its folder, or its name in the Hugging Face cache; ``width`` of its embeddings (768 of T5 base, 512 of CLAP);
    ``tokens``, how many a description has at most (CLAP: 1). ``trained_on`` audio: in training, CLAP hears the mixture in
    the place of its tags.
    """

    encoder: Literal["words", "t5", "clap"] = "words"
    source: str = ""
    width: int = 0
    tokens: int = 1
    trained_on: Literal["text", "audio"] = "text"

    def __post_init__(self) -> None:
        if self.encoder != "words" and not (self.source and self.width > 0):
            raise ValueError(f"a {self.encoder} encoder needs source (a folder or a repository) and width")
        if self.trained_on == "audio" and self.encoder != "clap":
            raise ValueError(f"trained_on audio needs the encoder clap, which hears both; found {self.encoder}")
        if self.encoder == "clap" and self.tokens != 1:
            raise ValueError(f"CLAP gives one embedding a description; tokens is {self.tokens}, expected 1")


class Vocabulary(nn.Module):
    """The known words, and with a text encoder every other text; one more embedding, learned, is always there.

    What the encoder says of the known words is kept with the weights, so that it is needed for new texts alone.
    """

    def __init__(self, known: Sequence[str], text: TextConfig, width: int) -> None:
        super().__init__()
        self.known, self.text = tuple(known), text
        self.always = nn.Parameter(torch.randn(width))
        if text.encoder == "words":
            self.table = nn.Parameter(torch.randn(len(known), 1, width))
        else:
            self.project = nn.Linear(text.width, width)
            self.register_buffer("states", torch.zeros(len(known), text.tokens, text.width))
            self.register_buffer("heard", torch.zeros(len(known), text.tokens, dtype=torch.bool))

    states: Tensor
    heard: Tensor

    def forward(self, told: Tensor) -> Words:
        """The words of signals, given which of the known ones describe them: (N, word), bool."""
        return self._words(told, *self._known())

    def described(self, *descriptions: Sequence[str]) -> Words:
        """The words of descriptions, each some texts. Raises QueryError for a text that is not known and cannot be heard."""
        states, heard = self._known()
        new = list(dict.fromkeys(text for texts in descriptions for text in texts if text not in self.known))
        if new:
            self.check(*new)
            found = self._heard(new)
            states = torch.cat([states, self.project(found.embeddings)])
            heard = torch.cat([heard, found.there])
        every = [*self.known, *new]
        told = torch.zeros(len(descriptions), len(every), dtype=torch.bool)
        for row, texts in zip(told, descriptions):
            row[[every.index(text) for text in texts]] = True
        return self._words(told.to(states.device), states, heard)

    def heard_as(self, waves: Tensor, rate: int, kept: Tensor) -> Words:
        """Sounds (N, time) in the place of texts, as CLAP hears them; those that are not kept, (N,) bool, say nothing."""
        found = audio_encoder(self.text.source)(waves, rate).to(self.always.device)
        always = self.always.expand(len(waves), 1, -1)
        there = torch.stack([kept, torch.ones_like(kept)], 1)
        return Words(torch.cat([self.project(found)[:, None], always], 1), there)

    def check(self, *texts: str) -> None:
        """Raises QueryError for a text that is neither known nor can be heard."""
        for text in texts:
            if text not in self.known and self.text.encoder == "words":
                hint = did_you_mean(text, self.known)
                raise QueryError(f"the model does not know the word {text!r}{hint}; it knows {', '.join(self.known)}")

    def _known(self) -> tuple[Tensor, Tensor]:
        """Embeddings (word, token, width) of the known words, and which of them are there."""
        if self.text.encoder == "words":
            return self.table, self.table.new_ones(self.table.shape[:2], dtype=torch.bool)
        if not self.heard.any():
            found = self._heard(self.known)
            self.states.copy_(found.embeddings)
            self.heard.copy_(found.there)
        return self.project(self.states), self.heard

    def _heard(self, texts: Sequence[str]) -> Words:
        text, place = self.text, self.always.device
        found = text_encoder(text.encoder, text.source)(texts)
        if found.embeddings.shape[-1] != text.width:
            raise QueryError(f"{text.source}: embeddings of width {found.embeddings.shape[-1]}, expected {text.width}")
        kept = [torch.zeros(len(texts), text.tokens, *z.shape[2:], dtype=z.dtype) for z in found]
        for into, z in zip(kept, found):
            into[:, : z.shape[1]] = z[:, : text.tokens]
        return Words(*(z.to(place) for z in kept))

    def _words(self, told: Tensor, states: Tensor, heard: Tensor) -> Words:
        """Only as many descriptions as the longest row has, each where it is told, and what is always there."""
        most = int(told.sum(1).max()) if len(told) else 0
        chosen = told.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        there = told.gather(1, chosen)[..., None] & heard[chosen]
        always = self.always.expand(len(told), 1, -1)
        embeddings = torch.cat([states[chosen].flatten(1, 2), always], 1)
        return Words(embeddings, torch.cat([there.flatten(1), there.new_ones(len(told), 1)], 1))


@functools.lru_cache(maxsize=2)
def text_encoder(kind: str, source: str) -> TextEncoder:
    """A pretrained encoder on the CPU, by the names of `TextConfig`. Raises ModelError."""
    # None, which is the default, asks whoever sits at the terminal whether a folder's code may run
    tokenizer = of_transformers("AutoTokenizer", source, "latents", trust_remote_code=False)
    network = of_transformers({"t5": "T5EncoderModel", "clap": "ClapTextModelWithProjection"}[kind], source, "latents")
    network = network.eval().requires_grad_(False)

    def encode(texts: Sequence[str]) -> Words:
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            out = network(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        if kind == "t5":
            return Words(out.last_hidden_state.float(), tokens.attention_mask.bool())
        states = nn.functional.normalize(out.text_embeds.float(), dim=-1)[:, None]
        return Words(states, torch.ones(states.shape[:2], dtype=torch.bool))

    return encode


@functools.lru_cache(maxsize=1)
def audio_encoder(source: str) -> Callable[[Tensor, int], Tensor]:
    """CLAP's ear on the CPU: (waves (N, time), rate in Hz) -> embeddings (N, width) of length 1. Raises ModelError.

    Only the first 10 s are heard, shorter sounds are repeated, as CLAP's own feature extractor does.
    """
    extractor = of_transformers("ClapFeatureExtractor", source, "latents")
    network = of_transformers("ClapAudioModelWithProjection", source, "latents").eval().requires_grad_(False)

    def encode(waves: Tensor, rate: int) -> Tensor:
        import soxr

        target = extractor.sampling_rate
        blocks = soxr.resample(waves.detach().float().cpu().numpy().T, rate, target).T[:, : extractor.nb_max_samples]
        features = extractor(list(blocks), sampling_rate=target, return_tensors="pt")
        with torch.no_grad():
            out = network(input_features=features.input_features, is_longer=features.is_longer)
        return nn.functional.normalize(out.audio_embeds.float(), dim=-1)

    return encode
