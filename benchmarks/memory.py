"""Peak memory of separating a long file against a short one, each in a process of its own.

    python benchmarks/memory.py               # a stand-in for the network: the rest of the path
    python benchmarks/memory.py --model band  # the whole command, stemwise separate
    python benchmarks/memory.py --minutes 3 60  # the defaults; the second may exceed the first by 15 %

Stereo, 44.1 kHz, 16-bit WAV in, float WAV out: a 60-minute run needs about 7 GB of disk for a while (--folder says
where). Prints the figures and exits with 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR = 1.15
RATE = 44_100

# The parent imports nothing heavy: a child's peak can never be below its parent's size at the fork.
MAKE_SONG = """
import sys
import numpy as np
import soundfile
path, seconds, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
with soundfile.SoundFile(path, "w", rate, 2, "PCM_16") as file:
    for _ in range(seconds):
        file.write(0.2 * rng.standard_normal((rate, 2)))
"""

STAND_IN = """
import sys
import torch
from stemwise.audio_io import StemWriter, open_audio, output_folder
from stemwise.longform import Split, Windowing, separate_to_files
torch.set_num_threads(1)
stems = ("bass", "drums", "guitar", "piano", "other")
share = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.3])[:, None, None]
with open_audio(sys.argv[1]) as source, output_folder(sys.argv[2]) as folder:
    writer = StemWriter(folder, stems, source.rate, source.channels, frames=source.frames)
    windowing = Windowing(rate=32_000, window=6 * 32_000, batch=2)
    report = separate_to_files(source, lambda x, _: Split(share * x[:, None]), writer, windowing)
print(f"    null test {report.null_dbfs:.0f} dBFS, {report.windows} windows")
"""


def command(model: str, song: Path, out: Path) -> list[str]:
    if model == "stand-in":
        return [sys.executable, "-c", STAND_IN, str(song), str(out)]
    return [sys.executable, "-m", "stemwise.cli", "separate", str(song), "-n", model, "-o", str(out)]


def measure(arguments: list[str]) -> tuple[float, float]:
    """Peak resident memory in MB and seconds of a command."""
    started = time.monotonic()
    process = subprocess.Popen(arguments)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed with {process.returncode}: {' '.join(arguments[-4:])}")
    per_megabyte = 1024 if sys.platform.startswith("linux") else 1024 * 1024
    return usage.ru_maxrss / per_megabyte, time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stand-in", help="stand-in (the default) or a model's name or folder")
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[3, 60], help="lengths; all are held against the first"
    )
    parser.add_argument("--folder", type=Path, help="where to put the temporary files")
    options = parser.parse_args()
    peaks = []
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            song = Path(folder) / "song.wav"
            subprocess.run([sys.executable, "-c", MAKE_SONG, str(song), str(int(60 * minutes)), str(RATE)], check=True)
            peak, seconds = measure(command(options.model, song, Path(folder) / "out"))
        peaks.append(peak)
        speed = 60 * minutes / seconds
        print(
            f"{options.model}: {minutes:g} min: peak {peak:.0f} MB, {seconds:.1f} s ({speed:.1f} x real time)",
            flush=True,
        )
    ratio = max(peaks) / peaks[0]
    passed = ratio <= BAR
    print(f"largest over first: {ratio:.3f} (bar {BAR}): {'passed' if passed else 'MISSED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
