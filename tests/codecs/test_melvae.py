"""Log-mels, autoencoder and vocoder give the recorded numbers; masks sum to one; latents are of whole windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from published_msgld import CODEC, close, codec, tensors
from stemwise.codecs.mel import Mel
from stemwise.codecs.melvae import MelVae, MelVaeConfig
from stemwise.errors import ModelError


def test_recorded_log_mel() -> None:
    wave = tensors("mel/wave")["pcm16"].float() / 32768
    torch.testing.assert_close(Mel().log(wave), tensors("mel/mel")["log_mel"], atol=3e-4, rtol=0)


def test_half_precision_and_autocast_leave_the_log_mel_exact() -> None:
    wave = torch.randn(2, 4096).bfloat16()
    full = Mel().log(wave.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Mel().log(wave.float()), full) and torch.equal(Mel().log(wave), full)
    assert Mel().log(wave).dtype == torch.float32 and Mel().log(wave.double()).dtype == torch.float64


def test_recorded_autoencoder() -> None:
    recorded, module = tensors("vae_tiny/tensors"), codec()
    mean, deviation = module.posterior(recorded["log_mel"][:, 0])
    close(mean, recorded["moments"][:, :8])
    close(mean + deviation * recorded["posterior_noise"], recorded["posterior_sample"])
    close(module.levels(recorded["latent"]), recorded["decoded_latent"][:, 0])
    close(module.levels(mean), recorded["decoded_mean"][:, 0])


def test_recorded_vocoder() -> None:
    recorded, module = tensors("vocoder_tiny/tensors"), codec()
    close(module.vocoder.upsampler[0].weight, recorded["fused.ups.0.weight"], 1e-6)
    made = module.vocode(recorded["log_mel"].transpose(1, 2))
    close(made, recorded["wave"][:, 0, : made.shape[-1]], 1e-4)
    assert made.shape[-1] == 48 * 160  # the published vocoder makes 32 samples more


def test_shares_sum_to_one_and_separate_what_does_not_overlap() -> None:
    mel, rate = Mel(), 16_000
    time = torch.arange(2 * rate) / rate
    low, high = torch.sin(2 * torch.pi * 300 * time), 0.5 * torch.sin(2 * torch.pi * 3000 * time)
    spectrum = mel.transform(low + high)
    masks = mel.shares(mel.log(torch.stack([low, high])), spectrum.shape[-1])
    torch.testing.assert_close(masks.sum(0), torch.ones_like(masks[0]), atol=1e-6, rtol=0)
    stems = mel.inverse(spectrum * masks, len(time))
    torch.testing.assert_close(stems.sum(0), low + high, atol=1e-5, rtol=0)
    assert float((stems[0] - low).square().mean() / low.square().mean()) < 1e-3


def test_round_trip_of_the_transform() -> None:
    wave = torch.randn(2, 3, 16_000)
    torch.testing.assert_close(Mel().inverse(Mel().transform(wave), 16_000), wave, atol=1e-5, rtol=0)


def test_latents_are_of_whole_windows() -> None:
    module = codec()
    latent = module.encode(torch.zeros(2, 3, 6400))
    assert latent.shape == (2, 3, *CODEC.shape(6400)) == (2, 3, 8, 10, 16)
    assert module.decode(latent).shape == (2, 3, 6400)
    with pytest.raises(ModelError, match="multiple of 640"):
        module.encode(torch.zeros(6401))


@pytest.mark.parametrize(
    ("samples", "named"),
    [(6401, "6401 samples are not a multiple of 640"), (640, "640 samples are too short .* more than 1024")],
)
def test_windows_that_cannot_be_learnt_from(samples: int, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        codec().loss(torch.randn(1, 4, 1, samples), torch.Generator())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vocoder_rates": (5, 4, 2, 2)}, "multiply to the hop"),
        ({"widths": (33, 64)}, "multiples of groups"),
        ({"window": 16_001}, "window .16001. of 640 samples"),
        ({"mel": Mel(bands=62)}, "multiple of 4"),
    ],
)
def test_impossible_shapes_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(MelVaeConfig(), **change)  # type: ignore[arg-type]


def test_training_lowers_every_part_of_the_loss() -> None:
    torch.manual_seed(0)
    config = MelVaeConfig(
        mel=Mel(rate=8000, fft=256, hop=64, bands=16), window=4096, widths=(8, 16), groups=8, latent=4,
        vocoder_width=32, vocoder_rates=(8, 8), vocoder_kernels=(16, 16),
    )  # fmt: skip
    module = MelVae(config)
    tone = torch.sin(torch.arange(4096) * 0.2).expand(2, 2, 1, -1) * torch.tensor([0.5, 0.25])[:, None, None, None]
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        parts = module.loss(tone, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        losses.append({name: float(value.detach()) for name, value in parts.items()})
    assert losses[-1]["error"] < 0.95 * losses[0]["error"]
    assert losses[-1]["spectral"] < 0.95 * losses[0]["spectral"]
