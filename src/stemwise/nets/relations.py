"""What a network is told about a relation between two sets of stems: two sequences of states, as AudioLDM2 attends to them.

Stems are few, so everything that can be said is known beforehand: the states of real text encoders are computed once for
all prompts and looked up (`PromptTable`), and tiny models learn a word for each stem on each side (`Words`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Told(NamedTuple):
    """States (B, token, width) for the first and the second attention, and which of them are there (B, token)."""

    first: Tensor
    first_mask: Tensor
    second: Tensor
    second_mask: Tensor

    def context(self) -> dict[str, Tensor]:
        """As AudioLDM2's U-Net takes them."""
        return {
            "encoder_hidden_states": self.first,
            "encoder_attention_mask": self.first_mask,
            "encoder_hidden_states_1": self.second,
            "encoder_attention_mask_1": self.second_mask,
        }


class Words(nn.Module):
    """A trainable word for every stem that is heard and every stem that is wanted, and one that is always there."""

    def __init__(self, stems: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Embedding(2 * stems + 1, widths[0])
        self.second = nn.Embedding(2 * stems + 1, widths[1])

    def forward(self, heard: Tensor, wanted: Tensor, told: Tensor) -> Told:
        """Of relations (B, stem), bool; where `told` (B,) is False, of none."""
        there = torch.cat([heard, wanted], 1) & told[:, None]
        mask = torch.cat([there.new_ones(len(there), 1), there], 1).to(self.first.weight.dtype)
        size = (len(there), -1, -1)
        return Told(self.first.weight.expand(size), mask, self.second.weight.expand(size), mask)


class PromptTable(nn.Module):
    """States of pretrained text encoders for the prompt of every relation, and in the last row for no prompt.

    A relation's row is heard * 2^stems + wanted, both as the bits of a number, the first stem the lowest bit.
    """

    first: Tensor
    second: Tensor
    second_mask: Tensor

    def __init__(self, stems: int, widths: tuple[int, int], tokens: tuple[int, int]) -> None:
        super().__init__()
        rows = 4**stems + 1
        self.stems = stems
        self.register_buffer("first", torch.zeros(rows, tokens[0], widths[0]))
        self.register_buffer("second", torch.zeros(rows, tokens[1], widths[1]))
        self.register_buffer("second_mask", torch.zeros(rows, tokens[1]))

    def forward(self, heard: Tensor, wanted: Tensor, told: Tensor) -> Told:
        """Of relations (B, stem), bool; where `told` (B,) is False, of none."""
        bits = torch.arange(2 * self.stems, device=heard.device)
        row = (torch.cat([wanted, heard], 1).long() << bits).sum(1)
        row = torch.where(told, row, 4**self.stems)
        first = self.first[row]
        return Told(first, first.new_ones(first.shape[:2]), self.second[row], self.second_mask[row])
