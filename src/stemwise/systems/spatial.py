"""Where stems sit between two channels: a multichannel Wiener filter around estimates of them.

The model of Duong, Vincent and Gribonval (2010): at every frame and bin a stem is Gaussian, its covariance a power times a 2 x 2
spatial covariance that does not change in time. The estimates say both. Their powers are compressed, since a network is surer of
its shares than it is right, and what tells stems apart beyond them is that they come from different places.

Places are the better known the longer they were heard, so it listens to the song around a network's windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stemwise.codecs.lapped import Lapped

# Chosen on songs in the validation font: the exponent of the powers, and how many neighbouring bins share a place.
SOFT = 0.45
NEIGHBOURS = 33
LEFT_OVER = 1e-3  # share of the mixture's power that is no stem's and comes from everywhere
AHEAD = 512  # frames that are heard before the first of them is filtered: of 2048 bins at 44.1 kHz, 24 seconds
MEMORY = 0.7  # weight of all that was heard before those, so that places may change within some minutes
CHUNK = 16  # frames that are filtered at once


def place_filter(blocks: Iterator[np.ndarray], stems: int, codec: Lapped) -> Iterator[np.ndarray]:
    """Estimates of a song (stem * channel, n), block by block, made better; what they sum to stays as it was.

    Channels are filtered in pairs, the last of an odd number with itself. Blocks come later than they were given.
    """
    bins = codec.bins
    heard = last = None
    for ahead, kept in _ahead(blocks, bins):
        signal = torch.from_numpy(ahead).unflatten(0, (stems, -1))
        channels = signal.shape[1]
        filled = torch.cat([signal, signal[:, channels - channels % 2 :]], dim=1)
        pairs = filled.unflatten(1, (-1, 2)).transpose(0, 1).to(codec.gain.device)
        chunks = [pairs[..., k : k + (CHUNK + 1) * bins] for k in range(0, ahead.shape[1] - bins, CHUNK * bins)]
        covariance = torch.stack([covariances(_spectra(chunk, codec)) for chunk in chunks]).sum(0)
        heard = covariance if heard is None else MEMORY * heard + covariance
        place = places(heard)
        for index, chunk in enumerate(chunks):
            spectra = _spectra(chunk, codec)
            mix = spectra.sum(1)
            better = filtered(spectra, mix, place)
            better = better + (mix.real - better.sum(1))[:, None] / stems
            before = torch.zeros_like(better[..., :1, :]) if last is None else last
            last = better[..., -1:, :]
            wave = codec.decode(torch.cat([before, better], dim=-2)).transpose(0, 1).flatten(1, 2)[:, :channels]
            start = index * CHUNK * bins
            yield wave.flatten(0, 1)[:, max(0, kept.start - start) : kept.stop - start].cpu().numpy()


def _ahead(blocks: Iterator[np.ndarray], bins: int) -> Iterator[tuple[np.ndarray, slice]]:
    """Up to `AHEAD` frames of a song (row, (frames + 1) * bins) and which samples to keep; before and after it is silence.

    A view, valid until the next is asked for, which starts with the last `bins` samples of this one.
    """
    size = (AHEAD + 1) * bins
    held = np.zeros((0, 0), np.float32)
    first = end = bins
    for block in blocks:
        if not held.size:
            held = np.zeros((len(block), size + bins), np.float32)
        while block.shape[1]:
            part, block = block[:, : size - end], block[:, size - end :]
            held[:, end : end + part.shape[1]] = part
            end += part.shape[1]
            if end == size:
                yield held[:, :size], slice(first, size - bins)
                held[:, :bins] = held[:, size - bins : size]
                first, end = 0, bins
    if end > first:
        held[:, end:] = 0
        yield held[:, : (-(-end // bins) + 1) * bins], slice(first, end)


def _spectra(wave: Tensor, codec: Lapped) -> Tensor:
    """(..., (frames + 1) * bins) -> (..., frame, bin), complex: the frames that lie within."""
    return codec.encode_complex(wave)[..., 1:-1, :]


def covariances(spectra: Tensor) -> Tensor:
    """Complex spectra (B, stem, 2, frame, bin) -> (B, bin, stem, 2, 2), summed over frames."""
    columns = spectra.permute(0, 4, 1, 2, 3)
    return columns @ columns.mH


def places(covariance: Tensor) -> Tensor:
    """Covariances (B, bin, stem, 2, 2) averaged over neighbouring bins, scaled to a mean power of 1 a channel."""
    side = NEIGHBOURS // 2
    rows = torch.view_as_real(covariance).flatten(2).transpose(1, 2)  # (B, row, bin)
    rows = F.avg_pool1d(F.pad(rows, (side, side), mode="replicate"), NEIGHBOURS, 1)
    place = torch.view_as_complex(rows.transpose(1, 2).unflatten(2, (*covariance.shape[2:], 2)).contiguous())
    return place / place.diagonal(dim1=-2, dim2=-1).real.mean(-1).clamp_min(1e-20)[..., None, None]


def filtered(stems: Tensor, mix: Tensor, place: Tensor) -> Tensor:
    """Complex spectra (B, stem, 2, frame, bin) of the estimates, (B, 2, frame, bin) of their mixture, and the stems' `places`
    -> the real part of better estimates.

    They sum to the mixture but for `LEFT_OVER`. Where all stems sit in one place, a soft mask of the mixture remains.
    """
    left_heard, right_heard = mix.permute(0, 3, 2, 1).unbind(-1)
    power = (stems.real.square() + stems.imag.square()).sum(2).permute(0, 3, 1, 2)  # (B, bin, stem, frame)
    share = power.clamp_min(1e-20).pow(SOFT)
    share = share / share.sum(2, keepdim=True)
    # The mixture's covariance [[left, across], [across*, right]] and its inverse times the mixture, written out: a batched solve
    # of so many small systems takes longer.
    entries = torch.stack(
        [place[..., 0, 0].real, place[..., 1, 1].real, place[..., 0, 1].real, place[..., 0, 1].imag], 2
    )
    left, right, real, imaginary = torch.matmul(entries, share).unbind(2)
    left, right, across = left + LEFT_OVER, right + LEFT_OVER, torch.complex(real, imaginary)
    determinant = left * right - real.square() - imaginary.square()
    whitened = torch.stack(
        [right * left_heard - across * right_heard, left * right_heard - across.conj() * left_heard], 2
    )
    whitened = whitened / determinant[:, :, None]
    # Only the real part of place @ whitened is needed, so the matrices are real: (stem * 2, 4) @ (4, frame).
    rows = torch.view_as_real(place.conj().resolve_conj()).flatten(4).flatten(2, 3)
    columns = torch.view_as_real(whitened).transpose(-1, -2).flatten(2, 3)
    answer = torch.matmul(rows, columns).unflatten(2, (-1, 2)) * share[:, :, :, None]
    return answer.permute(0, 2, 3, 4, 1)
