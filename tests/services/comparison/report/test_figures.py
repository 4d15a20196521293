from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest

from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.report import summarize
from crossreg.services.comparison.report.estimates import estimate
from crossreg.services.comparison.report.figures import compute, differences, reliability, schedules, verdict
from crossreg.services.comparison.report.figures.compute import mean_curve
from crossreg.services.comparison.report.figures.reliability import pooled
from crossreg.services.comparison.report.figures.schedules import shown_hyperparameters
from crossreg.services.comparison.report.groups import group_outcomes
from tests.services.comparison.report.conftest import NAN, context, cost, diagram, noise, outcome, point, runs, scores


def drawn(draw: Any, outcomes: list[Outcome], **changes: Any) -> Any:
    """A figure, rendered once: what cannot be drawn fails here."""
    summary = summarize(outcomes, context(**changes))
    figure = draw(summary) if draw is differences else draw(group_outcomes(outcomes), summary)
    if figure is not None:
        figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def texts(figure: Any) -> set[str]:
    from matplotlib.text import Text

    return {text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()}


def with_curve(accuracies: list[float], total: float = 1e12, **changes: Any) -> Outcome:
    """An outcome whose curve has these accuracies, evenly over its compute."""
    num = len(accuracies)
    curve = [point(total * (k + 1) / num, {}, scores(a, 2 - a)) for k, a in enumerate(accuracies)]
    return outcome(
        **{"curve": curve, "cost": cost(total), "test": scores(accuracies[-1], 2 - accuracies[-1])} | changes
    )


def test_a_mean_curve_is_the_mean_over_seeds_at_equal_compute() -> None:
    seeds = [with_curve([0.1, 0.3, 0.5, 0.7]), with_curve([0.5, 0.7])]
    found = mean_curve(seeds, "accuracy", "flops")
    assert found is not None
    cost_, mean, low, high = found
    # the second seed begins at half its compute, and at three quarters lies half way between its points
    assert cost_ == pytest.approx([5e11, 7.5e11, 1e12])
    assert mean == pytest.approx([(0.3 + 0.5) / 2, (0.5 + 0.6) / 2, 0.7])
    assert low == pytest.approx([0.3, 0.5, 0.7])
    assert high == pytest.approx([0.5, 0.6, 0.7])


def test_a_mean_curve_leaves_out_points_without_a_score_and_ends_at_the_mean_compute() -> None:
    found = mean_curve([with_curve([math.nan, 0.4, 0.5]), with_curve([0.2, 0.6, 0.5], 3e12)], "accuracy", "flops")
    assert found is not None
    assert found[0] == pytest.approx([2e12 * 2 / 3, 2e12])
    assert found[1] == pytest.approx([0.5, 0.5])
    assert mean_curve([outcome()], "accuracy", "flops") is None
    assert mean_curve([with_curve([0.5], math.nan)], "accuracy", "flops") is None


def test_all_methods_share_the_compute_axis() -> None:
    outcomes = [
        with_curve([0.5, 0.7, 0.8]),
        with_curve([0.4, 0.6, 0.7], method="pbt", budget="matched"),
        with_curve([0.4, 0.7, 0.9], 8e12, method="pbt", budget="full"),
        outcome("ensemble", "full", cost=cost(8e12), test=scores(0.95, 0.4)),
    ]
    figure = drawn(compute, outcomes)
    accuracy, nll = figure.axes
    assert {"crossreg", "pbt (matched)", "pbt (full)", "ensemble"} <= texts(figure)
    assert {"test accuracy", "test NLL (nats)", "compute of all trials (FLOP, logarithmic)"} <= texts(figure)
    assert accuracy.get_xscale() == nll.get_xscale() == "log"
    low, high = nll.get_xlim()
    assert 5e10 < low < 1e12
    assert 8e12 < high < 2e13
    ends = {tuple(line.get_xydata()[0].round(6)) for line in nll.get_lines() if len(line.get_xdata()) == 1}
    assert ends == {(1e12, 1.2), (1e12, 1.3), (8e12, 1.1), (8e12, 0.4)}


def test_what_methods_settle_at_lies_inside_the_panel_and_an_outlier_makes_it_logarithmic() -> None:
    outcomes = [with_curve([0.1, 0.5, 0.7, 0.8]), with_curve([0.1, 0.3, 0.7, 0.6], method="none")]
    accuracy, nll = drawn(compute, outcomes).axes
    low, high = accuracy.get_ylim()
    assert 0.1 < low < 0.3
    assert 0.8 < high < 0.9
    assert 4e11 < accuracy.get_xlim()[0] < 5e11  # where the first line comes in, not where it begins
    assert nll.get_yscale() == "linear"
    far = outcome("fixed", test=scores(0.1, 40.0))
    _, nll = drawn(compute, [*outcomes, far]).axes
    assert nll.get_yscale() == "log"
    assert nll.get_ylim()[1] > 40


def test_a_method_that_diverged_is_named_so() -> None:
    lost = with_curve([0.3, math.nan], method="fixed", seed=1, test=NAN)
    figure = drawn(compute, [with_curve([0.5, 0.8]), with_curve([0.5, 0.8], method="fixed"), lost])
    assert "fixed, 1 of 2 diverged" in texts(figure)
    # the seed that ended well is drawn alone
    lines = [line.get_ydata().tolist() for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 1]
    assert lines == [[0.5, 0.8], [0.5, 0.8]]
    alone = drawn(compute, [with_curve([0.5, 0.8]), lost])
    assert "fixed, 1 of 1 diverged" in texts(alone)
    assert any(0.3 in np.round(line.get_ydata(), 9) for line in alone.axes[0].get_lines())


def test_without_compute_there_is_no_figure_of_it() -> None:
    assert drawn(compute, [outcome(cost=cost(math.nan))]) is None
    assert drawn(compute, [outcome(test=NAN)]) is None


def test_twelve_methods_with_two_budgets_each_look_different() -> None:
    names = [f"method{index}" for index in range(12)]
    outcomes = [with_curve([0.5, 0.8], method=name, budget=b) for name in names for b in ("matched", "full")]
    legend = drawn(compute, outcomes).legends[0].get_lines()
    assert len(legend) == 24
    assert len({(line.get_color(), line.get_marker(), line.get_markerfacecolor()) for line in legend}) == 24
    assert len({line.get_linestyle() for line in legend}) == 2


def test_differences_are_drawn_where_they_are() -> None:
    outcomes = runs("crossreg", [0.80, 0.82, 0.81]) + runs("none", [0.75, 0.78, 0.76]) + runs("pbt", [0.9, 0.93, 0.92])
    figure = drawn(differences, outcomes)
    accuracy, nll, _ = figure.axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["none", "pbt"]
    assert accuracy.get_title(loc="left") == nll.get_title(loc="left").replace("method", "crossreg")
    assert nll.get_title(loc="right") == "crossreg better →"
    dots = {
        round(float(line.get_xdata()[0]), 6): line.get_markerfacecolor()
        for line in accuracy.get_lines()
        if line.get_marker() == "o"
    }
    assert dots == {-4.666667: "#0072B2", 10.666667: "#D55E00"}
    assert sum(line.get_marker() == "s" for line in nll.get_lines()) == 2


def test_differences_without_an_interval_are_hollow_and_without_scores_say_so() -> None:
    lost = outcome("fixed", test=NAN, test_scaled={})
    figure = drawn(differences, [*runs("crossreg", [0.8]), *runs("none", [0.7]), lost])
    dots = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in dots] == ["white"]
    assert "  no scores" in texts(figure)
    assert drawn(differences, [outcome("none"), outcome("pbt")]) is None
    assert drawn(differences, [outcome(), lost]) is None


def test_a_wide_interval_does_not_dwarf_the_others() -> None:
    outcomes = runs("crossreg", [0.80] * 3) + runs("none", [0.70, 0.71, 0.7]) + runs("pbt", [0.79, 0.90, 0.79])
    accuracy = drawn(differences, outcomes).axes[0]
    low, high = accuracy.get_xlim()
    assert -30 < low < -10  # seeds lie in -10 .. 10, the interval of pbt in -13 .. 18
    assert 10 < high < 30
    outcomes = runs("crossreg", [0.80] * 3) + runs("pbt", [0.799, 0.801, 0.80]) + runs("none", [0.8, 0.8, 0.83])
    accuracy = drawn(differences, outcomes).axes[0]
    assert {line.get_marker() for line in accuracy.get_lines()} >= {"<"}


def test_schedules_are_steps_with_the_chosen_lineage_thick() -> None:
    learned = [(0, noise(0.1, 0.1)), (30, noise(0.2, 0.4)), (60, noise(0.3, 0.9))]
    members = [[(0, noise(1.0, 2.0)), (50, noise(1.25, 1.6))], [(0, noise(0.5, 0.0)), (50, noise(0.4, 0.0))]]
    ends = [point(1e12, {}, scores(), 100)]
    outcomes = [
        outcome(schedule=learned, curve=ends),
        outcome("none", schedule=[(0, {"weight_decay": 0.1})]),
        outcome("pbt", "full", schedule=members[0], members=members, trials=2, curve=[point(8e12, {}, scores(), 200)]),
    ]
    figure = drawn(schedules, outcomes)
    assert {"crossreg, seed 0", "pbt, seed 0", "learned", "chosen", "members"} <= texts(figure)
    unit = "(standard deviations of the\nnormalized activation)"
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == [f"noise/00_norm0\n{unit}", "noise/01_norm1"]
    first, second = figure.axes[:2]
    (line,) = first.get_lines()
    assert list(line.get_xdata()) == [0, 30, 60, 100]
    assert list(line.get_ydata()) == [0.1, 0.2, 0.3, 0.3]
    assert line.get_drawstyle() == "steps-post"
    assert {line.get_xdata()[-1] for line in second.get_lines()} == {100}  # 200 steps of two members
    widths = {tuple(line.get_ydata()): line.get_linewidth() for line in second.get_lines()}
    assert widths[1.0, 1.25, 1.25] > 2 > widths[0.5, 0.4, 0.4]  # the chosen one lies over its thin line
    assert [axes.get_yscale() for axes in figure.axes] == ["log"] * 4
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    # a scale of zero has no place on a logarithmic axis: it lies at the bottom
    assert figure.axes[3].get_lines()[1].get_ydata()[0] == pytest.approx(1e-5)


def test_other_hyperparameters_have_rows_with_their_own_axes() -> None:
    learned = [(0, noise(0.1, 0.1) | {"temperature": 1.0}), (50, noise(0.3, 0.9) | {"temperature": 1.4})]
    member = [(0, {"weight_decay": 0.02, "label_smoothing": 0.1, "mine": -2.0})]
    fields = {"schedule": member, "members": [member], "trials": 2}
    figure = drawn(schedules, [outcome(schedule=learned), outcome("pbt", "full", **fields)])
    rows = {axes.get_ylabel().partition("\n")[0]: axes for axes in figure.axes[::2]}
    assert list(rows) == ["noise/00_norm0", "noise/01_norm1", "temperature", "label_smoothing", "weight_decay", "mine"]
    assert {name: axes.get_yscale() for name, axes in rows.items() if axes.lines} == {
        "noise/00_norm0": "log", "noise/01_norm1": "log", "temperature": "log"
    }  # fmt: skip
    assert rows["temperature"].get_ylabel() == "temperature\n(factor)"
    assert rows["temperature"].get_ylim() != rows["noise/00_norm0"].get_ylim()
    others = {name: axes for name, axes in zip(rows, figure.axes[1::2], strict=True) if axes.lines}
    assert {name: axes.get_yscale() for name, axes in others.items()} == {
        "label_smoothing": "linear", "weight_decay": "log", "mine": "linear"
    }  # fmt: skip
    assert sum(text.get_text() == "not in this method" for axes in figure.axes for text in axes.texts) == 6


def test_of_many_layers_six_are_shown_with_both_ends() -> None:
    many = outcome(schedule=[(0, noise(*[0.1] * 16))])
    expected = [f"noise/{index:02d}_norm{index}" for index in (0, 3, 6, 9, 12, 15)]
    assert shown_hyperparameters([many]) == {"noise": expected}
    assert len(drawn(schedules, [many]).axes) == 6
    assert len(shown_hyperparameters([outcome(schedule=[(0, noise(*[0.1] * 6))])])["noise"]) == 6
    fixed = [(step, {"l2": 0.1 / (step + 1), "weight_decay": 0.01}) for step in (0, 10)]
    assert shown_hyperparameters([outcome(schedule=fixed)]) == {"l2": ["l2"]}


def test_at_most_ten_rows_are_shown() -> None:
    norms = {f"norm/{index:02d}_conv": 0.1 for index in range(9)}
    many = outcome(schedule=[(0, noise(*[0.1] * 8) | norms | {"temperature": 1.0, "l2": 0.1})])
    found = shown_hyperparameters([many])
    assert list(found) == ["noise", "temperature", "norm", "l2"]
    assert [len(names) for names in found.values()] == [4, 1, 4, 1]
    assert found["norm"] == ["norm/00_conv", "norm/03_conv", "norm/05_conv", "norm/08_conv"]
    own = outcome(schedule=[(0, {f"own{index:02d}": 1.0 for index in range(12)})])
    assert list(shown_hyperparameters([own])) == [f"own{index:02d}" for index in range(10)]


def test_without_hyperparameters_there_are_no_schedules() -> None:
    assert drawn(schedules, [outcome(), outcome("pbt", members=[[(0, {"dropout": 0.1})]])]) is None


def test_other_searches_stand_in_where_no_population_was_run() -> None:
    fields = {"schedule": [(0, noise(0.1))], "members": [[(0, noise(0.1))], [(0, noise(math.nan))]], "trials": 2}
    figure = drawn(schedules, [outcome("none"), outcome("random-search", **fields)])
    assert "random-search, seed 0" in texts(figure)
    both = drawn(schedules, [outcome("random-search", **fields), outcome("pbt", **fields)])
    assert "pbt, seed 0" in texts(both)
    assert "random-search, seed 0" not in texts(both)


def test_bins_are_pooled_by_their_counts() -> None:
    outcomes = [
        outcome(seed=0, reliability=diagram({3: 0.2, 14: 0.9}, {3: 10, 14: 90})),
        outcome(seed=1, reliability=diagram({14: 0.6, 7: 0.5}, {14: 30, 7: 5})),
        outcome(seed=2, reliability={}),
    ]
    (group,) = group_outcomes(outcomes)
    found = pooled(group)
    assert found is not None
    assert (found.count[3], found.count[7], found.count[14], found.count.sum()) == (10, 5, 120, 135)
    assert found.accuracy[14] == pytest.approx((90 * 0.9 + 30 * 0.6) / 120)
    assert found.accuracy[3] == pytest.approx(0.2)
    assert found.confidence[14] == pytest.approx(14.5 / 15)
    assert np.isnan(found.accuracy[0])


def test_a_diagram_a_method_with_the_ece_of_the_table() -> None:
    bins = diagram({14: 0.9}, {14: 100})
    outcomes = [outcome(m, seed=s, reliability=bins, test=scores(ece=e)) for m, s, e in
                [("crossreg", 0, 0.02), ("crossreg", 1, 0.04), ("none", 0, 0.5)]]  # fmt: skip
    outcomes.append(outcome("fixed", test=NAN, reliability={}))
    figure = drawn(reliability, outcomes)
    assert [axes.get_title() for axes in figure.axes[::2]] == ["crossreg\nECE 0.030", "none\nECE 0.500"]
    assert figure.axes[0].patches[0].get_height() == pytest.approx(0.9)
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        "accuracy", "confidence above accuracy", "perfectly calibrated"
    }  # fmt: skip
    assert drawn(reliability, [outcome(reliability={})]) is None


def test_the_verdict_is_a_point_a_method_with_its_interval() -> None:
    spread = {"crossreg": [0.80, 0.82, 0.81], "pbt": [0.83, 0.84, 0.80]}
    outcomes = runs("crossreg", spread["crossreg"]) + runs("pbt", spread["pbt"], "full", cost=cost(8e12))
    figure = verdict(summarize(outcomes, context()))
    assert figure is not None
    accuracy, nll = figure.axes
    assert [axes.get_xscale() for axes in (accuracy, nll)] == ["log", "log"]
    points = {bars.get_label(): bars for bars in accuracy.containers}
    for name, place in (("crossreg", 1.0), ("pbt", 8.0)):
        line, _, (bar,) = points[name].lines
        assert line.get_xdata() == pytest.approx([place])
        assert line.get_ydata() == pytest.approx([100 * sum(spread[name]) / 3])
        ((_, low), (_, high)) = bar.get_segments()[0]
        half = 100 * estimate(dict(enumerate(spread[name]))).half_width
        assert (high - low) / 2 == pytest.approx(half)
    assert {"crossreg", "pbt"} <= texts(figure)
    pair = runs("crossreg", [0.8, 0.8]) + runs("pbt", [0.8, 0.7], "full", cost=cost(8e12))
    two = verdict(summarize(pair, context()))
    assert two is not None
    assert all(bars.has_yerr is False for bars in two.axes[0].containers)  # no interval from two seeds
    assert verdict(summarize(runs("crossreg", [0.8]), context())) is None
