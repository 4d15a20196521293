"""Parts of a worker that need no Ray cluster: taking a run up again, and ending when it hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train import Checkpoint

from crossreg import UserError
from crossreg.services.data import load_data
from crossreg.services.training.assemble import build_trainer, checkpoint_identity
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import resolve
from crossreg.services.training.storage import kept_checkpoints, take_up
from crossreg.training.checkpoint import save_checkpoint
from crossreg.training.trainer import Trainer
from tests.services.training.conftest import ROOT

CONFIG = TrainConfig.model_validate(
    {"model": "mlp", "data": {"name": "digits"}, "steps": 20, "evaluations": 1, "optimizer": {"schedule": "cosine"}}
)


def trainer(steps: int = 20) -> Trainer:
    data = load_data(CONFIG.data)
    config = resolve(CONFIG, data).model_copy(update={"steps": steps})
    return build_trainer(config, data, torch.device("cpu"))


@pytest.fixture(scope="module")
def states() -> list[dict[str, Any]]:
    """What a training has at steps 10 and 20."""
    torch.set_num_threads(1)
    trained = [trainer(steps) for steps in (10, 20)]
    for one in trained:
        one.fit()
    return [one.state_dict() for one in trained]


@pytest.fixture
def run(tmp_path: Path, states: list[dict[str, Any]]) -> tuple[list[Path], dict[str, Any]]:
    """Two checkpoints of a run, of steps 20 and 10, as Ray Train leaves them beside other things."""
    data = load_data(CONFIG.data)
    described = checkpoint_identity(resolve(CONFIG, data), data)
    names = ("checkpoint_2026-01-01_10-00-00.000001", "checkpoint_2026-01-01_10-00-01.000000")
    early, late = (
        save_checkpoint(state, tmp_path / name, **described) for state, name in zip(states, names, strict=True)
    )
    (tmp_path / "tracking").mkdir()
    return [late, early], described


def test_checkpoints_are_found_latest_first(run: tuple[list[Path], dict[str, Any]]) -> None:
    (late, early), described = run
    found = kept_checkpoints(Checkpoint.from_directory(str(late.parent)))
    assert [Path(kept.path) for kept in found] == [late.parent, early.parent]
    assert [Path(kept.path) for kept in kept_checkpoints(Checkpoint.from_directory(str(early.parent)))] == [
        early.parent
    ]
    taken = trainer()
    assert take_up(taken.load_state_dict, found, described) is None
    assert taken.step == 20


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "of a later version", "gone"])
def test_a_damaged_checkpoint_falls_back_and_says_so(run: tuple[list[Path], dict[str, Any]], damage: str) -> None:
    (late, early), described = run
    found = kept_checkpoints(Checkpoint.from_directory(str(late.parent)))
    content = late.read_bytes()
    if damage == "truncated":
        late.write_bytes(content[:1000])
    elif damage == "a flipped bit":
        middle = len(content) // 2
        late.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "gone":
        late.unlink()
    else:
        torch.save({**torch.load(late, weights_only=True), "format": 99}, late)
    taken = trainer()
    said = take_up(taken.load_state_dict, found, described)
    assert taken.step == 10
    assert said is not None
    assert "checkpoint" in said
    assert "the one before it, of step 10, is used instead" in said
    early.write_bytes(b"nothing")
    with pytest.raises(UserError, match="checkpoint"):
        take_up(trainer().load_state_dict, found, described)


def test_a_step_that_hangs_ends_the_process_with_a_traceback() -> None:
    code = """
import time, torch
from crossreg.services.training.watchdog import Watchdog
watchdog = Watchdog(1.0)
watchdog.on_start(None)
def stuck():
    time.sleep(60)
stuck()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "in stuck" in done.stderr


def test_a_training_that_goes_on_is_left_in_peace() -> None:
    code = """
import time
from crossreg.services.training.watchdog import Watchdog
watchdog = Watchdog(3.0)
watchdog.on_start(None)
for _ in range(8):
    time.sleep(0.5)
    watchdog.on_step(None)
watchdog.on_end(None)
time.sleep(3.5)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=50).returncode == 0
