"""How small the regularization split may be: what is learned from it, and how far that holds on data it never saw.

Weights are trained on the same examples whatever the size of the split, which is the beginning of one and the same
held-out part. A run overfits the split by

    (test NLL - reg NLL of the run) - (test NLL - reg NLL of a run that never saw the split)

where the second difference says only how hard the examples of the split happen to be. The run that never saw it has no
noise, and a temperature fitted on test examples that are scored nowhere, so that both predict with a temperature.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.paper.reg_size.claims import CLAIMS, LARGE, NEVER, SHARES, exponents, overfitted
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crossreg.services.data import Dataset

__all__ = ["RegSize"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "pictures": "paper-fashion",
        "aside": 1_000,
        "training": {"model": "mlp", "epochs": 20, "batch_size": 128, "rho": {"interval": 10}},
    },
    "paper": {
        "pictures": "paper-fashion-all",
        "aside": 2_000,
        "training": {"model": "cnn", "epochs": 20, "batch_size": 128, "rho": {}},
    },
}
GRANULARITIES: dict[str, dict[str, Any]] = {
    "layer": {"noise": {}, "temperature": {}},
    "unit": {"noise": {"granularity": "unit"}, "temperature": {}},
}


class RegSize(Experiment):
    """Overfitting of the regularization split by its size and by how much is learned from it."""

    name = "reg-size"
    claims = CLAIMS
    summary = "how small the regularization split may be, for one sigma a layer and one a unit"
    pictures: ClassVar = {scale: (one["pictures"],) for scale, one in SCALES.items()}
    columns: ClassVar = {
        "granularity": "a sigma a",
        "size": "examples m",
        "ratio": "k / m",
        "overfitting": "overfitting, nats",
        "reg": "reg NLL",
        "nll": "test NLL",
        "accuracy": "accuracy %",
        "temperature": "T",
        "sigma": "sigma, mean",
    }
    labels = 2
    deviations: ClassVar = (
        "10,000 images of Fashion-MNIST, of which a fifth is held out whatever the size of the split, an MLP of three "
        "layers of 512 with BatchNorm; rho every 10 steps, not every 30, since there are so few",
        "a temperature is learned beside the noise (our default), and counts as one more of the k values",
        "the smallest splits are drawn without regard to class, and a rho step takes all of a split up to 128 examples",
    )

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return a training of every granularity, size and seed, and one a seed that never sees the split."""
        kinds = [(NEVER, LARGE), *((granularity, share) for granularity in GRANULARITIES for share in SHARES)]
        return [
            {"scale": self.scale, "granularity": granularity, "share": share, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            for granularity, share in kinds
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what one training reaches; one that never saw the split is scored on splits of all sizes."""
        from crossreg.regularizers.temperature import temperature
        from crossreg.services.data import Split
        from crossreg.services.training.result import predictions_of
        from crossreg.studies.paper.training import scores, sigma_of, train

        settings, seed, granularity = SCALES[case["scale"]], case["seed"], case["granularity"]
        data, config, aside = self._data(case), settings["training"], settings["aside"]
        if granularity == NEVER:
            return _never(train(config | {"regularizers": {}}, data, seed), aside, _total(data), seed)
        size = _size(case["share"], _total(data))
        reg, test = (
            Split(s.x[rows], s.y[rows]) for s, rows in ((data.reg, slice(size)), (data.test, slice(aside, None)))
        )
        rho = config["rho"] | {"batch_size": min(config["batch_size"], size)}
        learning = config | {"rho": rho, "regularizers": GRANULARITIES[granularity]}
        trainer = train(learning, replace(data, reg=reg, test=test), seed)
        assert trainer.regularizer is not None
        found = predictions_of(trainer)
        on_test, on_reg = (scores(found[name]["mean"], found[name]["targets"]) for name in ("test", "reg"))
        return [
            {
                "granularity": granularity,
                "share": case["share"],
                "seed": seed,
                "size": size,
                "k": sum(rho.numel() for rho in trainer.regularizer.rho.values()),
                **on_test,
                "reg_nll": on_reg["nll"],
                "temperature": float(temperature(trainer.model)),
                "sigma": sigma_of(trainer.model),
            }
        ]

    def _data(self, case: dict[str, Any]) -> Dataset:
        return self.load(SCALES[case["scale"]]["pictures"], case["root"], case["seed"], reg_share=LARGE)

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a granularity and size, means and standard deviations over seeds."""
        rows = overfitted(rows)
        return [
            {
                "granularity": granularity,
                "size": f"{mine[0]['size']:,} ({100 * share:g} %)",
                "ratio": f"{mine[0]['k'] / mine[0]['size']:.3g}",
                "overfitting": mean_and_deviation([row["overfitting"] for row in mine], 3, "+"),
                "reg": mean_and_deviation([row["reg_nll"] for row in mine], 3),
                "nll": mean_and_deviation([row["nll"] for row in mine], 3),
                "accuracy": mean_and_deviation([100 * row["accuracy"] for row in mine], 1),
                "temperature": f"{statistics.geometric_mean(row['temperature'] for row in mine):.2f}",
                "sigma": f"{statistics.mean(statistics.mean(row['sigma']) for row in mine):.2g}",
            }
            for granularity, share in groups(rows, "granularity", "share")
            if (mine := those(rows, granularity=granularity, share=share))
        ]

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, and overfitting and test NLL by granularity and share."""
        found, rows = self.shown(rows), overfitted(rows)
        for granularity, share in groups(rows, "granularity", "share"):
            mine, name = those(rows, granularity=granularity, share=share), f"{granularity}/{share:g}"
            found[f"overfitting/{name}"] = statistics.mean(row["overfitting"] for row in mine)
            found[f"nll/{name}"] = statistics.mean(row["nll"] for row in mine)
        if slopes := exponents(rows):
            found["exponent"] = statistics.mean(slopes)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw overfitting against sqrt(k / m), and test NLL against the size of the split."""
        from crossreg.studies.paper.reg_size.figure import draw

        return draw(overfitted(rows))


def _total(data: Dataset) -> int:
    return len(data.train) + len(data.reg)


def _size(share: float, total: int) -> int:
    return max(2, round(share * total))


def _never(trainer: Any, aside: int, total: int, seed: int) -> list[Measurement]:
    """Return a row a size of the scores of a run without noise; a temperature is fitted on the test examples aside."""
    from crossreg.services.training.result import predictions_of
    from crossreg.studies.paper.training import scores

    found = predictions_of(trainer)
    mean, targets = found["test"]["mean"], found["test"]["targets"]
    held = (mean[:aside], targets[:aside])
    on_test = scores(mean[aside:], targets[aside:], *held)
    rows = []
    for share in SHARES:
        size = _size(share, total)
        on_reg = scores(found["reg"]["mean"][:size], found["reg"]["targets"][:size], *held)
        rows.append(
            {
                "granularity": NEVER,
                "share": share,
                "seed": seed,
                "size": size,
                "k": 0,
                "accuracy": on_test["accuracy"],
                "nll": on_test["nll_scaled"],
                "reg_nll": on_reg["nll_scaled"],
                "temperature": on_test["fitted"],
                "sigma": [],
            }
        )
    return rows
