"""Songs as folders: stems, MIDI and a description, each written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import soundfile

from stemwise.audio_io.folders import hidden_sibling, left_behind
from stemwise.errors import ModelError, SongError
from stemwise.extras import needed
from stemwise.files import read_json, write_atomically
from stemwise.songs.synthetic.compose import COMPOSER, compose
from stemwise.songs.synthetic.fonts import fonts as installed
from stemwise.songs.synthetic.piece import Piece
from stemwise.songs.synthetic.render import (
    Palette,
    Rendered,
    built_in_palette,
    render,
    single_palette,
    training_palette,
)

if TYPE_CHECKING:
    import symusic

Sounds = Literal["train", "validation", "test", "builtin"]
#: Ticks to the quarter note in the MIDI files.
TICKS = 480
#: How many seconds before the end of a song its last note may end.
_SHORT = 2.0


def palette(sounds: Sounds, *, log: Callable[[str], None] | None = None) -> Palette:
    """The palette of a use; SongError where its fonts are not installed. `log` hears of every look at the test set."""
    if sounds == "builtin":
        return built_in_palette()
    found = installed(sounds, log=log)
    return training_palette(found) if sounds == "train" else single_palette(found)


def write_songs(
    out: str | Path,
    seeds: Iterable[int],
    *,
    fonts: Sounds,
    rate: int = 44100,
    seconds: float = 45.0,
    subtype: str = "PCM_16",
    keys: int = 1,
    log: Callable[[str], None] | None = None,
) -> Iterator[Path]:
    """Compose, render and write one folder `song-<seed>` for each seed, yielding its path; finished ones are skipped.

    With `keys` above 1 every composition is rendered in so many keys by the same sounds, each a song of its own,
    `song-<seed><+semitones>`, which `song.json` calls a version of one `work`: `stemwise.songs.pairs` makes use of it.
    A folder holds `<stem>.wav` for every stem that sounds, `song.mid` and `song.json`. It is written beside its place
    and renamed when complete, so a run may be stopped at any moment and started again. `log` hears of a look at the test
    set where a song is rendered. Raises SongError where the fonts are needed and not installed, or a folder holds
    something else or a song of other fonts, another rate or length; OSError where the folder cannot be written.
    """
    sounds = None
    root = Path(out)
    root.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        work = f"song-{seed:06d}"
        for moved in (0,) if keys == 1 else key_shifts(seed, keys):
            folder = root / (work if keys == 1 else f"{work}{moved:+d}")
            if (folder / "song.json").is_file():
                _check_same(folder, fonts, rate, seconds)
            else:
                if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
                    raise SongError(
                        f"{folder}: is there, but is not a song of the composer. Move it, or write elsewhere."
                    )
                if sounds is None:
                    sounds = palette(fonts, log=log)
                    if not _palettes(root) <= {sounds.digest}:
                        raise SongError(
                            f"{root}: its songs were made with other {fonts} fonts than are installed here; install the same, "
                            "or give another folder"
                        )
                piece = compose(seed, seconds=seconds).transposed(moved)
                about = {} if keys == 1 else {"work": work, "transposed": moved, "unpitched": ["drums"]}
                _write(
                    folder,
                    piece,
                    render(piece, sounds, rate=rate),
                    {"fonts": fonts, "palette": sounds.digest, **about},
                    subtype,
                )
            yield folder


def key_shifts(seed: int, keys: int) -> list[int]:
    """So many distinct shifts in semitones from -3 to 3, so that any two are 1 to 6 apart."""
    draw = np.random.default_rng((seed, 12))
    return sorted(int(shift) for shift in draw.choice(range(-3, 4), keys, replace=False))


def write_midi_songs(out: str | Path, seeds: Iterable[int], *, seconds: float = 45.0) -> Iterator[Path]:
    """Compose and write one MIDI file `song-<seed>.mid` for each seed, without sound, yielding its path; finished ones
    are skipped. About 60 ms a song of a minute. Raises SongError where a file is of another length, ModelError without
    symusic, OSError where one cannot be written.
    """
    root = Path(out)
    root.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        file = root / f"song-{seed:06d}.mid"
        if file.is_file():
            _check_length(file, seconds)
        else:
            write_atomically(file, score_of(compose(seed, seconds=seconds)).dumps_midi())
        yield file


def _palettes(root: Path) -> set[str]:
    """What the songs of a folder say their fonts were."""
    found = set()
    for file in root.glob("song-*/song.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # said when its turn comes
            found.add(read_json(file).get("palette"))
    return found - {None}


def _check_same(folder: Path, fonts: Sounds, rate: int, seconds: float) -> None:
    """Raise SongError where the song of a folder was not made by this composer with these fonts, at this rate, of this length."""
    try:
        about = read_json(folder / "song.json")
        made = (about["fonts"], about["rate"], about["frames"], about.get("composer", COMPOSER))
        length = made[2] / made[1]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise SongError(
            f"{folder / 'song.json'}: not readable ({error!r}); delete the folder to make it again"
        ) from error
    differing = [
        text
        for text, same in (
            (f"{made[0]} fonts", made[0] == fonts),
            (f"{made[1]} Hz", made[1] == rate),
            (f"{length:g} s", made[2] == round(seconds * made[1])),
            (f"composer {made[3]}, which is {COMPOSER} now", made[3] == COMPOSER),
        )
        if not same
    ]
    if differing:
        raise SongError(f"{folder}: made with {', '.join(differing)}; give another folder, or --first")


def _check_length(file: Path, seconds: float) -> None:
    """Raise SongError where a MIDI file, whose last notes end with the song, was not made so long."""
    symusic = needed("symusic", "midi")
    try:
        length = symusic.Score(str(file)).to("second").end()
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise SongError(f"{file}: cannot be read as MIDI ({error}); delete it to make it again") from error
    if abs(length - seconds) > _SHORT:
        raise SongError(f"{file}: made with {length:.0f} s; give another folder, or --first")


def _write(folder: Path, piece: Piece, song: Rendered, about: Mapping[str, object], subtype: str) -> None:
    partial = hidden_sibling(folder, "partial")
    for left in left_behind(partial):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        for stem, audio in song.stems.items():
            wav = io.BytesIO()  # written by Python, which says what went wrong where the disk is full
            soundfile.write(wav, audio.T, song.rate, subtype, format="WAV")
            (partial / f"{stem}.wav").write_bytes(wav.getbuffer())
        write_midi(piece, partial / "song.mid")
        text = json.dumps({**describe(piece, song), **about}, indent=1)
        (partial / "song.json").write_text(text + "\n", encoding="utf-8")
        if not (folder / "song.json").is_file():  # else another process was faster
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def describe(piece: Piece, song: Rendered) -> dict[str, object]:
    """What `song.json` says of a song, beside its `fonts`."""
    frames = round(piece.seconds * song.rate)
    return {
        "format": 1,
        "composer": COMPOSER,
        "seed": piece.seed,
        "style": piece.style,
        "key": piece.key,
        "mode": piece.mode,
        "meter": list(piece.meter),
        "tempo": round(piece.tempo, 3),
        "swing": round(piece.swing, 3),
        "bars": piece.bars,
        "sections": [
            {"name": s.name, "bar": s.first_bar, "bars": s.bars, "start": round(s.start, 4), "playing": list(s.playing)}
            for s in piece.sections
        ],
        "stems": list(song.stems),
        "programs": {s: [t.program for t in piece.tracks if t.stem == s] for s in song.stems},
        "roles": {s: [t.role for t in piece.tracks if t.stem == s] for s in song.stems},
        "sounds": {s: list(names) for s, names in song.sounds.items()},
        "levels": {s: round(float(20 * np.log10(np.sqrt(np.mean(a**2)) + 1e-9)), 2) for s, a in song.stems.items()},
        "rate": song.rate,
        "frames": frames,
    }


def ticks(piece: Piece, seconds: np.ndarray) -> np.ndarray:
    """Times of a piece in ticks, `TICKS` to the quarter note, by the tempo of each section; int32."""
    edges = np.array([s.start for s in piece.sections])
    tempi = np.array([s.bpm for s in piece.sections])
    starts = np.concatenate([[0.0], np.cumsum(np.diff(edges) * tempi[:-1] / 60)]) * TICKS
    index = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, None)
    found: np.ndarray = np.round(starts[index] + (seconds - edges[index]) * tempi[index] * (TICKS / 60))
    return found.astype(np.int32)


def score_of(piece: Piece) -> symusic.Score:
    """Multi-track MIDI whose track names are stem names; tempo and metre at each section. Raises ModelError without symusic."""
    symusic = needed("symusic", "midi")

    score = symusic.Score(TICKS)
    for section in piece.sections:
        score.tempos.append(symusic.Tempo(int(ticks(piece, np.array(section.start))), float(section.bpm)))
    score.time_signatures.append(symusic.TimeSignature(0, *piece.meter))
    for track in piece.tracks:
        one = symusic.Track(track.stem, track.program, track.is_drum)
        start = ticks(piece, track.notes["start"])
        stop = ticks(piece, track.notes["start"] + track.notes["duration"])
        one.notes = symusic.Note.from_numpy(
            start,
            np.maximum(stop - start, 1).astype(np.int32),
            track.notes["pitch"].astype(np.int8),
            track.notes["velocity"].astype(np.int8),
        )
        score.tracks.append(one)
    return score


def write_midi(piece: Piece, path: Path) -> None:
    """Write `score_of` a piece; nothing without the `midi` extra, for the built-in synthesiser works without it."""
    with contextlib.suppress(ModelError):
        path.write_bytes(score_of(piece).dumps_midi())  # symusic's own writing passes over a full disk
