from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg.prediction.calibration import TEMPERATURE_PRIOR
from crossreg.services.comparison.outcome import best_of, curve_of, outcome_of, utilization_of
from crossreg.services.search.evaluate import final_evaluation
from crossreg.services.search.run import run_search
from crossreg.services.search.search import Proposals, Search, SearchError, TrialResult
from crossreg.services.search.spec import Record, TrialSpec, selection_score
from crossreg.services.search.trial import States, Trial, schedule_of
from crossreg.services.training.result import calibrated
from crossreg.training.compute import Cost
from tests.services.search.population import SIZE, all_cpus, digits, sigma, spec

DIVERGED, IMPATIENT = 2, 5
LENGTH: dict[str, Any] = {"steps": 300, "evaluations": 3, "final_test": False, "interim_test": 100}


def trials() -> list[TrialSpec]:
    """Return more trials than CPUs; one diverges, and one diverges and is impatient."""
    return [
        spec(
            seed=index,
            optimizer={"lr": 1e30 if index in (DIVERGED, IMPATIENT) else 1e-3},
            stopping={"patience": 1} if index == IMPATIENT else {},
            **LENGTH,
        )
        for index in range(SIZE + 2)
    ]


def values() -> list[dict[str, float]]:
    return [sigma(0.1 * 2**index) for index in range(SIZE + 2)]


def data(ray: Any) -> dict[str, Any]:
    return {digits().fingerprint: ray.put(digits())}


@pytest.fixture(scope="module")
def plain(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> list[TrialResult]:
    """Trials that need nothing from one another."""
    all_cpus()
    return run_search(Search(trials(), values()), data(ray_cluster), tmp_path_factory.mktemp("plain"))


@pytest.mark.ray
def test_trials_run_side_by_side_and_never_more_than_cpus(plain: list[TrialResult]) -> None:
    spans = [(record.began, record.ended) for result in plain for record in result.records]
    at_once = [sum(began <= time < ended for began, ended in spans) for time, _ in spans]
    assert 2 <= max(at_once) <= SIZE
    assert [result.index for result in plain] == list(range(SIZE + 2))
    assert [result.records[0].given for result in plain] == values()
    assert [result.spec for result in plain] == trials()


@pytest.mark.ray
def test_a_trial_that_gets_no_better_ends_early(plain: list[TrialResult]) -> None:
    assert [record.until for record in plain[IMPATIENT].records] == [100, 200]
    assert [result.complete for result in plain] == [index != IMPATIENT for index in range(SIZE + 2)]
    assert all(result.error is None for result in plain)


@pytest.mark.ray
def test_a_search_trains_what_a_trial_in_this_process_does(plain: list[TrialResult], tmp_path: Path) -> None:
    trial = Trial(trials()[1], {}, {digits().fingerprint: digits()}, States(tmp_path))
    trial.continue_from(None, values()[1])
    records = [trial.advance() for _ in range(3)]
    assert [record.scores for record in plain[1].records] == [record.scores for record in records]
    assert [record.state for record in plain[1].records] == [record.state for record in records]


@pytest.mark.ray
def test_the_chosen_one_is_evaluated_as_a_whole_run_would_be(plain: list[TrialResult], tmp_path: Path) -> None:
    """Members of a search see a part of the test split and few draws; the chosen one all and `final_samples`."""
    whole = spec(seed=0, optimizer={"lr": 1e-3}, **{**LENGTH, "final_test": True})
    trial = Trial(whole, {}, {digits().fingerprint: digits()}, States(tmp_path))
    trial.continue_from(None, values()[0])
    expected = [trial.advance() for _ in range(3)][-1]
    member = plain[0]
    scores, predictions = final_evaluation(member, member.final)
    for split in ("reg", "test"):
        assert scores[split] == pytest.approx(expected.scores[split], rel=1e-5)
        assert member.final.scores[split]["nll"] != pytest.approx(expected.scores[split]["nll"], rel=1e-5)
    assert len(predictions["test"]["mean"]) == len(digits().test)
    # one that was stopped early has its interval's scores
    early = member.records[0]
    scores, predictions = final_evaluation(member, member.records[-2])
    assert scores == member.records[-2].scores != early.scores
    assert len(predictions["test"]["mean"]) == 100


@pytest.mark.ray
def test_an_outcome_is_of_all_trials_and_of_the_chosen_one(plain: list[TrialResult]) -> None:
    chosen = best_of(plain)
    outcome = outcome_of(plain, chosen, method="some", budget="full", seed=0, utilization=0.5)
    records = [record for result in plain for record in result.records]
    assert outcome.cost.examples == sum(record.cost.examples for record in records)
    assert outcome.cost.worker_seconds == pytest.approx(sum(record.cost.worker_seconds for record in records))
    assert outcome.trials == SIZE + 2
    assert outcome.utilization == 0.5
    assert outcome.schedule == schedule_of(plain[0].states.lineage(chosen.state))
    assert len(outcome.members) == SIZE + 2
    assert outcome.regularizers == chosen.hyperparameters
    assert math.isfinite(outcome.temperature)
    assert sum(outcome.reliability["count"]) == len(digits().test)
    # its scores are of the whole split, the curve's of the hundred test examples of all points
    owner = next(result for result in plain if chosen in result.records)
    scores, predictions = final_evaluation(owner, chosen)
    assert outcome.test == scores["test"]
    rows = torch.linspace(0, len(digits().test) - 1, 100).round().long()
    accuracy = (predictions["test"]["mean"][rows].argmax(1) == predictions["test"]["targets"][rows]).float().mean()
    assert outcome.curve[-1].test["accuracy"] == pytest.approx(float(accuracy))
    assert outcome.curve[:-1] == curve_of(plain)[:-1]


@pytest.mark.ray
def test_a_curve_adds_up(plain: list[TrialResult]) -> None:
    curve = curve_of(plain)
    records = [record for result in plain for record in result.records]
    assert len(curve) == len(records)
    for before, after in itertools.pairwise(curve):
        assert after.step > before.step
        assert after.cost.flops > before.cost.flops
        assert after.cost.worker_seconds > before.cost.worker_seconds
    assert curve[-1].step == sum(result.final.until for result in plain)
    assert curve[-1].cost.examples == sum(record.cost.examples for record in records)
    leader = min((result.final for result in plain), key=lambda record: record.score("reg", "nll"))
    assert (curve[-1].reg, curve[-1].test) == (leader.scores["reg"], leader.scores["test"])


@pytest.mark.ray
def test_the_best_is_complete_and_has_a_score(plain: list[TrialResult]) -> None:
    finite = [result for index, result in enumerate(plain) if index not in (DIVERGED, IMPATIENT)]
    best = best_of(plain)
    assert best.score("reg", "nll") == min(result.final.score("reg", "nll") for result in finite)
    accurate = best_of(plain, "accuracy")
    assert accurate.scores["reg"]["accuracy"] == max(result.final.scores["reg"]["accuracy"] for result in finite)
    assert best_of([plain[DIVERGED], plain[0]]) == plain[0].final
    assert best_of([plain[0], plain[DIVERGED]], "accuracy") == plain[0].final
    assert best_of([plain[DIVERGED]]) == plain[DIVERGED].final
    assert best_of([plain[IMPATIENT], plain[DIVERGED]]) == plain[DIVERGED].final
    assert selection_score(plain[DIVERGED].final, "accuracy") == math.inf


@pytest.mark.ray
@pytest.mark.thorough
def test_a_limit_is_kept_within_one_interval(ray_cluster: Any, tmp_path: Path, plain: list[TrialResult]) -> None:
    interval = max(record.cost.examples for record in plain[0].records)
    limit = 8 * interval
    seen: list[Record] = []
    results = run_search(
        Search(trials(), values(), limit=("examples", limit)),
        data(ray_cluster),
        tmp_path,
        watch=lambda index, spec, record: seen.append(record),
    )
    spent = sum(result.cost.examples for result in results)
    assert limit - SIZE * interval < spent <= limit + interval
    assert spent < sum(result.cost.examples for result in plain)
    assert spent == sum(record.cost.examples for record in seen)


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_fails_says_why(ray_cluster: Any, tmp_path: Path) -> None:
    bad = [sigma(0.5), {"noise/00_norm7": 0.5}]
    with pytest.raises(
        SearchError, match=r"trial 1 of 2 .*no hyperparameter 'noise/00_norm7'; did you mean 'noise/00_norm1'"
    ):
        search = Search([spec(seed=0), spec(seed=1)], bad)
        run_search(search, data(ray_cluster), tmp_path, max_failures=0, cpus_per_trial=SIZE)  # one after the other


def test_a_search_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        run_search(Search([]), {}, tmp_path)


def test_proposals_are_kept_once_and_a_torn_line_is_none(tmp_path: Path) -> None:
    proposals = Proposals(tmp_path / "proposals.jsonl")
    assert proposals.read() == []
    for value in (0.5, 0.7, 0.5):
        proposals.add(sigma(value))
    assert proposals.read() == [sigma(0.5), sigma(0.7)]
    with proposals.path.open("a") as file:
        file.write('{"noise/00_no')
    assert proposals.read() == [sigma(0.5), sigma(0.7)]


# by hand, without Ray


def made(spans: list[tuple[float, float]], nll: float = 0.5) -> TrialResult:
    records = [
        Record(
            state=f"{began}-{ended}", parent=None, spec="", until=40, given={}, hyperparameters={}, metrics=[],
            scores={"reg": {"nll": nll}}, cost=Cost(flops=1), peak_memory_bytes=0, began=began, ended=ended,
        )
        for began, ended in spans
    ]  # fmt: skip
    return TrialResult(0, spec(), records, None, None)  # type: ignore[arg-type]


def test_utilization_by_hand() -> None:
    # from 2 to 6, on two slots: the first trains 2, the second 1 + 1, and nobody in between
    assert utilization_of([made([(0, 2), (2, 4)]), made([(1, 3), (5, 6)])]) == pytest.approx(4 / 8)
    assert utilization_of([made([(0, 2), (2, 4), (4, 6)])]) == pytest.approx(1.0)
    assert utilization_of([made([(0, 2), (2, 6)]), made([(0, 2), (2, 6)])]) == pytest.approx(1.0)
    assert utilization_of([made([(0, 2), (4, 6)])]) == pytest.approx(0.5)
    assert math.isnan(utilization_of([made([(0, 2)])]))


def test_temperature_scaling_is_fitted_on_the_regularization_split() -> None:
    """The temperature is where the regularization NLL is least, and test scores are those of p^(1/T), normalized."""
    generator = torch.Generator().manual_seed(0)

    def split(rows: int) -> dict[str, torch.Tensor]:
        targets = torch.randint(0, 5, (rows,), generator=generator)
        logits = torch.randn(rows, 5, generator=generator) + 2 * torch.nn.functional.one_hot(targets, 5)
        return {"mean": (6 * logits).softmax(1), "targets": targets}  # too sure by a factor of about three

    predictions = {"reg": split(400), "test": split(300)}

    def nll(part: str, temperature: float) -> float:
        logits = predictions[part]["mean"].double().log() / temperature
        return float(torch.nn.functional.cross_entropy(logits, predictions[part]["targets"]))

    found = calibrated(predictions)
    scores, temperature = found["test_scaled"], found["temperature"]
    assert 2 < temperature < 4

    def with_prior(temperature: float) -> float:
        return nll("reg", temperature) + (math.log(temperature) / TEMPERATURE_PRIOR) ** 2 / (2 * 400)

    best = with_prior(temperature)
    assert all(with_prior(temperature * factor) > best for factor in (0.9, 0.97, 1.03, 1.1))
    assert scores["nll"] == pytest.approx(nll("test", temperature), rel=1e-4)
    assert scores["nll"] < nll("test", 1.0)
    accuracy = (predictions["test"]["mean"].argmax(1) == predictions["test"]["targets"]).float().mean()
    assert scores["accuracy"] == pytest.approx(float(accuracy))


def test_what_cannot_be_scaled_is_left_out() -> None:
    good = {"mean": torch.full((4, 2), 0.5), "targets": torch.tensor([0, 1, 0, 1])}
    diverged = {**good, "mean": torch.full((4, 2), math.nan)}
    regression = {"mean": torch.zeros(4, 1), "targets": torch.zeros(4, 1)}
    for predictions in ({"test": good}, {"test": diverged, "reg": good}, {"test": good, "reg": diverged},
                        {"test": regression, "reg": regression}):  # fmt: skip
        found = calibrated(predictions)
        assert "test_scaled" not in found
        assert "temperature" not in found
    assert calibrated({"test": good, "reg": good})["test_scaled"] != {}
