"""`stemwise songs pack`: a data set as tar shards, made by one machine or by several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Code, Voice, complain


def pack(
    source: Annotated[Path, typer.Argument(help="A data set, in any layout that `stemwise songs verify` knows.")],
    out: Annotated[Path, typer.Argument(help="The folder for the shards; train on it as on the data set.")],
    part: Annotated[str, typer.Option("--shard", help="I/N: the part of machine I of N, from 1/N to N/N.")] = "1/1",
    megabytes: Annotated[int, typer.Option("--shard-size", min=1, help="Megabytes of source files a shard.")] = 1000,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Pack songs into WebDataset shards (FLAC and JSON in tar files) that give the same windows.

    Run it again after an interruption: finished shards stay. Exit code 1 if a song had to be left out.
    """
    from stemwise.songs import layouts
    from stemwise.songs.packing import pack as write
    from stemwise.songs.scanning import describe, usable

    voice = Voice(quiet, as_json=as_json)
    o.check_apart(source, out)
    found = layouts.scan_any(source)
    songs = usable(source, found) if not found.songs else list(found.songs)
    if found.problems:
        complain(describe(source, found.problems))
    shards = []
    for shard in write(songs, out, megabytes=megabytes, part=o.part_of(part), unreadable=found.problems):
        shards.append(shard)
        did = "written" if shard.written else "is there"
        voice.say(f"shard {shard.number}: {did}, {shard.songs} songs, {shard.bytes / 1e6:.1f} MB")
        for problem in shard.left_out:
            if problem in found.problems:
                continue
            complain(f"left out: {problem.name}: {problem.reason}")
    left_out = list(dict.fromkeys([*found.problems, *(problem for shard in shards for problem in shard.left_out)]))
    packed = sum(shard.songs for shard in shards)
    voice.say(f"{out}: {packed} songs in {len(shards)} shards, {len(left_out)} left out")
    code = Code.FAILED if left_out else Code.OK
    voice.hand_over(
        "songs pack",
        {
            "out": str(out),
            "songs": packed,
            "shards": [{"number": s.number, "written": s.written, "songs": s.songs, "bytes": s.bytes} for s in shards],
            "left_out": [{"song": problem.name, "reason": problem.reason} for problem in left_out],
        },
        code,
    )
    raise typer.Exit(code)
