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
    fade: int = 0,
) -> Iterator[Tensor]:
    """Make a signal of any length from windows of which each continues the one before.

    Args:
        make_window: (known, index) -> (stem, channel, window); ``known`` (stem, channel, overlap) are the frames that
            the window must begin with, None for a free start. Those frames are kept as they are: what the answer
            holds in their place is not looked at, unless there is a fade.
        total_frames: how many frames to yield in all.
        window: frames a window.
        overlap: frames that a window is given of the past, below ``window``.
        seam: the end of an existing signal (stem, channel, at least overlap), to continue that; it is not yielded.
        fade: how many of the last known frames go over into the answer's own, for answers that repeat what is known
            only about. Linearly, since both are of one signal, which powers that add up would raise. A given seam is
            not touched.

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
    if not 0 <= fade <= min(overlap, window - overlap):
        raise ValueError(
            f"a fade of {fade} frames fits neither the overlap of {overlap} nor the {window - overlap} others"
        )
    rise = torch.linspace(0, 1, fade + 2, dtype=torch.float32)[1:-1]
    known = None if seam is None else seam[..., -overlap:]
    held = 0  # frames at the end of the window before that are not given out yet
    left, index = total_frames, 0
    while left > 0:
        made = make_window(known, index)
        if made.ndim != 3 or made.shape[-1] != window or (known is not None and made.shape[:2] != known.shape[:2]):
            raise ValueError(f"window {index} has the shape {tuple(made.shape)}, expected (stem, channel, {window})")
        line = made if known is None else torch.cat([known, made[..., overlap:]], dim=-1)
        if held:
            line[..., overlap - held : overlap].lerp_(made[..., overlap - held : overlap], rise)
        fresh = line if known is None else line[..., overlap - held :]
        fresh = fresh[..., :left] if fresh.shape[-1] >= left else fresh[..., : fresh.shape[-1] - fade]
        yield fresh
        left -= fresh.shape[-1]
        known, held = line[..., -overlap:], fade
        index += 1
