"""Output folders: what is written can be read back, and what is wrong with one is said."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stemwise.audio_io import FLOAT_WAV, Encoding, encoding, read_audio, write_audio
from stemwise.errors import AudioFileError
from stemwise.outputs import (
    MANIFEST,
    MIX,
    Made,
    describe_input,
    finish,
    is_stem_folder,
    load_song,
    load_stems,
    model_digest,
    put_mixture,
    read_folder,
    write_stems,
    write_sums,
)
from stemwise.stems import Audio
from tiny_band import music, write_tiny_band

STEMS = ("bass", "drums", "guitar'")
KNOWN = ("bass", "drums", "guitar", "piano", "other")
RATE = 8000


def audio(scale: float = 1.0) -> Audio:
    data = np.stack([music(0.5, seed=i, rate=RATE) for i in range(3)]) * scale
    return Audio(STEMS, torch.from_numpy(data.astype(np.float32))[None], RATE)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    source = write_audio(tmp_path / "take.wav", music(0.5, rate=RATE), RATE)
    folder = tmp_path / "song"
    stems = audio()
    written = write_stems(folder, stems, FLOAT_WAV, {MIX: stems.mix()[0].numpy()})
    finish(folder, Made("edit", "band", {MIX: source}, 7, {"replace": ["guitar"]}, {"gain_db": 0.0}), written.paths)
    return folder


def test_manifest_says_what_is_there(made: Path) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    assert manifest["format"] == 1
    assert (manifest["verb"], manifest["model"], manifest["seed"]) == ("edit", "band", 7)
    assert (manifest["rate"], manifest["channels"], manifest["frames"]) == (RATE, 2, RATE // 2)
    assert manifest["inputs"]["mix"]["file"] == "take.wav"
    assert list(manifest["stems"]) == list(STEMS)
    for facts in (*manifest["stems"].values(), manifest["mix"]):
        signal, _ = read_audio(made / facts["file"])
        assert facts["sha256"] == hashlib.sha256((made / facts["file"]).read_bytes()).hexdigest()
        assert facts["peak_dbfs"] == pytest.approx(20 * np.log10(np.abs(signal).max()), abs=0.01)
        assert facts["rms_dbfs"] == pytest.approx(10 * np.log10(np.square(signal, dtype=float).mean()), abs=0.01)
    assert str(made.parent) not in (made / MANIFEST).read_text()


def test_read_back_bit_for_bit_under_slot_names(made: Path) -> None:
    found = read_folder(made, KNOWN)
    assert found.mix == made / "mix.wav"
    loaded = load_stems(found)
    assert loaded.names == ("bass", "drums", "guitar")  # the new guitar' is a guitar to the next verb
    assert torch.equal(loaded.data, audio().data)


def test_folder_without_manifest_is_read_by_names(made: Path) -> None:
    (made / MANIFEST).unlink()
    (made / "guitar'.wav").rename(made / "notes.wav")
    found = read_folder(made, KNOWN)
    assert set(found.stems) == {"bass", "drums"}
    assert found.mix == made / "mix.wav"


def test_mixture_is_the_mix_or_the_exact_sum(made: Path, tmp_path: Path) -> None:
    assert put_mixture(read_folder(made, KNOWN), tmp_path / "x.wav") == made / "mix.wav"
    document = json.loads((made / MANIFEST).read_text())
    (made / MANIFEST).write_text(json.dumps({**document, "mix": None}))
    summed, _ = read_audio(put_mixture(read_folder(made, KNOWN), tmp_path / "x.wav"))
    exact = audio().data[0].double().sum(0).numpy()
    assert np.abs(summed - exact).max() < 1e-7


def test_one_common_gain_for_integers(tmp_path: Path) -> None:
    stems = audio(scale=3.0)
    written = write_stems(tmp_path, stems, encoding("wav", 16), {MIX: stems.mix()[0].numpy()})
    gain = 10 ** (written.gain_db / 20)
    assert gain < 1
    for index, name in enumerate(STEMS):
        assert np.abs(read_audio(written.paths[name])[0] - gain * stems.data[0, index].numpy()).max() < 2 / 32768


def test_sums_are_written_block_by_block(tmp_path: Path) -> None:
    paths = write_stems(tmp_path / "in", audio()).paths
    written = write_sums(tmp_path / "out", {"bass": [paths["bass"]], "no_bass": [paths["drums"], paths["guitar'"]]})
    assert np.array_equal(read_audio(written.paths["bass"])[0], read_audio(paths["bass"])[0])
    expected = read_audio(paths["drums"])[0].astype(float) + read_audio(paths["guitar'"])[0]
    assert np.abs(read_audio(written.paths["no_bass"])[0] - expected).max() < 1e-7


def test_songs_longer_than_a_block_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, measured and summed block by block; what is loudest may be below zero, and in any block."""
    monkeypatch.setattr("stemwise.outputs._BLOCK", 700)
    stems = audio()
    stems.data[0, 0, 1, 1500] = -0.9
    written = write_stems(tmp_path, stems, extra={MIX: stems.mix()[0].numpy()})
    assert torch.equal(load_stems(read_folder(tmp_path, STEMS)).data, stems.data)
    facts = finish(tmp_path, Made("edit", "band", {}, 7, {}), written.paths)["stems"]["bass"]
    assert facts["peak_dbfs"] == pytest.approx(20 * np.log10(0.9), abs=0.01)
    rms = float(stems.data[0, 0].double().square().mean().sqrt())
    assert facts["rms_dbfs"] == pytest.approx(20 * np.log10(rms), abs=0.01)
    total = write_sums(tmp_path / "out", {"all": [written.paths[name] for name in STEMS]}).paths["all"]
    assert np.abs(read_audio(total)[0] - stems.data[0].sum(0).numpy()).max() < 1e-6


def test_sum_refuses_stems_that_differ(tmp_path: Path) -> None:
    a = write_audio(tmp_path / "a.wav", music(0.5, rate=RATE), RATE)
    b = write_audio(tmp_path / "b.wav", music(0.4, rate=RATE), RATE)
    with pytest.raises(AudioFileError, match=r"b\.wav: 3200 frames"):
        write_sums(tmp_path / "out", {"c": [a, b]})
    write_audio(b, music(0.5, rate=RATE), 2 * RATE)
    with pytest.raises(AudioFileError, match=r"b\.wav: 4000 frames of 2 channels at 16000 Hz"):
        write_sums(tmp_path / "out", {"c": [a, b]})


def test_two_stems_of_one_slot_are_not_one_of_them(made: Path) -> None:
    document = json.loads((made / MANIFEST).read_text())
    document["stems"]["guitar"] = document["stems"]["bass"]
    (made / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(AudioFileError, match="two stems are named guitar"):
        load_stems(read_folder(made, KNOWN))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not readable as JSON"),
        ("[]", "format None"),
        ('{"format": 2, "stems": {}}', "format 2 "),
        ('{"format": 1, "stems": {}}', "neither stems nor a mix"),
        ('{"format": 1, "stems": {"bass": "bass.wav"}}', "which file it is"),
        ('{"format": 1, "stems": {"bass": {"file": 3}}}', "which file it is"),
        ('{"format": 1, "stems": {"bass": {"file": "bass.wav"}}, "inputs": {"mix": 5}}', "inputs or files are damaged"),
        ('{"format": 1, "stems": {"bass": {"file": "bass.wav"}}, "files": 5}', "inputs or files are damaged"),
        ('{"format": 1, "stems": {"../../x": {"file": "bass.wav"}}}', "cannot be the name of a stem"),
        ('{"format": 1, "stems": {".x": {"file": "bass.wav"}}}', "cannot be the name of a stem"),
        ('{"format": 1, "stems": {"": {"file": "bass.wav"}}}', "cannot be the name of a stem"),
        ('{"format": 1, "stems": {"bass": {"file": "../bass.wav"}}}', "outside its folder"),
        ('{"format": 1, "stems": {"bass": {"file": "/etc/bass.wav"}}}', "outside its folder"),
        ('{"format": 1, "stems": {"bass": {"file": "gone.wav"}}}', r"gone\.wav: named in manifest\.json, but missing"),
    ],
)
def test_bad_manifest_is_named(made: Path, text: str, said: str) -> None:
    (made / MANIFEST).write_text(text)
    with pytest.raises(AudioFileError, match=said):
        read_folder(made, KNOWN)


def test_two_files_of_one_stem_are_both_named(tmp_path: Path) -> None:
    for name in ("bass.wav", "bass.flac", "drums.wav"):
        (tmp_path / name).touch()
    with pytest.raises(AudioFileError, match=r"bass\.flac and bass\.wav are both the bass"):
        read_folder(tmp_path, KNOWN)


@pytest.mark.parametrize("scale", [0.5, 0.0003, 0.0])
@pytest.mark.parametrize(
    "how", [FLOAT_WAV, encoding("wav", 16), encoding("flac"), encoding("mp3", bitrate=32), encoding("ogg")]
)
def test_a_song_keeps_its_mix_in_every_encoding(tmp_path: Path, how: Encoding, scale: float) -> None:
    data = np.stack([music(0.5, seed=i) for i in range(3)]) * scale
    stems = Audio(STEMS, torch.from_numpy(data.astype(np.float32))[None], 44100)
    write_stems(tmp_path, stems, how, {MIX: stems.mix()[0].numpy()})
    found = read_folder(tmp_path, STEMS)
    assert found.mix is not None
    assert np.array_equal(load_song(found).mix()[0].numpy(), read_audio(found.mix)[0])


@pytest.mark.parametrize("scale", [1.0, 0.03])
@pytest.mark.parametrize("how", [FLOAT_WAV, encoding("wav", 16), encoding("mp3")])
def test_a_mix_that_holds_more_than_the_stems_is_refused(tmp_path: Path, how: Encoding, scale: float) -> None:
    stems = audio(scale)
    paths = write_stems(tmp_path, stems, how, {MIX: stems.mix()[0].numpy()}).paths
    paths["drums"].unlink()
    with pytest.raises(
        AudioFileError, match=rf"mix\.{how.extension}: holds more .*bass.*Give mix.{how.extension} alone"
    ):
        load_song(read_folder(tmp_path, STEMS))
    for seconds, rate in ((0.4, RATE), (0.25, 2 * RATE)):  # the other rate with as many frames
        write_audio(paths[MIX], music(seconds, rate=rate), rate, how)
        with pytest.raises(AudioFileError, match="differs from the stems beside it"):
            load_song(read_folder(tmp_path, STEMS))


def test_folder_without_stems_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"no stems in this folder.*bass\.wav"):
        read_folder(tmp_path, KNOWN)


def test_which_folder_is_one_song(tmp_path: Path) -> None:
    for name, files, expected in (
        ("stems", ("bass.wav", "drums.wav"), True),
        ("mix", ("mix.wav", "notes.wav"), True),
        ("album", ("bass.wav", "intro.wav"), False),
        ("vocals", ("bass.wav", "guitar.wav", "vocals.wav"), True),
        ("half", ("bass.wav", "drums.wav", "intro.wav", "outro.wav"), False),
        ("sums", ("bass.wav", "drums.wav", "instrumental.wav", "no_bass.wav"), True),
        ("loops", ("bass.wav", "drums.wav", "hat.wav", "kick.wav", "pad.wav"), False),
        ("single", ("piano.wav",), False),
        ("empty", (), False),
        ("manifest", (MANIFEST,), True),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            (folder / file).touch()
        assert is_stem_folder(folder, KNOWN) is expected, name


def test_a_model_is_its_weights_and_its_configuration(tmp_path: Path) -> None:
    folder = write_tiny_band(tmp_path / "tiny")
    before = model_digest(folder)
    assert model_digest(shutil.copytree(folder, tmp_path / "copy")) == before
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace('"tilt": 0.8', '"tilt": 0.7'))
    assert model_digest(tmp_path / "copy") != before


def test_input_hash_of_a_folder_changes_with_any_file(made: Path) -> None:
    before = describe_input(made)
    assert before == describe_input(made)
    write_audio(made / "bass.wav", music(0.5, seed=9, rate=RATE), RATE)
    assert describe_input(made)["sha256"] != before["sha256"]


def test_the_mixture_of_a_folder_is_all_in_it_that_is_no_sum(tmp_path: Path) -> None:
    signals = [music(0.5, seed=seed, rate=RATE) for seed in range(3)]
    for name, signal in zip(
        ("bass", "guitar", "vocals", "instrumental", "no_bass"), [*signals, signals[0], signals[1]]
    ):
        write_audio(tmp_path / f"{name}.wav", signal, RATE)
    mix = put_mixture(read_folder(tmp_path, KNOWN), tmp_path / "sum" / "all.wav")
    np.testing.assert_allclose(read_audio(mix)[0], sum(signals), atol=1e-6)


@pytest.mark.parametrize(("rate", "asked", "true"), [(44100, 100, 96), (44100, 320, 320), (8000, 320, 64)])
def test_the_manifest_has_the_bit_rate_that_was_written(tmp_path: Path, rate: int, asked: int, true: int) -> None:
    stems = Audio.of({"bass": torch.from_numpy(music(1.0, rate=rate))}, rate)
    how = encoding("mp3", bitrate=asked)
    files = write_stems(tmp_path, stems, how).paths
    assert finish(tmp_path, Made("generate", "tiny", {}, 0, {}), files, how)["encoding"]["bitrate"] == true
