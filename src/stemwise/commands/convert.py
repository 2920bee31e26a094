"""`stemwise convert`: published weights -> a model folder."""

from __future__ import annotations

import importlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.errors import QueryError


class System(StrEnum):
    """Whose weights: `convert_NAME` in the module of that name in `stemwise.convert` converts them."""

    cocola = "cocola"
    vggish = "vggish"
    msdm = "msdm"
    mixture2music = "mixture2music"
    msgld = "msgld"
    componet = "componet"


def convert(
    system: Annotated[System, typer.Argument(help="Whose published weights these are.")],
    file: Annotated[Path, typer.Argument(help="The published file, or the folder of weights that belong together.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The model folder to write; by default beside the file, by its name.")
    ] = None,
    stems: Annotated[
        str | None,
        typer.Option("--stems", help="componet: its tags, in order (bass,drums,guitar,piano).", show_default=False),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", help="componet: the form of its prompts, released (the default) or paper.", show_default=False
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn published weights into a model folder.

    The file is only read: code in it never runs. Every verb that uses such a model takes the folder with --model.
    """
    folder = out or file.parent / file.stem
    if folder == file:
        raise QueryError(f"{folder} is what is converted; give another folder with --out")
    o.check_free(folder, overwrite)
    for option, given in (("stems", stems), ("prompts", prompts)):
        if given is not None and system is not System.componet:
            raise QueryError(
                f"--{option} is for componet alone; {system} is converted as it was published, leave it away"
            )
    if prompts not in (None, "released", "paper"):
        raise QueryError(f"--prompts {prompts}: there are two forms, released and paper")
    told = {"stems": stems and o.names(stems), "form": prompts}
    told = {name: value for name, value in told.items() if value is not None}
    converters = importlib.import_module(f"stemwise.convert.{system}")
    written = getattr(converters, f"convert_{system}")(file, folder, **told)
    Voice(quiet).say(f"{written}: use it with --model {written}")
