"""Windows: a pure function of (seed, index), whatever reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.errors import SongError
from stemwise.songs import Augmentation, Song, WindowOptions, Windows, folder
from stemwise.songs.window import Batches, loud, read_at

RATE = 8000
STEMS = ("bass", "drums", "piano")
PLAIN = WindowOptions(STEMS, RATE, 512)
NO_CHANGE = Augmentation(gain_db=(0.0, 0.0), swap=0.0, polarity=0.0)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Song]:
    """Two songs whose stems are constant on each channel, so that a window tells where it came from."""
    root = tmp_path_factory.mktemp("songs")
    for number, frames in enumerate((6000, 2000)):
        (root / f"song-{number}").mkdir()
        for place, name in enumerate(("bass", "drums")):
            level = 0.1 * (1 + number) + 0.01 * (1 + place)
            signal = np.tile(np.array([[level, level / 2]]), (frames, 1))
            soundfile.write(root / f"song-{number}" / f"{name}.wav", signal, RATE, subtype="FLOAT")
    return folder(root)


def test_item_is_a_function_of_seed_and_index(songs: list[Song]) -> None:
    options = dataclasses.replace(PLAIN, augmentation=Augmentation(remix=0.5, dropout=0.1))
    one, other = Windows(songs, options, 5), Windows(songs, options, 5)
    ahead = [one[index] for index in range(20)]
    for index in (13, 2, 19, 2):
        assert torch.equal(other[index], ahead[index])
    assert torch.equal(next(iter(other)), ahead[0])
    assert not torch.equal(torch.stack(ahead), torch.stack([Windows(songs, options, 6)[i] for i in range(20)]))
    assert ahead[0].dtype == torch.float32 and ahead[0].shape == (3, 2, 512)


def test_songs_are_drawn_by_length_and_absent_stems_are_silent(songs: list[Song]) -> None:
    windows = [Windows(songs, PLAIN, 0)[index] for index in range(400)]
    first = sum(abs(float(window[0, 0, 0]) - 0.11) < 1e-6 for window in windows)
    assert 250 < first < 350  # 6000 of 8000 frames: 300 expected
    assert all(not window[2].any() for window in windows)


def test_weights_stay_with_their_songs_where_others_are_left_out(songs: list[Song]) -> None:
    deaf = dataclasses.replace(songs[0], stems={"vocals": songs[0].stems["bass"]})
    windows = Windows([deaf, *songs], PLAIN, 0, weights=[5.0, 0.0, 1.0])
    assert {round(float(windows[index][0, 0, 0]), 2) for index in range(30)} == {0.21}


def test_windows_lie_anywhere_in_a_song_and_never_beyond_its_end(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    soundfile.write(tmp_path / "one" / "bass.wav", np.arange(1, 2049) / 4096, RATE, subtype="FLOAT")
    windows = Windows(folder(tmp_path), WindowOptions(("bass",), RATE, 512), 0)
    starts = [round(float(windows[index][0, 0, 0]) * 4096) - 1 for index in range(200)]
    assert min(starts) < 60 and 1480 < max(starts) <= 1536
    assert all(windows[index][0, 0].all() for index in range(50))


def test_silence_begins_at_the_floor() -> None:
    block = 10 ** (np.array([-59.0, -61.0, -300.0]) / 20)[:, None, None] * np.ones((3, 2, 100))
    assert loud(block, -60.0).tolist() == [True, False, False]


def test_remix_takes_stems_from_different_songs(songs: list[Song]) -> None:
    def mixed(remix: float) -> int:
        options = dataclasses.replace(PLAIN, augmentation=dataclasses.replace(NO_CHANGE, remix=remix))
        windows = Windows(songs, options, 0)
        return sum(abs(float(windows[index][1, 0, 0] - windows[index][0, 0, 0]) - 0.01) > 1e-6 for index in range(100))

    assert mixed(0.0) == 0
    assert 20 < mixed(1.0) < 60  # different songs: 2 * 3/4 * 1/4 = 37.5 % of the draws


@settings(max_examples=25, deadline=None)
@given(low=st.floats(-20, 0), span=st.floats(0, 10), swap=st.sampled_from([0.0, 1.0]), flip=st.sampled_from([0.0, 1.0]))
def test_augmentation_only_scales_swaps_and_flips(
    songs: list[Song], low: float, span: float, swap: float, flip: float
) -> None:
    change = Augmentation(gain_db=(low, low + span), swap=swap, polarity=flip)
    plain = Windows(songs, dataclasses.replace(PLAIN, augmentation=NO_CHANGE), 3)[0]
    changed = Windows(songs, dataclasses.replace(PLAIN, augmentation=change), 3)[0]
    if swap:
        changed = changed.flip(1)
    for before, after in zip(plain[:2], changed[:2]):
        ratio = after / before
        factor = float(ratio[0, 0])
        assert torch.allclose(ratio, torch.full_like(ratio, factor), rtol=1e-5)
        assert (factor < 0) == bool(flip)
        assert low - 0.01 <= 20 * np.log10(abs(factor)) <= low + span + 0.01


def test_dropout_silences_and_nearly_silent_windows_are_drawn_again(songs: list[Song]) -> None:
    change = dataclasses.replace(NO_CHANGE, dropout=0.5)
    kept = Windows(songs, dataclasses.replace(PLAIN, min_active=0, augmentation=change), 0)
    active = [int(kept[index].any(2).any(1).sum()) for index in range(100)]
    assert {0, 1, 2} == set(active)
    again = Windows(songs, dataclasses.replace(PLAIN, min_active=2, augmentation=change), 0)
    assert {int(again[index].any(2).any(1).sum()) for index in range(100)} == {2}
    never = Windows(songs, dataclasses.replace(PLAIN, min_active=3), 0)
    assert never[0].shape == (3, 2, 512)  # gives up after a while rather than loop for ever


def test_mono_makes_channels_equal(songs: list[Song]) -> None:
    change = dataclasses.replace(NO_CHANGE, mono=0.5)
    windows = Windows(songs, dataclasses.replace(PLAIN, augmentation=change), 0)
    equal = [torch.equal(windows[index][:, 0], windows[index][:, 1]) for index in range(60)]
    assert 15 < sum(equal) < 45


@pytest.fixture
def tone(tmp_path: Path) -> list[Song]:
    """A song of one stem, 500 Hz and 1500 Hz of equal level."""
    (tmp_path / "tone").mkdir()
    time = np.arange(4 * RATE) / RATE
    signal = 0.1 * np.sin(2 * np.pi * 500 * time) + 0.1 * np.sin(2 * np.pi * 1500 * time)
    soundfile.write(tmp_path / "tone" / "bass.wav", np.stack([signal, signal], 1), RATE, subtype="FLOAT")
    return folder(tmp_path)


def test_transposition_moves_the_pitch_by_semitones_and_nothing_else(tone: list[Song]) -> None:
    options = WindowOptions(("bass",), RATE, RATE, augmentation=dataclasses.replace(NO_CHANGE, transpose=2))
    windows = Windows(tone, options, 1)
    peaks = [float(np.abs(np.fft.rfft(windows[i][0, 0].numpy()))[:800].argmax()) for i in range(24)]
    found = {round(12 * np.log2(peak / 500)) for peak in peaks}
    assert found == {-2, -1, 0, 1, 2}
    assert windows[0].square().mean().sqrt() == pytest.approx(0.1, rel=0.02)
    assert torch.equal(windows[5], Windows(tone, options, 1)[5])


def test_equalising_changes_the_balance_within_a_stem(tone: list[Song]) -> None:
    options = WindowOptions(("bass",), RATE, RATE, augmentation=dataclasses.replace(NO_CHANGE, equalise_db=4.0))
    windows = Windows(tone, options, 1)
    balances = []
    for i in range(24):
        spectrum = np.abs(np.fft.rfft(windows[i][0].numpy()))
        assert np.allclose(spectrum[0], spectrum[1], atol=1e-3)
        balances.append(20 * np.log10(spectrum[0, 1500] / spectrum[0, 500]))
    assert 3.5 < np.std(balances) < 8.5  # two gains of 4 dB each: 5.7


def test_short_songs_are_padded_and_channels_follow_the_options(songs: list[Song]) -> None:
    long = Windows(songs[1:], dataclasses.replace(PLAIN, frames=3000), 0)[0]
    assert long[0, 0, :2000].all() and not long[0, 0, 2000:].any()
    mono = Windows(songs[1:], dataclasses.replace(PLAIN, channels=1), 0)[0]
    assert mono.shape == (3, 1, 512) and float(mono[0, 0, 0]) == pytest.approx(0.21 * 0.75)


@pytest.mark.parametrize("rate", [11025, 16000, 48000])
def test_resampled_window_is_the_window_of_the_resampled_song(tmp_path: Path, rate: int) -> None:
    """A sine at the song's rate is, after resampling, the same sine at the same instants; no edge is heard."""
    (tmp_path / "one").mkdir()

    def sine(frames: np.ndarray, at: float) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 440.0 * frames / at)

    soundfile.write(tmp_path / "one" / "bass.wav", sine(np.arange(rate * 2), rate), rate, subtype="FLOAT")
    (song,) = folder(tmp_path)
    start = rate // 2 + 7
    found = read_at(song, start, ("bass",), WindowOptions(("bass",), RATE, 1000))
    assert found.shape == (1, 2, 1000)
    expected = sine(start / rate * RATE + np.arange(1000), RATE)
    np.testing.assert_allclose(found[0, 0], expected, atol=2e-3)
    np.testing.assert_array_equal(found[0, 0], found[0, 1])


def test_songs_without_any_wanted_stem_are_an_error_that_lists_what_there_is(songs: list[Song]) -> None:
    with pytest.raises(SongError, match=r"none of the 2 song\(s\) has a stem named vocals; found: bass, drums"):
        Windows(songs, WindowOptions(("vocals",), RATE, 10), 0)


def test_a_window_beyond_a_break_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(80_000)
    soundfile.write(tmp_path / "one" / "bass.flac", noise, RATE)
    (song,) = folder(tmp_path)
    whole = song.read(0, 80_000, ("bass",))
    file = tmp_path / "one" / "bass.flac"
    file.write_bytes(file.read_bytes()[:80_000])
    assert np.array_equal(song.read(1000, 512, ("bass",)), whole[..., 1000:1512])
    with pytest.raises(SongError, match=r"one/bass\.flac: cannot be read at frame 70000.*`stemwise songs verify`"):
        song.read(70_000, 512, ("bass",))


@settings(max_examples=30, deadline=None)
@given(start=st.integers(-600, 90_000), frames=st.integers(1, 9000))
def test_seeking_in_flac_gives_what_decoding_gives(long_song: tuple[Song, np.ndarray], start: int, frames: int) -> None:
    song, whole = long_song
    padded = np.pad(whole, ((0, 0), (1000, 20_000)))
    assert np.array_equal(song.read(start, frames, ("bass",))[0], padded[:, start + 1000 : start + 1000 + frames])


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> tuple[Song, np.ndarray]:
    root = tmp_path_factory.mktemp("long")
    (root / "one").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal((80_000, 2))
    soundfile.write(root / "one" / "bass.flac", noise, RATE, subtype="PCM_24")
    (song,) = folder(root)
    return song, soundfile.read(root / "one" / "bass.flac", dtype="float32")[0].T


def test_workers_and_processes_share_one_stream(songs: list[Song]) -> None:
    options = dataclasses.replace(PLAIN, augmentation=Augmentation())
    windows = Windows(songs, options, 1)
    loader: torch.utils.data.DataLoader[torch.Tensor] = torch.utils.data.DataLoader(
        windows, batch_sampler=Batches(0, 4, 2, 0, 1), num_workers=2
    )
    alone = torch.cat(list(loader))
    assert torch.equal(alone, torch.stack([windows[index] for index in range(8)]))
    by_two = [list(Batches(0, 3, 2, rank, 2)) for rank in (0, 1)]
    assert [[*one, *two] for one, two in zip(*by_two)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert list(Batches(2, 3, 2, 1, 2)) == [[10, 11]] and len(Batches(2, 3, 2, 1, 2)) == 1
