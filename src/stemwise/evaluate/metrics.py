"""The metrics by name, with their definitions as a report states them; `measures` computes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from stemwise.errors import QueryError, did_you_mean

SEPARATE, ACCOMPANY, GENERATE = "separate", "accompany", "generate"
LIMIT_DB = 100.0
"""Ratios in dB are limited to this on both sides: a perfect answer and digital silence have infinite ones."""
DEFAULT_EMBEDDING = "cocola"


@dataclass(frozen=True)
class Metric:
    """What a metric is.

    Attributes:
        name: as it is asked for; metrics on embeddings end in ":EMBEDDING".
        unit: of a figure.
        better: which direction is better.
        tasks: where it has a meaning.
        definition: for the header of a report.
        embedding: for distances between sets of embedding frames; else empty.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    tasks: frozenset[str]
    definition: str
    embedding: str = ""


_SILENT = "a stem whose reference is below the floor has no value and is counted"
_RATIO = f"limited to ±{LIMIT_DB:g} dB; {_SILENT}"
_CHANNELS = "all channels and samples of the chunk as one vector"


def _separation(name: str, unit: str, definition: str, better: Literal["higher", "lower"] = "higher") -> Metric:
    return Metric(name, unit, better, frozenset({SEPARATE}), definition)


def _coherence(name: str, of: str) -> Metric:
    definition = (
        f"COCOLA score of {of} (Ciranni et al. 2025): windows of 5 s, hop 2.5 s, in which both sides are above -60 dBFS; the "
        "mean of those that begin in one stretch of 5 s, then the mean over the stretches. Accompany: what was heard first, "
        "then the sum of what was made; otherwise: the sum of the other stems of the answer first, then the stem"
    )
    return Metric(name, "logit", "higher", frozenset({SEPARATE, ACCOMPANY, GENERATE}), definition)


_MSDM = (
    "SI-SDR improvement over the sum of the judged stems as MSDM measures it (Mariani et al. 2024): windows of 4 s every "
    "2 s, those with fewer than two sounding stems skipped (silent: norm / samples < 1.5e-5), 1e-8 added to both products "
    "and both energies, silent stems of a kept window included"
)
_FAD = (
    "Fréchet distance of two Gaussians (covariances divided by n - 1) fitted to the embedding frames of all chunks of all "
    "songs, reference and answer with the same number of chunks. It falls as 1/n with the number of frames n, so compare "
    "figures of one n only"
)

#: Every metric, by the name it is asked for; after a family on embeddings comes ":EMBEDDING".
METRICS: dict[str, Metric] = {
    entry.name: entry
    for entry in (
        _separation(
            "si-sdr", "dB", f"scale-invariant SDR (Le Roux et al. 2019), means not removed, {_CHANNELS}; {_RATIO}"
        ),
        _separation(
            "si-sdri", "dB", f"si-sdr of the stem minus si-sdr of the mixture taken for the stem; {_RATIO}"
        ),
        _separation(
            "sdr",
            "dB",
            "signal-to-distortion ratio of the whole chunk (the utterance SDR of Mitsufuji et al. 2022): "
            f"10 log10(|s|² / |s - e|²), {_CHANNELS}; {_RATIO}",
        ),
        _separation(
            "bss-eval-sdr",
            "dB",
            "SDR of BSS Eval 4 (Stöter et al. 2018): the median over windows of 1 s in which all stems and all estimates "
            f"are audible; limited to ±{LIMIT_DB:g} dB. (Published tables take medians over songs; here means)",
        ),
        _separation(
            "log-mel-mse",
            "squared ln",
            "mean squared difference of log-mel spectrograms (64 bands, 16 kHz; MSG-LD, Karchkhadze et al. 2024), of the "
            "signals; silent stems count",
            "lower",
        ),
        _separation(
            "log-mel-l1",
            "ln",
            "mean absolute difference of log-mel spectrograms (as log-mel-mse; MGE-LDM, Chae et al. 2025)",
            "lower",
        ),
        _separation("msdm-si-sdri", "dB", _MSDM),
        _separation(
            "msdm-si-sdri-active", "dB", f"{_MSDM}; here windows in which the stem itself is silent are left out"
        ),
        _coherence("coherence", "the whole sound"),
        _coherence("coherence-harmonic", "the harmonic share of the sound"),
        _coherence("coherence-percussive", "the percussive share of the sound"),
        Metric(
            "fad", "squared embedding unit", "lower", frozenset({SEPARATE, ACCOMPANY, GENERATE}),
            f"{_FAD}. Separate: stem against stem; accompany: sum of the made stems against the real ones; generate: "
            "mixture against mixture", DEFAULT_EMBEDDING,
        ),
        Metric(
            "sub-fad", "squared embedding unit", "lower", frozenset({ACCOMPANY}),
            f"{_FAD}. What was heard plus what was made, against what was heard plus the real stems, for each set of made "
            "stems; the mean is over these sets (after SingSong and MSDM, which give no exact protocol)",
            DEFAULT_EMBEDDING,
        ),
    )
}  # fmt: skip


def metric(name: str) -> Metric:
    """A metric by name. Raises QueryError with the allowed names."""
    family, colon, embedding = name.partition(":")
    if family not in METRICS or (colon and not METRICS[family].embedding):
        hint = did_you_mean(family, METRICS)
        raise QueryError(f"no metric named {name!r}{hint}; there are: {', '.join(METRICS)}")
    found = METRICS[family]
    return replace(found, name=name, embedding=embedding or found.embedding) if found.embedding else found
