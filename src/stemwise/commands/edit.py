"""`stemwise edit`: change one instrument inside a mix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.commands.ranking import Ranking
from stemwise.commands.recompose import Recomposing, one_number

if TYPE_CHECKING:
    from stemwise.batch import Item
    from stemwise.model import Model
    from stemwise.stems import Audio


def edit(
    inputs: o.Inputs,
    remove: Annotated[str | None, typer.Option("--remove", help="Take these out.", show_default=False)] = None,
    extract: Annotated[str | None, typer.Option("--extract", help="Keep only these.", show_default=False)] = None,
    replace: Annotated[str | None, typer.Option("--replace", help="Make these anew.", show_default=False)] = None,
    heard: Annotated[
        str | None,
        typer.Option(
            "--heard", help="With --wanted and a CompoNet: the stems in the input, as one mix.", show_default=False
        ),
    ] = None,
    wanted: Annotated[
        str | None, typer.Option("--wanted", help="The stems of the new mix, made in one pass.", show_default=False)
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(
            "--span",
            help="START:END in seconds, or M:SS-M:SS: change nothing outside. Alone: all anew.",
            show_default=False,
        ),
    ] = None,
    guidance: o.Guidance = None,
    strength: o.Strength = None,
    acts: o.Acts = None,
    seed: o.Seed = 0,
    count: Annotated[
        int,
        typer.Option("--count", min=1, help="With --heard: how many takes, in one batch: seeds SEED, SEED + 1, ..."),
    ] = 1,
    rank: Ranking = None,
    model: o.ModelName = "band",
    out: Annotated[Path, typer.Option("-o", "--out", help="Output goes to OUT/MODEL/SONG-EDIT.")] = o.EDITED,
    device: o.Device = "auto",
    steps: o.Steps = None,
    evaluations: o.Evaluations = None,
    filename: o.Template = "{track}/{stem}.{ext}",
    mp3: o.Mp3 = False,
    mp3_bitrate: o.Bitrate = None,
    flac: o.Flac = False,
    int16: o.Int16 = False,
    int24: o.Int24 = False,
    float32: o.Float32 = False,
    skip_existing: o.SkipExisting = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Remove, extract or replace stems; or with --heard and --wanted make any mix from any other.

    In the whole song, or in a span. Output: edited/band/SONG-remove-drums/{...,mix}.wav and manifest.json; with --count
    take-1, take-2, ... in it, with --rank the best one first.
    """
    from stemwise.batch import Item, Outcome, alone, find, work_through
    from stemwise.commands.produce import Files, conclude, place_of, produce, put_audio
    from stemwise.commands.separate import tell
    from stemwise.errors import QueryError
    from stemwise.loading import load
    from stemwise.outputs import MIX, Made
    from stemwise.stems import known_names

    how = o.encoding_of(mp3, mp3_bitrate, flac, int16, int24, float32)
    voice = Voice(quiet, verbose, as_json)
    seconds = o.span_of(span)
    asked = {"remove": o.names(remove), "extract": o.names(extract), "replace": o.names(replace)}
    verbs = [verb for verb, names in asked.items() if names]
    if len(verbs) > 1:
        raise QueryError(f"{' and '.join('--' + verb for verb in verbs)} contradict each other; edit in two commands")
    sides = o.names(heard), o.names(wanted)
    if any(sides) and (verbs or seconds is not None or not all(sides)):
        raise QueryError("--heard and --wanted go together, without --remove, --extract, --replace and --span")
    if (count > 1 or rank is not None) and not any(sides):
        raise QueryError("--count and --rank go with --heard and --wanted; edit with another --seed for another take")
    if not verbs and seconds is None and not any(sides):
        raise QueryError("nothing to edit; give --remove, --extract or --replace with stems, or --span START:END")
    wishes = o.wishes(guidance=guidance, strength=strength, acts=acts)
    loaded = load(model, device, **wishes)
    spent = evaluations or loaded.evaluations
    taken = steps or (loaded.steps_beside if 0 < len(asked["replace"]) < len(loaded.stems) else loaded.steps)
    if any(sides):
        taken, spent = one_number(loaded, sides, steps, evaluations)
    for names in (asked["replace"], *sides):
        known_names(names, loaded.stems, f"the model {loaded.name} has")
    for names in (asked["remove"], asked["extract"]):
        known_names(names, (*loaded.stems, *_others(inputs, loaded)), f"the model {loaded.name} has")
    place = place_of(out, loaded, filename, how, skip_existing=skip_existing, overwrite=overwrite)
    parameters: dict[str, Any] = {verb: list(names) for verb, names in asked.items() if names}
    making = not (asked["remove"] or asked["extract"])  # else steps and seed change nothing
    parameters |= {
        "span": list(seconds) if seconds else None,
        **({"steps": taken} if making else {}),
        "evaluations": spent,
        **wishes,
    }
    parameters |= {"heard": list(sides[0]), "wanted": list(sides[1])} if any(sides) else {}
    label = (
        f"{'-'.join(sides[0])}-to-{'-'.join(sides[1])}" if any(sides) else _label(asked, seconds, seed if making else 0)
    )

    items = find(inputs, loaded.stems, apart=out)
    if any(sides):
        job = Recomposing(loaded, place, *sides, taken, range(seed, seed + count), rank, parameters, voice)
        each = [job.work(item, f"{item.track}-{label}", lambda outcome: tell(voice, outcome)) for item in items]
        raise typer.Exit(conclude(voice, "edit", [outcome for outcomes in each for outcome in outcomes]))

    def work(item: Item) -> Outcome:
        made = Made("edit", loaded.name, {MIX: item.source}, seed if making else 0, parameters)

        def make(folder: Path) -> tuple[Files, dict[str, object]]:
            source = _heard(item.source, loaded)
            with voice.progress(item.track) as progress:
                audio = loaded.edit(
                    source,
                    remove=asked["remove"],
                    extract=asked["extract"],
                    replace=asked["replace"],
                    span=seconds,
                    seed=seed,
                    steps=taken,
                    evaluations=spent,
                    progress=progress,
                )
            return put_audio(folder, audio, how)

        with alone(item, len(items)):
            return produce(Item(item.source, f"{item.track}-{label}"), place, made, make)

    outcomes = work_through(items, work, lambda outcome: tell(voice, outcome))
    raise typer.Exit(conclude(voice, "edit", outcomes))


def _heard(source: Path, model: Model) -> Audio | Path:
    """The stems of a folder, or its mix where it has none; a file as it is. Raises AudioFileError."""
    from stemwise.errors import AudioFileError
    from stemwise.outputs import load_song, read_folder

    if not source.is_dir():
        return source
    found = read_folder(source, model.stems)
    if found.stems and found.unknown:
        raise AudioFileError(
            f"{source}: {found.unknown[0].name} is not a stem that the model {model.name} has, and would be lost. "
            "Give the mix alone, as a file, or move what is no stem elsewhere."
        )
    return load_song(found) if found.stems else found.mix or source


def _others(inputs: list[str], model: Model) -> list[str]:
    """What the manifests of folders name beside the model's stems ("no_drums")."""
    from stemwise.errors import AudioFileError
    from stemwise.outputs import read_manifest

    found: dict[str, None] = {}
    for given in inputs:
        try:
            manifest = read_manifest(Path(given)) if Path(given).is_dir() else None
        except (AudioFileError, OSError):  # said when its turn comes
            continue
        if manifest is not None:
            found |= dict.fromkeys(name.rstrip("'") for name in manifest["stems"])
    return [name for name in found if name not in model.stems]


def _label(asked: dict[str, tuple[str, ...]], span: tuple[float, float] | None, seed: int) -> str:
    """ "remove-drums", "replace-guitar-10-20", "span-10-20-seed-1": edits of one song stand side by side."""
    words = [word for verb, names in asked.items() if names for word in (verb, *names)] or ["span"]
    return "-".join([*words, *(f"{t:g}" for t in span or ()), *(("seed", str(seed)) if seed else ())])
