"""Latents on disk: written whole, and what is wrong with a file is said with its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stemwise.errors import SongError
from stemwise.songs import kept
from stemwise.songs.kept import Kept

STREAM = [torch.full((3,), float(number)) for number in range(4)]


def make(folder: Path) -> Kept:
    return Kept(STREAM, lambda batch: batch, folder, 4, seed=0)


def test_a_damaged_file_is_named_and_made_again(tmp_path: Path) -> None:
    stream = make(tmp_path)
    before = [stream[index].clone() for index in range(4)]  # they are views of the files
    assert sorted(float(one[0]) for one in before) == [0.0, 1.0, 2.0, 3.0]
    for content in (b"", b"\0" * 40):
        (tmp_path / "0000002.safetensors").write_bytes(content)
        with pytest.raises(SongError, match=r"0000002\.safetensors: cannot be read .*delete it"):
            _ = [stream[index] for index in range(4)]
    (tmp_path / "0000002.safetensors").unlink()
    assert torch.equal(torch.stack([make(tmp_path)[index] for index in range(4)]), torch.stack(before))


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_atomically", full)
    with pytest.raises(SongError, match=r"0000000\.safetensors: cannot be written \(No space.*Free some space"):
        make(tmp_path)
