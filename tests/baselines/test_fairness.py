"""Every search looks through exactly what the cross-regularized run learns, over the ranges of the registry."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg.baselines import METHODS
from crossreg.baselines.grid import points_by_axis
from crossreg.optimizers import About, LearnedOptimizer, LearnedRule, save_rule, update_rule
from crossreg.regularizers.between import BETWEEN
from crossreg.regularizers.registry import REGISTRY, description
from crossreg.services.data import load_data
from crossreg.services.search.search import Search
from crossreg.services.search.space import values_in
from crossreg.services.training.assemble import build_trainer
from tests.baselines.conftest import POPULATION, make_conditions

LEARNABLE = [name for name, entry in REGISTRY.items() if entry.hyperparameter.learned_by_rho]
# `weight-decay-dropout-tuned` and `tuned-search` search for something else, and `ensemble` for nothing
SEARCHES = [
    name
    for name, method in METHODS.items()
    if method.searches and name not in ("weight-decay-dropout-tuned", "tuned-search", "ensemble")
]


def request_of(name: str, conditions: Any) -> Search:
    run = METHODS[name].run(conditions, 0, conditions.budget("full", 0))
    request = next(run)
    run.close()
    assert isinstance(request, Search)
    return request


def looked_through(request: Search) -> list[dict[str, float]]:
    """Return the values with which the trials of a search would start, as their workers read them."""
    if request.searcher is not None:
        assert request.space is not None
        ends = [{key: position for key in request.space} for position in (0.0, 0.5, 1.0)]
        return [values_in({"trial": 0, **config}) for config in ends]
    if request.top_level:
        return [values_in({"trial": 0, **start}) for start in request.starts]
    return [values_in({"trial": 0, "hyperparameters": start, "state": None}) for start in request.starts]


@pytest.mark.parametrize("learned", [*LEARNABLE, "all"])
@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_looks_through_what_is_learned(search: str, learned: str) -> None:
    if search == "optuna":
        pytest.importorskip("optuna")
    names = ["noise", "temperature", "l2", "label_smoothing", "shift"] if learned == "all" else [learned]
    between = any(name in {entry.name for entry in BETWEEN} for name in names)
    conditions = make_conditions(regularizers=names, **({"ensemble": 2} if between else {}))
    reference = conditions.reference(0)
    regularizer = build_trainer(reference, conditions.data(0), torch.device("cpu")).regularizer
    assert regularizer is not None
    learns = set(regularizer.hyperparameters)
    assert set(conditions.space) == learns
    request = request_of(search, conditions)
    for values in looked_through(request):
        assert set(values) == learns
        for name, value in values.items():
            low, high = description(name).range
            assert low * (1 - 1e-6) <= value <= high * (1 + 1e-6)
    for spec in request.specs:  # what it does not search is as in the run
        assert spec.config.learned == []
        assert spec.config.regularizers.keys() == reference.regularizers.keys()
        assert spec.config.regularizers["weight_decay"] == reference.regularizers["weight_decay"]


@pytest.mark.parametrize("search", [name for name in SEARCHES if name not in ("grid", "optuna")])
def test_starts_are_spread_over_the_whole_range(search: str) -> None:
    conditions = make_conditions(regularizers=["noise", "label_smoothing"])
    conditions.population = 200
    starts = looked_through(request_of(search, conditions))
    for name, one in conditions.space.items():
        positions = sorted(one.position(values[name]) for values in starts)
        apart = max(abs(position - (index + 0.5) / len(positions)) for index, position in enumerate(positions))
        assert apart < 1.63 / math.sqrt(len(positions)), name  # Kolmogorov and Smirnov, one in a hundred


def test_what_is_fixed_is_the_same_for_every_search_and_searched_by_none() -> None:
    conditions = make_conditions(regularizers={"noise": None, "noise/00_norm1": 0.3, "l2": 0.01, "weight_decay": 0.2})
    assert set(conditions.space) == {"noise/01_norm2"}
    for search in ("pbt", "random-search", "grid"):
        request = request_of(search, conditions)
        assert all(set(values) == {"noise/01_norm2"} for values in looked_through(request))
        for spec in request.specs:
            fixed = {name: one.value for name, one in spec.config.regularizers.items()}
            assert fixed == {"noise": 0.1, "noise/00_norm1": 0.3, "l2": 0.01, "weight_decay": 0.2}


def test_rivals_have_what_the_comparison_fixes_and_nothing_that_is_learned() -> None:
    fixed = {"label_smoothing": 0.1, "weight_decay": 0.2}
    conditions = make_conditions(regularizers={"noise": None, "noise/00_norm1": 0.3, **fixed})
    own = {"fixed-noise": {"noise": 0.5}, "mc-dropout": {"dropout": 0.5}, "cpr": {"weight_decay": 0.0}}
    for name in ("none", "fixed-noise", "sam", "mc-dropout", "ensemble", "cpr"):
        run = METHODS[name].run(conditions, 0, conditions.budget("matched", 0))
        spec = next(run).specs[0]
        run.close()
        values = {one: config.value for one, config in spec.config.regularizers.items()}
        assert not spec.config.learned, name
        assert values == fixed | own.get(name, {}), name


@pytest.mark.parametrize(
    ("size", "axes", "counts"), [(8, 1, [8]), (8, 2, [4, 2]), (8, 3, [2, 2, 2]), (7, 2, [7, 1]), (1, 2, [1, 1])]
)
def test_a_grid_has_as_many_points_as_the_population(size: int, axes: int, counts: list[int]) -> None:
    assert points_by_axis(size, axes) == counts
    assert math.prod(points_by_axis(size, axes)) == size


def test_an_axis_of_a_grid_is_a_regularizer() -> None:
    conditions = make_conditions(regularizers=["noise", "temperature"])
    conditions.population = 6
    starts = request_of("grid", conditions).starts
    assert len(starts) == 6
    assert all(len({round(v, 9) for n, v in one.items() if n.startswith("noise/")}) == 1 for one in starts)
    assert len({round(one["noise/00_norm1"], 9) for one in starts}) == 3
    assert len({round(one["temperature"], 9) for one in starts}) == 2
    assert POPULATION == 3


def test_a_learned_optimizer_is_that_of_every_method_that_brings_none(tmp_path: Path) -> None:
    rule = update_rule("mlp")
    learned = LearnedRule(rule, rule.initial(torch.Generator().manual_seed(0)), About(24, 0.002, "none"))
    path = save_rule(learned, tmp_path / "mine.safetensors")
    conditions = make_conditions(optimizer={"name": f"learned:{path}", "schedule": "cosine"})
    for name in ("crossreg", "fixed-noise", "mc-dropout", "ensemble", "pbt", "random-search", "none"):
        run = METHODS[name].run(conditions, 0, conditions.budget("matched", 0))
        specs = next(run).specs
        for spec in specs:
            assert (spec.config.optimizer.name, spec.config.optimizer.lr) == (f"learned:{path}", 0.002), name
        run.close()
    trainer = build_trainer(specs[0].config, load_data(specs[0].config.data), torch.device("cpu"))
    assert trainer.fit()["test/accuracy"] > 0.5
    assert isinstance(trainer.optimizer, LearnedOptimizer)
    assert trainer.optimizer.learned.digest == learned.digest
