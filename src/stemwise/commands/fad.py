"""`stemwise fad`: how far two sets of songs are apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemwise.commands import options as o
from stemwise.commands.console import Voice
from stemwise.errors import AudioFileError, MetricError, QueryError

if TYPE_CHECKING:
    from stemwise.embeddings import FrameCache
    from stemwise.embeddings.embedding import Floats32
    from stemwise.metrics.frechet import Gaussian

STATISTICS = ".npz"
_SIDE = "A folder of audio files (folders in it are not looked into), one audio file, or statistics (.npz)."


def fad(
    reference: Annotated[Path, typer.Argument(help=f"{_SIDE}")],
    generated: Annotated[Path, typer.Argument(help=f"{_SIDE}")],
    embedding: Annotated[
        str, typer.Option("--embedding", help="cocola, vggish, clap-laion-audio, encodec-emb, ...")
    ] = "cocola",
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder with the embedding's weights.", show_default=False)
    ] = None,
    infinity: Annotated[bool, typer.Option("--infinity", help="Also extrapolate to infinitely many frames.")] = False,
    smallest: Annotated[
        int | None,
        typer.Option("--smallest", min=2, help="Smallest number of frames for that; 500.", show_default=False),
    ] = None,
    per_song: Annotated[bool, typer.Option("--per-song", help="Also every generated song for itself.")] = False,
    save_statistics: Annotated[
        Path | None,
        typer.Option("--save-statistics", help="Write the reference's statistics (.npz).", show_default=False),
    ] = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Fréchet audio distance of generated songs to reference songs: 0 for equal statistics, the larger the farther.

    Compare distances of one embedding and of one number of frames only. The interval is a bootstrap over songs. Embeddings
    are kept in the user's cache folder ($STEMWISE_CACHE).
    """
    from stemwise.embeddings import FrameCache, cache_folder, load_embedding
    from stemwise.metrics import frechet

    for side in (reference, generated):
        _check_side(side)
    if smallest is not None and not infinity:
        raise QueryError("--smallest is for --infinity")
    if _is_statistics(generated) and (infinity or per_song):
        raise QueryError("--infinity and --per-song need generated audio, not statistics of it")
    if save_statistics is not None and (_is_statistics(reference) or not _is_statistics(save_statistics)):
        raise QueryError(f"--save-statistics writes an {STATISTICS} file of reference audio; give both as such")
    network = load_embedding(embedding, model, device)
    voice = Voice(quiet, as_json=as_json)
    cache = FrameCache(network, cache_folder())
    real, frames_of_reference = _reference(reference, cache, save_statistics)
    document: dict[str, Any] = {
        "metric": "fad", "embedding": network.name, "version": network.version,
        "dimensions": network.dimensions, "reference": reference.name, "generated": generated.name,
        "reference_frames": frames_of_reference, "seed": seed,
    }  # fmt: skip
    if _is_statistics(generated):
        from stemwise.embeddings import read_statistics

        document["fad"] = frechet.frechet_distance(real, read_statistics(generated, network))
        voice.say(f"FAD {document['fad']:.4f} ({network.name}; statistics say nothing about its uncertainty)")
    else:
        songs = _frames(generated, cache)
        try:
            document |= _distances(real, songs, seed)
        except MetricError as error:
            raise MetricError(f"{generated}: {error}") from error
        interval = "" if document["interval"] is None else " [{:.4f}, {:.4f}]".format(*document["interval"])
        voice.say(
            f"FAD {document['fad']:.4f}{interval} ({network.name}; {document['songs']} songs, "
            f"{document['generated_frames']} frames)"
        )
        if document["generated_frames"] <= network.dimensions:
            voice.say(
                f"  fewer frames than the {network.dimensions} dimensions: compare only with distances of as many frames, and not "
                "with 0"
            )
        _extra(document, voice, real, songs, (smallest or 500) if infinity else None, per_song, seed)
    voice.hand_over("fad", document)


def _distances(real: Gaussian, songs: dict[str, Floats32], seed: int) -> dict[str, Any]:
    from stemwise.metrics.frechet import frechet_interval

    found = frechet_interval(real, list(songs.values()), seed=seed)
    frames = sum(map(len, songs.values()))
    return {
        "fad": found.mean, "interval": [found.low, found.high] if found.count > 1 else None, "level": found.level,
        "songs": found.count,
        "generated_frames": frames,
    }  # fmt: skip


def _extra(
    document: dict[str, Any], voice: Voice, real: Gaussian, songs: dict[str, Floats32], smallest: int | None,
    per_song: bool, seed: int,
) -> None:  # fmt: skip
    """The extrapolation and the songs' own distances, where they are asked for."""
    import numpy as np

    from stemwise.metrics import frechet

    if smallest is not None:
        found = frechet.frechet_infinity(real, np.concatenate(list(songs.values())), seed=seed, smallest=smallest)
        document["infinity"] = {"fad": found.value, "slope": found.slope, "r2": found.r2, "sizes": found.sizes,
                                "distances": found.distances}  # fmt: skip
        voice.say(f"FAD∞ {found.value:.4f} (slope {found.slope:.4g} per 1/n, R² {found.r2:.3f})")
    if per_song:
        distances = frechet.per_song(real, songs)
        document["per_song"] = distances
        width = max(map(len, distances))
        for name, distance in sorted(distances.items(), key=lambda entry: entry[1]):
            voice.say(f"{name:<{width}}  {distance:.4f}")


def _reference(side: Path, cache: FrameCache, keep: Path | None) -> tuple[Gaussian, int | None]:
    """The reference's Gaussian and, where it is audio, its number of frames; statistics are written to `keep`."""
    import numpy as np

    from stemwise.embeddings import read_statistics, write_statistics
    from stemwise.metrics.frechet import Gaussian
    from stemwise.metrics.moments import Moments

    if _is_statistics(side):
        return read_statistics(side, cache.embedding), None
    frames = np.concatenate(list(_frames(side, cache).values()))
    try:
        gaussian = Gaussian.of(frames)
    except MetricError as error:
        raise MetricError(f"{side}: {error}") from error
    if keep is not None:
        write_statistics(keep, cache.embedding, Moments.of(frames))
    return gaussian, len(frames)


def _frames(side: Path, cache: FrameCache) -> dict[str, Floats32]:
    from stemwise.audio_io import AUDIO_SUFFIXES

    files = [side]
    if side.is_dir():
        files = sorted(f for f in side.iterdir() if f.suffix.lower() in AUDIO_SUFFIXES and not f.name.startswith("."))
    if not files:
        raise AudioFileError(
            f"{side}: no audio files in this folder. Folders in it are not looked into; give the one that holds the songs."
        )
    return {file.name: cache.frames(file) for file in files}


def _check_side(side: Path) -> None:
    if not side.exists():
        raise AudioFileError(f"{side}: no such file or folder. Check the path.")


def _is_statistics(side: Path) -> bool:
    return side.suffix.lower() == STATISTICS and not side.is_dir()
