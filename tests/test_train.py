"""The training loop: it learns, a kill anywhere changes nothing, and mistakes are named."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import trainable_toy
from stemwise import checkpoint, cli, runs
from stemwise.codecs.melvae import MelVae
from stemwise.errors import ModelError, RecipeError, SongError, TrainingError
from stemwise.optimization import Ema, optimizers, orthogonal, schedule
from stemwise.recipe import OptimSection, check, load_recipe
from stemwise.train import Progress, train
from tiny_msgld import CODEC, NET

TOY = Path(trainable_toy.__file__)


@pytest.fixture(autouse=True)
def _toy_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.TYPES, "toy", trainable_toy.ENTRY)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable_toy.write_songs(tmp_path_factory.mktemp("data") / "songs")


@pytest.fixture(scope="module")
def reference(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """State of an uninterrupted run, made in a process of its own like the killed ones."""
    folder = tmp_path_factory.mktemp("reference")
    recipe = trainable_toy.write_recipe(folder / "toy.yaml", songs, folder / "run")
    assert _exit_code(recipe) == 0
    state = runs.newest_state(folder / "run")
    assert state is not None and state["step"] == 24
    return state


def _exit_code(*arguments: str | Path) -> int:
    """Exit code of a new process that trains the toy; the processes are forks of one that has done the slow imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainable_toy", "lightning.fabric", "torch.utils.tensorboard"])
    process = context.Process(target=trainable_toy.program, args=([str(entry) for entry in arguments],))
    process.start()
    process.join(600)
    assert process.exitcode is not None, "hangs"
    return process.exitcode


def _assert_same(found: object, expected: object, place: str = "state") -> None:
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor) and torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys(), place
        for key in expected:
            _assert_same(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list | tuple) and len(found) == len(expected), place
        for number, (one, other) in enumerate(zip(found, expected)):
            _assert_same(one, other, f"{place}.{number}")
    else:
        assert found == expected, place


@pytest.mark.parametrize(
    ("kill", "left"),
    [
        pytest.param("kill-step=3", [], id="in the warm-up, before any checkpoint"),
        pytest.param("kill-step=13", [8], id="between two checkpoints"),
        pytest.param("kill-write=2", [8], id="while a checkpoint is being written"),
    ],
)
def test_killed_run_resumes_to_the_same_bits(
    songs: Path, reference: dict[str, object], tmp_path: Path, kill: str, left: list[int]
) -> None:
    recipe, run = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run"), tmp_path / "run"
    assert _exit_code(recipe, kill) == -signal.SIGKILL
    assert [int(file.stem.split("-")[1]) for file in runs.checkpoints(run)] == left
    assert bool(list(run.glob("checkpoints/.*.tmp"))) == kill.startswith("kill-write")
    assert _exit_code(recipe) == 0
    _assert_same(runs.newest_state(run), reference)
    assert not list(run.glob("**/.*.tmp"))
    steps = [int(row["step"]) for row in csv.DictReader((run / "metrics.csv").open()) if row["name"] == "train/loss"]
    assert steps == [3, 6, 9, 12, 15, 18, 21, 24]


def test_learns_logs_and_keeps_the_best(songs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run"))
    seen: list[Progress] = []
    outcome = train(recipe, accelerator="cpu", progress=seen.append, notice=lambda _: None)
    assert (outcome.step, outcome.interrupted, len(seen)) == (24, False, 24)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    validation = [float(row["value"]) for row in rows if row["name"] == "validation/loss"]
    assert len(validation) == 4 and validation[-1] < validation[0]
    logged = {
        "train/loss",
        "train/level",
        "train/gradient_norm",
        "lr",
        "validation/loss",
        "validation/level",
        "data_wait",
    }
    assert {row["name"] for row in rows} >= logged
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert outcome.best is not None and math.isclose(outcome.best, min(validation), rel_tol=1e-5)
    assert checkpoint.read_info(tmp_path / "run" / "best").metadata["validation_loss"] == outcome.best
    assert [file.name for file in runs.checkpoints(tmp_path / "run")] == ["step-000000016.ckpt", "step-000000024.ckpt"]
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


def test_a_step_is_one_clipped_gradient_and_validation_a_mean_over_windows(tmp_path: Path) -> None:
    """All windows are alike and the weights stay, so every step has the same gradient; the last validation batch is short."""
    (tmp_path / "songs" / "one").mkdir(parents=True)
    for name, level in (("bass", 0.1), ("drums", 0.2)):
        soundfile.write(tmp_path / "songs" / "one" / f"{name}.wav", np.full((4000, 2), level), 8000, subtype="FLOAT")
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", tmp_path / "songs", tmp_path / "run", steps=3, log_every=1)
    still = [
        "model.config.noise=0",
        "model.config.dropout=0",
        "data.augmentation=null",
        "optim.muon=[]",
        "optim.lr=1e-9",
    ]
    train(load_recipe(path, [*still, "optim.clip=0.001"]), accelerator="cpu", notice=lambda _: None)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    norms = [float(row["value"]) for row in rows if row["name"] == "train/gradient_norm"]
    assert len(norms) == 3 and norms[0] > 0.002 and norms == pytest.approx([norms[0]] * 3, rel=1e-4)
    assert {round(float(row["value"]), 6) for row in rows if row["name"].endswith("/level")} == {0.15}
    state = runs.newest_state(tmp_path / "run")
    assert state is not None
    taken = torch.cat([one["exp_avg"].flatten() for one in state["optimizers"][0]["state"].values()])
    assert float(taken.norm()) == pytest.approx((1 - 0.9**3) * 0.001, rel=1e-3)


def test_the_best_weights_are_averaged_ones(songs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run", steps=2))
    train(recipe, accelerator="cpu", notice=lambda _: None)
    state = runs.newest_state(tmp_path / "run")
    assert state is not None
    for name, parameter in checkpoint.load_model(tmp_path / "run" / "best").named_parameters():
        assert torch.equal(parameter, state["ema"][name])
        assert not torch.equal(parameter, state["model"][name])


def test_workers_do_not_change_the_weights(songs: Path, reference: dict[str, object], tmp_path: Path) -> None:
    recipe = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run")
    train(load_recipe(recipe, ["data.workers=2"]), accelerator="cpu", notice=lambda _: None)
    _assert_same(runs.newest_state(tmp_path / "run"), reference)


def test_exports_the_averaged_weights(songs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run", valid=False))
    train(recipe, accelerator="cpu", notice=lambda _: None)
    state = runs.newest_state(tmp_path / "run")
    assert state is not None
    runs.export(tmp_path / "run", tmp_path / "model", metadata={"by": "a test"})
    module = checkpoint.load_model(tmp_path / "model")
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, state["ema"][name])
        assert not torch.equal(parameter, state["model"][name])
    assert float(module.calls) == 24  # buffers are the model's own
    assert checkpoint.read_info(tmp_path / "model").metadata == {"recipe": "toy", "step": 24, "by": "a test"}
    for words, code, said in (
        ([], 2, "give another folder, or --overwrite"),
        (["--overwrite"], 0, "card of the model"),
    ):
        (tmp_path / "model" / "README.md").write_text("old")
        done = CliRunner().invoke(cli.app, ["export", str(tmp_path / "run"), str(tmp_path / "model"), *words])
        assert done.exit_code == code and said in " ".join(done.output.split()), done.output
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".model.safetensors.0123456789ab.tmp").write_bytes(b"half")
    done = CliRunner().invoke(cli.app, ["export", str(tmp_path / "run"), str(tmp_path / "killed")])
    assert done.exit_code == 0, done.output
    with pytest.raises(ModelError, match="no validated weights"):
        runs.export(tmp_path / "run", tmp_path / "model", weights="best")
    with pytest.raises(ModelError, match=r"no recipe\.yaml"):
        runs.export(tmp_path, tmp_path / "model")


def test_starts_from_an_exported_model(songs: Path, tmp_path: Path) -> None:
    module = trainable_toy.Toy(trainable_toy.ToyConfig())
    checkpoint.save_model(tmp_path / "model", module)
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run", steps=1)
    overrides = [f"model.init={tmp_path / 'model'}", "optim.lr=1e-9"]
    train(load_recipe(path, overrides), accelerator="cpu", notice=lambda _: None)
    state = runs.newest_state(tmp_path / "run")
    assert state is not None
    assert torch.allclose(state["model"]["first.weight"], module.first.weight, atol=1e-6)
    wider = [*overrides, "model.config.inner.width=6", f"run={tmp_path / 'other'}"]
    with pytest.raises(ModelError, match=r"first\.weight: expected shape \(6, 4, 5\), found \(4, 4, 5\)"):
        train(load_recipe(path, wider), accelerator="cpu", notice=lambda _: None)


def test_infinite_loss_names_the_step_and_keeps_the_checkpoint(songs: Path, tmp_path: Path) -> None:
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run")
    recipe = load_recipe(path, ["model.config.explode_at=11"])
    with pytest.raises(TrainingError, match=r"step 11: the loss is inf.*step-000000008\.ckpt.*optim\.lr"):
        train(recipe, accelerator="cpu", notice=lambda _: None)
    assert [file.name for file in runs.checkpoints(tmp_path / "run")] == ["step-000000008.ckpt"]


def test_interrupt_leaves_a_checkpoint_to_go_on_from(songs: Path, reference: dict[str, object], tmp_path: Path) -> None:
    recipe = load_recipe(trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run"))

    def interrupt(progress: Progress) -> None:
        if progress.step == 11:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    outcome = train(recipe, accelerator="cpu", progress=interrupt, notice=lambda _: None)
    assert signal.getsignal(signal.SIGINT) is before
    assert (outcome.step, outcome.interrupted) == (12, True)
    assert not train(recipe, accelerator="cpu", notice=lambda _: None).interrupted
    _assert_same(runs.newest_state(tmp_path / "run"), reference)


def test_run_folder_of_other_settings_is_refused(songs: Path, tmp_path: Path) -> None:
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run", steps=8)
    train(load_recipe(path), accelerator="cpu", notice=lambda _: None)
    with pytest.raises(RecipeError, match=r"model\.config\.inner\.width was 4, now 5.*another folder"):
        train(load_recipe(path, ["model.config.inner.width=5"]), accelerator="cpu", notice=lambda _: None)
    with pytest.raises(RecipeError, match=r"optim\.muon was \['second'\], now \[\].*another folder"):
        train(load_recipe(path, ["optim.muon=[]"]), accelerator="cpu", notice=lambda _: None)
    again = train(load_recipe(path), accelerator="cpu", notice=lambda _: None)
    assert (again.step, again.loss) == (8, None), "there is nothing left to do"
    assert train(load_recipe(path, ["train.steps=9"]), accelerator="cpu", notice=lambda _: None).step == 9


def test_a_resumed_run_takes_the_settings_of_the_recipe(songs: Path, tmp_path: Path) -> None:
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run", steps=8)
    train(load_recipe(path), accelerator="cpu", notice=lambda _: None)
    changed = ["train.steps=16", "optim.weight_decay=0.3", "optim.betas=[0.5, 0.6]"]
    train(load_recipe(path, changed), accelerator="cpu", notice=lambda _: None)
    state = runs.newest_state(tmp_path / "run")
    assert state is not None and state["step"] == 16
    muon, adam = (stored["param_groups"][0] for stored in state["optimizers"])
    assert (muon["weight_decay"], adam["weight_decay"], adam["betas"]) == (0.3, 0.3, (0.5, 0.6))


def test_damaged_checkpoint_falls_back_to_the_one_before(songs: Path, tmp_path: Path) -> None:
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run", steps=16)
    train(load_recipe(path), accelerator="cpu", notice=lambda _: None)
    newest = runs.checkpoints(tmp_path / "run")[-1]
    newest.write_bytes(newest.read_bytes()[:500])
    with pytest.warns(UserWarning, match="damaged"):
        state = runs.newest_state(tmp_path / "run")
    assert state is not None and state["step"] == 8


def test_a_full_disk_names_the_checkpoint_and_the_last_one(tmp_path: Path) -> None:
    """A limit on the size of files stands for it; it cannot be lifted again, hence the process."""
    last = runs.save_state(tmp_path, {"step": 1, "weight": torch.zeros(9)}, keep=2)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
        try:
            runs.save_state(tmp_path, {"step": 2, "weight": torch.zeros(9_000)}, keep=2)
        except TrainingError as error:
            told = (
                f"step-000000002.ckpt: cannot be written (File too large); the last checkpoint, {last}, is safe",
                "space",
            )
            os._exit(7 if all(words in str(error) for words in told) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert runs.checkpoints(tmp_path) == [last] == list(last.parent.iterdir())


def test_bad_requests_are_named(songs: Path, tmp_path: Path) -> None:
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run")
    with pytest.raises(RecipeError, match="allowed: auto, ddp"):
        train(load_recipe(path), strategy="fsdp")
    with pytest.raises(SongError, match="does not exist"):
        train(load_recipe(path, ["data.train=nowhere"]))


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ({"accelerator": "foo"}, r"--accelerator foo with --devices 1 cannot be had \(.*invalid accelerator name"),
        ({"accelerator": "cpu", "devices": "0"}, r"--accelerator cpu with --devices 0 cannot be had"),
        ({"accelerator": "cpu", "devices": "x"}, r"--accelerator cpu with --devices x cannot be had"),
        ({"accelerator": "cpu", "devices": "cuda:0"}, r"--devices cuda:0 cannot be had"),
    ],
)
def test_devices_that_are_not_there_are_named(songs: Path, tmp_path: Path, flow: dict[str, str], message: str) -> None:
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run")
    with pytest.raises(RecipeError, match=message):
        train(load_recipe(path), **flow, notice=lambda _: None)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_named(songs: Path, tmp_path: Path) -> None:
    path = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "run")
    done = CliRunner().invoke(cli.app, ["train", str(path), "--accelerator", "gpu", "-q"])
    assert done.exit_code == 2 and "--accelerator gpu with --devices 1 cannot be had" in done.output


def test_the_folder_of_a_part_that_is_not_there_is_named(tmp_path: Path, songs: Path) -> None:
    document = {
        "format": 1,
        "name": "latent",
        "run": str(tmp_path / "run"),
        "model": {"type": "msgld", "parts": {"codec": str(tmp_path / "nowhere")}},
        "data": {"train": str(songs)},
        "train": {"steps": 2},
    }
    with pytest.raises(RecipeError, match=r"recipe:\nmodel\.parts\.codec: .*nowhere"):
        check(document)


def test_averages_and_schedule() -> None:
    module = torch.nn.Linear(2, 1)
    ema = Ema(module, 0.5)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1.0
    ema.update(10**6)
    with ema.applied():
        assert torch.allclose(module.weight, start + 0.5)
    assert torch.allclose(module.weight, start + 1.0)
    for decay in ("cosine", "sqrt"):
        optim = OptimSection(warmup=10, decay=decay, final=0.1)
        rates = [schedule(optim, step, 110) for step in range(110)]
        assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0
        assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
        assert schedule(optim, 110, 110) == pytest.approx(0.1)
    assert schedule(OptimSection(warmup=10, decay="rsqrt"), 39, 100) == 0.5
    assert schedule(OptimSection(warmup=10, decay="constant"), 99, 100) == 1.0


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4)])
def test_muon_moves_along_the_nearest_orthogonal_matrix(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    assert float(values.max() / values.min()) > 2
    found_values = torch.linalg.svdvals(found)
    assert float(found_values.min()) > 0.6 and float(found_values.max()) < 1.3
    nearest = left @ right
    assert float((found * nearest).sum() / found.norm() / nearest.norm()) > 0.97


def test_every_weight_has_one_optimizer() -> None:
    module = trainable_toy.Toy(trainable_toy.ToyConfig())
    muon, adam = optimizers(module, OptimSection(muon=["second"]))
    assert [p.shape for p in muon.param_groups[0]["params"]] == [module.second.weight.shape]
    rest = [parameter for group in adam.param_groups for parameter in group["params"]]
    assert {id(p) for p in rest} == {id(p) for p in (module.first.weight, module.first.bias, module.second.bias)}
    assert [group["weight_decay"] for group in adam.param_groups] == [0.01, 0.0]
    with pytest.raises(RecipeError, match=r"optim\.muon: .*'third'; it has: first\.bias, first\.weight, second"):
        optimizers(module, OptimSection(muon=["third"]))


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batch(songs: Path, tmp_path: Path) -> None:
    # Muon rounds to bfloat16, which turns differences in the order of sums into visible ones.
    plain = [
        "model.config.noise=0",
        "model.config.dropout=0",
        "train.steps=6",
        "train.validate_every=6",
        "optim.muon=[]",
    ]
    recipe = trainable_toy.write_recipe(tmp_path / "toy.yaml", songs, tmp_path / "two")
    command = [sys.executable, str(TOY), str(recipe), "devices=2", *plain]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert two.returncode == 0, two.stderr
    assert "2 process(es)" in two.stdout
    assert _exit_code(recipe, *plain, "train.batch=4", f"run={tmp_path / 'one'}") == 0
    together, alone = runs.newest_state(tmp_path / "two"), runs.newest_state(tmp_path / "one")
    assert together is not None and alone is not None and together["step"] == alone["step"] == 6
    for name, weight in alone["ema"].items():
        torch.testing.assert_close(together["ema"][name], weight, atol=1e-5, rtol=1e-4)


def test_the_band_trains_from_its_tiny_recipe(tmp_path: Path) -> None:
    songs = trainable_toy.write_songs(tmp_path / "songs", count=1, frames=60_000, rate=44_100)
    recipe = Path(__file__).parent.parent / "recipes" / "band-tiny.yaml"
    overrides = [f"data.train={songs}", f"run={tmp_path / 'run'}", "train.steps=2", "train.batch=1"]
    outcome = train(load_recipe(recipe, overrides), accelerator="cpu", notice=lambda _: None)
    assert outcome.step == 2 and math.isfinite(outcome.loss)
    runs.export(tmp_path / "run", tmp_path / "model", dtype=torch.float16)
    assert checkpoint.read_info(tmp_path / "model").type == "band"
    assert checkpoint.load_model(tmp_path / "model").config.stems == ("bass", "drums", "guitar", "piano", "other")


def test_parts_come_from_other_model_folders(tmp_path: Path, songs: Path) -> None:
    """A latent model takes its codec's shape and weights from a folder, trains beside it, and leaves it as it was."""
    codec = MelVae(CODEC)
    checkpoint.save_model(tmp_path / "codec", codec)
    recipe = check(
        {
            "format": 1,
            "name": "latent",
            "run": str(tmp_path / "run"),
            "model": {
                "type": "msgld",
                "parts": {"codec": str(tmp_path / "codec")},
                "config": {"stems": ["bass", "drums"], "net": dataclasses.asdict(NET) | {"stems": 2}},
            },
            "data": {"train": str(songs), "channels": 1, "workers": 0, "min_active": 0},
            "train": {"steps": 2, "batch": 2, "checkpoint_every": 1},
        }
    )
    train(recipe, notice=lambda _: None)
    runs.export(tmp_path / "run", tmp_path / "model")
    trained = checkpoint.load_model(tmp_path / "model")
    for name, tensor in codec.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[f"codec.{name}"], tensor, atol=0, rtol=0)
    assert float(trained.scale) > 0  # type: ignore[arg-type]
