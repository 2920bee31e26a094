"""Three sets of fonts, told apart by content and refused elsewhere."""

from __future__ import annotations

import hashlib
import shutil
import struct
import sys
from pathlib import Path

import pytest

from stemwise.errors import SongError
from stemwise.songs.synthetic import font, fonts
from stemwise.songs.synthetic.fonts import KNOWN, sha256

module = sys.modules["stemwise.songs.synthetic.fonts"]


def fake(path: Path, presets: list[tuple[int, int]], salt: bytes) -> Path:
    """A minimal RIFF/sfbk file: a salt chunk and a preset table."""
    rows = b"".join(b"name".ljust(20, b"\0") + struct.pack("<HHHIII", p, b, 0, 0, 0, 0) for b, p in [*presets, (0, 0)])
    table = b"pdta" + b"phdr" + struct.pack("<I", len(rows)) + rows
    for name in (b"pbag", b"pgen", b"inst", b"ibag", b"igen", b"shdr"):
        table += name + struct.pack("<I", 0)
    body = b"sfbk" + b"salt" + struct.pack("<I", len(salt)) + salt + b"LIST" + struct.pack("<I", len(table)) + table
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """One fake font of each set, alone on the machine."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    paths = {use: fake(folder / f"{use}.sf2", [(0, 0), (0, 24), (128, 0)], use.encode() * 2) for use in
             ("train", "validation", "test")}  # fmt: skip
    table = {hashlib.sha256(p.read_bytes()).hexdigest(): (use, f"fake {use}") for use, p in paths.items()}
    monkeypatch.setattr(module, "KNOWN", table)
    monkeypatch.setattr(module, "_FOLDERS", ())
    monkeypatch.setenv("STEMWISE_FONTS", str(folder))
    return paths


@pytest.mark.parametrize("use", ["train", "validation", "test"])
def test_each_set_finds_only_its_own(known: dict[str, Path], use: str) -> None:
    assert [f.name for f in fonts(use)] == [f"fake {use}"]  # type: ignore[arg-type]


@pytest.mark.parametrize("use", ["train", "validation", "test"])
@pytest.mark.parametrize("owner", ["train", "validation", "test"])
def test_a_font_of_another_set_is_refused_by_content(
    known: dict[str, Path], use: str, owner: str, tmp_path: Path
) -> None:
    renamed = shutil.copy(known[owner], tmp_path / "FluidR3_GM.sf2")
    if use == owner:
        assert font(renamed, use).name == f"fake {use}"  # type: ignore[arg-type]
    else:
        with pytest.raises(SongError, match=rf"FluidR3_GM\.sf2.*{owner} set.*refused for {use}.*Use"):
            font(renamed, use)  # type: ignore[arg-type]


def test_an_unknown_font_is_for_training_only(known: dict[str, Path], tmp_path: Path) -> None:
    own = fake(tmp_path / "own.sf2", [(0, 0)], b"own!")
    assert font(own, "train").kit_only
    for use in ("validation", "test"):
        with pytest.raises(SongError, match="unknown"):
            font(own, use)  # type: ignore[arg-type]


def test_copies_count_once_and_the_test_set_is_logged(known: dict[str, Path]) -> None:
    shutil.copy(known["test"], known["test"].with_name("again.sf2"))
    lines: list[str] = []
    assert len(fonts("test", log=lines.append)) == 1
    assert lines == ["test fonts opened: fake test"]
    fonts("train", log=lines.append)
    assert len(lines) == 1


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    path = fake(tmp_path / "a.sf2", [(0, 0)], b"1234")
    before = sha256(path)
    fake(path, [(0, 0)], b"12345678")
    assert sha256(path) != before


def test_no_font_names_the_remedy(known: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMWISE_FONTS", "")
    with pytest.raises(SongError, match="csound-soundfont"):
        fonts("validation")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"this is text, not a font"])
def test_what_is_no_font_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.sf2"
    path.write_bytes(content)
    with pytest.raises(SongError, match=r"broken\.sf2"):
        font(path, "train")
    with pytest.raises(SongError, match="no such"):
        font(tmp_path / "missing.sf2", "train")


@pytest.mark.parametrize("use", ["train", "validation"])
def test_the_installed_fonts_are_in_the_set_of_the_table(use: str) -> None:
    try:
        found = fonts(use)  # type: ignore[arg-type]
    except SongError:
        pytest.skip(f"no {use} font is installed")
    other = "validation" if use == "train" else "train"
    for one in found:
        if one.sha256 in KNOWN:
            assert KNOWN[one.sha256][0] == use
            for wrong in (other, "test"):
                with pytest.raises(SongError, match="refused"):
                    font(one.path, wrong)  # type: ignore[arg-type]
