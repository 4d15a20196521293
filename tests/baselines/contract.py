"""What every method of the comparison keeps to; each inherits it in `test_methods.py`."""

from __future__ import annotations

import math

import pytest

from crossreg.baselines import METHODS
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job
from tests.baselines.conftest import POPULATION, Heard


@pytest.mark.ray
@pytest.mark.slow
class Contract:
    name = ""
    trials = 1

    @pytest.fixture
    def outcome(self, ran: tuple[dict[str, Outcome], Heard]) -> Outcome:
        return ran[0][self.name]

    @pytest.fixture
    def job(self) -> Job:
        method = METHODS[self.name]
        return Job(method, method.budgets(["full"])[0], 0)

    def test_result_schema(self, outcome: Outcome) -> None:
        assert (outcome.method, outcome.seed) == (self.name, 0)
        assert set(outcome.test) == {"accuracy", "nll", "ece", "brier"}
        assert all(math.isfinite(value) for value in outcome.test.values())
        assert outcome.test["accuracy"] > 0.2  # of ten classes
        assert outcome.trials == self.trials
        assert outcome.cost.flops > 0
        assert outcome.cost.worker_seconds > 0
        assert outcome.peak_memory_bytes > 2**20
        assert sum(outcome.reliability["count"]) == 359
        assert Outcome.model_validate_json(outcome.model_dump_json()).test == outcome.test

    def test_scaled_scores_where_a_split_is_left_to_fit_on(self, outcome: Outcome) -> None:
        if self.name.endswith(("all-data", "refit")):
            assert outcome.test_scaled == {}
            assert math.isnan(outcome.temperature)
        else:
            assert outcome.test_scaled["accuracy"] == pytest.approx(outcome.test["accuracy"], abs=0.01)
            assert outcome.temperature > 0

    def test_curve_is_what_it_cost(self, outcome: Outcome) -> None:
        costs = [point.cost.flops for point in outcome.curve]
        assert costs == sorted(costs)
        if costs:  # an ensemble has scores only at its end
            assert costs[-1] == pytest.approx(outcome.cost.flops)

    def test_budget_is_kept(self, ran: tuple[dict[str, Outcome], Heard], outcome: Outcome, job: Job) -> None:
        """To one interval of one trial; and most of it is used, but by methods that stop early."""
        amount = ran[1].budgets[job].amount
        interval = max(record.cost.flops for _, _, record in ran[1].intervals[job])
        assert outcome.cost.flops <= amount + interval
        if self.name not in ("weight-decay-dropout", "pbt-async", "pbt-stock-async", "asha", "crossreg-refit"):
            # steps are whole numbers, and of a large network few are paid for
            assert outcome.cost.flops >= 0.8 * amount or outcome.cost.flops + interval > amount

    def test_cost_is_that_of_all_intervals(
        self, ran: tuple[dict[str, Outcome], Heard], outcome: Outcome, job: Job
    ) -> None:
        intervals = [record for _, _, record in ran[1].intervals[job]]
        assert outcome.cost.examples == sum(record.cost.examples for record in intervals)
        assert len({trial for trial, _, _ in ran[1].intervals[job]}) == self.trials

    def test_planning_is_seeded(self, conditions: Conditions, job: Job) -> None:
        """Equal seeds ask for equal trials, another seed for others."""

        def asked(seed: int) -> list[str]:
            run = job.method.run(conditions, seed, conditions.budget(job.budget, seed))
            request = next(run)
            run.close()
            return [spec.digest for spec in request.specs] + [str(getattr(request, "starts", ""))]

        assert asked(0) == asked(0)
        assert asked(0) != asked(1)

    def test_fair(self, conditions: Conditions, job: Job) -> None:
        """Same splits, batch, learning rate and schedule as the cross-regularized run has, same draws at the end."""
        reference = conditions.reference(0)
        run = job.method.run(conditions, 0, conditions.budget(job.budget, 0))
        for spec in next(run).specs:
            config = spec.config
            assert config.data.model_copy(update={"reg_share": None}) == reference.data.model_copy(
                update={"reg_share": None}
            )
            assert config.rows == reference.rows  # of one network
            assert (config.optimizer.lr, config.optimizer.schedule) == (
                reference.optimizer.lr,
                reference.optimizer.schedule,
            )
            assert config.final_samples == reference.final_samples
            assert config.model == reference.model
        run.close()


class Searching(Contract):
    """A method that runs a population."""

    trials = POPULATION
