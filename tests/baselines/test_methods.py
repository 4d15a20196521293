"""Every method through the contract, and what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossreg import UserError
from crossreg.baselines import METHODS
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job, run_jobs
from crossreg.services.search.search import SearchError
from tests.baselines.conftest import POPULATION, Heard, make_conditions, run_methods
from tests.baselines.contract import Contract, Searching

NOISE = ["noise/00_norm1", "noise/01_norm2"]
Ran = tuple[dict[str, Outcome], Heard]


class TestCrossReg(Contract):
    name = "crossreg"

    def test_matched_is_its_own_compute(self, outcome: Outcome, conditions: object) -> None:
        assert outcome.cost.flops == pytest.approx(make_conditions().budget("matched", 0).amount)

    def test_what_is_learned_moves(self, outcome: Outcome) -> None:
        assert outcome.learned == [*NOISE, "temperature"]
        assert all(abs(outcome.regularizers[name] - 0.1) > 1e-3 for name in NOISE)


class TestRefit(Contract):
    name = "crossreg-refit"
    trials = 2

    def test_second_run_has_the_learned_schedule(self, ran: Ran, outcome: Outcome) -> None:
        learned = ran[0]["crossreg"]
        assert outcome.regularizers == pytest.approx(learned.regularizers, rel=1e-5)
        for name in learned.learned:
            assert outcome.schedule[-1][1][name] == pytest.approx(learned.regularizers[name], rel=1e-5)


class TestNone(Contract):
    name = "none"


class TestNoneAllData(Contract):
    name = "none-all-data"

    def test_trains_on_the_regularization_split_too(self, conditions: object) -> None:
        small = make_conditions()
        split, whole = small.data(0), small.data(0, all_data=True)
        assert len(whole.train) == len(split.train) + len(split.reg)
        assert len(whole.reg) == 0
        assert (whole.test.x == split.test.x).all()


class TestFixedNoise(Contract):
    name = "fixed-noise"

    def test_noise_is_what_it_says(self, outcome: Outcome) -> None:
        assert {name: outcome.regularizers[name] for name in NOISE} == pytest.approx(dict.fromkeys(NOISE, 0.5))


class TestFixedNoiseAllData(Contract):
    name = "fixed-noise-all-data"


class TestWeightDecayDropout(Contract):
    name = "weight-decay-dropout"

    def test_takes_the_best_interval(self, ran: Ran, outcome: Outcome) -> None:
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        best = min(record.scores["reg"]["nll"] for _, _, record in ran[1].intervals[job])
        assert outcome.reg["nll"] == best


class TestTuned(Searching):
    name = "weight-decay-dropout-tuned"

    def test_searches_both(self, ran: Ran) -> None:
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        given = [record.given for _, _, record in ran[1].intervals[job]]
        assert all(set(values) == {"weight_decay", "dropout"} for values in given)
        assert len({values["dropout"] for values in given}) == POPULATION


class TestTunedSearch(Searching):
    name = "tuned-search"

    def test_fair(self, conditions: Conditions, job: Job) -> None:
        """Same splits and batch; learning rate and length are what it looks for, the first is the default."""
        reference = conditions.reference(0)
        run = job.method.run(conditions, 0, conditions.budget(job.budget, 0))
        configs = [spec.config for spec in next(run).specs]
        run.close()
        assert {config.data.model_dump_json() for config in configs} == {reference.data.model_dump_json()}
        assert {config.batch_size for config in configs} == {reference.batch_size}
        assert (configs[0].optimizer.lr, configs[0].weight_decay, configs[0].learned) == (1e-3, 0.01, [])
        assert len({config.optimizer.lr for config in configs}) == POPULATION
        assert max(config.steps for config in configs) == configs[0].steps

    def test_takes_the_best_after_temperature_scaling(self, ran: Ran, outcome: Outcome) -> None:
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        assert outcome.config is not None
        finals = {spec.config.seed: record for _, spec, record in ran[1].intervals[job]}
        assert outcome.reg["nll"] == finals[outcome.config.seed].scores["reg"]["nll"]


class TestSAM(Contract):
    name = "sam"

    def test_counts_two_gradients_a_step(self, ran: Ran, outcome: Outcome) -> None:
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        steps = ran[1].intervals[job][-1][2].until
        assert outcome.cost.examples == 2 * 32 * steps


class TestGSAM(Contract):
    name = "gsam"


class TestCPR(Contract):
    name = "cpr"

    def test_has_no_weight_decay_beside(self, ran: Ran) -> None:
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        assert ran[1].intervals[job][0][1].config.weight_decay == 0


class TestT1T2(Contract):
    name = "t1-t2"

    def test_differs_from_the_cross_regularized_run_by_its_estimator(self, ran: Ran, outcome: Outcome) -> None:
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        rho = ran[1].intervals[job][0][1].config.rho
        assert rho == make_conditions().reference(0).rho.model_copy(update={"estimator": "t1-t2"})
        assert all(outcome.regularizers[name] != pytest.approx(0.1, rel=1e-5) for name in NOISE)
        assert outcome.regularizers != pytest.approx(ran[0]["crossreg"].regularizers)


class TestMCDropout(Contract):
    name = "mc-dropout"


class TestSharedEnsemble(Contract):
    name = "ensemble-shared"


class TestWide(Contract):
    name = "wide"


class TestEnsemble(Searching):
    name = "ensemble"

    def test_averages_members(self, ran: Ran, outcome: Outcome) -> None:
        """The NLL of an average is at most the average of the NLLs (Jensen)."""
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        finals = [r.scores["reg"]["nll"] for _, spec, r in ran[1].intervals[job] if r.until == spec.steps]
        assert len(finals) == POPULATION
        assert outcome.reg["nll"] < sum(finals) / POPULATION


class TestPBT(Searching):
    name = "pbt"

    def test_chooses_the_best_at_the_end(self, ran: Ran, outcome: Outcome) -> None:
        (job,) = (job for job in ran[1].intervals if job.method.name == self.name)
        finals = {
            spec.config.seed: record.scores["reg"]["nll"]
            for _, spec, record in ran[1].intervals[job]
            if record.until == spec.steps
        }
        assert outcome.config is not None
        assert outcome.config.seed == min(finals, key=lambda seed: finals[seed])
        assert len(outcome.members) == POPULATION


class TestAsynchronousPBT(Searching):
    name = "pbt-async"


class Stock:
    """A method that is Ray Tune's own, run by itself."""

    name: str

    @pytest.fixture(scope="class")
    def ran(self, ray_cluster: None, conditions: Conditions, tmp_path_factory: pytest.TempPathFactory) -> Ran:
        heard = Heard()
        return run_methods([self.name], conditions, tmp_path_factory.mktemp(self.name), heard), heard


@pytest.mark.thorough
class TestStockPBT(Stock, Searching):
    name = "pbt-stock"


@pytest.mark.thorough
class TestStockAsynchronousPBT(Stock, Searching):
    name = "pbt-stock-async"


class TestPB2(Searching):
    name = "pb2"


class TestRandomSearch(Searching):
    name = "random-search"


class TestGrid(Searching):
    name = "grid"

    def test_one_scale_for_all_layers(self, outcome: Outcome) -> None:
        assert len({round(outcome.regularizers[name], 6) for name in NOISE}) == 1


class TestASHA(Searching):
    name = "asha"

    @pytest.fixture
    def outcome(self, ran: Ran) -> Outcome:
        # it spends what it saves on more trials, so how many is not known before
        outcome = ran[0][self.name]
        self.trials = outcome.trials
        assert outcome.trials >= POPULATION
        return outcome


class TestOptuna(Searching):
    name = "optuna"


def test_every_method_is_in_the_contract() -> None:
    tested = {kind.name for kind in (*Contract.__subclasses__(), *Searching.__subclasses__()) if kind.name}
    assert tested == set(METHODS) - {"ensemble-mixed"}


def test_a_model_without_dropout_is_refused() -> None:
    conditions = make_conditions(model="resnet18", model_options={}, data={"name": "digits", "limit": 300})
    run = METHODS["mc-dropout"].run(conditions, 0, conditions.budget("matched", 0))
    with pytest.raises(UserError, match="takes no option 'dropout'"):
        next(run)


@pytest.mark.ray
def test_a_run_that_fails_in_the_middle_is_no_result(ray_cluster: None, folder: Path) -> None:
    conditions = make_conditions(model="tests.baselines.failing:network", model_options={})
    with pytest.raises(SearchError, match=r"none-matched-s0 ended at step \d+ of \d+: .*the disk is full"):
        run_jobs([Job(METHODS["none"], "matched", 0)], conditions, folder, max_failures=0)


@pytest.mark.parametrize("cpus", [0, pytest.param(1, marks=[pytest.mark.ray, pytest.mark.thorough])])
def test_a_member_that_fails_in_the_middle_loses_and_is_counted(
    cpus: int, request: pytest.FixtureRequest, folder: Path
) -> None:
    if cpus:
        request.getfixturevalue("ray_cluster")
    conditions = make_conditions(model="tests.baselines.failing:network", model_options={})
    job = Job(METHODS["random-search"], "full", 0)
    (outcome,) = run_jobs([job], conditions, folder, max_failures=0, cpus_per_trial=cpus)
    assert outcome.trials == outcome.failed == POPULATION


def test_networks_of_two_kinds_suit_the_data() -> None:
    for data, expected in (("japanese-vowels", "lstm,cnn1d"), ("digits", "mlp,cnn")):
        model = "cnn1d" if data == "japanese-vowels" else "mlp"
        conditions = make_conditions(data={"name": data}, model=model, model_options={"dropout": 0.1})
        config = next(METHODS["ensemble-mixed"].run(conditions, 0, conditions.budget("10", 0))).specs[0].config  # type: ignore[union-attr]
        assert (config.model, config.ensemble, config.batch_size) == (expected, 4, 4 * 32)
        assert config.model_options == {"dropout": 0.1}
    conditions = make_conditions(data={"name": "wine"})
    with pytest.raises(UserError, match="for sequences and images, and wine is neither"):
        next(METHODS["ensemble-mixed"].run(conditions, 0, conditions.budget("matched", 0)))


def test_shared_weights_and_width_are_for_networks_that_have_them() -> None:
    conditions = make_conditions(model="cnn", model_options={"width": 8})
    with pytest.raises(UserError, match="'ensemble-shared' is for 'mlp', and the model is 'cnn'"):
        next(METHODS["ensemble-shared"].run(conditions, 0, conditions.budget("matched", 0)))
    wide = next(METHODS["wide"].run(conditions, 0, conditions.budget("matched", 0))).specs[0].config  # type: ignore[union-attr]
    assert wide.model_options == {"width": 32}
    assert wide.steps < conditions.single(0).steps
    conditions = make_conditions(model="resnet18", model_options={})
    with pytest.raises(UserError, match="knows the width of mlp, cnn"):
        next(METHODS["wide"].run(conditions, 0, conditions.budget("matched", 0)))
