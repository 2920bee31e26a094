"""`make listen`: one page that plays context, result and mix side by side, with mute and solo for every stem.

The page holds its audio and needs nothing else, no server, no network. `python -m stemwise.listen SONG --out DIR` runs
every verb on a song and makes the page; `page` makes one from any output folders.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stemwise.audio_io import Encoding, encoding, read_audio, resample, write_audio
from stemwise.errors import StemwiseError
from stemwise.outputs import read_folder, write_sums

STEMS = ("bass", "drums", "guitar", "piano", "other")


@dataclass(frozen=True)
class Section:
    """One verb's part of the page: what was typed, and files by lane name for what was heard, made, and mixed."""

    title: str
    command: str
    note: str
    context: Mapping[str, Path]
    result: Mapping[str, Path]
    mix: Mapping[str, Path]


def page(sections: Sequence[Section], how: Encoding | None = None) -> str:
    """The HTML of a page that holds the audio of its sections, as MP3 of 160 kbit/s unless `how` says otherwise.

    The lanes of one section share one gain, so that nothing clips and their balance stays. Raises AudioFileError.
    """
    how = how or encoding("mp3", bitrate=160)
    document = json.dumps([_packed(section, how) for section in sections], ensure_ascii=False)
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return template.replace("/*SECTIONS*/", document.replace("<", "\\u003c"))


def _packed(section: Section, how: Encoding) -> dict[str, object]:
    lanes = [
        (group, name, *read_audio(file))
        for group, files in (("context", section.context), ("result", section.result), ("mix", section.mix))
        for name, file in files.items()
    ]
    peak = max((float(np.abs(signal).max()) for _, _, signal, _ in lanes), default=1.0)
    gain = 0.98 / max(peak, 0.98)
    return {
        "title": section.title,
        "command": section.command,
        "note": section.note,
        "lanes": [
            {"group": group, "name": name, "audio": _encoded(signal * np.float32(gain), rate, how)}
            for group, name, signal, rate in lanes
        ],
    }


def _encoded(signal: np.ndarray, rate: int, how: Encoding) -> str:
    if how.extension == "mp3":  # holds no more
        signal = signal if len(signal) <= 2 else np.stack([signal[side::2].mean(0) for side in (0, 1)])
        signal, rate = (resample(signal, rate, 48_000), 48_000) if rate > 48_000 else (signal, rate)
    with tempfile.TemporaryDirectory() as scratch:
        file = write_audio(Path(scratch) / f"lane.{how.extension}", signal, rate, how)
        return base64.b64encode(file.read_bytes()).decode("ascii")


def tour(song: Path, out: Path, model: str, steps: int | None) -> list[Section]:
    """Run every verb on a song, below `out`, and describe what each did. Raises StemwiseError where one fails."""
    out.mkdir(parents=True, exist_ok=True)

    def run(*words: str) -> tuple[str, Path]:
        command = [*words, "--model", model, "--out", str(out / words[0]), "--overwrite", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "stemwise.cli", *command], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise StemwiseError(f"stemwise {' '.join(command)} failed; run it alone to see why")
        return f"stemwise {' '.join(words)}", Path(json.loads(done.stdout)["outcomes"][0]["folder"])

    fast = () if steps is None else ("--steps", str(steps))
    separated, stems = run("separate", str(song))
    accompanied, band = run("accompany", str(stems), "--want", "bass,drums", *fast)
    replaced, other = run("edit", str(stems), "--replace", "guitar", *fast)
    removed, without = run("edit", str(song), "--remove", "drums")
    generated, new = run("generate", "--seconds", "20", "--seed", "7", *fast)
    parts = {name: read_folder(folder, STEMS).stems for name, folder in
             (("stems", stems), ("band", band), ("other", other), ("without", without), ("new", new))}  # fmt: skip
    mix = {"song": song}
    total = write_sums(out / "sum", {"sum": list(parts["stems"].values())}).paths
    given = {name: file for name, file in parts["band"].items() if name not in ("bass", "drums")}
    made = {name: file for name, file in parts["band"].items() if name in ("bass", "drums")}
    return [
        Section("Separate", separated, "The stems sum to the song.", mix, parts["stems"], total),
        Section("Accompany", accompanied, "Bass and drums for the rest of the band.", given, made, _mix(band)),
        Section("Replace", replaced, "The guitar is new.", mix, parts["other"], _mix(other)),
        Section("Remove", removed, "The song without its drums.", mix, parts["without"], _mix(without)),
        Section("Generate", generated, "Stems from nothing but a seed.", {}, parts["new"], _mix(new)),
    ]


def _mix(folder: Path) -> dict[str, Path]:
    mix = read_folder(folder, STEMS).mix
    return {"mix": mix} if mix is not None else {}


def main(
    song: Annotated[Path, typer.Argument(help="A song, 20 seconds or so.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the page and of what the verbs make.")] = Path("listen"),
    model: Annotated[str, typer.Option("--model")] = "band",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="The model's own.", show_default=False)] = None,
) -> None:
    """Run every verb on a song and write OUT/index.html, which plays the results."""
    try:
        target = out / "index.html"
        target.write_text(page(tour(song, out, model, steps)), encoding="utf-8")
    except StemwiseError as error:
        print(f"stemwise: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"open {target} in a browser ({target.stat().st_size / 1e6:.0f} MB, nothing else is needed)")


if __name__ == "__main__":
    typer.run(main)
