"""Answers -> rows of figures, and embedding frames for the distances between sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stemwise.embeddings import Embedding, load_embedding
from stemwise.embeddings.embedding import digest
from stemwise.errors import ModelError, QueryError, ScoreError
from stemwise.evaluate.metrics import LIMIT_DB, Metric, metric
from stemwise.evaluate.protocol import Protocol
from stemwise.evaluate.questions import Question, Take, levels
from stemwise.metrics import msdm
from stemwise.metrics.bsseval import bss_eval_sdr
from stemwise.metrics.logmel import log_mel_l1, log_mel_mse
from stemwise.metrics.separation import sdr, si_sdr, si_sdr_improvement
from stemwise.scores import Listening, score
from stemwise.stems import Audio

Frames = dict[str, NDArray[np.float32]]
"""Embedding frames (n, d) by "metric|group|made" and "metric|group|real"."""
UNDEFINED = "no value: silent, alone, or never audible together"
COHERENCES = ("coherence", "coherence-harmonic", "coherence-percussive")
MSDM, MSDM_ACTIVE = "msdm-si-sdri", "msdm-si-sdri-active"
_Value = tuple[str, str, float | None, float, float]
"""Metric, stem, value (None where it has none), start in the chunk and length in seconds."""


@dataclass(frozen=True)
class Row:
    """One figure: what the columns of the CSV file hold. `value` is None where the figure has no meaning."""

    start: float
    seconds: float
    given: str
    wanted: str
    stem: str
    metric: str
    value: float | None
    note: str = ""


@dataclass(frozen=True)
class Ruler:
    """Measures takes by a protocol; encoders are loaded once. `weights`: model folders of embeddings, by name."""

    protocol: Protocol
    weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Those of the protocol."""
        return tuple(metric(name) for name in self.protocol.metrics)

    @cached_property
    def instruments(self) -> dict[str, str]:
        """Every encoder that the metrics need, and its version; loads them all. Raises ModelError, QueryError."""
        found = {name: embedding.version for name, embedding in self._embeddings.items()}
        if set(self.protocol.metrics) & set(COHERENCES):
            encoder = self._listening.encoder()
            found["coherence"] = digest(encoder) if isinstance(encoder, nn.Module) else type(encoder).__name__
        return found

    @cached_property
    def _listening(self) -> Listening:
        return Listening(Listening(self.weights.get("cocola", "cocola"), self.device).encoder())

    @cached_property
    def _embeddings(self) -> Mapping[str, Embedding]:
        names = dict.fromkeys(entry.embedding for entry in self.metrics if entry.embedding)
        try:
            return {name: load_embedding(name, self.weights.get(name), self.device) for name in names}
        except ModelError as error:
            raise ModelError(f"{error} (to evaluate: --weights NAME=FOLDER)") from error

    def rows(self, take: Take) -> Iterator[Row]:
        """All figures of one answer."""
        question = take.question
        names = {entry.name for entry in self.metrics if not entry.embedding}
        for name, stem, value, start, seconds in (*self._separation(take, names), *self._coherence(take, names)):
            note = ""
            if value is None or math.isnan(value):
                value, note = None, UNDEFINED
            elif name in _LIMITED and abs(value) > LIMIT_DB:
                value, note = math.copysign(LIMIT_DB, value), "limited"
            yield Row(question.start + start, seconds, question.given, question.wanted, stem, name, value, note)

    def made(self, take: Take) -> Frames:
        """Embedding frames of an answer."""
        question = take.question
        return self._frames("made", self._signals(question, take.heard(), take.answer), question.truth.rate)

    def real(self, question: Question) -> Frames:
        """Embedding frames of what `made` is compared with."""
        heard = Take(question, question.truth).heard()
        real = question.truth.select([name for name in question.truth.names if name in question.query.wanted])
        return self._frames("real", self._signals(question, heard, real), question.truth.rate)

    def _signals(
        self, question: Question, heard: NDArray[Any], stems: Audio
    ) -> dict[tuple[str, str], NDArray[np.float32]]:
        """What is embedded, (channel, frames), by family and group."""
        total = stems.data[0].sum(0).numpy()
        if question.query.task == "separate":
            audible = self._audible(question.truth)
            return {("fad", name): stems[name][0].numpy() for name in stems.names if name in audible}
        signals = {("fad", question.group): total}
        if question.query.task == "accompany":
            signals["sub-fad", question.group] = heard + total
        return signals

    def _frames(self, side: str, signals: Mapping[tuple[str, str], NDArray[np.float32]], rate: int) -> Frames:
        out: Frames = {}
        for entry in self.metrics:
            if entry.embedding:
                for (family, group), signal in signals.items():
                    if entry.name.partition(":")[0] == family:
                        frames = self._embeddings[entry.embedding].embed(signal.mean(0), rate)
                        out[f"{entry.name}|{group}|{side}"] = frames
        return out

    def _audible(self, truth: Audio) -> set[str]:
        active = self.protocol.active(levels(truth.data[0].numpy()))
        return {name for name, sounds in zip(truth.names, active) if sounds}

    def _separation(self, take: Take, names: set[str]) -> Iterator[_Value]:
        if take.question.query.task != "separate":
            return
        truth, mixture, audible = take.question.truth, take.heard(), self._audible(take.question.truth)
        for stem in truth.names:
            reference, estimate = truth[stem][0].numpy(), take.answer[stem][0].numpy()
            for name in _BY_STEM:
                if name in names:
                    silent = name in _RATIOS and stem not in audible
                    alone = name == "si-sdri" and math.isinf(si_sdr(mixture, reference))  # nothing to improve on
                    value = None if silent or alone else _BY_STEM[name](estimate, reference, mixture, truth.rate)
                    yield name, stem, value, 0.0, truth.seconds
        if "bss-eval-sdr" in names:
            medians = bss_eval_sdr(take.answer.data[0].numpy(), truth.data[0].numpy(), truth.rate).medians()
            yield from (("bss-eval-sdr", stem, value, 0.0, truth.seconds) for stem, value in zip(truth.names, medians))
        if names & {MSDM, MSDM_ACTIVE}:
            yield from _msdm(take, names)

    def _coherence(self, take: Take, names: set[str]) -> Iterator[_Value]:
        asked = [name for name in COHERENCES if name in names]
        if not asked:
            return
        answer, seconds = take.answer, take.question.truth.seconds
        total = answer.mix()[0].numpy()
        if take.question.query.task == "accompany":
            pairs = {take.question.group: (take.heard(), total)}
        else:
            pairs = {name: (total - answer[name][0].numpy(), answer[name][0].numpy()) for name in answer.names}
        for stem, (context, made) in pairs.items():
            try:
                found = score(context, made, rate=answer.rate, how=self._listening)
            except ScoreError:
                yield from ((name, stem, None, 0.0, seconds) for name in asked)
            else:
                parts = (found.coherence, found.harmonic, found.percussive)
                values = {name: None if part is None else part.mean for name, part in zip(COHERENCES, parts)}
                yield from ((name, stem, values[name], 0.0, seconds) for name in asked)


def _msdm(take: Take, names: set[str]) -> Iterator[_Value]:
    truth = take.question.truth
    if truth.rate != msdm.RATE or truth.data.shape[2] != 1:
        raise QueryError(
            f"MSDM's figure is of mono at {msdm.RATE} Hz, not {truth.data.shape[2]} channel(s) at {truth.rate} Hz; use "
            "--protocol msdm"
        )
    for window in msdm.score_song(take.answer.data[0, :, 0].numpy(), truth.data[0, :, 0].numpy()):
        if window.improvement is None:
            continue
        for stem, value, active in zip(truth.names, window.improvement, window.active):
            place = (window.start / truth.rate, (window.end - window.start) / truth.rate)
            if MSDM in names:
                yield MSDM, stem, float(value), *place
            if MSDM_ACTIVE in names:
                yield MSDM_ACTIVE, stem, float(value) if active else None, *place


_RATIOS = ("si-sdr", "si-sdri", "sdr")
_LIMITED = (*_RATIOS, "bss-eval-sdr")
_BY_STEM: Mapping[str, Callable[[Any, Any, Any, int], float]] = {
    "si-sdr": lambda estimate, reference, mixture, rate: si_sdr(estimate, reference),
    "si-sdri": lambda estimate, reference, mixture, rate: si_sdr_improvement(estimate, reference, mixture),
    "sdr": lambda estimate, reference, mixture, rate: sdr(estimate, reference),
    "log-mel-mse": lambda estimate, reference, mixture, rate: log_mel_mse(estimate, reference, rate),
    "log-mel-l1": lambda estimate, reference, mixture, rate: log_mel_l1(estimate, reference, rate),
}
