"""The file of a learned optimizer: what was written comes back, and anything else is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from crossreg import UserError
from crossreg.optimizers import RULES, SHIPPED, About, LearnedOptimizer, LearnedRule, load_rule, save_rule, update_rule

ABOUT = About(200, 0.003, "sam", ("digits:mlp-relu",), 7, 50, "1.2.3", "abc")


def learned(name: str = "mlp") -> LearnedRule:
    rule = update_rule(name)
    return LearnedRule(rule, rule.initial(torch.Generator().manual_seed(3)), ABOUT)


@pytest.mark.parametrize("name", list(RULES))
def test_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    path = save_rule(learned(name), tmp_path / "new" / "mine.safetensors")
    found = load_rule(path)
    assert found.about == ABOUT
    assert found.digest == learned(name).digest != learned("lstm" if name == "mlp" else "mlp").digest
    assert path.stat().st_size < (4_000 if name == "mlp" else 40_000)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_the_shipped_one_says_where_it_comes_from() -> None:
    about = load_rule().about
    assert about.horizon >= 100
    assert about.tasks
    assert about.meta_loss
    assert about.iterations > 0
    parameter = torch.nn.Parameter(torch.ones(2))
    assert LearnedOptimizer([parameter]).param_groups[0]["lr"] == about.lr


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    whole = SHIPPED.read_bytes()
    path = tmp_path / "x.safetensors"
    for content in (whole[:-10], whole[:40], b"", b"hello", b"\x80\x04" + whole):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.safetensors' is no complete optimizer file"):
            load_rule(path)
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(UserError, match=r"holds no learned optimizer that can be used: its format is None"):
        load_rule(path)
    path.write_bytes(bytes(2_000_000))
    with pytest.raises(UserError, match="2,000,000 bytes long"):
        load_rule(path)
    with pytest.raises(UserError, match="no optimizer file at .*; `crossreg meta-train` makes one"):
        load_rule(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": 99}, "features are of version 99"),
        ({"rule": "gru"}, "no update rule is called 'gru'"),
        ({"rule": "lstm"}, "weight 'across0' is missing; update rule 'lstm' needs torch.float32"),
        ({"colour": "red"}, "says 'colour' of itself"),
        ({"horizon": 0}, "horizon is 0"),
        ({"horizon": "long"}, "horizon is 'long', which is no int"),
        ({"lr": -1.0}, "lr is -1.0; it must be positive"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    described = {"rule": "mlp", "features": 1, "horizon": 10, "lr": 0.1, "meta_loss": "x", **change}
    header = {"format": "crossreg learned optimizer 1", "about": json.dumps(described)}
    save_file(dict(learned().weights), path, header)
    with pytest.raises(UserError, match=said):
        load_rule(path)


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for change, said in (
        ({"skip": torch.full((10,), torch.nan)}, "'skip' holds NaN or infinity"),
        ({"skip": torch.ones(9)}, r"'skip' is torch.float32 \(9,\); .* needs torch.float32 \(10,\)"),
        ({"skip": torch.ones(10).double()}, "'skip' is torch.float64"),
        ({"more": torch.ones(1)}, "'more' is .* needs no such weight"),
    ):
        save_rule(LearnedRule(update_rule("mlp"), {**learned().weights, **change}, ABOUT), path)
        with pytest.raises(UserError, match=said):
            load_rule(path)
