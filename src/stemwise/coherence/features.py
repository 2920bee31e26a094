"""What COCOLA hears of a signal: log-mel spectrograms, of the whole or of its harmonic and percussive parts, and semitones.

Signals are mono at 16 kHz; frames are 25 ms long (periodic Hann, centred in a transform of 64 ms) and 10 ms apart, so
5 s are 501 frames. Everything is differentiable and runs, batched, where the signal lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from stemwise.coherence.median import WIDTH, running_median

RATE = 16_000
FFT, FRAME, HOP = 1024, 400, 160
BANDS, LOWEST, HIGHEST = 64, 60.0, 7800.0
#: Semitones: the lowest (MIDI), the length of their transform, and for how many frames one of its spectra stands.
LOWEST_PITCH, PITCH_FFT, HELD = 40, 8192, 8
_FLOOR = 1e-10
_RANGE_DB = 80.0


class LogMel(nn.Module):
    """Log-mel power in dB, one channel: HTK's mel scale, bands not normalised, no reference level.

    These are the features of COCOLA's first version (arXiv 2404.16969).
    """

    channels = 1
    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bins, bank = _bank(_htk_edges())
        self.register_buffer("bank", bank, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """(batch, time) -> (batch, 1, 64, 1 + time // 160). Beyond its ends the signal is mirrored."""
        return self._levels(_magnitudes(audio, "reflect", self.bins))[:, None]

    def windows(self, audio: Tensor, starts: Sequence[int], frames: int) -> Tensor:
        """`forward` of the windows of one signal (time) that begin at `starts` and are `frames` samples long, at once.

        (window, 1, 64, 1 + frames // 160). Starts are multiples of 160. Where a window has neighbours they are heard
        at its ends, instead of a mirror: its first and last two frames differ from `forward`'s.
        """
        levels = self._levels(_magnitudes(audio[None], "reflect", self.bins))
        return _cut(levels, starts, frames)

    def _levels(self, magnitudes: Tensor) -> Tensor:
        return 10.0 * (self.bank @ magnitudes.square()).clamp_min(_FLOOR).log10()


class HarmonicPercussive(nn.Module):
    """Log-mel power in dB of the harmonic and of the percussive part, two channels in [-80, 0].

    The parts are Fitzgerald's (2010): medians of the magnitudes over 31 frames (harmonic) and 31 bins (percussive),
    mirrored at the borders, make soft masks with exponent 2, as in librosa. Slaney's mel scale, bands normalised by
    their width. 0 dB is the loudest value of the channel; silence, too, is 0 dB everywhere.
    """

    channels = 2
    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        edges = _slaney_edges()
        self.bins, bank = _bank(edges)
        self.register_buffer("bank", bank * (2.0 / (edges[2:] - edges[:-2]))[:, None].float(), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """(batch, time) -> (batch, 2, 64, 1 + time // 160). Beyond its ends the signal is silent."""
        return _decibels(self._power(audio))

    def windows(self, audio: Tensor, starts: Sequence[int], frames: int) -> Tensor:
        """`forward` of the windows of one signal (time) that begin at `starts` and are `frames` samples long, at once.

        (window, 2, 64, 1 + frames // 160). Starts are multiples of 160. One transform and one pair of medians serve
        all windows; 0 dB is each window's own. Where a window has neighbours they are heard at its ends, instead of
        silence and a mirror: its first and last 17 frames differ from `forward`'s, the others only in what is 0 dB.
        """
        return _decibels(_cut(self._power(audio[None])[0], starts, frames))

    def _power(self, audio: Tensor) -> Tensor:
        """Mel power of the parts: (batch, time) -> (batch, 2, 64, frame)."""
        half = WIDTH // 2
        low, high = self.bins
        s = _magnitudes(audio, "constant", (0, FFT // 2 + 1))
        used = s[:, low:high]
        over_time = running_median(_mirrored(used.transpose(1, 2), -half, used.shape[2] + half)).transpose(1, 2)
        over_bins = running_median(_mirrored(s, low - half, high + half))
        parts = [self.bank @ (mask * used).square() for mask in _masks(over_time, over_bins)]
        return torch.stack(parts, dim=1)


class HarmonicPercussivePitch(HarmonicPercussive):
    """`HarmonicPercussive` and a third channel: power in dB of 64 semitones, E2 (82 Hz) to G7 (3.1 kHz), 0 dB its loudest.

    Mel bands of 25 ms tell no semitones apart. Here a spectrum of 512 ms (Hann), which does from about 130 Hz on, stands
    for 8 frames, and triangles as wide as two semitones gather its power. The beats of the other channels say when.
    """

    channels = 3
    pitches: Tensor

    def __init__(self) -> None:
        super().__init__()
        notes = torch.arange(LOWEST_PITCH - 1, LOWEST_PITCH + BANDS + 1, dtype=torch.float64)
        self.pitch_bins, pitches = _bank(440.0 * 2.0 ** ((notes - 69.0) / 12.0), PITCH_FFT)
        self.register_buffer("pitches", pitches, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """(batch, time) -> (batch, 3, 64, 1 + time // 160). Beyond its ends the signal is silent."""
        half = PITCH_FFT // 2
        return torch.cat([super().forward(audio), self._semitones(pad(audio, (half, half)))], dim=1)

    def windows(self, audio: Tensor, starts: Sequence[int], frames: int) -> Tensor:
        """As `HarmonicPercussive.windows`: (window, 3, 64, 1 + frames // 160). Semitones hear the neighbours for 256 ms."""
        half = PITCH_FFT // 2
        around = pad(audio, (half, half + frames))
        cut = torch.stack([around[start : start + frames + 2 * half] for start in starts])
        return torch.cat([super().windows(audio, starts, frames), self._semitones(cut)], dim=1)

    @staticmethod
    def transposed(features: Tensor, semitones: float) -> Tensor:
        """Features (batch, 3, 64, frame) of the same sound higher by so many semitones, in the channel that hears them.

        The others, which tell timbre and time, stay. Levels between two rows are interpolated; what was out of range is silent.
        """
        whole, part = math.floor(semitones), semitones - math.floor(semitones)
        rows = (
            torch.arange(BANDS, device=features.device)[:, None] - whole - torch.tensor([0, 1], device=features.device)
        )
        inside = ((rows >= 0) & (rows < BANDS))[..., None]
        near = torch.where(inside, features[:, 2, rows.clamp(0, BANDS - 1)], -_RANGE_DB)
        return torch.cat([features[:, :2], near[:, None, :, 0] * (1 - part) + near[:, None, :, 1] * part], dim=1)

    def _semitones(self, audio: Tensor) -> Tensor:
        """Signals with 256 ms before and after them, (batch, time + 8192) -> (batch, 1, 64, 1 + time // 160)."""
        low, high = self.pitch_bins
        window = torch.hann_window(PITCH_FFT, dtype=audio.dtype, device=audio.device)
        spectrum = torch.stft(audio, PITCH_FFT, HELD * HOP, window=window, center=False, return_complex=True)
        power = self.pitches @ spectrum[:, low:high].abs().float().square()
        count = 1 + (audio.shape[-1] - PITCH_FFT) // HOP
        return _decibels(power[:, None]).repeat_interleave(HELD, dim=-1)[..., :count]


def _magnitudes(audio: Tensor, beyond: str, bins: tuple[int, int]) -> Tensor:
    """Magnitudes of a centred transform: (batch, time) -> float32 (batch, bin, frame); float64 signals are transformed
    in float64.
    """
    spectrum = torch.stft(
        audio,
        FFT,
        HOP,
        FRAME,
        torch.hann_window(FRAME, dtype=audio.dtype, device=audio.device),
        center=True,
        pad_mode=beyond,
        return_complex=True,
    )
    return spectrum[:, bins[0] : bins[1]].abs().float()


def _masks(harmonic: Tensor, percussive: Tensor) -> tuple[Tensor, Tensor]:
    """Soft masks H^2 / (H^2 + P^2) and P^2 / (H^2 + P^2), one half where both are nothing."""
    louder = torch.maximum(harmonic, percussive)
    nothing = louder < torch.finfo(torch.float32).tiny
    louder = louder.masked_fill(nothing, 1.0)
    h, p = (harmonic / louder).square(), (percussive / louder).square()
    h, p = h.masked_fill(nothing, 0.5), p.masked_fill(nothing, 0.5)
    return h / (h + p), p / (h + p)


def _mirrored(x: Tensor, first: int, last: int) -> Tensor:
    """Rows first, ..., last - 1 of x (..., row, column) continued beyond both ends by its mirror image."""
    rows = x.shape[-2]
    index = torch.arange(first, last, device=x.device) % (2 * rows)
    return x.index_select(-2, torch.where(index < rows, index, 2 * rows - 1 - index))


def _decibels(power: Tensor) -> Tensor:
    """(..., channel, band, frame) -> dB below the loudest of each channel, at most 80; nothing is louder than 0 dB."""
    power = power.clamp_min(_FLOOR)
    loudest = power.amax(dim=(-2, -1), keepdim=True)
    return (10.0 * (power.log10() - loudest.log10())).clamp_min(-_RANGE_DB)


def _cut(frames_of_all: Tensor, starts: Sequence[int], frames: int) -> Tensor:
    """Windows of (..., channel, band, frame), those of one signal, as (window, channel, band, 1 + frames // 160)."""
    if any(start % HOP or start < 0 for start in starts):
        raise ValueError(f"windows of a whole signal start at multiples of {HOP} samples")
    count = 1 + frames // HOP
    return torch.stack([frames_of_all[..., start // HOP : start // HOP + count] for start in starts])


def _bank(edges: Tensor, fft: int = FFT) -> tuple[tuple[int, int], Tensor]:
    """Triangles between successive edges in hertz, height 1: the range of bins that they touch, (64, bin) for these."""
    frequencies = torch.linspace(0, RATE / 2, fft // 2 + 1, dtype=torch.float64)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    touched = triangles.sum(0).nonzero()
    low, high = int(touched.min()), int(touched.max()) + 1
    return (low, high), triangles[:, low:high].float()


def _htk_edges() -> Tensor:
    """Edges of the bands in hertz, evenly spaced on 2595 log10(1 + f / 700)."""
    low, high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (LOWEST, HIGHEST))
    return 700.0 * (10.0 ** (torch.linspace(low, high, BANDS + 2, dtype=torch.float64) / 2595.0) - 1.0)


def _slaney_edges() -> Tensor:
    """Edges of the bands in hertz, evenly spaced on Slaney's scale: linear up to 1 kHz, 27 steps to 6.4 kHz above."""
    per_hertz, step = 3.0 / 200.0, math.log(6.4) / 27.0

    def mel(f: float) -> float:
        return f * per_hertz if f < 1000.0 else 15.0 + math.log(f / 1000.0) / step

    mels = torch.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2, dtype=torch.float64)
    return torch.where(mels < 15.0, mels / per_hertz, 1000.0 * ((mels - 15.0) * step).exp())
