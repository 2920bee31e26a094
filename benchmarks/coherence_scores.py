"""Does `score` find the stem that does not belong, and the place where a stem belongs? And how fast is it?

    python benchmarks/coherence_scores.py --songs 12

Foreign stem: one stem of each song is replaced by that of the next song; it should fit least. Shift: one stem of each song
is late by 1/8 s (a quarter of a beat at 120 bpm); the search over shifts (-1/4 to 1/4 s in sixteenths) should name the way back, and should
leave the stem alone where it is in place. Key: one pitched stem is rendered a semitone higher; the best of five transpositions
should be the way back, and none where it is in tune. Songs where fewer than three stems sound are left out and counted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from generation import FIRST_SEED, ROOT, SILENT

from coherence import rendered
from stemwise.coherence.search import Grid
from stemwise.errors import ScoreError
from stemwise.loading import load_coherence
from stemwise.scores import Listening, score_stems, search_offset
from stemwise.songs import folder
from stemwise.songs.synthetic import write_songs
from stemwise.songs.synthetic.write import palette

KEYS = Grid((0.0,), (-2, -1, 0, 1, 2))


def sounding(song) -> dict[str, np.ndarray]:
    """Stems (channel, frames) that are not silent."""
    stems = dict(zip(song.stems, song.read(0, song.frames, tuple(song.stems))))
    return {name: stem for name, stem in stems.items() if np.sqrt(np.mean(stem**2)) > SILENT}


def found_keys(seed: int, songs: Path, fonts: str, how: Listening) -> tuple[bool, bool] | None:
    """Is a stem that is a semitone too high found, is it left alone in tune? None without two pitched stems."""
    low, high = (rendered(songs, seed, semitones, lambda: palette(fonts)) for semitones in (0, 1))
    names = [name for name, stem in low.items() if name != "drums" and np.sqrt(np.mean(stem**2)) > SILENT]
    if len(names) < 2:
        return None
    name = names[seed % len(names)]
    best = [
        search_offset({**low, name: stem}, name, KEYS, rate=16_000, how=how).best.semitones
        for stem in (high[name], low[name])
    ]
    return best[0] == -1, best[1] == 0


LATE = 0.125  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="cocola")
    parser.add_argument("--fonts", choices=["train", "validation", "builtin"], default="validation")
    parser.add_argument("--songs", type=int, default=12)
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "benchmark-songs")
    args = parser.parse_args()
    how = Listening(load_coherence(args.encoder), hop=5)
    where = args.data / f"generation-{args.fonts}"
    for _ in write_songs(where, range(FIRST_SEED, FIRST_SEED + args.songs), fonts=args.fonts, seconds=20):
        pass
    songs = folder(where)[: args.songs]
    shifts = tuple(k * LATE / 2 for k in range(-4, 5))
    found = {"foreign stem": [0, 0], "stem late by 1/8 s": [0, 0], "stem in place": [0, 0]}
    keys = {"stem a semitone too high": [0, 0], "stem in tune": [0, 0]}
    spent, heard, skipped = 0.0, 0.0, 0
    for i, song in enumerate(songs):
        stems, others = sounding(song), sounding(songs[(i + 1) % len(songs)])
        shared = [name for name in stems if name in others]
        if len(stems) < 3 or not shared:
            skipped += 1
            continue
        name = shared[i % len(shared)]
        frames = min(stems[name].shape[1], others[name].shape[1])
        swapped = {**stems, name: others[name][:, :frames]}
        late = {**stems, name: np.roll(stems[name], round(LATE * song.rate), 1)}
        try:
            started = time.process_time()
            odd = score_stems(swapped, rate=song.rate, how=how).odd_one
            spent, heard = spent + time.process_time() - started, heard + song.frames / song.rate * len(stems)
            back = search_offset(late, name, Grid(shifts), rate=song.rate, how=how).best.seconds
            stay = search_offset(stems, name, Grid(shifts), rate=song.rate, how=how).best.seconds
        except ScoreError as error:
            print(error)
            skipped += 1
            continue
        for task, right in zip(found, (odd == name, back == -LATE, stay == 0)):
            found[task][0] += int(right)
            found[task][1] += 1
    for seed in range(FIRST_SEED, FIRST_SEED + args.songs):
        for task, right in zip(keys, found_keys(seed, args.data / f"{args.fonts}-coherence", args.fonts, how) or ()):
            keys[task][0] += int(right)
            keys[task][1] += 1
    print(f"\n{args.encoder}, {args.fonts} fonts, songs of 20 s (keys: 40 s), {skipped} of {len(songs)} left out\n")
    print("| task | right | of |\n|---|--:|--:|")
    for task, (right, count) in (found | keys).items():
        print(f"| {task} | {right} | {count} |")
    print(f"\nscore of a folder: {heard / max(spent, 1e-9):.0f} s of stems in one CPU second")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
