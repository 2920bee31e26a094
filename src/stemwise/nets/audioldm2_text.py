"""What AudioLDM2's text encoders make of prompts, without the methods of transformers that its pipeline needs.

CLAP's sentence and T5's words pass a projection into GPT-2, which continues them by eight states; the U-Net attends to
these, and to T5's words again. Prompts are encoded one at a time: padding would move GPT-2's positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.errors import ModelError
from stemwise.extras import needed

GENERATED = 8
"""States that GPT-2 continues with."""
PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "projection_model", "language_model")


@dataclass(frozen=True, eq=False)
class States:
    """Of prompts: GPT-2's (prompt, 8, width), T5's (prompt, token, width), and which of these are there (prompt, token)."""

    generated: Tensor
    words: Tensor
    mask: Tensor


class TextEncoders:
    """The text half of a pipeline's folder. Raises ModelError where a part is missing or does not load."""

    def __init__(self, folder: Path) -> None:
        absent = [part for part in PARTS if not (folder / part).is_dir()]
        if absent:
            raise ModelError(
                f"{folder}: no {', '.join(absent)}; CompoNet tells its base in words what to make, so the base must come with "
                "its text encoders: give the whole folder of an AudioLDM2 pipeline"
            )
        diffusers, transformers = needed("diffusers", "latents"), needed("transformers", "latents")

        def load(cls: Any, part: str, **options: Any) -> Any:
            try:
                return cls.from_pretrained(folder / part, local_files_only=True, **options)
            except Exception as error:  # whatever a damaged folder makes the reader raise
                raise ModelError(f"{folder / part}: does not load as a {cls.__name__}: {error}") from error

        self.folder = folder
        # None, which is the default, asks whoever sits at the terminal whether a folder's code may run
        words = partial(load, transformers.AutoTokenizer, trust_remote_code=False)
        self.sentence_tokens, self.word_tokens = map(words, PARTS[:2])
        projection = diffusers.AudioLDM2ProjectionModel
        classes = (transformers.ClapModel, transformers.T5EncoderModel, projection, transformers.GPT2Model)
        self.clap, self.t5, self.projection, self.gpt2 = (
            load(cls, part, use_safetensors=True).eval() for cls, part in zip(classes, PARTS[2:])
        )

    def encode(self, prompts: Sequence[str]) -> States:
        """All prompts, T5's padded to the longest."""
        made = [self._one(text) for text in prompts]
        longest = max(words.shape[0] for _, words in made)
        return States(
            torch.stack([generated for generated, _ in made]),
            torch.stack([F.pad(words, (0, 0, 0, longest - words.shape[0])) for _, words in made]),
            torch.tensor([[1.0] * len(words) + [0.0] * (longest - len(words)) for _, words in made]),
        )

    @torch.no_grad()
    def _one(self, text: str) -> tuple[Tensor, Tensor]:
        sentence, words = (tokens(text, return_tensors="pt") for tokens in (self.sentence_tokens, self.word_tokens))
        self._known(text, words.input_ids[0])
        said = self.clap.get_text_features(input_ids=sentence.input_ids, attention_mask=sentence.attention_mask)
        said = getattr(said, "pooler_output", said)  # an output object since transformers 5
        states = self.t5(words.input_ids, attention_mask=words.attention_mask).last_hidden_state
        one = torch.ones(1, 1, dtype=torch.long)
        start = self.projection(said[:, None], states, one, torch.ones_like(words.input_ids)).hidden_states
        return roll_out(self.gpt2, start)[0], states[0]

    def _known(self, text: str, ids: Tensor) -> None:
        unknown = self.word_tokens.unk_token_id
        if unknown is not None and bool((ids == unknown).any()):
            raise ModelError(
                f"{self.folder / 'tokenizer_2'}: the base has no tokens for all of {text!r}; give tags that it knows"
            )


@torch.no_grad()
def roll_out(gpt2: Any, start: Tensor, count: int = GENERATED) -> Tensor:
    """The next `count` states (B, count, width) after embeddings (B, token, width), each the embedding of the next place."""
    states = start
    for _ in range(count):
        end = gpt2(inputs_embeds=states).last_hidden_state[:, -1:]
        states = torch.cat([states, end], 1)
    return states[:, -count:]
