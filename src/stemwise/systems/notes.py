"""Notes of a mixed part given back to their instruments: masked diffusion over labels, nothing else is changed.

A state of the diffusion has for each note its label or "unknown" (the absorbing state of Austin et al. 2021, arXiv
2107.03006). Training hides labels and asks for them; assignment begins with all unknown and makes them known in a few
steps, in an order drawn at random, each step hearing the labels of those before. In one step it
is a plain classifier. Notes whose label is given are never unknown, so evidence is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stemwise.nets.notenet import NoteLstm, NoteNet
from stemwise.symbolic.instruments import BAND
from stemwise.symbolic.notes import FEATURES, Metre, Notes, features

_SIZE = len(FEATURES)


@dataclass(frozen=True)
class NotesConfig:
    """Shape of the network, and how it is trained.

    `window` is in notes. `whole`: chance that all labels of a window are hidden; `seam`: that those of its first notes
    are known, as in the overlap of two windows, of which a share `slip` is wrong. `several`: weight of the loss of "every
    label that this note has".
    """

    net: Literal["attention", "lstm"] = "attention"
    width: int = 128
    depth: int = 5
    heads: int = 4
    dropout: float = 0.0
    window: int = 384
    whole: float = 0.4
    seam: float = 0.15
    slip: float = 0.03
    several: float = 0.2


class NoteAssigner(nn.Module):
    """The network with its training objective."""

    learns_from = "notes"

    #: Windows are counted in notes: there is no rate.
    rate = 1

    def __init__(self, config: NotesConfig) -> None:
        super().__init__()
        self.config = config
        self.stems = tuple(one.name for one in BAND)
        self.window = config.window
        if config.net == "lstm":
            self.net: NoteNet | NoteLstm = NoteLstm(_SIZE, len(BAND), config.width, config.depth, config.dropout)
        else:
            self.net = NoteNet(_SIZE, len(BAND), config.width, config.depth, config.heads, config.dropout)

    def forward(
        self, features: Tensor, known: Tensor, present: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `stemwise.nets.notenet.NoteNet.forward`."""
        found: tuple[Tensor, Tensor] = self.net(features, known, present, valid)
        return found

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross entropy of hidden labels; batch (batch, note, column) as `stemwise.symbolic.windows` makes them."""
        config = self.config
        labels, given, valid = batch[..., _SIZE].long(), batch[..., _SIZE + 1] > 0, batch[..., _SIZE + 2] > 0
        rows, notes = labels.shape

        def draw(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=batch.device)

        share = torch.where(draw(rows, 1) < config.whole, 1.0, draw(rows, 1))
        shown = draw(rows, notes) >= share
        place = torch.arange(notes, device=batch.device) / notes
        seam = (draw(rows, 1) < config.seam) & (place < 0.5 * draw(rows, 1))
        wrong = (draw(rows, notes) * len(self.stems)).long()
        slipped = torch.where(seam & (draw(rows, notes) < config.slip), wrong, labels)
        known = torch.where((shown | given | seam) & valid, slipped, len(self.stems))
        return self._judged(batch, known, valid)

    def validate(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The same with every label hidden that is not given, and the share of these notes that one step gets right."""
        labels, given, valid = batch[..., _SIZE].long(), batch[..., _SIZE + 1] > 0, batch[..., _SIZE + 2] > 0
        return self._judged(batch, torch.where(given & valid, labels, len(self.stems)), valid)

    def _judged(self, batch: Tensor, known: Tensor, valid: Tensor) -> dict[str, Tensor]:
        count = len(self.stems)
        bits, present = batch[..., _SIZE + 3 : _SIZE + 3 + count], batch[:, 0, _SIZE + 3 + count :]
        asked = ((known == count) & valid).float()
        one, every = self(batch[..., :_SIZE], known, present, valid)
        target = bits / bits.sum(-1, keepdim=True).clamp(min=1)
        entropy = -(target * F.log_softmax(one.float(), dim=-1)).sum(-1)
        several = F.binary_cross_entropy_with_logits(every.float(), bits, reduction="none").mean(-1)
        total = asked.sum().clamp(min=1)
        main = (entropy * asked).sum() / total
        right = bits.gather(-1, one.argmax(-1, keepdim=True))[..., 0]
        return {
            "loss": main + self.config.several * (several * asked).sum() / total,
            "accuracy": (right * asked).sum() / total,
        }


#: Stands for "not known" among given labels.
UNKNOWN = -1


@dataclass(frozen=True)
class Question:
    """What is asked about a song.

    Attributes:
        notes: dtype `NOTE`, sorted.
        tpq: ticks to the quarter note.
        metres: time signatures.
        given: labels that are known, int64 (note,), elsewhere `UNKNOWN`; they are never changed.
        allowed: which labels may be given to the others, bool (label,).
        told: whether `allowed` says which instruments play, not only which may.
    """

    notes: Notes
    tpq: int
    metres: Sequence[Metre]
    given: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    told: bool = False


@dataclass(frozen=True)
class Answer:
    """The label of each note, how probable it was when it was chosen (1 where given), and of each label whether the note
    has it too: int64 (note,), float32 (note,), float32 (note, label)."""

    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    several: NDArray[np.float32]


@torch.inference_mode()
def assign(
    model: NoteAssigner,
    question: Question,
    *,
    steps: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    progress: Callable[[float], None] = lambda _: None,
) -> Answer:
    """Labels for all notes of a song of any length.

    In each step the network looks at the song through overlapping windows, whose chances are averaged, and an equal share
    of the notes, in an order drawn once, gets its label; that is evidence for all windows of the next step, so that they
    agree. In one step all labels are the likeliest ones. With a generator labels are drawn, at a temperature, otherwise
    the likeliest are taken. `progress` hears the share that is done.
    """
    labels = question.given.copy()
    confidence = np.where(labels == UNKNOWN, 0.0, 1.0).astype(np.float32)
    several = np.zeros((len(labels), len(model.stems)), dtype=np.float32)
    order = np.flatnonzero(labels == UNKNOWN)
    order = np.random.default_rng(0 if generator is None else generator.initial_seed()).permutation(order)
    steps = min(steps, max(1, len(order)))
    for step, turn in enumerate(np.array_split(order, steps)):
        chances, several = _looked_at(model, question, labels, _part(progress, step, steps))
        drawn = torch.from_numpy(chances[turn])
        if generator is None or not len(turn):
            choice = chances[turn].argmax(-1)
        else:
            heated = (drawn.clamp(min=1e-12).log() / temperature).masked_fill(drawn == 0, -torch.inf).softmax(-1)
            choice = torch.multinomial(heated, 1, generator=generator)[:, 0].numpy()
        labels[turn] = choice
        confidence[turn] = chances[turn, choice]
    return Answer(labels, confidence, several)


def _part(progress: Callable[[float], None], step: int, steps: int) -> Callable[[float], None]:
    return lambda share: progress((step + share) / steps)


def _looked_at(
    model: NoteAssigner, question: Question, labels: NDArray[np.int64], progress: Callable[[float], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Chance of each label, and whether the note has it: float32 (note, label), means over windows half a window apart.

    What lies in the middle of a window counts most.
    """
    notes, window, names = len(labels), model.window, len(model.stems)
    device = next(model.parameters()).device
    weight = np.minimum(np.arange(window) + 1, window - np.arange(window)).astype(np.float32)[:, None]
    present = torch.zeros(1, names + 1, device=device, dtype=torch.float32)
    if question.told:
        present[0] = torch.tensor([*question.allowed.astype(float), 1.0])
    forbidden = torch.from_numpy(~question.allowed).to(device)
    sums = np.zeros((2, notes, names), dtype=np.float32)
    total = np.zeros((notes, 1), dtype=np.float32)
    starts = range(0, max(1, notes - window // 2), window // 2)
    for number, first in enumerate(starts, 1):
        where = slice(first, min(first + window, notes))
        seen = torch.from_numpy(features(question.notes[where], question.tpq, question.metres))[None].to(device)
        known = torch.from_numpy(np.where(labels[where] == UNKNOWN, names, labels[where]))[None].to(device)
        one, every = model(seen, known, present)
        chances = one[0].float().masked_fill(forbidden, -torch.inf).softmax(-1)
        here = weight[: where.stop - where.start]
        sums[0, where] += here * chances.cpu().numpy()
        sums[1, where] += here * every[0].float().sigmoid().cpu().numpy()
        total[where] += here
        progress(number / len(starts))
    return sums[0] / total, sums[1] / total
