"""`stemwise songs phrases`: MIDI files cut into phrases of piano roll, as published with Mixture2Music."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.errors import QueryError
from stemwise.files import read_json


def phrases(
    source: Annotated[Path, typer.Argument(help="A folder of MIDI files, such as the Lakh MIDI data set.")],
    out: Annotated[Path, typer.Argument(help="The folder for the phrases; train on it with data.rolls.")],
    melodies: Annotated[
        Path | None,
        typer.Option("--melodies", help="JSON: file name without .mid -> program of its melody.", show_default=False),
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Cut MIDI files into windows of four bars, with the published filters.

    phrases.jsonl says which are of which song, rejected.jsonl why other songs were left out.
    """
    from stemwise.songs.lakh_phrases import write_phrases

    voice = Voice(quiet, as_json=as_json)
    o.check_apart(source, out)
    done, total = 0, 0
    for done, total in write_phrases(source, out, _melodies(melodies), voice.detail):
        if done % 1000 == 0:
            voice.say(f"{done} files, {total} phrases")
    voice.say(f"{out}: {total} phrases of {done} files")
    voice.hand_over("songs phrases", {"out": str(out), "files": done, "phrases": total})


def _melodies(file: Path | None) -> dict[str, int]:
    if file is None:
        return {}
    try:
        table = read_json(file)
        return {
            Path(name).stem if name.lower().endswith((".mid", ".midi")) else name: int(p) for name, p in table.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise QueryError(f"{file}: not a JSON table of file names and program numbers ({error})") from error
