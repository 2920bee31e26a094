"""The networks behind the embeddings, each with the framing that published distances use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stemwise.embeddings.embedding import Floats32, NetworkEmbedding, chunks, device_of, digest
from stemwise.errors import ModelError
from stemwise.nets.vggish import Vggish, log_mel_patches

if TYPE_CHECKING:
    from stemwise.coherence.cocola import Cocola

_BATCH = 16
_ENCODEC_SECONDS = 180
_COCOLA_HOP_SECONDS = 2.5


def vggish(name: str, network: Vggish) -> NetworkEmbedding:
    """Frames of 0.96 s without overlap; less than 1 s is padded with silence, an incomplete last frame is dropped."""
    place, rate = device_of(network), network.config.rate

    def hear(signal: Floats32) -> Floats32:
        padded = np.pad(signal, (0, max(0, rate - len(signal))))
        return _batched(network, log_mel_patches(torch.from_numpy(padded)), place)

    return NetworkEmbedding(
        name, rate, network.config.dimensions, "log-mel patches of 0.96 s, no PCA, no ReLU", digest(network), hear
    )


def clap(name: str, network: Any) -> NetworkEmbedding:
    """LAION CLAP of transformers (`ClapModel`): chunks of 10 s every second, the tail padded with silence.

    Every chunk is exactly as long as the network hears, so nothing is cropped at random. Samples are limited to full
    scale and rounded to 16 bits, as LAION's own recipe and fadtk do. Frames have length 1.

    Raises:
        ModelError: a network with feature fusion, which hears crops of longer audio.
    """
    from transformers import ClapFeatureExtractor

    if network.config.audio_config.enable_fusion:
        raise ModelError(
            "this CLAP fuses crops of long audio, which is not deterministic; use laion/clap-htsat-unfused"
        )
    place, rate = device_of(network), 48_000
    # the constants of all LAION checkpoints; the extractor's own spectrogram takes a Python loop over frames
    bank = torch.from_numpy(
        ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation="rand_trunc").mel_filters_slaney
    )

    def features(block: Tensor) -> Tensor:
        return network.get_audio_features(input_features=block).pooler_output

    def hear(signal: Floats32) -> Floats32:
        rounded = np.trunc(np.clip(signal, -1, 1) * 32767) / np.float32(32767)
        parts = chunks(rounded.astype(np.float32), 10 * rate, rate)
        found = [
            _batched(features, _clap_levels(torch.from_numpy(parts[i : i + _BATCH].copy()), bank), place)
            for i in range(0, len(parts), _BATCH)
        ]
        return np.concatenate(found)

    size = int(network.config.projection_dim)
    return NetworkEmbedding(name, rate, size, "16 bits, chunks of 10 s every 1 s", digest(network), hear)


def encodec(name: str, network: Any) -> NetworkEmbedding:
    """EnCodec of transformers (`EncodecModel`): the encoder's output before it is quantised.

    The 24 kHz network hears up to 3 minutes at once (fadtk cuts the rest off; here it is heard in further pieces), the
    48 kHz one hears stereo, here twice the same, in seconds of their own, not normalised.
    """
    place, config = device_of(network), network.config
    rate, size = int(config.sampling_rate), int(config.hidden_size)
    piece = int(config.chunk_length or _ENCODEC_SECONDS * rate)

    at_once = max(1, _BATCH * rate // piece)  # as much audio in every batch, however long its pieces

    def encode(block: Tensor) -> Tensor:
        return network.encoder(block.expand(-1, config.audio_channels, -1)).transpose(1, 2)

    def hear(signal: Floats32) -> Floats32:
        whole = len(signal) // piece * piece
        blocks = list(torch.from_numpy(signal[:whole].reshape(-1, 1, piece)).split(at_once)) if whole else []
        if whole < len(signal):
            blocks.append(torch.from_numpy(signal[None, None, whole:].copy()))
        return np.concatenate([_batched(encode, block, place).reshape(-1, size) for block in blocks])

    what = f"encoder output, pieces of {piece} samples"
    return NetworkEmbedding(name, rate, size, what, digest(network.encoder), hear)


def cocola(name: str, network: Cocola) -> NetworkEmbedding:
    """The encoder of COCOLA: windows of 5 s every 2.5 s, the last one moved back to end with the audio.

    Only audio shorter than a window is padded with silence.
    """
    place, config = device_of(network), network.config
    size, hop = config.window, round(_COCOLA_HOP_SECONDS * config.rate)

    def encode(block: Tensor) -> Tensor:
        return network.embed(network.features(block))

    def hear(signal: Floats32) -> Floats32:
        padded = np.pad(signal, (0, max(0, size - len(signal))))
        starts = sorted({*range(0, len(padded) - size + 1, hop), len(padded) - size})
        windows = np.stack([padded[start : start + size] for start in starts])
        return _batched(encode, torch.from_numpy(windows), place)

    return NetworkEmbedding(name, config.rate, config.embedding, "windows of 5 s every 2.5 s", digest(network), hear)


def _batched(function: Callable[[Tensor], Tensor], items: Tensor, place: torch.device) -> Floats32:
    """A network's answers for items (n, ...), a few at a time."""
    answers = [function(part.to(place)).float().cpu() for part in items.split(_BATCH)]
    return np.asarray(torch.cat(answers).numpy())


def _clap_levels(audio: Tensor, bank: Tensor) -> Tensor:
    """(chunk, time) -> float32 (chunk, 1, frame, 64): power in dB, at least -100, without a reference level."""
    window = torch.hann_window(1024, periodic=True, dtype=torch.float64)
    spectrum = torch.stft(audio.double(), 1024, 480, window=window, center=True, return_complex=True)
    mel = spectrum.abs().square().transpose(1, 2) @ bank
    return 10 * mel.clamp_min(1e-10).log10().float()[:, None]
