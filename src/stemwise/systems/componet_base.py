"""The base of CompoNet: AudioLDM2 (Liu et al. 2023), a latent diffusion model of audio that is told in words what it makes.

Its U-Net is diffusers', its codec of log-mels that of `codecs.melvae`. States are latents (batch, channel, time', mel') of
about unit variance. A base of our own is trained on mixtures of all sets of stems, told with words that also name stems
which it does not hear, so that an adapter may use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stemwise.codecs.melpatches import MelPatches, MelPatchesConfig
from stemwise.codecs.melvae import MelVae, MelVaeConfig
from stemwise.diffusion import Predicts, diffused, scaled_linear_beta
from stemwise.nets.pretrained import audioldm2_unet
from stemwise.nets.relations import PromptTable, Words
from stemwise.systems.componet_prompts import TASKS, Form, Sampler, Task, subsets
from stemwise.systems.system import check_shares

#: The large model's; what its published configuration says is taken from there when it is converted.
LARGE: Mapping[str, Any] = {
    "in_channels": 8, "out_channels": 8, "layers_per_block": 2, "block_out_channels": [128, 256, 384, 640],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": [[None, 768, 1024, None]] * 4, "transformer_layers_per_block": 2, "attention_head_dim": 8,
}  # fmt: skip
MOST_STEMS = 5
"""With more, the states of all prompts no longer fit a model file."""


@dataclass(frozen=True)
class TextConfig:
    """What tells the base what to make: trainable `words`, or a `table` of the states of pretrained text encoders.

    ``widths`` of the states for the two attentions and, of a table, their numbers of ``tokens`` and the ``form`` of prompt.
    """

    kind: Literal["words", "table"] = "table"
    widths: tuple[int, int] = (768, 1024)
    tokens: tuple[int, int] = (8, 1)
    form: Form = "released"


@dataclass(frozen=True)
class AudioLdm2Config:
    """What `config.json` of a base holds; ``unet`` are the arguments of diffusers' `AudioLDM2UNet2DConditionModel`.

    ``dropped`` is the share of training examples that are told nothing, ``floor_db`` (RMS, full scale) where a stem counts
    as silent. The U-Net ``predicts`` the noise, as published, or the velocity (Salimans and Ho 2022), which a small network
    learns sooner: at high levels the noise is nearly its input. A base that ``hears`` has the latent of what it hears as
    further channels of its input, as AUDIT's (Wang et al. 2023); it is trained as a whole (`ComponetConfig.trains`).
    ``tasks`` are those that training draws, with at most ``most`` stems wanted at once; what it never drew is not answered.
    """

    stems: tuple[str, ...] = ("bass", "drums", "guitar", "piano")
    codec: MelVaeConfig | MelPatchesConfig = field(default_factory=MelVaeConfig)
    unet: dict[str, Any] = field(default_factory=lambda: dict(LARGE))
    text: TextConfig = field(default_factory=TextConfig)
    predicts: Predicts = "noise"
    hears: bool = False
    tasks: tuple[Task, ...] = TASKS
    most: int = MOST_STEMS
    dropped: float = 0.1
    floor_db: float = -60.0
    timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195

    def __post_init__(self) -> None:
        check_shares(dropped=self.dropped)
        if len(self.stems) > MOST_STEMS:
            raise ValueError(
                f"stems: {len(self.stems)} of them have {4 ** len(self.stems)} relations; name at most {MOST_STEMS}"
            )
        channels = self.codec.latent * (1 + self.hears)
        if self.unet.get("in_channels") != channels:
            both = ", and it hears as many" if self.hears else ""
            raise ValueError(
                f"unet.in_channels is {self.unet.get('in_channels')}, not {channels}: the codec's latents have "
                f"{self.codec.latent} channels{both}"
            )
        if not self.tasks or set(self.tasks) - set(TASKS):
            raise ValueError(f"tasks are some of {', '.join(TASKS)}; got {', '.join(self.tasks) or 'none'}")
        if self.most < 1 or (self.most == 1 and "add" in self.tasks):
            raise ValueError(f"most is {self.most}; at least one stem is wanted, and two where tasks has add")

    @property
    def rate(self) -> int:
        """In hertz."""
        return self.codec.rate

    @property
    def window(self) -> int:
        """In samples."""
        return self.codec.window


@dataclass(frozen=True, eq=False)
class Example:
    """A batch to learn from: scaled latents of what is heard and what is wanted, which stems these are, who is told."""

    heard: Tensor
    wanted: Tensor
    heard_stems: Tensor
    wanted_stems: Tensor
    told: Tensor


class AudioLdm2(nn.Module):
    """Codec, U-Net and words. ``scale`` brings latents to unit variance: that of the first batch, unless it was published."""

    scale: Tensor

    def __init__(self, config: AudioLdm2Config) -> None:
        super().__init__()
        self.config = config
        made = MelPatches(config.codec) if isinstance(config.codec, MelPatchesConfig) else MelVae(config.codec)
        self.codec = made.requires_grad_(False)
        self.unet = audioldm2_unet(config.unet)
        count, text = len(config.stems), config.text
        self.words = Words(count, text.widths) if text.kind == "words" else PromptTable(count, text.widths, text.tokens)
        self.register_buffer("scale", torch.tensor(0.0))
        # No buffer: it stays on the CPU, in float64, which some devices lack.
        self.alphas_cumprod = scaled_linear_beta(config.timesteps, config.beta_start, config.beta_end)
        self._sampler = Sampler(config.stems, config.tasks, config.most)

    def encode(self, wave: Tensor) -> Tensor:
        """Scaled latents (..., channel, time', mel') of waves (..., time)."""
        return self.codec.encode(wave.clamp(-1, 1)) * self.scale

    def levels(self, latent: Tensor) -> Tensor:
        """Log-mels (..., frame, band) of scaled latents."""
        return self.codec.levels(latent / self.scale)

    @torch.no_grad()
    def submixes(self, stems: Tensor) -> Tensor:
        """Latents, not scaled, of all mixes (B, 2^stem, channel, time', mel') of stems (B, stem, channel, time).

        In the order of `componet_prompts.subsets`; stems below the floor are left out, so that what sounds can be told
        from latents.
        """
        waves = stems.mean(2) * self.sounding(stems)[..., None]
        chosen = subsets(stems.shape[1]).to(waves)
        mixes = torch.einsum("bkt,sk->bst", waves, chosen).clamp(-1, 1)
        return torch.cat([self.codec.encode(part) for part in mixes.split(4, 1)], 1)

    def sounding(self, stems: Tensor) -> Tensor:
        """Which stems (B, stem, ...) are above the floor: (B, stem), bool. Of latents of all mixes: which change them."""
        if stems.ndim == 4:
            return stems.square().mean((2, 3)) > 10 ** (self.config.floor_db / 10)
        alone = [2**index for index in range(len(self.config.stems))]
        return (stems[:, alone] - stems[:, :1]).abs().flatten(2).amax(2) > 1e-3

    @torch.no_grad()
    def example(self, batch: Tensor, generator: torch.Generator) -> Example:
        """Draw relations for stems (B, stem, channel, time), or for the latents of all their mixes (see `submixes`)."""
        sounding = self.sounding(batch)
        heard, wanted = (side.to(batch.device) for side in self._sampler.draw(sounding, generator))
        if batch.ndim == 4:
            mono = batch.mean(2) * sounding[..., None]
            both = [torch.einsum("bkt,bk->bt", mono, side.to(mono)).clamp(-1, 1) for side in (heard, wanted)]
            before, after = self.codec.encode(torch.stack(both)).unbind()
        else:
            bits = torch.tensor([2**index for index in range(heard.shape[1])], device=batch.device)
            rows = torch.arange(len(batch), device=batch.device)
            before, after = (batch[rows, (side * bits).sum(1)].float() for side in (heard, wanted))
        if self.scale == 0:
            self.scale.copy_(1 / after.square().mean().sqrt())
        told = torch.rand(len(batch), generator=generator, device=generator.device) >= self.config.dropped
        return Example(before * self.scale, after * self.scale, heard, wanted, told.to(batch.device))

    def noisy(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents at a random time step each, those steps (B,), and what the U-Net should say of them."""
        device = generator.device
        time = torch.randint(self.config.timesteps, (len(clean),), generator=generator, device=device).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator, device=device).to(clean.device)
        noisy, target = diffused(clean, noise, self.alphas_cumprod.float().to(clean.device)[time], self.config.predicts)
        return noisy, time, target

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of what it predicts, for mixes of drawn stems; the words name what was drawn as heard, too."""
        drawn = self.example(batch, generator)
        noisy, time, target = self.noisy(drawn.wanted, generator)
        words = self.words(drawn.heard_stems, drawn.wanted_stems, drawn.told)
        guess: Tensor = self.unet(noisy, time, **words.context()).sample
        return (guess - target).square().mean()
