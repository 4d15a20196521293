"""The service in Python: what is asked is what the command would be asked, and objects are found by a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from crossreg import UserError
from crossreg.core.imports import import_function
from crossreg.jobs import api
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig

X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3


def network(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(*input_shape, 8), nn.LayerNorm(8), nn.Linear(8, num_outputs))


def named(model: Any, data: Any = (X, Y), **given: Any) -> dict[str, Any]:
    return api._flags(given, model, data, TrainConfig, Placement, TrackingConfig)


def test_what_others_can_import_keeps_its_name() -> None:
    assert named(network, workers=2)["model"] == f"{__name__}:network"
    assert named(nn.Identity)["model"] == "torch.nn.modules.linear:Identity"
    assert named("mlp")["model"] == "mlp"
    assert named(None, "digits") == {"learn": None, "fix": None, "workers": 0, "data": "digits"}
    assert named(None, Path("a.csv"))["data"] == "a.csv"


def test_what_only_this_process_has_gets_one() -> None:
    def inside(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
        return network(input_shape, num_outputs)

    found = named(inside)
    assert found["model"] == "notebook:inside"
    assert import_function(found["model"], "model", "a function") is inside
    assert import_function(found["data"], "data", "a function")()[0] is X
    assert "ensemble" not in found
    module = network((4,), 3)
    found = named(module)
    assert (found["model"], found["ensemble"]) == ("notebook:Sequential", 1)
    copy = import_function(found["model"], "model", "a function")((4,), 3)
    assert copy is not module
    assert copy[0].weight.equal(module[0].weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: named("mlp", stepz=3), "no setting 'stepz'; did you mean 'steps'"),
        (lambda: named(network((4,), 3), workers=1), "workers is 1, and Ray's workers cannot import"),
        (lambda: named(3), "model is of type int; give a name, a module"),
        (lambda: api.train("mlp", "digits", epochs=-1), "epochs is -1"),
        (lambda: api.train("mlp"), "no data given"),
        (lambda: api.train("mlp", (X, Y[:3])), "x .*60.* y"),
        (lambda: api.compare("mlp", (X, Y), methods="crossreg,pbx"), "unknown method 'pbx'; did you mean 'pbt'"),
    ],
)
def test_mistakes_are_named(call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_a_search_of_ray_tune_says_that_it_needs_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the search of pbt is Ray Tune's, and --workers 0 goes without"):
        api.compare(network, (X, Y), methods="none,pbt", seeds=1, population=2, epochs=2, show=False)


def test_lists_are_taken_where_a_flag_takes_names(tmp_path: Path) -> None:
    from crossreg.jobs import flags

    kinds = (CompareConfig, TrainConfig, Placement, TrackingConfig)
    given = api._flags({"freeze": ["a", "b"], "learn": "l2", "seeds": 2}, "mlp", "digits", *kinds)
    asked, what, *_ = flags.settings(given, *kinds)
    assert what["freeze"] == ["a", "b"]
    assert what["regularizers"]["l2"]["learn"]
    assert asked == {"seeds": 2}
