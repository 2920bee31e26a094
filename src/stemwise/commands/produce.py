"""What every verb that makes audio has in common: where output goes, and that it appears only when complete."""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from stemwise.audio_io import LITTER, Encoding, Existing, output_folder
from stemwise.batch import Item, Outcome
from stemwise.commands.console import Code, Voice, complain
from stemwise.errors import AudioFileError, QueryError
from stemwise.outputs import (
    MANIFEST,
    MIX,
    Made,
    describe_input,
    finish,
    model_digest,
    read_manifest,
    state_of_inputs,
    write_stems,
)
from stemwise.stems import Audio

Files = Mapping[str, Path]
Make = Callable[[Path], tuple[Files, Mapping[str, Any]]]
"""Fill a folder: returns its files by stem name (and "mix"), and figures for the manifest."""

Close = Callable[[Path, Made, Files, Encoding], dict[str, Any]]
"""Write the manifest of a filled folder, and return it."""


class Owner(Protocol):
    """What output folders are named after: a model."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def folder(self) -> Path:
        """Where its weights lie."""
        ...


@dataclass(frozen=True)
class Place:
    """Where the output of one model goes, and what to do where something is already."""

    root: Path
    model: str
    template: str
    how: Encoding
    digest: str = ""
    existing: Existing = Existing.REFUSE
    skip: bool = False

    def __post_init__(self) -> None:
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None}
        except ValueError as error:
            raise QueryError(
                f"--filename {self.template!r}: {error}; for example '{{track}}/{{stem}}.{{ext}}'"
            ) from error
        folder, _, name = self.template.rpartition("/")
        unknown = sorted(fields - {"track", "stem", "ext", "model"})
        if unknown:
            raise QueryError(f"--filename has an unknown field {{{unknown[0]}}}; allowed: track, stem, ext, model")
        if "{track}" not in folder or "{stem}" in folder or "{stem}" not in name:
            raise QueryError(
                f"--filename {self.template!r}: every song needs a folder of its own, with {{track}} in it, and every "
                "stem a name with {stem}, for example '{track}/{stem}.{ext}'"
            )
        try:
            typical = self.folder("track") / self.file("track", "stem")
        except ValueError as error:  # a field's format
            raise QueryError(f"--filename {self.template!r}: {error}") from error
        if typical.suffix != f".{self.how.extension}":
            raise QueryError(
                f"--filename {self.template!r}: names end with .{{ext}}, for example '{{track}}/{{stem}}.{{ext}}'"
            )
        if self.template.startswith("/") or ".." in Path(self.template).parts:
            raise QueryError(f"--filename {self.template!r} leads out of the output folder; choose that with -o")

    def folder(self, track: str) -> Path:
        """The output folder of a track, which may have sub-folders. Raises QueryError where it would lie elsewhere."""
        if Path(track).is_absolute() or ".." in Path(track).parts:
            raise QueryError(f"the name {track!r} leads out of the output folder; choose that with -o")
        if not Path(track).parts:
            raise QueryError(f"{track!r} is the output folder itself; give a name, such as 'song'")
        inner = self.template.rpartition("/")[0].format(track=track, model=self.model, ext=self.how.extension)
        return self.root / self.model / inner

    def file(self, track: str, stem: str) -> str:
        """The file name of a stem in that folder."""
        name = self.template.rpartition("/")[2]
        return name.format(track=Path(track).name, stem=stem, ext=self.how.extension, model=self.model)


def place_of(root: Path, model: Owner, template: str, how: Encoding, *, skip_existing: bool, overwrite: bool) -> Place:
    """A `Place` from the options. Raises QueryError where they contradict each other."""
    if skip_existing and overwrite:
        raise QueryError("--skip-existing and --overwrite exclude each other; choose one")
    existing = Existing.OVERWRITE if overwrite else Existing.REFUSE
    return Place(root, model.name, template, how, model_digest(model.folder), existing, skip_existing)


def produce(item: Item, place: Place, made: Made, make: Make, close: Close = finish) -> Outcome:
    """Run `make` into a hidden folder, add the manifest, put it in place; or skip what the same command made before."""
    target = place.folder(item.track)
    how = place.how
    encoding = " ".join([how.extension, how.subtype, *([f"{how.bitrate} kbit/s"] if how.bitrate else [])])
    made = replace(made, parameters={**made.parameters, "encoding": encoding, "filename": place.template})
    if place.skip and target.exists():
        return _skipped(item, target, made, place.digest)
    if place.existing is Existing.OVERWRITE:
        check_replaceable(target)
    heard = state_of_inputs(made)
    with output_folder(target, place.existing) as partial:
        started = time.monotonic()
        files, facts = make(partial)
        elapsed = time.monotonic() - started
        renamed = {stem: _rename(file, partial / place.file(item.track, stem)) for stem, file in files.items()}
        done = replace(made, facts={"model_sha256": place.digest, "elapsed_seconds": round(elapsed, 3), **facts})
        manifest = close(partial, done, renamed, place.how)
        changed = [file for file, state in state_of_inputs(made).items() if state != heard.get(file)]
        if changed:  # the manifest says of the new file what was made of the old one
            raise AudioFileError(
                f"{changed[0]}: changed while it was worked on. Wait until it is complete, and run again."
            )
    return Outcome(item, "done", target, manifest=manifest)


def check_takes(place: Place, track: str, count: int) -> None:
    """Raises AudioFileError where a single result lies in the folder that several takes need, or takes where one result goes."""
    folder = place.folder(track)
    if count > 1 and (folder / MANIFEST).is_file():
        clash = "holds one result, and several takes cannot go there"
    elif count == 1 and any(folder.glob(f"take-*/{MANIFEST}")):
        clash = "holds takes, and a single result cannot go there"
    else:
        return
    raise AudioFileError(f"{folder}: {clash}. Choose another place with -o, or move it.")


def put_audio(folder: Path, audio: Audio, how: Encoding) -> tuple[Files, dict[str, Any]]:
    """Write stems and their mix; the figures say whether a common gain was needed."""
    extra = {MIX: audio.mix()[0].detach().cpu().numpy()}
    written = write_stems(folder, audio, how, extra)
    return written.paths, {"gain_db": round(written.gain_db, 4)}


def conclude(voice: Voice, verb: str, outcomes: Sequence[Outcome]) -> Code:
    """Print the summary, or the JSON document, and give the exit code."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    code = Code.FAILED if failed else Code.OK
    if len(outcomes) > 1:
        counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed")}
        voice.say(", ".join(f"{count} {status}" for status, count in counts.items() if count))
        if failed:
            complain(f"{len(failed)} of {len(outcomes)} inputs failed: {', '.join(str(o.item.source) for o in failed)}")
    voice.hand_over(verb, {"outcomes": [_plain(outcome) for outcome in outcomes]}, code)
    return code


def _skipped(item: Item, target: Path, made: Made, digest: str) -> Outcome:
    """Skip a complete folder of the same command; anything else is not ours to pass over in silence."""
    manifest = read_manifest(target) if target.is_dir() else None
    if manifest is None:
        raise AudioFileError(f"{target}: something without a {MANIFEST} is there. Use --overwrite, or another -o.")
    inputs = {part: describe_input(path)["sha256"] for part, path in made.inputs.items()}
    now = (made.verb, made.model, digest, inputs, made.seed, dict(made.parameters))
    found = manifest.get("inputs", {})
    before = (
        manifest.get("verb"),
        manifest.get("model"),
        manifest.get("model_sha256"),
        {part: facts.get("sha256") for part, facts in found.items()},
        manifest.get("seed"),
        manifest.get("parameters"),
    )
    if now != before:
        kinds = ("verb", "model", "weights or configuration", "input", "seed", "options")
        differs = [what for what, a, b in zip(kinds, now, before) if a != b]
        raise AudioFileError(
            f"{target}: was made otherwise; what differs: {', '.join(differs)}. Use --overwrite, or another -o."
        )
    files = [target / str(facts["file"]) for facts in [*manifest["stems"].values(), manifest.get("mix")] if facts]
    lost = next((file for file in files if not file.is_file() or not file.stat().st_size), None)
    if lost is not None:
        raise AudioFileError(f"{lost}: missing or empty, though the {MANIFEST} beside it names it. Use --overwrite.")
    return Outcome(item, "skipped", target, manifest=manifest)


def check_replaceable(target: Path) -> None:
    """Overwriting replaces a whole folder, so it may hold nothing but what its manifest names. Raises AudioFileError."""
    manifest = (read_manifest(target) if target.is_dir() else None) or {}
    files = [*manifest.get("stems", {}).values(), manifest.get("mix")]
    named = {str(facts["file"]) for facts in files if isinstance(facts, dict) and "file" in facts}
    refuse_foreign(target, {MANIFEST, *named, *map(str, manifest.get("files", ()))})


def refuse_foreign(target: Path, ours: Collection[str]) -> None:
    """Raises AudioFileError for a folder that holds more than `ours`, files and folders with all that is in them."""
    if target.exists() and not target.is_dir():
        raise AudioFileError(f"{target}: is a file, which is not overwritten. Move it first.")
    for path in sorted(target.rglob("*")):
        inside = path.relative_to(target)
        if path.name in LITTER or (path.is_dir() and not path.is_symlink()):
            continue
        if not {inside.as_posix(), *(place.as_posix() for place in inside.parents)} & set(ours):
            raise AudioFileError(
                f"{target}: holds {inside.as_posix()!r}, which the command that made it did not put there, so it is not "
                "overwritten. Move it first."
            )


def _rename(file: Path, target: Path) -> Path:
    return file if file == target else file.rename(target)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "input": str(outcome.item.source),
        "status": outcome.status,
        "folder": str(outcome.folder) if outcome.folder is not None else None,
        "message": outcome.message,
        "manifest": dict(outcome.manifest) or None,
    }
