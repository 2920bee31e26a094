"""Coherence as an energy: how to make a sampler play along. The paper names it as future work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stemwise.coherence.cocola import PartName
from stemwise.coherence.scoring import Encoder
from stemwise.diffusion.guidance import Energy
from stemwise.errors import ScoreError

Decode = Callable[[Tensor], Tensor]
"""A clean state -> what it sounds like, the new stems (batch, stem, channel, time)."""

Strength = Callable[[Tensor], Tensor]
"""A noise level sigma () -> how much the score counts there."""


def coherence_energy(
    encoder: Encoder, context: Tensor, rate: int, decode: Decode, strength: Strength, part: PartName = "both"
) -> Energy:
    """- strength(sigma) * (mean score of the decoded estimate against the context), for `diffusion.guidance`.

    `guidance.energy(denoiser, fn)` sends the force through the denoiser, which for a linear score samples exactly from
    prior * exp(strength * score); `energy_at_x0` is cheaper and takes the denoiser's slope for 1. The sum of the stems
    and the mean of the channels are heard, in as many windows of the encoder as fit, spread evenly over the signal.

    Args:
        encoder: frozen, on the state's device.
        context: (time,) or (channel, time) at `rate`, as long as what is made.
        rate: of the context and of what is decoded, in hertz.
        decode: differentiable.
        strength: a constant function counts the score as evidence; one that falls with sigma waits for the outline.
        part: which part of the sound counts.

    Raises:
        ScoreError: the window of sound is shorter than one of the encoder's, or the two sides differ in length.
    """
    heard = _mono(context if context.ndim > 1 else context[None], rate, encoder.rate)
    with torch.no_grad():
        h_context = _embedded(encoder, heard[None], part)

    def fn(x0: Tensor, sigma: Tensor, /) -> Tensor:
        made = _mono(decode(x0).sum(1), rate, encoder.rate)
        if made.shape[-1] != heard.shape[-1]:
            raise ScoreError(
                f"the context is {heard.shape[-1]} samples long at {encoder.rate} Hz and what is made {made.shape[-1]}; "
                "give a context of the same length"
            )
        h = _embedded(encoder, made, part)
        scores = torch.stack([encoder.similarity(c, m).squeeze(0) for c, m in zip(h_context, h)])
        return -strength(torch.as_tensor(sigma)) * scores.mean(0)

    return fn


def resampled(signal: Tensor, rate: int, target: int) -> Tensor:
    """(..., time) at another rate, differentiable and linear: the spectrum cut or padded, as if the signal were periodic.

    round(time * target / rate) samples. Raises nothing; ends ring a little where a signal does not end as it begins.
    """
    if rate == target:
        return signal
    frames = round(signal.shape[-1] * target / rate)
    spectrum = torch.fft.rfft(signal)[..., : frames // 2 + 1]
    return torch.fft.irfft(spectrum, n=frames) * (frames / signal.shape[-1])


def _mono(signal: Tensor, rate: int, target: int) -> Tensor:
    """(..., channel, time) -> (..., time) at the target rate."""
    return resampled(signal.mean(-2), rate, target)


def _embedded(encoder: Encoder, audio: Tensor, part: PartName) -> Tensor:
    """(batch, time) -> (window, batch, dim): windows evenly spread, the first at the start and the last at the end."""
    spare = audio.shape[-1] - encoder.window
    if spare < 0:
        raise ScoreError(
            f"{audio.shape[-1] / encoder.rate:.2f} s cannot be guided by an encoder that hears "
            f"{encoder.window / encoder.rate:g} s at once; use a model with a longer window"
        )
    count = 1 + -(-spare // encoder.window)
    starts = [spare * k // max(1, count - 1) for k in range(count)]
    windows = torch.stack([audio[:, start : start + encoder.window] for start in starts])
    features = encoder.mask(encoder.features(windows.flatten(0, 1)), part)
    return encoder.embed(features).unflatten(0, windows.shape[:2])
