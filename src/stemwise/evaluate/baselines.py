"""Baselines: systems of a few lines, which evaluation cannot tell from a model. Oracles may look at the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stemwise.codecs import Lapped
from stemwise.errors import EvaluationError, QueryError
from stemwise.evaluate.protocol import Protocol
from stemwise.evaluate.questions import Question, Shape, System, levels
from stemwise.songs import Song
from stemwise.songs.window import read_at
from stemwise.stems import Audio

_ATTEMPTS = 64


def ground_truth(question: Question) -> Audio:
    """The real stems: the ceiling of every metric."""
    return question.truth


def mixture_over_k(question: Question) -> Audio:
    """The mixture, divided by the number of stems, for each of them: the floor of separation."""
    mixture = _heard(question)
    share = mixture / len(question.truth)
    return Audio(question.truth.names, share[:, None].expand_as(question.truth.data), question.truth.rate)


def oracle_mask(question: Question) -> Audio:
    """Each stem's true share of the power in every bin of a lapped transform, times the mixture: what masks can reach."""
    mixture, truth = _heard(question), question.truth.data[0]
    every = torch.cat([truth, mixture - truth.sum(0, keepdim=True)])  # what the judged stems leave counts as one more
    return Audio(question.truth.names, ratio_mask(every)[None, : len(truth)], question.truth.rate)


def ratio_mask(stems: Tensor, bins: int = 2048) -> Tensor:
    """Oracle: (stem, channel, time) -> the same, from their sum and their share of the power in each bin of an MDCT."""
    codec = Lapped(bins, tilt=0.0)
    frames = stems.shape[-1]
    padded = torch.nn.functional.pad(stems, (0, -frames % bins))
    power = codec.encode_complex(padded).abs().square()
    mask = power / power.sum(0).clamp_min(1e-12)
    return codec.decode(mask * codec.encode(padded.sum(0)))[..., :frames]


def random_submix(songs: Sequence[Song], protocol: Protocol) -> System:
    """The same stems of another song at a random place: real sound that does not know the context.

    The baseline of COCOLA's table 3. Only places where they are above the floor count.
    """

    def answer(question: Question) -> Audio:
        truth = question.truth
        wanted = [name for name in truth.names if name in question.query.wanted]
        others = [song for song in songs if song.name != question.song.name and set(wanted) & set(song.stems)]
        if not others:
            raise EvaluationError("a random sub-mix needs at least two songs with these stems; give more songs")
        shape = Shape(truth.rate, truth.frames, truth.data.shape[2])
        draw = np.random.default_rng(question.seed)
        for _ in range(_ATTEMPTS):
            song = others[int(draw.integers(len(others)))]
            last = max(0, song.frames - int(truth.seconds * song.rate))
            stems = read_at(song, int(draw.integers(0, last + 1)), wanted, shape)
            if protocol.active(levels(stems.sum(0, keepdims=True)))[0]:
                return Audio(tuple(wanted), torch.from_numpy(stems)[None], truth.rate)
        raise EvaluationError(f"{_ATTEMPTS} places in other songs have silent {'+'.join(wanted)}; give other songs")

    return answer


def best_of(system: System, candidates: int, rank: Callable[[Question, Audio], float]) -> System:
    """Of several answers with seeds of their own the one that ranks highest."""

    def answer(question: Question) -> Audio:
        seeds = [(question.seed + 7919 * i) % (1 << 31) for i in range(candidates)]
        return max((system(replace(question, seed=seed)) for seed in seeds), key=lambda made: rank(question, made))

    return answer


def energy(question: Question, answer: Audio) -> float:
    """The L2 norm of what was made: how MSDM's candidates were chosen for COCOLA's table 3, since many are silent."""
    return float(answer[question.query.wanted & set(answer.names)].norm())


def _heard(question: Question) -> Tensor:
    """The mixture (1, channel, frames). Raises QueryError where none was heard."""
    if question.query.task != "separate":
        raise QueryError(f"this baseline needs a mixture, so it cannot {question.query.task}; choose another system")
    (signal,) = question.query.heard.values()
    assert isinstance(signal, Audio)
    return signal.mix()


#: Baselines that need nothing but the question, by the name that the command line knows.
SIMPLE: dict[str, System] = {
    "ground-truth": ground_truth,
    "mixture-over-k": mixture_over_k,
    "oracle-mask": oracle_mask,
}
RANDOM = "random-submix"
