"""`stemwise evaluate` and `stemwise compare` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from small_songs import write_songs
from typer.testing import CliRunner, Result

import stemwise.scores.listening as listening
from plain_encoder import PlainEncoder
from stemwise import cli
from stemwise.errors import SongError
from stemwise.evaluate.study import SongsSection, material, read_study, study
from stemwise.songs.splits import by_name
from stemwise.songs.synthetic import write
from stemwise.songs.synthetic.render import built_in_palette

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "songs"
    write_songs(place)
    return place


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listening, "load_coherence", lambda name, device: PlainEncoder())


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_from_songs_to_a_report(songs: Path, tmp_path: Path) -> None:
    done = run("evaluate", "oracle-mask", "--songs", songs, "-o", "out")
    assert done.exit_code == 0, done.output
    assert "song-2 (3 of 3 songs)" in done.stderr and "about" in done.stderr
    assert "| oracle-mask | 3 of 3 |" in done.stdout
    more = run("evaluate", "mixture-over-k", "--songs", songs, "-o", "out", "--json")
    document = json.loads(more.stdout)
    assert [system["label"] for system in document["systems"]] == ["mixture-over-k", "oracle-mask"]
    assert document["exit_code"] == 0
    compared = run("compare", "out/oracle-mask", "out/mixture-over-k")
    assert compared.exit_code == 0 and "| si-sdri | all |" in compared.stdout
    figures = json.loads(run("compare", "out/oracle-mask", "out/mixture-over-k", "--json").stdout)["figures"]
    assert len(figures) == 8 and {figure["better"] for figure in figures} == {None}, "too few songs to decide"


def test_systems_of_other_songs_are_named_beside_the_report(songs: Path, tmp_path: Path) -> None:
    run("evaluate", "oracle-mask", "--songs", songs, "-o", "out")
    write_songs(tmp_path / "others", count=2)
    more = run("evaluate", "ground-truth", "--songs", tmp_path / "others", "-o", "out", "--json")
    assert more.exit_code == 0 and "out/oracle-mask: was evaluated on other songs" in more.stderr
    assert [system["label"] for system in json.loads(more.stdout)["systems"]] == ["ground-truth"]


def test_shards_write_no_report_before_the_end(songs: Path, tmp_path: Path) -> None:
    first = run("evaluate", "ground-truth", "--songs", songs, "-o", "out", "--shard", "1/2")
    assert first.exit_code == 0 and "1 song(s) are the other shards'" in first.stdout
    again = run("evaluate", "ground-truth", "--songs", songs, "-o", "out", "--shard", "1/2", "--json")
    assert json.loads(again.stdout) == {"format": 1, "verb": "evaluate", "exit_code": 0}
    assert not (tmp_path / "out" / "report.md").exists()
    assert run("evaluate", "ground-truth", "--songs", songs, "-o", "out", "--shard", "2/2").exit_code == 0
    assert "3 of 3" in run("evaluate", "ground-truth", "--songs", songs, "-o", "out").stdout


def test_accompaniments_are_scored(songs: Path) -> None:
    words = ("--songs", songs, "--task", "accompany", "--given", "random", "--chunk", "1.5", "--per-song", "2")
    done = run("evaluate", "ground-truth", "random-submix", *words, "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["protocol"]["metrics"] == ["coherence"]
    assert [system["figures"][0]["windows"] for system in document["systems"]] == [6, 6]


def test_unreadable_songs_are_named_and_the_rest_counts(songs: Path, tmp_path: Path) -> None:
    write_songs(tmp_path / "some", count=2)
    (tmp_path / "some" / "broken").mkdir()
    (tmp_path / "some" / "broken" / "bass.wav").write_bytes(b"nothing")
    done = run("evaluate", "ground-truth", "--songs", "some", "-o", "out")
    assert done.exit_code == 1
    assert "broken" in done.stderr and "2 of 3 songs" in (tmp_path / "out" / "report.md").read_text()


def test_songs_with_a_file_cut_short_do_not_count(tmp_path: Path) -> None:
    """Its rest would be judged as silence."""
    write_songs(tmp_path / "some", count=2)
    file = tmp_path / "some" / "song-1" / "bass.wav"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = run("evaluate", "ground-truth", "--songs", "some", "-o", "out")
    assert done.exit_code == 1 and "bass.wav is cut short" in done.stderr
    assert "1 of 2 songs" in (tmp_path / "out" / "report.md").read_text()


def test_a_study_may_keep_to_one_split(tmp_path: Path) -> None:
    """As the training split them, by the same seed; synthetic songs have none."""
    every = {song.name for song in write_songs(tmp_path / "some", count=12, seconds=0.1)}

    def found(**section: object) -> set[str]:
        asked = SongsSection.model_validate({"path": tmp_path / "some", **section})
        return {song.name for song in material(asked, tmp_path).songs}

    assert found() == every
    for seed in (0, 5):
        train = found(split="train", split_seed=seed)
        assert train == {name for name in every if by_name(name, seed) == "train"} != every
    assert found(split="train") != found(split="train", split_seed=5)
    with pytest.raises(SongError, match=r"some: no song in the split 'holdout'; there are"):
        found(split="holdout")
    with pytest.raises(ValidationError, match="split_seed goes with a split"):
        found(split_seed=5)
    with pytest.raises(ValidationError, match="split goes with a path"):
        SongsSection.model_validate({"synthetic": {"first": 0, "count": 1}, "split": "test"})


def test_songs_elsewhere_keep_to_the_split_of_the_study(tmp_path: Path) -> None:
    every = {song.name for song in write_songs(tmp_path / "some", count=12, seconds=0.1)}
    text = "format: 1\nname: one\nsongs: {path: gone, split: train}\nsystems: [{system: ground-truth}]\n"
    Path("study.yaml").write_text(text)
    done = run("evaluate", "--protocol", "study.yaml", "--songs", tmp_path / "some", "-o", "out")
    assert done.exit_code == 0, done.output
    count = sum(by_name(name, 0) == "train" for name in every)
    assert f"{count} of {count}" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("ground-truth",), 2, "no songs to evaluate on: give --songs"),
        (("--songs", "SONGS"), 2, "nothing to evaluate: name a system"),
        (("ground-truth", "--songs", "nowhere"), 1, "nowhere: does not exist"),
        (("ground-truth", "--songs", "SONGS", "--metrics", "sisdr"), 2, "no metric named 'sisdr' (did you mean"),
        (("ground-truth", "--songs", "SONGS", "--task", "edit"), 2, "'separate', 'accompany' or 'generate'"),
        (("ground-truth", "--songs", "SONGS", "--stems", "vocals"), 2, "there are: bass, drums, piano"),
        (
            ("foo", "--songs", "SONGS"),
            3,
            "baselines: ground-truth, mixture-over-k, oracle-mask, random-submix; models:",
        ),
        (("oracle-mask", "--songs", "SONGS", "--task", "accompany"), 2, "cannot accompany"),
        (("ground-truth", "--songs", "SONGS", "--shard", "3/2"), 2, "is not I/N"),
        (("ground-truth", "--songs", "SONGS", "--per-song", "2"), 2, "--per-song needs --chunk"),
        (("ground-truth", "--songs", "SONGS", "--protocol", "mdsm"), 2, "there are: msdm; or give a YAML file"),
        (("ground-truth", "--songs", "SONGS", "--protocol", "msdm"), 2, "no song has a stem named guitar"),
        (("ground-truth", "--songs", "SONGS", "--quick"), 2, "--quick needs a study's file"),
        (("ground-truth", "--songs", "SONGS", "--steps", "9"), 2, "--evaluations for separate"),
        (("ground-truth", "--songs", "SONGS", "--rank", "energy"), 2, "say how many"),
        (("ground-truth", "--songs", "SONGS", "--weights", "vggish"), 2, "is not EMBEDDING=FOLDER"),
        (("ground-truth", "--songs", "SONGS", "--weights", "coccola=x"), 2, "did you mean 'cocola'"),
        (
            ("ground-truth", "--songs", "SONGS", "--given", "all"),
            2,
            "given says what is heard where the task is accompany",
        ),
        (("ground-truth", "--songs", "SONGS", "--metrics", "fad:foo"), 2, "no embedding named 'foo'"),
        (("ground-truth", "--songs", "SONGS", "--metrics", "fad:vggish"), 3, "--weights NAME=FOLDER"),
        (("ground-truth", "--songs", "SONGS", "--metrics", "msdm-si-sdri"), 2, "use --protocol msdm"),
    ],
)
def test_mistakes_are_named_with_the_remedy(songs: Path, words: tuple, code: int, message: str) -> None:
    done = run("evaluate", *(songs if word == "SONGS" else word for word in words), "-o", "out")
    assert done.exit_code == code, done.output
    assert message in done.output and "Traceback" not in done.output


def test_other_settings_are_refused(songs: Path) -> None:
    assert run("evaluate", "ground-truth", "--songs", songs, "-o", "out").exit_code == 0
    done = run("evaluate", "ground-truth", "--songs", songs, "-o", "out", "--metrics", "sdr")
    assert done.exit_code == 2 and "protocol.metrics was" in done.output and "(-o)" in done.output


def test_every_study_in_the_recipes_can_be_read() -> None:
    files = sorted((ROOT / "recipes").glob("evaluate-*.yaml"))
    assert files
    for file in files:
        for document in (*read_study(file).values(), *read_study(file, quick=True).values()):
            asked = study(document, str(file))
            labels = {section.name or section.system for section in asked.systems}
            assert {side for relation in asked.relations for side in (relation.better, relation.worse)} <= labels


def test_a_study_may_hold_several_tables(songs: Path, tmp_path: Path) -> None:
    common = (
        f"name: mine\nsongs: {{path: {songs}}}\nsystems: [{{system: ground-truth}}]\nprotocol: {{metrics: [sdr]}}\n"
    )
    (tmp_path / "mine.yaml").write_text(
        common + "tables:\n  apart: {systems: [{system: mixture-over-k}]}\n"
        "  beside: {protocol: {task: accompany, metrics: [coherence]}}\n"
        "quick: {tables: {apart: {protocol: {metrics: [log-mel-l1]}}}}\n"
    )
    done = run("evaluate", "--protocol", "mine.yaml", "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [*found["tables"]] == ["apart", "beside"] and found["exit_code"] == 0
    assert (found["format"], found["verb"]) == (1, "evaluate")
    assert "mixture-over-k" in (tmp_path / "out/apart/report.md").read_text()
    assert "coherence" in (tmp_path / "out/beside/report.md").read_text()
    quick = run("evaluate", "--protocol", "mine.yaml", "--quick", "-o", "quick")
    assert quick.exit_code == 0 and "log-mel-l1" in quick.stdout and not (tmp_path / "quick/beside").exists()
    (tmp_path / "wrong.yaml").write_text(common + "tables: {apart: {sistems: []}}\n")
    wrong = run("evaluate", "--protocol", "wrong.yaml")
    assert wrong.exit_code == 2 and "tables.apart holds sections that replace others: format, name" in wrong.output
    (tmp_path / "wrong.yaml").write_text(common + "tables: {..: {}}\n")
    wrong = run("evaluate", "--protocol", "wrong.yaml", "-o", "deep/out")
    assert wrong.exit_code == 2 and "which is a folder's name" in wrong.output
    (tmp_path / "wrong.yaml").write_text(common + "tables: {apart: {protocol: {metrics: [loudness]}}}\n")
    wrong = run("evaluate", "--protocol", "wrong.yaml")
    assert wrong.exit_code == 2 and "table apart" in wrong.output and "loudness" in wrong.output


@pytest.mark.parametrize(
    ("section", "words", "message"),
    [
        ("protocol: msdm", (), "protocol: a mapping such as {task: separate} (found 'msdm')"),
        ("protocol:", (), "protocol: a mapping such as {task: separate} (found None)"),
        ("systems: [ground-truth, oracle-mask]", (), "systems: a list of mappings such as [{system: ground-truth}]"),
        ("systems: {system: x}", (), "systems: a list of mappings"),
        ("songs: data/train", ("--songs", "SONGS"), "songs: a mapping such as {path: FOLDER} (found 'data/train')"),
        ("tables: {apart: {protocol: msdm}}", (), "table apart:\nprotocol: a mapping"),
    ],
)
def test_sections_of_a_study_have_their_shape(songs: Path, section: str, words: tuple, message: str) -> None:
    Path("study.yaml").write_text(f"name: one\n{section}\n")
    done = run("evaluate", "--protocol", "study.yaml", *(songs if word == "SONGS" else word for word in words))
    assert done.exit_code == 2, done.output
    assert "study.yaml" in done.output and message in done.output


def test_a_look_at_the_test_fonts_is_noted_also_where_their_songs_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "palette", lambda *_, **__: built_in_palette())
    Path("study.yaml").write_text(
        "name: one\nprotocol: {metrics: [sdr]}\nsystems: [{system: ground-truth}]\n"
        "songs: {synthetic: {first: 1, count: 1, seconds: 5, fonts: test}}\n"
    )
    refused = run("evaluate", "--protocol", "study.yaml", "-o", "out")
    assert refused.exit_code != 0 and "give --log FILE" in refused.output
    for _ in range(2):
        assert run("evaluate", "--protocol", "study.yaml", "-o", "out", "--log", "log.md").exit_code == 0
    assert Path("log.md").read_text().count("evaluate: one, songs of the test fonts") == 2


def test_a_study_prints_which_relations_hold(songs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"name: mine\nsongs: {{path: {songs}}}\nprotocol: {{task: separate, metrics: [sdr]}}\n"
        "systems: [{system: oracle-mask}, {system: mixture-over-k, name: floor}]\n"
        "relations: [{better: oracle-mask, worse: floor, metrics: [sdr], source: common sense}]\n"
        "quick: {protocol: {task: separate, metrics: [log-mel-l1]}, relations: []}\n"
    )
    done = run("evaluate", "--protocol", "mine.yaml", "-o", "out")
    assert done.exit_code == 0, done.output
    assert "| oracle-mask better than floor (common sense) | sdr |" in done.stdout
    assert "the songs are too few" in done.stdout  # three
    (tmp_path / "flaw.yaml").write_text((tmp_path / "mine.yaml").read_text().replace("worse: floor", "worse: flaw"))
    missing = run("evaluate", "--protocol", "flaw.yaml", "-o", "never")
    assert missing.exit_code == 2 and "no system is called 'flaw'" in missing.output
    assert not list((tmp_path / "never").glob("*/songs/*.json"))
    quick = run("evaluate", "--protocol", "mine.yaml", "--quick", "-o", "quick")
    assert quick.exit_code == 0 and "log-mel-l1" in quick.stdout
    (tmp_path / "wrong.yaml").write_text("name: x\nsongs: {path: x}\nsongz: 3\nsystems: [{system: a, stepz: 1}]\n")
    wrong = run("evaluate", "--protocol", "wrong.yaml")
    assert wrong.exit_code == 2
    assert (
        "songz: unknown key (did you mean 'songs'?)" in wrong.output and "systems.0.stepz: unknown key" in wrong.output
    )
