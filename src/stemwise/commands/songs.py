"""`stemwise songs`: data sets. `make` writes synthetic songs, `verify` reads every file of a folder of songs."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Code, Voice, complain
from stemwise.commands.packing import pack

app = typer.Typer(help="Data sets: make synthetic songs, verify folders of songs.", no_args_is_help=True)
app.command()(pack)


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
    log: Annotated[
        Path | None, typer.Option("--log", help="File that notes every look at the test fonts.", show_default=False)
    ] = None,
    quiet: o.Quiet = False,
) -> None:
    """Compose and render songs, one folder of stems and MIDI each. Songs that are there already are kept."""
    from stemwise.songs.synthetic.write import write_songs

    voice = Voice(quiet)

    def note(line: str) -> None:
        voice.detail(line)
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"- {time.strftime('%Y-%m-%d %H:%M')} {line}\n")

    seeds = range(first, first + count)
    written = write_songs(folder, seeds, fonts=fonts.value, rate=rate, seconds=seconds, log=note)
    for number, song in enumerate(written, 1):
        voice.say(f"{song} ({number}/{count})")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A folder with one sub-folder a song.")],
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Read every file of a folder of songs to its end and say what is wrong; exit code 1 if a song cannot be used."""
    from stemwise.songs import verify as examine

    voice = Voice(quiet, as_json=as_json)
    report = examine(folder)
    voice.say(f"{folder}: {report.songs} songs, {report.hours:.2f} h; {_counts(report.stems)}")
    for kind in ("corrupt", "unequal", "silent", "gaps"):
        for problem in getattr(report, kind):
            line = f"{kind}: {problem.name}: {problem.reason}"
            if kind == "corrupt":
                complain(line)
            else:
                voice.say(line)
    voice.say("every song can be used" if report.ok else "not every song can be used")
    voice.hand_over(report.to_dict())
    raise typer.Exit(Code.OK if report.ok else Code.FAILED)


def _counts(stems: dict[str, int]) -> str:
    return ", ".join(f"{name} in {count}" for name, count in stems.items())
