from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from crossreg import UserError
from crossreg.services.search.scheduler import Member, PopulationScheduler
from crossreg.services.search.space import value_key
from crossreg.services.search.spec import Record, Values
from crossreg.services.search.trial import States, schedule_of
from tests.services.search.population import (
    DIVERGING,
    GENERATIONS,
    INTERVAL,
    SIZE,
    SPACE,
    all_cpus,
    digits,
    members,
    population,
    scheduler_of,
    sigma,
    spec,
    starts,
)
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]
LAST = GENERATIONS * INTERVAL


def halve(values: Values, rng: random.Random) -> Values:
    return {name: value / 2 for name, value in values.items()}


def member(index: int, score: float, generation: int = 1, state: str | None = "s") -> Member:
    return Member(index, sigma(1.0), generation, score, state and f"{state}{index}")


def donors(members: list[Member], **options: Any) -> dict[int, int]:
    scheduler = PopulationScheduler(halve, **options)
    return {loser: donor.index for loser, donor in scheduler._donors(members).items()}


# who exploits whom


def test_the_worst_quarter_exploits_the_best() -> None:
    scores = [0.5, 0.1, 0.9, 0.3, 0.2, 0.8, 0.4, 0.6]
    found = donors([member(index, score) for index, score in enumerate(scores)])
    assert found.keys() == {2, 5}
    assert set(found.values()) <= {1, 4}
    assert donors([member(0, 0.2), member(1, 0.1), member(2, 0.3)], quantile=0.5) == {2: 1}
    assert donors([member(0, 0.2), member(1, 0.1)], quantile=0.01) == {0: 1}
    assert donors([member(0, 0.2)]) == {}


def test_equal_scores_are_decided_by_place() -> None:
    tied = [member(index, 0.5) for index in range(4)]
    assert donors(tied) == donors(tied[::-1]) == {3: 0}


def test_members_without_a_score_lose_and_never_donate() -> None:
    """Stock Tune crashes on NaN, or lets it win: ray#11670."""
    assert donors([member(0, math.inf), member(1, math.inf), member(2, 0.7), member(3, 0.8)]) == {0: 2, 1: 2}
    assert donors([member(index, math.inf) for index in range(4)]) == {}
    three = [member(0, 0.5), member(1, math.inf), member(2, math.inf), member(3, math.inf)]
    assert donors(three) == {1: 0, 2: 0, 3: 0}


def test_a_member_without_a_state_never_donates() -> None:
    """ray#27170."""
    assert donors([member(0, 0.1, state=None), member(1, 0.2), member(2, 0.3), member(3, 0.9)]) == {}
    halves = [member(0, 0.1, state=None), member(1, 0.2), member(2, 0.3), member(3, 0.9)]
    assert donors(halves, quantile=0.5) == {2: 1, 3: 1}


def test_equal_seeds_decide_equally_and_others_differently() -> None:
    crowd = [member(index, index / 20) for index in range(20)]
    assert donors(crowd, seed=1) == donors(crowd, seed=1)
    assert donors(crowd, seed=1) != donors(crowd, seed=2)


def test_an_asynchronous_member_takes_no_step_back() -> None:
    scheduler = PopulationScheduler(halve, synchronous=False)
    behind, ahead, me = member(0, 0.1, generation=2), member(1, 0.2, generation=4), member(2, 0.9, generation=3)
    scheduler.members = {"a": behind, "b": ahead, "c": me}
    donor = scheduler._asynchronous_donor(me)
    assert donor is not None
    assert donor.index == 1
    assert scheduler._asynchronous_donor(ahead) is None
    scheduler.members = {"a": behind, "c": me}
    assert scheduler._asynchronous_donor(me) is None
    level = member(1, 0.2, generation=3)
    scheduler.members = {"a": behind, "b": level, "c": me}
    assert scheduler._asynchronous_donor(me) == level


@pytest.mark.parametrize(
    ("status", "worker", "generation", "gives_up"),
    [
        ("PENDING", None, 1, True),
        ("PENDING", "asked for", 1, True),  # there is no room for it
        ("PENDING", "starting", 1, False),  # or members take turns on too few workers for good once one was lost
        ("PAUSED", None, 1, True),
        ("PAUSED", None, 2, False),  # ahead of this one: not its turn
        ("RUNNING", "starting", 1, False),
    ],
)
def test_a_worker_is_given_up_only_for_one_that_gets_none(
    status: str, worker: str | None, generation: int, gives_up: bool
) -> None:
    mine, other = (SimpleNamespace(trial_id=name, status=state) for name, state in (("a", "RUNNING"), ("b", status)))
    controller = SimpleNamespace(
        get_trials=lambda: [mine, other],
        _trial_to_actor=SimpleNamespace(get=lambda trial: worker if trial is other else "mine"),
        _actor_manager=SimpleNamespace(live_actors=["mine", "starting"]),
    )
    scheduler = PopulationScheduler(halve)
    scheduler.members = {"a": member(0, 0.5, generation=1), "b": member(1, 0.5, generation=generation)}
    assert scheduler._others_want_workers(controller, mine, scheduler.members["a"]) is gives_up  # type: ignore[arg-type]
    scheduler.members["b"].gone = True
    assert not scheduler._others_want_workers(controller, mine, scheduler.members["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize("quantile", [0.0, -0.1, 0.51, math.nan])
def test_quantiles_out_of_range_are_named(quantile: float) -> None:
    with pytest.raises(UserError, match=rf"quantile is {quantile}; it must lie in \(0, 0.5\]"):
        PopulationScheduler(halve, quantile)


# the same on Ray


class Seen:
    """What a scheduler sees of its trials: whether they pause, how long each was not restored, in which process."""

    def __init__(self, scheduler: Any) -> None:
        self.paused = 0
        self.since_restore: dict[int, list[int]] = defaultdict(list)
        self.pids: dict[int, set[int]] = defaultdict(set)
        on_result, choose = scheduler.on_trial_result, scheduler.choose_trial_to_run

        def noted_result(controller: Any, trial: Any, result: dict[str, Any]) -> Any:
            self.since_restore[trial.config["trial"]].append(result["iterations_since_restore"])
            self.pids[trial.config["trial"]].add(result["pid"])
            return on_result(controller, trial, result)

        def noted_choose(controller: Any, *rest: Any) -> Any:
            self.paused += sum(trial.status == "PAUSED" for trial in controller.get_trials())
            return choose(controller, *rest)

        scheduler.on_trial_result, scheduler.choose_trial_to_run = noted_result, noted_choose


class Run:
    """A population that has been trained."""

    def __init__(self, folder: Path, results: list[Any], seen: Seen | None = None) -> None:
        self.folder, self.results, self.seen = folder, results, seen
        self.states = States(folder / "states")

    @property
    def policy(self) -> list[dict[str, Any]]:
        """Exploits, in the order of generations and members."""
        return read_policy(self.folder)

    @property
    def finals(self) -> list[dict[str, Any]]:
        """What decides that two searches came to the same end."""
        return [timeless(result.final) for result in self.results]


def read_policy(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "policy.jsonl").read_text().splitlines()]
    return sorted(lines, key=lambda line: (line["generation"], line["member"]))


def timeless(record: Record) -> dict[str, Any]:
    return record.model_dump(include={"state", "parent", "spec", "until", "given", "hyperparameters", "scores"})


def begun(states: States) -> dict[str, int]:
    return {path.stem: path.stat().st_size for path in states.folder.glob("*.begun")}


def workers() -> list[psutil.Process]:
    """Return the processes of trials under this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ResourceTrainable" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    all_cpus()
    folder = tmp_path_factory.mktemp("undisturbed")
    scheduler = scheduler_of(folder, seed=7)
    seen = Seen(scheduler)
    return Run(folder, population(folder, scheduler=scheduler), seen)


@pytest.mark.ray
def test_exploits_change_the_trial(undisturbed: Run) -> None:
    """The next interval starts from the donor's state, with the mutated values in force."""
    policy = undisturbed.policy
    assert [line["generation"] for line in policy] == [1, 2, 3, 4]
    for line in policy:
        mine = next(result for result in undisturbed.results if result.index == line["member"])
        theirs = next(result for result in undisturbed.results if result.index == line["donor"])
        before, after = mine.records[line["generation"] - 1 : line["generation"] + 1]
        given = theirs.records[line["generation"] - 1]
        assert after.parent == line["state"] == given.state != before.state
        assert after.given == line["hyperparameters"] != given.given
        assert {name: after.hyperparameters[name] for name in SPACE} == pytest.approx(line["hyperparameters"])
        assert line["donor_score"] < line["score"]
    exploits = {(line["generation"], line["member"]) for line in policy}
    for result in undisturbed.results:
        assert result.final.until == LAST
        for generation, (before, after) in enumerate(zip(result.records, result.records[1:], strict=False), 1):
            if (generation, result.index) not in exploits:
                assert after.parent == before.state
                assert after.given == before.given


@pytest.mark.ray
def test_a_diverged_member_exploits_and_recovers(undisturbed: Run) -> None:
    diverged = undisturbed.results[DIVERGING]
    assert math.isnan(diverged.records[0].scores["reg"]["nll"])
    first = undisturbed.policy[0]
    assert (first["generation"], first["member"], first["score"]) == (1, DIVERGING, math.inf)
    assert first["donor"] != DIVERGING
    assert math.isfinite(diverged.records[1].score("reg", "nll"))
    assert all(math.isfinite(line["donor_score"]) for line in undisturbed.policy)


@pytest.mark.ray
def test_members_keep_their_workers_at_boundaries(undisturbed: Run) -> None:
    seen = undisturbed.seen
    assert seen is not None
    assert seen.paused == 0
    assert [len(seen.pids[index]) for index in range(SIZE)] == [1] * SIZE
    assert len(set.union(*seen.pids.values())) == SIZE
    # Tune does not ask a scheduler about the last
    assert dict(seen.since_restore) == {index: [1, 2, 3, 4] for index in range(SIZE)}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_stock_members_are_paused_and_restored_at_boundaries(ray_cluster: Any, tmp_path: Path) -> None:
    """The difference to Ray Tune's own scheduler, on the same trials."""
    import ray
    from ray.tune.schedulers import PopulationBasedTraining

    from crossreg.services.search.run import run_search
    from crossreg.services.search.search import Search

    random.seed(0)  # it draws from the global generator
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        metric="score",
        mode="min",
        perturbation_interval=1,
        hyperparam_mutations={value_key(name): lambda: 10 ** random.uniform(-2, 1) for name in SPACE},
        quantile_fraction=0.25,
        synch=True,
        log_config=False,
    )
    seen = Seen(scheduler)
    data = {digits().fingerprint: ray.put(digits())}
    # no more than it takes: it starts every member anew at every boundary
    values = [{value_key(name): value for name, value in start.items()} for start in starts(2)]
    search = Search(members(2, 2), values, scheduler, top_level=True, keep=None)
    results = run_search(search, data, tmp_path)
    assert [result.final.until for result in results] == [2 * INTERVAL] * 2
    assert seen.paused > 0
    assert max(max(counts) for counts in seen.since_restore.values()) == 1
    # its exploits change the trial too: it clones through a checkpoint that names a state
    assert [result.index for result in results] == [0, 1]
    own = {result.index: {record.state for record in result.records} for result in results}
    clones = [record for result in results for record in result.records
              if record.parent and record.parent not in own[result.index]]  # fmt: skip
    assert clones
    for clone in clones:
        donor = results[0].states.record(clone.parent)
        assert donor is not None
        assert clone.given != donor.given


@pytest.fixture
def two_free_cpus(ray_cluster: Any) -> Iterator[None]:
    all_cpus()

    @ray_cluster.remote(num_cpus=SIZE - 2)
    class Other:
        def ready(self) -> None: ...

    other = Other.remote()
    ray_cluster.get(other.ready.remote(), timeout=60)
    yield
    ray_cluster.kill(other)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_members_take_turns_and_decide_the_same(two_free_cpus: None, undisturbed: Run, tmp_path: Path) -> None:
    """More members than CPUs: all finish, no more train at a time, and equal seeds give an equal policy."""
    run = Run(tmp_path, population(tmp_path))
    assert [result.final.until for result in run.results] == [LAST] * SIZE
    assert run.policy == undisturbed.policy
    assert run.finals == undisturbed.finals
    assert most_at_once(run) <= 2
    assert most_at_once(undisturbed) > 2


def most_at_once(run: Run) -> int:
    spans = [(record.began, record.ended) for result in run.results for record in result.records]
    return max(sum(began <= time < ended for began, ended in spans) for time, _ in spans)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_asynchronous_members_exploit_though_equally_fast(ray_cluster: Any, tmp_path: Path) -> None:
    """Stock's asynchronous form never did, see `docs/method/pbt.md`."""
    options = {"hidden": 32, "depth": 2, "folder": str(tmp_path)}
    common = {"model": "tests.services.search.population:punctual_mlp", "optimizer": {"lr": 1e-3}}
    specs = members(model_options=options, **common)
    # the one with the most noise is never ahead of all others, who would have nothing to give it
    specs[-1] = members(model_options={**options, "late": True}, **common)[-1]
    all_cpus()  # each waits for all others before it trains
    scheduler = scheduler_of(tmp_path, synchronous=False)
    seen = Seen(scheduler)
    run = Run(tmp_path, population(tmp_path, scheduler=scheduler, specs=specs, max_failures=0))
    assert [result.final.until for result in run.results] == [LAST] * SIZE
    exploited = [
        record
        for result in run.results
        for record in result.records
        if record.parent and run.states.record(record.parent).spec != record.spec  # type: ignore[union-attr]
    ]
    assert exploited
    assert {record.parent for record in exploited} <= {line["state"] for line in run.policy}
    assert all(record.given in [line["hyperparameters"] for line in run.policy] for record in exploited)
    for result in run.results:  # nobody takes a step back, which would cost more than was planned
        assert [record.until for record in result.records] == sorted({record.until for record in result.records})
    assert seen.paused == 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_worker_changes_nothing(undisturbed: Run, tmp_path: Path) -> None:
    killed: list[int] = []

    scheduler = scheduler_of(tmp_path, seed=7)
    seen = Seen(scheduler)

    def kill(index: int, _: Any, record: Record) -> None:
        """Kill another's worker, which is in mid-interval, when the first reaches the second boundary."""
        if not killed and record.until == 2 * INTERVAL:
            victim = next(process for process in workers() if process.pid not in seen.pids[index])
            killed.append(victim.pid)
            victim.send_signal(signal.SIGKILL)

    run = Run(tmp_path, population(tmp_path, scheduler=scheduler, watch=kill))
    assert killed
    assert killed[0] in set.union(*seen.pids.values())
    # a new one took its place: nobody gave up a worker for good, and the others did not go on with fewer
    assert len(set.union(*seen.pids.values())) == SIZE + 1
    assert run.policy == undisturbed.policy
    assert run.finals == undisturbed.finals
    counts = begun(run.states)
    assert set(counts) == set(begun(undisturbed.states))
    assert sorted(counts.values())[-2:] in ([1, 1], [1, 2])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_a_killed_driver_loses_at_most_one_interval_a_member(undisturbed: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.services.search.population", str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}

    states = States(tmp_path / "states")

    def records() -> list[Record]:
        return [Record.model_validate_json(path.read_bytes()) for path in states.folder.glob("*.json")]

    log = tmp_path / "log"
    with log.open("wb") as out:
        driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(
            lambda: sum(record.until == INTERVAL for record in records()) >= SIZE,
            "first interval of every member", 240, every=0.01, process=driver, said=log,
        )  # fmt: skip
    finally:
        kill(driver)
    done = len(records())
    assert SIZE <= done < SIZE * GENERATIONS, "the search was too fast to be killed in the middle"
    all_cpus()
    population(tmp_path)
    twice: dict[str, int] = defaultdict(int)
    for state, times in begun(states).items():
        assert times <= 2
        record = states.record(state)
        assert record is not None
        twice[record.spec] += times - 1
    assert max(twice.values()) <= 1
    assert read_policy(tmp_path) == undisturbed.policy
    for final in undisturbed.finals:
        found = states.record(final["state"])
        assert found is not None
        assert timeless(found) == final


def kill(driver: subprocess.Popen[bytes]) -> None:
    """SIGKILL a driver and its Ray; stopped first, so that nothing new is decided while its tree is looked up."""
    with contextlib.suppress(psutil.Error):
        tree = [psutil.Process(driver.pid)]
        tree[0].send_signal(signal.SIGSTOP)
        tree += tree[0].children(recursive=True)
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(tree, timeout=30)
    driver.wait(30)


@pytest.mark.ray
def test_a_policy_is_replayed_to_its_end(ray_cluster: Any, undisturbed: Run, tmp_path: Path) -> None:
    """Ray Tune's own replay stopped early."""
    from crossreg.services.search.run import run_search
    from crossreg.services.search.search import Search

    best = min((result.final for result in undisturbed.results), key=lambda record: record.score("reg", "nll"))
    lineage = undisturbed.states.lineage(best.state)
    schedule = schedule_of(lineage)
    assert [step for step, _ in schedule] == [index * INTERVAL for index in range(GENERATIONS)]
    assert len({values[name] for _, values in schedule for name in SPACE}) > 2  # there were exploits on the way
    replay = spec(schedule=schedule, steps=LAST, evaluations=GENERATIONS, seed=9)
    data = {digits().fingerprint: ray_cluster.put(digits())}
    (result,) = run_search(Search([replay]), data, tmp_path)
    assert result.complete
    assert len(result.records) == GENERATIONS
    for index, record in enumerate(result.records):
        # the values of the next interval come into force after this one's last step
        _, values = schedule[min(index + 1, GENERATIONS - 1)]
        assert {name: record.hyperparameters[name] for name in SPACE} == pytest.approx(
            {name: values[name] for name in SPACE}
        )
    assert result.final.scores["test"]["accuracy"] > 0.7
