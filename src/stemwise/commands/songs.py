"""`stemwise songs`: data sets. `make` writes synthetic songs, `verify` and `stats` look at any, `pack` makes shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Code, Voice, complain
from stemwise.commands.packing import pack
from stemwise.commands.phrases import phrases
from stemwise.errors import QueryError

app = typer.Typer(help="Data sets: make synthetic songs, verify, describe and pack any data set.", no_args_is_help=True)
app.command()(pack)
app.command()(phrases)
#: Problems of a kind that are printed; --json has them all.
SHOWN = 10


class Fonts(StrEnum):
    """The sets of sound fonts, which never mix."""

    train = "train"
    validation = "validation"
    test = "test"
    builtin = "builtin"


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where the songs go: FOLDER/song-000000, ...")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many songs.")] = 10,
    first: Annotated[int, typer.Option("--first", min=0, help="Seed of the first; the others follow.")] = 0,
    seconds: Annotated[float, typer.Option("--seconds", min=5.0, help="Length of a song.")] = 45.0,
    fonts: Annotated[Fonts, typer.Option("--fonts", help="Sounds; builtin needs no sound font.")] = Fonts.train,
    rate: Annotated[int, typer.Option("--rate", min=8000, max=96000, help="Sample rate in hertz.")] = 44100,
    keys: Annotated[int, typer.Option("--keys", min=1, max=7, help="Render each composition in so many keys.")] = 1,
    log: Annotated[
        Path | None, typer.Option("--log", help="File that notes every look at the test fonts.", show_default=False)
    ] = None,
    midi: Annotated[
        bool, typer.Option("--midi", help="Only FOLDER/song-000000.mid, ...: no sound, for models of notes and rolls.")
    ] = False,
    quiet: o.Quiet = False,
) -> None:
    """Compose and render songs, one folder of stems and MIDI each. Songs that are there already are kept."""
    from stemwise.songs.synthetic.write import write_midi_songs, write_songs

    voice = Voice(quiet)

    def note(line: str) -> None:
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"- {time.strftime('%Y-%m-%d %H:%M')} {line}\n")

    seeds = range(first, first + count)
    if midi and (fonts, rate, keys) != (Fonts.train, 44100, 1):
        raise QueryError("--fonts, --rate and --keys are for audio, and --midi makes none")
    if midi:
        written = write_midi_songs(folder, seeds, seconds=seconds)
    else:
        written = write_songs(folder, seeds, fonts=fonts.value, rate=rate, seconds=seconds, keys=keys, log=note)
    for number, song in enumerate(written, 1):
        voice.say(f"{song} ({number}/{count * (1 if midi else keys)})")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A data set as downloaded, a folder of songs, shards, or a CSV file.")],
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Recognise a data set, read every file of it to its end, and say what is wrong; exit code 1 if training would break."""
    from stemwise.songs.verification import KINDS
    from stemwise.songs.verification import verify as examine

    voice = Voice(quiet, as_json=as_json)
    with _listening(voice, "verify") as progress:
        report = examine(folder, progress)
    voice.say(f"{folder}: {report.layout}, {_amount(report.songs, report.hours, report.midi)}")
    counts: dict[str, Mapping[Any, int]] = {
        "stems": report.stems,
        "Hz": report.rates,
        "channels": report.channels,
        "splits": report.splits,
    }
    for name, counted in counts.items():
        if counted:
            voice.say(f"{name}: {_counts(counted)}")
    if report.missing:
        voice.say(f"without the stem (silent in training): {_counts(report.missing)}")
    for kind in KINDS:
        problems = getattr(report, kind)
        tell = complain if kind == "corrupt" else voice.say
        for problem in problems[:SHOWN]:
            tell(f"{kind}: {problem.name}: {problem.reason}")
        if len(problems) > SHOWN:
            tell(f"{kind}: and {len(problems) - SHOWN} more; --json lists them all")
    voice.say(
        "every song can be used" if report.ok else f"not every song can be used: {len(report.corrupt)} problem(s)"
    )
    code = Code.OK if report.ok else Code.FAILED
    voice.hand_over("songs verify", report.to_dict(), code)
    raise typer.Exit(code)


@app.command()
def stats(
    folder: Annotated[Path, typer.Argument(help="A data set as downloaded, a folder of songs, shards, or a CSV file.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A picture of it all (.png, .svg, .pdf).", show_default=False)
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Lengths of the songs, how much each stem plays and how loud, from 16 windows of a second in every song.

    Exit code 1 if a song could not be read.
    """
    from stemwise.songs import statistics

    voice = Voice(quiet, as_json=as_json)
    if out is not None:
        statistics.check_picture(out)
    with _listening(voice, "stats") as progress:
        found = statistics.measure(folder, progress)
    document = found.to_dict()
    voice.say(f"{folder}: {found.layout}, {_amount(document['songs'], document['hours'], 0)}")
    voice.say(f"{'stem':<24}{'songs':>7}{'plays %':>9}{'level dB':>10}   (medians)")
    for name, stem in document["stems"].items():
        level = f"{stem['level_db'][1]:.1f}" if stem["level_db"] else "-"
        voice.say(f"{name:<24}{stem['songs']:>7}{100 * stem['activity'][1]:>9.0f}{level:>10}")
    for problem in found.problems[:SHOWN]:
        complain(f"unreadable: {problem.name}: {problem.reason}")
    if len(found.problems) > SHOWN:
        complain(f"unreadable: and {len(found.problems) - SHOWN} more; --json lists them all")
    if out is not None:
        statistics.draw(found, out)
        voice.say(f"{out} is written")
    code = Code.FAILED if found.problems else Code.OK
    voice.hand_over("songs stats", document, code)
    raise typer.Exit(code)


@contextmanager
def _listening(voice: Voice, label: str) -> Iterator[Callable[[float, float], None]]:
    """Progress in seconds of audio, for what reads songs one after the other."""
    from stemwise.longform import tell

    started = time.monotonic()
    with voice.progress(label) as show:
        yield lambda done, total: tell(show, done, total, started, label)


def _amount(songs: int, hours: float, midi: int) -> str:
    return f"{midi} MIDI files" if midi and not songs else f"{songs} song{'s' * (songs != 1)}, {hours:.2f} h"


def _counts(counted: Mapping[Any, int]) -> str:
    named = [f"{name} in {count}" for name, count in counted.items()]
    return ", ".join(named[: 2 * SHOWN]) + (f", and {len(named) - 2 * SHOWN} more" if len(named) > 2 * SHOWN else "")
