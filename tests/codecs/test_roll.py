"""MIDI becomes rolls on the grid of its ticks, and rolls become MIDI that is the same rolls again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.codecs.roll import BAND, PUBLISHED, Writing, notes_of, on_grid, to_rolls, to_score
from stemwise.errors import QueryError
from stemwise.stems import Rolls

symusic = pytest.importorskip("symusic")


def score(*tracks: tuple[int, bool, list[tuple[int, int, int]]], ticks: int = 480) -> symusic.Score:
    """Tracks of (program, is_drum, notes (tick, ticks, pitch))."""
    made = symusic.Score(ticks)
    for program, is_drum, notes in tracks:
        track = symusic.Track("", program, is_drum)
        for tick, duration, pitch in notes:
            track.notes.append(symusic.Note(tick, duration, pitch, 80))
        made.tracks.append(track)
    return made


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), layout=st.sampled_from([BAND, PUBLISHED]), ticks=st.sampled_from([24, 480, 9600]))
def test_rolls_to_midi_and_back(seed: int, layout: object, ticks: int) -> None:
    assert layout is BAND or layout is PUBLISHED
    generator = torch.Generator().manual_seed(seed)
    sounds = torch.rand(1, 5, 40, 72, generator=generator) < 0.2
    begins = torch.rand(1, 5, 40, 72, generator=generator) < 0.3
    if layout is PUBLISHED:
        sounds[:, 4, :, :63] = False
    before = torch.nn.functional.pad(sounds, (0, 0, 1, 0))[:, :, :-1]
    data = torch.where(sounds, torch.where(begins | ~before, 2, 1), 0).to(torch.uint8)
    data[..., -1, 0] = 2  # so that the end is kept
    if layout is PUBLISHED:
        data[:, 4, :, :63] = 0
    rolls = Rolls(layout.stems, data)
    again = to_rolls(to_score(rolls, layout, Writing(ticks=ticks)), layout)
    assert torch.equal(again.data, data)


def test_neighbours_stay_apart_and_lengths_are_rounded() -> None:
    rolls = to_rolls(score((33, False, [(0, 240, 40), (240, 240, 40), (490, 10, 45)])), BAND)
    bass = rolls["bass"][0]
    assert bass[:, 16].tolist() == [2, 1, 2, 1, 0]
    assert bass[:, 21].tolist() == [0, 0, 0, 0, 2]


def test_programs_go_to_the_stems_that_the_layout_says() -> None:
    tracks = [(p, False, [(0, 120, 60)]) for p in (0, 25, 33, 48, 40, 19)] + [(0, True, [(0, 120, 36)])]
    published, band = to_rolls(score(*tracks), PUBLISHED), to_rolls(score(*tracks), BAND)
    assert [name for name in published if published[name].any()] == ["piano", "guitar", "bass", "string", "drum"]
    assert published["drum"][0].nonzero().tolist() == [[0, 63]]
    assert band["drums"][0].nonzero().tolist() == [[0, 12]]
    only = to_rolls(score((40, False, [(0, 120, 60)])), PUBLISHED)
    assert not only.data.any()
    assert to_rolls(score((40, False, [(0, 120, 60)])), BAND)["other"].any()


def test_pitches_and_drums_that_the_layout_lacks_are_dropped() -> None:
    rolls = to_rolls(
        score((0, False, [(0, 120, 23), (0, 120, 96), (0, 120, 95)]), (0, True, [(0, 120, 60)])), PUBLISHED
    )
    assert rolls.data.nonzero().tolist() == [[0, 0, 0, 71]]


def test_a_window_of_notes_is_that_of_the_whole() -> None:
    notes = [(120 * k, 120 * (k % 5 + 1), 40 + k % 7) for k in range(60)]
    grid = on_grid(score((0, False, notes), (33, False, notes)), BAND)
    whole, part = grid.paint(BAND), grid.paint(BAND, 13, 20)
    assert np.array_equal(part, whole[:, 13:33])
    assert grid.paint(BAND, 1000, 8).shape == (5, 8, 72)


def test_bars_follow_the_metre() -> None:
    made = score((0, False, [(0, 480 * 16, 60)]))
    assert on_grid(made, BAND).bars.tolist() == [0, 16, 32, 48]
    made.time_signatures.append(symusic.TimeSignature(0, 3, 4))
    made.time_signatures.append(symusic.TimeSignature(480 * 6, 6, 8))
    assert on_grid(made, BAND).bars.tolist() == [0, 12, 24, 36, 48, 60]
    assert on_grid(score(), BAND).length == 0


def test_the_end_is_that_of_the_last_note_of_any_track() -> None:
    made = score((33, False, [(0, 120, 40)]), (0, False, [(480, 480, 127)]))
    made.tracks[0].controls.append(symusic.ControlChange(4000 * 480, 7, 100))
    assert on_grid(made, BAND).length == 8


def test_written_tracks_say_what_they_are() -> None:
    data = torch.zeros(1, 3, 8, 72, dtype=torch.uint8)
    data[0, 0, 0, 12] = data[0, 1, 2, 16] = 2
    made = to_score(
        Rolls(("drums", "bass", "piano"), data),
        BAND,
        Writing(ticks=96, tempo=90.0, metre=(3, 4), velocities={"bass": 50}),
    )
    assert [(t.name, t.program, t.is_drum) for t in made.tracks] == [("drums", 0, True), ("bass", 33, False)]
    assert [(n.time, n.duration, n.pitch, n.velocity) for t in made.tracks for n in t.notes] == [
        (0, 24, 36, 80),
        (48, 24, 40, 50),
    ]
    assert made.tempos[0].qpm == pytest.approx(90.0, rel=1e-5)
    assert made.time_signatures[0].numerator == 3
    with pytest.raises(QueryError, match="the layout has no stem 'flute'"):
        to_score(Rolls(("flute",), data[:, :1]), BAND)


def test_cells_without_an_onset_begin_a_note_after_silence() -> None:
    roll = torch.tensor([[1, 0], [1, 2], [0, 1], [1, 2]], dtype=torch.uint8)
    start, stop, row = notes_of(roll)
    assert list(zip(start.tolist(), stop.tolist(), row.tolist())) == [(0, 2, 0), (1, 3, 1), (3, 4, 0), (3, 4, 1)]
