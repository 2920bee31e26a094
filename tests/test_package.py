"""The package as others get it: public names, and a wheel that works in an empty environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import stemwise
from stemwise.extras import EXTRAS, extra_of

ROOT = Path(__file__).parent.parent


def test_public_names_are_the_documented_ones() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"The public names are (.*?)\.\n\n", readme, re.DOTALL)
    assert listed is not None
    documented = {name.removeprefix("stemwise.") for name in re.findall(r"`([\w.]+)`", listed[1])}
    assert documented == set(stemwise.__all__)
    for name in stemwise.__all__:
        assert getattr(stemwise, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Stem'"):
        _ = stemwise.Stem  # type: ignore[attr-defined]


def test_importing_loads_nothing_heavy() -> None:
    program = "import sys, stemwise; sys.exit(len({'torch', 'numpy', 'soundfile'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_versions_agree() -> None:
    version = stemwise.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_every_dependency() -> None:
    """What pyproject.toml asks for, in any extra, has a tested version."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {re.split(r"[\s<>=!\[;]", requirement)[0].lower() for requirement in asked} - {"stemwise"}
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    pinned = {re.sub("_", "-", line.split("==")[0]) for line in text.splitlines() if "==" in line}
    assert {re.sub("_", "-", name) for name in names} - pinned == set()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, the wheel built from the sdist as package indexes do."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_the_extras_are_those_of_the_project() -> None:
    """What `doctor` looks for and what a missing package is answered with."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["optional-dependencies"]
    packages = {extra: {re.split(r"[\[<>=]", one)[0] for one in asked[extra]} - {"stemwise"} for extra in EXTRAS}
    packages["train"] |= packages["midi"]  # train asks for stemwise[midi]
    assert {extra: set(names) for extra, names in EXTRAS.items()} == packages
    assert set(EXTRAS) | {"dev", "all"} == set(asked)
    assert (extra_of("symusic.types"), extra_of("matplotlib"), extra_of("nothing")) == ("midi", "eval", None)


def test_wheel_and_sdist_hold_what_they_should(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    for needed in (
        "stemwise/py.typed",
        "stemwise/listen.html",
        "stemwise/weights/band/config.json",
        "stemwise/weights/band/model.safetensors",
    ):
        assert needed in wheel, needed
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    assert not [name for name in wheel if name.startswith(("tests", "runs", "separated"))]
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "README.md",
        "Makefile",
        "constraints.txt",
        "tests/conftest.py",
        "recipes/band.yaml",
        "docs/train.md",
    ):
        assert needed in sdist, needed


@pytest.mark.slow
def test_wheel_separates_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    """Nothing but the wheel and what it depends on; the bundled weights are inside."""
    home = tmp_path / "empty"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}

    def call(*words: str) -> str:
        done = subprocess.run(
            [str(python), *words], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    pip = ("-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"))
    if index := os.environ.get("TORCH_INDEX"):
        call(*pip, "--no-deps", "--index-url", index, "torch")
    call(*pip, str(next(built.glob("*.whl"))))
    installed = {entry["name"].lower() for entry in json.loads(call("-m", "pip", "list", "--format", "json"))}
    assert not installed & {"pytest", "lightning", "scipy", "librosa", "torchaudio", "torchvision"}
    program = (
        "import numpy, soundfile; t = numpy.arange(44100) / 44100; "
        "soundfile.write('song.wav', 0.3 * numpy.sin(2 * numpy.pi * 110 * t), 44100)"
    )
    call("-c", program)
    document = json.loads(call("-m", "stemwise.cli", "separate", "song.wav", "--json", "-q"))
    manifest = document["outcomes"][0]["manifest"]
    assert list(manifest["stems"]) == ["bass", "drums", "guitar", "piano", "other"]
    assert manifest["null_test_dbfs"] < -100
    assert (tmp_path / "separated/band/song/bass.wav").is_file()
