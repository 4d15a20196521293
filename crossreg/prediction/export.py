"""A trained model as two files without code: `weights.safetensors` and `model.json`, and a predictor made of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crossreg.batches import Preprocess
from crossreg.core.errors import UserError
from crossreg.core.modules import unwrap
from crossreg.core.paths import local_path
from crossreg.models import Ensemble, Style, build_ensemble, is_custom, networks
from crossreg.prediction.predict import Prediction, predict
from crossreg.regularizers.registry import attach
from crossreg.regularizers.temperature import temperature

if TYPE_CHECKING:
    import numpy as np

    from crossreg.inputs import Inputs

__all__ = ["DESCRIPTION_FILE", "WEIGHTS_FILE", "Exported", "export_model", "load_exported"]

WEIGHTS_FILE, DESCRIPTION_FILE = "weights.safetensors", "model.json"
_BATCH = 256
_FORMAT = 4


def export_model(
    model: nn.Module,
    preprocess: Preprocess | None,
    directory: str | os.PathLike[str],
    *,
    name: str,
    input_shape: tuple[int, ...],
    num_outputs: int,
    options: dict[str, Any] | None = None,
    members: int = 1,
    style: Style = "independent",
    regularizers: Mapping[str, Mapping[str, Any]] | None = None,
    task: str = "classification",
    classes: tuple[str, ...] = (),
    target: tuple[list[float], list[float]] | None = None,
    inputs: Inputs | None = None,
    span: tuple[list[float], list[float]] | None = None,
) -> Path:
    """Write a model for prediction elsewhere; needs the `safetensors` package.

    Args:
        model: trained; see `regularizers`.
        preprocess: what its inputs go through; None for one that takes them as they are, as integers.
        directory: created if missing.
        name: as `crossreg.models.build_networks` takes it; a function of your own must be importable where it is
            loaded.
        input_shape: of one example.
        num_outputs: classes, or outputs of a regression.
        options: other arguments of the model.
        members: networks that it is an `Ensemble` of; 1 is a network by itself.
        style: whether these share their weights.
        regularizers: those that the model still holds, see `crossreg.regularizers.remove`: their options by name.
        task: "classification" or "regression".
        classes: names of the classes.
        target: mean and standard deviation of the outputs, where the model was trained on standardized ones.
        inputs: how rows or arrays as people have them become its inputs; None for arrays that are taken as they are.
        span: smallest and largest value of each channel or feature (axis 1) in the training split; None is not known.

    Returns:
        The directory.
    """
    from safetensors.torch import save_file

    from crossreg.inputs import Array, to_json

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v for k, v in unwrap(model).state_dict().items()}
    tensors |= {f"preprocess.{k}": v for k, v in preprocess.state_dict().items()} if preprocess else {}
    # weights that are shared or not contiguous are written once each, in plain layout
    save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, directory / WEIGHTS_FILE)
    description = {
        "format": _FORMAT,
        "model": name,
        "options": options or {},
        "members": members,
        "style": style,
        "input_shape": list(input_shape),
        "num_outputs": num_outputs,
        "regularizers": {name: dict(given) for name, given in (regularizers or {}).items()},
        "task": task,
        "classes": list(classes),
        "target": target,
        "inputs": to_json(inputs or Array()),
        "span": span,
    }
    (directory / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2, ensure_ascii=False), "utf-8")
    return directory


class Exported:
    """An exported model that predicts, on the CPU; made by `load_exported`.

    Attributes:
        input_shape: of one example, as the network takes it.
        num_outputs: classes, or outputs of a regression.
        task: "classification" or "regression".
        classes: their names; empty where they have none.
        inputs: what it takes: a `Table` of named columns or an `Array`.
        images: whether its inputs are images `[C, H, W]` of bytes.
        integers: whether the network gets whole numbers as they are, as tokens.
        span: smallest and largest value of each channel or feature in the training split, float64 each; None where the
            file does not tell.
        target_std: `[outputs]`, float64, of a regression in the training split, in the target's unit; None for
            classification and where it was not standardized.
        observation_std: `[outputs]`, float64: learned standard deviation of an observation around the mean; None for
            classification and for a model without a learned temperature.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess | None, description: dict[str, Any]) -> None:
        import numpy as np

        from crossreg.inputs import Array, Sequence, Table, from_json

        self.input_shape: tuple[int, ...] = tuple(description["input_shape"])
        self.num_outputs: int = description["num_outputs"]
        self.task: str = description["task"]
        self.classes: tuple[str, ...] = tuple(description["classes"])
        self.inputs: Inputs = from_json(description["inputs"])
        if isinstance(self.inputs, Table) and (len(self.inputs.features),) != self.input_shape:
            raise UserError(f"its columns make {len(self.inputs.features)} features, and it takes {self.input_shape}")
        if isinstance(self.inputs, Sequence) and len(self.input_shape) != 2:
            raise UserError(f"sequences are (channels, time), and it takes {self.input_shape}")
        self.images = isinstance(self.inputs, Array) and self.inputs.images(self.input_shape)
        self.integers = preprocess is None
        self._model, self._preprocess = model, preprocess
        centre, scale = description["target"] or ([0.0], [1.0])
        self._centre, self._scale = np.asarray(centre, np.float64), np.asarray(scale, np.float64)
        self.target_std: np.ndarray | None = self._scale if description["target"] else None
        span = description.get("span")
        self.span: tuple[np.ndarray, np.ndarray] | None = span and (np.asarray(span[0]), np.asarray(span[1]))
        self.observation_std: np.ndarray | None = None
        if self.task == "regression" and "temperature" in description["regularizers"]:
            self.observation_std = np.ones(self.num_outputs) * self._scale * float(temperature(model))

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode; it takes inputs as `preprocess` of its training made them."""
        return self._model

    def __call__(self, rows: Any, samples: int = 16, seed: int = 0) -> np.ndarray:
        """Return probabilities `[N, classes]`, float32, or means `[N, outputs]`, float64, averaged over noise draws.

        Args:
            rows: N of them as people have them, see `encode`.
            samples: noise draws.
            seed: makes them repeatable.

        Raises:
            UserError: not what the model takes.
        """
        return self.predict(self.encode(rows), samples, seed)[0]

    def encode(self, rows: Any, notes: list[str] | None = None, *, surplus: bool = True) -> np.ndarray:
        """Return N examples `[N, *input_shape]` as `predict` takes them.

        Args:
            rows: for a table, a pandas DataFrame, a list of mappings from column names to values, or an array of
                numbers with a column for each of the table's; else an array `[N, ...]` as the training data had it,
                or of sequences a list of arrays, which may differ in length where those of training did.
            notes: where is said what was guessed, such as categories that training never saw.
            surplus: whether columns that training did not have are let be.

        Raises:
            UserError: not what the model takes.
        """
        import numpy as np

        from crossreg.inputs import Array, Sequence

        if isinstance(self.inputs, Sequence):
            return self.inputs.encode(rows, self.input_shape)
        if isinstance(self.inputs, Array):
            x = np.asarray(rows)
            if self.integers and x.dtype.kind == "f":
                # before float32, which tells large whole numbers from each other no more
                wrong = ~((x == np.rint(x)) & (np.abs(x) <= 2.0**53))
                if wrong.any():
                    raise UserError(f"inputs hold {x[wrong][0]:g}; this model takes whole numbers")
                x = x.astype(np.int64)
            elif self.integers and x.dtype.kind in "bu":
                x = x.astype(np.int64)
            return self.inputs.encode(x, self.input_shape)
        if isinstance(rows, np.ndarray):
            rows = self.inputs.from_array(rows)
        return self.inputs.encode(rows, notes, surplus=surplus)

    def predict(
        self, x: np.ndarray, samples: int = 16, seed: int = 0, *, batch: int = _BATCH
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what `__call__` does and its standard deviation over the draws, each row as if it came alone.

        Args:
            x: `[N, *input_shape]`, from `encode`.
            samples: noise draws.
            seed: makes them repeatable.
            batch: rows in a forward pass. All share the draws, so it makes no difference beyond rounding.

        Raises:
            UserError: inputs of another shape; of sequences, of other channels.
        """
        from crossreg.inputs import Sequence

        shape, expected = x.shape[1:], self.input_shape
        if not (self.inputs.takes(shape, expected) if isinstance(self.inputs, Sequence) else shape == expected):
            raise UserError(
                f"inputs have shape {x.shape}; this model takes (N, {', '.join(map(str, self.input_shape))})"
            )
        parts = torch.from_numpy(x).split(batch)
        return self._joined([self._predict(part, samples, seed, common=True) for part in parts])

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one example as it is stored; of sequences that differ in length the longest in training."""
        from crossreg.inputs import Sequence

        return self.inputs.stored_shape(self.input_shape) if isinstance(self.inputs, Sequence) else self.input_shape

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, their numbers where they have none; none for a regression."""
        if self.task != "classification":
            return ()
        return self.classes or tuple(str(index) for index in range(self.num_outputs))

    def observed_std(self, spread: np.ndarray) -> np.ndarray | None:
        """Return the standard deviation of an observation `[N, outputs]`: the draws' and the learned noise together.

        Of an ensemble it is the noise alone, since that was fitted to the errors of its average.

        Args:
            spread: `[N, outputs]`, of the mean over draws.

        Returns:
            None for a model without a learned temperature, and for a classifier.
        """
        import numpy as np

        if self.observation_std is None:
            return None
        if isinstance(self._model, Ensemble):  # whose temperature was fitted to errors of the average, doubt and all
            return np.broadcast_to(self.observation_std, spread.shape)
        return np.sqrt(spread**2 + self.observation_std**2)

    def answers(self, mean: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
        """Return predictions as columns of N values: `label` and `probability_<class>`, or `mean` and `std`.

        Several outputs of a regression are numbered, `mean_0`. Without a learned noise of the target, `std` is the
        deviation over noise draws alone.

        Args:
            mean: `[N, outputs]`, from `predict`.
            spread: likewise.
        """
        if self.task == "classification":
            labels = self.labels
            probabilities = {f"probability_{label}": mean[:, index] for index, label in enumerate(labels)}
            return {"label": [labels[best] for best in mean.argmax(1)]} | probabilities
        std = self.observed_std(spread)
        std = spread if std is None else std
        ends = [""] if self.num_outputs == 1 else [f"_{index}" for index in range(self.num_outputs)]
        return {
            f"{name}{end}": values[:, index]
            for index, end in enumerate(ends)
            for name, values in (("mean", mean), ("std", std))
        }

    def _predict(self, x: Tensor, samples: int, seed: int, common: bool = False) -> Prediction:
        x = x if self._preprocess is None else self._preprocess(x)
        return predict(self._model, x, samples, loss=self.task, seed=seed, common=common)

    def _joined(self, parts: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        if not parts or not len(parts[0].mean):
            nothing = np.zeros((0, self.num_outputs), np.float32 if self.task == "classification" else np.float64)
            return nothing, nothing
        mean, spread = (torch.cat([part[place] for part in parts]).numpy() for place in (0, 1))
        if self.task == "classification":
            return mean, spread
        return mean * self._scale + self._centre, spread * self._scale


def load_exported(directory: str | os.PathLike[str]) -> Exported:
    """Return an exported model, ready to predict.

    Args:
        directory: holds the two files of `export_model`.

    Raises:
        UserError: files missing or damaged, or a description that does not fit the weights.
    """
    directory = local_path(directory, "exported model")
    if not (directory / WEIGHTS_FILE).is_file() or not (directory / DESCRIPTION_FILE).is_file():
        raise UserError(f"{directory} holds no exported model; it needs {WEIGHTS_FILE} and {DESCRIPTION_FILE}")
    try:
        return _load(directory)
    # the files may come from anywhere, and torch, safetensors and the model each raise their own
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"{reason} is missing"
        raise UserError(f"{directory} holds no exported model that can be used: {reason}") from error


def _load(directory: Path) -> Exported:
    from safetensors.torch import load_file

    description = json.loads((directory / DESCRIPTION_FILE).read_text("utf-8"))
    _check_description(description)
    tensors = load_file(directory / WEIGHTS_FILE)
    weights = _under(tensors, "model.")
    arguments = {
        "input_shape": tuple(description["input_shape"]),
        "num_outputs": description["num_outputs"],
        "options": description["options"],
    }
    members = description["members"]
    if members > len(weights):
        raise UserError(f"members is {members}, and there are {len(weights)} weights")
    arguments |= {"count": members, "task": description["task"], "style": description["style"]}
    _check_sizes(description["model"], arguments, weights)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} holds NaN or infinity")
        if name.startswith("preprocess.") and not tensor.is_floating_point():
            raise UserError(f"{name} has dtype {tensor.dtype}; a mean or a deviation is a floating-point number")
    with torch.random.fork_rng(devices=[]):
        model = build_ensemble(description["model"], **arguments)
    attach(model, dict.fromkeys(description["regularizers"]), description["regularizers"])
    model.load_state_dict(weights)
    model.eval()
    preprocess = None
    if any(name.startswith("preprocess.") for name in tensors):
        preprocess = Preprocess(tensors["preprocess.mean"], tensors["preprocess.std"])
    exported = Exported(model, preprocess, description)
    dtype = torch.int64 if exported.integers else torch.float32
    output, _ = exported.predict(torch.zeros(2, *exported.input_shape, dtype=dtype).numpy(), samples=1)
    if output.shape != (2, exported.num_outputs):
        raise UserError(f"the model returns {output.shape} for 2 inputs, not (2, {exported.num_outputs})")
    return exported


def _check_description(description: Any) -> None:
    """Refuse a description whose values are not of their kinds; what they mean shows when the model is built.

    Raises:
        UserError: names the value.
    """
    if not isinstance(description, dict):
        raise UserError(f"{DESCRIPTION_FILE} holds no object")
    version = description["format"]
    if version != _FORMAT:
        raise UserError(f"it has format {version!r}; this version of crossreg reads format {_FORMAT}")
    kinds = {"model": str, "options": dict, "input_shape": list, "num_outputs": int, "members": int, "task": str,
             "style": str, "classes": list, "regularizers": dict}  # fmt: skip
    for key, kind in kinds.items():
        if not isinstance(description[key], kind):
            raise UserError(f"{key} is of type {type(description[key]).__name__}, not {kind.__name__}")
    if description["style"] not in ("independent", "shared"):
        raise UserError(f"style is {description['style']!r}; allowed are independent and shared")
    if description["members"] < 1:
        raise UserError(f"members is {description['members']}; a model has at least one")
    if description["classes"] and len(description["classes"]) != description["num_outputs"]:
        raise UserError(f"{len(description['classes'])} classes are named for {description['num_outputs']} outputs")
    if not all(isinstance(name, str) for name in description["classes"]):
        raise UserError("a class has a name that is no text")
    if len(set(description["classes"])) < len(description["classes"]):
        raise UserError("a class is named twice")
    if description["target"] is not None:
        centre, scale = description["target"]
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in (*centre, *scale)) or min(scale) <= 0:
            raise UserError("target holds a mean that is not finite, or a deviation that is not positive")
        if len(centre) != description["num_outputs"] or len(scale) != description["num_outputs"]:
            raise UserError(f"target has other lengths than the {description['num_outputs']} outputs")
    if description.get("span") is not None:
        low, high = description["span"]
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in (*low, *high)):
            raise UserError("span holds a value that is no finite number")
        if not len(low) == len(high) == description["input_shape"][0]:
            raise UserError(f"span has other lengths than the {description['input_shape'][0]} channels of an input")


def _check_sizes(names: str, arguments: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Compare the model with the weights before it takes memory: what is in the file bounds what it may ask for.

    Raises:
        UserError: names the first difference.
    """
    elements = sum(tensor.numel() for tensor in weights.values())
    for key, value in {**arguments, **arguments["options"]}.items():
        for size in value if isinstance(value, list | tuple) else (value,):
            if isinstance(size, int) and size > elements:
                raise UserError(f"{key} is {value}, and all weights together have {elements} elements")
    # a function of the user's own may not run without memory
    if any(is_custom(name) for name in networks(names, arguments["count"])):
        return
    with torch.device("meta"):
        expected = build_ensemble(names, **arguments).state_dict()
    for key, tensor in expected.items():
        found = weights.get(key)
        if found is None or found.shape != tensor.shape or found.dtype != tensor.dtype:
            given = "missing" if found is None else f"{found.dtype} {tuple(found.shape)}"
            raise UserError(f"weight {key} is {given}; {names} needs {tensor.dtype} {tuple(tensor.shape)}")


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
