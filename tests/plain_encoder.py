"""An encoder without weights that hears when and at which pitch something sounds: enough to tell a stem out of place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

RATE = 16000


class PlainEncoder(nn.Module):
    """Embeds the loudness over time (50 places) and the spectrum (80 bands of a quarter tone) of a window."""

    rate = RATE
    window = 5 * RATE
    parts = ("both", "harmonic", "percussive")

    def features(self, audio: Tensor) -> Tensor:
        spectrum = torch.stft(audio, 1024, 160, 400, torch.hann_window(400), return_complex=True).abs()
        edges = 100 * 2 ** (torch.arange(81) / 24) / RATE * 1024
        place = edges[:-1, None] * (edges[1:] / edges[:-1])[:, None].pow(torch.linspace(0, 1, 4))
        low = place.long()
        bands = torch.lerp(spectrum[:, low], spectrum[:, low + 1], (place - low)[None, :, :, None]).mean(2)
        return torch.stack([bands, 0.1 * spectrum[:, 400:480]], 1)

    def mask(self, features: Tensor, mode: str) -> Tensor:
        keep = {"both": (1.0, 1.0), "harmonic": (1.0, 0.0), "percussive": (0.0, 1.0)}[mode]
        return features * torch.tensor(keep)[:, None, None]

    def embed(self, features: Tensor) -> Tensor:
        loudness = nn.functional.adaptive_avg_pool1d(features.sum((1, 2))[:, None], 50)[:, 0]
        spectrum = features.sum((1, 3))
        sides = [side - side.mean(1, keepdim=True) for side in (loudness, spectrum)]
        return torch.cat([side / side.norm(dim=1, keepdim=True).clamp_min(1e-6) for side in sides], 1)

    def similarity(self, h_context: Tensor, h_made: Tensor) -> Tensor:
        lean = torch.linspace(0.5, 1.5, h_made.shape[1])
        return 5 * (h_context + 0.3 * h_context.roll(1, 1)) @ (lean * h_made).T


def song(seconds: float, rate: int = RATE, seed: int = 0) -> dict[str, np.ndarray]:
    """Three stems (1, frames) that play the same irregular rhythm and the same few pitches, changing every second."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    onsets = np.cumsum(draw.choice([0.2, 0.3, 0.5, 0.8], round(seconds * 5)))
    onsets = onsets[onsets < seconds]
    pitches = 200 * 2 ** (draw.integers(0, 12, len(onsets)) / 12)
    stems = {}
    for name, octave in (("bass", 1), ("piano", 1), ("guitar", 1)):
        signal = np.zeros(len(time))
        phase = draw.uniform(0, 6)
        for onset, pitch in zip(onsets, pitches):
            first = round(onset * rate)
            t = time[: min(rate // 8, len(time) - first)]
            signal[first : first + len(t)] += np.sin(2 * np.pi * octave * pitch * t + phase) * np.exp(-12 * t)
        stems[name] = (0.3 * signal[None]).astype(np.float32)
    return stems
