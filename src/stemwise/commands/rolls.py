"""`stemwise rolls`: windows of piano roll are mixed, separated, measured, and written as samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.errors import QueryError
from stemwise.extras import needed

FIGURES = "figures.json"
SAMPLE = ("image.png", "original.wav", "separated.wav", "original.mid", "separated.mid")

if TYPE_CHECKING:
    from torch import Tensor

    from stemwise.songs.phrases import RollSong
    from stemwise.stems import Rolls
    from stemwise.systems.roll_system import RollSystem


def rolls(
    source: Annotated[Path, typer.Argument(help="Multi-track MIDI, a folder of it, or phrases of `songs phrases`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the samples go: OUT/000, ...")] = Path("rolls"),
    model: o.LongModelName = "rolls",
    split: Annotated[str | None, typer.Option("--split", help="Only songs of this split.", show_default=False)] = None,
    split_seed: Annotated[
        int, typer.Option("--split-seed", min=0, help="The data.split_seed of the training, for splits drawn by name.")
    ] = 0,
    count: Annotated[int, typer.Option("--count", min=1, help="How many windows.")] = 8,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Evaluations a window; the model's own.", show_default=False)
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Mixture2Music: sample as published, without masking between.")
    ] = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Mix windows of four bars, separate them again, and compare with what was played.

    Each sample is a picture, WAV and MIDI of the original and of what was made of its mixture.
    """
    if split is not None and source.is_file():
        raise QueryError(f"--split goes with a folder, and {source} is a file; leave it away, or give the folder")
    needed("matplotlib", "eval")
    import torch

    from stemwise.audio_io.folders import Existing, output_folder
    from stemwise.commands.produce import refuse_foreign
    from stemwise.loading import folder_of, load_rolls, name_of
    from stemwise.outputs import model_digest
    from stemwise.songs.phrases import RollOptions, RollWindows
    from stemwise.stems import Rolls
    from stemwise.symbolic.triples import write_triple

    voice = Voice(quiet, as_json=as_json)
    system = load_rolls(model, device)
    layout = system.layout
    stream = RollWindows(
        _songs(source, split, split_seed), RollOptions(system.prior.config.layout, system.window), seed
    )
    truths, made = [], []
    if overwrite:
        samples = _samples(out)
        refuse_foreign(out, {FIGURES, *(sample.name for sample in samples)})
        for sample in samples:
            refuse_foreign(sample, SAMPLE)
    with output_folder(out, Existing.OVERWRITE if overwrite else Existing.REFUSE) as folder:
        for index in range(count):
            window = stream[index]
            original = Rolls(layout.stems, window[None, :-1], layout.steps, layout.lowest)
            bars = window[-1, :, 0] > 0
            separated = _separated(system, original.mix()[0], bars, seed + index, steps, published=published)
            sounds = write_triple(folder / f"{index:03d}", original, separated, layout)
            voice.say(f"{out / f'{index:03d}'}: image.png, original and separated as WAV ({sounds}) and MIDI")
            truths.append(original.sounding())
            made.append(separated.sounding())
        figures = _figures(torch.cat(truths), torch.cat(made), layout.stems)
        settings = {
            "model": name_of(folder_of(model)),
            "model_sha256": model_digest(folder_of(model)),
            "source": source.resolve().name,
            "split": split,
            "split_seed": split_seed,
            "steps": steps or system.steps,
            "seed": seed,
            "published": published,
        }
        document = {"out": str(out), "windows": count, **settings, **figures}
        (folder / FIGURES).write_text(
            json.dumps({"format": 1, "verb": "rolls", **document}, indent=2) + "\n", encoding="utf-8"
        )
    voice.say(", ".join(f"{name} {value:.5f}" for name, value in figures.items() if isinstance(value, float)))
    voice.say("F1: " + ", ".join(f"{name} {value:.3f}" for name, value in figures["f1"].items()))
    voice.hand_over("rolls", document)


def _samples(out: Path) -> list[Path]:
    """Folders of samples that are there from before: 000, 001, ..."""
    numbered = [path for path in out.iterdir() if path.name.isdecimal()] if out.is_dir() else []
    return [path for path in numbered if path.is_dir() and path.name == f"{int(path.name):03d}"]


def _figures(truth: Tensor, made: Tensor, names: Sequence[str]) -> dict[str, Any]:
    from stemwise.metrics import rolls as metrics

    mixture = truth.any(1)
    return {
        "consistency": metrics.consistency(made, mixture),
        "diversity": metrics.diversity(truth, made, mixture),
        "label_accuracy": metrics.label_accuracy(truth, made, mixture),
        "label_f1": metrics.label_f1(truth, made, mixture),
        "f1": metrics.label_f1_by_stem(truth, made, mixture, names),
    }


def _songs(source: Path, split: str | None, split_seed: int) -> list[RollSong]:
    from stemwise.songs.phrases import roll_songs
    from stemwise.songs.scanning import MidiSong

    return [MidiSong(source.stem, source, {})] if source.is_file() else roll_songs(source, split, split_seed)


def _separated(
    system: RollSystem, mixture: Tensor, bars: Tensor, seed: int, steps: int | None, *, published: bool
) -> Rolls:
    from stemwise.diffusion import seeded
    from stemwise.stems import Rolls
    from stemwise.systems.mixture2music import Mixture2Music, as_published

    if not published:
        return system.separate(mixture, bars=bars, seed=seed, steps=steps)
    prior = system.prior
    if not isinstance(prior, Mixture2Music):
        raise QueryError("--published samples a Mixture2Music; this model is of another kind")
    place = next(prior.parameters()).device
    heard = (mixture > 0)[None, None].float().to(place)
    made = as_published(prior, heard, steps or prior.config.schedule.steps - 1, seeded(seed, place))
    return Rolls(system.names, made.to("cpu", dtype=mixture.dtype), system.layout.steps, system.layout.lowest)
