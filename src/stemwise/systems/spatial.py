"""Where stems sit between two channels: a multichannel Wiener filter around estimates of them.

The model of Duong, Vincent and Gribonval (2010): at every frame and bin a stem is Gaussian, its covariance a power times a 2 x 2
spatial covariance that does not change in time. The estimates say both. Their powers are compressed, since a network is surer of
its shares than it is right, and what tells stems apart beyond them is that they come from different places.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Chosen on songs in the validation font: the exponent of the powers, and how many neighbouring bins share a place.
SOFT = 0.4
NEIGHBOURS = 33
LEFT_OVER = 1e-3  # share of the mixture's power that is no stem's and comes from everywhere


def filtered(stems: Tensor, mix: Tensor) -> Tensor:
    """Complex spectra (B, stem, 2, frame, bin) of the estimates and (B, 2, frame, bin) of their mixture -> better estimates.

    They sum to the mixture but for `LEFT_OVER`. Where all stems sit in one place, a soft mask of the mixture remains.
    """
    spectra = stems.permute(0, 4, 1, 3, 2)  # (B, bin, stem, frame, 2)
    left_heard, right_heard = mix.permute(0, 3, 2, 1).unbind(-1)
    power = spectra.abs().square().mean(-1)
    share = power.clamp_min(1e-20).pow(SOFT)
    share = share / share.sum(2, keepdim=True)
    place = _smooth(torch.einsum("bfstc,bfstd->bfscd", spectra, spectra.conj()))
    place = place / place.diagonal(dim1=-2, dim2=-1).real.mean(-1).clamp_min(1e-20)[..., None, None]
    # The mixture's covariance [[left, across], [across*, right]] and its inverse times the mixture, written out: a batched solve
    # of so many small systems takes longer.
    places = torch.stack(
        [place[..., 0, 0].real, place[..., 1, 1].real, place[..., 0, 1].real, place[..., 0, 1].imag], 2
    )
    left, right, real, imaginary = torch.matmul(places, share).unbind(2)
    left, right, across = left + LEFT_OVER, right + LEFT_OVER, torch.complex(real, imaginary)
    determinant = left * right - across.abs().square()
    whitened = torch.stack(
        [right * left_heard - across * right_heard, left * right_heard - across.conj() * left_heard], -1
    )
    whitened = whitened / determinant[..., None]
    answer = share[..., None] * torch.einsum("bfscd,bftd->bfstc", place, whitened)
    return answer.permute(0, 2, 4, 3, 1)


def _smooth(place: Tensor) -> Tensor:
    """(B, bin, stem, 2, 2), averaged over neighbouring bins."""
    side = NEIGHBOURS // 2
    rows = torch.view_as_real(place).flatten(2).transpose(1, 2)  # (B, row, bin)
    rows = F.avg_pool1d(F.pad(rows, (side, side), mode="replicate"), NEIGHBOURS, 1)
    return torch.view_as_complex(rows.transpose(1, 2).unflatten(2, (*place.shape[2:], 2)).contiguous())
