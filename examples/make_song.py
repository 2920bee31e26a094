"""Make the song that ships in examples/song: `python examples/make_song.py [SEED]` (needs the training sound fonts).

A synthetic song of a seed that no training uses, 20 seconds from its middle, as 16-bit FLAC; the mix is the exact sum.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from stemwise.audio_io import encoding, read_audio, write_audio
from stemwise.songs.synthetic.write import write_songs

SECONDS, LENGTH = 45.0, 20.0
STEMS = ("bass", "drums", "guitar", "piano", "other")


def main(seed: int) -> None:
    """Write mix.flac and stems/*.flac; a stem that does not play is silent."""
    folder = Path(__file__).parent / "song"
    flac = encoding("flac", 16)
    with tempfile.TemporaryDirectory() as scratch:
        song = next(iter(write_songs(scratch, [seed], fonts="train", seconds=SECONDS)))
        files = {stem: song / f"{stem}.wav" for stem in STEMS}
        read = {stem: read_audio(file) for stem, file in files.items() if file.is_file()}
    rate = next(iter(read.values()))[1]
    start, length = round((SECONDS - LENGTH) / 2 * rate), round(LENGTH * rate)
    cuts = {stem: signal[:, start : start + length] for stem, (signal, _) in read.items()}
    gain = min(1.0, 0.9 / float(np.abs(sum(cuts.values())).max()))
    # rounded to 16 bits before the sum, so that the files sum exactly
    whole = {stem: np.round(signal * gain * 32768) / 32768 for stem, signal in cuts.items()}
    silence = np.zeros_like(next(iter(whole.values())))
    shutil.rmtree(folder, ignore_errors=True)
    for stem in STEMS:
        write_audio(folder / "stems" / f"{stem}.flac", whole.get(stem, silence), rate, flac)
    write_audio(folder / "mix.flac", np.sum(list(whole.values()), axis=0), rate, flac)
    total = sum(file.stat().st_size for file in folder.rglob("*.flac"))
    print(
        f"{folder}: {', '.join(read)}; {total / 1e6:.1f} MB, {soundfile.info(str(folder / 'mix.flac')).duration:.1f} s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 970_005)
