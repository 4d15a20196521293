from __future__ import annotations

import io
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossreg import Batches, Callback, CrossRegularizer, EvaluationPlan, Trainer, UserError, inject_noise
from crossreg.models import Ensemble
from crossreg.prediction.calibration import fit_temperature
from crossreg.training.averaging import averaged
from crossreg.training.budget import Budget
from crossreg.training.course import Course, CourseSettings
from tests.crossreg.conftest import small_model

RATE = 2e-2


def data(rows: int, seed: int, flipped: float = 0.3) -> tuple[Tensor, Tensor]:
    """Three classes, some of them wrong: what is learned by heart is worse on other rows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator)
    y = x[:, :3].argmax(1)
    wrong = torch.rand(rows, generator=generator) < flipped
    return x, torch.where(wrong, torch.randint(0, 3, (rows,), generator=generator), y)


def trainer(steps: int = 2_000, learn: bool = False, settings: CourseSettings | None = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model: nn.Module = Ensemble([nn.Sequential(small_model(), nn.Dropout(0.1)) for _ in range(2)], "classification")
    inject_noise(model)
    train, reg, test = (Batches(*data(rows, seed), 16, seed=seed, drop_last=True) for rows, seed in
                        ((48, 1), (480, 2), (256, 3)))  # fmt: skip
    judged = {"reg": Batches(reg.x, reg.y, 480, shuffle=False), "test": Batches(test.x, test.y, 256, shuffle=False)}
    both = Batches(torch.cat([train.x, reg.x]), torch.cat([train.y, reg.y]), 16, seed=4, drop_last=True)
    regularizer = CrossRegularizer(model, "classification", reg, interval=10) if learn else None
    theta = regularizer.theta if regularizer else [p for p in model.parameters() if p.requires_grad]
    return Trainer(
        model,
        "classification",
        torch.optim.AdamW(theta, lr=RATE),
        train,
        regularizer=regularizer,
        steps=steps,
        evaluation=EvaluationPlan(splits=judged, selection={"reg"}),
        course=Course(both, settings=settings or CourseSettings(first_steps=3)),
        **options,
    )


class Record(Callback):
    def __init__(self) -> None:
        self.values: list[tuple[int, dict[str, float]]] = []

    def on_metrics(self, trainer: Trainer, values: dict[str, float]) -> None:
        self.values.append((trainer.step, values))


@cache
def undisturbed(learn: bool) -> tuple[Trainer, Record]:
    record = Record()
    run = trainer(learn=learn, callbacks=(record,))
    run.fit()
    return run, record


def test_it_stops_by_itself_and_cools_down_from_the_kept_check() -> None:
    run, record = undisturbed(learn=False)
    course = run.course
    assert course is not None
    assert course.cooling
    assert 0 < course.kept_step < course.ended_at < run.step < 2_000
    assert course.ended_at >= 200
    assert course.ended_at >= 2 * course.kept_step
    assert run.step == run.num_steps == course.ended_at + int(0.3 * course.kept_step)
    rates = {step: values["theta/learning_rate"] for step, values in record.values if "theta/learning_rate" in values}
    assert rates[course.ended_at // 10 * 10] == RATE
    cooling = [rate for step, rate in rates.items() if step > course.ended_at]
    assert cooling == sorted(cooling, reverse=True)
    assert 0 < cooling[-1] < 0.1 * RATE


def test_checks_lie_at_growing_steps_and_are_recorded() -> None:
    record = Record()
    run = trainer(callbacks=(record,), settings=CourseSettings())
    run.fit()
    checks = [step for step, values in record.values if "course/held_out" in values]
    assert checks[0] == 50
    assert all(later <= -(-earlier * 5 // 4) + 1 for earlier, later in pairwise(checks))
    assert all("test/nll" in values for step, values in record.values if step in checks)


def test_without_a_reason_to_stop_it_uses_what_it_may_and_no_more() -> None:
    run = trainer(steps=60, settings=CourseSettings(overrun=1e9, first_steps=3))
    run.fit()
    assert run.course is not None
    assert run.course.ended_at == 46  # the first step whose cooldown fills the rest
    assert run.step <= 60


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_run_of_a_few_steps_ends_with_scores(steps: int) -> None:
    run = trainer(steps=steps)
    latest = run.fit()
    assert run.step <= max(steps, 1)
    assert latest["test/nll"] > 0


def test_the_cooldown_begins_at_the_kept_weights_on_all_data() -> None:
    run = trainer()
    run.start()
    while not run.course.cooling:  # type: ignore[union-attr]
        run.advance(run.step + 1)
    kept = run.course._kept  # type: ignore[union-attr]
    assert kept is not None
    assert all(torch.equal(kept.model[name], value) for name, value in run.model.state_dict().items())
    assert len(run.batches) == 33
    assert run.batches is run.course.everything  # type: ignore[union-attr]


def test_the_temperature_is_that_of_weights_that_had_not_seen_the_held_out_data() -> None:
    run, _ = undisturbed(learn=False)
    assert run.course is not None
    reg = run.evaluated["reg"]
    again = fit_temperature(reg.mean.log(), reg.targets, prior=0.5)
    assert again == pytest.approx(1, abs=5e-2)  # scaled already, but for the pull of the prior
    assert len(reg.targets) == 480
    found = run.model.output_temperature[0].hyperparameters()[0].value  # type: ignore[index,union-attr]
    assert found == pytest.approx(run.course._kept.judged.temperature)  # type: ignore[union-attr]
    assert found != 1


@pytest.mark.parametrize("learn", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    "where",
    ["trunk", pytest.param("end of the trunk", marks=pytest.mark.thorough), "cooldown", "end"],
)
def test_a_run_goes_on_bit_for_bit_from_every_part_of_the_course(where: str, learn: bool) -> None:
    whole, _ = undisturbed(learn)
    assert whole.course is not None
    ended = whole.course.ended_at
    cut = {"trunk": ended // 2, "end of the trunk": ended, "cooldown": ended + 3, "end": whole.step}[where]
    first = trainer(learn=learn)
    first.start()
    first.advance(cut)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    again = trainer(learn=learn)
    again.load_state_dict(torch.load(file, weights_only=True))
    again.fit()
    assert again.step == whole.step
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert again.latest["test/nll"] == whole.latest["test/nll"]
    assert again.latest["reg/nll"] == whole.latest["reg/nll"]


def test_nothing_is_learned_from_held_out_data_once_they_are_trained_on() -> None:
    run, _ = undisturbed(learn=True)
    assert run.regularizer is not None
    assert run.course is not None
    assert run.regularizer.calls == run.course.ended_at


def test_a_network_that_diverges_ends_without_a_cooldown() -> None:
    run = trainer(steps=30)
    with torch.no_grad():
        next(iter(run.model.parameters())).fill_(float("nan"))
    run.fit()
    assert run.step == 30
    assert not run.course.cooling  # type: ignore[union-attr]


def test_a_course_takes_no_schedule_and_needs_its_split() -> None:
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    train = Batches(*data(32, 1), 16)
    with pytest.raises(UserError, match="the evaluation does not have"):
        Trainer(model, "classification", optimizer, train, steps=3, course=Course())
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    plan = EvaluationPlan(splits={"reg": train})
    with pytest.raises(UserError, match="leave out the scheduler"):
        Trainer(
            model, "classification", optimizer, train, steps=3, evaluation=plan, scheduler=schedule, course=Course()
        )


def test_a_regression_gets_the_deviation_of_an_observation() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=generator)
    y = x[:, :1] + 0.5 * torch.randn(400, 1, generator=generator)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 1))
    inject_noise(model)
    train, reg = Batches(x[:200], y[:200], 20, drop_last=True), Batches(x[200:], y[200:], 100, shuffle=False)
    run = Trainer(
        model,
        "regression",
        torch.optim.AdamW(model.parameters(), lr=1e-2),
        train,
        steps=300,
        evaluation=EvaluationPlan(splits={"reg": reg}),
        course=Course(),
    )
    run.fit()
    found = model.output_temperature[0].hyperparameters()[0].value  # type: ignore[index,union-attr]
    assert 0.45 < found < 0.8


def test_averaged_weights_are_the_weighted_mean_of_all_steps() -> None:
    model = nn.Linear(1, 1)
    average = averaged(model)
    weights = []
    for step in range(1, 60):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update_parameters(model)
        weights.append(float(step))
    # n-th weight counts by (n + 8)! / n!, which is close to n^9
    counts = torch.tensor([torch.lgamma(torch.tensor(n + 9.0)) - torch.lgamma(torch.tensor(float(n)))
                           for n in range(1, 60)], dtype=torch.float64)  # fmt: skip
    counts = (counts - counts.max()).exp()
    expected = float((counts * torch.tensor(weights, dtype=torch.float64)).sum() / counts.sum())
    assert float(average.module.weight) == pytest.approx(expected, rel=0.02)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def bounded(budget: Budget, steps: int = 4_000) -> Trainer:
    run = trainer(steps=steps, settings=CourseSettings(overrun=1e9, first_steps=3))
    assert run.course is not None
    run.course.budget = budget
    return run


@pytest.mark.parametrize("share", [0.3, pytest.param(0.6, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("unit", ["flops", "passes"])
def test_a_run_costs_no_more_than_its_budget_and_uses_it(unit: Any, share: float) -> None:
    amount = share * {"flops": 1e8, "passes": 2_000.0}[unit]
    run = bounded(Budget(amount, unit))
    run.fit()
    assert run.course is not None
    assert 0.75 * amount < run.course.budget.spent(run) <= amount  # type: ignore[union-attr]
    assert run.course.cooling
    assert "budget of" in run.course.reason()


def test_a_budget_that_is_not_used_up_changes_nothing() -> None:
    whole, _ = undisturbed(learn=False)
    run = trainer()
    run.course.budget = Budget(3_600, "seconds")  # type: ignore[union-attr]
    run.fit()
    assert run.step == whole.step
    assert run.latest["test/nll"] == whole.latest["test/nll"]
    assert run.course.reason() == whole.course.reason()  # type: ignore[union-attr]


def test_a_time_that_is_over_ends_the_trunk_at_the_first_look() -> None:
    run = bounded(Budget(1e-6, "seconds", "1us"))
    assert run.course is not None
    run.course.settings = CourseSettings()
    run.fit()
    assert (run.course.ended_at, run.step) == (8, 10)
    assert "the budget of 1us paid for no more" in run.course.reason()


@pytest.mark.parametrize("cut", [5, pytest.param(20, marks=pytest.mark.thorough)])
def test_a_bounded_run_goes_on_bit_for_bit(cut: int) -> None:
    budget = Budget(200.0, "passes")
    whole, first, again = bounded(budget), bounded(budget), bounded(budget)
    whole.fit()
    assert cut < whole.step
    first.start()
    first.advance(cut)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    again.fit()
    assert again.step == whole.step
    assert again.latest["test/nll"] == whole.latest["test/nll"]


def test_a_budget_for_a_few_steps_is_refused_with_what_they_cost() -> None:
    with pytest.raises(UserError, match=r"does not pay for 11 steps, of which each costs .* flops; give .* times"):
        bounded(Budget(1.0, "flops")).fit()


def test_a_run_that_diverges_keeps_to_its_budget_too() -> None:
    run = bounded(Budget(200.0, "passes"))
    with torch.no_grad():
        next(iter(run.model.parameters())).fill_(float("nan"))
    run.fit()
    assert not run.course.cooling  # type: ignore[union-attr]
    assert run.step < 40  # of 4,000; a check costs an eighth of the budget, and the last evaluation is one more
    assert run.course.budget.spent(run) < 300  # type: ignore[union-attr]


@pytest.mark.parametrize("learn", [False, True])
def test_what_was_not_seen_yet_is_counted_beforehand(learn: bool) -> None:
    """A budget that ends before the first check pays for that check, and for updates of rho."""
    run = trainer(learn=learn, settings=CourseSettings())
    assert run.course is not None
    run.course.budget = Budget(60.0, "passes")  # a check costs 80/3 of them
    run.fit()
    assert run.course.ended_at < 50
    assert run.course.budget.spent(run) <= 60


def test_a_budget_of_another_unit_begins_to_count_anew() -> None:
    first = bounded(Budget(600.0, "passes"))
    first.start()
    first.advance(40)
    again = bounded(Budget(3_600.0, "seconds"), steps=100)
    again.load_state_dict(first.state_dict())
    again.fit()
    assert again.step > 90
