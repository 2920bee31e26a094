"""Caches of frames and files of statistics: never the wrong ones, never half of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_embedding import Toy

from stemwise.audio_io import write_audio
from stemwise.embeddings import FrameCache, cache_folder, read_frames, read_statistics, write_statistics
from stemwise.errors import MetricError
from stemwise.metrics.frechet import Gaussian, frechet_distance
from stemwise.metrics.moments import Moments


def wave(seed: int, seconds: float = 1.0, rate: int = 8000, channels: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (0.1 * random.standard_normal((channels, int(seconds * rate)))).astype(np.float32)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    write_audio(tmp_path / "song.wav", wave(0), 8000)
    return tmp_path / "song.wav"


def test_frames_of_a_file_are_those_of_its_mono_signal(song: Path) -> None:
    np.testing.assert_allclose(read_frames(song, Toy()), Toy().embed(wave(0).mean(0), 8000), atol=1e-6)


def test_a_file_is_heard_once_wherever_it_lies(song: Path, tmp_path: Path) -> None:
    toy = Toy()
    cache = FrameCache(toy, tmp_path / "cache")
    first = cache.frames(song)
    moved = song.rename(tmp_path / "moved.wav")
    np.testing.assert_array_equal(cache.frames(moved), first)
    assert toy.heard == 1
    assert not list(song.parent.glob("*.npy"))


def test_other_content_and_other_versions_are_heard_again(song: Path, tmp_path: Path) -> None:
    toy = Toy()
    FrameCache(toy, tmp_path).frames(song)
    FrameCache(Toy("2"), tmp_path).frames(song)
    song.unlink()
    write_audio(song, wave(1), 8000)
    other = FrameCache(toy, tmp_path).frames(song)
    assert toy.heard == 2
    assert len(list(tmp_path.rglob("*.npy"))) == 3
    np.testing.assert_array_equal(other, read_frames(song, Toy()))


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY nonsense", None])
def test_a_damaged_entry_is_made_again(song: Path, tmp_path: Path, damage: bytes | None) -> None:
    cache = FrameCache(Toy(), tmp_path)
    frames = cache.frames(song)
    entry = next(tmp_path.rglob("*.npy"))
    if damage is None:
        np.save(entry, np.zeros((3, 5), np.float32))
    else:
        entry.write_bytes(damage)
    np.testing.assert_array_equal(cache.frames(song), frames)
    np.testing.assert_array_equal(np.load(entry), frames)


def test_without_a_usable_folder_everything_still_works(song: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (None, tmp_path / "file"):
        assert FrameCache(Toy(), folder).frames(song).shape == (10, 2)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEMWISE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("STEMWISE_CACHE", "")
    assert cache_folder() is None
    monkeypatch.delenv("STEMWISE_CACHE")
    found = cache_folder()
    assert found is not None and found.is_absolute() and "stemwise" in str(found)


def test_statistics_come_back(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).standard_normal((50, 2))
    file = write_statistics(tmp_path / "s.npz", Toy(), Moments.of(frames))
    assert frechet_distance(read_statistics(file, Toy()), Gaussian.of(frames)) == pytest.approx(0, abs=1e-9)
    with np.load(file) as archive:  # the keys that fadtk reads
        np.testing.assert_allclose(archive["toy.mu"], frames.mean(0))
        np.testing.assert_allclose(archive["toy.cov"], np.cov(frames.T))
        assert int(archive["toy.count"]) == 50


def test_foreign_statistics(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).standard_normal((50, 2))
    mu, cov = frames.mean(0), np.cov(frames.T)
    for name, entries in {
        "fadtk": {"toy.mu": mu, "toy.cov": cov, "vggish.mu": np.zeros(128), "vggish.cov": np.eye(128)},
        "plain": {"mu": mu, "cov": cov},
        "fid": {"mu": mu, "sigma": cov},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **entries)
        found = read_statistics(tmp_path / f"{name}.npz", Toy())
        assert frechet_distance(found, Gaussian.of(frames)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"vggish.mu": np.zeros(128), "vggish.cov": np.eye(128)}, "statistics of vggish, not of toy"),
        ({"mu": np.zeros(3), "cov": np.eye(3)}, "2 dimensions"),
        ({"toy.mu": np.zeros(3), "toy.cov": np.eye(3)}, "2 dimensions"),
        ({"toy.mu": np.zeros(2)}, "do not fit"),
        ({"toy.mu": np.zeros(2), "toy.cov": np.eye(2), "toy.version": "0"}, "other weights"),
        ({"toy.mu": np.zeros(2), "toy.cov": np.full((2, 2), np.nan)}, "NaN"),
        ({"frames": np.zeros((5, 2))}, "holds frames"),
    ],
)
def test_statistics_that_do_not_fit(tmp_path: Path, entries: dict, problem: str) -> None:
    np.savez(tmp_path / "s.npz", **entries)
    with pytest.raises(MetricError, match=problem):
        read_statistics(tmp_path / "s.npz", Toy())


def test_not_a_statistics_file(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    np.savez(tmp_path / "pickled.npz", mu=np.array([{}], dtype=object))
    for name in ("text", "array", "pickled", "missing"):
        with pytest.raises(MetricError, match=name):
            read_statistics(tmp_path / f"{name}.npz", Toy())
