"""Calibration by learned noise on data that are no images: text, sequences with padding, and tables.

On every data set the same network is trained with nothing, with a temperature alone, with learned noise and temperature
(the default), with dropout, and with fixed noise; the held-out split is the same for all, and what is not learned on it
is chosen on it. A temperature alone plays no part in the steps of the weights, so that arm and the one with nothing
share a training.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.paper.other_domains.claims import (
    ARMS,
    CLAIMS,
    CLEAN,
    CONSTANT,
    DROPOUT,
    FIXED,
    FLIPPED,
    LEARNED,
    NONE,
    POST,
    PRE,
    TEMPERATURE,
    chosen,
)
from crossreg.studies.paper.other_domains.domains import DOMAINS, load_domain, write_domain
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crossreg.training.trainer import Trainer

__all__ = ["OtherDomains"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "test_rows": 1_000,
        "training": {"batch_size": 64, "rho": {"interval": 10}},
        "transformer": {"width": 32},
    },
    "paper": {"test_rows": None, "training": {"epochs": 20}, "transformer": {"width": 128}},
}
RATES, SIGMAS = (0.1, 0.3), (0.1, 0.3, 1.0)
"""Of dropout and of fixed noise, from which the loss on the held-out split chooses."""
TRAINED: dict[str, list[tuple[float, dict[str, Any]]]] = {
    NONE: [(0.0, {"regularizers": {"temperature": {}}})],
    LEARNED: [(0.0, {})],
    DROPOUT: [(rate, {"regularizers": {}, "model_options": {"dropout": rate}}) for rate in RATES],
    FIXED: [(sigma, {"regularizers": {"noise": {"learn": False, "value": sigma}}}) for sigma in SIGMAS],
}
"""By arm what is trained: a setting, and what the configuration has for it."""
AGAIN = ((CLEAN, PRE), (FLIPPED, POST), (FLIPPED, CONSTANT))
"""The same text once more: with right labels, with another network, and without the falling learning rate."""
BRIEFLY = (NONE, LEARNED)
"""What is trained of these, which are there for what noise buys in them."""


class OtherDomains(Experiment):
    """Learned noise against none, a temperature, dropout and fixed noise on text, sequences and tables."""

    name = "other-domains"
    claims = CLAIMS
    summary = "calibration by learned noise on text, sequences with padding, and tables"
    columns: ClassVar = {
        "data": "data",
        "network": "network",
        "arm": "arm",
        "accuracy": "accuracy %",
        "nll": "NLL",
        "scaled": "NLL scaled",
        "ece": "ECE",
        "ece_scaled": "ECE scaled",
        "setting": "setting",
        "sigma": "sigma",
        "temperature": "T",
    }
    labels = 3
    seeds = 5
    deviations: ClassVar = (
        "the paper has images only: what carries over to other data is our question, and all settings are ours",
        "batches of 64 (utterances 32), 10 epochs of tables, 12 of cities, 15 of docstrings (30 at a constant "
        "rate) and 40 of utterances, rho every 10 steps (utterances 5), not every 30, since there are so few; "
        "at most 1,000 test examples",
        "transformers of two layers of width 32; of text with right labels, of the post-norm network and at a constant "
        "rate dropout and fixed noise are left out",
        "no arm trains its weights on the held-out split: dropout and fixed noise are chosen on it, all temperatures "
        "are fitted on it",
    )

    def prepare(self) -> None:
        """Write the files of the data, unless they are there."""
        assert self.data is not None
        for domain in DOMAINS.values():
            write_domain(self._named(domain), self.root / "paper", self.data)

    def _named(self, domain: Any) -> str:
        return str(domain.small if self.scale == "small" else domain.whole)

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return the trainings of every arm by seed, data and network."""
        return [
            {"scale": self.scale, "data": name, "network": network, "arm": arm, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            for name, domain in DOMAINS.items()
            for network in domain.networks
            for arm in (BRIEFLY if (name, network) in AGAIN else TRAINED)
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what every setting of one arm reaches; that with nothing also what a temperature alone does."""
        from crossreg.studies.paper.training import train

        settings, domain, seed, arm = SCALES[case["scale"]], DOMAINS[case["data"]], case["seed"], case["arm"]
        data = load_domain(self._named(domain), Path(case["root"]) / "paper", seed, settings["test_rows"], domain.flips)
        config = self._config(case)
        about = {key: case[key] for key in ("data", "network", "seed")}
        found = []
        for setting, own in TRAINED[arm]:
            options = config["model_options"] | own.get("model_options", {})
            trainer = train(config | own | {"model_options": options}, data, seed)
            if arm == NONE:
                found.append({**about, "arm": TEMPERATURE, "setting": setting, **_scored(trainer)})
                _without_temperature(trainer)
            found.append({**about, "arm": arm, "setting": setting, **_scored(trainer)})
        return found

    def _config(self, case: dict[str, Any]) -> dict[str, Any]:
        """Return what a configuration has for data, network and scale."""
        settings, domain = SCALES[case["scale"]], DOMAINS[case["data"]]
        network = domain.networks[case["network"]]
        small = {"epochs": domain.epochs, **domain.training} if case["scale"] == "small" else {}
        options = {} if network["model"] == "mlp" else settings["transformer"]
        config = small | network | {"model_options": network.get("model_options", {}) | options}
        return settings["training"] | config

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row an arm, means and standard deviations over seeds."""
        rows, found = chosen(rows), []
        for data, network in groups(rows, "data", "network"):
            for arm in ARMS:
                if not (mine := those(rows, data=data, network=network, arm=arm)):
                    continue
                sigma = [value for row in mine for value in row["sigma"]]
                values = sorted({row["setting"] for row in mine} - {0.0})
                found.append(
                    {
                        "data": data,
                        "network": network,
                        "arm": arm,
                        "accuracy": mean_and_deviation([100 * row["accuracy"] for row in mine], 1),
                        **{
                            column: mean_and_deviation([row[key] for row in mine], 3)
                            for column, key in (("nll", "nll"), ("scaled", "nll_scaled"), ("ece", "ece"),
                                                ("ece_scaled", "ece_scaled"))
                        },
                        "setting": " ".join(f"{value:g}" for value in values) or "–",
                        "sigma": f"{statistics.mean(sigma):.2g}" if sigma else "–",
                        "temperature": f"{statistics.mean(row['temperature'] for row in mine):.2f}",
                    }
                )  # fmt: skip
        return found

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, and the scores of every arm."""
        found, rows = self.shown(rows), chosen(rows)
        for data, network, arm in groups(rows, "data", "network", "arm"):
            mine = those(rows, data=data, network=network, arm=arm)
            name = f"{data}/{network}/{arm}"
            for key in ("nll", "nll_scaled", "accuracy", "ece"):
                found[f"{key}/{name}"] = statistics.mean(row[key] for row in mine)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw how far every arm is from the one with nothing, in NLL as it is, NLL scaled, and accuracy."""
        from crossreg.studies.paper.other_domains.figure import draw

        return draw(rows)


def _scored(trainer: Trainer) -> dict[str, Any]:
    """Return the scores of a training from its last evaluation, and what its hyperparameters are now."""
    from crossreg.regularizers.temperature import temperature
    from crossreg.studies.paper.training import scores, sigma_of

    test, reg = (trainer.evaluated[name] for name in ("test", "reg"))
    return {
        **scores(test.mean, test.targets, reg.mean, reg.targets),
        "reg_nll": reg.scores["nll"],
        "temperature": float(temperature(trainer.model)),
        "sigma": sigma_of(trainer.model),
    }


def _without_temperature(trainer: Trainer) -> None:
    """Take the temperature back to 1, and evaluate the model once more."""
    from crossreg.prediction.evaluation import evaluate
    from crossreg.regularizers import set_hyperparameters

    set_hyperparameters(trainer.model, trainer.optimizer, {"temperature": 1.0})
    plan = trainer.evaluation
    for name, batches in plan.splits.items():
        trainer.evaluated[name] = evaluate(trainer.model, trainer.loss, batches, plan.final_samples)
