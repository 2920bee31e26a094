"""What `stemwise score` prints for people."""

from __future__ import annotations

from collections.abc import Sequence

from stemwise.metrics.statistics import Interval
from stemwise.scores import Offset, Score, StemScores


def score_lines(title: str, found: Score) -> list[str]:
    """One signal against another."""
    rows = [("coherence", _interval(found.coherence)), ("harmonic", _interval(found.harmonic)),
            ("percussive", _interval(found.percussive)), ("in place", _percent(found.probability))]  # fmt: skip
    return [f"{title}: {found.seconds:.1f} s, {found.coverage:.0%} of the windows scored", *_table(rows),
            *_copies(title, found)]  # fmt: skip


def song_lines(title: str, song: StemScores) -> list[str]:
    """Each stem against the sum of the others, and each pair."""
    rows = [("stem", "coherence", "harmonic", "percussive", "in place", "scored")]
    for name, found in song.stems.items():
        if found is None:
            rows.append((name, "silent, or alone", "", "", "", "0%"))
        else:
            intervals = (_interval(found.coherence), _interval(found.harmonic), _interval(found.percussive))
            rows.append((name, *intervals, _percent(found.probability), f"{found.coverage:.0%}"))
    names = list(song.stems)
    pairs = [("each alone:", *names)]
    for context in names:
        values = [song.pairs.get((context, made)) for made in names]
        pairs.append((context, *("–" if value is None else f"{value.mean:.2f}" for value in values)))
    lines = [f"{title}: {song.seconds:.1f} s, each stem against the sum of the others", *_table(rows), *_table(pairs)]
    for name, found in song.stems.items():
        lines += [] if found is None else _copies(name, found)
    if song.odd_one is not None:
        lines.append(f"  fits least: {song.odd_one}")
    return lines


def _copies(name: str, found: Score) -> list[str]:
    """What coherence does not tell from company."""
    if not found.may_copy:
        return []
    turned = " upside down" if found.correlation < 0 else ""
    return [f"  {name}: {found.correlation**2:.0%} of it may be a copy of the context{turned} (correlation "
            f"{found.correlation:+.2f}); coherence cannot tell that from music that fits"]  # fmt: skip


def offset_lines(offset: Offset, bpm: float | None) -> list[str]:
    """The best moves, and the verdict; shifts also in beats where the tempo is known."""

    def place(seconds: float) -> str:
        beats = f" ({seconds * bpm / 60:+.3g} beats)" if bpm is not None else ""
        return f"{seconds:+.3f} s{beats}"

    top = [("shift", "semitones", "score", "gain")]
    top += [(place(m.seconds), f"{m.semitones:+g}", f"{m.score:.2f}", _interval(m.gain)) for m in offset.moves[:5]]
    best = offset.best
    if best == offset.as_is:
        verdict = "  no move fits surely better than none"
    else:
        verdict = f"  fits best when moved by {place(best.seconds)} and {best.semitones:+g} semitones"
    return [f"  search over {len(offset.moves)} moves, {offset.windows} windows", *_table(top), verdict]


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:.2f}" if interval.count < 2 else str(interval)


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    spread = "" if interval.count < 2 else f" [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
    return f"{interval.mean:.0%}{spread}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]
