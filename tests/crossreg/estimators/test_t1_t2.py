from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from crossreg import (
    T1T2,
    Batches,
    Classification,
    CrossRegularizer,
    EvaluationPlan,
    Trainer,
    UserError,
    inject_noise,
    sigmas,
)
from crossreg.estimators import Direct
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.temperature import temperature
from crossreg.training import compute
from crossreg.training.compute import measure_flops
from tests.crossreg.conftest import small_model
from tests.crossreg.core.test_distributed import COMMON, launch

DRAW = Draw(11, -1.0)


def batches(batch: tuple[Tensor, Tensor], rows: int, **options: Any) -> Batches:
    return Batches(*batch, rows, seed=5, **options)


def held_out_after_a_step(
    model: nn.Module, train: tuple[Tensor, Tensor], reg: tuple[Tensor, Tensor], eta: float, pulled: dict[str, Tensor]
) -> Tensor:
    """C2(theta - eta * (grad C1~(theta, rho) - pulled)), written out on a copy that may be spoiled."""
    twin = copy.deepcopy(model)
    rho = set(rho_parameters(twin))
    theta = {name: p for name, p in twin.named_parameters() if name not in rho}
    statistics = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    for module in twin.modules():
        if hasattr(module, "sign"):
            module.sign = DRAW.sign
    torch.manual_seed(DRAW.seed)
    gradients = torch.autograd.grad(Classification()(twin.train()(train[0]), train[1]), list(theta.values()))
    moved = {n: p - eta * (g - pulled.get(n, 0)) for (n, p), g in zip(theta.items(), gradients, strict=True)}
    twin.load_state_dict(statistics, strict=False)
    with torch.no_grad():
        output = functional_call(twin.eval(), moved, (reg[0],)) / temperature(twin)
        return nn.functional.cross_entropy(output, reg[1])


def gradient_of_theta(model: nn.Module, train: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if hasattr(module, "sign"):
            module.sign = DRAW.sign
    torch.manual_seed(DRAW.seed)
    Classification()(twin.train()(train[0]), train[1]).backward()
    return {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("granularity", ["layer", "unit"])
@pytest.mark.parametrize("eta", [0.0, 0.05, 1.0])
def test_gradient_equals_finite_differences(
    norm: str, granularity: str, eta: float, batch: tuple[Tensor, Tensor]
) -> None:
    model = inject_noise(small_model(norm, torch.float64), granularity, initial_sigma=0.6)  # type: ignore[arg-type]
    model.output_temperature[0].rho.data.fill_(0.3)
    x, y = batch[0].double(), batch[1]
    with torch.no_grad():
        model.train()(2 * x + 1)  # running statistics that are not those of a batch
    train, reg = (x[:12], y[:12]), (x[12:], y[12:])
    rho = rho_parameters(model)
    estimator = T1T2(batches(train, 12, shuffle=False), eta)
    value, found = estimator.gradient(model, Classification(), *reg, list(rho.values()), [DRAW, Draw(5)], 2.0)
    # the gradient is that of the source over eta. Its limit at eta = 0: the weights are displaced by g's changes alone
    step, pulled = (eta, {}) if eta else (1.0, gradient_of_theta(model, train))
    torch.testing.assert_close(value, held_out_after_a_step(model, train, reg, step, pulled))
    h = 1e-5
    for (name, parameter), gradient in zip(rho.items(), found, strict=True):
        by_theta = step if name != "output_temperature.0.rho" else 1.0
        for index in range(min(parameter.numel(), 3)):
            values = []
            for side in (h, -h):
                parameter.data.view(-1)[index] += side
                values.append(held_out_after_a_step(model, train, reg, step, pulled))
                parameter.data.view(-1)[index] -= side
            slope = (values[0] - values[1]) / (2 * h) / by_theta
            assert abs(slope) > 1e-8, name
            torch.testing.assert_close(
                gradient.view(-1)[index], 2 * slope, rtol=1e-5, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("training", [True, False])
def test_theta_its_gradients_buffers_modes_and_random_state_stay(training: bool, batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(small_model()).train(training)
    model[1].training = False  # somebody's frozen statistics
    model[0].weight.requires_grad_(False)  # and weights
    model[3].weight.grad = torch.full_like(model[3].weight, 7.0)
    regularizer = CrossRegularizer(model, "classification", [batch], interval=1, estimator=T1T2(batches(batch, 24)))
    rho = {id(p) for p in regularizer.rho.values()}
    before = {name: value.clone() for name, value in model.state_dict().items() if "rho" not in name}
    flags, modes = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    scales, state = sigmas(model), torch.get_rng_state()
    update = regularizer.step()
    assert update is not None
    assert update.applied
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert (model[3].weight.grad == 7).all()
    assert all(p.grad is None for p in model.parameters() if p is not model[3].weight)
    assert all(not p.requires_grad for p in model.parameters() if id(p) in rho)
    assert all(float(scales[name]) != float(value) for name, value in sigmas(model).items())
    assert all(not module.learning for module in model.modules() if hasattr(module, "learning"))


def test_every_update_takes_the_next_training_batch_and_a_draw_of_its_own(batch: tuple[Tensor, Tensor]) -> None:
    x, y = torch.arange(24.0)[:, None].expand(24, 8).contiguous(), batch[1]
    estimator = T1T2(batches((x, y), 8))
    seen = []
    for update in range(1, 7):
        estimator.set_update(update)
        seen.append(estimator._same_size(8)[0][:, 0])
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)


def data(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def trainer(steps: int, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = inject_noise(small_model())
    train, own, reg = (
        Batches(*data(rows, split), 16, seed=seed, drop_last=True)
        for rows, split, seed in ((96, 1, 1), (96, 1, 4), (48, 2, 2))
    )
    regularizer = CrossRegularizer(model, "classification", reg, interval=3, estimator=T1T2(own))
    optimizer = torch.optim.AdamW(regularizer.theta, lr=5e-3)
    return Trainer(model, "classification", optimizer, train, regularizer=regularizer, steps=steps, **options)


@pytest.mark.parametrize("stop", [7, 21])
def test_resume_is_exact(stop: int) -> None:
    whole = trainer(45)
    whole.fit()
    first = trainer(45)
    first.start()
    first.advance(stop)
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(99)
    resumed = trainer(45)
    resumed.load_state_dict(state)
    resumed.fit()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert whole.regularizer is not None
    assert resumed.regularizer is not None
    assert whole.regularizer.updates == resumed.regularizer.updates == 15


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_training_moves_sigma_and_learns(dtype: torch.dtype | None) -> None:
    plan = EvaluationPlan(splits={"test": Batches(*data(96, 3), 48)})
    run = trainer(120, evaluation=plan, autocast=dtype)
    start = {name: float(value) for name, value in sigmas(run.model).items()}
    latest = run.fit()
    assert latest["test/accuracy"] > 0.6
    assert math.isfinite(latest["reg/loss"])
    assert all(abs(math.log(float(value) / start[name])) > 0.1 for name, value in sigmas(run.model).items())


def test_ledger_adds_up_against_a_hand_count() -> None:
    run = trainer(12)
    run.fit()
    assert run.ledger is not None
    first, second, last = 2 * 8 * 16, 2 * 16 * 12, 2 * 12 * 3
    forward = first + second + last
    once_backward = 2 * forward - first  # gradients of weights and of inputs, but not of the data
    # backward through that: of the first layer, which no noise comes before, only how its weight gradient depends on
    # what came back to it; of the others that, the same for its inputs, and the way back of both
    twice_backward = first + 4 * (second + last)
    training, held_out = forward + once_backward + twice_backward, forward + once_backward
    assert run.ledger.flops_per_example["rho"] * 2 == training + held_out
    updates, rows = 4, 16
    assert run.ledger.examples == {"theta": 12 * rows, "rho": 2 * updates * rows}
    assert run.ledger.backward == {"theta": 12 * rows, "rho": 3 * updates * rows}
    assert run.ledger.cost.flops == 12 * rows * (forward + once_backward) + updates * rows * (training + held_out)


def test_the_direct_estimator_is_counted_as_before() -> None:
    assert Direct().passes(3) == (5, 3)
    assert Direct().passes(4) == (7, 4)


def test_convolutions_are_counted_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the meta device traces is what two real examples take."""
    monkeypatch.setattr(compute, "SMALL", (0, 0))
    torch.manual_seed(0)
    model = inject_noise(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    )
    x, y = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    estimator = T1T2(Batches(x, y, 2))
    counted = measure_flops(model, Classification(), x, y, 3, estimator)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        estimator.gradient(model, Classification(), x, y, list(rho_parameters(model).values()), [DRAW])
    assert counted["rho"] == counter.get_total_flops() / 4 > 0


def test_attention_has_a_second_derivative() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = inject_noise(nn.Sequential(layer, nn.Flatten(), nn.Linear(32, 3)))
    x, y = torch.randn(6, 4, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    estimator = T1T2(Batches(x, y, 6))
    _, found = estimator.gradient(model, Classification(), x, y, list(rho_parameters(model).values()), [DRAW])
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found)
    assert measure_flops(model, Classification(), x, y, 3, estimator)["rho"] > 0


class NeedsData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(1 + 0 * x.detach().sum())


def test_what_the_meta_device_cannot_trace_is_counted_on_two_rows(
    batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "SMALL", (0, 0))
    plain, opaque = inject_noise(small_model()), inject_noise(nn.Sequential(*small_model(), NeedsData()))
    estimator = T1T2(batches(batch, 24))
    traced, counted = (measure_flops(model, Classification(), *batch, 3, estimator) for model in (plain, opaque))
    assert math.isnan(counted["theta"])
    assert counted["rho"] == traced["rho"] > 0


SHARDS = (
    COMMON
    + """
from crossreg import T1T2
from crossreg.losses import Classification
from crossreg.regularizer import antithetic_draws
def main():
    with process_group("gloo"):
        model = inject_noise(small_model("batch", torch.float64), "unit", initial_sigma=0.5)
        wrapped = data_parallel(model)
        def own():
            return T1T2(Batches(*data(64, 1), 16, seed=5))
        reg = Batches(*data(32, 2), 16)
        regularizer = CrossRegularizer(wrapped, "classification", reg, interval=1, estimator=own(), seed=3)
        draws = antithetic_draws(3, 3, "rho", 1, rank())
        x, y = next(iter(reg))
        assert len(y) == 8
        _, mine = own().gradient(model, Classification(), x, y, list(regularizer.rho.values()), draws)
        mean = gather_rows(torch.cat([g.reshape(-1) for g in mine])[None]).mean(0)
        assert not torch.equal(mean, torch.cat([g.reshape(-1) for g in mine])), "ranks saw the same rows"
        update = regularizer.update()
        torch.testing.assert_close(torch.cat([g.reshape(-1) for g in update.gradients.values()]), mean)
        assert all(p.grad is None for p in model.parameters())
        if rank() == 0:
            print("examples", update.examples)
main()
"""
)


@pytest.mark.slow
@pytest.mark.thorough
def test_ranks_average_what_each_finds_on_its_rows(tmp_path: Path) -> None:
    assert "examples 16" in launch(SHARDS, tmp_path, 2)


class Margin(nn.Module):
    """Adds an operation that torch knows no second derivative of."""

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.multilabel_margin_loss(x, torch.zeros_like(x, dtype=torch.long))


def test_mistakes_are_named(batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UserError, match="eta is -1"):
        T1T2(batches(batch, 8), eta=-1)
    model = inject_noise(small_model())
    small = CrossRegularizer(model, "classification", [batch], interval=1, estimator=T1T2(batches(batch, 8)))
    with pytest.raises(UserError, match="has 8 rows, that of the regularization split 24"):
        small.step()
    model = inject_noise(nn.Sequential(*small_model(), Margin()))
    once = CrossRegularizer(model, "classification", [batch], interval=1, estimator=T1T2(batches(batch, 24)))
    with pytest.raises(UserError, match="cannot be differentiated twice.*'direct'"):
        once.step()
