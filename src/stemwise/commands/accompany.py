"""`stemwise accompany`: stems for what was played."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands import midi as v
from stemwise.commands import midi_making as m
from stemwise.commands import options as o
from stemwise.commands.console import Voice, complain
from stemwise.commands.ranking import Contest, Rank, Ranking, by_coherence, by_energy, hold

if TYPE_CHECKING:
    from stemwise.commands.produce import Place
    from stemwise.longform import ProgressCallback
    from stemwise.model import Model
    from stemwise.stems import Audio


def accompany(
    given: Annotated[
        list[str], typer.Argument(help="What was played: STEM=FILE, one or more, a folder of stems, or MIDI.")
    ],
    want: Annotated[
        str | None, typer.Option("--want", help="Stems to make; all that were not given.", show_default=False)
    ] = None,
    candidates: Annotated[
        int, typer.Option("-n", "--candidates", min=1, help="How many takes to choose from: seeds SEED, SEED + 1, ...")
    ] = 1,
    rank: Ranking = None,
    seed: o.Seed = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the output folder (the first file's).", show_default=False)
    ] = None,
    model: o.LongModelName = "band",
    out: Annotated[Path, typer.Option("-o", "--out", help="Output goes to OUT/MODEL/NAME.")] = o.ACCOMPANIED,
    device: o.Device = "auto",
    steps: o.Steps = None,
    stem: o.Described = None,
    negative: o.Negative = None,
    guidance: o.Guidance = None,
    gamma: o.Gamma = None,
    strength: o.Strength = None,
    acts: o.Acts = None,
    plot: v.Plot = False,
    render: v.Render = False,
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
    """Make stems for what was played.

    What was given is kept bit for bit. Output: accompanied/band/NAME, with take-1, take-2, ... for several candidates;
    with --rank take-1 is the best.
    """
    from stemwise.batch import Item, Outcome, work_through
    from stemwise.commands.produce import Files, conclude, place_of, produce, put_audio
    from stemwise.commands.separate import tell
    from stemwise.loading import load
    from stemwise.outputs import Made
    from stemwise.stems import known_names

    how = o.encoding_of(mp3, mp3_bitrate, flac, int16, int24, float32)
    voice = Voice(quiet, verbose, as_json)
    if m.any_midi(given):
        v.check_encoding(how, render)
        o.only_for_audio(
            rank=rank, stem=stem, negative=negative, guidance=guidance, gamma=gamma, strength=strength, acts=acts
        )
        prior = m.prior(model, device)
        asked = known_names(o.names(want), prior.system.names, f"the model {prior.name} has")
        parts = m.played(given, prior, asked)
        asked = asked or tuple(stem for stem in prior.system.names if stem not in parts.files)
        where = place_of(out, prior, "{track}/{stem}.{ext}", how, skip_existing=skip_existing, overwrite=overwrite)
        making = m.Accompanying(prior, where, parts, asked, steps, v.Views(plot, render, how))
        base = name or next(iter(parts.files.values())).stem
        numbers = takes(where, base, candidates)
        outcomes = work_through(
            [Item(next(iter(parts.files.values())), track) for track in numbers],
            lambda item: making.work(item, seed + numbers[item.track], voice),
            lambda outcome: tell(voice, outcome),
        )
        raise typer.Exit(conclude(voice, "accompany", outcomes))
    v.only_for_midi(plot, render, given)
    wishes = o.wishes(stem, negative, guidance, gamma, strength=strength, acts=acts)
    loaded = load(model, device, **wishes)
    o.check_making(loaded, wishes)
    wanted = known_names(o.names(want), loaded.stems, f"the model {loaded.name} has")
    played, source = heard(given, loaded, wanted)
    wanted = wanted or tuple(stem for stem in loaded.stems if stem not in played)
    place = place_of(out, loaded, "{track}/{stem}.{ext}", how, skip_existing=skip_existing, overwrite=overwrite)
    parameters: dict[str, Any] = {
        "want": list(wanted),
        "given": list(played),
        "steps": steps or loaded.steps_beside,
        **o.told(wishes),
    }
    base = name or (source.resolve().name if source.is_dir() else source.stem)

    def play(numbers: Sequence[int], progress: ProgressCallback) -> list[Audio]:
        return [loaded.accompany(played, wanted, seed=n, steps=steps, progress=progress) for n in numbers]

    def take(item: Item) -> Outcome:
        number = seed + numbers[item.track]
        made = Made("accompany", loaded.name, played, number, parameters)

        def make(folder: Path) -> tuple[Files, dict[str, object]]:
            with voice.progress(item.track) as progress:
                (audio,) = play([number], progress)
            return put_audio(folder, audio, how)

        return produce(item, place, made, make)

    if rank is not None:
        judge = by_energy(wanted) if rank is Rank.ENERGY else by_coherence(tuple(played), wanted, device)
        ranked = {**parameters, "rank": str(rank), "candidates": candidates, "first_seed": seed}
        seeds = range(seed, seed + candidates)
        contest = Contest(source, base, seeds, play, judge, Made("accompany", loaded.name, played, seed, ranked))
        outcomes = hold(contest, place, voice, lambda outcome: tell(voice, outcome))
        raise typer.Exit(conclude(voice, "accompany", outcomes))
    numbers = takes(place, base, candidates)
    items = [Item(source, track) for track in numbers]
    outcomes = work_through(items, take, lambda outcome: tell(voice, outcome))
    raise typer.Exit(conclude(voice, "accompany", outcomes))


def takes(place: Place, base: str, candidates: int) -> dict[str, int]:
    """Output folder of each take, and what is added to the seed for it. Raises AudioFileError, see `check_takes`."""
    from stemwise.commands.produce import check_takes

    check_takes(place, base, candidates)
    return {f"{base}/take-{n + 1}": n for n in range(candidates)} if candidates > 1 else {base: 0}


def heard(given: list[str], model: Model, wanted: tuple[str, ...]) -> tuple[dict[str, Path], Path]:
    """Files by stem, and the input that names the output. A folder's stems that are wanted anew are not heard.

    Raises QueryError for an unknown stem, one given twice, or an argument that is neither STEM=FILE nor a folder;
    AudioFileError for one that is not there.
    """
    from stemwise.errors import QueryError
    from stemwise.outputs import read_folder, stem_slots
    from stemwise.stems import known_names

    played: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if Path(text).is_dir():
            folder = read_folder(Path(text), model.stems)
            found = stem_slots(folder)
            if not set(found) & set(model.stems):
                raise QueryError(
                    f"{text}: holds no stem that the model {model.name} has ({', '.join(model.stems)}); separate its mix first"
                )
            left_out = [path for stem, path in found.items() if stem not in model.stems] + [*folder.unknown]
            for path in left_out:
                complain(f"{path}: not a stem that the model {model.name} has; it is neither heard nor in the output")
            new = {stem: path for stem, path in found.items() if stem in model.stems and stem not in wanted}
        elif equals:
            known_names([name], model.stems, f"the model {model.name} has")
            new = {name: Path(file)}
        else:
            o.check_there([text])
            raise QueryError(
                f"{text}: neither STEM=FILE nor a folder of stems; say which stem it is, for example "
                f"{model.stems[0]}={text}"
            )
        o.put(played, new)
    o.check_given(played, model.stems)
    first = Path(given[0])
    return played, first if first.is_dir() else next(iter(played.values()))
