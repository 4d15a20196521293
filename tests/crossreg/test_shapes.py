"""Every public tensor function keeps to the shapes and dtypes that its docstring states.

The shapes stand in the table as they stand in the docstrings, where each is looked up, and they are compared with what
comes back. So the library needs nothing at run time for it: checks at every call would come before its own messages
about wrong shapes, and stop `torch.compile` in the layers that draw noise.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import crossreg
from crossreg import (
    L1,
    L2,
    T1T2,
    Augmentation,
    Batches,
    Classification,
    Direct,
    Estimator,
    GaussianRegression,
    Implicit,
    LabelSmoothing,
    Loss,
    LossTemperature,
    MultiLabel,
    Noise,
    Preprocess,
    Unrolled,
    calibration,
    evaluate,
    inject_noise,
    learn_augmentation,
    penalize,
    predict,
    training_loss,
)
from crossreg.core.distributed import gather_rows
from crossreg.core.errors import UserError
from crossreg.inputs import Array, Category, Number, Sequence, Table
from crossreg.inputs.columns import is_missing, offset_of
from crossreg.inputs.sequence import lengths_of, padded
from crossreg.meta import META_LOSSES, MetaTask, build_small, meta_loss
from crossreg.meta.losses import hessian_vector_product, worst_gradient_norm
from crossreg.models import Ensemble, SharedMLP, build
from crossreg.models.ensemble import apart, of_members
from crossreg.models.mlp import Skipping
from crossreg.optimizers import RULES, Layout, update_rule
from crossreg.optimizers.lstm import cell, log_and_sign
from crossreg.prediction.diversity import diversity
from crossreg.prediction.export import export_model, load_exported
from crossreg.prediction.predict import predict_apart
from crossreg.regularizers.augmentation import warp
from crossreg.regularizers.base import rho_parameters, sigma_from_rho
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.registry import attach
from tests.crossreg.regularizers.network import CLASSES, INPUT_SHAPE, images, network

Sizes = dict[str, Any]
FULL = (torch.float32, torch.float64)
FLOATS = (*FULL, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Given:
    """A tensor argument: a shape as documented, and what it holds."""

    shape: str
    holds: str = "numbers"  # or "classes", "probabilities", "bytes", "positive"


@dataclass(frozen=True)
class Case:
    """A call, the shapes that it is given and those that it returns.

    Attributes:
        name: of the function, below `crossreg`.
        call: takes the tensors.
        given: the tensors; the first one's dtype is the one that varies.
        returns: shapes as documented; "" is a scalar, None no tensor.
        dtype: of what is returned: "same" as the first, "wide" (half precision becomes float32), or this one.
        dtypes: that the first may have.
        meta: works without data too.
    """

    name: str
    call: Callable[..., Any]
    given: tuple[Given, ...]
    returns: tuple[str | None, ...]
    dtype: str | torch.dtype = "same"
    dtypes: tuple[torch.dtype, ...] = FLOATS
    meta: bool = True


OUTPUT, CLASS = Given("[B, C, ...]"), Given("[B, ...]", "classes")
NUMBERS = Given("[B, ...]")
TABLE = (Given("[N, C]", "probabilities"), Given("[N]", "classes"))
ONE = Given("", "positive")


def noisy(x: Tensor, shape: tuple[int, ...] = (), channel_dim: int | None = None) -> Tensor:
    layer = Noise(shape, channel_dim, "additive", 0.5).to(x.device)
    return cast(Tensor, layer.train()(x))


def scaled(probabilities: Tensor, targets: Tensor, held_out: Tensor, held_out_targets: Tensor) -> None:
    scores, temperature = calibration.temperature_scaled(probabilities, targets, held_out, held_out_targets)
    assert all(isinstance(value, float) for value in (temperature, *scores.as_dict().values()))


def diagram(p: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    found = calibration.reliability(p, t, bins=7)
    assert found.count.dtype == torch.int64
    return found.confidence, found.accuracy, found.count.double(), found.edges


def numbers_only(function: Callable[..., Any]) -> Callable[..., None]:
    """Return a call that gives no tensor, but a number, or several by name."""

    def call(*tensors: Tensor) -> None:
        found = function(*tensors)
        values = [found] if isinstance(found, float) else list(found.as_dict().values())
        assert all(isinstance(value, float) for value in values)

    return call


def added(term: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def call(output: Tensor, target: Tensor) -> Tensor:
        model = penalize(nn.Linear(2, 2, dtype=output.dtype, device=output.device), term())
        return cast(Tensor, model.rho_terms[0].added(model, output, target))

    return call


def objective(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    def call(output: Tensor, target: Tensor) -> Tensor:
        model = penalize(nn.Linear(2, 2, dtype=output.dtype, device=output.device), L2(0.1))
        return training_loss(model, loss, output, target)

    return call


def preprocess(x: Tensor) -> Tensor:
    shape = (x.shape[1],) if x.ndim == 4 else x.shape[1:]
    return cast(Tensor, Preprocess(torch.zeros(shape), torch.ones(shape)).to(x.device)(x))


def predicted(loss: Loss) -> Callable[..., tuple[Tensor, ...]]:
    class Same(nn.Module):
        def __init__(self, device: torch.device) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), device=device))

        def forward(self, x: Tensor) -> Tensor:
            return x

    return lambda output: tuple(predict(Same(output.device), output, 2, loss=loss))


FIRST, OUTPUTS = Classification(class_dim=1), ("[B, C, ...]",)
DRAWS, WEIGHTS = Given("[K, B, ...]"), Given("[C]", "positive")

CASES = [
    Case("losses.Classification.__call__", Classification(), (OUTPUT, CLASS), ("",), "wide"),
    Case("losses.Classification.per_draw", Classification().per_draw, (OUTPUT, CLASS, ONE), ("[B, ...]",), "wide"),
    Case("losses.Classification.of_draws", Classification().of_draws, (DRAWS, CLASS), ("",), dtypes=FULL),
    Case("losses.Classification.predict", FIRST.predict, (OUTPUT, ONE), ("[B, C, ...]",), "wide"),
    Case("losses.Classification.classes_first", lambda x: FIRST.classes_first(x, None), (OUTPUT,), OUTPUTS, "wide"),
    Case("losses.Classification", Classification(), (OUTPUT, CLASS), ("",), "wide"),
    Case("losses.Classification", Classification(), (Given("[B, ..., C]"), CLASS), ("",), "wide"),
    Case("losses.Classification", lambda x, y, w: Classification(w)(x, y), (OUTPUT, CLASS, WEIGHTS), ("",), "wide"),
    Case("losses.MultiLabel.__call__", MultiLabel(), (NUMBERS, NUMBERS), ("",), "wide"),
    Case("losses.MultiLabel.per_draw", MultiLabel().per_draw, (NUMBERS, NUMBERS, ONE), ("[B, ...]",), "wide"),
    Case("losses.MultiLabel.predict", MultiLabel().predict, (NUMBERS, ONE), ("[B, ...]",), "wide"),
    Case("losses.MultiLabel", MultiLabel(), (NUMBERS, NUMBERS), ("",), "wide"),
    Case("losses.GaussianRegression.__call__", GaussianRegression(), (NUMBERS, NUMBERS), ("",), "wide"),
    Case(
        "losses.GaussianRegression.per_draw", GaussianRegression().per_draw, (NUMBERS, NUMBERS, ONE), ("[B]",), "wide"
    ),
    Case("losses.GaussianRegression.predict", GaussianRegression().predict, (NUMBERS, ONE), ("[B, ...]",), "wide"),
    Case("losses.GaussianRegression", GaussianRegression(), (NUMBERS, NUMBERS), ("",), "wide"),
    Case("losses.Likelihood.of_draws", Classification().of_draws, (Given("[K, B, ...]"), CLASS), ("",), dtypes=FULL),
    Case("losses.Loss.per_draw", Classification().per_draw, (OUTPUT, CLASS, ONE), ("[B, ...]",), "wide"),
    Case("losses.Loss.of_draws", GaussianRegression().of_draws, (Given("[K, B, ...]"), NUMBERS), ("",), dtypes=FULL),
    Case("losses.Loss.predict", GaussianRegression().predict, (NUMBERS, ONE), ("[B, ...]",), "wide"),
    Case("regularizers.penalties.training_loss", objective(GaussianRegression()), (NUMBERS, NUMBERS), ("",), "wide"),
    Case("regularizers.penalties.training_loss", objective(Classification()), (OUTPUT, CLASS), ("",), "wide"),
    Case("regularizers.penalties.Term.added", added(L1), (NUMBERS, NUMBERS), ("",), dtype="any"),
    Case("regularizers.targets.LabelSmoothing.change", added(LabelSmoothing), (OUTPUT, CLASS), ("",), "wide"),
    Case("regularizers.targets.LossTemperature.change", added(LossTemperature), (OUTPUT, CLASS), ("",), "wide"),
    Case("regularizers.noise.Noise.forward", noisy, (Given("[B, ...]"),), ("[B, ...]",)),
    Case(
        "regularizers.noise.Noise.forward",
        lambda x: noisy(x, (x.shape[1],), 1),
        (Given("[B, C, ...]"),),
        ("[B, C, ...]",),
    ),
    Case("regularizers.noise.Noise.forward", lambda x: noisy(x, x.shape[-1:]), (Given("[..., C]"),), ("[..., C]",)),
    Case(
        "regularizers.augmentation.Augmentation.forward",
        lambda x: Augmentation().to(x.device)(x),
        (Given("[B, C, H, W]"),),
        ("[B, C, H, W]",),
    ),
    Case(
        "regularizers.augmentation.learn_augmentation",
        lambda x: learn_augmentation(nn.Identity(), ["shift", "contrast"]).to(x.device)(x),
        (Given("[B, C, H, W]"),),
        ("[B, C, H, W]",),
    ),
    Case(
        "regularizers.augmentation.warp",
        lambda x, shift, turn, slant, grow: warp(x, shift=shift, rotation=turn, shear=slant, scale=grow),
        (Given("[B, C, H, W]"), Given("[B, 2]"), Given("[B]"), Given("[B]"), Given("[B]")),
        ("[B, C, H, W]",),
        dtypes=FULL,
    ),
    Case("batches.Preprocess.forward", preprocess, (Given("[N, C, H, W]"),), ("[N, C, H, W]",), torch.float32),
    Case(
        "batches.Preprocess.forward", preprocess, (Given("[N, C, H, W]", "bytes"),), ("[N, C, H, W]",), torch.float32,
        dtypes=(torch.uint8,),
    ),
    Case("batches.Preprocess.forward", preprocess, (Given("[N, ...]"),), ("[N, ...]",), torch.float32),
    Case("batches.Preprocess", preprocess, (Given("[N, C, H, W]"),), ("[N, C, H, W]",), torch.float32),
    Case(
        "batches.Batches", lambda x, y: next(iter(Batches(x, y, len(y), device=x.device))),
        (Given("[N, ...]"), Given("[N, ...]")), ("[N, ...]", "[N, ...]"),
    ),
    Case("core.distributed.gather_rows", gather_rows, (Given("[N, ...]"),), ("[N, ...]",)),
    Case(
        "prediction.predict.Prediction", predicted(FIRST), (OUTPUT,), ("[B, C, ...]", "[B, C, ...]"), "wide"
    ),
    Case(
        "prediction.predict.Prediction", predicted(GaussianRegression()), (NUMBERS,), ("[B, ...]", "[B, ...]"), "wide"
    ),
    Case("prediction.calibration.score", numbers_only(calibration.score), TABLE, (), meta=False),
    Case("prediction.calibration.fit_temperature", numbers_only(calibration.fit_temperature), TABLE, (), meta=False),
    Case("prediction.calibration.reliability", diagram, TABLE, ("[7]", "[7]", "[7]", "[8]"), torch.float64, meta=False),
    Case(
        "prediction.calibration.temperature_scaled", scaled,
        (*TABLE, Given("[M, C]", "probabilities"), Given("[M]", "classes")), (), meta=False,
    ),
    Case(
        "prediction.calibration.apply_temperature", lambda z: calibration.apply_temperature(z, 2.0),
        (Given("[..., C]"),), ("[..., C]",),
    ),
]  # fmt: skip

ELSEWHERE = {
    "models.ensemble.Ensemble": "test_an_ensemble_answers_once_a_row",
    "models.ensemble.Ensemble.average": "test_an_ensemble_answers_once_a_row",
    "models.ensemble.Ensemble.dealt": "test_an_ensemble_answers_once_a_row",
    "models.ensemble.Ensemble.each": "test_an_ensemble_answers_once_a_row",
    "models.ensemble.Ensemble.forward": "test_an_ensemble_answers_once_a_row",
    "models.ensemble.of_members": "test_an_ensemble_answers_once_a_row",
    "meta.losses.MetaLoss.__call__": "test_meta_losses_have_a_slope_a_weight",
    "meta.losses.hessian_vector_product": "test_meta_losses_have_a_slope_a_weight",
    "meta.losses.worst_gradient_norm": "test_meta_losses_have_a_slope_a_weight",
    "meta.tasks.MetaTask": "test_meta_losses_have_a_slope_a_weight",
    "meta.tasks.MetaTask.initial": "test_meta_losses_have_a_slope_a_weight",
    "meta.tasks.MetaTask.value": "test_meta_losses_have_a_slope_a_weight",
    "optimizers.lstm.cell": "test_update_rules_have_a_direction_a_coordinate",
    "optimizers.lstm.log_and_sign": "test_update_rules_have_a_direction_a_coordinate",
    "models.mlp.LinearSkip.forward": "test_a_linear_skip_flattens",
    "models.mlp.Skipping": "test_a_linear_skip_flattens",
    "models.mlp.Skipping.forward": "test_a_linear_skip_flattens",
    "models.shared.SharedMLP.dealt": "test_an_ensemble_answers_once_a_row",
    "models.shared.SharedMLP.each": "test_an_ensemble_answers_once_a_row",
    "regularizers.between.Joint.added": "test_an_ensemble_answers_once_a_row",
    "prediction.diversity.diversity": "test_an_ensemble_answers_once_a_row",
    "prediction.predict.predict_apart": "test_an_ensemble_answers_once_a_row",
    "estimators.base.Estimator.gradient": "test_gradients_are_shaped_like_rho",
    "estimators.implicit.Implicit.gradient": "test_gradients_are_shaped_like_rho",
    "estimators.t1_t2.T1T2.gradient": "test_gradients_are_shaped_like_rho",
    "estimators.unrolled.Unrolled.gradient": "test_gradients_are_shaped_like_rho",
    "prediction.calibration.Reliability": "test_a_diagram_has_a_value_a_bin",
    "prediction.calibration.example_scores": "test_a_diagram_has_a_value_a_bin",
    "prediction.evaluation.Evaluation": "test_evaluations_hold_every_row",
    "inputs.array.Array": "test_arrays_are_encoded_a_row_each",
    "inputs.array.Array.encode": "test_arrays_are_encoded_a_row_each",
    "inputs.array.Array.images": "test_arrays_are_encoded_a_row_each",
    "inputs.columns.Column.encode": "test_rows_are_encoded_a_feature_each",
    "inputs.columns.Column.refuse": "test_rows_are_encoded_a_feature_each",
    "inputs.columns.is_missing": "test_rows_are_encoded_a_feature_each",
    "inputs.columns.offset_of": "test_rows_are_encoded_a_feature_each",
    "inputs.sequence.Sequence": "test_sequences_are_encoded_a_row_each",
    "inputs.sequence.Sequence.encode": "test_sequences_are_encoded_a_row_each",
    "inputs.sequence.lengths_of": "test_sequences_are_encoded_a_row_each",
    "inputs.sequence.padded": "test_sequences_are_encoded_a_row_each",
    "inputs.table.Table.encode": "test_rows_are_encoded_a_feature_each",
    "inputs.table.Table.encode_columns": "test_rows_are_encoded_a_feature_each",
    "inputs.table.Table.from_array": "test_rows_are_encoded_a_feature_each",
    "prediction.export.Exported": "test_exported_models_return_rows",
    "prediction.export.Exported.__call__": "test_exported_models_return_rows",
    "prediction.export.Exported.answers": "test_exported_models_return_rows",
    "prediction.export.Exported.encode": "test_exported_models_return_rows",
    "prediction.export.Exported.observed_std": "test_exported_models_return_rows",
    "prediction.export.Exported.predict": "test_exported_models_return_rows",
    "models.cnn.cnn": "test_models_map_rows_to_outputs",
    "models.sequences.cnn1d": "test_sequences_map_rows_to_outputs",
    "models.sequences.gru": "test_sequences_map_rows_to_outputs",
    "models.sequences.lstm": "test_sequences_map_rows_to_outputs",
    "models.sequences.transformer": "test_sequences_map_rows_to_outputs",
    "models.mlp.mlp": "test_models_map_rows_to_outputs",
    "models.vgg.vgg16": "test_models_map_rows_to_outputs",
    "models.vgg.VGG.forward": "test_models_map_rows_to_outputs",
    "models.wide_resnet.wide_resnet": "test_models_map_rows_to_outputs",
    "models.wide_resnet.WideResNet.forward": "test_models_map_rows_to_outputs",
    "models.wide_resnet.Block.forward": "test_models_map_rows_to_outputs",
}
"""What documents shapes and is no call of tensors alone: the test below that looks at it."""

SIZES: list[Sizes] = [
    {"B": 1, "C": 2, "N": 1, "M": 3, "K": 1, "H": 1, "W": 1, "...": ()},
    {"B": 4, "C": 3, "N": 5, "M": 2, "K": 3, "H": 6, "W": 9, "...": ()},
    {"B": 3, "C": 5, "N": 7, "M": 7, "K": 2, "H": 8, "W": 4, "...": (6,)},
    {"B": 2, "C": 4, "N": 2, "M": 4, "K": 4, "H": 5, "W": 5, "...": (3, 7)},
]


def shaped(shape: str, sizes: Sizes) -> tuple[int, ...]:
    """Return the sizes that a documented shape stands for."""
    found: list[int] = []
    for part in filter(None, shape.strip("[]").split(", ")):
        size = int(part) if part.isdigit() else sizes[part]
        found.extend(size if isinstance(size, tuple) else (size,))
    return tuple(found)


def tensor(given: Given, sizes: Sizes, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = shaped(given.shape, sizes)
    if given.holds == "classes":
        return torch.randint(0, sizes["C"], shape, generator=generator)
    if given.holds == "bytes":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    numbers = torch.randn(shape, generator=generator)
    if given.holds == "probabilities":
        numbers = numbers.softmax(1)
    return (numbers.exp() if given.holds == "positive" else numbers).to(dtype)


def expected_dtype(case: Case, dtype: torch.dtype) -> torch.dtype:
    if isinstance(case.dtype, torch.dtype):
        return case.dtype
    return torch.float32 if case.dtype == "wide" and dtype not in FULL else dtype


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shapes_and_dtypes_are_as_documented(case: Case, device: str) -> None:
    if device == "meta" and not case.meta:
        pytest.skip("looks at values")
    for sizes in SIZES:
        for dtype in case.dtypes:
            # a temperature is kept in float32 beside half precision
            kept = dtype if dtype in FULL else torch.float32
            given = [
                tensor(one, sizes, kept if one.holds == "positive" else dtype, seed).to(device)
                for seed, one in enumerate(case.given)
            ]
            found = case.call(*given)
            returned = () if found is None else (found,) if isinstance(found, Tensor) else tuple(found)
            said = f"{[tuple(t.shape) for t in given]} {dtype}"
            assert len(returned) == len(case.returns), said
            for one, shape in zip(returned, case.returns, strict=True):
                assert shape is not None
                assert tuple(one.shape) == shaped(shape, sizes), said
                assert one.device.type == device, said
                assert case.dtype == "any" or one.dtype == expected_dtype(case, dtype), said


SHAPE = re.compile(r"`(\[(?:[A-Z0-9][^`]*|\.\.\.[^`]*|outputs)\])`")


def modules() -> Iterator[pkgutil.ModuleInfo]:
    """Yield the modules of the library, without the floors above it, which are links."""
    for part in pkgutil.iter_modules(crossreg.__path__, "crossreg."):
        folder = Path(crossreg.__path__[0]) / part.name.partition(".")[2]
        if not folder.is_symlink():
            yield part
            yield from pkgutil.walk_packages([str(folder)], f"{part.name}.")


@functools.cache
def documented() -> dict[str, set[str]]:
    """Return every public function, class and method whose docstring states shapes, and these."""
    all_of_them: dict[str, set[str]] = {}
    for module in modules():
        names = vars(importlib.import_module(module.name))
        for name in names.get("__all__", ()):
            thing = names[name]
            if getattr(thing, "__module__", None) != module.name:
                continue
            found = {name: thing}
            if inspect.isclass(thing):
                found |= {f"{name}.{key}": value for key, value in vars(thing).items() if own(key, value)}
            for path, one in found.items():
                if shapes := set(SHAPE.findall(getattr(one, "__doc__", None) or "")):
                    all_of_them[f"{module.name}.{path}".removeprefix("crossreg.")] = shapes
    return all_of_them


def own(key: str, value: Any) -> bool:
    return key == "__call__" or (callable(value) and not key.startswith("_"))


def test_whatever_documents_a_shape_is_looked_at() -> None:
    names = set(documented())
    assert len(names) > 30
    assert names <= {case.name for case in CASES} | set(ELSEWHERE)
    assert set(ELSEWHERE) <= names
    assert all(test in globals() for test in ELSEWHERE.values())


def test_an_ensemble_answers_once_a_row() -> None:
    ensemble = Ensemble([nn.Linear(4, 3) for _ in range(5)], "classification")
    x = torch.randn(7, 4)
    assert ensemble.train()(x).shape == (7, 3)
    assert ensemble.eval()(x).shape == (7, 3)
    with apart(ensemble):
        assert ensemble(x).shape == (5, 7, 3)
        assert ensemble.average(ensemble(x)).shape == (7, 3)
    members = predict_apart(ensemble, x)[1]
    assert members.shape == (5, 7, 3)
    assert len(diversity(members, torch.arange(7) % 3).scores) == 5
    assert len(diversity(members, torch.randn(7, 3)).scores) == 5
    assert (ensemble.dealt(x).shape, ensemble.each(x).shape) == ((7, 3), (5, 7, 3))
    shared = SharedMLP(5, "classification", input_shape=(4,), num_outputs=3, hidden=8)
    assert (shared.dealt(x).shape, shared.each(x).shape) == ((7, 3), (5, 7, 3))
    compared = attach(ensemble, {"joint": 0.5}).train()
    output = compared(x)
    assert of_members(compared, output) is output
    assert output.shape == (5, 7, 3)
    assert training_loss(compared, Classification(), output, torch.arange(7) % 3).shape == ()


@pytest.mark.parametrize("name", META_LOSSES)
def test_meta_losses_have_a_slope_a_weight(name: str) -> None:
    x, y = torch.randn(40, 2, 3), torch.randint(0, 4, (40,))
    task = MetaTask.of("made up", lambda: build_small("mlp-relu", (2, 3), 4), x, y, batch_size=8)
    theta = task.initial(0)
    assert (theta.shape, theta.dtype) == ((task.layout.num_coordinates,), torch.float32)
    value, slope = meta_loss(name)(lambda at: task.value(at, x, y), theta)
    assert (value.shape, slope.shape, slope.dtype) == ((), theta.shape, theta.dtype)
    product = hessian_vector_product(lambda at: task.value(at, x, y), theta, slope)
    assert (product.shape, product.dtype) == (theta.shape, theta.dtype)
    worst, upward = worst_gradient_norm(lambda at: task.value(at, x, y), theta, 0.05)
    assert (worst.shape, upward.shape) == ((), theta.shape)


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("dtype", FULL)
def test_update_rules_have_a_direction_a_coordinate(name: str, dtype: torch.dtype) -> None:
    rule, layout = update_rule(name), Layout(((3, 2), (), (4, 1, 2)))
    weights = {key: one.to(dtype) for key, one in rule.initial(torch.Generator()).items()}
    for leading in ((), (5,), (2, 3)):
        theta = torch.randn(*leading, layout.num_coordinates, dtype=dtype)
        memory, step = rule.zeros(theta), torch.ones(*leading, 1) if leading else torch.tensor(1.0)
        direction, kept = rule.update(weights, memory, theta, theta, step, layout)
        assert (direction.shape, direction.dtype) == (theta.shape, dtype)
        assert kept.shape == memory.shape == (rule.memory, *theta.shape)
        assert log_and_sign(theta).shape == (2, *theta.shape)
        assert [one.shape for one in layout.apart(theta)] == [(*leading, *shape) for shape in layout.shapes]
        hidden = torch.zeros(4, *leading, dtype=dtype)
        inward, across, bias = (
            torch.ones(16, 3, dtype=dtype),
            torch.ones(16, 4, dtype=dtype),
            torch.ones(16, dtype=dtype),
        )
        found = cell(torch.ones(3, *leading, dtype=dtype), hidden, hidden, inward, across, bias) if leading else ()
        assert all(one.shape == hidden.shape for one in found)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_linear_skip_flattens(dtype: torch.dtype) -> None:
    x = torch.randn(5, 2, 3, dtype=dtype)
    model = build("mlp", input_shape=(2, 3), num_outputs=4, hidden=8, linear_skip=True).to(dtype)
    assert isinstance(model, Skipping)
    for one in (model, model.skip):
        assert (one(x).shape, one(x).dtype) == ((5, 4), dtype)


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_the_table_holds_the_shapes_of_the_docstring(name: str) -> None:
    *modules, function = name.split(".")
    owner = functools.reduce(getattr, modules[1:], importlib.import_module(f"crossreg.{modules[0]}"))
    assert callable(getattr(owner, function))
    cases = [case for case in CASES if case.name == name]
    written = {shape for case in cases for shape in (*(one.shape for one in case.given), *case.returns)}
    per_channel = {"[C]"}  # of the mean and deviation of `Preprocess`, which are no arguments of the call
    assert documented().get(name, set()) <= written | per_channel


@pytest.fixture
def estimators() -> list[Estimator]:
    x, y = images(12, 1)
    train = Batches(x, y, 6)
    return [Direct(), T1T2(train), Unrolled(train), Implicit(train, solver="cg", terms=2)]


@pytest.mark.parametrize("rows", [1, 6])
def test_gradients_are_shaped_like_rho(estimators: list[Estimator], rows: int) -> None:
    x, y = images(rows, 2)
    for estimator in estimators:
        model = penalize(inject_noise(network(), "unit"), L2(0.1, each=True))
        rho = rho_parameters(model)
        assert {tuple(one.shape) for one in rho.values()} == {(4,), (8,), (), (3,)}
        theta = [p for name, p in model.named_parameters() if name not in rho]
        estimator.optimizer = torch.optim.SGD(theta, lr=0.1)
        found = estimator.gradient(model, Classification(), x, y, list(rho.values()), [Draw(0), Draw(1)], 2.0)
        value, gradients = found
        assert value.shape == ()
        assert not value.requires_grad
        assert [(g.shape, g.dtype) for g in gradients] == [(p.shape, p.dtype) for p in rho.values()]


@pytest.mark.parametrize("bins", [1, 15])
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_diagram_has_a_value_a_bin(bins: int, adaptive: bool) -> None:
    p, t = (tensor(one, SIZES[2], torch.float32, 0) for one in TABLE)
    found = calibration.reliability(p, t, bins, adaptive)
    for column, size, dtype in (
        (found.confidence, bins, torch.float64),
        (found.accuracy, bins, torch.float64),
        (found.count, bins, torch.int64),
        (found.edges, bins + 1, torch.float64),
    ):
        assert (tuple(column.shape), column.dtype) == ((size,), dtype)
    for column in calibration.example_scores(p, t).values():
        assert (tuple(column.shape), column.dtype) == ((len(p),), torch.float64)


def test_evaluations_hold_every_row() -> None:
    x, y = images(11, 1)
    found = evaluate(inject_noise(network()), Classification(), Batches(x, y, 4), 2)
    assert tuple(found.mean.shape) == (11, CLASSES)
    assert torch.equal(found.targets.sort().values, y.sort().values)
    target = torch.randn(11, 3)
    found = evaluate(network(), GaussianRegression(), Batches(x, target, 4), 2)
    assert found.mean.shape == found.targets.shape == target.shape


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_exported_models_return_rows(task: str, tmp_path: Path) -> None:
    x, _ = images(5, 1)
    model = inject_noise(network())
    standard = Preprocess(torch.zeros(INPUT_SHAPE), torch.ones(INPUT_SHAPE))
    export_model(
        model,
        standard,
        tmp_path,
        name="tests.crossreg.regularizers.network:network",
        input_shape=INPUT_SHAPE,
        num_outputs=CLASSES,
        regularizers={"noise": {}, "temperature": {}},
        task=task,
    )
    exported = load_exported(tmp_path)
    assert exported.input_shape == INPUT_SHAPE
    dtype = "float32" if task == "classification" else "float64"
    for rows in (0, 1, 5):
        encoded = exported.encode(x[:rows].double().numpy())
        assert (encoded.shape, encoded.dtype) == ((rows, *INPUT_SHAPE), "float32")
        mean, spread = exported.predict(encoded, samples=2)
        for found in (mean, spread, exported(x[:rows].numpy(), samples=2)):
            assert (found.shape, found.dtype) == ((rows, CLASSES), dtype)
        answers = exported.answers(mean, spread)
        assert {len(column) for column in answers.values()} == {rows}
        assert len(answers) == (CLASSES + 1 if task == "classification" else 2 * CLASSES)
        std = exported.observed_std(spread)
        assert std is None if task == "classification" else std is not None and std.shape == (rows, CLASSES)
    if task == "regression":
        assert exported.observation_std is not None
        assert (exported.observation_std.shape, exported.observation_std.dtype) == ((CLASSES,), "float64")
    else:
        assert exported.observation_std is None


@pytest.mark.parametrize("rows", [1, 5])
def test_arrays_are_encoded_a_row_each(rows: int) -> None:
    array = Array("uint8", "channels last")
    assert array.images((3, 8, 6))
    assert not array.images((3,))
    for given, dtype in (("uint8", "uint8"), ("int16", "float32"), ("float64", "float32")):
        x = np.ones((rows, 8, 6, 3), given)
        found = array.encode(x, (3, 8, 6))
        assert (found.shape, found.dtype) == ((rows, 3, 8, 6), dtype)
    whole = Array("int32").encode(np.ones((rows, 4), np.int32), (4,))
    assert (whole.shape, whole.dtype) == ((rows, 4), "int64")


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_are_encoded_a_feature_each(rows: int) -> None:
    pandas = pytest.importorskip("pandas")
    columns = (Number("a", True, 0.0), Category("b", False, ("x", "y")))
    frame = pandas.DataFrame({"a": [None] * rows, "b": ["x"] * rows})
    for column in columns:
        found = column.encode(frame[column.name], [])
        assert (found.shape, found.dtype) == ((rows, len(column.features)), "float64")
        assert is_missing(frame[column.name]).shape == (rows,)
    encoded = Table(columns).encode(frame)
    assert (encoded.shape, encoded.dtype) == ((rows, 4), "float32")
    assert len(Table(columns[:1]).from_array(np.ones((rows, 1)))) == rows
    assert isinstance(columns[0].refuse(frame["b"], np.ones(rows, bool)), UserError)
    assert isinstance(offset_of(np.ones(rows)), float)


@pytest.mark.parametrize("name", ["mlp", "cnn", "vgg16", "wide_resnet"])
@pytest.mark.parametrize("input_shape", [(1, 16, 16), (3, 20, 17)])
def test_models_map_rows_to_outputs(name: str, input_shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = build(name, input_shape=input_shape, num_outputs=7)
    for dtype in FULL:
        output = model.to(dtype)(torch.empty(3, *input_shape, device="meta", dtype=dtype))
        assert (tuple(output.shape), output.dtype) == ((3, 7), dtype)


def test_sequences_are_encoded_a_row_each() -> None:
    rows = [np.ones((steps, 2)) for steps in (4, 7, 1)]
    found = Sequence("first", True).encode(rows, (2, 5))
    assert (found.shape, found.dtype) == ((3, 2, 7), np.float32)
    assert padded([row.T for row in rows]).shape == (3, 2, 7)
    lengths = lengths_of("x", found)
    assert (lengths.tolist(), lengths.dtype) == ([4, 7, 1], np.int64)


@pytest.mark.parametrize("name", ["cnn1d", "lstm", "gru", "transformer"])
def test_sequences_map_rows_to_outputs(name: str) -> None:
    for input_shape in ((6, 50), (1, 3), (12, 29)):
        with torch.device("meta"):
            model = build(name, input_shape=input_shape, num_outputs=7)
        for dtype in FULL:
            output = model.to(dtype)(torch.empty(3, *input_shape, device="meta", dtype=dtype))
            assert (tuple(output.shape), output.dtype) == ((3, 7), dtype)


def test_sigma_has_the_shape_of_rho() -> None:
    for dtype in FLOATS:
        for shape in ((), (3,), (2, 5)):
            rho = torch.zeros(shape, dtype=dtype)
            assert (sigma_from_rho(rho).shape, sigma_from_rho(rho).dtype) == (rho.shape, dtype)
