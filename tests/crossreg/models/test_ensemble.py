from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crossreg import L2, Preprocess, UserError, penalize
from crossreg.models import Ensemble, build
from crossreg.prediction.export import export_model, load_exported
from crossreg.regularizers.penalties import training_loss
from crossreg.regularizers.temperature import learn_temperature
from tests.crossreg.conftest import small_model


def members() -> list[nn.Module]:
    found = []
    for seed in range(3):
        model = small_model("layer")
        torch.manual_seed(seed)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        found.append(model)
    return found


def test_in_evaluation_it_is_the_mean_of_the_members_probabilities() -> None:
    x = torch.randn(5, 8)
    ones = members()
    ensemble = Ensemble(ones, "classification").eval()
    expected = torch.stack([one(x).softmax(1) for one in ones]).mean(0)
    torch.testing.assert_close(ensemble(x).softmax(1), expected)


def test_of_a_regression_it_is_the_mean_of_the_outputs() -> None:
    x = torch.randn(5, 8)
    ones = members()
    torch.testing.assert_close(Ensemble(ones, "regression").eval()(x), torch.stack([one(x) for one in ones]).mean(0))


def test_each_member_is_trained_on_its_rows_as_it_would_be_alone() -> None:
    x, y = torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    ensemble = penalize(Ensemble(members(), "classification"), L2(0.1))
    loss = training_loss(ensemble, F.cross_entropy, ensemble(x), y)
    loss.backward()
    alone = [penalize(one, L2(0.1)) for one in members()]
    for one, rows, targets in zip(alone, x.chunk(3), y.chunk(3), strict=True):
        training_loss(one, F.cross_entropy, one(rows), targets).backward()
    inside: Ensemble = ensemble  # type: ignore[assignment]
    for mine, theirs in zip(inside.members, alone, strict=True):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=False):
            torch.testing.assert_close(a.grad, b.grad)


def test_the_loss_that_is_reported_is_the_mean_over_the_rows() -> None:
    x, y = torch.randn(7, 8), torch.tensor([0, 1, 2, 0, 1, 2, 0])  # shared out unevenly
    ensemble = Ensemble(members(), "classification")
    parts = zip(members(), x.tensor_split(3), y.tensor_split(3), strict=True)
    expected = sum(F.cross_entropy(one(rows), targets, reduction="sum") for one, rows, targets in parts) / 7
    torch.testing.assert_close(training_loss(ensemble, F.cross_entropy, ensemble(x), y), expected)


def test_one_without_members_is_refused() -> None:
    with pytest.raises(UserError, match="at least one"):
        Ensemble([], "classification")


def test_it_is_exported_and_loaded_as_one_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ones = [build("mlp", input_shape=(4,), num_outputs=3, hidden=8, depth=2) for _ in range(3)]
    ensemble = learn_temperature(Ensemble(ones, "classification"), 1.7).eval()
    export_model(
        ensemble,
        Preprocess(torch.zeros(4), torch.ones(4)),
        tmp_path,
        name="mlp",
        input_shape=(4,),
        num_outputs=3,
        options={"hidden": 8, "depth": 2},
        members=3,
        regularizers={"temperature": {}},
    )
    x = torch.randn(5, 4)
    expected = (ensemble(x) / 1.7).softmax(1).detach().numpy()
    np.testing.assert_allclose(load_exported(tmp_path)(x.numpy()), expected, atol=1e-6)
