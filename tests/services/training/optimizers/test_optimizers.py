from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crossreg import UserError, load_checkpoint, save_checkpoint
from crossreg.services.data import Dataset, Split
from crossreg.services.training.assemble import build_trainer, checkpoint_identity
from crossreg.services.training.check import check
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers import optimizer_kind
from crossreg.services.training.resolve import ResolvedConfig, resolve
from crossreg.training.trainer import Trainer
from tests.crossreg.core.test_distributed import COMMON, launch
from tests.crossreg.training.test_trainer import Stop, assert_equal

BATCH = 16


@pytest.fixture
def sharpness() -> Any:
    pytest.importorskip("pytorch_optimizer")
    from crossreg.services.training.optimizers import sharpness

    return sharpness


def dataset() -> Dataset:
    generator = np.random.default_rng(0)

    def split(rows: int) -> Split:
        x = generator.standard_normal((rows, 8), dtype=np.float32)
        return Split(x, x[:, :3].argmax(1).astype(np.int64))

    classes = ("a", "b", "c")
    mean, std = np.zeros(8, np.float32), np.ones(8, np.float32)
    return Dataset("made up", "classification", classes, split(96), split(32), split(48), mean, std, "0" * 16)


def config(optimizer: dict[str, Any], **options: Any) -> ResolvedConfig:
    values = {
        "model": "mlp",
        "model_options": {"hidden": 16, "depth": 2, "dropout": 0.2},
        "data": {"name": "made up"},
        "rho": {"interval": 3},
        "steps": 40,
        "batch_size": BATCH,
        "optimizer": {"lr": 0.01, "schedule": "cosine", **optimizer},
    }
    return resolve(TrainConfig.model_validate(values | options), dataset())


def trainer(optimizer: dict[str, Any], callbacks: Any = (), **options: Any) -> Trainer:
    return build_trainer(config(optimizer, **options), dataset(), torch.device("cpu"), list(callbacks))


# The formulas, on f(theta) = theta' A theta / 2, whose gradient is A theta. A large eps keeps Adam from normalizing
# the size of the gradient away.
A = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 0.7]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
ADAMW = {"lr": 0.1, "weight_decay": 0.3, "eps": 0.5}


def descend(optimizer: torch.optim.Optimizer, theta: nn.Parameter) -> None:
    def gradient() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = 0.5 * theta @ A @ theta
            loss.backward()
        return loss.detach()

    gradient()
    optimizer.step(gradient)  # type: ignore[arg-type]


def test_sam_follows_the_gradient_at_the_edge_of_its_radius(sharpness: Any) -> None:
    theta = nn.Parameter(START.clone())
    descend(sharpness.sam([theta], 0.2, **ADAMW), theta)
    uphill = A @ START
    g = A @ (START + 0.2 * uphill / uphill.norm())
    expected = START * (1 - 0.1 * 0.3) - 0.1 * g / (g.abs() + 0.5)  # Adam's first step
    torch.testing.assert_close(theta.data, expected, rtol=1e-6, atol=1e-7)


def test_gsam_takes_the_orthogonal_part_out_and_its_radius_follows_the_learning_rate(sharpness: Any) -> None:
    theta, twin = nn.Parameter(START.clone()), nn.Parameter(START.clone())
    optimizer, adamw = sharpness.GSAM([theta], 0.2, 0.4, **ADAMW), torch.optim.AdamW([twin], **ADAMW)
    shrinking = [torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.5**t) for o in (optimizer, adamw)]
    for t in range(4):
        descend(optimizer, theta)
        here = A @ twin.data
        worst = A @ (twin.data + 0.2 * 0.5**t * here / here.norm())
        along = worst * (here @ worst) / (worst @ worst)
        assert (here - along).norm() > 1e-3
        twin.grad = worst - 0.4 * (here - along)
        adamw.step()
        for scheduler in shrinking:
            scheduler.step()
        torch.testing.assert_close(theta.data, twin.data, rtol=1e-5, atol=1e-6)
    assert not optimizer.state


@pytest.mark.parametrize("name", ["sam", "gsam", "cpr"])
def test_weight_decay_changed_in_a_restored_optimizer_is_in_force(name: str, request: pytest.FixtureRequest) -> None:
    if name != "cpr":
        request.getfixturevalue("sharpness")
    settings, kind = ResolvedOptimizer(name=name, lr=0.1, beta2=0.999), optimizer_kind(name)
    ends = []
    for decay in (0.0, 0.5):
        theta = nn.Parameter(START.clone())
        first = kind.build(settings, [theta], 0.0, 100)
        descend(first, theta)
        before = theta.detach().clone()
        restored = kind.build(settings, [theta], 0.0, 100)
        restored.load_state_dict(first.state_dict())
        for group in restored.param_groups:
            group["weight_decay"] = decay
        descend(restored, theta)
        ends.append(theta.detach().clone())
    torch.testing.assert_close(ends[0] - ends[1], 0.1 * 0.5 * before)


OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sam"},
    {"name": "gsam", "radius": 0.2},
    {"name": "cpr", "kappa_after": 0.25},  # its bounds are set before the stop at step 17
    {"name": "cpr", "kappa_after": 0.75, "kappa_update": 5.0},  # and after it
    {"name": "learned", "lr": 0.003},
]


def needs_package(optimizer: dict[str, Any]) -> None:
    if optimizer["name"] in ("sam", "gsam"):
        pytest.importorskip("pytorch_optimizer")


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o['name']}-{o.get('kappa_after', '')}")
def test_resume_is_exact(optimizer: dict[str, Any], tmp_path: Path) -> None:
    needs_package(optimizer)
    whole = trainer(optimizer)
    whole.fit()
    with pytest.raises(InterruptedError):
        trainer(optimizer, [Stop(17, tmp_path)]).fit()
    torch.manual_seed(99)
    resumed = trainer(optimizer)
    resumed.load_state_dict(load_checkpoint(tmp_path))
    assert resumed.step == 17
    resumed.fit()
    clock = ("worker_seconds", "seconds", "latest")
    a, b = ({k: v for k, v in run.state_dict().items() if k not in clock} for run in (whole, resumed))
    assert_equal(a, b)
    if optimizer["name"] == "cpr":
        assert sum("kappa" in state for state in a["optimizer"]["state"].values()) == 3


@pytest.mark.parametrize("name", ["adamw", "sgd", "sam", "gsam", "cpr", "learned"])
def test_the_ledger_counts_every_gradient_and_the_schedule_acts(name: str) -> None:
    passes = 2 if name in ("sam", "gsam") else 1
    needs_package({"name": name})
    run = trainer({"name": name}, steps=12)
    assert config({"name": name}).gradient_evaluations == passes
    latest = run.fit()
    assert run.ledger is not None
    assert run.ledger.examples["theta"] == run.ledger.backward["theta"] == passes * 12 * BATCH
    assert run.ledger.examples["rho"] == 4 * 5 * BATCH
    assert math.isfinite(latest["test/nll"])
    used = getattr(run.optimizer, "base_optimizer", run.optimizer)
    assert used.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert "radius" not in checkpoint_identity(config({"name": "adamw"}), dataset())["optimizer"]


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS[:3], OPTIMIZERS[-1]], ids=lambda o: o["name"])
def test_they_learn_together_with_rho(optimizer: dict[str, Any]) -> None:
    needs_package(optimizer)
    latest = trainer(optimizer, steps=150).fit()
    assert latest["test/accuracy"] > 0.6
    learned = [value for name, value in latest.items() if name.startswith("regularizers/noise/")]
    assert len(learned) == 2
    assert all(abs(sigma / 0.1 - 1) > 0.01 for sigma in learned)


def test_a_checkpoint_of_gsam_holds_no_scratch(sharpness: Any, tmp_path: Path) -> None:
    run = trainer({"name": "gsam"}, steps=4)
    run.fit()
    save_checkpoint(run.state_dict(), tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["optimizer"]
    assert saved["state"] == {}
    assert set(saved["base_optimizer"]["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    monkeypatch.delitem(sys.modules, "crossreg.services.training.optimizers.sharpness", raising=False)
    monkeypatch.delattr("crossreg.services.training.optimizers.sharpness", raising=False)
    for name in ("sam", "gsam"):
        with pytest.raises(UserError, match=rf"'{name}' needs the package pytorch-optimizer.*crossreg\[baselines\]"):
            check(config({"name": name}), dataset())
    check(config({"name": "cpr"}), dataset())


def test_float16_is_refused_for_optimizers_that_compare_gradients() -> None:
    with pytest.raises(ValueError, match="float16.*'sam'.*bfloat16"):
        config({"name": "sam"}, precision="float16")
    assert config({"name": "cpr"}, precision="float16").precision == "float16"


def test_cpr_has_no_weight_decay_unless_it_is_given() -> None:
    assert config({"name": "cpr"}).weight_decay == 0
    given = config({"name": "cpr"}, regularizers={"noise": None, "weight_decay": 0.02})
    assert given.weight_decay == 0.02
    assert ResolvedConfig.model_validate(given.model_dump()) == given
    assert config({"name": "sam"}).weight_decay == 0.01
    run = build_trainer(given, dataset(), torch.device("cpu"))
    assert run.optimizer.param_groups[0]["weight_decay"] == 0.02


def test_mc_dropout_is_checked_and_evaluated() -> None:
    plain = {"hidden": 16, "depth": 2}
    with pytest.raises(UserError, match="mc_dropout is on.*no dropout layer"):
        check(config({}, mc_dropout=True, model_options=plain), dataset())
    chosen = {"regularizers": {}, "evaluations": 2, "steps": 12}
    check(config({}, mc_dropout=True, **chosen), dataset())
    run = trainer({}, mc_dropout=True, **chosen)
    run.fit()
    assert run.ledger is not None
    assert run.ledger.examples["report"] == (3 + 16) * (48 + 32)


DISTRIBUTED = (
    COMMON
    + """
from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers import optimizer_kind

crossreg.regularizers.noise.standard_normal_like = shared_noise
# one random stream for all ranks, so that `shared_noise` cuts the same draw
crossreg.regularizer.rank = lambda: 0
crossreg.training.trainer.rank = lambda: 0
crossreg.regularizer._separate_noise_of_ranks = lambda device: None


def main():
    with process_group("gloo"):
        results = {}
        for name in ("sam", "gsam", "cpr", "learned"):
            model = inject_noise(small_model("layer", torch.float64), "unit", initial_sigma=0.5)
            train, reg = Batches(*data(64, 1), 16), Batches(*data(32, 2), 16)
            regularizer = CrossRegularizer(model, "classification", reg, interval=3, samples=3)
            settings = ResolvedOptimizer(name=name, lr=0.01, radius=0.5, beta2=0.999)
            optimizer = optimizer_kind(name).build(settings, regularizer.theta, 0.0 if name == "cpr" else 0.01, 20)
            trainer = Trainer(model, "classification", optimizer, train, regularizer=regularizer, steps=20,
                              closure=name in ("sam", "gsam"))
            trainer.fit()
            results[name] = {"model": model.state_dict(), "examples": trainer.ledger.examples["theta"]}
            gathered = gather_rows(torch.cat([p.reshape(-1) for p in regularizer.theta])[None])
            assert torch.equal(gathered[0], gathered[-1]), name
        if dist.is_initialized():
            dist.barrier()
        if not dist.is_initialized() or dist.get_rank() == 0:
            torch.save(results, sys.argv[1])


main()
"""
)


@pytest.mark.slow
@pytest.mark.thorough
def test_two_processes_at_half_batch_equal_one_at_full_batch(sharpness: Any, tmp_path: Path) -> None:
    for processes in (1, 2):
        launch(DISTRIBUTED, tmp_path, processes, str(tmp_path / f"{processes}.pt"))
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert set(one) == {"sam", "gsam", "cpr", "learned"}
    for name in one:
        # the package takes norms in single precision
        for key, value in one[name]["model"].items():
            torch.testing.assert_close(
                two[name]["model"][key], value, rtol=1e-5, atol=1e-7, msg=lambda m, n=f"{name} {key}": f"{n}: {m}"
            )
        assert one[name]["examples"] == two[name]["examples"] == (40 if name in ("sam", "gsam") else 20) * BATCH
