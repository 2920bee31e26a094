"""What programs that embed stemwise rely on: threads, cancelling, seeds and arrays of any kind."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stemwise
from stemwise import checkpoint
from stemwise.audio_io import Existing, StemWriter, output_folder, read_audio, write_audio
from stemwise.errors import AudioFileError, Cancelled, ModelError, QueryError
from stemwise.loading import folder_of
from stemwise.model import Model
from stemwise.stems import Audio
from tiny_band import RATE, music, write_tiny_band
from tiny_componet import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return stemwise.load(write_tiny_band(tmp_path_factory.mktemp("band") / "tiny"), "cpu")


def test_threads_that_write_one_folder_do_not_remove_each_others_files(tmp_path: Path) -> None:
    """The last one stays, whole."""
    block = np.full((1, 1, 100), 0.5, np.float32)
    first = StemWriter(tmp_path, ["bass"], RATE, 1)
    second = StemWriter(tmp_path, ["bass"], RATE, 1)
    second.write(block)
    first.abort()
    second.close()
    assert read_audio(tmp_path / "bass.wav")[0].shape == (1, 100)
    began, go = threading.Event(), threading.Event()

    def slow() -> None:
        with output_folder(tmp_path / "song", Existing.OVERWRITE) as folder:
            (folder / "a").touch()
            began.set()
            go.wait(20)
            (folder / "b").touch()

    with ThreadPoolExecutor() as pool:
        job = pool.submit(slow)
        assert began.wait(20)
        with output_folder(tmp_path / "song", Existing.OVERWRITE) as folder:
            (folder / "c").touch()
        go.set()
        job.result(20)
    assert sorted(path.name for path in (tmp_path / "song").iterdir()) == ["a", "b"]


def test_threads_share_a_model_whose_adapter_hangs_on_its_base(tmp_path: Path) -> None:
    model = stemwise.load(checkpoint.save_model(tmp_path / "model", tiny()), "cpu")

    def made(seed: int) -> torch.Tensor:
        return stemwise.recompose(model, None, (), ("bass", "drums"), seconds=0.3, steps=3, seed=seed).data

    alone = [made(seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(made, range(6)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("no", [False, np.False_])
def test_a_callback_that_says_no_stops_the_work(model: Model, no: Any) -> None:
    for ask in (
        lambda tell: model.separate(music(1.0), rate=RATE, progress=tell),
        lambda tell: model.generate(0.2, steps=1, progress=tell),
    ):
        with pytest.raises(Cancelled):
            ask(lambda _: no)


def test_progress_and_cancelling_name_the_file(model: Model, tmp_path: Path) -> None:
    write_audio(tmp_path / "song.wav", music(1.0), RATE)
    said: list[stemwise.Progress] = []
    model.separate(tmp_path / "song.wav", progress=said.append)
    assert {one.item for one in said} == {"song.wav"}
    with pytest.raises(Cancelled, match=r"^song\.wav: stopped"):
        model.edit(str(tmp_path / "song.wav"), remove=["bass"], progress=lambda _: False)


def test_what_is_left_is_a_number(model: Model) -> None:
    said: list[stemwise.Progress] = []
    model.generate(2.5 * model.window / RATE, steps=1, progress=said.append)
    assert len(said) > 2 and all(0 <= one.eta_seconds < 600 for one in said)
    assert said[-1].fraction == 1 and said[-1].eta_seconds == 0


def test_seeds_are_whole_numbers_of_any_kind(model: Model) -> None:
    made = [model.generate(0.05, steps=1, seed=seed).data for seed in (5, np.int64(5), np.uint8(5))]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    for seed in (0.5, None, "7"):
        with pytest.raises(QueryError, match="give a whole number"):
            model.generate(0.05, steps=1, seed=seed)  # type: ignore[arg-type]


def test_a_path_is_a_folder_and_not_the_name_of_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no model named"):
        folder_of(Path("band"))
    shutil.copytree(folder_of("msdm-band"), "band")
    assert folder_of(Path("band")) == Path("band") != folder_of("band")


def test_a_mix_is_a_tensor_of_its_own() -> None:
    stems = Audio(("bass",), torch.ones(1, 1, 1, 4), RATE, torch.ones(1, 1, 4))
    stems.mix().zero_()
    assert stems.mix().sum() == 4


def test_stems_of_unlike_shapes_are_refused_and_arrays_are_taken() -> None:
    assert Audio.of({"bass": np.ones((1, 4), np.float32)}, RATE).data.shape == (1, 1, 1, 4)
    for wrong in ({"bass": torch.ones(1, 4), "drums": torch.ones(1, 5)}, {"bass": torch.ones(4)}, {}):
        with pytest.raises(QueryError, match="all of one shape"):
            Audio.of(wrong, RATE)
    with pytest.raises(QueryError, match="the mixture of these stems must have the shape"):
        Audio(("bass",), torch.ones(1, 1, 1, 4), RATE, torch.ones(1, 4))


@pytest.mark.filterwarnings("error")
def test_stems_are_made_of_arrays_of_any_layout() -> None:
    plain = music(0.1)
    frozen = plain.copy()
    frozen.setflags(write=False)
    for array in (plain.astype(">f4"), np.asfortranarray(plain), frozen):
        assert torch.equal(Audio.of({"bass": array}, RATE)["bass"][0], torch.from_numpy(plain))
    backwards = Audio.of({"bass": plain[:, ::-1]}, RATE)["bass"][0]
    assert torch.equal(backwards, torch.from_numpy(plain).flip(1))
    learnt = Audio.of({"bass": torch.from_numpy(plain).requires_grad_()}, RATE)
    assert np.array_equal(learnt.numpy()["bass"], plain)


@pytest.mark.parametrize("kind", [np.int16, np.uint8, bool, object])
def test_stems_of_anything_but_floats_are_refused(kind: type) -> None:
    with pytest.raises(QueryError, match="give floats from -1 to 1"):
        Audio.of({"bass": np.ones((1, 4), kind)}, RATE)


def test_wild_samples_and_whole_numbers_are_refused(model: Model, tmp_path: Path) -> None:
    wave = music(1.0).copy()
    wave[0, 50] = 1e20
    with pytest.raises(QueryError, match=r"beyond 1e\+06"):
        model.separate(wave, rate=RATE)
    write_audio(tmp_path / "wild.wav", wave, RATE)
    with pytest.raises(AudioFileError, match=r"wild\.wav: the sample at 0\.00\d s"):
        model.separate(tmp_path / "wild.wav")
    for whole in (np.ones((1, 4), np.int16), torch.ones(1, 4, dtype=torch.int32)):
        with pytest.raises(QueryError, match="give floats from -1 to 1"):
            model.separate(whole, rate=RATE)


@pytest.mark.parametrize("thing", [None, io.BytesIO(b"RIFF"), b"song.wav", (music(0.1), RATE)])
@pytest.mark.parametrize("rate", [None, RATE])
def test_what_is_no_signal_is_named(model: Model, thing: Any, rate: int | None) -> None:
    with pytest.raises(QueryError, match="is no signal; give a path, an array, a tensor or stems"):
        model.separate(thing, rate=rate)
    with pytest.raises(QueryError, match="is no signal"):
        stemwise.score(thing, music(2.0), rate=rate)


def test_a_name_that_no_file_can_have_is_refused(model: Model) -> None:
    with pytest.raises(AudioFileError, match="no file can have this name"):
        model.separate("song\0.wav")


def test_no_stems_are_not_all_stems(model: Model) -> None:
    with pytest.raises(QueryError, match="nothing is wanted"):
        model.generate(0.1, stems=[], steps=1)


@pytest.mark.parametrize("closed", ["2>&-", "1>&-"])
def test_a_closed_stream_stops_nothing(tmp_path: Path, closed: str) -> None:
    place = write_tiny_band(tmp_path / "tiny")
    write_audio(tmp_path / "song.wav", music(0.5), RATE)
    command = f'"{sys.executable}" -m stemwise.cli separate song.wav --model "{place}" {closed}'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done
    assert len(list(tmp_path.glob("separated/tiny/song/*.wav"))) == 5


def test_opening_a_model_leaves_the_hosts_random_numbers_alone(model: Model) -> None:
    before = torch.get_rng_state()
    stemwise.load(model.folder, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_public_names_are_listed() -> None:
    ask: Callable[[], list[str]] = stemwise.__dir__
    assert set(stemwise.__all__) <= set(ask())


def test_models_load_in_several_threads() -> None:
    """In a process of its own: the libraries that they need are imported for the first time."""
    program = (
        "import stemwise; from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "with Pool(3) as pool: print(len(list(pool.map(stemwise.load, ['msgld-band', 'componet-band', 'msgld-band']))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


@pytest.mark.parametrize(
    ("name", "remedy"), [("notes", r"give a \.mid file"), ("rolls", "use it with --midi"), ("band", "start or end")]
)
def test_a_model_that_cannot_is_answered_with_what_to_do(name: str, remedy: str) -> None:
    with pytest.raises((ModelError, QueryError), match=remedy):
        stemwise.load(name, "cpu", start=0.2)
