"""Fréchet distances against the usual routes through scipy's matrix square root: one thread, one run, medians.

    python benchmarks/frechet.py                  # 512 dimensions, 3000 frames a side, songs of 20 frames
    python benchmarks/frechet.py --repeats 9

Baselines: tr sqrtm(C_x C_y) by scipy alone, and the published function of fadtk 1.1.0, which takes that root, then takes the
same one from a full eigendecomposition and an inverse, and compares the two. Seconds are CPU seconds of the one thread, so
that a busy machine changes little. Prints a Markdown table and exits with 1 where a bar is missed: 10 times faster than the
root alone for the statistics of two sets, 100 times for a song. From frames there is no bar: all routes compute the same two
covariances first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import scipy
from scipy.linalg import eig, inv, sqrtm
from threadpoolctl import threadpool_limits

from stemwise.metrics.frechet import Gaussian, frechet_distance

SETS, SONG = 10.0, 100.0


Statistics = tuple[np.ndarray, np.ndarray]


def by_root(x: Statistics, y: Statistics) -> float:
    """What every toolkit computes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of singular matrices, which a song's covariance always is
        root = np.trace(sqrtm(x[1] @ y[1])).real
    return finish(x, y, root)


def by_fadtk(x: Statistics, y: Statistics) -> float:
    """The operations of fadtk's function: the root, and again by eigenvectors and their inverse."""
    by_root(x, y)
    product = x[1] @ y[1]
    values, vectors = eig(product)
    with np.errstate(invalid="ignore"):
        root = np.trace((vectors * np.emath.sqrt(values)) @ inv(vectors)).real
    return finish(x, y, root)


def finish(x: Statistics, y: Statistics, root: float) -> float:
    shift = x[0] - y[0]
    return float(shift @ shift + np.trace(x[1]) + np.trace(y[1]) - 2 * root)


def statistics_of(frames: np.ndarray) -> Statistics:
    return frames.mean(0), np.cov(frames, rowvar=False)


def median_seconds(function: Callable[[], float], repeats: int) -> tuple[float, float]:
    times, value = [], 0.0
    for _ in range(repeats):
        started = time.process_time()
        value = function()
        times.append(time.process_time() - started)
    return statistics.median(times), value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--song", type=int, default=20, help="frames of a song")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    d = args.dimensions
    # spectra that fall off, as those of embeddings do
    spread = np.diag(np.arange(1, d + 1) ** -0.5) @ np.linalg.qr(random.standard_normal((d, d)))[0]
    x, y = (random.standard_normal((args.frames, d)) @ spread + shift for shift in (0.0, 0.01))
    song = y[: args.song]
    known, other = statistics_of(x), statistics_of(y)
    reference = Gaussian.of(x)
    cases = [
        ("sets, from frames", lambda route: route(statistics_of(x), statistics_of(y)),
         lambda: frechet_distance(Gaussian.of(x), Gaussian.of(y)), 0.0),
        ("sets, from statistics", lambda route: route(known, other),
         lambda: frechet_distance(Gaussian.from_covariance(*known), Gaussian.from_covariance(*other)), SETS),
        (f"song of {args.song} frames, reference kept", lambda route: route(known, statistics_of(song)),
         lambda: frechet_distance(reference, Gaussian.of(song)), SONG),
    ]  # fmt: skip
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}"
    print(f"d = {d}, {args.frames} frames a side, one thread, medians of {args.repeats}, CPU seconds; {versions}\n")
    print("| case | fadtk | sqrtm alone | stemwise | faster than fadtk | than sqrtm | largest difference |")
    print("|---|---|---|---|---|---|---|")
    missed = []
    for name, theirs, ours, bar in cases:
        slow, first = median_seconds(lambda: theirs(by_fadtk), args.repeats)  # noqa: B023
        root, second = median_seconds(lambda: theirs(by_root), args.repeats)  # noqa: B023
        fast, value = median_seconds(ours, args.repeats)
        off = max(abs(first - value), abs(second - value))
        print(
            f"| {name} | {slow:.3f} | {root:.3f} | {fast:.4f} | {slow / fast:.0f} | {root / fast:.1f} | {off:.1e} |",
            flush=True,
        )
        if root / fast < bar:
            missed.append(f"{name}: {root / fast:.1f} times, wanted {bar:.0f}")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
