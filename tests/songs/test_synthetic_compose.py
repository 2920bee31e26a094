"""The composer: same seed, same song; sane notes; much variety."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.songs.synthetic import STEMS, Piece, compose
from stemwise.songs.synthetic.guitar import fretted
from stemwise.songs.synthetic.harmony import MODES, voiced
from stemwise.songs.synthetic.other import LINES as OTHER_LINES
from stemwise.songs.synthetic.other import PROGRAMS
from stemwise.songs.synthetic.piece import Chord
from stemwise.songs.synthetic.styles import STYLES, weights

RANGES = {"bass": (28, 57), "drums": (35, 82), "guitar": (40, 88), "piano": (21, 108), "other": (28, 108)}
PROGRAM_RANGES = {"bass": range(32, 40), "guitar": range(24, 32), "piano": range(0, 8), "other": range(7, 104)}


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    return [compose(seed, seconds=30) for seed in range(60)]


def _same(a: Piece, b: Piece) -> bool:
    heads = (a.style, a.key, a.mode, a.meter, a.sections) == (b.style, b.key, b.mode, b.meter, b.sections)
    tracks = len(a.tracks) == len(b.tracks) and all(
        x.program == y.program and np.array_equal(x.notes, y.notes) for x, y in zip(a.tracks, b.tracks, strict=True)
    )
    return heads and tracks


def test_equal_seeds_give_equal_songs_and_others_do_not() -> None:
    assert _same(compose(7, seconds=30), compose(7, seconds=30))
    assert not _same(compose(7, seconds=30), compose(8, seconds=30))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**40), seconds=st.floats(2, 60))
def test_every_note_lies_inside_the_song_and_its_instrument(seed: int, seconds: float) -> None:
    piece = compose(seed, seconds=seconds)
    assert piece.tracks
    for track in piece.tracks:
        low, high = RANGES[track.stem]
        notes = track.notes
        assert notes["pitch"].min() >= low and notes["pitch"].max() <= high, (track.stem, track.role)
        assert notes["velocity"].min() >= 1 and notes["velocity"].max() <= 127
        assert notes["start"].min() >= 0 and notes["duration"].min() > 0
        assert (notes["start"] + notes["duration"]).max() <= seconds + 1e-9
        assert (np.diff(notes["start"]) >= 0).all()
        assert track.is_drum == (track.stem == "drums")
        if not track.is_drum:
            assert track.program in PROGRAM_RANGES[track.stem]


def test_at_least_three_stems_and_some_songs_without_each(pieces: list[Piece]) -> None:
    written = [{t.stem for t in p.tracks} | {s for sec in p.sections for s in sec.playing} for p in pieces]
    assert all(len(stems) >= 3 for stems in written)
    missing = Counter(stem for stems in written for stem in STEMS if stem not in stems)
    assert set(missing) == set(STEMS)
    assert max(missing.values()) < 0.35 * len(pieces)


def test_stems_rest_in_some_sections(pieces: list[Piece]) -> None:
    sections = [s for p in pieces for s in p.sections]
    for stem in STEMS:
        share = np.mean([stem in s.playing for s in sections])
        assert 0.5 < share < 0.95, stem


def test_variety_of_forms(pieces: list[Piece]) -> None:
    many = [compose(seed, seconds=3) for seed in range(200)]
    assert {p.meter for p in many} == {(4, 4), (3, 4), (6, 8)}
    assert {p.mode for p in many} >= {"major", "minor", "dorian", "mixolydian", "blues"}
    assert len({p.key for p in many}) == 12
    assert {p.style for p in many} == set(STYLES)
    tempi = [p.tempo for p in many]
    assert min(tempi) < 72 and max(tempi) > 150 and min(tempi) > 55 and max(tempi) < 190
    assert any(p.swing > 0.55 for p in many) and any(p.swing == 0.5 for p in many)
    assert len({t.program for p in pieces for t in p.tracks if t.stem == "other"}) > 25
    assert len({t.program for p in pieces for t in p.tracks if t.stem == "guitar"}) >= 6


def test_every_way_of_playing_is_used(pieces: list[Piece]) -> None:
    used = {(t.stem, role) for p in pieces for t in p.tracks for role in t.role.split("+")}
    named = {(stem, r) for s in STYLES.values() for stem in ("bass", "guitar", "piano", "other")
             for r in weights(getattr(s, stem))}  # fmt: skip
    assert len(named - used) <= 2, named - used
    assert set(OTHER_LINES) == set(PROGRAMS)


def test_guitar_strums_spread_in_time_and_piano_chords_do_not() -> None:
    """The idioms differ: strings of a strum start one after the other, keys of a block chord together."""

    def spread(stem: str, role: str) -> float:
        gaps = []
        for seed in range(120):
            for track in compose(seed, seconds=20).tracks:
                if track.stem == stem and track.role == role:
                    starts = track.notes["start"]
                    gap = np.diff(starts)
                    gaps += gap[gap < 0.06].tolist()
        assert gaps
        return float(np.median(gaps))

    assert spread("guitar", "strum") > 0.004 > 0.001 > spread("piano", "blocks")


@given(root=st.integers(0, 11), kind=st.sampled_from([(0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 2, 7)]),
       position=st.integers(0, 9))  # fmt: skip
def test_guitar_grips_are_playable_chord_tones(root: int, kind: tuple[int, ...], position: int) -> None:
    grip = fretted(Chord(0.0, 4.0, root, kind, root), position)
    assert {p % 12 for p in grip} <= {(root + t) % 12 for t in kind}
    assert len(grip) <= 6 and sorted(set(grip)) == grip and grip[0] >= 40 and grip[-1] <= 80


@given(root=st.integers(0, 11), size=st.integers(3, 5))
def test_voicings_move_little(root: int, size: int) -> None:
    first = voiced(Chord(0.0, 4.0, root, (0, 4, 7, 10), root), (), 52, 79, size)
    second = voiced(Chord(4.0, 4.0, (root + 5) % 12, (0, 4, 7, 10), root), first, 52, 79, size)
    assert abs(np.mean(first) - np.mean(second)) <= 5


def test_stems_share_harmony(pieces: list[Piece]) -> None:
    """Bass notes belong to the key far more often than chance (7 of 12)."""
    inside = total = 0
    names = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
    for piece in pieces:
        scale = {(names.index(piece.key) + s) % 12 for s in MODES[piece.mode]}
        for track in piece.tracks:
            if track.stem in ("bass", "piano"):
                inside += sum(int(p) % 12 in scale for p in track.notes["pitch"])
                total += len(track.notes)
    assert inside / total > 0.85


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        compose(-1)
    with pytest.raises(ValueError, match="2 s"):
        compose(1, seconds=1)
