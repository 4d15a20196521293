from __future__ import annotations

import math

import pytest
import torch
from crossreg.regularizers.knobs import DROPOUT, WEIGHT_DECAY, get_knobs, set_knobs, sigma_knobs
from torch import nn

from crossreg import UserError, inject_noise
from crossreg.regularizers.noise import noise_layers
from crossreg.training.trainer import sigma_metrics
from tests.crossreg.conftest import small_model

NAMES = ["sigma/00_0.1", "sigma/01_0.4"]


def noisy(granularity: str = "layer") -> nn.Module:
    return inject_noise(nn.Sequential(small_model(), nn.Dropout(0.1), nn.Dropout(0.3)), granularity)


def adamw(model: nn.Module, groups: int = 1) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    return torch.optim.AdamW([{"params": parameters[index::groups]} for index in range(groups)], weight_decay=0.02)


@pytest.mark.parametrize("granularity", ["layer", "unit"])
def test_what_is_set_is_in_force_and_read_back(granularity: str) -> None:
    model = noisy(granularity)
    optimizer = adamw(model, groups=2)
    values = {NAMES[0]: 0.25, NAMES[1]: 4.0, "rho/temperature": 1.5, WEIGHT_DECAY: 0.3, DROPOUT: 0.6}
    set_knobs(model, optimizer, values)
    assert get_knobs(model, optimizer) == pytest.approx(values)
    first, second = noise_layers(model).values()
    assert torch.allclose(first.sigma, torch.tensor(0.25))  # every unit of a layer
    assert torch.allclose(second.sigma, torch.tensor(4.0))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.6, 0.6]
    # a knob has the name of the metric that records it
    assert sigma_metrics(model) == pytest.approx({name: values[name] for name in NAMES})


def test_only_what_is_named_changes() -> None:
    model = noisy()
    optimizer = adamw(model)
    before = get_knobs(model, optimizer)
    assert list(before) == [*NAMES, "rho/temperature", WEIGHT_DECAY, DROPOUT]
    assert before[WEIGHT_DECAY] == 0.02
    assert before[DROPOUT] == 0.1
    set_knobs(model, optimizer, {NAMES[1]: 3.0})
    assert get_knobs(model, optimizer) == pytest.approx({**before, NAMES[1]: 3.0})
    set_knobs(model, optimizer, {})
    assert get_knobs(model, optimizer)[NAMES[1]] == pytest.approx(3.0)


def test_rho_stays_the_parameter_that_is_learned() -> None:
    """A knob is set in place, so an optimizer that holds rho goes on with it from there."""
    model = noisy()
    layer = next(iter(noise_layers(model).values()))
    rho = layer.rho
    optimizer = torch.optim.SGD([rho], lr=1.0)
    set_knobs(model, optimizer, {NAMES[0]: 2.0})
    rho.grad = torch.full_like(rho, 0.5)
    optimizer.step()
    assert layer.rho is rho
    assert get_knobs(model, optimizer)[NAMES[0]] == pytest.approx(2.0 * math.exp(-0.5))


def test_wrapped_models_have_the_same_knobs() -> None:
    model = noisy()
    optimizer = adamw(model)
    wrapped = nn.DataParallel(model)
    set_knobs(wrapped, optimizer, {NAMES[0]: 0.7, "rho/temperature": 2.0, DROPOUT: 0.4})
    assert get_knobs(wrapped, optimizer) == get_knobs(model, optimizer)
    assert get_knobs(model, optimizer)[NAMES[0]] == pytest.approx(0.7)
    assert get_knobs(model, optimizer)["rho/temperature"] == pytest.approx(2.0)
    compiled = torch.compile(model, backend="eager")
    set_knobs(compiled, optimizer, {"rho/temperature": 0.5})
    assert get_knobs(compiled, optimizer) == get_knobs(model, optimizer)
    assert get_knobs(model, optimizer)["rho/temperature"] == pytest.approx(0.5)
    assert sigma_knobs(model) == NAMES


def test_a_training_has_the_knobs_that_it_can_set() -> None:
    plain = small_model()
    optimizer = adamw(plain)
    assert get_knobs(plain, optimizer) == {WEIGHT_DECAY: 0.02}
    for name in (NAMES[0], "rho/temperature", DROPOUT):
        with pytest.raises(UserError, match=f"no knob '{name}'.*it has weight_decay$"):
            set_knobs(plain, optimizer, {name: 0.5})


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"sigma/00_norm1": 0.5}, r"no knob 'sigma/00_norm1'; did you mean 'sigma/0._0\..'\?; it has sigma/00_0.1, "),
        ({"weight-decay": 0.5}, r"no knob 'weight-decay'; did you mean 'weight_decay'\?"),
        ({"xyz": 0.5}, r"no knob 'xyz'; it has sigma/00_0.1, sigma/01_0.4, rho/temperature, weight_decay, dropout"),
        ({NAMES[0]: 0.0}, r"knob 'sigma/00_0.1' is 0.0; it must lie in 1e-07..1e\+07"),
        ({NAMES[0]: -1.0}, r"is -1.0; it must lie in"),
        ({NAMES[0]: float("nan")}, r"is nan; it must lie in"),
        ({NAMES[0]: float("inf")}, r"is inf; it must lie in"),
        ({"rho/temperature": 0.0}, r"'rho/temperature' is 0.0"),
        ({WEIGHT_DECAY: -0.1}, r"'weight_decay' is -0.1; it must lie in 0..1000"),
        ({DROPOUT: 1.0}, r"'dropout' is 1.0; it must lie in 0..0.99"),
    ],
)
def test_mistakes_are_named(knobs: dict[str, float], words: str) -> None:
    model = noisy()
    with pytest.raises(UserError, match=words):
        set_knobs(model, adamw(model), knobs)


@pytest.mark.parametrize(("name", "value"), [(NAMES[0], 1e-6), (NAMES[0], 1e6), (WEIGHT_DECAY, 0.0), (DROPOUT, 0.0)])
def test_the_ends_of_the_ranges_are_allowed(name: str, value: float) -> None:
    model = noisy()
    optimizer = adamw(model)
    set_knobs(model, optimizer, {name: value})
    assert get_knobs(model, optimizer)[name] == pytest.approx(value)
