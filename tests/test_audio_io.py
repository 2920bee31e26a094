"""Audio files: exact lengths, every kind of bad input, resampling, and outputs that appear only when complete."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.audio_io import (
    FLOAT_WAV,
    AudioWriter,
    Encoding,
    Existing,
    StemWriter,
    encoding,
    open_audio,
    output_folder,
    probe,
    read_audio,
    resample,
    resample_blocks,
    resampled_frames,
    write_audio,
)
from stemwise.audio_io import writing as writing_module
from stemwise.errors import AudioFileError

RATE = 44_100


def noise(channels: int, frames: int, seed: int = 0, peak: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (peak * rng.uniform(-1, 1, (channels, frames))).astype(np.float32)


def refusal(path: Path, *words: str) -> str:
    """The error for a bad file: it must name the file and contain the words."""
    with pytest.raises(AudioFileError) as caught:
        read_audio(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message, f"{word!r} is missing in: {message}"
    return message


def hidden_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.name.startswith("."))


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "options", "tolerance"),
    [
        ("wav", {"subtype": "FLOAT"}, 0.0),
        ("wav", {"subtype": "PCM_24"}, 2**-22),
        ("flac", {"subtype": "PCM_24"}, 2**-22),
        ("aiff", {"subtype": "FLOAT"}, 0.0),
        ("ogg", {}, None),
        ("mp3", {}, None),
    ],
)
def test_every_format_gives_its_exact_length(
    tmp_path: Path, ending: str, options: dict, tolerance: float | None
) -> None:
    signal = noise(2, 50_001)
    path = tmp_path / f"song.{ending}"
    soundfile.write(path, signal.T, RATE, **options)
    info = probe(path)
    assert (info.rate, info.channels, info.frames) == (RATE, 2, 50_001)
    read, rate = read_audio(path)
    assert rate == RATE
    assert read.shape == (2, 50_001)
    assert read.dtype == np.float32
    if tolerance is not None:
        assert np.abs(read - signal).max() <= tolerance


def test_blocks_and_random_access_agree_with_the_whole(tmp_path: Path) -> None:
    for ending in ("wav", "mp3", "flac"):
        path = tmp_path / f"song.{ending}"
        soundfile.write(path, noise(2, 30_000).T, RATE)
        whole, _ = read_audio(path)
        with open_audio(path) as source:
            assert np.array_equal(np.concatenate(list(source.blocks(777)), axis=1), whole)
            assert np.array_equal(np.concatenate(list(source.blocks(4_096)), axis=1), whole), "a second pass"
            for start, frames in ((20_000, 1_000), (5, 100), (29_990, 500), (0, 10), (40_000, 3)):
                assert np.allclose(source.read(start, frames), whole[:, start : start + frames], atol=1e-6)


def test_mp3_lengths_come_from_the_music_not_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(10 * RATE) / RATE) * (np.arange(10 * RATE) % RATE < RATE // 2)
    soundfile.write(path, tone, RATE, bitrate_mode="VARIABLE", compression_level=0.5)
    whole, _ = read_audio(path)
    data = path.read_bytes()
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    assert tag > 0
    count = struct.unpack(">I", data[tag + 8 : tag + 12])[0]
    for wrong in (count // 3, count * 4):
        path.write_bytes(data[: tag + 8] + struct.pack(">I", wrong) + data[tag + 12 :])
        assert probe(path).frames == whole.shape[1]
        assert np.array_equal(read_audio(path)[0], whole), f"the header says {wrong} instead of {count} frames"
    # without any tag the decoder guesses from the first frame's bit rate; nothing may be lost, and nothing shift
    path.write_bytes(data[data.index(data[:2], 4) :])
    untagged, _ = read_audio(path)
    assert untagged.shape[1] == probe(path).frames == count * 1152
    delay = 1_105  # encoder 576 + decoder 529, which only the tag lets a decoder cut
    assert np.allclose(untagged[:, delay : delay + whole.shape[1]], whole, atol=1e-4)


def test_a_cut_off_mp3_plays_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    soundfile.write(path, noise(2, 5 * RATE).T, RATE)
    path.write_bytes(path.read_bytes()[:-20_000])
    assert read_audio(path)[0].shape[1] == probe(path).frames < 5 * RATE


@pytest.mark.parametrize(("channels", "rate"), [(1, 44_100), (2, 48_000), (2, 22_050)])
def test_an_mp3_that_changes_on_the_way_is_refused(tmp_path: Path, channels: int, rate: int) -> None:
    """The decoder would stop there, and the rest be lost without a word."""
    parts = [tmp_path / "first.mp3", tmp_path / "second.mp3"]
    soundfile.write(parts[0], noise(2, 44_100).T, 44_100)
    soundfile.write(parts[1], noise(channels, rate).T, rate)
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(AudioFileError, match="changes on the way"):
        read_audio(joined)
    joined.write_bytes(2 * parts[1].read_bytes())
    assert read_audio(joined)[0].shape[1] > 1.9 * rate


def test_wav_and_flac_written_to_a_pipe_have_a_length(tmp_path: Path) -> None:
    signal = noise(2, 10_001)
    wav = write_audio(tmp_path / "pipe.wav", signal, RATE)
    data = bytearray(wav.read_bytes())
    at = data.find(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    wav.write_bytes(data)
    assert np.array_equal(read_audio(wav)[0], signal)
    flac = write_audio(tmp_path / "pipe.flac", signal, RATE, encoding("flac"))
    whole, _ = read_audio(flac)
    data = bytearray(flac.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    flac.write_bytes(data)
    assert probe(flac).frames == 10_001
    assert np.array_equal(read_audio(flac)[0], whole)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_of_ogg_streams_one_after_another_none_is_lost(tmp_path: Path, subtype: str) -> None:
    one, two = tmp_path / "one.ogg", tmp_path / "two.ogg"
    soundfile.write(one, noise(2, 48_000).T, 48_000, subtype, format="OGG")
    two.write_bytes(2 * one.read_bytes())
    assert probe(one).frames == 48_000
    refusal(two, "several streams", "ffmpeg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "song.wav")
    refusal(tmp_path / "song.wav", "pipe", "to a file")


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    refusal(tmp_path / "none.wav", "no such file", "Check")
    refusal(tmp_path, "folder", "Name a file")
    (tmp_path / "empty.wav").touch()
    refusal(tmp_path / "empty.wav", "0 bytes", "again")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_audio(tmp_path / "locked.wav", noise(1, 100), RATE)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # chmod does not stop root
    refusal(path, "permission", "access rights")


@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text.flac", "text.ogg", "text.raw"])
def test_text_renamed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are lyrics, not music\n" * 400)
    refusal(tmp_path / name, "not an audio file", "these are ly", "export")


def test_corrupt_and_truncated_headers(tmp_path: Path) -> None:
    data = write_audio(tmp_path / "good.wav", noise(2, 1_000), RATE).read_bytes()
    for length in (8, 20, 30, 44):
        (tmp_path / "short.wav").write_bytes(data[:length])
        refusal(tmp_path / "short.wav")
    rng = np.random.default_rng(0)
    (tmp_path / "junk.wav").write_bytes(rng.integers(0, 256, 5_000, dtype=np.uint8).tobytes())
    refusal(tmp_path / "junk.wav", "header is damaged")


@pytest.mark.parametrize("how", [FLOAT_WAV, encoding("wav", 16), encoding("flac")])
def test_truncated_data_say_how_much_is_there(tmp_path: Path, how: Encoding) -> None:
    path = write_audio(tmp_path / f"cut.{how.extension}", noise(2, 2 * RATE), RATE, how)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    message = refusal(path, "cut off", "promises 2.000 s", "again")
    there = float(message.split("only ")[1].split(" s ")[0])
    assert 1.3 < there <= 1.51


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "song.wav", noise(1, 20_000), RATE)
    with open_audio(path) as source, pytest.raises(AudioFileError, match="the file is cut off"):
        os.truncate(path, 40_000)
        list(source.blocks(1_000))


def test_truncated_aiff_and_rf64(tmp_path: Path) -> None:
    for name, kind in (("cut.aiff", "AIFF"), ("cut.wav", "RF64"), ("cut.au", "AU"), ("cut.w64", "W64")):
        path = tmp_path / name
        soundfile.write(path, noise(2, RATE).T, RATE, format=kind, subtype="PCM_16")
        path.write_bytes(path.read_bytes()[: RATE * 2])
        promised = refusal(path, "cut off").split("promises ")[1].split(" s")[0]
        assert float(promised) == pytest.approx(1.0, abs=0.01), kind


def test_no_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE)
    refusal(tmp_path / "none.wav", "no samples", "again")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -2e6])
def test_the_first_sample_that_is_no_number_is_named(tmp_path: Path, value: float) -> None:
    signal = noise(2, 200_000)
    signal[1, 132_300:] = value
    soundfile.write(tmp_path / "bad.wav", signal.T, RATE, subtype="FLOAT")
    refusal(tmp_path / "bad.wav", "3.000 s", "channel 2", str(value).replace("+", ""), "Export")
    assert probe(tmp_path / "bad.wav").frames == 200_000


@pytest.mark.parametrize("rate", [1_000, 3_999, 192_001, 384_000])
def test_rates_that_are_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "odd.wav", noise(1, 500).T, rate)
    refusal(tmp_path / "odd.wav", f"{rate} Hz", "Resample", "ffmpeg")


@pytest.mark.parametrize("rate", [4_000, 192_000])
def test_rates_at_the_limits_are_taken(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "fine.wav", noise(1, 500).T, rate)
    assert read_audio(tmp_path / "fine.wav")[1] == rate


def test_channels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "eight.wav", noise(8, 500).T, RATE)
    assert read_audio(tmp_path / "eight.wav")[0].shape == (8, 500)
    soundfile.write(tmp_path / "twelve.wav", noise(12, 500).T, RATE)
    refusal(tmp_path / "twelve.wav", "12 channels", "at most 8", "Split")


def test_m4a_without_pyav_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    refusal(tmp_path / "song.m4a", "pip install 'stemwise[av]'")
    (tmp_path / "renamed.wav").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    refusal(tmp_path / "renamed.wav", "pip install 'stemwise[av]'")


def test_m4a_is_read_at_its_exact_length(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    signal = noise(2, 50_001)
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("alac", rate=RATE, layout="stereo", format="s16p")
        frame = av.AudioFrame.from_ndarray((signal * 32767).astype(np.int16), format="s16p", layout="stereo")
        frame.rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    read, rate = read_audio(path)
    assert rate == RATE
    assert read.shape == signal.shape
    assert np.abs(read - signal).max() < 1e-4
    with open_audio(path) as source:
        assert np.array_equal(source.read(30_000, 500), read[:, 30_000:30_500])
        assert np.array_equal(source.read(100, 500), read[:, 100:600])


# --- resampling ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20_000),
    st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000, 12_345]),
    st.sampled_from([8_000, 16_000, 22_050, 32_000, 44_100, 48_000, 192_000]),
    st.integers(1, 3),
    st.integers(1, 9_000),
)
def test_streaming_equals_one_shot_and_there_and_back_keeps_the_length(
    frames: int, there: int, other: int, channels: int, size: int
) -> None:
    import soxr

    signal = noise(channels, frames)
    blocks = [signal[:, i : i + size] for i in range(0, frames, size)]
    out = list(resample_blocks(blocks, there, other))
    got = np.concatenate(out, axis=1) if out else np.zeros((channels, 0), np.float32)
    assert got.shape == (channels, resampled_frames(frames, there, other))
    whole = soxr.resample(np.ascontiguousarray(signal.T), there, other, quality="VHQ").T
    common = min(got.shape[1], whole.shape[1])
    assert np.array_equal(got[:, :common], whole[:, :common])
    assert abs(got.shape[1] - whole.shape[1]) <= 1
    if got.shape[1]:
        back = np.concatenate(list(resample_blocks([got], other, there, frames=lambda: frames)), axis=1)
        assert back.shape == signal.shape


def test_a_round_trip_has_no_delay() -> None:
    time = np.arange(20_000) / 22_050
    signal = (np.sin(2 * np.pi * 440 * time) * np.hanning(20_000)).astype(np.float32)[np.newaxis]
    up = resample(signal, 22_050, 48_000)
    back = np.concatenate(list(resample_blocks([up], 48_000, 22_050, frames=lambda: 20_000)), axis=1)
    assert np.abs(back - signal).max() < 1e-5


def test_a_round_trip_does_not_break_off_where_the_way_back_is_shorter() -> None:
    """44102 frames are 8000.4 at 8 kHz, and those 44100: the last two are the end of the filter's tone, not silence."""
    there = resample(np.full((1, 44_102), 0.5, np.float32), 44_100, 8_000)
    back = np.concatenate(list(resample_blocks([there], 8_000, 44_100, frames=lambda: 44_102)), axis=1)
    assert back.shape == (1, 44_102) and (np.abs(back[:, -2:]) > 0.01).all()


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        FLOAT_WAV,
        encoding("wav", 24),
        encoding("wav", 16),
        encoding("flac"),
        encoding("flac", 16),
        encoding("mp3"),
        encoding("ogg"),
    ],
    ids=lambda how: f"{how.extension}-{how.subtype}",
)
def test_written_files_have_the_exact_length_and_content(tmp_path: Path, how: Encoding) -> None:
    signal = noise(2, 30_001)
    path = tmp_path / f"out.{how.extension}"
    with AudioWriter(path, RATE, 2, how) as writer:
        for start in range(0, 30_001, 7_000):
            writer.write(signal[:, start : start + 7_000])
        assert not path.exists(), "visible before it is complete"
    read, rate = read_audio(path)
    assert (read.shape, rate) == (signal.shape, RATE)
    exact = {"FLOAT": 0.0, "PCM_24": 2**-23, "PCM_16": 2**-15}.get(how.subtype)
    if exact is not None:
        assert np.abs(read - signal).max() <= exact
    assert hidden_files(tmp_path) == []


def test_mp3_bitrate_is_kept(tmp_path: Path) -> None:
    sizes = [
        write_audio(tmp_path / f"{rate}.mp3", noise(2, 4 * RATE), RATE, encoding("mp3", bitrate=rate)).stat().st_size
        for rate in (64, 128, 320)
    ]
    assert np.allclose(np.array(sizes) * 8 / 4 / 1000, [64, 128, 320], rtol=0.03)


@pytest.mark.parametrize(
    ("ending", "bits", "bitrate"),
    [("m4a", None, None), ("wav", 8, None), ("mp3", 16, None), ("mp3", None, 9), ("wav", None, 128)],
)
def test_impossible_encodings_are_refused(ending: str, bits: int | None, bitrate: int | None) -> None:
    with pytest.raises(AudioFileError, match=ending):
        encoding(ending, bits, bitrate)


def test_what_an_encoding_cannot_hold_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"3 channels at 44100 Hz.*wav or flac"):
        AudioWriter(tmp_path / "x.mp3", RATE, 3, encoding("mp3"))
    with pytest.raises(AudioFileError, match="96000 Hz") as caught:
        AudioWriter(tmp_path / "x.mp3", 96_000, 2, encoding("mp3"))
    assert "partial" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "out.wav", noise(1, 10), RATE)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), AudioWriter(path, RATE, 1) as writer:
        writer.write(noise(1, 5_000))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.wav"]


def test_beyond_4_gib_wav_becomes_rf64_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing_module, "_RIFF_LIMIT", 80_000)
    signal = noise(2, 20_000)
    path = write_audio(tmp_path / "long.wav", signal, RATE)
    assert path.read_bytes()[:4] == b"RF64"
    assert np.array_equal(read_audio(path)[0], signal)
    with pytest.raises(AudioFileError, match="4 GiB"), AudioWriter(tmp_path / "unknown.wav", RATE, 2) as writer:
        writer.write(signal)
    assert [p.name for p in tmp_path.iterdir()] == ["long.wav"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond ``size``, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no such limit here")
@pytest.mark.parametrize("room", [0, 200_000])
@pytest.mark.parametrize("ending", ["wav", "flac", "mp3"])
def test_a_disk_that_fills_up(tmp_path: Path, ending: str, room: int) -> None:
    signal = noise(2, 6 * RATE)
    with file_size_limit(room), pytest.raises(AudioFileError, match="Free some space") as caught:  # noqa: SIM117
        with (
            output_folder(tmp_path / "song") as folder,
            StemWriter(folder, ["a", "b"], RATE, 2, encoding(ending)) as writer,
        ):
            writer.write(np.stack([signal, signal]))
    assert str(tmp_path / "song") in str(caught.value)
    assert "partial-" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AudioFileError, match=r"cannot be written.*Choose another place"):
        AudioWriter(tmp_path / "file" / "out.wav", RATE, 1)
    with (
        pytest.raises(AudioFileError, match=r"no output folder.*Choose another place"),
        output_folder(tmp_path / "file" / "song"),
    ):
        pass


@pytest.mark.parametrize("how", [encoding("wav", 16), encoding("wav", 24), encoding("flac"), encoding("mp3")])
def test_one_common_gain_for_all_stems_where_a_peak_exceeds_full_scale(tmp_path: Path, how: Encoding) -> None:
    stems = np.stack([noise(2, 9_000, 1, 2.0), noise(2, 9_000, 2, 0.5)])
    with StemWriter(tmp_path, ["loud", "soft"], RATE, 2, how) as writer:
        writer.write(stems[..., :4_000])
        writer.write(stems[..., 4_000:])
        written = writer.close()
    peak = float(np.abs(stems).max())
    assert written.peak == pytest.approx(peak)
    assert written.gain_db == pytest.approx(-20 * np.log10(peak))
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"loud.{how.extension}", f"soft.{how.extension}"]
    if how.extension != "mp3":
        for name, stem in zip(("loud", "soft"), stems):
            read, _ = read_audio(written.paths[name])
            assert np.abs(read - stem / peak).max() <= 2**-15


def test_no_gain_where_none_is_needed(tmp_path: Path) -> None:
    loud, soft = noise(1, 500, 1, 2.0)[np.newaxis], noise(1, 500, 2, 0.9)[np.newaxis]
    with StemWriter(tmp_path, ["soft"], RATE, 1, encoding("wav", 24)) as writer:
        writer.write(soft)
    assert writer.close().gain_db == 0.0
    with StemWriter(tmp_path, ["loud"], RATE, 1) as writer:  # float holds what is beyond full scale
        writer.write(loud)
    assert writer.close().gain_db == 0.0
    assert np.array_equal(read_audio(tmp_path / "loud.wav")[0], loud[0])


def test_stems_appear_together_or_not_at_all(tmp_path: Path) -> None:
    for how in (FLOAT_WAV, encoding("flac")):
        with pytest.raises(RuntimeError), StemWriter(tmp_path, ["a", "b"], RATE, 1, how) as writer:
            writer.write(np.zeros((2, 1, 1_000), np.float32))
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [FLOAT_WAV, encoding("flac")], ids=["float", "integer"])
@pytest.mark.parametrize("step", ["_open_as", "write", "close"])
def test_where_one_stem_fails_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Encoding, step: str
) -> None:
    """Neither what is finished already nor what was hidden."""
    whole = getattr(AudioWriter, step)

    def failing(self: AudioWriter, *given: object) -> object:
        if self.path.stem == "b":
            raise OSError("no")
        return whole(self, *given)

    monkeypatch.setattr(AudioWriter, step, failing)
    with pytest.raises(OSError, match="no"), StemWriter(tmp_path, ["a", "b"], RATE, 1, how) as writer:
        writer.write(np.zeros((2, 1, 1_000), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_which_less_reached_the_disk_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = write_audio(tmp_path / "short.wav", noise(1, 10), RATE)
    whole = writing_module.start_sndfile
    monkeypatch.setattr(writing_module, "start_sndfile", lambda _: whole(shorter))
    with pytest.raises(AudioFileError, match="only 10 of 20 frames reached the disk"):
        write_audio(tmp_path / "out.wav", noise(1, 20), RATE)
    assert list(tmp_path.iterdir()) == [shorter]


# --- output folders --------------------------------------------------------------------------------------------------


def test_a_folder_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "song"
    with output_folder(target) as folder:
        (folder / "bass.wav").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["bass.wav"]
    assert hidden_files(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for by number")
def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with output_folder(tmp_path / "song") as folder:
        hidden = folder.name.removesuffix(str(os.getpid()))
    for process in (dead.pid, os.getppid()):
        (tmp_path / f"{hidden}{process}").mkdir()
    with output_folder(tmp_path / "song") as folder:
        (folder / "x").touch()
    assert sorted(os.listdir(tmp_path)) == [f"{hidden}{os.getppid()}", "song"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
@pytest.mark.parametrize("ending", ["wav", "flac", "mp3"])
def test_a_name_that_is_no_text(tmp_path: Path, ending: str) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_audio(folder / f"take.{ending}", noise(1, 2000), 44100, encoding(ending))
    assert read_audio(folder / f"take.{ending}")[0].shape == (1, 2000)


def test_a_failed_folder_vanishes_and_the_old_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "song"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(KeyboardInterrupt), output_folder(target, Existing.OVERWRITE) as folder:
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert [p.name for p in target.iterdir()] == ["old"]
    assert os.listdir(tmp_path) == ["song"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143), OSError(5, "Input/output error")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_while_replacing_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException, when: str
) -> None:
    target = tmp_path / "song"
    target.mkdir()
    (target / "old").touch()
    rename = os.rename

    def interrupted(source: Path, place: Path) -> None:
        if when == "after":
            rename(source, place)
        if place == target and ".partial-" in source.name:
            raise interruption
        if when == "before":
            rename(source, place)

    monkeypatch.setattr(os, "rename", interrupted)
    with (
        pytest.raises((type(interruption), AudioFileError)),
        output_folder(target, Existing.OVERWRITE) as folder,
    ):
        (folder / "new").touch()
    assert os.listdir(tmp_path) == ["song"]
    assert os.listdir(target) == ["old" if when == "before" else "new"]


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for by number")
@pytest.mark.parametrize("there", [False, True])
def test_what_a_killed_process_moved_aside_is_put_back_or_removed(tmp_path: Path, there: bool) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "song") as folder:
        stale = folder.with_name(
            folder.name.replace("partial", "replaced").removesuffix(str(os.getpid())) + str(dead.pid)
        )
        raise KeyboardInterrupt
    stale.mkdir()
    (stale / "old").touch()
    if there:
        (tmp_path / "song").mkdir()
        with output_folder(tmp_path / "song") as folder:
            (folder / "new").touch()
    else:
        with pytest.raises(AudioFileError, match="exists already"), output_folder(tmp_path / "song"):
            pytest.fail("what was put back must be refused")
    assert os.listdir(tmp_path) == ["song"]
    assert os.listdir(tmp_path / "song") == ["new" if there else "old"]


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    with output_folder(tmp_path / ("s" * 255)) as folder:
        write_audio(folder / f"{'b' * 251}.wav", noise(1, 100), RATE)
    assert os.listdir(tmp_path) == ["s" * 255]


@pytest.mark.parametrize("name", ["../x", "a/../x", "..", ".", "", "a/b", "a\\b", "a\0"])
def test_a_stem_never_leaves_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioFileError, match="cannot be the name"):
        StemWriter(tmp_path / "out", ["bass", name], RATE, 1)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused_or_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "song"
    target.mkdir()
    with output_folder(target) as folder:  # an empty folder is nobody's work
        (folder / "first").touch()
    with pytest.raises(AudioFileError, match=r"exists already.*--overwrite"), output_folder(target):
        pytest.fail("it must be refused before any work")
    with output_folder(target, Existing.OVERWRITE) as folder:
        (folder / "second").touch()
    assert [p.name for p in target.iterdir()] == ["second"]
    assert os.listdir(tmp_path) == ["song"]


def test_the_same_samples_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    signal = np.linspace(-1, 1, 2000, dtype=np.float32).reshape(2, 1000)
    write_audio(tmp_path / "one.wav", signal, 44100)
    time.sleep(1.1)  # libsndfile notes the second of writing
    write_audio(tmp_path / "two.wav", signal, 44100)
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()
