"""Each failure signature is provoked in a real training, and a healthy training is left in peace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from crossreg import Batches, CrossRegularizer, Diagnostics, EvaluationPlan, Trainer, inject_noise


def splits(shift: float = 0.0) -> tuple[Batches, Batches, Batches]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(640, 10, generator=generator)
    y = (x[:, :4] + 0.7 * torch.randn(640, 4, generator=generator)).argmax(1)
    x[384:] += shift * torch.randn(256, 10, generator=generator)
    return (
        Batches(x[:128], y[:128], 32, drop_last=True),
        Batches(x[128:256], y[128:256], 64, drop_last=True),
        Batches(x[384:], y[384:], 64, shuffle=False),
    )


def diagnose(
    model: nn.Module, steps: int = 400, lr: float = 1e-2, initial_sigma: float = 0.1, shift: float = 0.0, **rho: Any
) -> Diagnostics:
    torch.manual_seed(0)
    train, reg, test = splits(shift)
    inject_noise(model, initial_sigma=initial_sigma)
    regularizer = CrossRegularizer(model, "classification", reg, **{"interval": 10, "samples": 4, **rho})
    optimizer = torch.optim.AdamW(regularizer.theta, lr=lr)
    diagnostics = Diagnostics()
    Trainer(
        model,
        "classification",
        optimizer,
        train,
        regularizer=regularizer,
        steps=steps,
        evaluation=EvaluationPlan(splits={"reg": reg, "test": test}, every=50),
        callbacks=[diagnostics],
    ).fit()
    return diagnostics


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(10, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 4))


class Bypassing(nn.Module):
    """Uses its normalization layer's weights, never its forward, so the hook with the noise does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(10, 64), nn.LayerNorm(64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.layer_norm(self.body(x), (64,), self.norm.weight, self.norm.bias)
        return self.head(torch.relu(h))


def test_healthy_training_is_left_in_peace() -> None:
    assert diagnose(network()).found == []


def test_noise_free_rho_forward_is_a_collapse() -> None:
    (found,) = [d for d in diagnose(Bypassing()).found if d.signature == "collapse"]
    assert "exactly zero" in found.seen
    assert "without it" in found.cause


def test_sigma_at_zero_while_the_gap_is_open_is_a_collapse() -> None:
    (found,) = [d for d in collapse().found if d.signature == "collapse"]
    assert "below 0.001" in found.seen
    assert "learning rate of rho" in found.cause


def collapse() -> Diagnostics:
    torch.manual_seed(0)
    train, reg, _ = splits()
    model = inject_noise(network(), initial_sigma=1e-5)
    regularizer = CrossRegularizer(model, "classification", reg, 10, 4, lr=1e-3)
    diagnostics = Diagnostics()
    optimizer = torch.optim.AdamW(regularizer.theta, lr=1e-2)
    Trainer(
        model, "classification", optimizer, train, regularizer=regularizer, steps=400, callbacks=[diagnostics]
    ).fit()
    return diagnostics


def test_huge_steps_are_a_divergence() -> None:
    found = diagnose(network(), steps=60, lr=30.0, initial_sigma=20.0).found
    assert found[0].signature == "divergence"
    assert "noise that starts at" in found[0].remedy


def test_output_that_overflows_is_a_divergence() -> None:
    model = network()
    model[3].weight.data.fill_(1e38)
    found = diagnose(model, steps=40, lr=1e-6).found
    assert found[0].signature == "divergence"


def test_rare_updates_are_no_adaptation() -> None:
    (found,) = [d for d in diagnose(network(), interval=400, samples=1).found if d.signature == "no adaptation"]
    assert "every 400 steps" in found.cause
    assert "smaller interval" in found.remedy


def test_a_shifted_test_split_is_poor_calibration() -> None:
    (found,) = [d for d in diagnose(network(), shift=4.0).found if d.signature == "poor calibration"]
    assert "not distributed like the test split" in found.cause
    assert str(found).startswith("poor calibration at step")


@pytest.mark.parametrize("signature", ["collapse", "divergence"])
def test_each_signature_is_reported_once(signature: str) -> None:
    run = diagnose(Bypassing()) if signature == "collapse" else diagnose(network(), 60, lr=30.0, initial_sigma=20.0)
    assert len([d for d in run.found if d.signature == signature]) == 1
