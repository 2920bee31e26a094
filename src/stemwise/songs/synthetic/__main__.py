"""`python -m stemwise.songs.synthetic OUT --seeds 0:1000 --fonts train`: write synthetic songs as folders."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from stemwise.errors import StemwiseError
from stemwise.songs.synthetic.write import write_songs


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last) if last else int(first) + 1)


def main() -> int:
    """Write the songs, one line each; exit code 1 with a message where fonts are missing."""
    parser = argparse.ArgumentParser(prog="python -m stemwise.songs.synthetic", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=_seeds, default=range(100), help="FIRST:LAST, the last one excluded")
    parser.add_argument("--fonts", choices=("train", "validation", "test", "builtin"), default="train")
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--rate", type=int, default=44100)
    parser.add_argument("--log", type=Path, help="file that gets a line for every look at the test fonts")
    options = parser.parse_args()

    def log(line: str) -> None:
        if options.log is not None:
            with options.log.open("a", encoding="utf-8") as file:
                file.write(f"- {time.strftime('%Y-%m-%d %H:%M')} {line}\n")

    begin = time.monotonic()
    try:
        songs = write_songs(
            options.out, options.seeds, fonts=options.fonts, rate=options.rate, seconds=options.seconds, log=log
        )
        for count, folder in enumerate(songs, 1):
            print(f"{folder} ({count}/{len(options.seeds)}, {time.monotonic() - begin:.0f} s)", flush=True)
    except StemwiseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
