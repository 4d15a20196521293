"""What a live training can be asked and told: hyperparameters by name, in natural units."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from crossreg import (
    UserError,
    get_hyperparameters,
    hyperparameters,
    inject_noise,
    metrics,
    penalize,
    set_hyperparameters,
    sigmas,
)
from crossreg.regularizers.base import Hyperparameter, RhoModule, rho_hyperparameters
from crossreg.regularizers.noise import noise_layers
from crossreg.regularizers.penalties import L2
from crossreg.regularizers.registry import REGISTRY, description
from tests.crossreg.conftest import small_model

NAMES = ["noise/00_0.1", "noise/01_0.4"]


def noisy(granularity: str = "layer") -> nn.Module:
    return inject_noise(nn.Sequential(small_model(), nn.Dropout(0.1), nn.Dropout(0.3)), granularity)  # type: ignore[arg-type]


def adamw(model: nn.Module, groups: int = 1) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    return torch.optim.AdamW([{"params": parameters[index::groups]} for index in range(groups)], weight_decay=0.02)


@pytest.mark.parametrize("granularity", ["layer", "unit"])
def test_what_is_set_is_in_force_and_read_back(granularity: str) -> None:
    model = noisy(granularity)
    optimizer = adamw(model, groups=2)
    values = {NAMES[0]: 0.25, NAMES[1]: 4.0, "temperature": 1.5, "weight_decay": 0.3, "dropout": 0.6}
    set_hyperparameters(model, optimizer, values)
    assert get_hyperparameters(model, optimizer) == pytest.approx(values)
    first, second = noise_layers(model).values()
    assert torch.allclose(first.sigma, torch.tensor(0.25))  # every unit of a layer
    assert torch.allclose(second.sigma, torch.tensor(4.0))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.6, 0.6]
    assert {name: float(sigma.mean()) for name, sigma in sigmas(model).items()} == pytest.approx(
        {name: values[name] for name in NAMES}
    )


def test_a_hyperparameter_has_the_name_of_the_metric_that_records_it() -> None:
    values = get_hyperparameters(noisy())
    assert metrics.hyperparameter(NAMES[0]) == f"regularizers/{NAMES[0]}"
    told = {metrics.hyperparameter(name): value for name, value in values.items()}
    assert metrics.hyperparameters_in({**told, "epoch": 1.0, "test/nll": 0.5}) == values


def test_only_what_is_named_changes() -> None:
    model = noisy()
    optimizer = adamw(model)
    before = get_hyperparameters(model, optimizer)
    assert list(before) == [*NAMES, "temperature", "weight_decay", "dropout"]
    assert before["weight_decay"] == 0.02
    assert before["dropout"] == 0.1
    set_hyperparameters(model, optimizer, {NAMES[1]: 3.0})
    assert get_hyperparameters(model, optimizer) == pytest.approx({**before, NAMES[1]: 3.0})
    set_hyperparameters(model, optimizer, {})
    assert get_hyperparameters(model, optimizer)[NAMES[1]] == pytest.approx(3.0)
    assert get_hyperparameters(model, names=[NAMES[1], "temperature"]) == pytest.approx(
        {NAMES[1]: 3.0, "temperature": before["temperature"]}
    )
    assert list(get_hyperparameters(model)) == [*NAMES, "temperature", "dropout"]


def test_rho_stays_the_parameter_that_is_learned() -> None:
    """A value is set in place, so an optimizer that holds rho goes on with it from there."""
    model = noisy()
    layer = next(iter(noise_layers(model).values()))
    rho = layer.rho
    optimizer = torch.optim.SGD([rho], lr=1.0)
    set_hyperparameters(model, optimizer, {NAMES[0]: 2.0})
    rho.grad = torch.full_like(rho, 0.5)
    optimizer.step()
    assert layer.rho is rho
    assert hyperparameters(model)[NAMES[0]].rho is rho
    assert get_hyperparameters(model, optimizer)[NAMES[0]] == pytest.approx(2.0 * math.exp(-0.5))


def test_wrapped_models_have_the_same_hyperparameters() -> None:
    model = noisy()
    optimizer = adamw(model)
    wrapped = nn.DataParallel(model)
    set_hyperparameters(wrapped, optimizer, {NAMES[0]: 0.7, "temperature": 2.0, "dropout": 0.4})
    assert get_hyperparameters(wrapped, optimizer) == get_hyperparameters(model, optimizer)
    assert get_hyperparameters(model, optimizer)[NAMES[0]] == pytest.approx(0.7)
    assert get_hyperparameters(model, optimizer)["temperature"] == pytest.approx(2.0)
    assert list(sigmas(wrapped)) == NAMES
    compiled = torch.compile(model, backend="eager")
    set_hyperparameters(compiled, optimizer, {"temperature": 0.5})  # type: ignore[arg-type]
    assert get_hyperparameters(compiled, optimizer) == get_hyperparameters(model, optimizer)  # type: ignore[arg-type]
    assert get_hyperparameters(model, optimizer)["temperature"] == pytest.approx(0.5)
    assert list(sigmas(model)) == NAMES


def test_a_training_has_the_hyperparameters_that_it_can_set() -> None:
    plain = small_model()
    optimizer = adamw(plain)
    assert get_hyperparameters(plain, optimizer) == {"weight_decay": 0.02}
    for name in (NAMES[0], "temperature", "dropout"):
        with pytest.raises(UserError, match=f"no hyperparameter '{name}'.*it has weight_decay$"):
            set_hyperparameters(plain, optimizer, {name: 0.5})
    with pytest.raises(UserError, match="no hyperparameter 'dropout'; it has none$"):
        set_hyperparameters(plain, None, {"dropout": 0.5})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"noise/00_norm1": 0.5},
            r"no hyperparameter 'noise/00_norm1'; did you mean 'noise/0._0\..'\?; it has noise/00_0.1, ",
        ),
        ({"weight-decay": 0.5}, r"no hyperparameter 'weight-decay'; did you mean 'weight_decay'\?"),
        (
            {"xyz": 0.5},
            r"no hyperparameter 'xyz'; it has noise/00_0.1, noise/01_0.4, temperature, weight_decay, dropout",
        ),
        ({NAMES[0]: 0.0}, r"noise/00_0.1 is 0.0; it must lie in 1e-07..1e\+07 \(standard deviations"),
        ({NAMES[0]: -1.0}, r"is -1.0; it must lie in"),
        ({NAMES[0]: float("nan")}, r"is nan; it must lie in"),
        ({NAMES[0]: float("inf")}, r"is inf; it must lie in"),
        ({NAMES[0]: True}, r"is True; it must lie in"),
        ({NAMES[0]: "0.1"}, r"is '0.1'; it must lie in"),
        ({"temperature": 0.0}, r"temperature is 0.0"),
        ({"weight_decay": -0.1}, r"weight_decay is -0.1; it must lie in 0..1000"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must lie in 0..0.99"),
    ],
)
def test_mistakes_are_named(values: dict[str, float], words: str) -> None:
    model = noisy()
    optimizer = adamw(model)
    before = get_hyperparameters(model, optimizer)
    with pytest.raises(UserError, match=words):
        set_hyperparameters(model, optimizer, values)
    assert get_hyperparameters(model, optimizer) == before


@pytest.mark.parametrize(
    ("name", "value"), [(NAMES[0], 1e-6), (NAMES[0], 1e6), ("weight_decay", 0.0), ("dropout", 0.0)]
)
def test_the_ends_of_the_ranges_are_allowed(name: str, value: float) -> None:
    model = noisy()
    optimizer = adamw(model)
    set_hyperparameters(model, optimizer, {name: value})
    assert get_hyperparameters(model, optimizer)[name] == pytest.approx(value)


@pytest.mark.parametrize("scale", ["log", "logit", "linear"])
def test_every_scale_converts_both_ways(scale: str) -> None:
    low, high = {"log": (1e-3, 1e2), "logit": (0.01, 0.9), "linear": (-2.0, 3.0)}[scale]
    one = Hyperparameter("own", "", "", None, (low, high), scale=scale)  # type: ignore[arg-type]
    values = torch.tensor([one.at(k / 10) for k in range(11)], dtype=torch.float64)
    assert values[0] == pytest.approx(low)
    assert values[-1] == pytest.approx(high)
    assert (values.diff() > 0).all()
    torch.testing.assert_close(one.natural(one.unconstrained(values)).double(), values, rtol=1e-5, atol=0)
    steps = one.unconstrained(values).double().diff()  # a position is fair on the scale
    torch.testing.assert_close(steps, steps[:1].expand(10), rtol=1e-4, atol=0)
    slope = torch.autograd.functional.jacobian(one.natural, torch.tensor(0.3))
    assert slope.isfinite()
    assert slope != 0


def test_a_description_is_of_no_training() -> None:
    for read in (lambda: description("l2").read(), lambda: description("l2").set(0.1)):
        with pytest.raises(RuntimeError, match="l2 is not of a live training"):
            read()  # type: ignore[no-untyped-call]
    assert description("noise/00_norm1") is REGISTRY["noise"].hyperparameter
    assert hyperparameters(noisy())[NAMES[1]].base == "noise"


class Own(RhoModule):
    """Somebody's own module with rho."""

    def __init__(self) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.rho.exp()


def test_equal_names_are_numbered_and_own_modules_are_named_by_their_class() -> None:
    model = penalize(penalize(nn.Sequential(Own(), nn.Linear(3, 2)), L2(0.1)), L2(0.2))
    assert get_hyperparameters(model) == pytest.approx({"own": 1.0, "l2": 0.1, "l2_1": 0.2})
    set_hyperparameters(model, None, {"l2_1": 0.5, "own": 2.0})
    assert get_hyperparameters(model) == pytest.approx({"own": 2.0, "l2": 0.1, "l2_1": 0.5})
    assert list(rho_hyperparameters(model)) == ["own", "l2", "l2_1"]
