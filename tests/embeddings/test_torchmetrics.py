"""FAD as a torchmetrics.Metric: the same number, in any batches, over several processes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from toy_embedding import Toy

from stemwise.errors import MetricError
from stemwise.metrics.frechet import frechet_audio_distance

pytest.importorskip("torchmetrics")


def signals(seed: int, gain: float, count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    loudness = gain * (1 + 0.1 * torch.arange(count))[:, None, None]
    return loudness * torch.randn(count, 2, 8000, generator=generator)


def frames(audio: torch.Tensor) -> np.ndarray:
    return np.concatenate([Toy().embed(signal.numpy(), 8000) for signal in audio.mean(1)])


def expected() -> float:
    return frechet_audio_distance(frames(signals(0, 0.1)), frames(signals(1, 0.15)))


def metric(*parts: slice) -> object:
    from stemwise.embeddings.torchmetrics import FrechetAudioDistance

    made = FrechetAudioDistance(Toy())
    for part in parts:
        made.update(signals(0, 0.1)[part], 8000, real=True)
        made.update(signals(1, 0.15)[part], 8000, real=False)
    return made


@pytest.mark.parametrize("parts", [[slice(0, 6)], [slice(0, 1), slice(1, 6)]])
def test_batches(parts: list[slice]) -> None:
    assert float(metric(*parts).compute()) == pytest.approx(expected(), abs=1e-10)  # type: ignore[attr-defined]


def test_states_of_two_processes_merge() -> None:
    first, second = metric(slice(0, 2)), metric(slice(2, 6))
    first.merge_state(second)  # type: ignore[attr-defined]
    assert float(first.compute()) == pytest.approx(expected(), abs=1e-10)  # type: ignore[attr-defined]


def test_gathered_states_are_reduced_by_the_same_function() -> None:
    from stemwise.embeddings.torchmetrics import _pooled

    whole, first, second = metric(slice(0, 6)), metric(slice(0, 2)), metric(slice(2, 6))
    gathered = torch.stack([first.real, second.real])  # type: ignore[attr-defined]
    torch.testing.assert_close(_pooled(gathered), whole.real)  # type: ignore[attr-defined]


def test_half_precision_around_it_and_reset() -> None:
    made = metric(slice(0, 6))
    assert float(made.half().compute()) == pytest.approx(expected(), abs=1e-10)  # type: ignore[attr-defined]
    made.reset()  # type: ignore[attr-defined]
    with pytest.raises(MetricError), pytest.warns(UserWarning):
        made.compute()  # type: ignore[attr-defined]


def test_torchmetrics_is_not_imported_with_stemwise() -> None:
    code = (
        "import stemwise.embeddings.torchmetrics, stemwise.metrics.frechet, sys; print('torchmetrics' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
