from __future__ import annotations

import pytest
import torch
from torch import nn

from crossreg import (
    Batches,
    Classification,
    EvaluationPlan,
    GaussianRegression,
    Trainer,
    UserError,
    evaluate,
    inject_noise,
    predict,
)
from crossreg.core.random import derive_seed
from crossreg.models import build
from tests.crossreg.conftest import small_model
from tests.crossreg.training.test_trainer import assert_equal, data


def dropping(noise: bool = False, outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    model = build("mlp", input_shape=(8,), num_outputs=outputs, hidden=16, depth=2, dropout=0.4)
    if noise:
        inject_noise(model, initial_sigma=0.3)
    for _ in range(5):  # running statistics that differ from a batch's
        model.train()(3 * torch.randn(32, 8) + 1)
    return model.eval()


@torch.no_grad()
def average_by_hand(model: nn.Module, x: torch.Tensor, samples: int, seed: int) -> torch.Tensor:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    torch.manual_seed(seed)
    mean = torch.stack([model(x).softmax(1) for _ in range(samples)]).mean(0)
    model.eval()
    return mean


def test_prediction_is_the_average_over_masks_drawn_from_the_seed(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model, (x, _) = dropping(), batch
    prediction = predict(model, x, 7, seed=5, dropout=True)
    torch.testing.assert_close(prediction.mean, average_by_hand(model, x, 7, 5), rtol=1e-5, atol=1e-6)
    assert prediction.spread.min() > 0
    plain = predict(model, x, 7, seed=5)
    torch.testing.assert_close(plain.mean, model(x).softmax(1))
    assert torch.equal(plain.spread, torch.zeros_like(plain.spread))


def test_modes_and_statistics_stay_as_they_were(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = dropping(noise=True).train()
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm1d)).eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    predict(model, batch[0], 4, seed=1, dropout=True)
    assert [module.training for module in model.modules()] == modes
    assert_equal(before, dict(model.state_dict()))
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_and_dropout_are_drawn_together(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = dropping(noise=True)
    both, noise = (predict(model, batch[0], 200, seed=1, dropout=on).spread.mean() for on in (True, False))
    inner = predict(dropping(), batch[0], 200, seed=1, dropout=True).spread.mean()
    assert both > 1.1 * noise
    assert both > 1.1 * inner


def test_evaluation_averages_every_batch_and_counts_its_draws() -> None:
    model, (x, y) = dropping(), data(30, 3)
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    result = evaluate(model, Classification(), batches, 6, 11, dropout=True)
    by_hand = torch.cat(
        [average_by_hand(model, part, 6, derive_seed(11, "evaluate", i, 0)) for i, (part, _) in enumerate(batches)]
    )
    torch.testing.assert_close(result.mean, by_hand, rtol=1e-5, atol=1e-6)
    assert result.passes == 6 * 30
    assert evaluate(model, Classification(), batches, 6, 11).passes == 30
    regression = evaluate(dropping(outputs=1), GaussianRegression(), [(x, x[:, :1])], 6, dropout=True)
    assert regression.passes == 2 * 6 * 30
    # the loss of the averaged prediction, over masks of the same seed: at most the mean of the draws' losses
    single = evaluate(dropping(outputs=1), GaussianRegression(), [(x, x[:, :1])], 1, dropout=True)
    assert regression.scores["nll"] < single.scores["nll"]


def test_trainer_evaluates_with_dropout_on_and_counts_it() -> None:
    def run(on: bool) -> Trainer:
        model = dropping()
        train, test = Batches(*data(96, 1), 16), Batches(*data(48, 3), 16, shuffle=False)
        plan = EvaluationPlan(splits={"test": test}, every=2, dropout=on)
        optimizer = torch.optim.AdamW(model.parameters())
        trainer = Trainer(model, "classification", optimizer, train, steps=4, evaluation=plan)
        trainer.fit()
        return trainer

    with_dropout, without = run(True), run(False)
    assert_equal(dict(with_dropout.model.state_dict()), dict(without.model.state_dict()))
    assert with_dropout.latest["test/nll"] != without.latest["test/nll"]
    assert with_dropout.ledger is not None
    assert without.ledger is not None
    assert with_dropout.ledger.examples["report"] == (3 + 16) * 48
    assert without.ledger.examples["report"] == 2 * 48


def test_a_model_without_dropout_is_refused(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(UserError, match="no dropout layer"):
        predict(small_model(), batch[0], 3, dropout=True)
    with pytest.raises(UserError, match="no dropout layer"):
        evaluate(inject_noise(small_model()), Classification(), [batch], 3, dropout=True)
