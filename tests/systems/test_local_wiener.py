"""Stems as Gaussian noise of a power that a network finds: against the Wiener filter, and as a prior that separates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stemwise.checkpoint import build, load_model, save_model
from stemwise.diffusion import euler, karras, last, sample, seeded
from stemwise.errors import ModelError
from stemwise.systems.joint import Joint, likelihood_of
from stemwise.systems.likelihoods import LocalProjection
from stemwise.systems.local_wiener import LocalWiener
from stemwise.systems.msdm import Msdm, WeakMsdm
from stemwise.systems.spectra import KNOTS, powers

RATE, FRAMES, BINS = 8000, 4096, 128
LOW = tuple(0.2 if knot < 400 else 0.01 for knot in KNOTS)
HIGH = tuple(0.01 if knot < 400 else 0.1 for knot in KNOTS)
POWER = powers((LOW, HIGH), RATE)(2 * BINS)
CONFIG = {
    "stems": ["bass", "drums"],
    "rate": RATE,
    "window": FRAMES,
    "spectra": [LOW, HIGH],
    "net": {
        "sources": 2,
        "hop": 64,
        "patches": [[64, 2], [64, 8]],
        "widths": [8, 16],
        "depths": [1, 1],
        "embedding": 16,
    },
    "separation": {"steps": 3, "temperature": 0.0, "churn": 0.0, "resample": 1, "sigma_max": 1.0},
}


def noise(count: int = 4, seed: int = 0) -> Tensor:
    """Stationary stems (count, 2, frames) with the two spectra."""
    white = seeded(seed)((count, 2, FRAMES))
    return torch.fft.irfft(torch.fft.rfft(white) * powers((LOW, HIGH), RATE)(FRAMES).sqrt(), n=FRAMES)


def silent(features: Tensor, label: Tensor) -> Tensor:
    return torch.zeros_like(features[:, :, 0])


def prior(kind: str = "msdm") -> Msdm | WeakMsdm:
    torch.manual_seed(0)
    made = build(kind, {**CONFIG, "net": {**CONFIG["net"], "sources": 2 if kind == "msdm" else 1}})  # type: ignore[dict-item]
    assert isinstance(made, Msdm | WeakMsdm)
    return made.eval()


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_a_silent_network_leaves_the_wiener_filter_and_a_loss_near_one(sigma: float) -> None:
    clean, level = noise(32), torch.full((32,), sigma)
    local = LocalWiener(silent, POWER, 64)
    error = local(clean + sigma * seeded(1)(tuple(clean.shape)), level) - clean
    loss = (local.weight(level)[..., None] * error**2).mean((0, 2))
    torch.testing.assert_close(loss, torch.ones(2), atol=0.12, rtol=0)


def test_a_network_that_knows_when_a_stem_plays_does_better_than_the_mean() -> None:
    clean, sigma = noise(), 0.1
    clean[..., FRAMES // 2 :] = 0
    x, level = clean + sigma * seeded(1)(tuple(clean.shape)), torch.full((4,), sigma)

    def knows(features: Tensor, label: Tensor) -> Tensor:
        change = torch.zeros_like(features[:, :, 0])
        change[:, :, features.shape[3] // 2 + 1 :] = -12
        return change

    def error(net: object) -> float:
        return float((LocalWiener(net, POWER, 64)(x, level) - clean).square().mean())  # type: ignore[arg-type]

    assert error(knows) < 0.75 * error(silent)


def test_a_network_that_is_not_trusted_leaves_the_wiener_filter() -> None:
    x, sigma = noise(), torch.tensor(0.1)

    def loud(features: Tensor, label: Tensor) -> Tensor:
        return torch.full_like(features[:, :, 0], 3.0)

    def estimate(net: object, trust: float) -> Tensor:
        return LocalWiener(net, POWER, 64, trust)(x, sigma)  # type: ignore[arg-type]

    torch.testing.assert_close(estimate(loud, 0.0), estimate(silent, 1.0))
    half = 1.5 * torch.ones(())
    torch.testing.assert_close(
        estimate(loud, 0.5), LocalWiener(silent, POWER * half.exp(), 64)(x, sigma), atol=0.02, rtol=0
    )


def test_the_transform_has_an_inverse_and_the_variance_is_the_error() -> None:
    clean, sigma = noise(32), torch.tensor(0.1)
    local = LocalWiener(silent, POWER, 64)
    torch.testing.assert_close(
        local.transform.signal(local.transform.spectrogram(clean), FRAMES), clean, atol=1e-5, rtol=1e-4
    )
    mean, variance = local.moments(clean + sigma * seeded(1)(tuple(clean.shape)), sigma)
    inner = slice(4, -4)
    error = (mean - local.transform.spectrogram(clean)).abs().square()[:, :, inner] / torch.hann_window(
        2 * BINS
    ).square().sum()
    torch.testing.assert_close(error.mean((0, 2, 3)), variance[:, :, inner].mean((0, 2, 3)), rtol=0.1, atol=0)


def test_projection_by_the_variances_is_near_the_wiener_filter_and_sums_in_every_step() -> None:
    truth = noise()
    mix, power = truth.sum(1), powers((LOW, HIGH), RATE)(FRAMES)
    best = torch.fft.irfft(torch.fft.rfft(mix)[:, None] * (power / power.sum(0)), n=FRAMES)
    made = LocalProjection(LocalWiener(silent, POWER, 64)).condition(silent, mix, 2, euler)
    start = torch.zeros_like(truth)
    got = last(sample(made.denoiser, karras(8, 0.01, 2.0), seeded(0), constraint=made.constraint, x=start)).x
    torch.testing.assert_close(got.sum(1), mix, atol=1e-5, rtol=1e-4)
    assert float((got - truth).square().mean()) < 1.2 * float((best - truth).square().mean())


@pytest.mark.parametrize("kind", ["msdm", "msdm-weak"])
def test_such_priors_train_separate_and_are_stored(kind: str, tmp_path: Path) -> None:
    module, truth = prior(kind), noise()
    loss = module.loss(truth[:, :, None], torch.Generator().manual_seed(0))
    loss.backward()
    missing = [name for name, p in module.named_parameters() if p.grad is None and "back.bias" not in name]
    assert not missing
    again = load_model(save_model(tmp_path / "model", module))
    assert isinstance(again, Msdm | WeakMsdm)
    assert again.config == module.config
    mix = truth.sum(1)[:, None]
    stems, lacking = Joint.of(module).separate(mix, 3)
    torch.testing.assert_close(stems.sum(1), mix, atol=1e-5, rtol=1e-4)
    assert float(lacking.abs().max()) < 1e-4
    torch.testing.assert_close(Joint.of(again).separate(mix, 3)[0], stems)
    assert isinstance(likelihood_of(module.config.separation, module), LocalProjection)


def test_independent_networks_give_the_same_one_by_one_and_at_once() -> None:
    module, x, sigma = prior("msdm-weak"), noise(), torch.full((4,), 0.1)
    one_by_one = module(x, sigma).detach()
    with torch.no_grad():
        torch.testing.assert_close(module(x, sigma), one_by_one, atol=1e-5, rtol=1e-4)
        other = module(torch.cat([x[:, :1], 0 * x[:, 1:]], 1), sigma)
    torch.testing.assert_close(other[:, 0], one_by_one[:, 0], atol=1e-5, rtol=1e-4)


def test_independent_networks_separate_by_batched_evaluations_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module, paths = prior("msdm-weak"), []
    assert isinstance(module, WeakMsdm)
    for path in ("_one_by_one", "_batched"):
        original = getattr(module, path)
        monkeypatch.setattr(module, path, lambda *args, o=original, p=path: paths.append(p) or o(*args))
    Joint.of(module).separate(noise().sum(1)[:, None], 3)
    assert paths == ["_batched"] * 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spectra": []}, "needs the stems' mean spectra"),
        ({"spectra": [LOW]}, "a row of 15 numbers for each of 2 stems"),
        ({"net": {"patches": [[64, 2], [34, 4]]}}, "must cut their bins evenly"),
        ({"net": {"depths": [1]}}, "must be equally many"),
        ({"net": {"patches": [[66, 2]], "hop": 66}}, "must be a multiple of 4"),
        ({"net": {"patches": [[64, 2]], "hops": 3}}, "config.net.hops: unknown field"),
    ],
)
def test_configurations_that_cannot_be(change: dict[str, object], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        build("msdm", {**CONFIG, **change})
