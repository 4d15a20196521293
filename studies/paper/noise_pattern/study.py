"""Where learned noise goes: by layer over time, in a plain network and in a residual one.

    vgg       thirteen convolutions one after another
    resnet    six blocks with skip connections around them, before which and after which nothing can be passed by

Each is trained without noise, with learned noise and temperature (the default), and with noise alone (the paper's); the
plain one also from other initial sigmas, and again with what was learned: the last sigmas from the start, and all of
them in their order.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.paper.noise_pattern.claims import CLAIMS, FROZEN, OF_NETWORK, REPLAYED, STARTS, gap
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

__all__ = ["NoisePattern"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "pictures": "paper-cifar-16",
        "epochs": 40,
        "batch_size": 64,
        "rho": {"interval": 10},
        "vgg": {"model": "vgg16", "model_options": {"width": 8}},
        "resnet": {"model": "wide_resnet", "model_options": {"depth": 16, "width": 1}},
    },
    "paper": {
        "pictures": "paper-cifar-32",
        "epochs": 100,
        "batch_size": 128,
        "rho": {},
        "vgg": {"model": "vgg16"},
        "resnet": {"model": "wide_resnet", "model_options": {"depth": 16, "width": 4}},
    },
}
ARMS: dict[str, dict[str, Any]] = {
    "none": {"regularizers": {}},
    "learned": {},
    "noise alone": {"regularizers": {"noise": {}}},
    **{f"from {start:g}": {"regularizers": {"noise": {"start": start}, "temperature": {}}} for start in STARTS},
}
POINTS = 20
"""Looks at a training."""


class NoisePattern(Experiment):
    """Sigma by layer over time."""

    name = "noise-pattern"
    claims: ClassVar = CLAIMS
    summary = "where learned noise goes: by layer over time, in VGG-16 and in a residual network"
    pictures: ClassVar = {scale: (one["pictures"],) for scale, one in SCALES.items()}
    columns: ClassVar = {
        "network": "network",
        "arm": "noise",
        "accuracy": "accuracy %",
        "gap": "train − test",
        "nll": "NLL",
        "scaled": "NLL scaled",
        "first": "sigma, first",
        "middle": "middle",
        "last": "last",
        "largest": "largest",
        "temperature": "T",
    }
    labels = 2
    deviations: ClassVar = (
        "2,000 images of 16x16 (200 of them for sigma), a VGG-16 an eighth as wide and a pre-activation ResNet of 16 "
        "layers, 40 epochs; sigma every 10 steps, not every 30, since there are so few",
    )

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return a training of every network, arm and seed; those that repeat a training come with it."""
        return [
            {"scale": self.scale, "network": network, "arm": arm, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            for network, arms in OF_NETWORK.items()
            for arm in arms
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what one training reaches; the default of VGG also with what was learned, frozen and replayed."""
        from crossreg.studies.paper.training import Follow, Replay, fixed_noise, scores_of, train

        settings, seed = SCALES[case["scale"]], case["seed"]
        about = {key: case[key] for key in ("network", "arm", "seed")}
        data = self.load(settings["pictures"], case["root"], seed)
        config = {key: settings[key] for key in ("epochs", "batch_size", "rho")} | settings[case["network"]]
        follow = Follow(POINTS)
        trainer = train(config | ARMS[case["arm"]], data, seed, [follow])
        alike = {"around": around_skips(trainer.model)}
        found = [{**about, **alike, **scores_of(trainer), "curve": follow.curve}]
        if (case["network"], case["arm"]) == ("vgg", "learned"):
            fixed = {"regularizers": fixed_noise(trainer.model)}
            for arm, callbacks in ((FROZEN, []), (REPLAYED, [Replay(follow.schedule)])):
                again = Follow(POINTS)
                other = train(config | fixed, data, seed, [*callbacks, again])
                found.append({**about, "arm": arm, **alike, **scores_of(other), "curve": again.curve})
        return found

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a training, means and standard deviations over seeds."""
        found = []
        for network, arm in groups(rows, "network", "arm"):
            mine = those(rows, network=network, arm=arm)
            sigma = [row["curve"][-1]["sigma"] for row in mine]
            ends = dict.fromkeys(("first", "middle", "last", "largest"), "–")
            if sigma[0]:
                third = len(sigma[0]) // 3
                pieces = {"first": slice(0, third), "middle": slice(third, -third), "last": slice(-third, None)}
                ends = {
                    key: f"{statistics.mean(statistics.geometric_mean(one[piece]) for one in sigma):.2g}"
                    for key, piece in pieces.items()
                }
                ends["largest"] = f"{statistics.mean(map(max, sigma)):.2g}"
            found.append(
                {
                    "network": network,
                    "arm": arm,
                    "accuracy": mean_and_deviation([100 * row["accuracy"] for row in mine], 1),
                    "gap": f"{100 * statistics.mean(gap(row['curve'][-1]) for row in mine):.1f}",
                    "nll": mean_and_deviation([row["nll"] for row in mine], 3),
                    "scaled": mean_and_deviation([row["nll_scaled"] for row in mine], 3),
                    **ends,
                    "temperature": f"{statistics.mean(row['curve'][-1]['temperature'] for row in mine):.2f}",
                }
            )
        return found

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, NLL and the largest sigma of every training."""
        found = self.shown(rows)
        for network, arm in groups(rows, "network", "arm"):
            mine, name = those(rows, network=network, arm=arm), f"{network}/{arm.replace(' ', '_').replace(',', '')}"
            found[f"nll/{name}"] = statistics.mean(row["nll"] for row in mine)
            found[f"largest_sigma/{name}"] = statistics.mean(
                max(row["curve"][-1]["sigma"], default=0.0) for row in mine
            )
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw sigma by layer over time, the gap beside it, and sigma at the end by depth."""
        from crossreg.studies.paper.noise_pattern.figure import draw

        return draw(rows)


def around_skips(model: nn.Module) -> list[bool]:
    """Return for each layer with noise whether a skip connection goes round it."""
    from crossreg.models.wide_resnet import Block
    from crossreg.regularizers.noise import noise_layers

    blocks = {name: one for name, one in model.named_modules() if isinstance(one, Block)}
    found = []
    for layer in noise_layers(model):
        name, _, norm = layer.rpartition(".")
        # where the shape changes the shortcut begins after the first normalization
        found.append(name in blocks and not (norm == "bn1" and blocks[name].shortcut is not None))
    return found
