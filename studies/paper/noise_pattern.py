"""Where learned noise goes: by layer over time, in a plain network and in a residual one.

    vgg       thirteen convolutions one after another
    resnet    six blocks with skip connections around them, before which and after which nothing can be passed by

Each is trained without noise, with learned noise and temperature (the default), and with noise alone (the paper's); the
plain one also from other initial sigmas, and again with what was learned: the last sigmas from the start, and all of
them in their order.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
STARTS = (0.01, 1.0)
"""Initial sigmas beside the default, 0.1."""
ARMS: dict[str, dict[str, Any]] = {
    "none": {"regularizers": {}},
    "learned": {},
    "noise alone": {"regularizers": {"noise": {}}},
    **{f"from {start:g}": {"regularizers": {"noise": {"start": start}, "temperature": {}}} for start in STARTS},
}
OF_NETWORK = {"vgg": tuple(ARMS), "resnet": ("none", "learned", "noise alone")}
FROZEN, REPLAYED = "last sigmas, frozen", "schedule replayed"
POINTS = 20
"""Looks at a training."""
_LATE = 0.2  # of the training: two moments so near count as the same


class NoisePattern(Experiment):
    """Sigma by layer over time."""

    name = "noise-pattern"
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
                    key: f"{statistics.mean(_geometric(one[piece]) for one in sigma):.2g}"
                    for key, piece in pieces.items()
                }
                ends["largest"] = f"{statistics.mean(map(max, sigma)):.2g}"
            found.append(
                {
                    "network": network,
                    "arm": arm,
                    "accuracy": mean_and_deviation([100 * row["accuracy"] for row in mine], 1),
                    "gap": f"{100 * statistics.mean(_gap(row['curve'][-1]) for row in mine):.1f}",
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
        return _draw(rows)


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


def _geometric(values: list[float]) -> float:
    return statistics.geometric_mean(values)


def _gap(look: dict[str, Any]) -> float:
    """Return by how much accuracy on training images is above that on test images."""
    return float(look["train/accuracy"] - look["test/accuracy"])


def _with_depth(arm: str) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        from scipy.stats import spearmanr

        mine = those(rows, network="vgg", arm=arm)
        if not mine:
            return None
        ends = [row["curve"][-1]["sigma"] for row in mine]
        ranks = [float(spearmanr(range(len(sigma)), sigma).statistic) for sigma in ends]
        mean, half = interval(ranks)
        spread = f"{min(map(min, ends)):.2g} to {max(map(max, ends)):.2g}"
        return Verdict(
            mean - half > 0, f"rank correlation of sigma with depth {with_interval(mean, half, 2)}, sigma {spread}"
        )

    return judge


def _large(rows: list[Measurement]) -> Verdict | None:
    mine = [row for row in rows if row["arm"] == "noise alone"]
    if not mine:
        return None
    largest = {network: [max(r["curve"][-1]["sigma"]) for r in those(mine, network=network)] for network in OF_NETWORK}
    said = ", ".join(f"{network} {min(v):.2g} to {max(v):.2g}" for network, v in largest.items() if v)
    return Verdict(any(statistics.mean(v) > 1 for v in largest.values() if v), f"largest sigma of a run: {said}")


def _around_skips(arm: str) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        mine = those(rows, network="resnet", arm=arm)
        if not mine:
            return None
        ratios = []
        for row in mine:
            logs: dict[bool, list[float]] = {True: [], False: []}
            for around, sigma in zip(row["around"], row["curve"][-1]["sigma"], strict=True):
                logs[around].append(math.log(sigma))
            ratios.append(statistics.mean(logs[False]) - statistics.mean(logs[True]))
        mean, half = interval(ratios)
        low, middle, high = (math.exp(one) for one in (mean - half, mean, mean + half))
        return Verdict(low > 1, f"{middle:.2f} times the sigma of the others ({low:.2f} to {high:.2f})")

    return judge


def _when(rows: list[Measurement]) -> Verdict | None:
    """Compare when log sigma has done half of its rise with when the gap has."""
    apart = []
    for (seed,) in groups(those(rows, arm="noise alone"), "seed"):
        lags = [_lag(row["curve"]) for row in those(rows, arm="noise alone", seed=seed)]
        if known := [lag for lag in lags if lag is not None]:
            apart.append(statistics.mean(known))
    if not apart:
        return None
    mean, half = interval(apart)
    said = f"sigma is half up {with_interval(100 * mean, 100 * half, 0)} % of the training after the gap is"
    return Verdict(abs(mean) + half <= _LATE, said)


def _lag(curve: list[dict[str, Any]]) -> float | None:
    """Return by what share of the training sigma is later than the gap; None where one of them never rises."""
    steps = [look["step"] / curve[-1]["step"] for look in curve]
    gap = _half_way(steps, [_gap(look) for look in curve])
    sigma = _half_way(steps, [math.log(_geometric(look["sigma"])) for look in curve])
    return None if gap is None or sigma is None else sigma - gap


def _half_way(steps: list[float], values: list[float]) -> float | None:
    """Return when values have first done half of their rise from the lowest on; None where the lowest is the last."""
    lowest = values.index(min(values))
    later = values[lowest:]
    if len(later) < 2:
        return None
    half = (later[0] + max(later)) / 2
    return next(step for step, value in zip(steps[lowest:], later, strict=True) if value >= half)


def _same_end(rows: list[Measurement]) -> Verdict | None:
    arms = ("from 0.01", "learned", "from 1")
    ends = {}
    for arm in arms:
        mine = those(rows, network="vgg", arm=arm)
        if not mine:
            return None
        ends[arm] = statistics.geometric_mean([_geometric(row["curve"][-1]["sigma"]) for row in mine])
    ratio = max(ends.values()) / min(ends.values())
    said = ", ".join(f"{arm.replace('learned', 'from 0.1')} to {value:.2g}" for arm, value in ends.items())
    return Verdict(ratio < 2, f"{said} (geometric mean over layers)")


def _again(arm: str) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        before = {row["seed"]: row["nll"] for row in those(rows, network="vgg", arm="learned")}
        apart = [row["nll"] - before[row["seed"]] for row in those(rows, network="vgg", arm=arm)]
        if not apart:
            return None
        mean, half = interval(apart)
        return Verdict(abs(mean) <= half < float("inf"), f"NLL {with_interval(mean, half)} against the run")

    return judge


NoisePattern.claims = (
    Claim(
        "depth",
        "in VGG noise rises with depth, learned without a temperature",
        _with_depth("noise alone"),
        "0.01 to 12, rising with depth",
    ),
    Claim("depth with temperature", "the same with a temperature beside it (our default)", _with_depth("learned")),
    Claim("large", "sigmas above one are learned, and survived", _large, "up to 13; in ResNet 10.4"),
    Claim(
        "skips",
        "in a ResNet noise sits where skip connections cannot go round, without a temperature",
        _around_skips("noise alone"),
        "in early and last layers",
    ),
    Claim("skips with temperature", "the same with a temperature beside it", _around_skips("learned")),
    Claim("when", "noise rises when the generalization gap opens", _when, "at epochs 5 and 40"),
    Claim("starts", "other initial sigmas come to the same end, within a factor of two", _same_end),
    Claim("schedule", "the schedule replayed cannot be told from the run", _again(REPLAYED)),
    Claim("frozen", "the last sigmas, fixed from the start, cannot be told from the run", _again(FROZEN)),
)


_TITLES = {"noise alone": "noise alone", "learned": "noise and temperature"}


def _draw(rows: list[Measurement]) -> Figure:
    from crossreg.services.style import new_figure

    figure = new_figure(10, 9)
    grid = figure.subplots(3, 2)
    for column, network in enumerate(OF_NETWORK):
        for line, (arm, title) in enumerate(_TITLES.items()):
            if mine := those(rows, network=network, arm=arm):
                _over_time(grid[line][column], mine, f"{network}, {title}")
        _by_depth(grid[2][column], those(rows, network=network), network)
    return figure


def _by_depth(axes: Axes, rows: list[Measurement], network: str) -> None:
    """Draw sigma at the end by layer, a line a seed."""
    from crossreg.services.style import COLOURS, log_axis, plain

    for colour, (arm, title) in zip(COLOURS, _TITLES.items(), strict=False):
        for index, row in enumerate(those(rows, arm=arm)):
            sigma = row["curve"][-1]["sigma"]
            label = None if index else title
            axes.plot(range(1, len(sigma) + 1), sigma, "o-", color=colour, markersize=3, alpha=0.6, label=label)
    if some := [row for row in those(rows, arm="learned") if any(row["around"])]:
        for place, around in enumerate(some[0]["around"], start=1):
            if not around:
                axes.axvspan(place - 0.4, place + 0.4, color="0.9", zorder=0)
        axes.plot([], [], "s", color="0.85", label="no skip goes round")
    axes.set(xlabel=f"{network}: layer", ylabel="sigma at the end")
    log_axis(axes, "y", 6)
    axes.legend(fontsize=7, frameon=False)
    plain(axes)


def _over_time(axes: Axes, rows: list[Measurement], title: str) -> None:
    """Draw sigma by layer over epochs, the mean over seeds, and the generalization gap on an axis of its own."""
    from crossreg.services.style import GREY, depth_colours, log_axis, plain

    curves = [row["curve"] for row in rows]
    epochs = [look["epoch"] for look in curves[0]]
    layers = len(curves[0][0]["sigma"])
    for layer, colour in enumerate(depth_colours(layers)):
        means = [statistics.geometric_mean([curve[k]["sigma"][layer] for curve in curves]) for k in range(len(epochs))]
        axes.plot(epochs, means, color=colour, linewidth=1.2)
    gaps = axes.twinx()
    gaps.plot(
        epochs,
        [100 * statistics.mean(_gap(curve[k]) for curve in curves) for k in range(len(epochs))],
        "--",
        color=GREY,
    )
    gaps.set_ylabel("train − test, points (dashed)", fontsize=8)
    axes.set(xlabel="epoch", ylabel="sigma, by depth", title=title)
    log_axis(axes, "y", 6)
    plain(axes)
