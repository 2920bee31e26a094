"""`stemwise generate`: new stems that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands import midi as v
from stemwise.commands import midi_making as m
from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.commands.ranking import Contest, Rank, Ranking, by_coherence, by_energy, hold

if TYPE_CHECKING:
    from stemwise.longform import ProgressCallback
    from stemwise.stems import Audio


def generate(
    seconds: Annotated[float, typer.Option("--seconds", help="How long.")] = 20.0,
    seed: o.Seed = 0,
    count: Annotated[int, typer.Option("--count", min=1, help="How many pieces: seeds SEED, SEED + 1, ...")] = 1,
    rank: Ranking = None,
    stems: Annotated[
        str | None, typer.Option("--stems", help="Only these, e.g. bass,drums.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the piece (seed-SEED).", show_default=False)
    ] = None,
    model: o.ModelName = "band",
    out: Annotated[Path, typer.Option("-o", "--out", help="Output goes to OUT/MODEL/NAME.")] = o.GENERATED,
    device: o.Device = "auto",
    steps: o.Steps = None,
    stem: o.Described = None,
    negative: o.Negative = None,
    guidance: o.Guidance = None,
    gamma: o.Gamma = None,
    strength: o.Strength = None,
    acts: o.Acts = None,
    midi: Annotated[bool, typer.Option("--midi", help="Make a multi-track MIDI file instead of audio.")] = False,
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
    """Generate stems that belong together, and their mix; or with --midi, parts of a MIDI file.

    Output: generated/band/seed-7/{bass,...,mix}.wav and manifest.json; with --count and --rank seed-7/take-1, take-2,
    ..., best one first.
    """
    from stemwise.batch import Item, Outcome, work_through
    from stemwise.commands.produce import Files, conclude, place_of, produce, put_audio
    from stemwise.commands.separate import tell
    from stemwise.errors import QueryError
    from stemwise.loading import load
    from stemwise.outputs import Made
    from stemwise.stems import known_names

    how = o.encoding_of(mp3, mp3_bitrate, flac, int16, int24, float32)
    voice = Voice(quiet, verbose, as_json)
    seeds = range(seed, seed + count)
    numbers = {f"{name}-{n}" if name and count > 1 else name or f"seed-{n}": n for n in seeds}
    if midi:
        v.check_encoding(how, render)
        o.only_for_audio(
            rank=rank, stem=stem, negative=negative, guidance=guidance, gamma=gamma, strength=strength, acts=acts
        )
        prior = m.prior(model, device)
        parts = known_names(o.names(stems), prior.system.names, f"the model {prior.name} has") or prior.system.names
        where = place_of(out, prior, "{track}/{stem}.{ext}", how, skip_existing=skip_existing, overwrite=overwrite)
        making = m.Generating(prior, where, parts, m.bars_of(seconds), steps, v.Views(plot, render, how))
        made = work_through(
            [Item(Path(f"seed {n}"), track) for track, n in numbers.items()],
            lambda item: making.work(item, numbers[item.track], voice),
            lambda outcome: tell(voice, outcome),
        )
        raise typer.Exit(conclude(voice, "generate", made))
    v.only_for_midi(plot, render)
    wishes = o.wishes(stem, negative, guidance, gamma, strength=strength, acts=acts)
    loaded = load(model, device, **wishes)
    o.check_making(loaded, wishes)
    wanted = known_names(o.names(stems), loaded.stems, f"the model {loaded.name} has") or loaded.stems
    place = place_of(out, loaded, "{track}/{stem}.{ext}", how, skip_existing=skip_existing, overwrite=overwrite)

    parameters: dict[str, Any] = {
        "seconds": seconds,
        "steps": steps or loaded.steps,
        "stems": list(wanted),
        **o.told(wishes),
    }

    def play(numbers: Sequence[int], progress: ProgressCallback) -> list[Audio]:
        return [loaded.generate(seconds, stems=wanted, seed=n, steps=steps, progress=progress) for n in numbers]

    def piece(item: Item) -> Outcome:
        number = numbers[item.track]
        made = Made("generate", loaded.name, {}, number, parameters)

        def make(folder: Path) -> tuple[Files, dict[str, object]]:
            with voice.progress(item.track) as progress:
                (audio,) = play([number], progress)
            return put_audio(folder, audio, how)

        return produce(item, place, made, make)

    if rank is not None:
        if rank is Rank.COHERENCE and len(wanted) < 2:
            raise QueryError("--rank coherence asks how stems fit together; it needs at least two")
        judge = by_energy(wanted) if rank is Rank.ENERGY else by_coherence((), wanted, device)
        ranked = {**parameters, "rank": str(rank), "candidates": count, "first_seed": seed}
        base, source = name or f"seed-{seed}", Path(f"seed {seed}")
        contest = Contest(source, base, seeds, play, judge, Made("generate", loaded.name, {}, seed, ranked))
        outcomes = hold(contest, place, voice, lambda outcome: tell(voice, outcome))
        raise typer.Exit(conclude(voice, "generate", outcomes))
    items = [Item(Path(f"seed {n}"), track) for track, n in numbers.items()]
    outcomes = work_through(items, piece, lambda outcome: tell(voice, outcome))
    raise typer.Exit(conclude(voice, "generate", outcomes))
