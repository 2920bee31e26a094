"""Generating a signal of any length, each window continuing the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def continue_windows(
    make_window: Callable[[Tensor | None, int], Tensor],
    total_frames: int,
    window: int,
    overlap: int,
    seam: Tensor | None = None,
) -> Iterator[Tensor]:
    """Make a signal of any length from windows of which each continues the one before.

    Args:
        make_window: (known, index) -> (stem, channel, window); ``known`` (stem, channel, overlap) are the frames that
            the window must begin with, None for a free start. Those frames are kept as they are: what the answer
            holds in their place is not looked at.
        total_frames: how many frames to yield in all.
        window: frames a window.
        overlap: frames that a window is given of the past, below ``window``.
        seam: the end of an existing signal (stem, channel, at least overlap), to continue that; it is not yielded.

    Yields:
        (stem, channel, n) blocks; their lengths sum to ``total_frames``.

    Raises:
        ValueError: impossible lengths, or an answer of the wrong shape.
    """
    if total_frames < 1 or not 0 < overlap < window or (seam is not None and seam.shape[-1] < overlap):
        raise ValueError(
            f"cannot make {total_frames} frames from windows of {window} with an overlap of {overlap}: lengths must be "
            "positive, the overlap shorter than the window and the seam at least as long as the overlap"
        )
    known = None if seam is None else seam[..., -overlap:]
    left, index = total_frames, 0
    while left > 0:
        made = make_window(known, index)
        if made.ndim != 3 or made.shape[-1] != window or (known is not None and made.shape[:2] != known.shape[:2]):
            raise ValueError(f"window {index} has the shape {tuple(made.shape)}, expected (stem, channel, {window})")
        fresh = made if known is None else made[..., overlap:]
        yield fresh[..., :left]
        left -= fresh.shape[-1]
        history = fresh if known is None else torch.cat([known, fresh], dim=-1)
        known = history[..., -overlap:]
        index += 1
