"""Evaluation: systems x songs x metrics, by a protocol; resumable, in shards, with intervals and definitions."""

from __future__ import annotations

from stemwise.evaluate.compare import Compared, compare
from stemwise.evaluate.figures import Figure, figures
from stemwise.evaluate.metrics import METRICS, Metric, metric
from stemwise.evaluate.protocol import PROTOCOLS, Chunks, Protocol
from stemwise.evaluate.questions import Question, System
from stemwise.evaluate.report import write_report
from stemwise.evaluate.results import Results, read_results
from stemwise.evaluate.run import Event, evaluate
from stemwise.evaluate.systems import Entrant, SystemSection, entrant

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Chunks",
    "Compared",
    "Entrant",
    "Event",
    "Figure",
    "Metric",
    "Protocol",
    "Question",
    "Results",
    "System",
    "SystemSection",
    "compare",
    "entrant",
    "evaluate",
    "figures",
    "metric",
    "read_results",
    "write_report",
]
