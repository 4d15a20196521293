"""Meta-training on Ray: killed and gone on, on one actor or two, with an actor lost on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from crossreg import UserError
from crossreg.optimizers import LearnedRule, load_rule
from crossreg.services.meta_training.config import MetaTrainConfig
from crossreg.services.meta_training.state import load_state, state_path
from crossreg.services.meta_training.tasks import load_tasks
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement
from crossreg.services.training.runtime import start_ray

SMALL: dict[str, Any] = {
    "tasks": ["digits:mlp-relu", "digits:mlp-norm"],
    "meta_loss": "sam-held-out",
    "horizon": 30,
    "iterations": 12,
    "trainings": 4,
    "window": 4,
    "batch_size": 16,
    "estimator": "gradient",
    "seed": 5,
}
KEEP_OFTEN = (
    "import crossreg.services.meta_training.driver as d; d._KEEP_SECONDS = 0.0; "
    "from crossreg.jobs.cli import main; import sys; sys.argv[0] = 'crossreg'; main()"
)


def command(folder: Path, *more: str) -> list[str]:
    (folder / "settings.yaml").write_text(yaml.safe_dump({"metatrain": SMALL}))
    return [sys.executable, "-c", KEEP_OFTEN, "meta-train", "mine.safetensors", "--config", "settings.yaml", *more]


def finished(folder: Path, *more: str) -> LearnedRule:
    done = subprocess.run(
        command(folder, "--json", *more), cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert Path(said["path"]) == folder / "mine.safetensors"
    assert said["about"]["iterations"] == SMALL["iterations"]
    return load_rule(folder / "mine.safetensors")


def alike(one: LearnedRule, other: LearnedRule, **tolerance: float) -> None:
    assert one.about.horizon == other.about.horizon == SMALL["horizon"]
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, other.weights[name], **tolerance)


def wait_for(what: Any, process: subprocess.Popen[str], seconds: float = 200) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise TimeoutError


def iteration(folder: Path) -> int:
    path = state_path(folder / "mine.safetensors")
    return load_state(path).trainer["iteration"] if path.exists() else 0


def actors(driver: int) -> list[int]:
    """Return the processes of the actors of a driver's Ray."""
    import psutil

    found = psutil.Process(driver).children(recursive=True)
    return [one.pid for one in found if "EpisodeActor" in " ".join(one.cmdline())]


def run_of(folder: Path) -> Any:
    """Return a client of the store in a folder, and the one meta-training in it."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'meta-train'")
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def history(found: Any, key: str) -> list[float]:
    client, run = found
    return [one.value for one in sorted(client.get_metric_history(run.info.run_id, key), key=lambda one: one.step)]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A Ray in this process, for meta-trainings that nothing kills."""
    import ray

    start_ray(Placement())
    yield
    ray.shutdown()


def trained_here(folder: Path, workers: int) -> LearnedRule:
    from crossreg.services.meta_training.driver import meta_train
    from crossreg.services.training.progress import ProgressLine

    out, store = folder / "mine.safetensors", TrackingConfig(uri=f"sqlite:///{folder / 'mlflow.db'}")
    with ProgressLine(Console(quiet=True)) as line:
        meta_train(MetaTrainConfig.model_validate(SMALL), out, Placement(workers=workers), store, line)
    return load_rule(out)


@pytest.fixture(scope="module")
def undisturbed(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[LearnedRule, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    found = trained_here(folder, 2)
    left = {path.name for path in folder.iterdir()} - {"mlflow.db", "mlflow.db.lock", "mlartifacts"}
    assert left == {"mine.safetensors"}
    return found, run_of(folder)


@pytest.mark.ray
@pytest.mark.slow
def test_one_actor_finds_what_two_find(undisturbed: tuple[LearnedRule, Any], tmp_path: Path) -> None:
    """Equal to rounding as long as that has not been magnified by trainings: in the first iteration."""
    learned = trained_here(tmp_path, 1)
    for key in ("meta/loss", "meta/gradient_norm"):
        first, other = (history(run, key)[0] for run in (run_of(tmp_path), undisturbed[1]))
        assert first == pytest.approx(other, rel=1e-6)
    alike(learned, undisturbed[0], rtol=0, atol=1e-3)  # an update goes 3e-3 far


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_killed_and_gone_on_it_ends_the_same_and_an_actor_lost_makes_no_difference(
    undisturbed: tuple[LearnedRule, Any], tmp_path: Path
) -> None:
    with subprocess.Popen(
        command(tmp_path, "--workers", "2"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        wait_for(lambda: iteration(tmp_path) >= 2, process)
        victim = wait_for(lambda: actors(process.pid), process)[0]
        os.kill(victim, signal.SIGKILL)
        at = iteration(tmp_path)
        wait_for(lambda: iteration(tmp_path) > at + 2, process)
        process.kill()
        said = process.communicate()[0]
    assert "an actor was lost; going on from iteration" in said
    assert not (tmp_path / "mine.safetensors").exists()
    alike(finished(tmp_path, "--workers", "2"), undisturbed[0], rtol=0, atol=0)
    assert len(history(run_of(tmp_path), "meta/loss")) == SMALL["iterations"]
    assert not state_path(tmp_path / "mine.safetensors").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_the_run_holds_the_meta_loss_by_age_and_the_file(undisturbed: tuple[LearnedRule, Any]) -> None:
    client, run = undisturbed[1]
    assert run.info.status == "FINISHED"
    assert {"meta/loss", "meta/loss/to_00050", "meta/diverged", "meta/gradient_norm"} <= set(run.data.metrics)
    assert len(history((client, run), "meta/loss")) == SMALL["iterations"]
    assert run.data.params["meta_loss"] == "sam-held-out"
    assert {"optimizer.safetensors", "figures"} <= {one.path for one in client.list_artifacts(run.info.run_id)}


def test_another_meta_training_is_not_gone_on_with(tmp_path: Path) -> None:
    from crossreg.services.meta_training.driver import _before
    from crossreg.services.meta_training.state import MetaState, save_state

    out = tmp_path / "x.safetensors"
    config = MetaTrainConfig(horizon=30)
    save_state(MetaState(config.model_dump_json(), "run", {}, {}), state_path(out))
    assert _before(config, out) is not None
    with pytest.raises(UserError, match="with horizon 30, and this one has 40; give the same settings"):
        _before(MetaTrainConfig(horizon=40), out)


def test_tasks_are_of_any_data_and_of_networks_that_take_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    large, table = tmp_path / "large.npz", tmp_path / "table.csv"
    np.savez(large, x=generator.integers(0, 255, (300, 28, 28, 3), dtype=np.uint8), y=np.arange(300) % 4)
    rows = generator.standard_normal((400, 3))
    table.write_text("a,b,target\n" + "\n".join(",".join(map(str, row)) for row in rows))
    tasks = load_tasks(
        MetaTrainConfig(tasks=(f"{large}:cnn-norm", f"{large}:mlp", f"{table}:mlp-relu", f"{table}:mlp"), batch_size=16)
    )
    assert [task.x.shape[1:] for task in tasks] == [(3, 8, 8), (3, 28, 28), (2,), (2,)]
    assert [task.task for task in tasks] == ["classification"] * 2 + ["regression"] * 2
    assert all(0.5 < float(task.x.std()) < 2 for task in tasks)
    for network, said in (("cnn-norm", "takes images"), ("nothing", "nothing"), ("resnet18", "needs images")):
        with pytest.raises(UserError, match=said):
            load_tasks(MetaTrainConfig(tasks=(f"{table}:{network}",), batch_size=16))
    with pytest.raises(UserError, match="too few for batches of 500"):
        load_tasks(MetaTrainConfig(tasks=(f"{table}:mlp-relu",), batch_size=500))
