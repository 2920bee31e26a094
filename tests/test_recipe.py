"""Recipes: every mistake is named with its place and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import tiny_componet
import trainable_toy
from stemwise import checkpoint
from stemwise.errors import RecipeError
from stemwise.recipe import check, dump, load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture(autouse=True)
def _toy_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.TYPES, "toy", trainable_toy.ENTRY)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return trainable_toy.write_recipe(tmp_path / "toy.yaml", tmp_path / "songs", tmp_path / "run")


@pytest.mark.parametrize(
    "file", sorted(set(RECIPES.glob("*.yaml")) - set(RECIPES.glob("evaluate-*"))), ids=lambda file: file.stem
)
def test_shipped_recipes_are_valid(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a part brings its own configuration, its folder must be there."""
    monkeypatch.chdir(tmp_path)
    model = yaml.safe_load(file.read_text())["model"]
    for part in set(model.get("parts", {})) - set(model.get("config", {})):
        checkpoint.save_model(model["parts"][part], tiny_componet.tiny().get_submodule(part))
    assert load_recipe(file).name == file.stem


def test_comes_back_complete_and_round_trips(recipe: Path, tmp_path: Path) -> None:
    sets = "data.train=[a, {path: b, split: train, stems: {bass: [bass, contrabass]}, rest: drop}]"
    read = load_recipe(recipe, ["model.config.inner.width=7", "optim.lr=1e-3", "data.valid=a", sets])
    assert load_recipe(recipe, ["data.valid=null"]).data.valid == []
    assert read.model.config == {
        "stems": ["bass", "drums"], "rate": 8000, "window": 256, "explode_at": -1, "noise": 1.0, "dropout": 0.2,
        "inner": {"width": 7},
    }  # fmt: skip
    assert (read.optim.lr, [one.path for one in read.data.valid]) == (1e-3, [Path("a")])
    assert [(one.path, one.split, one.rest) for one in read.data.train] == [
        (Path("a"), None, None),
        (Path("b"), "train", "drop"),
    ]
    for again in (read, load_recipe(recipe, ["data={train: a, rolls: {}}"])):
        (tmp_path / "again.yaml").write_text(dump(again))
        assert load_recipe(tmp_path / "again.yaml") == again


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=3", r"train\.stepz: unknown key \(did you mean 'steps'\?\); allowed: steps, batch, ema"),
        ("trian.steps=3", r"trian: unknown key \(did you mean 'train'\?\); allowed: format, name, run"),
        ("train.steps=0", r"train\.steps: .*greater than or equal to 1 \(found 0\)"),
        ("train.steps=many", r"train\.steps: .*integer.*\(found 'many'\)"),
        ("train.precision=16", r"train\.precision: .*'auto', '32' or 'bf16-mixed' \(found 16\)"),
        ("optim.decay=linear", r"optim\.decay: .*'cosine', 'sqrt', 'rsqrt' or 'constant' \(found 'linear'\)"),
        ("optim.lr=-1", r"optim\.lr: .*greater than 0"),
        ("data.augmentation.remix=1.5", r"data\.augmentation\.remix: .*less than or equal to 1"),
        ("data.augmentation.pitch=1", r"data\.augmentation\.pitch: unknown key; allowed: gain_db, swap"),
        ("data.augmentation.gain_db=[3, -3]", r"data\.augmentation: .*low <= high"),
        ("data.train=3", r"data\.train\.0: .*dictionary.*\(found 3\)"),
        ("data.train=[]", r"data\.train: .*at least 1 item"),
        (
            "data.train={pth: a}",
            r"data\.train\.0\.pth: unknown key \(did you mean 'path'\?\); allowed: path, split, stems",
        ),
        ("data.train={path: a, stems: 7}", r"data\.train\.0: .*stems is 4, 5, 6, or a mapping"),
        ("data.train={path: a, stems: {bass: [bass]}}", r"data\.train\.0: .*rest: other, or rest: drop"),
        ("data.train={path: a, stems: {a: [x], b: [x]}, rest: drop}", r"data\.train\.0: .*x would be in two stems"),
        ("data.train={path: a, rest: drop}", r"data\.train\.0: .*rest goes with a mapping"),
        ("data.train=[{path: a, weight: 2}, b]", r"data: .*train: give every data set a weight, or none"),
        ("data.train={path: a, weight: 0}", r"data\.train\.0\.weight: .*greater than 0"),
        ("data.pairs={}", r"data: .*pairs are not augmented"),
        ("model={type: toy, init: a, parts: {first: b}}", r"model: init and parts exclude each other: .*; remove one"),
        ("data={train: a, pairs: {}, min_active: 2}", r"data: min_active means nothing to pairs; remove it \("),
        (
            "data={train: a, rolls: {}, min_active: 1, floor_db: -50}",
            r"data: floor_db means nothing to rolls; remove it \(",
        ),
        (
            "data={train: a, rolls: {}, min_active: 3}",
            r"data: min_active .* rolls; remove it; there is rolls\.min_active",
        ),
        ("data={train: a, notes: {}, channels: 2}", r"data: channels means nothing to notes; remove it"),
        ("data={train: a, mixtures: {}, augmentation: {remix: 0.5}}", r"data: augmentation: remix .* set it to 0"),
        ("format=2", r"format: .*1 \(found 2\)"),
        (
            "model.type=bnad",
            r"model\.type: unknown model type 'bnad'; allowed: audioldm2, band, .*toy.* \(did you mean 'band'\?\)",
        ),
        ("model.type=os.system", r"model\.type: unknown model type 'os\.system'; allowed"),
        ("model.config.widht=3", r"model\.config\.widht: unknown field.*allowed: stems, rate, window"),
        ("model.config.inner.widht=3", r"model\.config\.inner\.widht: unknown field \(did you mean 'width'\?\)"),
        ("model.config.rate=fast", r"model\.config\.rate: .*integer.*found 'fast'"),
        ("model.config.window=255", r"model\.config: .*window must be even"),
        ("train.steps", r"override 'train\.steps': write it as place=value"),
        ("name.x=3", r"override 'name\.x=3': name is a value, not a section"),
        ("train.steps=[", r"override 'train\.steps=\[': the value is not valid YAML"),
    ],
)
def test_mistakes_are_named_with_their_place(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe, [override])


def test_all_mistakes_are_named_at_once(recipe: Path) -> None:
    document = yaml.safe_load(recipe.read_text())
    document["train"] |= {"batch": 0, "speed": 3}
    del document["run"]
    with pytest.raises(RecipeError) as error:
        check(document, "mine.yaml")
    lines = str(error.value).splitlines()
    assert lines[0] == "mine.yaml:"
    assert sorted(line.split(":")[0] for line in lines[1:]) == ["run", "train.batch", "train.speed"]


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.yaml: cannot be read"):
        load_recipe(tmp_path / "nothing.yaml")
    (tmp_path / "broken.yaml").write_text("train: {steps: 3")
    with pytest.raises(RecipeError, match=r"(?s)broken\.yaml: not valid YAML: .*line 1"):
        load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(RecipeError, match=r"list\.yaml: a recipe is a YAML mapping with format, name"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary\.yaml: not valid YAML"):
        load_recipe(tmp_path / "binary.yaml")
    (tmp_path / "code.yaml").write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(RecipeError, match=r"code\.yaml: not valid YAML"):
        load_recipe(tmp_path / "code.yaml")
    for name, text in (("day", "name: 2001-99-99"), ("deep", "name: " + "[" * 10_000)):
        (tmp_path / f"{name}.yaml").write_text(text)
        with pytest.raises(RecipeError, match=rf"{name}\.yaml: not valid YAML"):
            load_recipe(tmp_path / f"{name}.yaml")


def test_aliases_of_aliases_are_not_written_out_in_messages(tmp_path: Path) -> None:
    lines = ["a0: &a0 [la, la, la, la, la, la, la, la, la]"]
    lines += [f"a{k}: &a{k} [{', '.join(9 * [f'*a{k - 1}'])}]" for k in range(1, 20)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "name: *a19", "model: {type: band, config: {net: *a19}}"]))
    with pytest.raises(RecipeError, match=r"name: Input should be a valid string \(found \[") as caught:
        load_recipe(tmp_path / "bomb.yaml")
    assert len(str(caught.value)) < 100_000
