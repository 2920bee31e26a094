"""What verbs do with MIDI files: the result is a multi-track file, with a picture and audio where they are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands.console import Voice, complain
from stemwise.commands.options import check_there
from stemwise.errors import AudioFileError, QueryError
from stemwise.extras import needed

if TYPE_CHECKING:
    from stemwise.audio_io import Encoding
    from stemwise.batch import Item, Outcome
    from stemwise.commands.produce import Files, Place
    from stemwise.note_model import NoteModel, NoteParts
    from stemwise.outputs import Made
    from stemwise.symbolic import Instrument, Music, Notes

Present = Annotated[
    str | None, typer.Option("--present", help="MIDI: these instruments play, no others.", show_default=False)
]
Lock = Annotated[
    list[str] | None,
    typer.Option(
        "--lock", help="MIDI: known notes, TRACK=INSTRUMENT or FILE.mid=INSTRUMENT; repeatable.", show_default=False
    ),
]
Doublings = Annotated[bool, typer.Option("--doublings", help="MIDI: copy notes that two instruments play in unison.")]
Version = Annotated[
    int | None, typer.Option("--seed", min=0, help="MIDI: another version; each seed its own.", show_default=False)
]
Plot = Annotated[bool, typer.Option("--plot", help="MIDI: add a picture of the notes.")]
Render = Annotated[bool, typer.Option("--render", help="MIDI: add audio, as stems and mix.")]
Table = Annotated[bool, typer.Option("--table", help="MIDI: add a table of notes, each with its confidence.")]


@dataclass(frozen=True)
class Views:
    """What is put beside a MIDI file: a picture NAME.png, a folder audio/, whose files are encoded as `how` says."""

    plot: bool = False
    render: bool = False
    how: Encoding | None = None

    def __post_init__(self) -> None:
        if self.plot:
            needed("matplotlib", "eval")

    def parameters(self) -> dict[str, Any]:
        """For the manifest."""
        return {"plot": self.plot, "render": self.render}

    def add(
        self, music: Music, parts: Mapping[str, Notes], instruments: Sequence[Instrument], folder: Path, name: str
    ) -> dict[str, Any]:
        """Put them into a folder that is being made; returns facts for its manifest."""
        facts = {}
        if self.plot:
            from stemwise.symbolic.picture import draw

            draw(music, parts, folder / f"{name}.png", name)
        if self.render:
            import torch

            from stemwise.audio_io import FLOAT_WAV
            from stemwise.commands.produce import put_audio
            from stemwise.outputs import Made, finish
            from stemwise.stems import Audio
            from stemwise.symbolic.rendering import sound

            stems, player = sound(music, parts, instruments)
            audio = Audio.of({stem: torch.from_numpy(signal)[None] for stem, signal in stems.items()}, 44100)
            (folder / "audio").mkdir()
            how = self.how or FLOAT_WAV
            files, gains = put_audio(folder / "audio", audio, how)
            finish(folder / "audio", Made("render", player, {}, 0, {}, gains), files, how)
            facts["rendered_by"] = player
        return facts


@dataclass(frozen=True)
class Asked:
    """The options of a separation of MIDI files."""

    present: tuple[str, ...] = ()
    locked: Mapping[str, str] | None = None
    doublings: bool = False
    steps: int | None = None
    seed: int | None = None
    table: bool = False
    views: Views = field(default_factory=Views)


def locks(texts: Sequence[str] | None) -> dict[str, str]:
    """ "2=bass" -> {"2": "bass"}. Raises QueryError."""
    found = {}
    for text in texts or ():
        place, equals, instrument = text.rpartition("=")
        if not (place and equals and instrument):
            raise QueryError(f"--lock {text!r}: write it as TRACK=INSTRUMENT or FILE.mid=INSTRUMENT, such as 2=bass")
        found[place] = instrument
    return found


def check(stems: bool, kind: str) -> None:
    """Raise QueryError where options for audio, or a model of rolls, meet MIDI files."""
    if kind in ("rolls", "mixture2music"):
        raise QueryError(
            "this model separates piano rolls, which lose what notes have; take `stemwise rolls`, or a model of type notes"
        )
    if stems:
        raise QueryError(
            "--stems and --two-stems are for audio; of a MIDI file no note is left out. --present says who plays"
        )


def check_no_midi(asked: Asked) -> None:
    """Raise QueryError where options for MIDI files meet none."""
    if asked != Asked(steps=asked.steps, locked={}):
        raise QueryError(
            "--present, --lock, --doublings, --seed, --table, --plot and --render are for MIDI files, and none was given"
        )


def check_encoding(how: Encoding, audio: bool) -> None:
    """Raise QueryError for an encoding of audio where none is made."""
    from stemwise.audio_io import FLOAT_WAV

    if how != FLOAT_WAV and not audio:
        raise QueryError("--mp3, --flac, --int16 and --int24 are for audio; of MIDI it is made with --render")


def only_for_midi(plot: bool, render: bool, given: Sequence[str] = ()) -> None:
    """Raise QueryError where views of MIDI files are wanted of audio, AudioFileError where what was given is not there."""
    if plot or render:
        check_there(given)
        raise QueryError("--plot and --render are for MIDI; stems of audio can be heard as they are")


def midi_file(source: Path) -> Path | None:
    """The MIDI file that an input is by its name or content, or that the folder of an earlier result holds; or None."""
    from stemwise.outputs import MIDI, read_manifest
    from stemwise.symbolic import MIDI_SUFFIXES, is_midi

    try:
        if source.is_file():
            return source if source.suffix.lower() in MIDI_SUFFIXES or is_midi(source) else None
        manifest = read_manifest(source) if source.is_dir() else None
    except (AudioFileError, OSError):  # whoever reads it says what is wrong
        return None
    if manifest is None or manifest.get("kind") != MIDI:
        return None
    names = sorted({facts["file"] for facts in manifest["stems"].values()})
    if not names:  # nothing sounds, which whoever reads it says
        names = sorted(file.name for file in source.iterdir() if file.suffix.lower() in MIDI_SUFFIXES)
    return next((source / name for name in names if Path(name).name == name), None)


class NoteJob:
    """What is done to each MIDI file, of `count`."""

    def __init__(self, model: NoteModel, place: Place, asked: Asked, voice: Voice, count: int) -> None:
        from stemwise.stems import known_names

        for names in (asked.present, tuple((asked.locked or {}).values())):  # what is wrong for every file, before any
            known_names(names, model.stems, f"the model {model.name} has")
        self.model, self.place, self.asked, self.voice, self.count = model, place, asked, voice, count

    def work(self, item: Item) -> Outcome:
        """Separate one."""
        from stemwise.batch import alone
        from stemwise.commands.produce import produce
        from stemwise.outputs import MIX, Made

        asked = self.asked
        source = midi_file(item.source)
        assert source is not None
        parameters = {
            "present": list(asked.present),
            "locked": [_lock(place, instrument) for place, instrument in (asked.locked or {}).items()],
            "doublings": asked.doublings,
            "steps": asked.steps,
            "sampled": asked.seed is not None,
            "table": asked.table,
            **asked.views.parameters(),
        }
        made = Made("separate", self.model.name, {MIX: source}, asked.seed or 0, parameters)
        with alone(item, self.count):
            return produce(item, self.place, made, lambda folder: self._make(item, source, folder), close_midi)

    def _make(self, item: Item, source: Path, folder: Path) -> tuple[Files, Mapping[str, Any]]:
        asked = self.asked
        with self.voice.progress(item.track) as progress:
            parts = self.model.separate(
                source,
                present=asked.present,
                locked=asked.locked,
                doublings=asked.doublings,
                steps=asked.steps,
                seed=asked.seed,
                progress=progress,
            )
        name = Path(item.track).name
        file = folder / f"{name}.mid"
        parts.save(file)
        played = {one: parts[one] for one in parts.names}
        if asked.table:
            (folder / f"{name}.csv").write_text(parts.table(), encoding="utf-8")
        extra = asked.views.add(parts.music, played, parts.instruments, folder, name)
        return {}, {"parts": described(parts, file.name), **_facts(parts), **extra}


def _lock(place: str, instrument: str) -> dict[str, str]:
    """For the manifest: which notes are known, without a path of this machine."""
    from stemwise.files import sha256

    file = Path(place)
    if place.isdecimal() or not file.is_file():
        return {"track": place, "instrument": instrument}
    return {"file": file.name, "sha256": sha256(file), "instrument": instrument}


def described(parts: NoteParts, file: str) -> dict[str, dict[str, Any]]:
    """What the manifest says of each instrument: its file, tracks, program, notes, and mean confidence."""
    found = {}
    for name in parts.names:
        index = [one.name for one in parts.instruments].index(name)
        chosen = (parts.labels == index) & ~parts.given
        found[name] = {
            "file": file,
            "tracks": [t.name for t in parts.score.tracks if t.name == name or t.name.startswith(f"{name} overflow")],
            "program": parts.instruments[index].program,
            "drums": parts.instruments[index].drums,
            "notes": len(parts[name]),
            "notes_given": int(((parts.labels == index) & parts.given).sum()),
            "confidence": round(float(parts.confidence[chosen].mean()), 4) if chosen.any() else None,
        }
    return found


def _facts(parts: NoteParts) -> dict[str, Any]:
    from stemwise.symbolic.midi import events_lost

    music, asked = parts.music, ~parts.given
    end = (music.notes["onset"] + music.notes["duration"]).max()
    return {
        "seconds": round(float(music.seconds(end)), 3),
        "ticks_per_quarter": music.tpq,
        "notes": len(music.notes),
        "notes_changed": parts.changed,
        "notes_doubled": int(parts.doubled.sum()),
        "notes_given": int(parts.given.sum()),
        "confidence": round(float(parts.confidence[asked].mean()), 4) if asked.any() else None,
        "steps": parts.steps,
        "events_kept_apart": len(music.census.kept),
        "events_lost": events_lost(music, {name: parts[name] for name in parts.names}),
    }


def close_midi(folder: Path, made: Made, files: Files, how: Encoding) -> dict[str, Any]:
    """The manifest of a folder with a MIDI file; the facts bring its parts."""
    from dataclasses import replace

    from stemwise.outputs import finish_files

    facts = dict(made.facts)
    parts = facts.pop("parts")
    return finish_files(folder, replace(made, facts=facts), parts)


def tell_midi(voice: Voice, outcome: Outcome) -> None:
    """One file's result for a person."""
    facts = outcome.manifest
    voice.say(f"{outcome.item.source} -> {outcome.folder} ({', '.join(facts['stems'])})")
    sure = "all known" if facts.get("confidence") is None else f"mean confidence {facts['confidence']:.2f}"
    said = [f"{facts['notes']} notes, {facts['notes_changed']} changed", sure] if "notes_changed" in facts else []
    if facts.get("notes_doubled"):
        said.append(f"{facts['notes_doubled']} doubled")
    wanted = facts["parameters"].get("want", facts["parameters"].get("stems", ()))
    if silent := [stem for stem in wanted if stem not in facts["stems"]]:
        said.append(f"silent: {', '.join(silent)}")
    if "rendered_by" in facts:
        said.append(f"audio by {facts['rendered_by']}")
    said.append(f"{facts['seconds']:.1f} s of music in {facts['elapsed_seconds']:.1f} s")
    voice.say("  " + "; ".join(said))
    if facts.get("events_lost"):
        complain(
            f"{outcome.item.source}: not kept: {', '.join(f'{n} x {what}' for what, n in facts['events_lost'].items())}"
        )
