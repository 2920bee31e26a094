"""The command line: `stemwise VERB ...`. Verbs live in `stemwise.commands`; what they need is imported when they run.

Exit codes: 0 all done; 1 some inputs failed; 2 a wrong option or a contradictory request; 3 nothing could be done
because of the model or the installation; 130 cancelled; 143 and 129 ended by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stemwise import __version__, errors
from stemwise.commands import (
    accompany,
    convert,
    describe,
    edit,
    evaluate,
    fad,
    generate,
    rolls,
    score,
    separate,
    songs,
    training,
)
from stemwise.extras import extra_of

_UNAVAILABLE = (errors.ModelError,)
_USAGE = (errors.QueryError, errors.RecipeError)


class Program(TyperGroup):
    """Turns every error that a user can meet into a message on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except errors.Cancelled as error:
            raise _exit(130, f"cancelled. {error}") from error
        except KeyboardInterrupt as error:
            raise _exit(130, "cancelled; nothing partial was left") from error
        except _USAGE as error:
            raise _exit(2, str(error)) from error
        except _UNAVAILABLE as error:
            raise _exit(3, str(error)) from error
        except errors.StemwiseError as error:
            raise _exit(1, str(error)) from error
        except BrokenPipeError:  # whoever reads has gone
            raise
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            said = "Check the path, the access rights and the space on the disk."
            raise _exit(1, f"{place}{error.strerror or error}. {said}") from error
        except ModuleNotFoundError as error:
            extra = extra_of(error.name or "")
            if extra is None:
                raise
            raise _exit(3, f"this needs {error.name}; install it with: pip install 'stemwise[{extra}]'") from error


def _exit(code: int, message: str) -> typer.Exit:
    print(f"stemwise: {message}", file=sys.stderr, flush=True)
    return typer.Exit(code)


app = typer.Typer(
    cls=Program,
    name="stemwise",
    help="Music at the level of stems: separate, generate, accompany and edit the parts of a song.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(separate.separate)
app.command()(generate.generate)
app.command()(accompany.accompany)
app.command()(edit.edit)
app.command()(score.score)
app.command()(fad.fad)
app.command()(evaluate.evaluate)
app.command()(evaluate.compare)
app.command()(describe.info)
app.command()(describe.doctor)
app.command()(rolls.rolls)
app.command()(training.train)
app.command()(training.export)
app.command()(convert.convert)
app.add_typer(songs.app, name="songs")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stemwise {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Music at the level of stems: separate, generate, accompany and edit the parts of a song."""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """The `stemwise` program. SIGTERM, and SIGHUP unless ignored, unwind as Ctrl-C does, so that nothing partial is left."""
    signal.signal(signal.SIGTERM, _terminated)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not so under nohup
        signal.signal(signal.SIGHUP, _terminated)
    if sys.stderr is None:  # a daemon may have closed it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the program runs
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
