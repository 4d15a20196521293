"""Options of the command line are made from the configurations, and say what a file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crossreg.jobs import compare, flags, train
from crossreg.regularizers.registry import REGISTRY, description
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.data import load_data
from crossreg.services.settings import Flag, Settings
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.resolve import resolve


def training(file: Path | None = None, **given: Any) -> TrainConfig:
    (what,) = flags.settings({"data": "digits", **given}, TrainConfig, file=file)
    return TrainConfig.model_validate(what)


def marked(kind: type[Settings]) -> set[str]:
    """Return the names of a configuration's flags, as its fields say them."""
    found = set()
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            found |= marked(field.annotation) if field.annotation is not TrainConfig else set()
        found |= {m.name or name.replace("_", "-") for m in field.metadata if isinstance(m, Flag)}
    return found


def shown(app: Any) -> str:
    return CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, ["--help"]).output


def test_help_has_every_flag_with_its_default() -> None:
    said = shown(train.app)
    for name in marked(TrainConfig) | marked(Placement) | marked(TrackingConfig) | {"learn", "fix", "stop", "resume"}:
        assert re.search(rf"--{name}\b", said), name
    defaults = {"--schedule": "found", "--workers": "1", "--samples": "3", "--optimizer": "adamw"}
    for flag, default in defaults.items():
        (line,) = (line for line in said.splitlines() if re.search(rf"^\W*{flag}\b", line))
        assert f"Default: {default}." in line
    also = shown(compare.app)
    for name in marked(CompareConfig):
        assert re.search(rf"--{name}\b", also), name
    assert "--workers" not in also


@pytest.mark.parametrize("name", REGISTRY)
def test_every_regularizer_is_a_flag_and_a_key(name: str, tmp_path: Path) -> None:
    dashed, value, file = name.replace("_", "-"), description(name).at(0.3), tmp_path / "run.yaml"
    if name != "temperature":  # which is fitted where the length is found
        file.write_text(f"regularizers: {{{name}: {{learn: false, value: {value!r}}}}}")
        assert training(fix=[f"{dashed}={value!r}"]) == training(file)
    if description(name).learned_by_rho:
        file.write_text(f"regularizers: {{{name}: {{start: {value!r}}}}}")
        assert training(learn=[f"{dashed}={value!r}"]) == training(file)
        assert name in training(learn=[name]).learned


def test_flags_change_what_a_file_says_and_keep_its_options(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("regularizers: {noise: {granularity: unit}, l2: {start: 0.01}, shift: 2}")
    both = training(file, learn=["noise=0.3"], fix=["l2=0.1"])
    assert {name: (one.learn, one.initial, one.options) for name, one in both.regularizers.items()} == {
        "noise": (True, 0.3, {"granularity": "unit"}),
        "l2": (False, 0.1, {}),
        "shift": (False, 2.0, {}),
    }
    assert training(file, learn=["none"]).regularizers.keys() == {"shift"}
    assert training(file, learn=["none", "l1"]).learned == ["l1"]


def test_flags_add_to_the_default() -> None:
    given = {"schedule": "cosine"}
    assert training(**given, learn=["l2"]).learned == ["noise", "temperature", "l2"]
    assert training(**given, fix=["noise=0.5"]).learned == ["temperature"]
    assert training(**given, fix=["noise=0"]).regularizers.keys() == {"temperature"}
    assert training(**given, learn=["none"]).method == "none"
    assert training(**given, learn=["none"], fix=["l2=0.1"]).method == "fixed"
    assert training(**given, stop="patience=4").stopping == {"patience": 4.0}


def test_where_the_length_is_found_nothing_is_learned_beside_it_unless_named() -> None:
    assert training().learned == []
    assert training().method == "crossreg"
    assert training(learn=["noise"]).learned == ["noise"]
    assert training(learn=["none"]).regularizers == {}
    data = load_data(training().data)
    found = resolve(training(learn=["l2"]), data)
    assert {name: one.learn for name, one in found.regularizers.items()} == {
        "l2": True, "dropout": False, "temperature": False, "weight_decay": False,
    }  # fmt: skip
    assert (found.ensemble, found.batch_size, found.optimizer.lr, found.weight_decay) == (4, 128, 5e-3, 0.2)
    assert found.model_options["dropout"] == found.regularizers["dropout"].value == 0.1
    assert resolve(training(fix=["dropout=0"]), data).regularizers["dropout"].value == 0
    given = resolve(training(schedule="cosine"), data)
    assert (given.ensemble, given.optimizer.lr, given.weight_decay, given.learned) == (
        1, 1e-3, 0.01, ["noise", "temperature"],
    )  # fmt: skip


def test_a_file_that_says_none_takes_the_dropout_away_too(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("regularizers: none")
    assert resolve(training(file), load_data(training().data)).regularizers["dropout"].value == 0


def test_a_file_may_name_them_in_short(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for text, learned in (("none", []), ("[noise, l2]", ["noise", "l2"]), ("{noise: off, l2: }", ["l2"])):
        file.write_text(f"regularizers: {text}")
        assert training(file).learned == learned


def test_a_part_is_a_flag_too() -> None:
    one = training(fix=["noise/00_norm1=0.3"], schedule="cosine")
    assert (one.regularizers["noise/00_norm1"].value, one.learned) == (0.3, ["noise", "temperature"])
