"""The page that plays results: it holds everything it needs, and plays what the files hold."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stemwise.audio_io import encoding, read_audio, write_audio
from stemwise.errors import AudioFileError
from stemwise.listen import Section, page
from tiny_band import music

RATE = 8000


@pytest.fixture
def section(tmp_path: Path) -> Section:
    quiet = write_audio(tmp_path / "quiet.wav", music(0.3, seed=1, rate=RATE), RATE)
    loud = write_audio(tmp_path / "loud.wav", 4 * music(0.3, seed=2, rate=RATE), RATE)
    return Section("A </script> title", "stemwise edit", "note", {"song": quiet}, {"guitar'": quiet}, {"mix": loud})


def lanes(html: str) -> list[dict[str, str]]:
    block = re.search(r'<script type="application/json" id="sections">(.*?)</script>', html, re.DOTALL)
    assert block is not None
    (only,) = json.loads(block[1])
    assert only["title"] == "A </script> title"
    return only["lanes"]


def test_page_needs_nothing_else(section: Section) -> None:
    html = page([section])
    outside = re.sub(r'"audio": "[^"]*"', "", html)
    assert not re.search(r"https?:|//cdn|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttpRequest", outside)


def test_lanes_hold_the_files_under_one_gain(section: Section) -> None:
    made = lanes(page([section], encoding("wav", 16)))
    assert [(lane["group"], lane["name"]) for lane in made] == [
        ("context", "song"),
        ("result", "guitar'"),
        ("mix", "mix"),
    ]
    gain = 0.98 / 2.0  # the loudest lane peaks at 2
    for lane, file in zip(made, (section.context["song"], section.result["guitar'"], section.mix["mix"])):
        played, rate = soundfile.read(io.BytesIO(base64.b64decode(lane["audio"])), always_2d=True)
        assert rate == RATE
        assert np.abs(played.T - gain * read_audio(file)[0]).max() < 2 / 32768


def test_default_is_small(section: Section) -> None:
    assert len(page([section])) < len(page([section], encoding("wav", 16)))


@pytest.mark.parametrize(("rate", "channels"), [(96000, 2), (88200, 1), (44100, 4)])
def test_what_mp3_cannot_hold_is_heard_all_the_same(tmp_path: Path, rate: int, channels: int) -> None:
    file = write_audio(tmp_path / "song.wav", music(0.3, channels=channels, rate=rate), rate)
    (lane,) = lanes(page([Section("A </script> title", "", "", {"song": file}, {}, {})]))
    played = soundfile.info(io.BytesIO(base64.b64decode(lane["audio"])))
    assert (played.samplerate, played.channels) == (min(rate, 48000), min(channels, 2))


def test_missing_file_is_named(section: Section, tmp_path: Path) -> None:
    (tmp_path / "loud.wav").unlink()
    with pytest.raises(AudioFileError, match=r"loud\.wav: there is no such file"):
        page([section])
