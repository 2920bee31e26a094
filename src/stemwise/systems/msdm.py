"""The priors of MSDM (Mariani et al. 2024): one denoiser of all stems, or an independent one for each.

States are waveforms (batch, stem, time), mono, all stems at one noise level. Estimates are limited to full scale, in
training too, as published: samples beyond it get no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from stemwise.diffusion import Edm, NoiseSource, Rule, SpectralEdm, clamped, log_normal
from stemwise.diffusion.denoisers import Net, align
from stemwise.errors import ModelError, QueryError
from stemwise.nets.powernet import PowerNet, PowerNetConfig
from stemwise.nets.unet1d import UNet1d, UNet1dConfig, lower
from stemwise.systems.local_wiener import LocalWiener
from stemwise.systems.spectra import KNOTS, Spectra, powers
from stemwise.systems.system import STEPS

Preconditioned = Edm | SpectralEdm | LocalWiener
LikelihoodName = Literal["dirac", "gaussian", "gaussian-exact", "even", "projection", "adaptive"]


def likelihood_named(name: str) -> LikelihoodName:
    """Raises QueryError for an unknown likelihood."""
    if name not in get_args(LikelihoodName):
        raise QueryError(f"unknown likelihood {name!r}; choose {', '.join(get_args(LikelihoodName))}")
    return cast(LikelihoodName, name)


@dataclass(frozen=True)
class Separation:
    """How a mixture is separated; `PUBLISHED_DIRAC` and `PUBLISHED_GAUSSIAN` are the published ways, the defaults need fewer steps.

    ``rule`` is the step rule, but `gaussian-exact` has its own. ``drop`` is the stem that the Dirac likelihood eliminates (empty:
    the first), ``gamma`` the Gaussian's width over sigma, as the paper counts it. ``churn`` and ``resample`` (the corrector) as in
    `diffusion.sample`. ``temperature`` scales the noise that is started from: 1 draws a sample of the stems, 0 goes for their mean
    given the mixture, which has the least squared error; where stems are Gaussian it meets that for a large ``sigma_max``, while at
    0.5 and 12 steps one of standard deviation 0.2 gets 0.67 of a mixture of which it is 0.76. None is 0 for the projection, 1 for
    all others. ``trust`` is how much of its network a prior of powers believes in the projection: estimates on
    the way lack the noise of its training and have more of each other in them, so it is too sure.
    """

    likelihood: LikelihoodName = "projection"
    rule: Rule = "euler"
    steps: int = 12
    sigma_min: float = 0.01
    sigma_max: float = 0.5
    rho: float = 7.0
    churn: float = 0.0
    resample: int = 1
    drop: str = ""
    gamma: float = 0.75
    temperature: float | None = None
    trust: float = 1.0

    @property
    def start(self) -> float:
        """``temperature``, resolved."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.likelihood in ("projection", "adaptive") else 1.0


PUBLISHED_DIRAC = Separation("dirac", "euler", 150, 1e-4, 1.0, churn=20.0, resample=2)
"""Of the joint model, which drops the bass; of the weakly supervised ones the churn is 40 (Mariani et al. 2024)."""
PUBLISHED_GAUSSIAN = Separation("gaussian", "euler", 150, 1e-4, 1.0, churn=40.0, resample=2)
"""Of both kinds."""


@dataclass(frozen=True)
class Generation:
    """How stems are made anew; `PUBLISHED_GENERATION` starts at 20, where the networks were never trained."""

    steps: int = STEPS
    rule: Rule = "dpmpp_2m"
    sigma_min: float = 1e-3
    sigma_max: float = 1.0
    rho: float = 7.0
    churn: float = 0.0
    resample: int = 1


PUBLISHED_GENERATION = Generation(150, "euler", 1e-4, 20.0, churn=20.0)
"""Of whole songs (Mariani et al. 2024)."""
PUBLISHED_ACCOMPANIMENT = Generation(256, "euler", 1e-4, 20.0, churn=10.0)
"""Of some stems beside others."""


@dataclass(frozen=True)
class MsdmConfig:
    """What `config.json` of a model holds: ``window`` in samples at ``rate`` Hz, training noise ln sigma ~ N(mean, std).

    ``net.sources`` is the number of stems, or 1 where each stem has a network of its own (`WeakMsdm`). The published models
    have a U-Net of waveforms and no ``spectra``. With them (see `systems.spectra`) a network need not learn the mean spectrum of
    each stem: that of waveforms corrects a Wiener filter (`diffusion.SpectralEdm`), one of powers finds the filter anew at every
    moment (`LocalWiener`), and ``sigma_data`` is not used. ``accompaniment`` is how stems are made beside others that are given
    (None: as ``generation``).
    """

    stems: tuple[str, ...] = ("bass", "drums", "guitar", "piano")
    rate: int = 22050
    window: int = 2**18
    sigma_data: float = 0.2
    spectra: Spectra = ()
    sigma_mean: float = -3.0
    sigma_std: float = 1.0
    net: UNet1dConfig | PowerNetConfig = field(default_factory=UNet1dConfig)
    separation: Separation = field(default_factory=Separation)
    generation: Generation = field(default_factory=Generation)
    accompaniment: Generation | None = None

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
        if isinstance(self.net, PowerNetConfig) and not self.spectra:
            raise ValueError("a net of powers (patches, widths, depths) needs the stems' mean spectra")
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
        self.net = _network(config.net)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate all stems."""
        return clamped(self.raw(x.shape[-1]))(x, sigma)

    def raw(self, frames: int) -> Preconditioned:
        """The denoiser of so many samples, before it is limited to full scale."""
        return _preconditioned(self.net, self.config, frames)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """The published training loss of stems (B, stem, channel, time); channels are averaged to mono."""
        clean = batch.mean(2)
        return denoising_loss(self.raw(clean.shape[-1]), self.config, clean, noise_from(generator, clean.device))

    def lower(self, dtype: torch.dtype) -> None:
        """Evaluate the network in another type from now on; a `PowerNet` stays as it is."""
        if isinstance(self.net, UNet1d):
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
        self.nets = nn.ModuleList(_network(config.net) for _ in config.stems)
        self._stacked: dict[str, Tensor] = {}

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Estimate every stem with its own network; without gradients in one batched evaluation."""
        return clamped(self.raw(x.shape[-1]))(x, sigma)

    def raw(self, frames: int) -> Preconditioned:
        """The denoiser of so many samples, before it is limited to full scale."""
        return _preconditioned(self._all, self.config, frames)

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """As `Msdm.loss`; every stem of every window at a noise level of its own."""
        clean = batch.mean(2)
        source = noise_from(generator, clean.device)
        parts = enumerate(zip(self.nets, clean.split(1, dim=1)))
        losses = [
            denoising_loss(_preconditioned(net, self.config, stem.shape[-1], k), self.config, stem, source)
            for k, (net, stem) in parts
        ]
        return torch.stack(losses).mean()

    def lower(self, dtype: torch.dtype) -> None:
        """Evaluate the networks in another type from now on, as `Msdm.lower`."""
        self._stacked = {}
        for net in self.nets:
            if isinstance(net, UNet1d):
                lower(net, dtype)

    def _all(self, x: Tensor, label: Tensor) -> Tensor:
        return self._one_by_one(x, label) if torch.is_grad_enabled() else self._batched(x, label)

    def _one_by_one(self, x: Tensor, label: Tensor) -> Tensor:
        """All raw networks, with gradients."""
        return torch.cat([net(stem, label) for net, stem in zip(self.nets, x.split(1, dim=1))], dim=1)

    def _batched(self, x: Tensor, label: Tensor) -> Tensor:
        """All raw networks at once, their weights side by side in one tensor each (no copies: see `_stack`)."""
        first, stacked = self.nets[0], self._stack()

        def one(weights: dict[str, Tensor], stem: Tensor) -> Tensor:
            out: Tensor = functional_call(first, weights, (stem[:, None], label))
            return out[:, 0]

        return vmap(one, in_dims=(0, 1), out_dims=1)(stacked, x)

    def _stack(self) -> dict[str, Tensor]:
        """The weights with a stem axis in front; the networks' own become views of them, one after the other, so that there
        is never more than one of them twice.
        """
        tensors = [dict([*net.named_parameters(), *net.named_buffers()]) for net in self.nets]
        for name in tensors[0]:
            known, own = self._stacked.get(name), [each[name] for each in tensors]
            if known is None or not all(map(_same, known, own)):
                self._stacked[name] = torch.stack([tensor.detach() for tensor in own])
                for tensor, view in zip(own, self._stacked[name]):
                    tensor.data = view
        return self._stacked


def _same(view: Tensor, tensor: Tensor) -> bool:
    return view.data_ptr() == tensor.data_ptr() and view.dtype == tensor.dtype


def _network(config: UNet1dConfig | PowerNetConfig) -> UNet1d | PowerNet:
    return PowerNet(config) if isinstance(config, PowerNetConfig) else UNet1d(config)


def _preconditioned(net: Net, config: MsdmConfig, frames: int, stem: int | None = None) -> Preconditioned:
    """The denoiser of a network of all stems or of one."""
    if not config.spectra:
        return Edm(net, config.sigma_data)
    own, mean = slice(stem, None if stem is None else stem + 1), powers(config.spectra, config.rate)
    if isinstance(config.net, PowerNetConfig):
        return LocalWiener(net, mean(2 * config.net.bins)[own], config.net.hop)
    return SpectralEdm(net, mean(frames)[own])


def denoising_loss(denoiser: Preconditioned, config: MsdmConfig, clean: Tensor, source: NoiseSource) -> Tensor:
    """Mean over the batch (B, stem, time) of the EDM-weighted squared error, a noise level for each item.

    Draws from `source`: the levels (B,), then the noise (Karras et al. 2022, table 1).
    """
    sigma = log_normal(source, clean.shape[:1], config.sigma_mean, config.sigma_std)
    error = clamped(denoiser)(clean + align(sigma, clean) * source(clean.shape), sigma) - clean
    return (align(denoiser.weight(sigma), error) * error.square()).mean()


def noise_from(generator: torch.Generator, device: torch.device) -> NoiseSource:
    """Standard normal noise of a generator, on another device."""
    return lambda shape: torch.randn(shape, generator=generator, device=generator.device).to(device)
