"""Options that several verbs share; demucs' short flags where the meaning is the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.errors import AudioFileError, QueryError

if TYPE_CHECKING:
    from stemwise.audio_io import Encoding
    from stemwise.model import Model

Inputs = Annotated[list[str], typer.Argument(help="Files, folders of files, folders of stems, or glob patterns.")]
ModelName = Annotated[str, typer.Option("-n", "--model", help="A bundled model's name, or a model folder.")]
LongModelName = Annotated[str, typer.Option("--model", help="A bundled model's name, or a model folder.")]
Device = Annotated[str, typer.Option("-d", "--device", help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result on the same machine.")]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="Sampling steps: more is slower and often better; the model's own number.",
        show_default=False,
    ),
]
Evaluations = Annotated[
    int | None,
    typer.Option(
        "--evaluations",
        min=1,
        help="Network evaluations a window when separating; the model's own.",
        show_default=False,
    ),
]
Described = Annotated[
    list[str] | None,
    typer.Option(
        "--stem", help='A stem in words, "slap bass"; repeat it. For models that hear words.', show_default=False
    ),
]
Negative = Annotated[
    str | None,
    typer.Option("--negative", help="Words that no stem shall be like, e.g. voice,strings.", show_default=False),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        help="How far to go from the negative words to the stem's own, or from hearing nothing to the mixture; 1: not at all.",
        show_default=False,
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        "--gamma",
        help="How loosely stems and their mixture hang together, for models that hear words.",
        show_default=False,
    ),
]
Strength = Annotated[
    float | None,
    typer.Option("--strength", help="How much a CompoNet listens to what is heard; 0: not at all.", show_default=False),
]
Acts = Annotated[
    str | None,
    typer.Option(
        "--acts",
        help="START:END, the part of the way from noise (0) to clean (1) in which a CompoNet listens.",
        show_default=False,
    ),
]
Likelihood = Annotated[
    str | None,
    typer.Option(
        "--likelihood",
        help="MSDM and GMSDI: dirac, gaussian, gaussian-exact, even, projection or adaptive; the model's own.",
        show_default=False,
    ),
]
Template = Annotated[
    str,
    typer.Option("--filename", help="Below OUT/MODEL: folders with {track}, then a name with {stem} and {ext}."),
]
Mp3 = Annotated[bool, typer.Option("--mp3", help="Write MP3 files.")]
Bitrate = Annotated[int | None, typer.Option("--mp3-bitrate", help="kbit/s of MP3 files (320).", show_default=False)]
Flac = Annotated[bool, typer.Option("--flac", help="Write FLAC files (24 bits, or --int16).")]
Int16 = Annotated[bool, typer.Option("--int16", help="Write 16-bit integers.")]
Int24 = Annotated[bool, typer.Option("--int24", help="Write 24-bit integers.")]
Float32 = Annotated[bool, typer.Option("--float32", help="Write 32-bit float WAV files (the default).")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave what the same command made before.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace output that exists, once the new one is complete.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more; tracebacks of unexpected errors.")]

#: Default output folders.
SEPARATED, GENERATED, ACCOMPANIED, EDITED = (Path(n) for n in ("separated", "generated", "accompanied", "edited"))


def names(text: str | None) -> tuple[str, ...]:
    """ "bass, drums" -> ("bass", "drums"); None or blanks -> ()."""
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def wishes(
    stems: list[str] | None = None,
    negative: str | None = None,
    guidance: float | None = None,
    gamma: float | None = None,
    phase: str | None = None,
    strength: float | None = None,
    acts: str | None = None,
    likelihood: str | None = None,
) -> dict[str, Any]:
    """What a model is asked to be, as `load` takes it and as a manifest holds it; what was not asked for is not there.

    Raises QueryError.
    """
    words = list(names(negative)) if negative is not None else None
    asked = {"stems": stems or None, "negative": words, "guidance": guidance, "gamma": gamma, "phase": phase}
    asked |= {"strength": strength, "likelihood": likelihood, **(_part_of_the_way(acts) if acts is not None else {})}
    return {wish: value for wish, value in asked.items() if value is not None}


def check_making(model: Model, wished: Mapping[str, Any]) -> None:
    """Raise QueryError for a wish that counts only where the model separates."""
    idle = [wish for wish in wished if wish in model.system.separating]
    if idle:
        raise QueryError(f"the model {model.name} takes {idle[0]} only when it separates; leave it away")


def _part_of_the_way(text: str) -> dict[str, float]:
    start, _, end = text.partition(":")
    try:
        return {"start": float(start), "end": float(end)}
    except ValueError as error:
        raise QueryError(f"--acts {text!r} is not START:END; give shares of the way, such as 0:0.8") from error


def told(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """Wishes as parameters of a manifest, beside which `stems` are those that were made."""
    return {"described" if wish == "stems" else wish: value for wish, value in wishes.items()}


def only_for_audio(**options: object) -> None:
    """Raises QueryError for the first option that was given where the result is MIDI."""
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise QueryError(f"--{given} is about audio; leave it out for MIDI")


def encoding_of(mp3: bool, bitrate: int | None, flac: bool, int16: bool, int24: bool, float32: bool) -> Encoding:
    """The encoding that the flags name together. Raises QueryError where they contradict each other."""
    from stemwise.audio_io import encoding
    from stemwise.errors import AudioFileError

    if mp3 and flac:
        raise QueryError("--mp3 and --flac exclude each other; choose one")
    depths = [bits for bits, wanted in ((16, int16), (24, int24), (32, float32)) if wanted]
    if len(depths) > 1:
        raise QueryError("--int16, --int24 and --float32 exclude each other; choose one")
    extension = "mp3" if mp3 else "flac" if flac else "wav"
    try:
        return encoding(extension, depths[0] if depths else None, bitrate)
    except AudioFileError as error:
        raise QueryError(str(error)) from error


def check_free(folder: Path, overwrite: bool) -> None:
    """Raises QueryError for a model folder that may not be written: a file, or one that holds anything already.

    What is hidden does not count: a killed export leaves such a file, and the same command then works.
    """
    if folder.is_file():
        raise QueryError(f"{folder} is a file; give a folder to write the model into")
    if not overwrite and folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise QueryError(f"{folder} exists; give another folder, or --overwrite")


def check_apart(source: Path, out: Path) -> None:
    """Raises QueryError for an output inside the data set, which would be part of it the next time."""
    if out.resolve().is_relative_to(source.resolve()):
        raise QueryError(f"{out} lies inside {source}; give a folder outside it")


def put(files: dict[str, Path], new: Mapping[str, Path]) -> None:
    """Add the files of more stems. Raises QueryError for a stem that has one."""
    twice = sorted(set(new) & set(files))
    if twice:
        raise QueryError(f"{', '.join(twice)} is given twice; give every stem once")
    files |= new


def check_there(given: Sequence[str]) -> None:
    """Raises AudioFileError where one of the files and folders, given as such or as NAME=FILE, is not there."""
    for text in given:
        path = text.partition("=")[2] or text
        if not (os.path.exists(text) or os.path.exists(path)):
            raise AudioFileError(f"{path}: there is no such file. Check the spelling and the folder.")


def check_given(files: Mapping[str, Path], stems: Sequence[str]) -> None:
    """Raises QueryError where nothing that was given is left to hear, or no stem to make."""
    if not files:
        raise QueryError("nothing is left to accompany: every stem that was given is wanted anew")
    if set(files) >= set(stems):
        raise QueryError("every stem was given; say with --want which ones to make anew")


def part_of(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8): the second of eight parts. Raises QueryError."""
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise QueryError(f"--shard {text!r} is not I/N with I from 1 to N; the second of eight parts is 2/8")
    return int(first), int(last)


def span_of(text: str | None) -> tuple[float, float] | None:
    """ "10:20" or "1:05-1:20" -> seconds. Raises QueryError."""
    if text is None:
        return None
    start, dash, end = text.partition("-")
    if not dash:
        start, _, end = text.partition(":")
    try:
        first, last = _seconds(start), _seconds(end)
    except ValueError as error:
        raise QueryError(f"--span {text!r} is not a span; give START:END in seconds, or M:SS-M:SS") from error
    if not 0 <= first < last:
        raise QueryError(f"--span {text!r} is empty; the start must come before the end")
    return first, last


def _seconds(text: str) -> float:
    minutes, colon, seconds = text.strip().rpartition(":")
    value = (float(minutes) * 60 if colon else 0.0) + float(seconds)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value
