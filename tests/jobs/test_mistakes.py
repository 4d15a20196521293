"""Every wrong input ends in one clear message, exit code 2, and nothing written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossreg.jobs import cli


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "cache"))


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["crossreg", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def arrays(name: str, x: np.ndarray, y: np.ndarray) -> str:
    np.savez(name, x=x, y=y)
    return name


def nan_data() -> str:
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    x[17, 2] = np.nan
    return arrays("nan.npz", x, np.arange(200) % 2)


def one_class() -> str:
    return arrays("one.npz", np.zeros((200, 4), np.float32), np.zeros(200, np.int64))


def truncated_checkpoint() -> str:
    Path("broken.pt").write_bytes(b"PK\x03\x04 not all of it")
    return "broken.pt"


def odd_images() -> str:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = Path("images", split, name)
            folder.mkdir(parents=True)
            for index in range(12):
                Image.new("RGB", (8 if index else 9, 8)).save(folder / f"{index}.png")
    return "images"


def other_models_checkpoint() -> str:
    from crossreg import save_checkpoint

    save_checkpoint({"step": 1}, "other", model="vgg16")
    return "other/checkpoint.pt"


def written(name: str) -> str:
    Path(name).write_bytes(b"half")
    return name


def half_a_meta_training() -> list[str]:
    written("x.safetensors.state")
    return ["meta-train", "x.safetensors"]


def wrong_yaml(text: str) -> Callable[[], list[str]]:
    def write() -> list[str]:
        Path("wrong.yaml").write_text(text)
        return ["--config", "wrong.yaml"]

    return write


TRAIN = ["train", "--data", "digits"]
COMPARE = ["compare", "--data", "digits", "--model", "mlp", "--seeds", "1"]

CASES: dict[str, tuple[Callable[[], list[str]], str]] = {
    "no data": (lambda: ["train"], "no data given"),
    "unknown model": (lambda: [*TRAIN, "--model", "resnet19"], "'resnet19'"),
    "model of one's own that is not there": (lambda: [*TRAIN, "--model", "nowhere:build"], "nowhere"),
    "unknown dataset": (lambda: ["train", "--data", "digit"], "digits"),
    "missing path": (lambda: ["train", "--data", "no/such/folder"], "no/such/folder"),
    "missing torchvision data": (lambda: ["train", "--data", "cifar10"], "--download"),
    "NaN in the data": (lambda: ["train", "--data", nan_data()], "x[17, 2] is nan"),
    "one class only": (lambda: ["train", "--data", one_class()], "class"),
    "images of two sizes": (lambda: ["train", "--data", odd_images()], "0.png"),
    "negative workers": (lambda: [*TRAIN, "--workers", "-1"], "workers is -1"),
    "more workers than CPUs": (lambda: [*TRAIN, "--workers", "4000"], "4000"),
    "zero epochs": (lambda: [*TRAIN, "--epochs", "0"], "epochs is 0"),
    "negative learning rate": (lambda: [*TRAIN, "--lr", "-1"], "optimizer.lr is -1"),
    "unknown optimizer": (lambda: [*TRAIN, "--optimizer", "adam"], "did you mean 'adamw'"),
    "unknown precision": (lambda: [*TRAIN, "--precision", "float8"], "precision is 'float8'"),
    "batch larger than reg": (lambda: [*TRAIN, "--schedule", "cosine", "--batch-size", "512"], "512"),
    "batch not shared by workers": (lambda: [*TRAIN, "--workers", "2", "--batch-size", "33"], "33"),
    "no reg split": (lambda: [*TRAIN, "--reg-share", "0"], "reg_share is 0"),
    "reg share above one half": (lambda: [*TRAIN, "--reg-share", "0.8"], "0.8"),
    "unwritable storage": (lambda: [*TRAIN, "--storage-path", "/dev/null/runs"], "/dev/null/runs"),
    "unknown storage scheme": (lambda: [*TRAIN, "--storage-path", "gopher://x/y"], "gopher"),
    "tracking folder": (lambda: [*TRAIN, "--tracking-uri", "file:///tmp/mlruns"], "sqlite:///"),
    "unknown tracking scheme": (lambda: [*TRAIN, "--tracking-uri", "ftp://x"], "ftp"),
    "unknown key": (lambda: [*TRAIN, *wrong_yaml("epoch: 3")()], "did you mean 'epochs'"),
    "unknown nested key": (lambda: [*TRAIN, *wrong_yaml("rho: {sample: 3}")()], "did you mean 'samples'"),
    "wrong type": (lambda: [*TRAIN, *wrong_yaml("epochs: many")()], "'many'"),
    "a section that is none": (lambda: [*TRAIN, *wrong_yaml("tracking: x")()], "section 'tracking' is 'x'"),
    "an empty section and no data": (lambda: ["train", *wrong_yaml("data:\nplacement:")()], "no data given"),
    "one row a worker": (
        lambda: [*TRAIN, "--model", "mlp", "--workers", "2", "--batch-size", "2"],
        "Expected more than 1 value per channel",
    ),
    "rho batch not shared": (
        lambda: [*TRAIN, "--learn", "noise", "--workers", "2", *wrong_yaml("rho: {batch_size: 5}")()],
        "rho.batch_size is 5",
    ),
    "not a mapping": (lambda: [*TRAIN, *wrong_yaml("- 1")()], "mapping"),
    "not YAML": (lambda: [*TRAIN, *wrong_yaml("a: [")()], "not YAML"),
    "missing config": (lambda: [*TRAIN, "--config", "none.yaml"], "none.yaml"),
    "truncated checkpoint": (lambda: [*TRAIN, "--resume", truncated_checkpoint()], "not a complete"),
    "another model's checkpoint": (lambda: [*TRAIN, "--resume", other_models_checkpoint()], "vgg16"),
    "missing checkpoint": (lambda: [*TRAIN, "--resume", "runs/none.pt"], "no checkpoint at"),
    "image model on a table": (lambda: ["train", "--data", "wine", "--model", "vgg16"], "vgg16"),
    "augmentation of a table": (
        lambda: ["train", "--data", "wine", "--model", "mlp", "--augment", "flip"],
        "no images",
    ),
    "a model that does not fit": (
        lambda: [*TRAIN, "--model", f"{__name__}:too_few_outputs"],
        "must return (8, 10)",
    ),
    "learning what there is not": (
        lambda: [*TRAIN, "--learn", "l3"],
        "is called 'l3'; there are noise,",
    ),
    "a slip in a regularizer's name": (lambda: [*TRAIN, "--learn", "shft"], "did you mean 'shift'"),
    "learning from a word": (lambda: [*TRAIN, "--learn", "l2=much"], "l2 is 'much'; it must be a number"),
    "learning from nothing": (lambda: [*TRAIN, "--learn", "l2=0"], "l2 is 0.0; it must lie in 1e-07..1e+07"),
    "a share that is none": (lambda: [*TRAIN, "--fix", "label-smoothing=1.5"], "label_smoothing is 1.5; it must lie"),
    "fixing at no value": (lambda: [*TRAIN, "--fix", "l2"], "not of the form NAME=VALUE"),
    "learning what has no gradient": (lambda: [*TRAIN, "--learn", "weight_decay"], "no gradient"),
    "a part of what is not there": (
        lambda: [*TRAIN, "--learn", "none", "--fix", "noise/00_norm1=1"],
        "a part of noise, which this training does not have",
    ),
    "a layer that is not there": (
        lambda: [*TRAIN, "--model", "mlp", "--learn", "noise", "--fix", "noise/00_norm7=1"],
        "no hyperparameter 'noise/00_norm7'; did you mean",
    ),
    "learned and fixed": (
        lambda: [*TRAIN, *wrong_yaml("regularizers: {l2: {learn: true, value: 1}}")()],
        "its start is what can be given, not value",
    ),
    "unknown setting of a regularizer": (
        lambda: [*TRAIN, *wrong_yaml("regularizers: {noise: {granularty: unit}}")()],
        "did you mean 'granularity'",
    ),
    "wrong setting of a regularizer": (
        lambda: [*TRAIN, *wrong_yaml("regularizers: {noise: {granularity: room}}")()],
        "granularity is 'room'",
    ),
    "what the direct gradient cannot learn": (
        lambda: [*TRAIN, "--learn", "label-smoothing", "--estimator", "direct"],
        "cannot learn label_smoothing",
    ),
    "dropout of a model without": (
        lambda: [*TRAIN, "--model", "resnet18", "--fix", "dropout=0.2"],
        "has no dropout layer",
    ),
    "unknown stopping rule": (lambda: [*TRAIN, "--stop", "patiance=3"], "did you mean 'patience'"),
    "patience of nothing": (lambda: [*TRAIN, "--stop", "patience=0"], "at least 1"),
    "stopping by nothing held out": (
        lambda: [*TRAIN, "--schedule=cosine", "--learn", "none", "--reg-share", "0", "--stop", "patience=3"],
        "stopping looks at the regularization split",
    ),
    "a rule where the length is found": (
        lambda: [*TRAIN, "--stop", "patience=3"],
        "schedule 'found' decides when to stop",
    ),
    "finding the length by nothing": (
        lambda: [*TRAIN, "--reg-share", "0"],
        "schedule 'found' judges by the regularization split",
    ),
    "replaying what has no length": (
        lambda: ["compare", "--data", "digits", "--methods", "crossreg-refit"],
        "which takes a given length; use --schedule cosine",
    ),
    "a budget in words": (lambda: [*TRAIN, "--budget", "5 minutes"], "90s, 5m, 2h"),
    "a budget beside a length": (lambda: [*TRAIN, "--budget", "5m", "--schedule", "cosine"], "use --epochs or --steps"),
    "augmenting a table": (
        lambda: ["train", "--data", "wine", "--model", "mlp", "--learn", "shift"],
        "augmentation is for batches of images",
    ),
    "smoothing of numbers": (
        lambda: ["train", "--data", "diabetes", "--model", "mlp", "--learn", "label-smoothing"],
        "is for classification",
    ),
    "a comparison of nothing": (
        lambda: [*COMPARE, "--schedule", "cosine", "--learn", "none"],
        "the training learns nothing",
    ),
    "unknown flag": (lambda: [*TRAIN, "--worker", "2"], "--workers"),
    "unknown command": (lambda: ["trian"], "train"),
    "no data to compare on": (lambda: ["compare"], "no data given"),
    "unknown method to compare": (lambda: [*COMPARE, "--methods", "crossreg,pbtt"], "did you mean 'pbt'"),
    "a method twice": (lambda: [*COMPARE, "--methods", "none,none"], "give at least one, each once"),
    "no method": (lambda: [*COMPARE, "--methods", ","], "give at least one"),
    "unknown budget": (lambda: [*COMPARE, "--budget", "huge"], "allowed are matched, full"),
    "a budget of nothing": (lambda: [*COMPARE, "--budget", "0"], "positive factor"),
    "a budget that pays for no step": (lambda: [*COMPARE, "--budget", "0.00001"], "does not pay for one step"),
    "unknown unit": (lambda: [*COMPARE, "--unit", "dollars"], "unit is 'dollars'"),
    "seconds of what": (
        lambda: [*COMPARE, "--methods", "none,pbt", "--unit", "worker_seconds"],
        "add it to --methods",
    ),
    "a population of one": (lambda: [*COMPARE, "--population", "1"], "population is 1"),
    "no seed": (lambda: [*COMPARE, "--seeds", "0"], "seeds is 0"),
    "unknown key of a comparison": (
        lambda: [*COMPARE, *wrong_yaml("compare: {populaton: 3}")()],
        "did you mean 'population'",
    ),
    "dropout where there is none": (
        lambda: ["compare", "--data", "digits", "--model", "resnet18", "--methods", "mc-dropout"],
        "takes no option 'dropout'",
    ),
    "an ensemble of numbers": (
        lambda: ["compare", "--data", "diabetes", "--model", "mlp", "--methods", "ensemble"],
        "averages class probabilities",
    ),
    "accuracy of numbers": (
        lambda: ["compare", "--data", "diabetes", "--model", "mlp", "--select-on", "accuracy"],
        "has no classes",
    ),
    "a remote folder for a comparison": (
        lambda: [*COMPARE, "--storage-path", "memory://x"],
        "needs a folder",
    ),
    "a model that cannot take the data": (
        lambda: ["compare", "--data", "wine", "--model", "cnn"],
        "needs images",
    ),
    "replay of what": (lambda: ["replay"], "--run"),
    "unknown mode of a replay": (lambda: ["replay", "--run", "0" * 32, "--mode", "twice"], "allowed are schedule"),
    "no seed of a replay": (lambda: ["replay", "--run", "0" * 32, "--seeds", "0"], "seeds is 0"),
    "sync of nothing": (lambda: ["sync", "nowhere"], "nowhere"),
    "an optimizer that is there": (lambda: ["meta-train", written("x.safetensors")], "is there already; remove it"),
    "half a meta-training": (half_a_meta_training, "no complete state of a meta-training"),
    "a folder for an optimizer": (lambda: ["meta-train", "."], "is a folder; name the optimizer file in it"),
    "unknown meta-loss": (lambda: ["meta-train", "x", "--meta-loss", "gamm"], "did you mean 'gam'?"),
    "a task without a network": (lambda: ["meta-train", "x", "--tasks", "digits"], "not of the form DATA:NETWORK"),
}


def too_few_outputs(input_shape: tuple[int, ...], num_outputs: int) -> object:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.LayerNorm(3))


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_named_and_nothing_is_left(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, words = CASES[name]
    given = arguments()
    before = {path for path in Path().rglob("*") if "cache" not in path.parts}
    assert run(*given, monkeypatch=monkeypatch) == 2
    out, err = capfd.readouterr()
    assert words in " ".join(err.split()), err
    assert "Traceback" not in err
    assert out == ""
    assert {path for path in Path().rglob("*") if "cache" not in path.parts} == before


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert run(*TRAIN, "--storage-path", str(folder), monkeypatch=monkeypatch) == 2
    assert "cannot be written" in capfd.readouterr().err


@pytest.mark.parametrize("given", [("train", "--resume"), ("compare", "--resume"), ("replay", "--run")])
def test_an_unknown_run_is_named(
    given: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(*given, "0123456789abcdef0123456789abcdef", monkeypatch=monkeypatch) == 2
    assert "no run '0123456789abcdef0123456789abcdef'" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("command", ["train", "compare", "replay", "ui", "demo", "doctor", "sync"])
def test_every_command_has_help_that_says_what_it_does(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--help", monkeypatch=monkeypatch) == 0
    assert len(capfd.readouterr().out) > 300


def test_doctor_says_what_is_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import json

    assert run("doctor", "--json", monkeypatch=monkeypatch) == 0
    found = json.loads(capfd.readouterr().out)
    assert {"cpus", "gpus", "ray", "mlflow", "torch", "disk_free_gb", "problems"} <= set(found)
    assert found["cpus"] >= 1
