"""The command line, as a user types it: output trees, iterative work, and a clear answer to every kind of bad input."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from stemwise import cli
from stemwise.audio_io import read_audio, write_audio
from stemwise.checkpoint import load_model, save_model
from stemwise.codecs.melvae import MelVae
from stemwise.commands.console import Voice
from stemwise.errors import AudioFileError
from stemwise.model import Model
from tiny_band import RATE, music, write_tiny_band
from tiny_msgld import CODEC

STEMS = ("bass", "drums", "guitar", "piano", "other")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_band(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_audio("song.wav", music(1.0), RATE)
    return tmp_path


@pytest.fixture
def run(here: Path, model: Path) -> Run:
    """Run the command line with the tiny model; `code` is the exit code that must come."""

    def call(*words: str, code: int = 0, with_model: bool = True) -> Any:
        extra = ["--model", str(model)] if with_model else []
        result = CliRunner().invoke(cli.app, [*words, *extra])
        assert result.exit_code == code, f"{result.exit_code}\n{result.output}\n{result.exception!r}"
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return call


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# -- the verbs -------------------------------------------------------------------------------------------------------


def test_separate_writes_stems_that_sum_to_the_song(run: Run, here: Path) -> None:
    result = run("separate", "song.wav")
    folder = here / "separated/tiny/song"
    assert tree(folder) == sorted([*(f"{stem}.wav" for stem in STEMS), "manifest.json"])
    song, rate = read_audio("song.wav")
    stems = [read_audio(folder / f"{stem}.wav") for stem in STEMS]
    assert {r for _, r in stems} == {rate}
    assert np.abs(sum(s.astype(float) for s, _ in stems) - song).max() < 1e-5  # -100 dBFS
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["null_test_dbfs"] < -100
    assert manifest["unassigned_energy_share"] >= 0
    assert "separated/tiny/song" in result.stdout
    assert "null test -" in result.stdout
    assert "times real time" in result.stdout


def test_separate_mono_at_another_rate_as_flac(run: Run, here: Path) -> None:
    write_audio("mono.wav", music(0.6, channels=1, rate=16000), 16000)
    run("separate", "mono.wav", "--flac", "--int16", "-o", "out", "--stems", "drums,bass")
    assert tree(here / "out/tiny/mono") == ["bass.flac", "drums.flac", "manifest.json"]
    info = soundfile.info("out/tiny/mono/bass.flac")
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 1, 9600, "PCM_16")


def test_two_stems_are_one_and_the_rest(run: Run, here: Path) -> None:
    run("separate", "song.wav", "--two-stems", "drums")
    folder = here / "separated/tiny/song"
    assert tree(folder) == ["drums.wav", "manifest.json", "no_drums.wav"]
    total = sum(read_audio(folder / f"{name}.wav")[0].astype(float) for name in ("drums", "no_drums"))
    assert np.abs(total - read_audio("song.wav")[0]).max() < 1e-5


def test_two_stems_share_one_gain_which_the_manifest_holds(run: Run, here: Path) -> None:
    write_audio("loud.wav", 6 * music(1.0), RATE)
    run("separate", "loud.wav", "--two-stems", "drums", "--int24")
    folder = here / "separated/tiny/loud"
    gain_db = json.loads((folder / "manifest.json").read_text())["gain_db"]
    total = sum(read_audio(folder / f"{name}.wav")[0].astype(float) for name in ("drums", "no_drums"))
    assert gain_db < -1 and np.abs(total - 10 ** (gain_db / 20) * read_audio("loud.wav")[0]).max() < 1e-4


@pytest.mark.parametrize(
    ("verb", "words", "asked"),
    [
        ("separate_file", ("separate", "song.wav", "--evaluations", "3", "--overlap", "0.6", "--flac"),
         {"evaluations": 3, "overlap": 0.6}),
        ("generate", ("generate", "--seconds", "0.8", "--stems", "bass", "--seed", "4", "--steps", "2"),
         {"stems": ("bass",), "seed": 4, "steps": 2}),
        ("accompany", ("accompany", "bass=song.wav", "--want", "drums", "--seed", "4", "--steps", "2"), {"seed": 4, "steps": 2}),
        ("edit", ("edit", "song.wav", "--replace", "bass,drums", "--span", "0.2:0.5", "--seed", "4", "--steps", "2",
                  "--evaluations", "3"),
         {"remove": (), "extract": (), "replace": ("bass", "drums"), "span": (0.2, 0.5), "seed": 4, "steps": 2, "evaluations": 3}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)  # fmt: skip
def test_options_reach_the_model(
    run: Run, monkeypatch: pytest.MonkeyPatch, verb: str, words: tuple[str, ...], asked: dict[str, Any]
) -> None:
    heard: dict[str, Any] = {}

    def hear(self: Model, *given: Any, **wishes: Any) -> None:
        heard.update(wishes)
        raise AudioFileError("enough")

    monkeypatch.setattr(Model, verb, hear)
    assert "enough" in run(*words, code=1).stderr
    assert {name: heard.get(name) for name in asked} == asked
    if verb == "separate_file":
        assert heard["encoding"].extension == "flac"


def test_filename_template(run: Run, here: Path) -> None:
    run("separate", "song.wav", "--filename", "takes/{track}/{track}_{stem}.{ext}", "--stems", "bass")
    assert tree(here / "separated/tiny") == ["takes/song/manifest.json", "takes/song/song_bass.wav"]
    run("edit", "separated/tiny/takes/song", "--extract", "bass")  # the manifest, not the file name, says what it is
    assert (here / "edited/tiny/song-extract-bass/bass.wav").is_file()


def test_generate(run: Run, here: Path) -> None:
    run("generate", "--seconds", "0.8", "--seed", "7", "--steps", "2")
    folder = here / "generated/tiny/seed-7"
    assert tree(folder) == sorted([*(f"{stem}.wav" for stem in STEMS), "manifest.json", "mix.wav"])
    mix, rate = read_audio(folder / "mix.wav")
    assert mix.shape == (2, round(0.8 * rate))
    run("generate", "--seconds", "0.8", "--seed", "7", "--steps", "2", "-o", "again")
    assert np.array_equal(read_audio(here / "again/tiny/seed-7/mix.wav")[0], mix)


def test_accompany_keeps_what_was_given(run: Run, here: Path) -> None:
    run("accompany", "guitar=song.wav", "--want", "bass,drums", "-n", "2", "--steps", "2")
    for take in ("take-1", "take-2"):
        folder = here / "accompanied/tiny/song" / take
        assert tree(folder) == ["bass.wav", "drums.wav", "guitar.wav", "manifest.json", "mix.wav"]
        assert np.array_equal(read_audio(folder / "guitar.wav")[0], read_audio("song.wav")[0])
    a, b = ((here / f"accompanied/tiny/song/take-{n}/bass.wav").read_bytes() for n in (1, 2))
    assert a != b


def test_edit_changes_nothing_outside_its_span(run: Run, here: Path) -> None:
    run("edit", "song.wav", "--replace", "guitar", "--span", "0.4:0.6", "--steps", "2")
    folder = here / "edited/tiny/song-replace-guitar-0.4-0.6"
    assert "guitar'.wav" in tree(folder)
    new, old = read_audio(folder / "mix.wav")[0], read_audio("song.wav")[0]
    start, end = round(0.4 * RATE), round(0.6 * RATE)
    assert np.array_equal(new[:, :start], old[:, :start])
    assert np.array_equal(new[:, end:], old[:, end:])
    assert not np.array_equal(new[:, start:end], old[:, start:end])


def test_versions_of_an_edit_stand_side_by_side(run: Run, here: Path) -> None:
    for seed in "01":
        run("edit", "song.wav", "--replace", "guitar", "--steps", "2", "--seed", seed)
    a, b = (
        here / "edited/tiny" / name / "guitar'.wav" for name in ("song-replace-guitar", "song-replace-guitar-seed-1")
    )
    assert a.read_bytes() != b.read_bytes()
    run("edit", "song.wav", "--remove", "guitar", "--seed", "1")  # where a seed changes nothing it names nothing
    assert (here / "edited/tiny/song-remove-guitar").is_dir()


def test_an_edit_of_an_edit_keeps_the_mix_outside_its_span(run: Run, here: Path) -> None:
    run("edit", "song.wav", "--remove", "guitar", "--span", "0.1:0.3")
    run("edit", "edited/tiny/song-remove-guitar-0.1-0.3", "--remove", "bass", "--span", "0.6:0.8", "-o", "again")
    old = read_audio("song.wav")[0]
    new = read_audio("again/tiny/song-remove-guitar-0.1-0.3-remove-bass-0.6-0.8/mix.wav")[0]
    same = (new == old).all(0)
    assert same[: round(0.1 * RATE)].all() and same[round(0.3 * RATE) : round(0.6 * RATE)].all()
    assert same[round(0.8 * RATE) :].all() and not same.all()


def test_every_output_is_input_to_every_verb(run: Run, here: Path) -> None:
    """separate -> edit -> accompany -> separate, and a generated song through all of them."""
    run("generate", "--seconds", "0.8", "--steps", "2", "--name", "new")
    run("separate", "song.wav")
    run("edit", "separated/tiny/song", "--replace", "guitar", "--steps", "2")
    run("accompany", "edited/tiny/song-replace-guitar", "--want", "bass", "--steps", "2")
    run("separate", "accompanied/tiny/song-replace-guitar", "generated", "edited", "-o", "again")
    assert len(tree(here / "again")) == 18
    run("edit", "generated/tiny/new", "--remove", "drums")
    assert "drums.wav" not in tree(here / "edited/tiny/new-remove-drums")
    run("accompany", "separated/tiny/song", "--want", "piano", "--steps", "2", "--name", "b")
    kept = read_audio("accompanied/tiny/b/bass.wav")[0]
    assert np.array_equal(kept, read_audio("separated/tiny/song/bass.wav")[0])


def test_json_is_one_document(run: Run, here: Path) -> None:
    result = run("separate", "song.wav", "missing.wav", "--json", "-q", code=1)
    document = json.loads(result.stdout)
    assert (document["format"], document["verb"], document["exit_code"]) == (1, "separate", 1)
    done, failed = document["outcomes"]
    assert (done["status"], done["folder"]) == ("done", "separated/tiny/song")
    assert done["manifest"]["stems"]["bass"]["file"] == "bass.wav"
    assert failed["status"] == "failed"
    assert "no such file" in failed["message"]


def test_json_is_json_whatever_stdout_can_write(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"input": "caf\udce9 \N{MUSICAL SYMBOL G CLEF} ü"}
    Voice(as_json=True).hand_over("separate", document)
    shown = capsys.readouterr().out
    assert shown.isascii() and json.loads(shown) == {"format": 1, "verb": "separate", "exit_code": 0, **document}


def test_info_and_doctor(run: Run, model: Path) -> None:
    shown = run("info", str(model), with_model=False).stdout
    assert "bass, drums, guitar, piano, other" in shown
    assert "44,100" in shown
    facts = json.loads(run("doctor", "--json", with_model=False).stdout)
    assert (facts["format"], facts["verb"], facts["exit_code"]) == (1, "doctor", 0)
    assert facts["packages"]["torch"]
    assert set(facts["fonts"]) == {"train", "validation", "test"}
    assert facts["try"].startswith("stemwise separate")


def test_version(run: Run) -> None:
    assert run("--version", with_model=False).stdout.startswith("stemwise 0.")


# -- batches, skipping, cancelling ------------------------------------------------------------------------------------


def test_one_bad_file_stops_no_other(run: Run, here: Path) -> None:
    (here / "bad.wav").write_text("not audio")
    write_audio("last.wav", music(0.5), RATE)
    result = run("separate", "song.wav", "bad.wav", "last.wav", code=1)
    assert sorted(p.name for p in (here / "separated/tiny").iterdir()) == ["last", "song"]
    assert "bad.wav: this is not an audio file" in result.stderr
    assert "1 of 3 inputs failed: bad.wav" in result.stderr


def test_existing_output_is_refused_skipped_or_replaced(run: Run, here: Path) -> None:
    run("separate", "song.wav", "--stems", "bass")
    stem = here / "separated/tiny/song/bass.wav"
    before = stem.stat().st_mtime_ns
    assert "exists already" in run("separate", "song.wav", "--stems", "bass", code=1).stderr
    assert "skipped" in run("separate", "song.wav", "--stems", "bass", "--skip-existing").stdout
    assert stem.stat().st_mtime_ns == before
    run("separate", "song.wav", "--stems", "bass", "--overwrite", "--overlap", "0.5")
    assert "differ" in run("separate", "song.wav", "--stems", "bass", "--skip-existing", code=1).stderr
    assert stem.stat().st_mtime_ns != before


def test_overwriting_never_deletes_what_is_not_ours(run: Run, here: Path) -> None:
    run("separate", "song.wav", "--stems", "bass")
    notes = here / "separated/tiny/song/notes.txt"
    notes.write_text("bar 12: too loud")
    assert "'notes.txt'" in run("separate", "song.wav", "--stems", "bass", "--overwrite", code=1).stderr
    assert notes.is_file()


def test_skipping_never_passes_another_result_off_as_this_one(run: Run, here: Path) -> None:
    run("separate", "song.wav", "--stems", "bass")
    write_audio("song.wav", music(0.5, seed=3), RATE)
    assert "what differs: input" in run("separate", "song.wav", "--stems", "bass", "--skip-existing", code=1).stderr
    (here / "separated/tiny/song/manifest.json").unlink()
    assert "without a manifest" in run("separate", "song.wav", "--skip-existing", code=1).stderr


def test_a_song_that_is_replaced_while_it_is_worked_on_is_an_error(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest would say of the new song what was made of the old one, and --skip-existing believe it."""
    separate = Model.separate_file

    def replaced(*arguments: Any, **options: Any) -> Any:
        report = separate(*arguments, **options)
        write_audio("song.wav", music(0.5, seed=3), RATE)
        return report

    monkeypatch.setattr(Model, "separate_file", replaced)
    assert "song.wav: changed while" in run("separate", "song.wav", code=1).stderr
    assert not list((here / "separated/tiny").iterdir())


def test_skipping_tells_weights_apart_and_misses_lost_files(run: Run, here: Path, model: Path) -> None:
    """The best weights of a training are called as its run, whatever they are."""
    other = save_model(here / "b/run/best", type(load_model(model))(load_model(model).config))
    shutil.copytree(model, here / "a/run/best")
    run("separate", "song.wav", "-n", "a/run/best", with_model=False)
    again = ("separate", "song.wav", "--skip-existing", "-n")
    assert "skipped" in run(*again, "a/run/best", with_model=False).stdout
    assert "what differs: weights or configuration" in run(*again, str(other), code=1, with_model=False).stderr
    (here / "separated/run/song/bass.wav").write_bytes(b"")
    assert "bass.wav: missing or empty" in run(*again, "a/run/best", code=1, with_model=False).stderr


def test_skipping_tells_encodings_and_names_of_files_apart(run: Run) -> None:
    words = ("separate", "song.wav", "--mp3", "--mp3-bitrate")
    run(*words, "64")
    assert "skipped" in run(*words, "64", "--skip-existing").stdout
    for more in (("320",), ("64", "--filename", "{track}/x_{stem}.{ext}")):
        assert "what differs: options" in run(*words, *more, "--skip-existing", code=1).stderr


def test_what_file_managers_leave_is_overwritten_and_nothing_else(run: Run, here: Path) -> None:
    folder = here / "separated/tiny/song"
    folder.mkdir(parents=True)
    (folder / ".DS_Store").write_bytes(b"x")
    run("separate", "song.wav")
    (folder / ".DS_Store").write_bytes(b"x")
    run("separate", "song.wav", "--overwrite")
    (folder / "own").mkdir()
    (folder / "own/idea.wav").write_bytes(b"x")
    assert "'own/idea.wav'" in run("separate", "song.wav", "--overwrite", code=1).stderr


@pytest.mark.parametrize("words", [("generate",), ("accompany", "guitar=song.wav", "--want", "bass")])
def test_what_counts_for_separation_only_is_refused_elsewhere(run: Run, words: tuple[str, ...]) -> None:
    said = run(*words, "--guidance", "8", "--model", "msgld-band", code=2, with_model=False).stderr
    assert "takes guidance only when it separates" in said


def test_what_the_model_does_not_know_is_not_silently_unheard(run: Run, here: Path) -> None:
    run("separate", "song.wav", "--two-stems", "drums", "-o", "two")
    said = run("edit", "two/tiny/song", "--replace", "drums", code=2).stderr
    assert "cannot hear no_drums" in said
    run("edit", "two/tiny/song", "--extract", "no_drums", "-o", "rest", "--seed", "3")
    rest = json.loads((here / "rest/tiny/song-extract-no_drums/manifest.json").read_text())
    assert list(rest["stems"]) == ["no_drums"]
    assert rest["seed"] == 0 and "steps" not in rest["parameters"], "nothing was made"
    run("edit", "two/tiny/song", "--remove", "drums")
    said = run("accompany", "two/tiny/song", "--want", "drums", code=2).stderr
    assert "nothing is left" in said
    write_audio("only/mix.wav", music(1.0), RATE)
    assert "holds no stem" in run("accompany", "only", "--want", "bass", code=2).stderr


def test_what_a_model_does_not_know_is_not_lost_in_silence(run: Run, here: Path) -> None:
    for seed, name in enumerate(("bass", "guitar", "vocals")):
        write_audio(here / "song" / f"{name}.wav", music(0.8, seed=seed), RATE)
    assert "vocals.wav is not a stem" in run("edit", "song", "--remove", "bass", code=1).stderr
    assert "vocals.wav: not a stem" in run("accompany", "song", "--want", "drums", "--steps", "1").stderr
    run("separate", "song")
    assert (here / "separated/tiny/song/manifest.json").is_file()


@pytest.mark.parametrize("words", [("separate", "song.wav"), ("generate", "--seconds", "0.8", "--steps", "2")])
def test_ctrl_c_leaves_nothing_partial(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, words: Any) -> None:
    @contextmanager
    def interrupted(self: Voice, label: str) -> Iterator[Callable[[Any], None]]:
        def stop(progress: Any) -> None:
            raise KeyboardInterrupt

        yield stop

    monkeypatch.setattr(Voice, "progress", interrupted)
    assert "cancelled" in run(*words, code=130).stderr
    assert tree(here) == ["song.wav"]


def test_termination_unwinds() -> None:
    with pytest.raises(SystemExit) as left:
        cli._terminated(15, None)
    assert left.value.code == 143


# -- bad input ---------------------------------------------------------------------------------------------------------


def bad_files(here: Path) -> dict[str, tuple[bytes | None, str]]:
    """Name -> (content, what must be said beside the name)."""
    good = (here / "song.wav").read_bytes()
    poisoned = {value: here / f"{value}.wav" for value in ("nan", "inf")}
    for value, file in poisoned.items():
        signal = music(0.5)
        signal[1, 5000] = float(value)
        soundfile.write(file, signal.T, RATE, subtype="FLOAT")
    soundfile.write(here / "slow.wav", music(1, rate=1000).T, 1000)
    soundfile.write(here / "fast.wav", music(0.1, rate=384000).T, 384000)
    soundfile.write(here / "wide.wav", music(0.5, channels=12).T, RATE)
    soundfile.write(here / "nothing.wav", np.zeros((0, 2)), RATE)
    return {
        "missing.wav": (None, "no such file"),
        "empty.wav": (b"", "empty"),
        "header.wav": (good[:20], "header"),
        "cut.wav": (good[: len(good) // 2], "cut off"),
        "text.wav": (b"Dear diary, this is not music.", "not an audio file"),
        "nothing.wav": ((here / "nothing.wav").read_bytes(), "no samples"),
        "nan.wav": (poisoned["nan"].read_bytes(), "nan"),
        "inf.wav": (poisoned["inf"].read_bytes(), "inf"),
        "slow.wav": ((here / "slow.wav").read_bytes(), "1000 Hz"),
        "fast.wav": ((here / "fast.wav").read_bytes(), "384000 Hz"),
        "wide.wav": ((here / "wide.wav").read_bytes(), "12 channels"),
    }


@pytest.mark.parametrize("verb", ["separate", "accompany", "edit"])
def test_bad_audio_is_named_with_problem_and_remedy(run: Run, here: Path, verb: str) -> None:
    for name, (content, said) in bad_files(here).items():
        if content is not None:
            (here / name).write_bytes(content)
        words = {
            "separate": ["separate", name],
            "accompany": ["accompany", f"guitar={name}", "--want", "bass", "--steps", "1"],
            "edit": ["edit", name, "--remove", "drums"],
        }[verb]
        message = run(*words, code=1).stderr
        assert name in message
        assert said in message, (name, message)
        assert message.strip().count(". ") >= 1, f"no remedy: {message}"
    assert not any((here / out).exists() and tree(here / out) for out in ("separated", "accompanied", "edited"))


@pytest.mark.parametrize(
    "words",
    [
        ("accompany", "lost.mid"),
        ("accompany", "guitar=lost.mid", "--want", "drums", "--render"),
        ("separate", "lost.mid", "--render"),
        ("score", "lost"),
        ("score", "guitar=lost.mid", "song.wav"),
    ],
)
def test_what_is_not_there_is_said_to_be_missing(run: Run, words: tuple[str, ...]) -> None:
    assert "no such file" in run(*words, code=1).stderr


def test_output_that_cannot_be_written(run: Run, here: Path) -> None:
    (here / "file").write_text("in the way")
    message = run("separate", "song.wav", "-o", "file/out", code=1).stderr
    assert "no output folder can be made" in message
    assert "-o" in message


@pytest.mark.slow
def test_full_disk_leaves_nothing(here: Path, model: Path) -> None:
    """A limit on the size of files stands in for a full disk: writing fails half-way, as there."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = [sys.executable, "-m", "stemwise", "separate", "song.wav", "-n", str(model)]
    done = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Free some space" in done.stderr
    assert tree(here) == ["song.wav"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("separate", "song.wav", "--stems", "drumz"), "did you mean 'drums'"),
        (("separate", "song.wav", "--stems", "bass", "--two-stems", "bass"), "exclude each other"),
        (("separate", "song.wav", "--mp3", "--flac"), "exclude each other"),
        (("separate", "song.wav", "--int16", "--int24"), "exclude each other"),
        (("separate", "song.wav", "--flac", "--float32"), "flac cannot hold 32 bits"),
        (("separate", "song.wav", "--mp3-bitrate", "128"), "bit rate"),
        (("separate", "song.wav", "--skip-existing", "--overwrite"), "exclude each other"),
        (("separate", "song.wav", "--filename", "{stem}.{ext}"), "folder of its own"),
        (("separate", "song.wav", "--filename", "{track}/{stem}"), "names end with .{ext}"),
        (("separate", "song.wav", "--filename", "{track}/{stem:d}.{ext}"), "--filename"),
        (("separate", "song.wav", "--filename", "{song}/{stem}.{ext}"), "unknown field {song}"),
        (("separate", "song.wav", "--filename", "../{track}/{stem}.{ext}"), "leads out"),
        (("separate",), "inputs"),
        (("separate", "song.wav", "--loud"), "--loud"),
        (("separate", "song.wav", "--likelihood", "dirac"), "takes no likelihood"),
        (("generate", "--seconds", "-3"), "-3 seconds"),
        (("generate", "--stems", "vocals"), "no stem named 'vocals'"),
        (("accompany", "song.wav"), "which stem it is"),
        (("accompany", "guitr=song.wav"), "did you mean 'guitar'"),
        (("accompany", "guitar=song.wav", "guitar=song.wav"), "given twice"),
        (("accompany", "guitar=song.wav", "--want", "guitar"), "both given and wanted"),
        (("edit", "song.wav"), "nothing to edit"),
        (("edit", "song.wav", "--remove", "bass", "--extract", "bass"), "contradict"),
        (("edit", "song.wav", "--remove", "bas"), "did you mean 'bass'"),
        (("edit", "song.wav", "--remove", "bass", "--span", "5"), "not a span"),
        (("edit", "song.wav", "--remove", "bass", "--span", "5:2"), "start must come before"),
        (("edit", "song.wav", "--remove", "bass", "--span", "50:60"), "does not lie in"),
    ],
)
def test_contradictory_requests(run: Run, here: Path, words: tuple[str, ...], said: str) -> None:
    assert said in run(*words, code=2).stderr
    assert tree(here) == ["song.wav"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("separate", "song.wav", "--filename", "{track}/{stem}.{ext"), "expected '}'"),
        (("generate", "--seconds", "0.5", "--steps", "1", "--name", "../x"), "leads out of the output folder"),
    ],
)
def test_names_that_cannot_be(run: Run, here: Path, words: tuple[str, ...], said: str) -> None:
    assert said in run(*words, code=2).stderr
    assert tree(here) == ["song.wav"]


def test_a_span_beyond_one_song_costs_no_other(run: Run, here: Path) -> None:
    write_audio("long.wav", music(1.5), RATE)
    result = run("edit", "song.wav", "long.wav", "--remove", "bass", "--span", "1.1:1.2", code=1)
    assert "does not lie in the 1.00 s" in result.stderr
    assert [p.name for p in (here / "edited/tiny").iterdir()] == ["long-remove-bass-1.1-1.2"]


def test_an_edit_never_loses_an_instrument(run: Run, here: Path) -> None:
    for name in ("mix", "vocals", "bass"):
        write_audio(f"album/{name}.wav", music(0.5), RATE)
    assert "vocals.wav is not a stem that the model tiny has" in run("edit", "album", "--remove", "bass", code=1).stderr
    run("edit", "album/mix.wav", "--remove", "bass")
    Path("album/vocals.wav").unlink()
    write_audio("album/bass.wav", 0.1 * music(0.5, seed=1), RATE)
    assert "Give mix.wav alone" in run("edit", "album", "--remove", "bass", code=1).stderr
    assert not Path("edited/tiny/album-remove-bass").exists()


def test_a_place_that_cannot_be_written_is_named(run: Run, here: Path) -> None:
    (here / "file").write_text("")
    songs = ("songs", "make", "file/songs", "--count", "1", "--seconds", "5", "--fonts", "builtin")
    assert "file/songs: Not a directory. Check the path" in run(*songs, code=1, with_model=False).stderr


def test_info_of_a_part_of_a_model(run: Run, here: Path) -> None:
    save_model(here / "codec", MelVae(CODEC))
    shown = run("info", "codec", with_model=False).stdout
    assert "melvae" in shown and "channels" not in shown
    save_model(here / "my-run" / "best", MelVae(CODEC))
    assert json.loads(run("info", "my-run/best", "--json", with_model=False).stdout)["name"] == "my-run"


def test_unknown_model_lists_what_there_is(run: Run) -> None:
    message = run("separate", "song.wav", "-n", "bandd", code=3, with_model=False).stderr
    assert "no model named 'bandd'" in message
    assert "model folder" in message


@pytest.mark.parametrize("defect", ["missing", "surplus", "shape", "pickle", "short", "config", "type"])
def test_bad_model_folders(run: Run, here: Path, model: Path, defect: str) -> None:
    folder = here / "broken"
    folder.mkdir()
    (folder / "config.json").write_bytes((model / "config.json").read_bytes())
    weights = folder / "model.safetensors"
    tensors = load_file(model / "model.safetensors")
    name = sorted(tensors)[0]
    said = name
    if defect == "missing":
        del tensors[name]
    elif defect == "surplus":
        tensors[said := "extra.weight"] = np.zeros(3, np.float32)
    elif defect == "shape":
        tensors[name] = np.zeros((1, 2, 3), np.float32)
    save_file(tensors, weights)
    if defect == "pickle":
        weights.write_bytes(pickle.dumps({"a": 1}))
        said = "pickle"
    elif defect == "short":
        weights.write_bytes(weights.read_bytes()[:5000])
        said = "cut short"
    elif defect == "config":
        (folder / "config.json").unlink()
        said = "config.json"
    elif defect == "type":
        (folder / "config.json").write_text('{"format": 1, "type": "os.system"}')
        said = "unknown model type 'os.system'"
    message = run("separate", "song.wav", "-n", "broken", code=3, with_model=False).stderr
    assert "broken" in message
    assert said in message
    assert not (here / "separated").exists()


def test_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stemwise.songs.synthetic.write", None)

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    monkeypatch.setattr("stemwise.recipe.load_recipe", broken)
    assert "stemwise[train]" in run("train", "recipe.yaml", code=3, with_model=False).stderr


# -- starting at once --------------------------------------------------------------------------------------------------


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    """CPU time, not wall time: other programs on the machine must not make this fail."""
    heavy = "{'torch', 'numpy', 'soundfile', 'scipy', 'pydantic'} & set(sys.modules)"
    program = (
        f"import sys, stemwise.cli\ntry: stemwise.cli.app(['--help'])\nexcept SystemExit: pass\nsys.exit(len({heavy}))"
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=dict(os.environ))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.4, times


def test_what_should_not_happen_is_explained_and_verbose_shows_where(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: Any, **__: Any) -> None:
        raise RuntimeError("a surprise")

    monkeypatch.setattr(Model, "separate_file", surprise)
    asked = ["separate", "song.wav", "--model", str(model)]
    plain, verbose = (CliRunner().invoke(cli.app, [*asked, *more]) for more in ([], ["-v"]))
    assert (plain.exit_code, verbose.exit_code) == (1, 1)
    for result in (plain, verbose):
        assert "should not happen (RuntimeError: a surprise)" in result.output
    assert "Traceback" not in plain.output and "Traceback" in verbose.output and "in surprise" in verbose.output
