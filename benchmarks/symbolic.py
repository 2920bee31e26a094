"""Who plays which note: accuracy of `stemwise separate song.mid` on notes, beside rules that hear nothing; and its speed.

    python benchmarks/symbolic.py --songs 40                     # the composer's test songs and merges of them
    python benchmarks/symbolic.py --songs 0 --midi FOLDER        # multi-track MIDI files of yours, tracks named or with programs
    python benchmarks/symbolic.py --songs 0 --seconds 240        # a song of four minutes, file to files, on one thread
    python benchmarks/symbolic.py --songs 0 --lossless 200       # notes that differ in what is written and read back

Labels are hidden; of each file "drums known" means that they are on channel 10, "one channel" that they are asked too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from stemwise.loading import load_notes
from stemwise.metrics.assignment import balanced_accuracy, confusion, note_accuracy, permuted_accuracy
from stemwise.songs.synthetic import compose, write_midi
from stemwise.symbolic.composed import composed
from stemwise.symbolic.instruments import BAND
from stemwise.symbolic.midi import MIDI_SUFFIXES, multiset, read_midi
from stemwise.symbolic.notes import Labelled, in_order
from stemwise.symbolic.sets import labelled_file
from stemwise.systems.notes import UNKNOWN, NoteAssigner, Question, assign

COUNT = len(BAND)
DRUMS = [one.name for one in BAND].index("drums")
TEST, VALIDATION, LEARNT = 4_000_000, 3_000_000, 2_000_000
Rule = Callable[[Labelled, np.ndarray], np.ndarray]


def merged(one: Labelled, other: Labelled, draw: np.random.Generator) -> Labelled:
    """Each instrument from one of two songs, bars aligned, the second one in another key."""
    from_other = draw.random(COUNT) < 0.5
    moved = other.notes.copy()
    moved["pitch"] += np.where(other.labels == DRUMS, 0, draw.integers(-5, 6)).astype("i2")
    notes = np.concatenate([one.notes[~from_other[one.labels]], moved[from_other[other.labels]]])
    labels = np.concatenate([one.labels[~from_other[one.labels]], other.labels[from_other[other.labels]]])
    order = in_order(notes)
    return Labelled(notes[order], labels[order], one.tpq, one.metres)


def rules(known_drums: bool) -> dict[str, Rule]:
    """What needs no model; learnt from 300 of the composer's training songs, without the drums where they are known."""
    songs = [composed(LEARNT + k) for k in range(300)]
    pitch = np.concatenate([s.notes["pitch"] for s in songs])
    label = np.concatenate([s.labels for s in songs])
    if known_drums:
        pitch, label = pitch[label != DRUMS], label[label != DRUMS]
    table = np.zeros((128, COUNT))
    np.add.at(table, (pitch, label), 1)
    smooth = np.stack([table[max(0, p - 1) : p + 2].sum(0) for p in range(128)]) + 1e-3 * table.sum(0)
    zones, register = (
        smooth.argmax(1),
        np.array([np.median(pitch[label == k]) if (label == k).any() else 999 for k in range(COUNT)]),
    )
    common = int(table.sum(0).argmax())

    def nearest(song: Labelled, asked: np.ndarray) -> np.ndarray:
        return np.abs(song.notes["pitch"][:, None] - register).argmin(1)

    def closest(song: Labelled, asked: np.ndarray) -> np.ndarray:
        """Hint: the first note of each instrument. Each note goes to the instrument whose last note is closest in pitch."""
        last = np.full(COUNT, 999.0)
        first = {k: int(np.argmax(song.labels == k)) for k in np.unique(song.labels[asked])}
        found = np.zeros(len(song.notes), dtype=int)
        hints = {place: k for k, place in first.items()}
        for place, p in enumerate(song.notes["pitch"].tolist()):
            if not asked[place]:
                continue
            found[place] = hints.get(place, int(np.abs(last - p).argmin()))
            last[found[place]] = p
        return found

    return {
        "most common": lambda song, asked: np.full(len(song.notes), common),
        "pitch zones (best label of each pitch)": lambda song, asked: zones[song.notes["pitch"]],
        "nearest register": nearest,
        "closest pitch, told each first note": closest,
    }


def by(model: NoteAssigner, steps: int, known_drums: bool, told: bool = False) -> Rule:
    def rule(song: Labelled, asked: np.ndarray) -> np.ndarray:
        given = np.where(asked, UNKNOWN, song.labels.astype(np.int64))
        allowed = np.isin(np.arange(COUNT), np.unique(song.labels)) if told else np.ones(COUNT, dtype=bool)
        return assign(model, Question(song.notes, song.tpq, song.metres, given, allowed, told), steps=steps).labels

    return rule


def judge(songs: list[Labelled], known_drums: bool, candidates: dict[str, Rule]) -> None:
    print(f"  {'drums known' if known_drums else 'one channel':44s} accuracy  balanced  permuted   error")
    for name, rule in candidates.items():
        tables = []
        for song in songs:
            asked = song.labels != DRUMS if known_drums else np.ones(len(song.labels), dtype=bool)
            if asked.any():
                tables.append(confusion(rule(song, asked)[asked], song.labels[asked].astype(int), COUNT))
        exact = note_accuracy(tables)
        print(
            f"  {name:44s} {exact:8.4f}  {balanced_accuracy(tables):8.4f}  {permuted_accuracy(tables):8.4f}  {1 - exact:6.4f}",
            flush=True,
        )


def lossless(count: int, folders: list[Path], model: str) -> None:
    """Composed songs and the MIDI files of folders, separated, written, read back: how many notes are not what they were."""
    notes = load_notes(model, "cpu")
    changed, total = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        song, made = Path(scratch) / "song.mid", Path(scratch) / "made.mid"
        for name, file in [("composer", song)] * count + [(f.name, file) for f in folders for file in midi_files(f)]:
            if file is song:
                write_midi(compose(TEST + 10_000 + total["songs of composer"], seconds=60.0), song)
            before = read_midi(file)
            notes.separate(before, steps=1).save(made)
            kept, found = (Counter(map(tuple, multiset(m.notes).tolist())) for m in (before, read_midi(made)))
            changed[name] += max((kept - found).total(), (found - kept).total())
            total[name] += kept.total()
            total[f"songs of {name}"] += 1
    for name, number in changed.items():
        print(f"{name}: {number} of {total[name]} notes of {total[f'songs of {name}']} files changed")


def midi_files(folder: Path) -> list[Path]:
    every = [folder] if folder.is_file() else folder.rglob("*")
    return sorted(file for file in every if file.suffix.lower() in MIDI_SUFFIXES)


def speed(seconds: float, model: str) -> None:
    """A whole song from file to files, as the command line does it."""
    from typer.testing import CliRunner

    from stemwise import cli

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "song.mid"
        piece = compose(TEST + 999, seconds=seconds)
        write_midi(piece, file)
        begin, spent = time.monotonic(), time.process_time()
        result = CliRunner().invoke(
            cli.app, ["separate", str(file), "-o", f"{folder}/out", "--model", model, "-d", "cpu", "-q"]
        )
        assert result.exit_code == 0, result.output
        notes = sum(len(track.notes) for track in piece.tracks)
        print(
            f"{seconds:.0f} s, {notes} notes: {time.monotonic() - begin:.1f} s, {time.process_time() - spent:.1f} s of one core"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--midi", type=Path, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--lossless", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 10])
    parser.add_argument("--model", nargs="*", default=["notes"])
    parser.add_argument(
        "--validation", action="store_true", help="the songs that choices are made by, not the test songs"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {name: load_notes(name, "cpu").assigner for name in options.model}
    sets: dict[str, list[Labelled]] = {}
    if options.songs:
        first = VALIDATION if options.validation else TEST
        songs = [composed(first + k, 60.0) for k in range(options.songs)]
        draw = np.random.default_rng(first)
        pairs = [(a, b) for k, a in enumerate(songs) for b in songs[k + 1 :] if a.metres == b.metres]
        sets = {
            "composer": songs,
            "merges of two songs": [
                merged(*pairs[i], draw) for i in draw.choice(len(pairs), options.songs, replace=False)
            ],
        }
    if options.lossless:
        lossless(options.lossless, options.midi, options.model[0])
    for folder in options.midi if not options.lossless else []:
        files = midi_files(folder)
        sets[f"{folder.name} ({len(files)} files)"] = [labelled_file(file) for file in files]
    for name, songs in sets.items():
        print(f"{name}: {len(songs)} songs, {sum(len(s.notes) for s in songs)} notes")
        for known_drums in (True, False) if any((s.labels == DRUMS).any() for s in songs) else (False,):
            ours = {
                f"{label}, {steps} step(s)": by(model, steps, known_drums)
                for label, model in models.items()
                for steps in options.steps
            }
            told = {
                f"{label}, {options.steps[-1]} steps, told who plays": by(model, options.steps[-1], known_drums, True)
                for label, model in models.items()
            }
            judge(songs, known_drums, {**rules(known_drums), **ours, **told})
    if options.seconds:
        speed(options.seconds, options.model[0])


if __name__ == "__main__":
    main()
