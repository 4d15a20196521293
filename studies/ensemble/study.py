"""Several networks in one training, judged claim by claim.

    ensembles   M networks against one that costs as much, as it is or four times as wide; with own weights or shared
    penalties   what diversity, consistency and joint training do to errors, members and their average
    speed       networks one after the other, or as one by `torch.func.vmap`

All trainings are the product's own, found length and temperature included, at equal most operations within a scene.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.services.data import DataConfig, load_data
from crossreg.studies.ensemble.claims import CLAIMS
from crossreg.studies.ensemble.scenes import SCENES, SPEED, TABLES, WIDE
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those
from crossreg.studies.zero_flag.on_pairs import OnPairs
from crossreg.studies.zero_flag.pairs import PAIRS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crossreg.services.training.resolve import ResolvedConfig

__all__ = ["EnsembleStudy"]


class EnsembleStudy(OnPairs):
    """What an ensemble buys."""

    name = "ensemble"
    summary = "several networks in one training against one; penalties between them, claim by claim"
    pairs: ClassVar[tuple[str, ...]] = TABLES
    columns: ClassVar = {
        "scene": "data",
        "arm": "training",
        "accuracy": "accuracy %, or RMSE",
        "nll": "NLL",
        "alone": "each network alone",
        "error_correlation": "errors correlate",
        "disagreement": "two differ on",
        "flops": "FLOPs",
        "parameters": "parameters",
        "seconds": "seconds",
    }
    labels = 2
    has_pairs = False  # its scenes take some of them

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every training of every scene and seed, and one measurement of speed."""
        trainings = [
            {"scene": scene, "arm": arm, "seed": seed, "root": str(self.root)}
            for scene, one in SCENES.items()
            for seed in range(one.splits * seeds)
            for arm in one.arms
        ]
        return [{"scene": SPEED, "arm": "vmap", "seed": 0, "root": str(self.root)}, *trainings]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what one training reaches, or how fast networks are one after the other and as one."""
        about = {key: case[key] for key in ("scene", "arm", "seed")}
        if case["scene"] == SPEED:
            from crossreg.studies.ensemble.speed import vmapped_against_looped

            return [{**about, **vmapped_against_looped()}]
        return [{**about, **_trained(case["scene"], case["arm"], case["seed"], Path(case["root"]))}]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a training, means and standard deviations over seeds."""
        return [
            self._row(scene, arm, those(rows, scene=scene, arm=arm))
            for scene, arm in groups(rows, "scene", "arm")
            if scene != SPEED
        ]

    def _row(self, scene: str, arm: str, mine: list[Measurement]) -> dict[str, str]:
        classes = "accuracy" in mine[0]

        def mean(key: str, digits: int, factor: float = 1.0) -> str:
            values = [factor * row[key] for row in mine if row[key] is not None]
            return f"{statistics.mean(values):.{digits}f}" if values else "–"

        score = [100 * row["accuracy"] if classes else row["rmse"] for row in mine]
        alone = [statistics.mean(row["alone"][place] for row in mine) for place in range(len(mine[0]["alone"]))]
        shown = sorted({min(alone), max(alone)}) if alone else []
        return {
            "scene": scene,
            "arm": arm,
            "accuracy": mean_and_deviation(score, 1 if classes else 4),
            "nll": mean_and_deviation([row["nll"] for row in mine], 3) if classes else "–",
            "alone": " to ".join(f"{100 * one:.1f}" if classes else f"{one:.4f}" for one in shown) or "–",
            "error_correlation": mean("error_correlation", 2),
            "disagreement": mean("disagreement", 1, 100.0) + " %" if classes and shown else "–",
            "flops": f"{statistics.mean(row['flops'] for row in mine):.2g}",
            "parameters": f"{mine[0]['parameters']:,}",
            "seconds": mean("seconds", 1),
        }  # fmt: skip

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Return a verdict a claim."""
        found = []
        for claim in CLAIMS:
            verdict = claim.judge(rows)
            if verdict is not None:
                found.append(f"{claim.text}: {'shown' if verdict.shown else 'not shown'} ({verdict.evidence})")
        return found

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, and mean scores."""
        found = {}
        for claim in CLAIMS:
            if (verdict := claim.judge(rows)) is not None:
                found[f"shown/{claim.name}"] = float(verdict.shown)
        for scene, arm in groups(rows, "scene", "arm"):
            if scene != SPEED:
                key = "nll" if "accuracy" in those(rows, scene=scene, arm=arm)[0] else "rmse"
                name = f"{key}/{scene}/{_plain(arm)}"
                found[name] = statistics.mean(row[key] for row in those(rows, scene=scene, arm=arm))
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw what ensembles gain on one network, and what penalties do."""
        from crossreg.studies.ensemble.figure import draw

        return draw(rows)


def _plain(text: str) -> str:
    return "".join(one if one.isalnum() or one in "-_." else "_" for one in text)


def _trained(scene_name: str, arm: str, seed: int, root: Path) -> Measurement:
    import time

    import torch

    from crossreg.prediction.diversity import diversity
    from crossreg.prediction.evaluation import evaluate
    from crossreg.services.training.assemble import build_trainer
    from crossreg.services.training.result import result_of

    torch.set_num_threads(1)
    scene = SCENES[scene_name]
    config = _resolved(scene_name, arm, seed, root)
    if arm == WIDE:  # as many operations as the others at most
        config = config.model_copy(update={"steps": _steps_within(config, _resolved(scene_name, "one", seed, root))})
    data = load_data(config.data)
    trainer = build_trainer(config, data, torch.device("cpu"))
    began = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - began
    result = result_of(trainer)
    found: Measurement = {
        **{key: value for key, value in result.test.items() if key in ("accuracy", "nll", "rmse")},
        "alone": [one.get("accuracy", one.get("rmse")) for one in result.networks],
        "disagreement": _number(result.disagreement),
        "error_correlation": _number(result.error_correlation),
        "flops": result.cost.flops,
        "parameters": sum(one.numel() for one in trainer.model.parameters()),
        "seconds": seconds,
        "weight": result.regularizers.get("diversity"),
    }
    if scene.splits > 1 and config.ensemble > 1:
        seen = evaluate(trainer.model, trainer.loss, trainer.train, 1)
        assert seen.members is not None
        found["disagreement_train"] = diversity(seen.members, seen.targets).disagreement
        found["spread_train"] = float(seen.members.var(0).sum(1).mean())
        test = trainer.evaluated["test"].members
        assert test is not None
        found["spread"] = float(test.var(0).sum(1).mean())
    return found


def _number(value: float) -> float | None:
    return value if value == value else None


def _resolved(scene_name: str, arm: str, seed: int, root: Path) -> ResolvedConfig:
    from crossreg.services.training.config import TrainConfig
    from crossreg.services.training.resolve import resolve

    scene = SCENES[scene_name]
    settings: dict[str, Any] = {**scene.compared, **scene.arms[arm], "seed": seed}
    if "pair" in scene.data:
        pair = PAIRS[scene.data["pair"]]
        data = pair.config(OnPairs.files(root), seed)
        settings |= {"model": pair.model, "model_options": pair.options}
    else:
        data = DataConfig.model_validate({**scene.data, "root": root, "seed": seed})
    settings["data"] = data.model_dump()
    return resolve(TrainConfig.model_validate(settings), load_data(data))


def _steps_within(wide: ResolvedConfig, one: ResolvedConfig) -> int:
    """Return the steps of a wide network that cost no more than those of another."""
    from crossreg.services.search.budget import Plan

    data = load_data(one.data)
    costs = [Plan(config, data, select=False).flops["theta"] for config in (wide, one)]
    return max(1, int(one.steps * one.batch_size / wide.batch_size * costs[1] / costs[0]))
