"""Every embedding by name, and where its weights come from. Nothing is downloaded here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemwise.embeddings.embedding import NetworkEmbedding
from stemwise.errors import ModelError, QueryError, did_you_mean
from stemwise.nets.stored import of_transformers


@dataclass(frozen=True)
class Entry:
    """An embedding that can be asked for.

    Attributes:
        summary: what it is, for people.
        source: where its weights are by default: a bundled model's name, a repository of the Hugging Face hub (looked
            up in its cache), or "" where a folder must be given.
        open: from name, source or folder, and device to the embedding.
    """

    summary: str
    source: str
    open: Callable[[str, str, str], NetworkEmbedding]


def check_embedding(name: str) -> None:
    """Raise QueryError, with the names there are, for an embedding that there is not."""
    if name not in EMBEDDINGS:
        hint = did_you_mean(name, EMBEDDINGS, 0.7)
        raise QueryError(f"no embedding named {name!r}{hint}; there are: {', '.join(EMBEDDINGS)}")


def load_embedding(name: str = "cocola", model: str | Path | None = None, device: str = "auto") -> NetworkEmbedding:
    """An embedding of the table, with its own weights or those in a folder.

    Args:
        name: see `EMBEDDINGS`.
        model: a model folder as `stemwise convert` writes it (vggish, cocola), or a folder with transformers' files
            (clap, encodec); by default the table's.
        device: auto, cpu, cuda or mps.

    Raises:
        QueryError: an unknown name.
        ModelError: no weights, or weights that do not fit; the message says how to get them.
    """
    check_embedding(name)
    entry = EMBEDDINGS[name]
    return entry.open(name, str(model or entry.source), device)


def _cocola(name: str, source: str, device: str) -> NetworkEmbedding:
    from stemwise.embeddings.networks import cocola
    from stemwise.loading import load_coherence

    return cocola(name, load_coherence(source, device))


def _vggish(name: str, source: str, device: str) -> NetworkEmbedding:
    from stemwise.checkpoint import load_model
    from stemwise.embeddings.networks import vggish
    from stemwise.loading import pick_device
    from stemwise.nets.vggish import Vggish

    if not source:
        raise ModelError(
            "the embedding vggish needs its published weights: get vggish-10086976.pth (release v0.1 of torchvggish by "
            "harritaylor), run `stemwise convert vggish vggish-10086976.pth --out vggish`, and give that folder with "
            "--model vggish"
        )
    network = load_model(source)
    if not isinstance(network, Vggish):
        raise ModelError(
            f"{source}: a {type(network).__name__} is no VGGish; convert one with `stemwise convert vggish`"
        )
    return vggish(name, network.to(pick_device(device)).eval())


def _clap(name: str, source: str, device: str) -> NetworkEmbedding:
    from stemwise.embeddings.networks import clap

    return clap(name, _of_transformers("ClapModel", source, device))


def _encodec(name: str, source: str, device: str) -> NetworkEmbedding:
    from stemwise.embeddings.networks import encodec

    return encodec(name, _of_transformers("EncodecModel", source, device))


def _of_transformers(kind: str, source: str, device: str) -> Any:
    from stemwise.loading import pick_device

    return of_transformers(kind, source).to(pick_device(device)).eval()


#: The closed table. Names that fadtk uses, too, mean the same weights as there.
EMBEDDINGS: Mapping[str, Entry] = {
    "cocola": Entry("COCOLA's encoder, 640 dimensions, bundled: works offline at once", "cocola", _cocola),
    "vggish": Entry("VGGish without PCA, 128 dimensions: most published FAD", "", _vggish),
    "clap-laion-audio": Entry("LAION CLAP, 512 dimensions, general audio", "laion/clap-htsat-unfused", _clap),
    "clap-larger-music": Entry(
        "LAION CLAP, 512 dimensions, music; not known to be fadtk's clap-laion-music", "laion/larger_clap_music", _clap
    ),
    "encodec-emb": Entry("EnCodec at 24 kHz, 128 dimensions, 75 frames a second", "facebook/encodec_24khz", _encodec),
    "encodec-emb-48k": Entry("EnCodec at 48 kHz, 128 dimensions", "facebook/encodec_48khz", _encodec),
}
