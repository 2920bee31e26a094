"""Samples as Mixture2Music's: a picture of what was made above what was played, both as WAV, and both as MIDI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stemwise.codecs.roll import ONSET, RollLayout, Writing, to_score
from stemwise.songs.synthetic import NOTE, Track
from stemwise.stems import Rolls
from stemwise.symbolic.picture import COLOURS
from stemwise.symbolic.rendering import play

#: As published: 0.18 s a 16th, strings softer than the others, 16 kHz.
STEP_SECONDS = 0.18
RATE = 16_000
_VELOCITY = {"string": 50}


def write_triple(folder: Path, original: Rolls, separated: Rolls, layout: RollLayout) -> str:
    """Write image.png, original.wav, separated.wav, original.mid and separated.mid; returns what played them.

    One window, the first of the batch. Raises ModuleNotFoundError without matplotlib or symusic.
    """
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    draw_bands(folder / "image.png", separated, original)
    sounds = ""
    for name, rolls in (("original", original), ("separated", separated)):
        tempo = 60.0 / (STEP_SECONDS * layout.steps)
        how = Writing(tempo=tempo, velocities={stem: _VELOCITY.get(stem, 80) for stem in layout.stems})
        (folder / f"{name}.mid").write_bytes(to_score(rolls, layout, how).dumps_midi())
        signals, sounds = play(tracks_of(rolls, layout), RATE)
        frames = round((rolls.data.shape[2] * STEP_SECONDS + 1.5) * RATE)
        mix = np.zeros((2, frames), np.float32)
        for signal in signals.values():
            mix[:, : signal.shape[1]] += signal[:, :frames]
        soundfile.write(folder / f"{name}.wav", mix.T / max(1.0, float(np.abs(mix).max())), RATE)
    return sounds


def tracks_of(rolls: Rolls, layout: RollLayout) -> list[Track]:
    """The notes of rolls as tracks to be played, in seconds; stems that are silent are left out."""
    score = to_score(rolls, layout, Writing(tempo=60.0 / (STEP_SECONDS * layout.steps)))
    tracks = []
    for track in score.to("second").tracks:
        notes = track.notes.numpy()
        played = np.zeros(len(track.notes), NOTE)
        played["start"], played["duration"] = notes["time"], np.maximum(notes["duration"], 0.03)
        played["pitch"], played["velocity"] = notes["pitch"], _VELOCITY.get(track.name, 80)
        tracks.append(Track(track.name, track.program, track.is_drum, track.name, played))
    return tracks


def draw_bands(file: Path, above: Rolls, below: Rolls) -> None:
    """A picture of two rolls, one above the other: time downwards, a coloured band of pitches for each stem, bar lines.

    Onsets are darker. Raises ModuleNotFoundError without matplotlib (`pip install 'stemwise[eval]'`).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    for place, (rolls, title) in enumerate(((above, "made"), (below, "original")), 1):
        axes = figure.add_subplot(2, 1, place)
        axes.imshow(bands(rolls), aspect="auto", interpolation="nearest")
        rows = rolls.data.shape[3]
        axes.set(title=title, ylabel="16ths", xticks=[rows * (k + 0.5) for k in range(len(rolls))])
        axes.set_xticklabels(rolls.names)
        for bar in range(4 * rolls.steps, rolls.data.shape[2], 4 * rolls.steps):
            axes.axhline(bar - 0.5, color="0.7", linewidth=0.6)
    figure.savefig(file, dpi=110)


def bands(rolls: Rolls) -> np.ndarray:
    """Colours uint8 (time, stems * pitch, 3) of the first item: white where silent."""
    cells = rolls.data[0]
    picture = torch.full((*cells.shape, 3), 255, dtype=torch.uint8)
    for k, stem in enumerate(cells):
        colour = torch.tensor(list(bytes.fromhex(COLOURS[k % len(COLOURS)][1:])))
        picture[k][stem > 0] = colour.to(torch.uint8)
        picture[k][stem == ONSET] = (colour // 2).to(torch.uint8)
    return picture.transpose(0, 1).flatten(1, 2).numpy()
