from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.audio_io import write_audio
from stemwise.coherence.windows import aligned_windows
from stemwise.errors import AudioFileError, QueryError, ScoreError


@given(lengths=st.lists(st.integers(16, 90), min_size=1, max_size=3), hop=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_windows_cover_every_sample_at_the_same_places(lengths: list[int], hop: int) -> None:
    """At 16 samples a second, windows of 12: every window is what a plain slice of the padded signals is."""
    signals = {str(i): 1 + np.arange(n, dtype=np.float32) + 1000 * i for i, n in enumerate(lengths)}
    longest = max(lengths)
    whole = np.stack([np.pad(signal, (0, longest - len(signal))) for signal in signals.values()])
    covered = np.zeros(longest, bool)
    starts = []
    for start, window in aligned_windows(signals, 16, 12, hop, rate=16):
        assert np.array_equal(window, whole[:, start : start + 12])
        covered[start : start + 12] = True
        starts.append(start)
    assert covered.all()
    assert starts == sorted(set(starts))
    assert starts[:-1] == list(range(0, hop * (len(starts) - 1), hop))


def test_a_song_shorter_than_a_window_is_padded() -> None:
    ((start, window),) = aligned_windows({"a": np.ones(20, np.float32)}, 16, 32, 16, rate=16)
    assert start == 0
    assert np.array_equal(window, [[1.0] * 20 + [0.0] * 12])


def test_files_of_other_rates_and_channels_are_one_mono_signal(tmp_path: Path) -> None:
    """A tone at 48 kHz in stereo and the same at 8 kHz in mono."""
    for name, rate, channels in (("a", 48000, 2), ("b", 8000, 1)):
        tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
        write_audio(tmp_path / f"{name}.wav", np.tile(tone, (channels, 1)).astype(np.float32), rate)
    files = {name: tmp_path / f"{name}.wav" for name in "ab"}
    windows = [window for _, window in aligned_windows(files, 16000, 16000, 8000)]
    assert len(windows) == 3
    assert np.abs(windows[1][0] - windows[1][1]).max() < 1e-3


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """What is held for the next window never exceeds a window and a hop."""
    import tracemalloc

    write_audio(tmp_path / "long.wav", np.zeros((1, 16000 * 240), np.float32) + 0.1, 16000)
    tracemalloc.start()
    for _ in aligned_windows({"long": tmp_path / "long.wav"}, 16000, 80000, 40000):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6, peak  # the whole song is 15 MB


def test_too_short_and_unusable_signals_are_named(tmp_path: Path) -> None:
    write_audio(tmp_path / "click.wav", np.ones((1, 160), np.float32), 16000)
    long = np.ones(32000, np.float32)
    with pytest.raises(ScoreError, match=r"click.wav: 0.010 s long"):
        list(aligned_windows({"a": long, "b": tmp_path / "click.wav"}, 16000, 16000, 8000, rate=16000))
    with pytest.raises(ScoreError, match=r"made: 0.100 s long"):
        list(aligned_windows({"a": long, "made": long[:1600]}, 16000, 16000, 8000, rate=16000))
    with pytest.raises(QueryError, match="NaN"):
        list(aligned_windows({"a": np.full(32000, np.nan)}, 16000, 16000, 8000, rate=16000))
    with pytest.raises(QueryError, match="rate"):
        list(aligned_windows({"a": long}, 16000, 16000, 8000))
    with pytest.raises(AudioFileError, match="no such file"):
        list(aligned_windows({"a": tmp_path / "none.wav"}, 16000, 16000, 8000))
