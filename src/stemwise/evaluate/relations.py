"""Published relations between systems, and whether they hold here: a failure is a result."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import field_validator

from stemwise.errors import EvaluationError, QueryError, RecipeError
from stemwise.evaluate.compare import ends, paired_figures
from stemwise.evaluate.figures import ALL
from stemwise.evaluate.metrics import metric
from stemwise.evaluate.results import Results
from stemwise.metrics.statistics import Comparison
from stemwise.recipe import Section


class Relation(Section):
    """`better` is judged better than `worse` by every one of `metrics`; `source` says who published it."""

    better: str
    worse: str
    metrics: list[str]
    source: str = ""

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: list[str]) -> list[str]:
        for name in metrics:
            try:
                metric(name)
            except QueryError as error:
                raise ValueError(str(error)) from error
        return metrics


@dataclass(frozen=True)
class Finding:
    """One relation under one metric.

    Attributes:
        text: "random-submix better than band (paper)".
        metric: by which.
        difference: of the figures, the better one's minus the worse one's; None where a figure is missing.
        verdict: "held", "not held", or why it cannot be said. The sign decides, where the comparison is `sure`.
    """

    text: str
    metric: str
    difference: Comparison | None
    verdict: str

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        found = None if self.difference is None else self.difference.difference
        return {
            "relation": self.text,
            "metric": self.metric,
            "difference": None if found is None else found.mean,
            **({"low": None, "high": None} if found is None else ends(found)),
            "verdict": self.verdict,
        }


def check_labels(relations: Sequence[Relation], labels: Collection[str]) -> None:
    """Raise RecipeError for a system that does not take part."""
    for name in (name for relation in relations for name in (relation.better, relation.worse)):
        if name not in labels:
            raise RecipeError(f"relations: no system is called {name!r}; there are: {', '.join(labels)}")


def check_relations(relations: Sequence[Relation], runs: Sequence[Results]) -> list[Finding]:
    """Every relation under each of its metrics. Raises RecipeError for a system that does not take part."""
    by_label = {run.label: run for run in runs}
    check_labels(relations, by_label)
    findings: list[Finding] = []
    for relation in relations:
        try:
            compared = paired_figures(by_label[relation.better], by_label[relation.worse], relation.metrics)
        except EvaluationError as error:
            text = f"{relation.better} better than {relation.worse}"
            findings += [Finding(text, name, None, f"not measured ({error})") for name in relation.metrics]
            continue
        for name in relation.metrics:
            own = [pair for pair in compared.pairs if pair.metric == name]
            pair = next((p for p in own if p.stem == ALL), own[0] if own else None)
            source = f" ({relation.source})" if relation.source else ""
            text = f"{relation.better} better than {relation.worse}{source}"
            if pair is None:
                findings.append(Finding(text, name, None, "not measured"))
                continue
            findings.append(Finding(text, name, pair.difference, _verdict(pair.difference, metric(name).better)))
    return findings


def _verdict(found: Comparison, better: str) -> str:
    interval = found.difference
    if not found.sure:
        return "not held (undecided: the interval holds 0, or the songs are too few)"
    return "held" if (interval.mean > 0) == (better == "higher") else "not held (reversed)"
