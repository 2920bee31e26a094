"""Batches: which inputs there are, that their outputs never meet, and that one bad input costs no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemwise.batch import Item, Outcome, alone, find, work_through
from stemwise.commands.midi import midi_file
from stemwise.errors import AudioFileError, Cancelled, ModelError, QueryError

STEMS = ("bass", "drums")


def tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")
    return root


def tracks(*inputs: str | Path) -> dict[str, str]:
    return {str(item.source): item.track for item in find([str(i) for i in inputs], STEMS)}


def test_files_keep_their_names(tmp_path: Path) -> None:
    tree(tmp_path, "a.wav", "b.mp3")
    assert list(tracks(tmp_path / "b.mp3", tmp_path / "a.wav").values()) == ["b", "a"]


def test_folders_keep_their_sub_folders(tmp_path: Path) -> None:
    tree(tmp_path, "one.wav", "cd1/one.flac", "cd1/cover.jpg", ".hidden/x.wav", "cd2/.partial.wav")
    assert sorted(tracks(tmp_path).values()) == ["cd1/one", "one"]


def test_stem_folder_is_one_item(tmp_path: Path) -> None:
    tree(tmp_path, "album/song/bass.wav", "album/song/drums.wav", "album/intro.wav")
    assert sorted(tracks(tmp_path / "album").values()) == ["intro", "song"]
    assert list(tracks(tmp_path / "album" / "song").values()) == ["song"]


def test_globs_are_expanded(tmp_path: Path) -> None:
    tree(tmp_path, "x1.wav", "x2.wav", "y.wav")
    assert list(tracks(tmp_path / "x*.wav").values()) == ["x1", "x2"]


def test_name_with_brackets_is_a_file_first(tmp_path: Path) -> None:
    tree(tmp_path, "song [live].wav", "song l.wav")
    assert list(tracks(tmp_path / "song [live].wav").values()) == ["song [live]"]


def test_same_name_with_other_endings(tmp_path: Path) -> None:
    tree(tmp_path, "song.wav", "song.mp3")
    assert sorted(tracks(tmp_path / "song.wav", tmp_path / "song.mp3").values()) == ["song_mp3", "song_wav"]


def test_same_name_in_other_folders(tmp_path: Path) -> None:
    tree(tmp_path, "a/take.wav", "b/take.wav")
    assert sorted(tracks(tmp_path / "a" / "take.wav", tmp_path / "b" / "take.wav").values()) == [
        "a/take_wav",
        "b/take_wav",
    ]


def test_the_same_file_twice_is_one_item(tmp_path: Path) -> None:
    tree(tmp_path, "a.wav")
    assert len(find([str(tmp_path / "a.wav"), f"{tmp_path}/./a.wav", str(tmp_path)], STEMS)) == 1
    tree(tmp_path, "b.wav")
    assert list(tracks(tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "a.wav").values()) == ["a", "b"]


def test_no_output_lies_within_another(tmp_path: Path) -> None:
    tree(tmp_path, "song.wav", "song/live.wav", "Take/1.wav", "take.wav")
    assert sorted(tracks(tmp_path).values()) == ["Take/1", "song/live", "song_wav", "take_wav"]
    tree(tmp_path / "x", "song/bass.wav", "song/drums.wav", "y/song/live/a.wav")
    assert sorted(tracks(tmp_path / "x/song", tmp_path / "x/y").values()) == ["song/live/a", "x/song"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("abA"), st.sampled_from(["wav", "WAV", "mp3"]))))
@settings(max_examples=25, deadline=None)
def test_no_two_outputs_meet(files: list[tuple[str, str, str]]) -> None:
    """Also where nothing exists on disk, and on file systems that do not tell upper from lower case."""
    items = find([f"nowhere/{folder}/{name}.{ending}" for folder, name, ending in files], STEMS)
    folded = [item.track.casefold() for item in items]
    assert len(set(folded)) == len(folded) == len(set(files))


def test_parents_never_become_part_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "song.wav", "album/song.wav", "album/disc/x.wav")
    monkeypatch.chdir(tmp_path / "album" / "disc")
    assert not [track for track in tracks("../../song.wav", "../song.wav").values() if ".." in track]


def test_output_is_no_input_of_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "song.wav", "separated/band/song/bass.wav", "separated/band/song/drums.wav")
    monkeypatch.chdir(tmp_path)
    assert [item.track for item in find(["."], STEMS, apart=Path("separated"))] == ["song"]
    assert [item.track for item in find(["separated"], STEMS, apart=Path("separated"))] == ["band/song"]
    for several in (["*"], ["separated", "song.wav"]):  # as a shell leaves it, and as it hands it on
        assert [item.track for item in find(several, STEMS, apart=Path("separated"))] == ["song"]


def test_a_folder_that_cannot_be_read_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.wav", "locked/b.wav", "open/c.wav")
    read = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return read(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    items = find([str(tmp_path)], STEMS)
    assert [item.track for item in items] == ["a", "locked", "open/c"]
    assert "locked: Permission denied" in str(items[1].problem)


def test_a_name_that_is_too_long_costs_no_other(tmp_path: Path) -> None:
    tree(tmp_path, "a.wav")
    long, good = find([str(tmp_path / f"{'x' * 300}.wav"), str(tmp_path / "a.wav")], STEMS)
    assert "File name too long" in str(long.problem)
    assert (good.track, good.problem) == ("a", None)
    assert midi_file(long.source) is None


def test_an_entry_that_cannot_be_looked_at_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.wav", "b.wav")
    look = Path.is_dir

    def refuse(path: Path) -> bool:
        if path.name == "a.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    first, second = find([str(tmp_path)], STEMS)
    assert "a.wav: Permission denied" in str(first.problem)
    assert (second.track, second.problem) == ("b", None)


def test_links_to_a_parent_end(tmp_path: Path) -> None:
    tree(tmp_path, "album/cd1/a.wav")
    for name in ("one", "two"):
        (tmp_path / "album/cd1" / name).symlink_to(tmp_path / "album", target_is_directory=True)
    assert list(tracks(tmp_path / "album").values()) == ["cd1/a"]


def test_what_one_input_lacks_costs_no_other() -> None:
    items = [Item(Path(f"{name}.wav"), name) for name in "abc"]

    def work(item: Item) -> Outcome:
        with alone(item, len(items)):
            if item.track == "b":
                raise QueryError("there is no track 3")
        return Outcome(item, "done")

    outcomes = work_through(items, work)
    assert [o.status for o in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].message == "b.wav: there is no track 3"
    items = items[1:2]
    with pytest.raises(QueryError, match="no track 3"):
        work_through(items, work)


def test_missing_inputs_fail_when_their_turn_comes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    items = find([str(tmp_path / "no*.wav"), str(tmp_path / "empty")], STEMS)
    outcomes = work_through(items, lambda item: Outcome(item, "done"))
    assert [o.status for o in outcomes] == ["failed", "failed"]
    assert "no file matches" in str(outcomes[0].message)
    assert "no audio files in this folder" in str(outcomes[1].message)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AudioFileError("b.wav: broken. Mend it."), "b.wav: broken. Mend it."),
        (OSError(28, "No space left on device", "out/b"), "out/b: No space left"),
        (MemoryError(), "b.wav: not enough memory"),
        (ZeroDivisionError("oops"), "b.wav: an error that should not happen (ZeroDivisionError: oops)"),
    ],
)
def test_one_bad_input_stops_no_other(error: Exception, said: str) -> None:
    def work(item: Item) -> Outcome:
        if item.track == "b":
            raise error
        return Outcome(item, "done")

    heard: list[Outcome] = []
    outcomes = work_through([Item(Path(f"{n}.wav"), n) for n in "abc"], work, heard.append)
    assert [o.status for o in outcomes] == ["done", "failed", "done"]
    assert said in str(outcomes[1].message)
    assert heard == outcomes


@pytest.mark.parametrize(
    "error", [ModelError("no model"), QueryError("contradicts itself"), Cancelled("stop"), KeyboardInterrupt()]
)
def test_what_concerns_all_inputs_is_raised(error: BaseException) -> None:
    def work(item: Item) -> Outcome:
        raise error

    with pytest.raises(type(error)):
        work_through([Item(Path("a.wav"), "a")], work)
