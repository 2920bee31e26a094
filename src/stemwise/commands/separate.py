"""`stemwise separate`: the stems of songs, which sum to them."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands import midi as m
from stemwise.commands import options as o
from stemwise.commands.console import Voice, complain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stemwise.batch import Item, Outcome
    from stemwise.commands.produce import Files, Place
    from stemwise.longform import Report
    from stemwise.model import Model
    from stemwise.note_model import NoteModel

DEFAULT = "band"


def separate(
    inputs: o.Inputs,
    model: o.ModelName = DEFAULT,
    out: Annotated[Path, typer.Option("-o", "--out", help="Output goes to OUT/MODEL/SONG.")] = o.SEPARATED,
    device: o.Device = "auto",
    stems: Annotated[
        str | None, typer.Option("--stems", help="Only these, e.g. bass,drums.", show_default=False)
    ] = None,
    two_stems: Annotated[
        str | None, typer.Option("--two-stems", help="NAME and no_NAME, the sum of the others.", show_default=False)
    ] = None,
    filename: o.Template = "{track}/{stem}.{ext}",
    mp3: o.Mp3 = False,
    mp3_bitrate: o.Bitrate = None,
    flac: o.Flac = False,
    int16: o.Int16 = False,
    int24: o.Int24 = False,
    float32: o.Float32 = False,
    evaluations: o.Evaluations = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            "--overlap",
            min=0,
            max=0.9,
            help="Share of a window that the next one hears, too; 0.25.",
            show_default=False,
        ),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option("--phase", help="Latent models: mixture (stems sum to the song) or vocoder.", show_default=False),
    ] = None,
    likelihood: o.Likelihood = None,
    stem: o.Described = None,
    negative: o.Negative = None,
    guidance: o.Guidance = None,
    present: m.Present = None,
    lock: m.Lock = None,
    doublings: m.Doublings = False,
    seed: m.Version = None,
    table: m.Table = False,
    plot: m.Plot = False,
    render: m.Render = False,
    skip_existing: o.SkipExisting = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Separate songs into stems that sum to them; of a MIDI file, give every note its instrument.

    Output: separated/band/SONG/{bass,drums,guitar,piano,other}.wav and manifest.json; of MIDI files
    separated/notes/SONG/SONG.mid, a track for each instrument.
    """
    from stemwise.audio_io import AUDIO_SUFFIXES
    from stemwise.batch import find, work_through
    from stemwise.commands.produce import conclude, place_of
    from stemwise.errors import ModelError, QueryError
    from stemwise.loading import about, load, load_notes
    from stemwise.model import OVERLAP
    from stemwise.stems import known_names
    from stemwise.symbolic import MIDI_SUFFIXES

    how = o.encoding_of(mp3, mp3_bitrate, flac, int16, int24, float32)
    voice = Voice(quiet, verbose, as_json)
    if stems is not None and two_stems is not None:
        raise QueryError("--stems and --two-stems exclude each other; choose one")
    kind = about(model)
    items = find(inputs, kind.stems, AUDIO_SUFFIXES | MIDI_SUFFIXES, apart=out)
    scores = {item for item in items if m.midi_file(item.source) is not None}
    seen = m.Views(plot, render, how if scores else None)
    asked = m.Asked(o.names(present), m.locks(lock), doublings, evaluations, seed, table, seen)
    if not scores and all(os.path.exists(item.source) for item in items):  # what is not there may be MIDI
        m.check_no_midi(asked)

    def place_for(loaded: Model | NoteModel) -> Place:
        return place_of(out, loaded, filename, how, skip_existing=skip_existing, overwrite=overwrite)

    works: dict[bool, Callable[[Item], Outcome]] = {}  # by whether the input is MIDI
    if scores:
        try:
            m.check(bool(stems or two_stems), kind.type)
            if kind.type != "notes" and model != DEFAULT:
                raise QueryError(f"the model {model} separates audio; for MIDI files give -n notes, or leave it away")
            m.check_encoding(how, render or len(scores) < len(items))
            o.only_for_audio(
                overlap=overlap, stem=stem, negative=negative, guidance=guidance, phase=phase, likelihood=likelihood
            )
            assigner = load_notes(model if kind.type == "notes" else "notes", device)
            works[True] = m.NoteJob(assigner, place_for(assigner), asked, voice, len(items)).work
        except (QueryError, ModelError) as error:  # among songs of audio a MIDI file may just lie about
            if len(scores) == len(items):
                raise
            works[True] = partial(_refuse, error)
    if len(scores) < len(items):
        # what nobody described is a stem of its own, so that the stems sum to the song
        described = [*stem, "rest"] if stem and "rest" not in stem else stem
        wishes = o.wishes(described, negative, guidance, phase=phase, likelihood=likelihood)
        loaded = load(model, device, **wishes)
        owner = f"the model {loaded.name} has"
        wanted = known_names(o.names(stems), loaded.stems, owner) or loaded.stems
        one = known_names([two_stems] if two_stems is not None else [], loaded.stems, owner)
        voice.detail(
            f"model {loaded.name} on {loaded.device}, {loaded.rate} Hz, {loaded.window / loaded.rate:.1f} s windows"
        )
        effort = {
            "evaluations": evaluations or loaded.evaluations,
            "overlap": OVERLAP if overlap is None else overlap,
        }
        works[False] = _Job(
            loaded, place_for(loaded), wanted, one[0] if one else None, effort, voice, o.told(wishes)
        ).work
    outcomes = work_through(items, lambda item: works[item in scores](item), lambda outcome: tell(voice, outcome))
    raise typer.Exit(conclude(voice, "separate", outcomes))


def _refuse(why: Exception, item: Item) -> Outcome:
    from stemwise.errors import AudioFileError

    raise AudioFileError(f"{item.source}: {why}")


class _Job:
    """What is done to each song."""

    def __init__(
        self,
        model: Model,
        place: Place,
        wanted: tuple[str, ...],
        one: str | None,
        effort: Mapping[str, Any],
        voice: Voice,
        told: Mapping[str, Any],
    ) -> None:
        self.model, self.place, self.wanted, self.one = model, place, wanted, one
        self.effort, self.voice, self.told = effort, voice, told

    def work(self, item: Item) -> Outcome:
        from stemwise.commands.produce import produce
        from stemwise.outputs import MIX, Made

        parameters: dict[str, Any] = {**self.effort, "stems": list(self.wanted), **self.told}
        if self.one is not None:
            parameters |= {"stems": [self.one, f"no_{self.one}"]}
        made = Made("separate", self.model.name, {MIX: item.source}, 0, parameters)
        return produce(item, self.place, made, lambda folder: self._make(item, folder))

    def _make(self, item: Item, folder: Path) -> tuple[Files, Mapping[str, Any]]:
        from stemwise.audio_io import FLOAT_WAV
        from stemwise.outputs import put_mixture, read_folder, write_sums

        how = self.place.how
        scratch = folder / "scratch"
        scratch.mkdir()
        source = item.source
        if source.is_dir():
            source = put_mixture(read_folder(source, self.model.stems), scratch / "mixture.wav")
        direct = self.one is None
        with self.voice.progress(item.track) as progress:
            report = self.model.separate_file(
                source,
                folder if direct else scratch,
                encoding=how if direct else FLOAT_WAV,
                progress=progress,
                **self.effort,
            )
        gain = report.gain_db
        if self.one is None:
            files = {name: folder / f"{name}.{how.extension}" for name in self.model.stems}
            for name in set(files) - set(self.wanted):
                files[name].unlink()
            files = {name: files[name] for name in self.wanted}
        else:
            raw = {name: scratch / f"{name}.wav" for name in self.model.stems}
            rest = [file for name, file in raw.items() if name != self.one]
            written = write_sums(folder, {self.one: [raw[self.one]], f"no_{self.one}": rest}, how)
            files, gain = written.paths, written.gain_db
        for file in scratch.iterdir():
            file.unlink()
        scratch.rmdir()
        return files, _facts(report, gain)


def _facts(report: Report, gain: float) -> dict[str, Any]:
    return {
        "null_test_dbfs": round(report.null_dbfs, 2),
        "unassigned_energy_share": round(report.unassigned_share, 6),
        "gain_db": round(gain, 4),
    }


def tell(voice: Voice, outcome: Outcome) -> None:
    """One song's result for a person."""
    source = outcome.item.source
    if outcome.status == "done" and outcome.manifest.get("kind") == "midi":
        m.tell_midi(voice, outcome)
    elif outcome.status == "failed":
        complain(str(outcome.message))
        voice.detail(outcome.trace or "")
    elif outcome.status == "skipped":
        voice.say(f"{source}: skipped, {outcome.folder} is complete")
    else:
        facts = outcome.manifest
        voice.say(f"{source} -> {outcome.folder} ({', '.join(facts['stems'])})")
        figures = []
        if "null_test_dbfs" in facts:
            figures.append(f"null test {facts['null_test_dbfs']:.1f} dBFS")
            figures.append(f"{facts['unassigned_energy_share']:.1%} of the energy not assigned by the model itself")
        if facts.get("gain_db"):
            figures.append(f"common gain {facts['gain_db']:.2f} dB")
        if "rank" in facts:
            worth = "unknown" if facts["worth"] is None else f"{facts['worth']:.2f}"
            figures.append(f"seed {facts['seed']}, {facts['parameters']['rank']} {worth}")
        elapsed = facts["elapsed_seconds"]
        speed = facts["seconds"] / max(elapsed, 1e-9)
        figures.append(f"{facts['seconds']:.1f} s of audio in {elapsed:.1f} s ({speed:.1f} times real time)")
        voice.say("  " + "; ".join(figures))
