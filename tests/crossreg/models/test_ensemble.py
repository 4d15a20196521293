from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crossreg import L2, Preprocess, UserError, inject_noise, penalize
from crossreg.core.random import forked_rng
from crossreg.losses import Classification
from crossreg.models import Ensemble, SharedMLP, build, build_ensemble, build_networks, networks
from crossreg.prediction.diversity import best_alone, diversity
from crossreg.prediction.evaluation import evaluate
from crossreg.prediction.export import export_model, load_exported
from crossreg.prediction.predict import predict, predict_apart
from crossreg.regularizers.noise import sampling
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


# of several kinds


def test_networks_are_taken_in_turn_and_get_the_options_that_they_have() -> None:
    assert networks("lstm,cnn1d", 5) == ("lstm", "cnn1d", "lstm", "cnn1d", "lstm")
    options = {"hidden": 6, "dropout": 0.1}
    found = build_networks("lstm,cnn1d", 2, input_shape=(2, 9), num_outputs=3, options=options)
    assert found[0](torch.randn(4, 2, 9)).shape == found[1](torch.randn(4, 2, 9)).shape == (4, 3)
    assert found[0].recurrent1.hidden_size == 6  # type: ignore[union-attr]
    with pytest.raises(UserError, match="none of lstm, cnn1d takes the option 'heads'"):
        build_networks("lstm,cnn1d", 2, input_shape=(2, 9), num_outputs=3, options={"heads": 2})
    with pytest.raises(UserError, match="unknown model 'lstn'; did you mean 'lstm'"):
        build_networks("lstn,cnn1d", 2, input_shape=(2, 9), num_outputs=3, options={})


def test_one_of_several_kinds_is_exported_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    built = build_networks("gru,cnn1d", 3, input_shape=(2, 9), num_outputs=3, options={"hidden": 5})
    ensemble = Ensemble(built, "classification").eval()
    about = {"input_shape": (2, 9), "num_outputs": 3, "options": {"hidden": 5}, "members": 3}
    preprocess = Preprocess(torch.zeros(2), torch.ones(2))
    export_model(ensemble, preprocess, tmp_path, name="gru,cnn1d", **about)  # type: ignore[arg-type]
    x = torch.randn(5, 2, 9)
    found = load_exported(tmp_path)
    np.testing.assert_allclose(found(x.numpy()), ensemble(x).softmax(1).detach().numpy(), atol=1e-6)
    content = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(content.replace("gru,cnn1d", "gru,mlp"))
    with pytest.raises(UserError, match="weight members"):
        load_exported(tmp_path)


# members apart


def test_the_spread_of_a_prediction_holds_disagreement_beside_draws() -> None:
    x = torch.randn(6, 8)
    ones = members()
    ensemble = Ensemble(ones, "classification").eval()
    each = torch.stack([one(x).softmax(1) for one in ones])
    found, apart = predict_apart(ensemble, x)
    torch.testing.assert_close(found.mean, each.mean(0))
    torch.testing.assert_close(apart, each)
    torch.testing.assert_close(found.spread, each.std(0))
    inject_noise(ensemble)
    draws = []
    with sampling(ensemble), forked_rng(x.device):
        torch.manual_seed(3)
        for _ in range(5):
            draws.append(torch.stack([one(x).softmax(1) for one in ones]))
    noisy = predict(ensemble, x, 5, seed=3)
    torch.testing.assert_close(noisy.mean, torch.stack(draws).mean((0, 1)))
    torch.testing.assert_close(noisy.spread, torch.stack(draws).flatten(0, 1).std(0))
    assert not ensemble.apart


def test_members_are_evaluated_one_by_one() -> None:
    x, y = torch.randn(50, 8), torch.arange(50) % 3
    ones = members()
    found = evaluate(Ensemble(ones, "classification"), Classification(), [(x[:30], y[:30]), (x[30:], y[30:])], 1)
    assert found.members is not None
    torch.testing.assert_close(found.members, torch.stack([one(x).softmax(1) for one in ones]))
    assert evaluate(ones[0], Classification(), [(x, y)], 1).members is None


def test_how_much_members_differ() -> None:
    probabilities = F.one_hot(torch.tensor([[0, 1, 2, 0], [0, 1, 1, 1], [0, 1, 2, 1]]), 3).double() * 0.7 + 0.1
    found = diversity(probabilities, torch.tensor([0, 1, 2, 2]))
    assert [one["accuracy"] for one in found.scores] == [0.75, 0.5, 0.75]
    assert found.disagreement == pytest.approx((0.5 + 0.25 + 0.25) / 3)
    wrong = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    expected = np.mean([np.corrcoef(wrong)[0, 1], np.corrcoef(wrong)[0, 2], np.corrcoef(wrong)[1, 2]])
    assert found.error_correlation == pytest.approx(expected)
    right = diversity(probabilities[:, :2], torch.tensor([0, 1]))
    assert np.isnan(right.error_correlation)


def test_how_much_numbers_differ() -> None:
    numbers = torch.tensor([[[1.0], [2.0], [3.0]], [[1.0], [4.0], [1.0]]])
    found = diversity(numbers, torch.tensor([[1.5], [2.0], [2.0]]))
    assert [one["rmse"] for one in found.scores] == pytest.approx([(1.25 / 3) ** 0.5, (5.25 / 3) ** 0.5])
    assert found.disagreement == pytest.approx((8 / 3) ** 0.5)
    assert found.error_correlation == pytest.approx(np.corrcoef([-0.5, 0, 1], [-0.5, 2, -1])[0, 1])


def test_the_best_alone_has_a_temperature_of_its_own() -> None:
    torch.manual_seed(0)
    logits = torch.randn(400, 3)
    y = torch.distributions.Categorical(logits=logits).sample()
    bad = torch.randn(400, 3)
    found = best_alone(torch.stack([bad.softmax(1), (3 * logits).softmax(1)]), y, temperature=1.5)
    assert found.member == 1
    assert found.temperature == pytest.approx(1.5 * 3, rel=0.2)
    target = torch.randn(400, 1)
    numbers = torch.stack([target + 0.2 * torch.randn(400, 1), target + 0.5 * torch.randn(400, 1)])
    one = best_alone(numbers, target, 1.0)
    assert (one.member, one.temperature) == (0, pytest.approx(0.2, rel=0.1))


# with shared weights


def shared(**options: Any) -> SharedMLP:
    torch.manual_seed(0)
    return SharedMLP(3, "classification", input_shape=(4,), num_outputs=3, hidden=8, depth=2, **options)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_members_with_shared_weights_are_networks_of_their_own(norm: str) -> None:
    model = shared(norm=norm)
    x = torch.randn(50, 4)
    for _ in range(3):
        model.train()(x)  # running statistics
    model.eval()
    each = model.each(x)
    for member in range(3):
        torch.testing.assert_close(model.alone(member)(x), each[member])
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    torch.testing.assert_close(model(x).softmax(1), each.softmax(2).mean(0))
    rows = model.dealt(x)
    parts = [part for part in x.tensor_split(3)]
    torch.testing.assert_close(rows, torch.cat([model.alone(m)(part) for m, part in enumerate(parts)]))
    assert sum(p.numel() for p in model.parameters()) < 2 * sum(p.numel() for p in model.alone(0).parameters())


def test_a_member_alone_keeps_the_noise_of_its_layers() -> None:
    model = inject_noise(shared(), initial_sigma=0.3).eval()
    x = torch.randn(5, 4)
    inside: SharedMLP = model  # type: ignore[assignment]
    alone = inside.alone(1)
    torch.testing.assert_close(alone(x), inside.each(x)[1])
    plain = inject_noise(build("mlp", input_shape=(4,), num_outputs=3, hidden=8, depth=2), temperature=False)
    plain.load_state_dict(alone.state_dict())
    torch.testing.assert_close(predict(alone, x, 4, seed=1).mean, predict(plain, x, 4, seed=1).mean)
    assert float(predict(alone, x, 4, seed=1).spread.max()) > 0


def test_a_linear_skip_is_shared_and_goes_with_a_member_alone() -> None:
    model = shared(linear_skip=True)
    x = torch.randn(6, 4)
    assert not model.train()(x).any()  # of zeros, before it is set or trained
    skip = model.skip
    assert skip is not None
    with torch.no_grad():
        skip.weight.normal_()
        model.weight.normal_()
    model.eval()
    exact = x.double() @ skip.weight.detach().double().T
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(skip(x).double(), exact, atol=1e-5, rtol=1e-5)
    plain = build("mlp", input_shape=(4,), num_outputs=3, hidden=8, depth=2, linear_skip=True).eval()
    plain.load_state_dict(model.alone(2).state_dict())
    torch.testing.assert_close(plain(x), model.each(x)[2])


@pytest.mark.parametrize("style", ["independent", "shared"])
def test_a_linear_skip_is_there_or_not(style: Any) -> None:
    with pytest.raises(UserError, match="linear_skip of 'mlp' must be true or false, not 'maybe'"):
        build_ensemble("mlp", 2, "regression", style, input_shape=(4,), num_outputs=1, options={"linear_skip": "maybe"})


@pytest.mark.parametrize("linear_skip", [False, True])
def test_a_model_with_shared_weights_is_exported_and_loaded(tmp_path: Path, linear_skip: bool) -> None:
    model = shared(linear_skip=linear_skip).eval()
    options = {"hidden": 8, "depth": 2, "linear_skip": linear_skip}
    about = {"input_shape": (4,), "num_outputs": 3, "options": options, "members": 3}
    preprocess = Preprocess(torch.zeros(4), torch.ones(4))
    export_model(model, preprocess, tmp_path, name="mlp", style="shared", **about)  # type: ignore[arg-type]
    x = torch.randn(5, 4)
    np.testing.assert_allclose(load_exported(tmp_path)(x.numpy()), model(x).softmax(1).detach().numpy(), atol=1e-6)


def test_other_networks_share_no_weights() -> None:
    with pytest.raises(UserError, match="the networks cnn cannot share weights; 'mlp' alone has a shared form"):
        build_ensemble("cnn", 2, "classification", "shared", input_shape=(1, 8, 8), num_outputs=3, options={})
