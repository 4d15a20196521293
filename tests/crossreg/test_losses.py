"""Losses as PyTorch has them: theta's is PyTorch's own number, the held-out one the mixture's, weighted alike."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg import Classification, CrossRegularizer, GaussianRegression, MultiLabel, UserError, evaluate, inject_noise
from crossreg.losses import as_loss

ONE = torch.ones(())
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0])


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def classes(*shape: int, padded: bool = False) -> Tensor:
    found = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(1))
    if padded:
        found.view(-1)[::3] = -100
    return found


@pytest.mark.parametrize(
    "module",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(WEIGHT),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(WEIGHT, ignore_index=2, label_smoothing=0.2),
    ],
)
def test_cross_entropy_is_that_of_pytorch(module: nn.CrossEntropyLoss) -> None:
    loss, output, target = as_loss(module), logits(12, 4), classes(12)
    reference = nn.CrossEntropyLoss(
        None if module.weight is None else module.weight.double(),
        ignore_index=module.ignore_index,
        label_smoothing=module.label_smoothing,
    )
    assert float(loss(output, target)) == pytest.approx(float(reference(output, target)), rel=1e-12)
    # one draw: the held-out loss is the same, but for smoothing, which is theta's alone
    reference.label_smoothing = 0.0
    held_out = loss.of_draws(loss.per_draw(output, target, ONE)[None], target)
    assert float(held_out) == pytest.approx(float(reference(output, target)), rel=1e-7)


def test_a_mixture_is_averaged_by_weight_without_padding() -> None:
    loss, target = Classification(WEIGHT), classes(9, padded=True)
    outputs = [logits(9, 4), 2 * logits(9, 4)]
    found = loss.of_draws(torch.stack([loss.per_draw(one, target, ONE) for one in outputs]), target)
    mean = sum(one.softmax(1) for one in outputs) / 2
    total = weights = 0.0
    for row, label in zip(mean, target.tolist(), strict=True):
        if label >= 0:
            total -= float(WEIGHT[label]) * math.log(float(row[label]))
            weights += float(WEIGHT[label])
    assert float(found) == pytest.approx(total / weights, rel=1e-6)
    assert loss.size(target) == pytest.approx(weights)
    nothing = torch.full((9,), -100)
    assert float(loss.of_draws(loss.per_draw(outputs[0], nothing, ONE)[None], nothing)) == loss.size(nothing) == 0


def test_binary_cross_entropy_is_that_of_pytorch() -> None:
    target = (logits(7, 4) > 0).double()
    module = nn.BCEWithLogitsLoss(torch.tensor([1.0, 2.0, 0.5, 1.0]), pos_weight=WEIGHT).double()
    loss, output = as_loss(module), 3 * logits(7, 4)
    assert float(loss(output, target)) == pytest.approx(float(module(output, target)), rel=1e-12)
    held_out = loss.of_draws(loss.per_draw(output, target, ONE)[None], target)
    assert float(held_out) == pytest.approx(float(module(output, target)), rel=1e-7)
    assert loss.predict(output, ONE * 2).equal((output / 2).sigmoid())


@pytest.mark.parametrize(("dim", "shape"), [(1, (3, 4, 7)), (-1, (3, 7, 4)), (-1, (3, 5, 7, 4)), (1, (3, 4, 5, 7))])
def test_where_the_classes_are_follows_from_the_target(dim: int, shape: tuple[int, ...]) -> None:
    output = logits(*shape)
    target = classes(*output.movedim(dim, 1)[:, 0].shape, padded=True)
    expected = F.cross_entropy(output.movedim(dim, 1), target)
    for loss in (Classification(), Classification(class_dim=dim)):
        assert loss(output, target).equal(expected)
    assert Classification().expecting(target).predict(output, ONE).sum(1).allclose(torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Classification()(logits(3, 4, 4), classes(3, 4)), r"shape \(3, 4, 4\).*say which: .*class_dim=1"),
        (lambda: Classification().predict(logits(3, 4, 7), ONE), "may be its second or its last dimension"),
        (lambda: Classification()(logits(3, 4, 7), classes(3, 5)), r"target has shape \(3, 5\)"),
        (lambda: Classification()(logits(3, 4), logits(3, 4)), r"float64 of shape \(3, 4\).*argmax\(1\) of one-hot"),
        (lambda: MultiLabel()(logits(3, 4), logits(3, 5)), r"target has shape \(3, 5\), the model's output \(3, 4\)"),
        (lambda: as_loss(nn.CrossEntropyLoss(reduction="sum")), "with reduction 'mean' or their functions"),
        (
            lambda: as_loss(nn.L1Loss()),
            r"loss is L1Loss\(\); allowed are 'classification', 'regression', 'multi-label'",
        ),
        (lambda: as_loss(partial(F.cross_entropy, reduce=True)), "or a subclass of crossreg.Loss"),
        (lambda: as_loss("classificaton"), "loss is 'classificaton'"),
    ],
)
def test_what_cannot_be_right_is_refused(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_functions_are_taken_for_what_they_are() -> None:
    assert isinstance(as_loss(F.mse_loss), GaussianRegression)
    assert isinstance(as_loss(F.binary_cross_entropy_with_logits), MultiLabel)
    assert isinstance(as_loss(nn.NLLLoss()), Classification)
    smoothed = as_loss(partial(F.cross_entropy, label_smoothing=0.1))
    assert isinstance(smoothed, Classification)
    assert smoothed.label_smoothing == 0.1


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Embedding(9, 8), nn.LayerNorm(8), nn.Linear(8, 4))

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"logits": self.body(tokens) * mask[..., None]}


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(), "classification"])
def test_tokens_are_labelled_in_the_three_lines(loss: Any) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 9, (64, 6))
    target = (tokens % 4).masked_fill(torch.arange(6) > 3, -100)
    batch = {"tokens": tokens, "mask": torch.ones(64, 6), "labels": target}
    model = inject_noise(Tagger())
    regularizer = CrossRegularizer(model, loss, [batch], interval=2)
    optimizer = torch.optim.AdamW(regularizer.theta, lr=0.05)
    for _ in range(60):
        logits = model(tokens, batch["mask"])["logits"]
        F.cross_entropy(logits.movedim(-1, 1), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        update = regularizer.step()
    assert update is not None
    assert update.applied
    assert update.loss < 0.2
    found = evaluate(model, as_loss(loss), [batch], 4)
    assert found.scores["accuracy"] == 1.0
    assert found.mean.shape == (64 * 4, 4)
    assert found.targets.shape == (64 * 4,)
    assert found.passes == 64 * 4


def test_labels_that_do_not_exclude_one_another_are_scored() -> None:
    x = logits(50, 3).float()
    model = nn.Linear(3, 3)
    model.load_state_dict({"weight": 5 * torch.eye(3), "bias": torch.zeros(3)})
    found = evaluate(model, MultiLabel(), [(x, (x > 0).float())], 1)
    assert found.scores["accuracy"] == 1.0
    assert found.scores["nll"] == pytest.approx(float(F.binary_cross_entropy_with_logits(5 * x, (x > 0).float())))
