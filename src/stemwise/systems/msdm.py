"""The priors of MSDM (Mariani et al. 2024): one denoiser of all stems, or an independent one for each.

States are waveforms (batch, stem, time), mono, all stems at one noise level. Estimates are limited to full scale, in
training too, as published: samples beyond it get no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from stemwise.diffusion import Denoiser, Edm, NoiseSource, SpectralEdm, clamped, log_normal
from stemwise.diffusion.denoisers import Net, align
from stemwise.errors import ModelError
from stemwise.nets.unet1d import UNet1d, UNet1dConfig, lower
from stemwise.systems.spectra import KNOTS, Spectra, powers

Rule = Literal["euler", "heun", "dpmpp_2m", "dpm2_ancestral", "ancestral"]
LikelihoodName = Literal["dirac", "gaussian", "gaussian-exact", "even", "projection"]


@dataclass(frozen=True)
class Separation:
    """How a mixture is separated; ``msdm-slakh.yaml`` holds the published values, these defaults need fewer steps.

    ``drop`` is the stem that the Dirac likelihood eliminates, ``gamma`` the Gaussian's width over sigma, as the paper
    counts it. ``churn`` and ``resample`` (the corrector) as in `diffusion.sample`. ``temperature`` scales the noise that is started
    from: 1 draws a sample of the stems, 0 goes for their mean given the mixture, which has the least squared error and which
    it meets exactly where stems are Gaussian.
    """

    likelihood: LikelihoodName = "projection"
    rule: Rule = "euler"
    steps: int = 12
    sigma_min: float = 0.01
    sigma_max: float = 0.5
    rho: float = 7.0
    churn: float = 4.0
    resample: int = 2
    drop: str = ""
    gamma: float = 0.75
    temperature: float = 1.0


@dataclass(frozen=True)
class Generation:
    """How stems are made anew; the published sampler starts at 20, where the networks were never trained."""

    rule: Rule = "dpmpp_2m"
    sigma_min: float = 1e-3
    sigma_max: float = 1.0
    rho: float = 7.0
    churn: float = 0.0
    resample: int = 1


@dataclass(frozen=True)
class MsdmConfig:
    """What `config.json` of a model holds: ``window`` in samples at ``rate`` Hz, training noise ln sigma ~ N(mean, std).

    ``net.sources`` is the number of stems, or 1 where each stem has a network of its own (`WeakMsdm`). With ``spectra`` (see
    `systems.spectra`) a network need not learn the mean spectrum of each stem: it corrects a Wiener filter
    (`diffusion.SpectralEdm`), and ``sigma_data`` is not used. The published models have none.
    """

    stems: tuple[str, ...] = ("bass", "drums", "guitar", "piano")
    rate: int = 22050
    window: int = 2**18
    sigma_data: float = 0.2
    spectra: Spectra = ()
    sigma_mean: float = -3.0
    sigma_std: float = 1.0
    net: UNet1dConfig = field(default_factory=UNet1dConfig)
    separation: Separation = field(default_factory=Separation)
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        if self.net.sources not in (1, len(self.stems)):
            raise ValueError(
                f"net.sources is {self.net.sources}; it must be the number of stems, {len(self.stems)} "
                f"({', '.join(self.stems)}), or 1 for a network for each stem"
            )
        if self.window % self.net.multiple:
            raise ValueError(f"window ({self.window}) must be a multiple of {self.net.multiple}, the network's step")
        if self.spectra and [len(row) for row in self.spectra] != [len(KNOTS)] * len(self.stems):
            raise ValueError(f"spectra must be a row of {len(KNOTS)} numbers for each of {len(self.stems)} stems")
        if self.separation.drop not in ("", *self.stems):
            raise ValueError(f"separation.drop is {self.separation.drop!r}; choose from {', '.join(self.stems)}")


class Msdm(nn.Module):
    """E[clean | x] for x (B, stem, time) and sigma (B,) or (): one network of all stems."""

    def __init__(self, config: MsdmConfig) -> None:
        super().__init__()
        if config.net.sources != len(config.stems):
            raise ModelError(
                f"net.sources is {config.net.sources}, expected {len(config.stems)}: a joint prior is one network of all "
                f"stems ({', '.join(config.stems)}); for a network for each stem use the type msdm-weak"
            )
        self.config = config
        self.net = UNet1d(config.net)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate all stems."""
        return _denoiser(self.net, self.config, x.shape[-1])(x, sigma)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """The published training loss of stems (B, stem, channel, time); channels are averaged to mono."""
        clean = batch.mean(2)
        edm = _edm(self.net, self.config, clean.shape[-1])
        return denoising_loss(edm, self.config, clean, noise_from(generator, clean.device))

    def lower(self, dtype: torch.dtype) -> None:
        """Evaluate the network in another type from now on."""
        lower(self.net, dtype)


class WeakMsdm(nn.Module):
    """Weakly supervised MSDM: a network for every stem, trained without the others; E[clean | x] as `Msdm`."""

    def __init__(self, config: MsdmConfig) -> None:
        super().__init__()
        if config.net.sources != 1:
            raise ModelError(
                f"net.sources is {config.net.sources}, expected 1: the type msdm-weak has a network for each stem"
            )
        self.config = config
        self.nets = nn.ModuleList(UNet1d(config.net) for _ in config.stems)
        self._stacked: dict[str, Tensor] = {}

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate every stem with its own network; without gradients in one batched evaluation."""
        net = self._one_by_one if torch.is_grad_enabled() else self._batched
        return _denoiser(net, self.config, x.shape[-1])(x, sigma)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """As `Msdm.loss`; every stem of every window at a noise level of its own."""
        clean = batch.mean(2)
        source = noise_from(generator, clean.device)
        parts = enumerate(zip(self._networks(), clean.split(1, dim=1)))
        losses = [
            denoising_loss(_edm(net, self.config, stem.shape[-1], k), self.config, stem, source)
            for k, (net, stem) in parts
        ]
        return torch.stack(losses).mean()

    def lower(self, dtype: torch.dtype) -> None:
        """Evaluate the networks in another type from now on."""
        for net in self._networks():
            lower(net, dtype)

    def _networks(self) -> Iterator[UNet1d]:
        for net in self.nets:
            assert isinstance(net, UNet1d)
            yield net

    def _one_by_one(self, x: Tensor, label: Tensor) -> Tensor:
        """All raw networks, with gradients."""
        return torch.cat([net(stem, label) for net, stem in zip(self._networks(), x.split(1, dim=1))], dim=1)

    def _batched(self, x: Tensor, label: Tensor) -> Tensor:
        """All raw networks at once, their weights side by side in one tensor each (no copies: see `_stack`)."""
        first, stacked = self.nets[0], self._stack()

        def one(weights: dict[str, Tensor], stem: Tensor) -> Tensor:
            out: Tensor = functional_call(first, weights, (stem[:, None], label))
            return out[:, 0]

        return vmap(one, in_dims=(0, 1), out_dims=1)(stacked, x)

    def _stack(self) -> dict[str, Tensor]:
        """The weights with a stem axis in front; the networks' own become views of them, so memory stays the same."""
        known = next(iter(self._stacked.values()), None)
        present = next(self.nets[0].parameters())
        if known is None or known.data_ptr() != present.data_ptr() or known.dtype != present.dtype:
            self._stacked, _ = stack_module_state(list(self.nets))
            for k, net in enumerate(self.nets):
                for name, parameter in net.named_parameters():
                    parameter.data = self._stacked[name].data[k]
        return self._stacked


def _denoiser(net: Net, config: MsdmConfig, frames: int) -> Denoiser:
    return clamped(_edm(net, config, frames))


def _edm(net: Net, config: MsdmConfig, frames: int, stem: int | None = None) -> Edm | SpectralEdm:
    """Preconditioning of a network of all stems or of one; not limited to full scale."""
    if not config.spectra:
        return Edm(net, config.sigma_data)
    power = powers(config.spectra, config.rate)(frames)
    return SpectralEdm(net, power if stem is None else power[stem : stem + 1])


def denoising_loss(edm: Edm | SpectralEdm, config: MsdmConfig, clean: Tensor, source: NoiseSource) -> Tensor:
    """Mean over the batch (B, stem, time) of the EDM-weighted squared error, a noise level for each item.

    Draws from `source`: the levels (B,), then the noise (Karras et al. 2022, table 1).
    """
    sigma = log_normal(source, clean.shape[:1], config.sigma_mean, config.sigma_std)
    error = clamped(edm)(clean + align(sigma, clean) * source(clean.shape), sigma) - clean
    return (align(edm.weight(sigma), error) * error.square()).mean()


def noise_from(generator: torch.Generator, device: torch.device) -> NoiseSource:
    """Standard normal noise of a generator, on another device."""
    return lambda shape: torch.randn(shape, generator=generator, device=generator.device).to(device)
