from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import crossreg.training.closure
from crossreg import Batches, CrossRegularizer, EvaluationPlan, Trainer, UserError, inject_noise
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Noise
from tests.crossreg.training.test_trainer import assert_equal, data

BATCH = 16


class TwoPass(torch.optim.SGD):
    """SAM's two passes with plain SGD, and a step that is not at theta: enough to find what a second pass leaves."""

    def step(self, closure: Any = None) -> Any:
        thetas = [p for group in self.param_groups for p in group["params"]]
        before = [theta.detach().clone() for theta in thetas]
        with torch.no_grad():
            for theta in thetas:
                theta.add_(theta.grad, alpha=0.5)
        loss = closure()
        with torch.no_grad():
            for theta, value in zip(thetas, before, strict=True):
                theta.copy_(value)
        super().step()
        return loss


def model() -> nn.Module:
    torch.manual_seed(0)
    built = nn.Sequential(
        nn.Linear(8, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(12, 12),
        nn.BatchNorm1d(12, momentum=None),  # counts its batches, so a momentum of zero would not stop it
        nn.Unflatten(1, (3, 4)),
        nn.InstanceNorm1d(3, track_running_stats=True),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    return inject_noise(built, initial_sigma=0.5, where="1")


def trainer(optimizer: Callable[..., torch.optim.Optimizer], steps: int, closure: bool, **options: Any) -> Trainer:
    built = model()
    train, reg, test = (Batches(*data(rows, seed), BATCH, seed=seed) for rows, seed in ((96, 1), (32, 2), (48, 3)))
    regularizer = CrossRegularizer(built, "classification", reg, interval=3)
    return Trainer(
        built,
        "classification",
        optimizer(regularizer.theta, lr=0.05),
        train,
        regularizer=regularizer,
        closure=closure,
        steps=steps,
        evaluation=EvaluationPlan(splits={"test": test}),
        **options,
    )


def training_passes(run: Trainer) -> list[int]:
    """Return a list that grows by one for every forward pass of a theta step."""
    run.start()
    passes: list[int] = []
    run.model.register_forward_hook(lambda module, args, output: passes.append(1) if module.training else None)
    return passes


def test_passes_of_two_gradients_a_step_are_counted() -> None:
    run = trainer(TwoPass, 12, closure=True)
    passes = training_passes(run)
    run.advance(12)
    assert len(passes) == 2 * 12
    assert run.ledger is not None
    k = 3
    assert run.ledger.examples == {
        "theta": 2 * 12 * BATCH,
        "rho": 4 * (2 * k - 1) * BATCH,
        "report": 16 * 48,
    }
    assert run.ledger.backward == {"theta": 2 * 12 * BATCH, "rho": 4 * k * BATCH}


def test_an_optimizer_may_take_as_many_passes_as_it_likes() -> None:
    run = trainer(lambda theta, lr: torch.optim.LBFGS(theta, lr=lr, max_iter=4), 5, closure=True)
    passes = training_passes(run)
    run.advance(5)
    assert len(passes) > 2 * 5
    assert run.ledger is not None
    assert run.ledger.examples["theta"] == run.ledger.backward["theta"] == len(passes) * BATCH


def test_running_statistics_and_generators_are_those_of_an_ordinary_step() -> None:
    ordinary, twice = trainer(torch.optim.SGD, 1, closure=False), trainer(TwoPass, 1, closure=True)
    states = []
    for run in (ordinary, twice):
        run.start()
        run.advance(1)
        states.append(torch.get_rng_state())
    a, b = (dict(run.model.named_buffers()) for run in (ordinary, twice))
    assert len(a) == 9
    assert int(b["1.num_batches_tracked"]) == 1
    assert_equal(a, b)
    assert torch.equal(*states)
    weights = [run.model.get_parameter("0.weight") for run in (ordinary, twice)]
    assert not torch.equal(*weights)  # the second gradient is the one that counts
    assert twice.latest["train/loss"] == ordinary.latest["train/loss"]  # and the first loss


def draws(monkeypatch: pytest.MonkeyPatch, replayed: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the dropout mask and the noise of every pass of two theta steps."""
    run = trainer(TwoPass, 2, closure=True)
    run.start()
    masks: list[torch.Tensor] = []
    noises: list[torch.Tensor] = []
    dropout = next(module for module in run.model.modules() if isinstance(module, nn.Dropout))
    noise = next(module for module in run.model.modules() if isinstance(module, Noise))

    def mask_of(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        if module.training:
            masks.append(torch.where(args[0] == 0, torch.nan, output).eq(0))

    def noise_of(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        if module.training:
            noises.append((output - args[0]).detach())

    dropout.register_forward_hook(mask_of)
    noise.register_forward_hook(noise_of)
    if not replayed:
        monkeypatch.setattr(crossreg.training.closure, "set_generator_states", lambda device, states: None)
    run.advance(2)
    assert len(masks) == len(noises) == 4
    return list(zip(masks, noises, strict=True))


def test_the_second_pass_sees_the_noise_and_the_mask_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(first: tuple[torch.Tensor, torch.Tensor], second: tuple[torch.Tensor, torch.Tensor]) -> bool:
        return torch.allclose(first[1], second[1], atol=1e-5)

    passes = draws(monkeypatch, replayed=True)
    for first, second in (passes[:2], passes[2:]):
        assert alike(first, second)
        # the second pass is at other weights, so units differ in being zero before dropout; drawn alike, the
        # masks agree wherever both are not
        shared = first[0] | second[0]
        assert (first[0] & second[0]).sum() > 0.8 * shared.sum()
    assert not alike(passes[0], passes[2])  # but every step draws anew
    passes = draws(monkeypatch, replayed=False)
    assert not alike(*passes[:2])
    assert (passes[0][0] & passes[1][0]).sum() < 0.5 * (passes[0][0] | passes[1][0]).sum()


def test_rho_is_not_moved_by_the_theta_step() -> None:
    run = trainer(TwoPass, 2, closure=True)
    before = {name: value.detach().clone() for name, value in rho_parameters(run.model).items()}
    run.fit()  # interval 3: no rho step yet
    assert_equal(before, {name: value.detach() for name, value in rho_parameters(run.model).items()})


def test_float16_is_refused_for_repeated_gradients_and_bfloat16_trains() -> None:
    with pytest.raises(UserError, match="float16.*more than once.*bfloat16"):
        trainer(TwoPass, 2, closure=True, autocast=torch.float16)
    latest = trainer(TwoPass, 400, closure=True, autocast=torch.bfloat16).fit()
    assert latest["test/accuracy"] > 0.6
