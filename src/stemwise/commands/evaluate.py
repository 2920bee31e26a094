"""`stemwise evaluate`: systems on songs by a protocol; `stemwise compare`: two of them, paired."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Code, Voice, complain
from stemwise.errors import EvaluationError, QueryError, RecipeError
from stemwise.extras import needed

if TYPE_CHECKING:
    from stemwise.evaluate import Event, Results
    from stemwise.evaluate.study import Material, Study

EVALUATED = Path("evaluated")
_LISTED = 10


def evaluate(
    systems: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models, model folders, folders of outputs, or baselines: ground-truth, mixture-over-k, oracle-mask, "
            "random-submix.",
            show_default=False,
        ),
    ] = None,
    songs: Annotated[
        Path | None, typer.Option("--songs", help="A data set: a folder of songs with stems.", show_default=False)
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="separate (the default), accompany or generate.", show_default=False)
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            help="Of si-sdr, si-sdri, sdr, bss-eval-sdr, log-mel-mse, log-mel-l1, coherence, coherence-harmonic, "
            "coherence-percussive, fad, sub-fad (fad:EMBEDDING).",
            show_default=False,
        ),
    ] = None,
    stems: Annotated[
        str | None, typer.Option("--stems", help="Judge only these, e.g. bass,drums.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="msdm, or a study's YAML file.", show_default=False)
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(
            "--given",
            help="Accompany: leave-one-out (the default), all, random, or sets: bass+drums,piano.",
            show_default=False,
        ),
    ] = None,
    chunk: Annotated[
        float | None, typer.Option("--chunk", min=0.05, help="Cut songs into pieces of seconds.", show_default=False)
    ] = None,
    per_song: Annotated[
        int | None, typer.Option("--per-song", min=1, help="This many pieces a song, at random.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Results go to OUT/SYSTEM, the report to OUT.")] = EVALUATED,
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="I/N: every Nth song, for N machines; then once without.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A study's quick look: fewer songs and steps.")] = False,
    plots: Annotated[bool, typer.Option("--plots", help="Draw every metric to OUT/plots.")] = False,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps.", show_default=False)] = None,
    evaluations: Annotated[
        int | None, typer.Option("--evaluations", min=1, help="Network evaluations a window.", show_default=False)
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", min=1, help="Make N, keep the best one.", show_default=False)
    ] = None,
    rank: Annotated[str | None, typer.Option("--rank", help="Best by energy or coherence.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of everything random.", show_default=False)] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", help="EMBEDDING=FOLDER, e.g. vggish=weights/vggish.", show_default=False),
    ] = None,
    device: o.Device = "auto",
    log: Annotated[
        Path | None, typer.Option("--log", help="File that notes every look at the test fonts.", show_default=False)
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate systems on songs: figures with intervals and definitions; stop and go on at any time.

    OUT/report.md and OUT/results.csv are made when all songs are done; the same command goes on where it was stopped.
    """
    from stemwise.evaluate import entrant
    from stemwise.evaluate import evaluate as run_evaluation
    from stemwise.evaluate.relations import check_labels
    from stemwise.evaluate.results import SETTINGS
    from stemwise.evaluate.study import material, with_optional

    if plots:
        needed("matplotlib", "eval")
    voice = Voice(quiet, as_json=as_json)
    number, parts = o.part_of(shard or "1/1")
    part = (number - 1, parts)
    chosen = {"task": task, "metrics": o.names(metrics), "stems": o.names(stems), "given": _given(given), "seed": seed}
    cut = {"seconds": chunk, "per_song": per_song}
    how = {"steps": steps, "evaluations": evaluations, "candidates": candidates, "rank": rank}
    studies = _studies(systems or [], songs, protocol, quick, _set(chosen), _set(cut), _set(how))
    tasks = {study.protocol.task for study in studies.values()}
    if (steps and tasks == {"separate"}) or (evaluations and "separate" not in tasks):
        raise QueryError("--steps is for what is sampled, generate and accompany; --evaluations for separate")
    if rank is not None and candidates is None:
        raise QueryError("--rank chooses among --candidates; say how many")
    folders = _weights(weights or [])
    documents, codes = {}, []
    for name, study in studies.items():
        asked, lacking = with_optional(study, folders, device)
        for metric, reason in lacking.items():
            complain(f"{metric} is left out: {reason}")
        if asked.songs.synthetic is not None and asked.songs.synthetic.fonts == "test":
            _note(log, f"{asked.name}, songs of the test fonts")
        found = material(asked.songs, out / "synthetic-songs")
        _tell_unreadable(found)
        entrants = [entrant(section, found.songs, asked.protocol, device, folders) for section in asked.systems]
        earlier = {place.parent.name for place in (out / name).glob(f"*/{SETTINGS}")}
        check_labels(asked.relations, {one.label for one in entrants} | earlier)
        runs = run_evaluation(
            entrants, found.songs, asked.protocol, out / name, shard=part, unreadable=found.unreadable,
            weights=folders, device=device, notice=_Teller(voice),
        )  # fmt: skip
        code, documents[name] = _conclude(voice, asked, runs, out / name, plots, sharded=shard is not None)
        codes.append(code)
    worst = max(codes)
    figures = documents.get("", {"tables": documents})
    voice.hand_over("evaluate", figures, worst)
    raise typer.Exit(worst)


def compare(
    first: Annotated[Path, typer.Argument(help="A results folder: OUT/SYSTEM of an evaluation.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same protocol.")],
    as_json: o.Json = False,
) -> None:
    """Compare two evaluated systems song by song, with a paired bootstrap for every metric and stem."""
    from stemwise.evaluate import compare as pair_up
    from stemwise.evaluate.compare import comparison, plain_comparison

    compared = pair_up(first, second)
    voice = Voice(as_json=as_json)
    voice.say(comparison(compared).rstrip())
    voice.hand_over("compare", plain_comparison(compared))


def _studies(
    systems: list[str], songs: Path | None, protocol: str | None, quick: bool, chosen: dict[str, Any],
    cut: dict[str, Any], how: dict[str, Any],
) -> dict[str, Study]:  # fmt: skip
    """The studies that file and options make together, by table. Raises RecipeError or QueryError."""
    from stemwise.evaluate.study import study

    if cut and "seconds" not in cut:
        raise QueryError("--per-song needs --chunk SECONDS")
    studies = {}
    for table, document in _documents(protocol, quick).items():
        source = f"{protocol or 'the options'}{f', table {table}' if table else ''}"
        _check_shapes(document, source)
        asked = {**document.get("protocol", {}), **chosen} | ({"chunks": cut} if cut else {})
        if asked.get("task") in ("accompany", "generate"):
            asked.setdefault("metrics", ["coherence"])
        document["protocol"] = asked
        if songs is not None:
            kept = {
                key: value for key, value in (document.get("songs") or {}).items() if key in ("split", "split_seed")
            }
            document["songs"] = {"path": str(songs), **kept}
        if systems:
            document["systems"] = [{"system": name} for name in systems]
            document["relations"] = []
        document["systems"] = [{**section, **how} for section in document.get("systems", [])]
        if not document["systems"]:
            raise QueryError("nothing to evaluate: name a system, such as band, ground-truth or a folder of outputs")
        if "songs" not in document:
            raise QueryError("no songs to evaluate on: give --songs with a folder of songs, each with stems")
        studies[table] = study(document, source)
    return studies


def _check_shapes(document: dict[str, Any], source: str) -> None:
    """Raise RecipeError where options cannot be merged into a section."""
    systems = document.get("systems", [])
    shapes = {
        "protocol": (isinstance(document.get("protocol", {}), dict), "a mapping such as {task: separate}"),
        "songs": (isinstance(document.get("songs") or {}, dict), "a mapping such as {path: FOLDER}"),
        "systems": (
            isinstance(systems, list) and all(isinstance(one, dict) for one in systems),
            "a list of mappings such as [{system: ground-truth}]",
        ),
    }
    wrong = [f"{place}: {wanted} (found {document[place]!r})" for place, (right, wanted) in shapes.items() if not right]
    if wrong:
        raise RecipeError("\n".join([f"{source}:", *wrong]))


def _documents(protocol: str | None, quick: bool) -> dict[str, dict[str, Any]]:
    """The plain values that a protocol's name or a study's file stands for, by table."""
    from stemwise.evaluate import PROTOCOLS
    from stemwise.evaluate.study import read_study

    if protocol is not None and Path(protocol).suffix.lower() in (".yaml", ".yml"):
        return read_study(Path(protocol), quick)
    if quick:
        raise QueryError("--quick needs a study's file (--protocol FILE.yaml)")
    if protocol is not None and protocol not in PROTOCOLS:
        raise QueryError(f"no protocol named {protocol!r}; there are: {', '.join(PROTOCOLS)}; or give a YAML file")
    return {"": {"name": protocol or "evaluation", "protocol": dict(PROTOCOLS[protocol]) if protocol else {}}}


def _conclude(
    voice: Voice, asked: Study, runs: list[Results], out: Path, plots: bool, sharded: bool
) -> tuple[Code, dict[str, Any]]:
    """Write the report when every song is done (or has failed), and say how it went; the report for scripts."""
    from stemwise.evaluate.relations import check_relations
    from stemwise.evaluate.report import document, others, tables_of, write_report

    waiting = sorted({name for run in runs for name in run.songs if run.read(name) is None})
    failed = {name for run in runs for name in run.failures()}
    if sharded and waiting:
        voice.say(
            f"this shard is done; {len(waiting)} song(s) are the other shards'. When all are done, with their folders in "
            "one place, run the same command without --shard: it writes the report"
        )
        return Code.FAILED if failed else Code.OK, {}
    beside, apart = others(out, runs)
    for label in apart:
        complain(
            f"{out / label}: was evaluated on other songs or by another protocol, so it is not in this report; give another "
            "folder (-o)"
        )
    every = [*runs, *beside]
    findings = check_relations(asked.relations, every) if all(run.finished() for run in every) else []
    tables = tables_of(every)
    text = write_report(out, every, tables, findings)
    voice.say(text.partition("## Definitions")[0].rstrip())
    voice.say(f"\ndefinitions, counts and songs: {out / 'report.md'}; every value: {out / 'results.csv'}")
    if plots:
        from stemwise.evaluate.plots import plot

        voice.say(f"plots: {', '.join(str(file) for file in plot(out / 'plots', asked.protocol.metrics, tables))}")
    if failed:
        complain(f"{len(failed)} song(s) are not in these figures; {out / 'report.md'} names each and says why")
    return Code.FAILED if failed else Code.OK, document(every, tables, findings)


class _Teller:
    """A line for each song: how many are done, and an estimate of the rest."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice

    def __call__(self, event: Event) -> None:
        for label, reason in event.failures.items():
            complain(f"{event.song}: {label}: {reason}")
        if not self._voice.quiet:
            left = f", about {event.left_seconds:.0f} s left" if event.done < event.total else ""
            print(f"{event.song} ({event.done} of {event.total} songs{left})", file=sys.stderr, flush=True)


def _tell_unreadable(found: Material) -> None:
    if found.unreadable:
        named = list(found.unreadable.items())[:_LISTED]
        more = f"; and {len(found.unreadable) - _LISTED} more" if len(found.unreadable) > _LISTED else ""
        text = "; ".join(f"{name}: {reason}" for name, reason in named)
        complain(f"{len(found.unreadable)} song(s) cannot be read and are left out: {text}{more}")


def _weights(texts: list[str]) -> dict[str, Path]:
    """ "vggish=weights/vggish" -> {"vggish": Path}. Raises QueryError."""
    from stemwise.embeddings import check_embedding

    pairs = [text.partition("=") for text in texts]
    wrong = next((text for text, (name, _, folder) in zip(texts, pairs) if not name or not folder), None)
    if wrong is not None:
        raise QueryError(f"--weights {wrong!r} is not EMBEDDING=FOLDER, such as vggish=weights/vggish")
    for name, _, _ in pairs:
        check_embedding(name)
    return {name: Path(folder) for name, _, folder in pairs}


def _given(text: str | None) -> str | list[list[str]] | None:
    """ "random" -> "random"; "bass+drums,piano" -> [["bass", "drums"], ["piano"]]."""
    if text is None or text in ("leave-one-out", "all", "random"):
        return text
    return [[name.strip() for name in part.split("+") if name.strip()] for part in o.names(text)]


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value not in (None, ())
    }


def _note(log: Path | None, line: str) -> None:
    """Note a look at the test fonts, also where their songs are rendered already. Raises EvaluationError without a file."""
    if log is None:
        raise EvaluationError(f"{line}: every look at the test fonts is noted; give --log FILE")
    with log.open("a", encoding="utf-8") as file:
        file.write(f"- {time.strftime('%Y-%m-%d %H:%M')} evaluate: {line}\n")
