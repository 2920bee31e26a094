"""A transformer over notes: each attends to all others of a window, by how far they are in time and in pitch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PERIODS = (0.04, 0.15, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Of the rotations by time, in quarter notes: from the looseness of a player to sections of a song."""
_WIDEST, _NARROWEST = 96.0, 3.0
"""Periods of the rotations by pitch, in semitones."""


def rotations(onset: Tensor, pitch: Tensor, size: int) -> Tensor:
    """Angles (..., note, size / 2) of rotary position embeddings in two dimensions (Su et al. 2021, arXiv 2104.09864).

    Of each head's pairs up to ten turn with the onset in quarter notes, the others with the pitch in semitones.
    """
    pairs = size // 2
    timed = min(len(_PERIODS), pairs * 5 // 8)
    periods = torch.tensor(_PERIODS[:timed], device=onset.device, dtype=torch.float32)
    spans = torch.logspace(math.log10(_NARROWEST), math.log10(_WIDEST), pairs - timed, dtype=torch.float32)
    spans = spans.to(onset.device)  # Apple's GPU has no logspace
    return 2 * math.pi * torch.cat([onset[..., None] / periods, pitch[..., None] / spans], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of the last axis."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Block(nn.Module):
    """Attention, then two layers for each note; both after a norm, both added to what comes in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.join = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, seen: Tensor | None) -> Tensor:
        """x (batch, note, width); cos, sin (batch, 1, note, head / 2); seen: bool (batch, 1, 1, note), or all are."""
        batch, notes, width = x.shape
        q, k, v = self.mix(self.before(x)).view(batch, notes, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        heard = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, attn_mask=seen)
        x = x + F.dropout(self.join(heard.transpose(1, 2).reshape(batch, notes, width)), self.dropout, self.training)
        return x + F.dropout(self.narrow(F.relu(self.widen(self.between(x)))), self.dropout, self.training)


class NoteNet(nn.Module):
    """Features and labels that are known -> for each note logits of its label, and of every label that it has.

    `labels` counts the labels; label number `labels` means unknown.
    """

    def __init__(self, features: int, labels: int, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.labels, self.head = labels, width // heads
        self.features = nn.Linear(features, width)
        self.pitch = nn.Embedding(128, width)
        self.known = nn.Embedding(labels + 1, width)
        self.present = nn.Linear(labels + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * labels)
        for table in (self.pitch, self.known):
            nn.init.normal_(table.weight, std=0.3)
        for block in self.blocks:
            for layer in (block.join, block.narrow):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=0.5 / math.sqrt(layer.in_features * depth))

    def forward(
        self, features: Tensor, known: Tensor, present: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (batch, note, label) of the label, and of each label by itself.

        Args:
            features: (batch, note, feature), see `stemwise.symbolic.notes.FEATURES`.
            known: int64 (batch, note), the label or `labels`.
            present: (batch, labels + 1): which labels occur, and 1 where that is known (zeros where it is not).
            valid: bool (batch, note), False for padding; None: there is none.
        """
        pitch, onset = features[..., 0], features[..., 3]
        angles = rotations(onset, pitch, self.head)[:, None]
        cos, sin = angles.cos(), angles.sin()
        scale = torch.ones(features.shape[-1], device=features.device, dtype=torch.float32)
        scale[0], scale[3] = 1 / 64, 0.0  # where in the window a note lies says nothing
        x = self.features(features * scale) + self.pitch(pitch.long().clamp(0, 127)) + self.known(known)
        x = x + self.present(present)[:, None]
        seen = None if valid is None else valid[:, None, None]
        for block in self.blocks:
            x = block(x, cos, sin, seen)
        one, every = self.out(self.norm(x)).split(self.labels, dim=-1)
        return one, every


class NoteLstm(nn.Module):
    """The same question put to a bidirectional LSTM over the sorted notes (Dong et al. 2021): what NoteNet must beat."""

    def __init__(self, features: int, labels: int, width: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.labels = labels
        self.features = nn.Linear(features, width)
        self.pitch = nn.Embedding(128, width)
        self.known = nn.Embedding(labels + 1, width)
        self.present = nn.Linear(labels + 1, width)
        self.lstm = nn.LSTM(width, width // 2, depth, batch_first=True, bidirectional=True, dropout=dropout)
        self.out = nn.Linear(width, 2 * labels)

    def forward(
        self, features: Tensor, known: Tensor, present: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `NoteNet.forward`; padding must be at the end."""
        scale = torch.ones(features.shape[-1], device=features.device, dtype=torch.float32)
        scale[0], scale[3] = 1 / 64, 0.0
        pitch = features[..., 0].long().clamp(0, 127)
        x = self.features(features * scale) + self.pitch(pitch) + self.known(known) + self.present(present)[:, None]
        one, every = self.out(self.lstm(x)[0]).split(self.labels, dim=-1)
        return one, every
