"""`stemwise generate --midi` and `stemwise accompany part.mid`: parts made by the joint prior of piano rolls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.commands.midi import Views, close_midi, midi_file
from stemwise.errors import QueryError

if TYPE_CHECKING:
    from stemwise.batch import Item, Outcome
    from stemwise.commands.produce import Files, Place
    from stemwise.longform import ProgressCallback
    from stemwise.stems import Rolls
    from stemwise.symbolic import Music, Notes
    from stemwise.systems.roll_system import RollSystem

TEMPO = 120.0
"""Quarter notes a minute of generated MIDI."""
LONGEST = 3600.0
"""Seconds of music that are made at most."""


@dataclass(frozen=True)
class Named:
    """A system with the name that output folders bear."""

    name: str
    folder: Path
    system: RollSystem


def prior(model: str, device: str) -> Named:
    """The prior that `--model` names, the bundled one for the name of the bundled audio model."""
    from stemwise.loading import folder_of, load_rolls, name_of

    name = "rolls" if model == "band" else model
    folder = folder_of(name)
    return Named(name_of(folder), folder, load_rolls(name, device))


def bars_of(seconds: float) -> int:
    """How many bars of 4/4 at `TEMPO` come nearest to a length. Raises QueryError."""
    if not 0 < seconds <= LONGEST:
        raise QueryError(f"cannot generate {seconds:g} seconds; ask for more than 0 and at most {LONGEST:g}")
    return max(1, round(seconds * TEMPO / 240))


class Generating:
    """What is done for each seed of `generate --midi`."""

    def __init__(
        self, named: Named, place: Place, wanted: Sequence[str], bars: int, steps: int | None, views: Views
    ) -> None:
        self.named, self.place, self.wanted, self.bars, self.steps = named, place, tuple(wanted), bars, steps
        self.views = views

    def work(self, item: Item, seed: int, voice: Voice) -> Outcome:
        """Make one."""
        from stemwise.codecs.roll import Writing, to_score
        from stemwise.commands.produce import produce
        from stemwise.outputs import Made
        from stemwise.symbolic.midi import Music, notes_of

        system = self.named.system
        parameters = {"midi": True, "bars": self.bars, "stems": list(self.wanted), "steps": self.steps or system.steps}
        parameters |= self.views.parameters()

        def make(folder: Path) -> tuple[Files, dict[str, Any]]:
            with voice.progress(item.track) as progress:
                tell = _teller(progress, self.bars * 240 / TEMPO)
                rolls = system.generate(self.wanted, bars=self.bars, seed=seed, steps=self.steps, progress=tell)
            score = to_score(rolls, system.layout, Writing(tempo=TEMPO))
            return {}, _put(Music(score, notes_of(score)), item, folder, (), self.views)

        return produce(item, self.place, Made("generate", self.named.name, {}, seed, parameters), make, close_midi)


@dataclass(frozen=True)
class Played:
    """MIDI parts that were given: the file of each stem, all in one score (`music`), and the stem of each of its tracks."""

    files: dict[str, Path]
    music: Music
    stems: tuple[str, ...]


def any_midi(given: Sequence[str]) -> bool:
    """Whether a MIDI file is among what was given."""
    return any(midi_file(Path(text)) or midi_file(Path(text.partition("=")[2] or text)) for text in given)


def played(given: Sequence[str], named: Named, wanted: Sequence[str]) -> Played:
    """The MIDI files that were given, read.

    Of a folder the manifest says which tracks are which stem, of `FILE.mid` alone their names, programs and channels; those
    that are wanted anew are left out. Raises QueryError where audio is among them, a stem is in two, or what they hold does
    not fit together.
    """
    from stemwise.stems import known_names
    from stemwise.symbolic.midi import read_midi

    system = named.system
    scores: list[Music] = []
    files: dict[str, Path] = {}
    stems: list[str] = []
    for text in given:
        name, equals, file = text.partition("=")
        whole = midi_file(Path(text))
        source = whole or (midi_file(Path(file)) if equals else None)
        if source is None:
            raise QueryError(
                f"{text}: not a MIDI file, but another one given is; give all parts as MIDI, or all as audio"
            )
        music = read_midi(source)
        if whole:
            each = _said(Path(text), music, system.names)
            each = each or [_stem_of(*track, system.names) for track in music.tracks]
            music, each = without(music, each, wanted)
        else:
            known_names([name], system.names, f"the model {named.name} has")
            if name in wanted:
                raise QueryError(f"{name} is both given and wanted; leave it out of one of them")
            each = [name] * len(music.tracks)
        if scores and music.tpq != scores[0].tpq:
            raise QueryError(
                f"{source}: has {music.tpq} ticks to the quarter note, the first file {scores[0].tpq}; export alike"
            )
        for one, kind in (("tempos", "tempos"), ("metres", "time signatures")):
            if any(getattr(other, one) and getattr(music, one) not in ((), getattr(other, one)) for other in scores):
                raise QueryError(f"{source}: has other {kind} than what was given before it; export all parts alike")
        scores.append(music)
        stems += each
        o.put(files, {one: source for one, track in zip(each, music.score.tracks, strict=True) if len(track.notes)})
    o.check_given(files, system.names)
    both = _together(scores)
    ends = both.notes["onset"] + both.notes["duration"]
    if (seconds := float(both.seconds(ends.max()))) > LONGEST:
        raise QueryError(f"what was played lasts {seconds:.0f} s; accompany at most {LONGEST:g} s at once")
    return Played(files, both, tuple(stems))


def _said(folder: Path, music: Music, known: Sequence[str]) -> list[str] | None:
    """The stem of each track by the manifest of a folder; None where it does not say it of all that sound."""
    from stemwise.outputs import read_manifest

    manifest = read_manifest(folder) if folder.is_dir() else None
    facts = manifest["stems"] if manifest is not None else {}
    stems = {number: stem for stem, one in facts.items() for number in one.get("numbers", ())}
    sounding = [number for number, track in enumerate(music.score.tracks) if len(track.notes)]
    if sorted(stems) != list(range(1, len(sounding) + 1)) or not set(stems.values()) <= set(known):
        return None
    each = [_stem_of(*track, known) for track in music.tracks]
    for place, number in enumerate(sounding, 1):
        each[number] = stems[place]
    return each


def _together(scores: Sequence[Music]) -> Music:
    """Parts that agree on tempos and metres as one; what only some of them know counts for all."""
    from stemwise.symbolic.events import Census
    from stemwise.symbolic.midi import Music, notes_of

    score, censuses = scores[0].score, [music.census for music in scores]
    for kind in ("tempos", "time_signatures", "key_signatures", "markers"):
        if not len(getattr(score, kind)):
            getattr(score, kind).extend(next((its for m in scores if len(its := getattr(m.score, kind))), ()))
    for other in scores[1:]:
        score.tracks.extend(other.score.tracks)
    kept = list(censuses[0].kept)
    for census in censuses[1:]:  # what a file repeats is its own; what files share is said once
        kept += [event for event in census.kept if event not in kept]
    kept.sort(key=lambda event: event[0])
    lost = sum((Counter(census.lost) for census in censuses), Counter())
    return Music(score, notes_of(score), Census(tuple(kept), dict(lost), {}))


def without(music: Music, stems: Sequence[str], unwanted: Sequence[str]) -> tuple[Music, list[str]]:
    """Music without the tracks of some stems, and the stems of the tracks that are left."""
    from dataclasses import replace

    from stemwise.symbolic.midi import notes_of

    score = music.score.copy()
    for number in reversed(range(len(stems))):
        if stems[number] in unwanted:
            del score.tracks[number]
    return replace(music, score=score, notes=notes_of(score)), [stem for stem in stems if stem not in unwanted]


def _stem_of(name: str, program: int, is_drum: bool, stems: Sequence[str]) -> str:
    """The prior's stem for a track: instruments that it does not know by themselves are the last one, "other"."""
    from stemwise.symbolic import BAND, instrument_of

    found = BAND[instrument_of(name, program, is_drum)].name
    return found if found in stems else stems[-1]


class Accompanying:
    """What is done for each seed of `accompany` with MIDI files."""

    def __init__(
        self, named: Named, place: Place, given: Played, wanted: Sequence[str], steps: int | None, views: Views
    ) -> None:
        self.named, self.place, self.given, self.wanted, self.steps = named, place, given, tuple(wanted), steps
        self.views = views

    def work(self, item: Item, seed: int, voice: Voice) -> Outcome:
        """Make one."""
        from stemwise.codecs.roll import Writing, to_score
        from stemwise.commands.produce import produce
        from stemwise.outputs import Made
        from stemwise.symbolic.midi import Music, notes_of

        system, music = self.named.system, self.given.music
        parameters = {"want": list(self.wanted), "given": sorted(self.given.files), "steps": self.steps or system.steps}
        parameters |= self.views.parameters()

        def make(folder: Path) -> tuple[Files, dict[str, Any]]:
            known, bars = self._rolls()
            with voice.progress(item.track) as progress:
                tell = _teller(progress, float(music.seconds(music.notes["onset"][-1:])[0]))
                made = system.accompany(known, self.wanted, bars=bars, seed=seed, steps=self.steps, progress=tell)
            score = music.score.copy()
            score.tracks.extend(to_score(made, system.layout, Writing(ticks=music.tpq)).tracks)
            return {}, _put(Music(score, notes_of(score), music.census), item, folder, self.given.stems, self.views)

        made = Made("accompany", self.named.name, self.given.files, seed, parameters)
        return produce(item, self.place, made, make, close_midi)

    def _rolls(self) -> tuple[Rolls, Any]:
        """What was given on the grid, its last bar full, and the steps (bool) that begin bars."""
        import torch

        from stemwise.codecs.roll import on_grid
        from stemwise.stems import Rolls

        layout = self.named.system.layout
        score = self.given.music.score.copy()
        for track, stem in zip(score.tracks, self.given.stems, strict=True):
            track.is_drum = stem == layout.drums
            track.program = 0 if track.is_drum else layout.programs[stem][0]
        grid = on_grid(score, layout)
        numerator, denominator = self.given.music.metres[-1][1:] if self.given.music.metres else (4, 4)
        bar = max(1, 4 * layout.steps * numerator // denominator)
        last = int(grid.bars[-1]) if len(grid.bars) else 0
        length = last + -(-(grid.length - last) // bar) * bar
        begins = torch.zeros(length, dtype=torch.bool)
        begins[grid.bars.tolist()] = True
        every = Rolls(layout.stems, torch.from_numpy(grid.paint(layout, 0, length))[None], layout.steps, layout.lowest)
        return every.select([name for name in layout.stems if name in self.given.files]), begins


def _put(music: Music, item: Item, folder: Path, given: Sequence[str], views: Views) -> dict[str, Any]:
    """Write the MIDI file of a folder that is being made, and its views; the facts for its manifest."""
    import numpy as np

    from stemwise.files import write_atomically
    from stemwise.symbolic import Instrument
    from stemwise.symbolic.midi import written

    name = Path(item.track).name
    write_atomically(folder / f"{name}.mid", written(music.score, music.census))
    stems = [*given, *(title for title, _, _ in music.tracks[len(given) :])]
    sounding = [number for number, track in enumerate(music.score.tracks) if len(track.notes)]
    parts: dict[str, dict[str, Any]] = {}
    notes: dict[str, Notes] = {}
    instruments = []
    for stem in dict.fromkeys(stems):
        numbers = [k for k, one in enumerate(stems) if one == stem]
        notes[stem] = music.notes[np.isin(music.notes["track"], numbers)]
        _, program, is_drum = music.tracks[numbers[0]]
        instruments.append(Instrument(stem, program, is_drum))
        parts[stem] = {
            "file": f"{name}.mid",
            "tracks": [music.tracks[k][0] for k in numbers],
            "numbers": [place for place, k in enumerate(sounding, 1) if k in numbers],
            "program": program,
            "drums": is_drum,
            "notes": len(notes[stem]),
            "given": numbers[0] < len(given),
        }
    heard = {stem: its for stem, its in notes.items() if len(its)}
    ends = music.notes["onset"] + music.notes["duration"]
    return {
        "parts": {stem: parts[stem] for stem in heard},
        "seconds": round(float(music.seconds(ends.max())), 3) if len(ends) else 0.0,
        "ticks_per_quarter": music.tpq,
        "notes": len(music.notes),
        "events_lost": music.census.lost,
        **(views.add(music, heard, instruments, folder, name) if heard else {}),
    }


def _teller(progress: ProgressCallback, total: float) -> Callable[[float], object]:
    from stemwise.longform import tell

    started = time.monotonic()
    return lambda share: tell(progress, share * total, total, started)
