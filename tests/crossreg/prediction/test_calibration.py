"""Scores against closed forms, brute force and scikit-learn; temperature scaling against a planted one."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor

from crossreg import calibration
from crossreg.core.errors import UserError


@pytest.fixture
def predictions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3000, 7, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(torch.softmax(logits / 2, dim=1), 1, generator=generator)[:, 0]
    return torch.softmax(logits, dim=1), targets


def two_columns(confidence: list[float], correct: list[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Give class 0 the confidences, all above one half, and make it the target where correct."""
    first = torch.tensor(confidence, dtype=dtype)
    return torch.stack([first, 1 - first], dim=1), 1 - torch.tensor(correct)


def brute_force_ece(p: Tensor, t: Tensor, edges: list[float]) -> float:
    total = 0.0
    for b in range(len(edges) - 1):
        inside = []
        for row, target in zip(p.tolist(), t.tolist(), strict=True):
            confidence = max(row)
            above = confidence >= edges[b] if b == 0 else confidence > edges[b]
            if above and confidence <= edges[b + 1]:
                inside.append((confidence, row.index(confidence) == target))
        if inside:
            gap = sum(hit for _, hit in inside) - sum(confidence for confidence, _ in inside)
            total += abs(gap) / len(p)
    return total


def test_scores_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    t = torch.tensor([0, 2, 2, 1])
    scores = calibration.score(p, t)
    assert scores.accuracy == 0.5  # the tie of the last row goes to class 0
    assert scores.nll == pytest.approx((math.log(2) + math.log(8) + 0 + math.log(2)) / 4, rel=1e-14)
    distances = (0.25 + 2 * 0.0625, 0.75**2 + 0.875**2 + 0.125**2, 0, 0.5)
    assert scores.brier == pytest.approx(sum(distances) / 4, rel=1e-14)
    # three bins in use: 0.5 and 0.5 (one right), 0.75 (wrong), 1.0 (right)
    assert scores.ece == pytest.approx((2 * 0 + 0.75 + 0) / 4, rel=1e-14)
    assert scores.as_dict() == {
        "accuracy": 0.5,
        "nll": scores.nll,
        "brier": scores.brier,
        "ece": scores.ece,
    }


def test_uniform_predictions_have_the_closed_forms() -> None:
    t = torch.arange(1000) % 10
    scores = calibration.score(torch.full((1000, 10), 0.1), t)
    assert scores.accuracy == 0.1
    assert scores.nll == pytest.approx(math.log(10), rel=1e-7)
    assert scores.brier == pytest.approx(0.9, rel=1e-7)
    assert scores.ece == pytest.approx(0, abs=1e-8)


def test_scores_match_scikit_learn(predictions: tuple[Tensor, Tensor]) -> None:
    p, t = predictions
    labels = list(range(7))
    assert calibration.nll(p, t) == pytest.approx(log_loss(t, p.numpy(), labels=labels), rel=1e-12)
    expected = brier_score_loss(t, p.numpy(), labels=labels, scale_by_half=False)
    assert calibration.brier(p, t) == pytest.approx(expected, rel=1e-12)
    binary = p[:, :1] + p[:, 1:2], (t > 1).long()
    both = torch.cat([binary[0], 1 - binary[0]], dim=1)
    one_column = brier_score_loss(binary[1], both[:, 1].numpy())
    assert calibration.brier(both, binary[1]) == pytest.approx(2 * one_column, rel=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bins", [10, 15])
def test_diagram_matches_scikit_learn(predictions: tuple[Tensor, Tensor], adaptive: bool, bins: int) -> None:
    p, t = predictions
    diagram = calibration.reliability(p, t, bins, adaptive)
    confidence, predicted = p.max(dim=1)
    # 3000 is a multiple of the bins, so interpolated quantiles part the predictions as order statistics do
    accuracy, mean = calibration_curve(
        (predicted == t).numpy(),
        confidence.numpy(),
        n_bins=bins,
        strategy="quantile" if adaptive else "uniform",
    )
    filled = diagram.count > 0
    assert diagram.accuracy[filled].tolist() == pytest.approx(accuracy.tolist(), rel=1e-12)
    assert diagram.confidence[filled].tolist() == pytest.approx(mean.tolist(), rel=1e-12)
    assert diagram.count.sum() == 3000
    if adaptive:
        assert diagram.count.tolist() == [3000 // bins] * bins


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("bins", [1, 4, 15, 100])
def test_ece_equals_brute_force(
    predictions: tuple[Tensor, Tensor], dtype: torch.dtype, adaptive: bool, bins: int
) -> None:
    p, t = predictions[0][:500].to(dtype), predictions[1][:500]
    edges = calibration.reliability(p, t, bins, adaptive).edges.tolist()
    if adaptive:
        assert edges[0] == p.max(dim=1).values.min()
        assert edges[-1] == p.max()
    else:
        assert edges == pytest.approx([b / bins for b in range(bins + 1)], rel=torch.finfo(dtype).eps)
    assert calibration.ece(p, t, bins, adaptive) == pytest.approx(brute_force_ece(p, t, edges), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_confidence_of_one_falls_in_the_last_bin(dtype: torch.dtype) -> None:
    p, t = two_columns([1.0, 0.96875, 1.0], [1, 0, 0], dtype)
    diagram = calibration.reliability(p, t)
    assert diagram.count.tolist() == [0] * 14 + [3]
    assert diagram.accuracy[-1] == pytest.approx(1 / 3)
    assert diagram.ece == pytest.approx(2.96875 / 3 - 1 / 3, rel=1e-12)


def test_confidence_above_one_by_rounding_falls_in_the_last_bin() -> None:
    p = torch.tensor([[1.0000001, 0.0]])
    assert p.max() > 1
    assert calibration.reliability(p, torch.tensor([0])).count.tolist() == [0] * 14 + [1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_confidence_on_an_edge_falls_below_it_in_every_dtype(dtype: torch.dtype) -> None:
    p, t = two_columns([0.6, 0.7, 0.8, 0.9], [1, 1, 0, 1], dtype)
    assert calibration.reliability(p, t, bins=10).count.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]


def test_empty_bins_are_nan_and_weigh_nothing() -> None:
    p, t = two_columns([0.75, 0.75], [1, 0], torch.float32)
    diagram = calibration.reliability(p, t, bins=4)
    assert diagram.count.tolist() == [0, 0, 2, 0]
    assert diagram.confidence.isnan().tolist() == [True, True, False, True]
    assert diagram.accuracy.isnan().tolist() == [True, True, False, True]
    assert diagram.ece == 0.25


def test_equal_confidences_share_an_adaptive_bin() -> None:
    p, t = two_columns([0.75] * 6 + [0.875] * 2, [1, 0] * 4, torch.float64)
    for order in (torch.arange(8), torch.arange(7, -1, -1)):
        diagram = calibration.reliability(p[order], t[order], bins=4, adaptive=True)
        assert sorted(diagram.count.tolist()) == [0, 0, 2, 6]
        assert diagram.ece == pytest.approx((6 * 0.25 + 2 * 0.375) / 8, rel=1e-14)


def test_more_adaptive_bins_than_examples() -> None:
    p, t = two_columns([0.6, 0.7, 0.9], [1, 0, 1], torch.float64)
    assert calibration.ece(p, t, bins=10, adaptive=True) == pytest.approx((0.4 + 0.7 + 0.1) / 3)


def test_underflow_gives_a_finite_nll() -> None:
    p, t = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    assert calibration.nll(p, t) == pytest.approx(-math.log(torch.finfo(torch.float32).tiny), rel=1e-12)


def test_other_integer_targets_and_gradients_are_accepted() -> None:
    p = torch.tensor([[0.5, 0.5], [0.25, 0.75]], requires_grad=True)
    assert calibration.score(p, torch.tensor([0, 1], dtype=torch.uint8)).accuracy == 1


def test_one_row_predictions_of_a_million_examples() -> None:
    p = torch.rand(1_000_000, 1, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    diagram = calibration.reliability(torch.cat([p, 1 - p], dim=1), torch.zeros(1_000_000, dtype=torch.int64))
    assert diagram.count.sum() == 1_000_000
    assert diagram.ece == pytest.approx(float(1 - p.double().mean()), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("planted", [0.3, 1.0, 2.5, 20.0])
def test_fit_temperature_recovers_a_planted_one(planted: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(40_000, 5, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator)[:, 0]
    scaled = (planted * logits).to(dtype)
    fitted = calibration.fit_temperature(scaled, targets)
    assert fitted == pytest.approx(planted, rel=0.02)  # about two standard errors of the estimate
    # rescaling the logits rescales the fit exactly, and log-probabilities carry the same information
    assert calibration.fit_temperature(scaled / planted, targets) * planted == pytest.approx(fitted, rel=1e-5)
    assert calibration.fit_temperature(scaled.log_softmax(1), targets) == pytest.approx(fitted, rel=1e-5)


def test_fitted_temperature_is_the_minimum_of_the_nll(predictions: tuple[Tensor, Tensor]) -> None:
    p, t = predictions
    fitted = calibration.fit_temperature(p.log(), t)

    def loss(temperature: float) -> float:
        return calibration.nll(calibration.apply_temperature(p.log(), temperature), t)

    assert loss(fitted) < min(loss(fitted * 0.999), loss(fitted * 1.001), loss(1.0))
    h = 1e-5
    assert (loss(fitted + h) - loss(fitted - h)) / (2 * h) == pytest.approx(0, abs=1e-9)


def test_temperature_stops_at_its_range_and_is_one_where_it_makes_no_difference() -> None:
    smallest, largest = calibration.TEMPERATURE_RANGE
    logits = torch.tensor([[9.0, 0.0, -1.0], [0.0, 12.0, 3.0]])
    assert calibration.fit_temperature(logits, torch.tensor([0, 1])) == smallest
    assert calibration.fit_temperature(1e-3 * logits, torch.tensor([0, 1])) == smallest
    assert calibration.fit_temperature(logits, torch.tensor([2, 0])) == largest
    assert calibration.fit_temperature(torch.full((4, 3), 7.0), torch.tensor([0, 1, 2, 0])) == 1.0


def test_temperature_of_log_probabilities_with_minus_infinity() -> None:
    logits = torch.tensor([[0.0, -math.inf], [0.0, -1.0], [-1.0, 0.0], [0.0, -2.0]])
    targets = torch.tensor([1, 0, 1, 0])
    fitted = calibration.fit_temperature(logits, targets)
    assert 1 < fitted <= calibration.TEMPERATURE_RANGE[1]
    probabilities = calibration.apply_temperature(logits, fitted)
    assert math.isfinite(calibration.nll(probabilities, targets))


def test_apply_temperature_keeps_shape_dtype_and_order() -> None:
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    p = calibration.apply_temperature(logits, 3.0)
    assert p.shape == logits.shape
    assert p.dtype == logits.dtype
    assert not p.requires_grad
    torch.testing.assert_close(p, torch.softmax(logits.detach() / 3, dim=-1))
    assert torch.equal(p.argsort(dim=-1), logits.argsort(dim=-1))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_apply_temperature_refuses(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature must be a positive number"):
        calibration.apply_temperature(torch.zeros(1, 2), temperature)


HALF = torch.full((2, 2), 0.5)
ZEROS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("p", "t", "message"),
    [
        (HALF[0], ZEROS, r"given are \(2,\) torch.float32 and \(2,\) torch.int64"),
        (HALF, ZEROS[:1], r"given are \(2, 2\)"),
        (HALF, HALF.long(), r"and \(2, 2\) torch.int64"),
        (HALF[:0], ZEROS[:0], "N >= 1"),
        (HALF[:, :1], ZEROS, "columns 1 - p and p"),
        (HALF, HALF[0], "integer targets"),
        (HALF.long(), ZEROS, "floating-point values"),
        (HALF, torch.tensor([0, 2]), r"0..1, one of the 2 classes; they span 0..2"),
        (HALF, torch.tensor([-1, 1]), "they span -1..1"),
        (HALF * 0.9, ZEROS, "row 0 sums to 0.9"),
        (torch.tensor([[0.5, 0.5], [0.9, 0.2]]), ZEROS, r"row 1 sums to 1\.1"),
        (torch.tensor([[0.5, 0.5], [math.nan, 0.5]]), ZEROS, "the smallest is nan"),
        (
            torch.tensor([[-1.5, 2.5], [0.5, 0.5]]),
            ZEROS,
            r"the smallest is -1.5, the largest 2.5. Are they logits",
        ),
    ],
)
def test_wrong_inputs_are_refused_with_their_values(p: Tensor, t: Tensor, message: str) -> None:
    for function in (
        calibration.score,
        calibration.accuracy,
        calibration.nll,
        calibration.brier,
        calibration.ece,
    ):
        with pytest.raises(UserError, match=message):
            function(p, t)


@pytest.mark.parametrize("bins", [0, -1, 2.0, True])
def test_wrong_bins_are_refused(bins: int) -> None:
    with pytest.raises(UserError, match="bins must be a positive integer"):
        calibration.ece(HALF, ZEROS, bins)


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_wrong_logits_are_refused(row: list[float]) -> None:
    with pytest.raises(UserError, match="NaN, \\+inf or a row of only -inf"):
        calibration.fit_temperature(torch.tensor([[0.0, 1.0], row]), ZEROS)
    with pytest.raises(UserError, match=r"they span 0\.\.5"):
        calibration.fit_temperature(HALF, torch.tensor([0, 5]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_single_examples_have_the_scores_as_their_means(
    predictions: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    p, t = predictions[0].to(dtype), predictions[1]
    found = calibration.example_scores(p, t)
    whole = calibration.score(p, t).as_dict()
    assert {name: tuple(values.shape) for name, values in found.items()} == dict.fromkeys(whole, (3000,))
    for name, value in whole.items():
        assert float(found[name].mean()) == pytest.approx(value, rel=1e-9), name


def test_few_examples_that_are_all_right_do_not_make_predictions_certain() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(60, 4, generator=generator)
    targets = logits.argmax(1)
    assert calibration.fit_temperature(logits, targets) == calibration.TEMPERATURE_RANGE[0]
    found = calibration.fit_temperature(logits, targets, prior=0.5)
    grid = torch.linspace(0.05, 2, 4_000, dtype=torch.float64)
    posterior = torch.stack([
        -(logits.double() / t).log_softmax(1).gather(1, targets[:, None]).sum() + t.log() ** 2 / (2 * 0.5**2)
        for t in grid
    ])  # fmt: skip
    assert 0.1 < found < 1
    assert found == pytest.approx(float(grid[posterior.argmin()]), abs=1e-3)


def test_of_many_examples_the_prior_is_hardly_felt() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5_000, 4, generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    plain = calibration.fit_temperature(logits / 3, targets)
    assert plain == pytest.approx(1 / 3, rel=0.05)
    assert calibration.fit_temperature(logits / 3, targets, prior=0.5) == pytest.approx(plain, rel=5e-3)
