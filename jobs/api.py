"""The service in Python: what `crossreg train` and `crossreg compare` do, with a model and data of one's own.

    from crossreg.jobs.api import train

    training = train(network, (x, y), epochs=5)
    training.result.test["accuracy"]
    training.model(new_x)

Runs in this process by default; `workers=1` and more run on Ray. Everything is in MLflow as it is for a command.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossreg.core.errors import UserError, nearest
from crossreg.core.imports import give_function
from crossreg.jobs import compare as compare_job
from crossreg.jobs import flags
from crossreg.jobs import train as train_job
from crossreg.jobs.options import validated
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from crossreg.prediction.export import Exported
    from crossreg.services.comparison.compare import Comparison
    from crossreg.services.training.driver import FinishedTraining

__all__ = ["Training", "compare", "train"]

_HERE = "notebook"
"""In place of a package, in the names of what only this process has."""
_METHODS_HERE = "crossreg,none,tuned-search"
"""Methods that need no Ray Tune."""


@dataclass(frozen=True)
class Training:
    """A training that has ended.

    Attributes:
        result: scores, what was learned, cost, the MLflow run; see `FinishedTraining`.
        model: predicts rows as they come: `model(rows)` returns probabilities `[N, classes]` or means `[N, outputs]`.
    """

    result: FinishedTraining
    model: Exported

    @property
    def network(self) -> nn.Module:
        """The trained network itself, which takes standardized inputs."""
        return self.model.network


def train(
    model: str | nn.Module | Callable[..., nn.Module] | None = None,
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: str | None = None,
    show: bool = True,
    **given: Any,
) -> Training:
    """Train a model as `crossreg train` does.

    Args:
        model: a name that `--model` takes; a function or class called with `input_shape=` and `num_outputs=`, which is
            called for each network of an ensemble; or a module, which is copied and trained as one network. A model
            gets standardized inputs. None chooses by the data.
        data: a name or path that `--data` takes; or what a function of one's own may return: arrays or tensors
            `(x, y)`, a dictionary of them or of splits, a pandas frame (with `target=`), a map-style Dataset or a pair
            of them.
        config: a YAML file of settings.
        resume: an MLflow run to go on with, or a checkpoint.
        show: progress, on stderr.
        **given: any flag of the command by its name with underscores: `epochs=5`, `learn=["noise", "l2=0.01"]`,
            `tracking_uri="sqlite:///mlflow.db"`; `workers` is 0 if it is not given, which is this process.

    Raises:
        UserError: something given is wrong; found before anything is written.
        TrainingError: training did not end well; what was recorded is kept.
    """
    given = _flags(given, model, data, TrainConfig, Placement, TrackingConfig)
    what, where, tracked = flags.settings(given, TrainConfig, Placement, TrackingConfig, file=_path(config))
    result = train_job.run(given, what, validated(Placement, where), validated(TrackingConfig, tracked), resume, show)
    from crossreg.prediction.export import load_exported
    from crossreg.services.training.storage import RunFolder

    location = result.checkpoint.rsplit("/", 2)[0]
    return Training(result, load_exported(RunFolder.at(location).local / "model"))


def compare(
    model: str | nn.Module | Callable[..., nn.Module] | None = None,
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: str | None = None,
    show: bool = True,
    **given: Any,
) -> Comparison:
    """Compare the cross-regularized run with others as `crossreg compare` does.

    Args:
        model: see `train`.
        data: see `train`.
        config: a YAML file of settings.
        resume: the parent run of a comparison to go on with.
        show: progress, on stderr.
        **given: any flag of the command by its name with underscores: `methods="crossreg,none"`, `seeds=5`. `workers`
            is 0 if it is not given: trials run one after another in this process, and methods are then crossreg, none
            and tuned-search; those that need Ray Tune (pbt) take `workers=1`.

    Raises:
        UserError: something given is wrong; found before anything is written.
        TrainingError: a trial ended without a result.
    """
    kinds = (CompareConfig, TrainConfig, Placement, TrackingConfig)
    given = _flags(given, model, data, *kinds)
    if given["workers"] == 0 and given.get("methods") is None:
        given["methods"] = _METHODS_HERE
    asked, what, where, tracked = flags.settings(given, *kinds, file=_path(config))
    return compare_job.run(
        what, asked, validated(Placement, where), validated(TrackingConfig, tracked), resume, show=show
    )


def _path(config: str | Path | None) -> Path | None:
    return None if config is None else Path(config)


def _flags(given: dict[str, Any], model: Any, data: Any, *kinds: Any) -> dict[str, Any]:
    """Return the flags of a command for what was given; objects get a name that this process finds them by."""
    allowed = flags.parameters(*kinds)
    for name in given:
        if name not in allowed:
            raise UserError(f"there is no setting {name!r}{nearest(name, allowed)}; see `crossreg train --help`")
    found = {"learn": None, "fix": None, "workers": 0, **given}
    for name in ("learn", "fix"):
        if isinstance(found[name], str):
            found[name] = [found[name]]
    if model is not None:
        found["model"] = model if isinstance(model, str) else _named(model, found["workers"])
        if not isinstance(model, str | type) and not _is_function(model) and found.get("ensemble") is None:
            found["ensemble"] = 1  # several networks begin differently, and copies of one do not
    if data is not None:
        found["data"] = str(data) if isinstance(data, str | Path) else _given("data", lambda: data)
    return found


def _is_function(model: Any) -> bool:
    return not hasattr(model, "forward")


def _named(model: Any, workers: int) -> str:
    """Return a name for a model that is no name: where others can import it, or for this process."""
    if isinstance(model, type) or _is_function(model):
        if not callable(model):
            raise UserError(f"model is of type {type(model).__name__}; give a name, a module or a function")
        module, name = getattr(model, "__module__", None), getattr(model, "__qualname__", "")
        if (
            module not in (None, "__main__")
            and "<" not in name
            and getattr(sys.modules.get(module), name, None) is model
        ):
            return f"{module}:{name}"
        make = model
    else:
        name = type(model).__name__
        # the module itself stays as it was given
        make = lambda input_shape, num_outputs: copy.deepcopy(model)  # noqa: E731
    if workers:
        raise UserError(
            f"workers is {workers}, and Ray's workers cannot import a model that only this process has; put it in a "
            "module of its own, as a function of input_shape and num_outputs, or use workers=0"
        )
    return _given(name.rpartition(".")[2].strip("<>") or "model", make)


def _given(name: str, function: Callable[..., Any]) -> str:
    full = f"{_HERE}:{name}"
    give_function(full, function)
    return full
