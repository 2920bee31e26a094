"""Compare separated stems with the true ones: `python examples/demo.py SEPARATED TRUE_STEMS MIX`.

Prints the SI-SDR of every stem, and by how much it exceeds that of the mixture taken for the stem.
"""

from __future__ import annotations

import sys
from pathlib import Path

from stemwise.audio_io import read_audio
from stemwise.metrics.separation import si_sdr, si_sdr_improvement
from stemwise.outputs import read_folder


def main(separated: Path, truth: Path, mix: Path) -> None:
    """Print a table with a line for each stem that sounds in the song."""
    mixture, _ = read_audio(mix)
    found = read_folder(separated, [file.stem for file in truth.iterdir()])
    improvements = []
    print("stem      SI-SDR   improvement over the mixture")
    for name, file in found.stems.items():
        reference_file = truth / f"{name}.flac"
        if not reference_file.is_file():
            continue
        estimate, reference = read_audio(file)[0], read_audio(reference_file)[0]
        if not reference.any():
            continue
        improvements.append(si_sdr_improvement(estimate, reference, mixture))
        print(f"{name:<8} {si_sdr(estimate, reference):6.1f} dB   {improvements[-1]:+6.1f} dB")
    print(f"mean              {sum(improvements) / len(improvements):+6.1f} dB")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*(Path(argument) for argument in sys.argv[1:]))
