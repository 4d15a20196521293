"""`--optimizer learned:FILE` through the configuration; `test_recovery` trains with one, on two workers."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from crossreg import UserError
from crossreg.optimizers import SHIPPED, About, LearnedOptimizer, LearnedRule, load_rule, save_rule, update_rule
from crossreg.services.training.assemble import checkpoint_identity
from crossreg.services.training.check import check
from crossreg.services.training.optimizer_config import OptimizerConfig
from crossreg.services.training.optimizers import optimizer_kind
from crossreg.training.diagnostics import Diagnosis, Diagnostics
from tests.services.training.optimizers.test_optimizers import config, dataset, trainer


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    rule = update_rule("mlp")
    learned = LearnedRule(rule, rule.initial(torch.Generator().manual_seed(1)), About(30, 0.004, "sam", ("a", "b")))
    return save_rule(learned, tmp_path / "mine.safetensors")


def test_the_file_brings_its_learning_rate_and_says_its_horizon(mine: Path) -> None:
    name = f"learned:{mine}"
    assert config({"name": name, "lr": None}).optimizer.lr == 0.004
    assert config({"name": name, "lr": 0.1}).optimizer.lr == 0.1
    run = trainer({"name": name, "lr": None})
    assert isinstance(run.optimizer, LearnedOptimizer)
    assert run.optimizer.learned.digest == load_rule(mine).digest
    kind = optimizer_kind(name)
    assert kind.notes(30) == ["optimizer: learned on a, b, meta-loss sam, trainings of up to 30 steps"]
    assert "may take 31 steps, and its optimizer was meta-trained on up to 30" in kind.notes(31)[1]
    assert kind.artifacts() == {"optimizer.safetensors": mine}
    assert optimizer_kind("learned").artifacts() == {"optimizer.safetensors": SHIPPED}


def test_a_run_goes_on_with_the_same_rule_wherever_its_file_is_and_with_no_other(mine: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(mine.read_bytes())
    identities = [checkpoint_identity(config({"name": f"learned:{one}"}), dataset()) for one in (mine, moved)]
    assert identities[0] == identities[1]
    other = checkpoint_identity(config({"name": "learned", "lr": 0.01}), dataset())
    assert other["optimizer"]["rule"] != identities[0]["optimizer"]["rule"]


def test_names_are_checked(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert OptimizerConfig(name="learned:mine.safetensors").name == f"learned:{tmp_path / 'mine.safetensors'}"
    for name, said in (
        ("adamw:x", "a file is named as in learned:FILE"),
        ("learned:", "a file is named as in learned:FILE"),
        ("learnt:x", "no optimizer is called 'learnt'; did you mean 'learned'"),
    ):
        with pytest.raises(ValueError, match=said):
            config({"name": name})
    (tmp_path / "half.safetensors").write_bytes(mine.read_bytes()[:50])
    for name, said in (("none", "there is no optimizer file"), ("half.safetensors", "truncated, or another file")):
        with pytest.raises(UserError, match=said):
            config({"name": f"learned:{name}", "lr": None})


def test_estimators_that_need_step_sizes_are_refused(mine: Path) -> None:
    learned = {"regularizers": {"l2": {}}, "rho": {"interval": 3, "estimator": "unrolled"}}
    with pytest.raises(UserError, match="l2 would be learned by the unrolled gradient.* does not say"):
        check(config({"name": f"learned:{mine}"}, **learned), dataset())
    check(config({"name": f"learned:{mine}"}), dataset())


def test_a_fallback_to_adamw_is_a_diagnosis() -> None:
    found: list[Diagnosis] = []

    class Told(Diagnostics):
        def report(self, diagnosis: Diagnosis) -> None:
            found.append(diagnosis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = trainer({"name": "learned", "lr": 30.0}, [Told()])
        latest = run.fit()
    (said,) = [one for one in found if one.signature == "failed optimizer"]
    assert said.step == 10
    assert "AdamW goes on from where they were at step 0" in str(said)
    assert latest["train/loss"] > 0
