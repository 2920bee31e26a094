"""`stemwise train` and `stemwise export`: a recipe, a run folder, a model folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Code, Voice


class Dtype(StrEnum):
    """How weights are stored."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Weights(StrEnum):
    """Which averaged weights of a run are exported."""

    auto = "auto"
    best = "best"
    last = "last"


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe; see recipes/.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to it: train.steps=100 ...")] = None,
    devices: Annotated[str, typer.Option("--devices", help="How many devices (Lightning).")] = "1",
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="How many machines (Lightning).")] = 1,
    strategy: Annotated[str, typer.Option("--strategy", help="auto or ddp (Lightning).")] = "auto",
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu, gpu or mps (Lightning).")] = "auto",
    check: Annotated[bool, typer.Option("--check", help="Only check the recipe and print it complete.")] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train what a recipe says.

    The same command resumes a run that was stopped at any moment.
    """
    from stemwise.recipe import dump, load_recipe

    voice = Voice(quiet, as_json=as_json)
    loaded = load_recipe(recipe, overrides or [])
    if check:
        print(dump(loaded), end="")
        return
    from stemwise.train import train as run
    from stemwise.training_bar import TrainingBar

    flow = {"devices": devices, "nodes": nodes, "strategy": strategy, "accelerator": accelerator}
    if quiet:
        outcome = run(loaded, **flow, notice=lambda _: None)  # type: ignore[arg-type]
    else:
        with TrainingBar() as bar:
            outcome = run(loaded, **flow, progress=bar, notice=voice.say)  # type: ignore[arg-type]
    if not outcome.lead:  # Lightning kills the first process when another ends with an error
        raise typer.Exit(Code.OK)
    if outcome.interrupted:
        voice.say(f"stopped at step {outcome.step}; the same command continues")
    else:
        loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f}"
        best = "" if outcome.best is None else f", best validation {outcome.best:.4f}"
        voice.say(f"done: {outcome.step} steps{loss}{best}; next: stemwise export {outcome.run} FOLDER")
    code = Code.CANCELLED if outcome.interrupted else Code.OK
    voice.hand_over(
        "train",
        {
            "run": str(outcome.run),
            "step": outcome.step,
            "loss": outcome.loss,
            "best": outcome.best,
            "interrupted": outcome.interrupted,
        },
        code,
    )
    raise typer.Exit(code)


def export(
    run: Annotated[Path, typer.Argument(help="The run folder of a training.")],
    folder: Annotated[Path, typer.Argument(help="The model folder to write: config.json and model.safetensors.")],
    weights: Annotated[
        Weights, typer.Option("--weights", help="Best by validation, last, or best if any.")
    ] = Weights.auto,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="How weights are stored.")] = Dtype.float32,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a trained model as a folder.

    The run's averaged weights; verbs take the folder of a model of stems with --model.
    """
    import torch

    from stemwise.runs import export as write

    o.check_free(folder, overwrite)
    written = write(run, folder, weights=weights.value, dtype=getattr(torch, dtype.value))
    voice = Voice(quiet)
    voice.say(f"{written}: use it with --model {written}")
    if (card := written / "README.md").is_file():
        voice.say(f"{card} is still the card of the model before; write it anew")
