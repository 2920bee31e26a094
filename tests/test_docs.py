"""Every command and every Python example in the README and in docs/ runs, with a tiny model and few steps."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

import tiny_componet
import tiny_gmsdi
import tiny_msgld
from stemwise import cli
from stemwise.audio_io import encoding, write_audio
from stemwise.checkpoint import save_model
from stemwise.coherence.cocola import Cocola, CocolaConfig
from stemwise.evaluate.study import Study
from stemwise.recipe import Recipe, Section
from stemwise.songs.synthetic import compose, write_midi
from stemwise.systems.gmsdi import Gmsdi
from tiny_band import RATE, music, write_tiny_band
from tiny_notes import tiny_assigner
from tiny_rolls import tiny_prior

ROOT = Path(__file__).parent.parent
LOG = ROOT / "docs" / "test-font-log.md"  # written by the benchmarks
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {LOG})]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Times of the docs -> what fits the short song of this test.
SHORTER = {"--span 10:20": "--span 1:2", "0:10-0:20": "0:01-0:02", "12:14": "1.2:1.4", "span=(10, 20)": "span=(1, 2)",
           "--shifts=-1:1:0.25 --semitones=-2:2": "--shifts=0:0.2:0.2 --semitones 0:0"}  # fmt: skip
#: Options of the docs -> values that are small enough for a test.
FEWER = {"--seconds": "5", "--steps": "1", "--count": "2", "-n": "2", "--evaluations": "1"}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the docs speak of, and a tiny model in the place of the bundled one."""
    (tmp_path / "weights").mkdir()
    write_tiny_band(tmp_path / "weights" / "band")
    save_model(tmp_path / "weights" / "cocola", Cocola(CocolaConfig(scale=0.25)))
    save_model(tmp_path / "weights" / "rolls", tiny_prior())
    save_model(tmp_path / "weights" / "notes", tiny_assigner())
    save_model(tmp_path / "weights" / "msgld-band", tiny_msgld.tiny())
    save_model(tmp_path / "weights" / "componet-band", tiny_componet.tiny(steps=1))
    words = ("bass", "drums", "guitar", "piano")  # the bundled one's
    save_model(tmp_path / "weights" / "gmsdi-band", Gmsdi(replace(tiny_gmsdi.CONFIG, words=words)))
    monkeypatch.setattr("stemwise.loading.BUNDLED", tmp_path / "weights")
    desk = tmp_path / "desk"
    desk.mkdir()
    monkeypatch.chdir(desk)
    save_model(desk / "msgld", tiny_msgld.tiny())
    write_audio("song.mp3", music(2.5, channels=1, rate=16000), 16000, encoding("mp3"))
    for name in ("take.wav", "keys.wav", "album/one.wav", "takes/one.wav", "takes/two.wav"):
        write_audio(name, music(0.8), RATE)
    for seed, name in enumerate(("context.wav", "accompaniment.wav", "stems/bass.wav", "stems/drums.wav")):
        write_audio(name, music(8, channels=1, seed=seed, rate=16000), 16000)
    for name, stems in (("song", None), ("part", ("guitar",))):
        piece = compose(1, seconds=4)
        write_midi(
            replace(piece, tracks=tuple(t for t in piece.tracks if not stems or t.stem in stems)), Path(f"{name}.mid")
        )
    shutil.copytree(ROOT / "recipes", "recipes")
    return desk


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, desk: Path) -> None:
    ran = 0
    text = page.read_text(encoding="utf-8")
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    for language, block in BLOCK.findall(text):
        if language == "python":
            exec(compile(block, str(page), "exec"), {})
            ran += 1
        for line in block.splitlines() if language == "sh" else []:
            run(line)
            ran += 1
    assert ran or page.stem in ("architecture", "formats")


def run(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "stemwise", f"only stemwise commands can be run by this test: {line}"
    for index, word in enumerate(words[:-1]):
        if word in FEWER and words[0] != "separate":
            words[index + 1] = "0.8" if words[0] == "generate" and word == "--seconds" else FEWER[word]
    if words[0] in ("generate", "accompany", "edit") and "--steps" not in words:
        words += ["--steps", "1"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_names_every_verb() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"]).output
    verbs = re.findall(r"^  (\w+)  ", shown.split("Commands:")[1], re.MULTILINE)
    assert len(verbs) >= 9
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs if f"`{verb}" not in readme] == []


def _fields(section: type[Section]) -> set[str]:
    """Names of the fields of a section and of those within it."""
    found: set[str] = set()
    for name, field in section.model_fields.items():
        within = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        within += [
            kind for nested in map(get_args, get_args(field.annotation)) for kind in nested if isinstance(kind, type)
        ]
        found |= {name}.union(*(_fields(kind) for kind in within if issubclass(kind, Section)))
    return found


@pytest.mark.parametrize(("pages", "section"), [("train data", Recipe), ("evaluate", Study)])
def test_every_key_of_a_file_is_explained(pages: str, section: type[Section]) -> None:
    text = "".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in pages.split())
    code = [*re.findall(r"```.*?```", text, re.DOTALL), *re.findall(r"`[^`\n]+`", text)]
    assert _fields(section) - set(re.findall(r"\w+", " ".join(code))) == set()
