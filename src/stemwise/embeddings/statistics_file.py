"""Statistics of embedding frames on disk: `.npz` files that fadtk reads and writes, too.

{name}.mu (d,), {name}.cov (d, d)            what fadtk knows
{name}.count (), {name}.version ()           ours: number of frames; weights and preparation
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from stemwise.embeddings.embedding import Embedding
from stemwise.errors import MetricError
from stemwise.files import write_atomically
from stemwise.metrics.frechet import Gaussian
from stemwise.metrics.moments import Moments

_PLAIN = (("mu", "cov"), ("mu", "sigma"))


def write_statistics(file: Path, embedding: Embedding, moments: Moments) -> Path:
    """Write the statistics of frames that `embedding` made, atomically; float64.

    Raises MetricError for a single frame, or where the file cannot be written.
    """
    name, buffer = embedding.name, io.BytesIO()
    entries: dict[str, Any] = {
        f"{name}.mu": moments.mean,
        f"{name}.cov": moments.covariance,
        f"{name}.count": moments.count,
        f"{name}.version": embedding.version,
    }
    np.savez(buffer, **entries)
    try:
        write_atomically(file, buffer.getvalue())
    except OSError as error:
        raise MetricError(f"{file}: cannot be written ({error.strerror}). Choose another place") from error
    return file


def read_statistics(file: Path, embedding: Embedding) -> Gaussian:
    """The Gaussian in a statistics file of this embedding, written here or by fadtk.

    A file that names its embeddings must name this one; a file with plain `mu` and `cov` (or `sigma`) is taken by its
    dimensions. One of ours must also be of the same weights and preparation.

    Raises:
        MetricError: not a statistics file, of another embedding or version, or of other dimensions.
    """
    entries = _entries(file)
    name = embedding.name
    named = sorted(key.removesuffix(".mu") for key in entries if key.endswith(".mu"))
    if name in named:
        mean, covariance = entries[f"{name}.mu"], entries.get(f"{name}.cov")
    elif named:
        raise MetricError(f"{file}: statistics of {', '.join(named)}, not of {name}; choose --embedding {named[0]}")
    else:
        pair = next((pair for pair in _PLAIN if set(pair) <= set(entries)), None)
        if pair is None:
            raise MetricError(
                f"{file}: holds {', '.join(entries) or 'nothing'}, not the statistics {name}.mu and {name}.cov"
            )
        mean, covariance = (entries[key] for key in pair)
    version = str(entries.get(f"{name}.version", embedding.version))
    if version != embedding.version:
        raise MetricError(
            f"{file}: statistics of {name} with other weights or another preparation ({version}; now "
            f"{embedding.version}); make them again from the audio"
        )
    if covariance is None or np.shape(mean) != (embedding.dimensions,):
        raise MetricError(
            f"{file}: statistics of {np.shape(mean)} do not fit {name}, which has {embedding.dimensions} dimensions"
        )
    try:
        gaussian = Gaussian.from_covariance(mean, covariance)
        _ = gaussian.root  # a matrix that is no covariance is found here, where its file is known
        return gaussian
    except MetricError as error:
        raise MetricError(f"{file}: {error}") from error


def _entries(file: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise MetricError(f"{file}: a single array; statistics are an .npz with a mean and a covariance")
        with archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MetricError(f"{file}: not readable as statistics (.npz) ({error}); make it again") from error
