"""Framing of every embedding, and parity with transformers' own forward, with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stemwise.audio_io import resample
from stemwise.embeddings import networks
from stemwise.embeddings.embedding import chunks
from stemwise.errors import MetricError, ModelError
from stemwise.nets.vggish import Vggish, VggishConfig, log_mel_patches


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def small_vggish() -> Vggish:
    torch.manual_seed(0)
    return Vggish(VggishConfig((2, 3, 4, 5), 7, 6)).eval()


@pytest.fixture(scope="module")
def small_clap() -> object:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    audio = {"spec_size": 256, "num_mel_bins": 64, "patch_embeds_hidden_size": 16, "hidden_size": 128, "depths": [1] * 4,
             "num_attention_heads": [2] * 4, "window_size": 8, "num_hidden_layers": 4}  # fmt: skip
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "vocab_size": 99}  # fmt: skip
    config = transformers.ClapConfig(audio_config=audio, text_config=text, projection_dim=12)
    return transformers.ClapModel(config).eval()


def small_encodec(rate: int) -> object:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    stereo = {"audio_channels": 2, "chunk_length_s": 1.0, "overlap": 0.0, "norm_type": "time_group_norm",
              "use_causal_conv": False} if rate == 48_000 else {}  # fmt: skip
    config = transformers.EncodecConfig(
        sampling_rate=rate, num_filters=2, hidden_size=8, codebook_dim=8, codebook_size=16, num_lstm_layers=1,
        target_bandwidths=[3.0] if rate == 48_000 else [1.5], **stereo
    )  # fmt: skip
    return transformers.EncodecModel(config).eval()


def test_chunks_cover_the_end_with_silence() -> None:
    found = chunks(np.arange(1, 8, dtype=np.float32), 4, 3)
    assert found.tolist() == [[1, 2, 3, 4], [4, 5, 6, 7], [7, 0, 0, 0]]
    assert chunks(np.ones(3, np.float32), 4, 3).tolist() == [[1, 1, 1, 0]]


def test_vggish(small_vggish: Vggish) -> None:
    embedding = networks.vggish("vggish", small_vggish)
    signal = noise(16_000 * 3)
    with torch.inference_mode():
        expected = small_vggish(log_mel_patches(torch.from_numpy(signal)))
    np.testing.assert_allclose(embedding.embed(signal, 16_000), expected, atol=1e-6)
    assert embedding.embed(signal[:5], 16_000).shape == (1, 6)  # padded to one frame
    with torch.autocast("cpu", torch.bfloat16):
        hosted = embedding.embed(signal, 16_000)
    np.testing.assert_array_equal(hosted, embedding.embed(signal, 16_000))
    halved = embedding.embed(signal, 32_000)
    np.testing.assert_array_equal(halved, embedding.embed(resample(signal[None], 32_000, 16_000)[0], 16_000))


def test_version_names_the_weights(small_vggish: Vggish) -> None:
    first = networks.vggish("vggish", small_vggish).version
    torch.manual_seed(1)
    assert networks.vggish("vggish", Vggish(small_vggish.config)).version != first
    assert networks.vggish("vggish", small_vggish).version == first


def test_clap_is_transformers_own_path_chunk_by_chunk(small_clap: object) -> None:
    from transformers import ClapFeatureExtractor

    embedding = networks.clap("clap", small_clap)
    assert (embedding.rate, embedding.dimensions) == (48_000, 12)
    signal = noise(48_000 * 2 + 100)
    frames = embedding.embed(signal, 48_000)
    assert frames.shape == (3, 12)
    np.testing.assert_allclose(np.linalg.norm(frames, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(frames, embedding.embed(signal, 48_000))
    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation="rand_trunc")
    second = np.trunc(signal[48_000:] * 32767) / 32767
    padded = np.pad(second, (0, 480_000 - len(second)))
    inputs = extractor(padded, sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        expected = small_clap.get_audio_features(**inputs).pooler_output[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(frames[1], expected, atol=1e-4)


def test_clap_with_fusion_is_refused(small_clap: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_clap.config.audio_config, "enable_fusion", True)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="not deterministic"):
        networks.clap("clap", small_clap)


@pytest.mark.parametrize("rate", [24_000, 48_000])
def test_encodec_is_what_transformers_quantises(rate: int) -> None:
    network = small_encodec(rate)
    embedding = networks.encodec("encodec", network)
    signal = noise(2 * rate + 5000)
    heard: list[torch.Tensor] = []
    hook = network.encoder.register_forward_hook(lambda module, given, answer: heard.append(answer))  # type: ignore[attr-defined]
    channels = 2 if rate == 48_000 else 1
    with torch.inference_mode():
        network.encode(torch.from_numpy(signal)[None, None].repeat(1, channels, 1))  # type: ignore[operator]
    hook.remove()
    expected = torch.cat([answer[0].T for answer in heard])
    frames = embedding.embed(signal, rate)
    assert len(heard) == (3 if rate == 48_000 else 1)
    np.testing.assert_allclose(frames, expected, atol=1e-5)


def test_encodec_hears_long_audio_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_ENCODEC_SECONDS", 1)
    embedding = networks.encodec("encodec", small_encodec(24_000))
    signal = noise(24_000 * 2 + 24)
    frames = embedding.embed(signal, 24_000)
    assert len(frames) == 75 + 75 + 1
    np.testing.assert_allclose(frames[:75], embedding.embed(signal[:24_000], 24_000), atol=1e-5)


def test_cocola_windows() -> None:
    pytest.importorskip("transformers")
    from stemwise.coherence.cocola import Cocola, CocolaConfig

    torch.manual_seed(0)
    network = Cocola(CocolaConfig(scale=0.25, embedding=8, features="mel")).eval()
    embedding = networks.cocola("cocola", network)
    signal = noise(16_000 * 8 - 10)
    frames = embedding.embed(signal, 16_000)
    assert frames.shape == (3, 8)
    for row, start in zip(frames, (0, 40_000, len(signal) - 80_000), strict=True):
        window = torch.from_numpy(signal[start : start + 80_000])[None]
        with torch.inference_mode():
            expected = network.embed(network.features(window))[0]
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert embedding.embed(signal[:80_000], 16_000).shape == embedding.embed(signal[:100], 16_000).shape == (1, 8)


@pytest.mark.parametrize(
    ("audio", "problem"),
    [(np.zeros((2, 9)), "mono"), (np.zeros(0), "empty"), (np.array([0.0, np.nan]), "1 samples are NaN")],
)
def test_bad_audio(small_vggish: Vggish, audio: np.ndarray, problem: str) -> None:
    with pytest.raises(MetricError, match=problem):
        networks.vggish("vggish", small_vggish).embed(audio, 16_000)
