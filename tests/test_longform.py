"""Whole songs: exact reconstruction and length, constant memory, progress, cancellation, continuation."""

from __future__ import annotations

import math
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stemwise.audio_io import (
    FLOAT_WAV,
    StemWriter,
    encoding,
    open_audio,
    output_folder,
    read_audio,
    resample,
    write_audio,
)
from stemwise.diffusion import Told
from stemwise.errors import Cancelled
from stemwise.longform import (
    ArraySource,
    Progress,
    Source,
    Split,
    Windowing,
    continue_windows,
    separate_blocks,
    separate_to_files,
    separate_whole,
)

STEMS = ("bass", "drums", "other")
SHARES = (0.5, 0.3, 0.2)


def shares(x: Tensor, told: Told) -> Tensor:
    """A window function that gives every stem a fixed share, raw."""
    return torch.tensor(SHARES)[None, :, None, None] * x[:, None]


def closed(x: Tensor, told: Told) -> Split:
    """Raw estimates that leave half the amplitude open, which is then shared out evenly."""
    raw = 0.5 * shares(x, told)
    residual = x - raw.sum(1)
    return Split(raw + residual[:, None] / len(SHARES), residual)


def noise(channels: int, frames: int, seed: int = 0, peak: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (peak * rng.uniform(-1, 1, (channels, frames))).astype(np.float32)


def tone(channels: int, frames: int, rate: int) -> np.ndarray:
    phase = 2 * np.pi * np.arange(frames) / rate
    return np.stack([0.3 * np.sin(phase * (300 + 50 * c)) for c in range(channels)]).astype(np.float32)


# --- laws ------------------------------------------------------------------------------------------------------------

windowings = st.builds(
    Windowing,
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100]),
    window=st.integers(1_000, 6_000),
    channels=st.sampled_from([1, 2]),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.75]),
    batch=st.integers(1, 6),
)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 30_000),
    rate=st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000]),
    channels=st.integers(1, 8),
    windowing=windowings,
    stems=st.sampled_from([STEMS, ("a", "b", "c")]),
)
def test_stems_sum_to_the_input_at_its_own_rate_and_length(
    frames: int, rate: int, channels: int, windowing: Windowing, stems: tuple[str, ...]
) -> None:
    signal = noise(channels, frames)
    separated, report = separate_whole(ArraySource(signal, rate), closed, stems, windowing)
    assert separated.shape == (3, channels, frames)
    assert separated.dtype == np.float32
    assert (report.rate, report.channels, report.frames) == (rate, channels, frames)
    assert np.abs(signal - separated.sum(0, dtype=np.float64)).max() < 1e-6
    assert report.null_dbfs < -120


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 30_000), channels=st.integers(1, 8), windowing=windowings)
def test_cross_fading_reconstructs_every_stem_at_every_place(frames: int, channels: int, windowing: Windowing) -> None:
    signal = noise(channels, frames)
    separated, report = separate_whole(ArraySource(signal, windowing.rate), shares, STEMS, windowing)
    for stem, share in zip(separated, SHARES):
        assert np.abs(stem - share * signal).max() < 1e-6
    assert report.unassigned_share < 1e-9


def test_stems_in_the_models_band_survive_resampling() -> None:
    for rate, model_rate in ((44_100, 22_050), (48_000, 44_100), (8_000, 44_100)):
        signal = tone(2, 60_000, rate)
        separated, report = separate_whole(ArraySource(signal, rate), shares, STEMS, Windowing(model_rate, 9_000))
        inside = slice(2_000, -2_000)
        for stem, share in zip(separated, SHARES):
            assert np.abs(stem - share * signal)[:, inside].max() < 1e-4
        assert report.unassigned_share < 1e-3


# --- what is left over -----------------------------------------------------------------------------------------------


def test_content_above_the_models_band_goes_to_other() -> None:
    rate = 44_100
    phase = 2 * np.pi * np.arange(80_000) / rate
    low, high = 0.3 * np.sin(phase * 500), 0.1 * np.sin(phase * 15_000)
    fade = np.minimum(1, np.minimum(np.arange(80_000), np.arange(80_000)[::-1]) / 4_000)  # no clicks at the ends
    signal = ((low + high) * fade).astype(np.float32)[np.newaxis]
    separated, report = separate_whole(ArraySource(signal, rate), shares, STEMS, Windowing(16_000, 8_000))
    assert np.abs(separated[0, 0] - 0.5 * low * fade).max() < 1e-3
    assert np.abs(separated[2, 0] - (0.2 * low + high) * fade).max() < 1e-3
    expected = ((high * fade) ** 2).sum() / (signal.astype(np.float64) ** 2).sum()
    assert report.unassigned_share == pytest.approx(expected, rel=1e-2)


def test_without_other_the_remainder_is_shared_evenly() -> None:
    signal = noise(2, 10_000)
    raw = Windowing(44_100, 2_000)
    separated, report = separate_whole(
        ArraySource(signal, 44_100), lambda x, told: 0.5 * shares(x, told), ("a", "b", "c"), raw
    )
    for stem, share in zip(separated, SHARES):
        assert np.abs(stem - (0.5 * share + 0.5 / 3) * signal).max() < 1e-6
    assert report.unassigned_share == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("model_rate", [44_100, 22_050])
def test_what_a_window_function_shared_out_counts_as_unassigned(channels: int, model_rate: int) -> None:
    signal = tone(channels, 90_000, 44_100)
    _, report = separate_whole(ArraySource(signal, 44_100), closed, STEMS, Windowing(model_rate, 7_000))
    assert report.unassigned_share == pytest.approx(0.25, rel=1e-2)


def test_silence_is_exact_and_assigned() -> None:
    _, report = separate_whole(
        ArraySource(np.zeros((2, 9_000), np.float32), 44_100), closed, STEMS, Windowing(22_050, 2_000)
    )
    assert (report.null_dbfs, report.unassigned_share, report.peak) == (-300.0, 0.0, 0.0)


@pytest.mark.parametrize(("gain", "null"), [(1, 0.25), (8, 0.5)])
def test_what_stems_lack_that_stay_as_they_are_is_measured(gain: float, null: float) -> None:
    """Relative to full scale, or to the peak of what is louder; peaks below zero are peaks."""
    signal = -gain * np.abs(noise(2, 5_000))
    signal[0, 1_500] = -gain * 0.5
    separated, report = separate_whole(
        ArraySource(signal, 8_000), lambda x, told: 0.5 * shares(x, told), STEMS, Windowing(8_000, 1_000, closed=False)
    )
    for stem, share in zip(separated, SHARES):
        assert np.abs(stem - 0.5 * share * signal).max() < 1e-5
    assert report.null_dbfs == pytest.approx(20 * math.log10(null), abs=1e-3)
    assert report.peak == pytest.approx(0.125 * gain)


# --- channels and windows --------------------------------------------------------------------------------------------


def test_channels_reach_the_model_in_pairs_and_the_odd_one_twice() -> None:
    seen: list[Tensor] = []

    def watch(x: Tensor, told: Told) -> Tensor:
        seen.append(x.clone())
        return shares(x, told)

    signal = noise(5, 1_000)
    separate_whole(ArraySource(signal, 8_000), watch, STEMS, Windowing(8_000, 1_000))
    (batch,) = seen
    assert batch.shape == (3, 2, 1_000)
    assert np.array_equal(batch.numpy(), np.stack([signal[0:2], signal[2:4], signal[[4, 4]]]))


def test_mono_is_the_average_of_the_models_two_answers() -> None:
    def lopsided(x: Tensor, told: Told) -> Tensor:
        return shares(x, told) * torch.tensor([0.5, 1.5])[:, None]

    signal = noise(1, 5_000)
    separated, report = separate_whole(ArraySource(signal, 8_000), lopsided, STEMS, Windowing(8_000, 1_000))
    assert np.abs(separated[0] - 0.5 * signal).max() < 1e-6
    assert report.unassigned_share < 1e-9


def test_only_a_short_signal_is_padded_and_the_last_window_is_full() -> None:
    seen: list[Tensor] = []

    def watch(x: Tensor, told: Told) -> Tensor:
        seen.extend(x)
        return shares(x, told)

    signal = noise(2, 2_100) + 1
    separate_whole(ArraySource(signal, 8_000), watch, STEMS, Windowing(8_000, 1_000, overlap=0.5))
    assert len(seen) == 4
    assert all((window > 0).all() for window in seen)
    assert np.array_equal(seen[-1].numpy(), signal[:, -1_000:])
    seen.clear()
    separate_whole(ArraySource(signal[:, :300], 8_000), watch, STEMS, Windowing(8_000, 1_000))
    assert np.array_equal(seen[0].numpy()[:, :300], signal[:, :300])
    assert not seen[0][:, 300:].any()


def test_windows_are_batched() -> None:
    sizes: list[int] = []

    def watch(x: Tensor, told: Told) -> Tensor:
        sizes.append(len(x))
        return shares(x, told)

    _, report = separate_whole(
        ArraySource(noise(2, 10_000), 8_000), watch, STEMS, Windowing(8_000, 1_000, overlap=0, batch=4)
    )
    assert sizes == [4, 4, 2]
    assert report.windows == 10


def test_a_wrong_answer_is_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2, 1000\), expected \(1, 3, 2, 1000\)"):
        separate_whole(
            ArraySource(noise(2, 500), 8_000), lambda x, told: shares(x, told)[:, :2], STEMS, Windowing(8_000, 1_000)
        )


def test_no_graph_is_kept_for_a_model_with_gradients() -> None:
    gain = torch.nn.Parameter(torch.tensor(1.0))
    grad_modes: list[bool] = []

    def learned(x: Tensor, told: Told) -> Split:
        grad_modes.append((gain * x).requires_grad)
        return closed(gain * x, told)

    _, report = separate_whole(ArraySource(noise(2, 5_000), 8_000), learned, STEMS, Windowing(8_000, 1_000))
    assert grad_modes and not any(grad_modes)
    assert report.null_dbfs < -120


def test_bad_arrays_and_windowings_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ArraySource(np.array([0.0, np.nan]), 8_000)
    for shape in ((0,), (2, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="shape"):
            ArraySource(np.zeros(shape), 8_000)
    good = Windowing(8_000, 1_000)
    for bad in ({"overlap": 1.0}, {"window": 0}, {"channels": 3}, {"batch": 0}):
        with pytest.raises(ValueError, match="impossible"):
            replace(good, **bad)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_file_to_files(tmp_path: Path, channels: int) -> None:
    signal = noise(channels, 70_001)
    song = write_audio(tmp_path / "song.wav", signal, 48_000)
    with open_audio(song) as source, output_folder(tmp_path / "out") as folder:
        writer = StemWriter(folder, STEMS, source.rate, source.channels, FLOAT_WAV, source.frames)
        report = separate_to_files(source, closed, writer, Windowing(22_050, 9_000))
    total = np.zeros_like(signal, np.float64)
    for name in STEMS:
        stem, rate = read_audio(tmp_path / "out" / f"{name}.wav")
        assert (stem.shape, rate) == (signal.shape, 48_000)
        total += stem
    assert 20 * np.log10(np.abs(total - signal).max()) <= -100
    assert report.null_dbfs <= -100
    assert report.seconds == pytest.approx(70_001 / 48_000)


def test_the_common_gain_is_reported(tmp_path: Path) -> None:
    source = ArraySource(noise(2, 9_000, peak=4.0), 44_100)
    writer = StemWriter(tmp_path, STEMS, 44_100, 2, encoding("wav", 16))
    report = separate_to_files(source, shares, writer, Windowing(44_100, 2_000))
    assert report.peak > 1
    assert report.gain_db == pytest.approx(-20 * np.log10(report.peak))


def test_progress_is_told_and_reaches_the_end() -> None:
    told: list[Progress] = []
    separate_whole(
        ArraySource(noise(2, 20_000), 8_000, "song.wav"), shares, STEMS, Windowing(8_000, 1_000, batch=1), told.append
    )
    assert len(told) > 20
    assert [p.fraction for p in told] == sorted(p.fraction for p in told)
    last = told[-1]
    assert (last.fraction, last.done_seconds, last.total_seconds, last.item) == (1.0, 2.5, 2.5, "song.wav")
    assert last.eta_seconds == 0
    assert all(p.eta_seconds >= 0 for p in told)


def test_steps_within_a_window_are_told_in_seconds_of_the_source_and_can_cancel() -> None:
    """Windows of 1000 frames at 8 kHz, each 750 after the one before, two at a time, of a source at twice the rate."""
    told: list[float] = []
    asked = 0

    def slowly(x: Tensor, tell: Told) -> Tensor:
        nonlocal asked
        asked += 1
        tell(0.5)
        return shares(x, tell)

    def watch(progress: Progress) -> bool:
        told.append(progress.done_seconds)
        return len(told) < most

    most = 1000
    source, windowing = ArraySource(noise(2, 5_600), 16_000), Windowing(8_000, 1_000, batch=2)
    separate_whole(source, slowly, STEMS, windowing, watch)
    pairs = [(0, 1500), (1500, 2800)]  # of 2800 frames at the model's rate
    steps = [start + share * (end - start) for start, end in pairs for share in (0.5, 1)]
    assert told == pytest.approx([frames / 8_000 for frames in [*steps, 2800]])
    told, asked, most = [], 0, 1
    with pytest.raises(Cancelled):
        separate_whole(source, slowly, STEMS, windowing, watch)
    assert (len(told), asked) == (1, 1)


def test_what_hears_the_whole_song_answers_for_it_and_progress_does_not_wait() -> None:
    """Estimates that are held back to the end are told as they are made, and can be cancelled meanwhile."""
    told: list[float] = []

    def last_first(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        song = np.concatenate(list(blocks), axis=1).reshape(len(STEMS), 2, -1)
        told.append(math.nan)
        yield song[::-1].reshape(len(STEMS) * 2, -1)

    def watch(progress: Progress) -> bool:
        told.append(progress.fraction)
        return progress.fraction < stop

    stop = 2.0
    source, windowing = ArraySource(noise(2, 20_000), 8_000), Windowing(8_000, 1_000)
    plain, _ = separate_whole(source, closed, STEMS, windowing)
    stems, _ = separate_whole(source, closed, STEMS, windowing, watch, last_first)
    np.testing.assert_allclose(stems, plain[::-1], atol=1e-6)
    assert told.index(1.0) > 5 and math.isnan(told[told.index(1.0) + 1])
    stop = 0.5
    with pytest.raises(Cancelled):
        separate_whole(source, closed, STEMS, windowing, watch, last_first)


@pytest.mark.parametrize("how", [FLOAT_WAV, encoding("flac")], ids=["float", "integer"])
def test_cancellation_leaves_nothing(tmp_path: Path, how: object) -> None:
    def stop_half_way(progress: Progress) -> np.bool_:
        return np.bool_(progress.fraction < 0.5)

    with pytest.raises(Cancelled, match=r"song.wav.*stopped after 1\.\d s"), output_folder(tmp_path / "out") as folder:
        writer = StemWriter(folder, STEMS, 8_000, 2, how)  # type: ignore[arg-type]
        source = ArraySource(noise(2, 20_000), 8_000, "song.wav")
        separate_to_files(source, shares, writer, Windowing(8_000, 1_000), stop_half_way)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trouble", [Cancelled("stop"), KeyboardInterrupt(), RuntimeError("out of memory")])
def test_trouble_in_the_model_leaves_nothing(tmp_path: Path, trouble: BaseException) -> None:
    calls = 0

    def fails_late(x: Tensor, told: Told) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise trouble
        return shares(x, told)

    with pytest.raises(type(trouble)):
        writer = StemWriter(tmp_path, STEMS, 8_000, 2)
        separate_to_files(ArraySource(noise(2, 20_000), 8_000), fails_late, writer, Windowing(8_000, 1_000))
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_longer_or_shorter_than_it_says() -> None:
    for said in (5_000, 20_000):
        source = ArraySource(noise(2, 9_999), 8_000)
        source.frames = said
        told: list[Progress] = []
        separated, report = separate_whole(source, shares, STEMS, Windowing(16_000, 3_000), told.append)
        assert separated.shape[2] == report.frames == 9_999
        assert all(0 <= p.fraction <= 1 and p.done_seconds <= p.total_seconds for p in told)


# --- memory ----------------------------------------------------------------------------------------------------------


@dataclass
class Endless:
    """A lazy source that never exists as a whole."""

    frames: int
    rate: int = 8_000
    channels: int = 2
    name: str = "endless"

    def blocks(self, size: int = 65_536) -> Iterator[np.ndarray]:
        pattern = noise(2, size)
        for start in range(0, self.frames, size):
            yield pattern[:, : min(size, self.frames - start)].copy()


def answers_alive(seconds: int) -> int:
    """The most answers of the model that were in memory at once."""
    given: list[weakref.ref[Tensor]] = []
    most = 0

    def counted(x: Tensor, told: Told) -> Tensor:
        nonlocal most
        most = max(most, sum(one() is not None for one in given))
        answer = shares(x, told)
        given.append(weakref.ref(answer))
        return answer

    source: Source = Endless(seconds * 8_000)
    assert sum(b.shape[2] for b in separate_blocks(source, counted, STEMS, Windowing(4_000, 8_000))) == source.frames
    assert len(given) > 10
    return most + 1


def test_memory_does_not_grow_with_length() -> None:
    """Neither the answers of the model, nor what is computed from them."""
    assert answers_alive(120) <= 2
    peaks = []
    for seconds in (60, 600):
        tracemalloc.start()
        for _ in separate_blocks(Endless(seconds * 8_000), shares, STEMS, Windowing(4_000, 8_000)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0] + 100_000 < 63_000_000


# --- continuation ----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5_000), st.integers(2, 700), st.data())
def test_continued_windows_join_exactly(total: int, window: int, data: st.DataObject) -> None:
    """Whatever the fade, where answers repeat what is known."""
    overlap = data.draw(st.integers(1, window - 1).filter(lambda o: total / (window - o) < 200))
    fade = data.draw(st.integers(0, min(overlap, window - overlap)))
    song = torch.randn(2, 1, total + window)
    asked: list[int] = []

    def make_window(known: Tensor | None, index: int) -> Tensor:
        start = index * (window - overlap)
        asked.append(index)
        if known is None:
            assert index == 0
        else:
            assert torch.equal(known, song[..., start : start + overlap]), "the seam is what was given out, bit for bit"
        return song[..., start : start + window]

    blocks = list(continue_windows(make_window, total, window, overlap, fade=fade))
    assert torch.equal(torch.cat(blocks, dim=-1), song[..., :total])
    assert asked == list(range(len(blocks)))


def test_the_known_seam_rules_over_what_a_window_answers_there() -> None:
    def make_window(known: Tensor | None, index: int) -> Tensor:
        return torch.full((1, 1, 10), float(index))

    joined = torch.cat(list(continue_windows(make_window, 22, 10, 4)), dim=-1)[0, 0]
    assert joined.tolist() == [0.0] * 10 + [1.0] * 6 + [2.0] * 6


def test_a_window_takes_over_in_the_last_known_frames() -> None:
    """Linearly; and the one after is told what was made, not what was given out."""
    told: list[Tensor | None] = []

    def make_window(known: Tensor | None, index: int) -> Tensor:
        told.append(known)
        return torch.full((1, 1, 10), float(index))

    blocks = list(continue_windows(make_window, 19, 10, 4, fade=3))
    assert (
        torch.cat(blocks, dim=-1)[0, 0].tolist()
        == [0.0] * 7 + [0.25, 0.5, 0.75] + [1.0] * 3 + [1.25, 1.5, 1.75] + [2.0] * 3
    )
    assert [block.shape[-1] for block in blocks] == [7, 6, 6]
    assert told[1] is not None and not told[1].any() and len(told) == 3


def test_a_given_song_is_continued_without_a_change() -> None:
    made = torch.cat(
        list(continue_windows(lambda k, i: torch.full((1, 1, 10), i + 1.0), 12, 10, 4, torch.zeros(1, 1, 9), 2)), -1
    )
    assert made[0, 0].tolist() == pytest.approx([1.0] * 4 + [4 / 3, 5 / 3] + [2.0] * 6)


def test_an_existing_song_is_continued() -> None:
    song = torch.arange(30.0).reshape(1, 1, 30)

    def count_on(known: Tensor | None, index: int) -> Tensor:
        assert known is not None
        return known[..., :1] + torch.arange(10.0)

    made = torch.cat(list(continue_windows(count_on, 25, 10, 4, seam=song)), dim=-1)
    assert made[0, 0].tolist() == list(range(30, 55))


def test_impossible_continuations_are_refused() -> None:
    for total, window, overlap in ((0, 10, 2), (5, 10, 10), (5, 10, 0)):
        with pytest.raises(ValueError, match="overlap"):
            next(continue_windows(lambda k, i: torch.zeros(1, 1, 10), total, window, overlap))
    for fade in (-1, 3, 9):
        with pytest.raises(ValueError, match="fade"):
            next(continue_windows(lambda k, i: torch.zeros(1, 1, 10), 5, 10, 2, fade=fade))
    with pytest.raises(ValueError, match=r"window 0 has the shape \(1, 1, 9\)"):
        next(continue_windows(lambda k, i: torch.zeros(1, 1, 9), 5, 10, 2))


def test_resampled_sources_are_what_the_model_sees() -> None:
    seen: list[Tensor] = []

    def watch(x: Tensor, told: Told) -> Tensor:
        seen.extend(x.clone())
        return shares(x, told)

    signal = noise(2, 20_000)
    separate_whole(ArraySource(signal, 44_100), watch, STEMS, Windowing(16_000, 1_000, overlap=0))
    at_model = resample(signal, 44_100, 16_000)
    assert np.array_equal(torch.cat(seen[:-1], dim=1).numpy(), at_model[:, : 1_000 * (len(seen) - 1)])
