"""What is claimed of learned optimizers, and when it counts as shown."""

from __future__ import annotations

import math
import statistics

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.learned_optimizer.summed import (
    OTHER_DATA,
    OTHER_NETWORK,
    at,
    by_seed,
    chosen,
    chosen_rate,
    differences,
    diverged,
    losses_of,
    matched,
    rules_of,
)
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

__all__ = ["CLAIMS", "FLAT", "PLAIN"]

PLAIN, FLAT, HELD_OUT = "train", ("sam", "gsam", "gam"), "held-out"
_FEWEST_SEEDS = 5
_POINT = 0.005
_ADAM_STEPS, _WHOLE_STEPS = 15.0, 2.0


def _of(rows: list[Measurement], rule: str) -> list[str]:
    return [loss for loss in FLAT if loss in losses_of(rows, rule)]


def _accuracy(rows: list[Measurement]) -> Verdict | None:
    said, shown = [], False
    for rule in rules_of(rows):
        for loss in _of(rows, rule):
            apart = differences(rows, rule, loss, PLAIN, at(1), "accuracy")
            mean, half = interval(apart)
            shown |= mean > half and len(apart) >= _FEWEST_SEEDS
            said.append(f"{rule} {loss} {with_interval(100 * mean, 100 * half, 2)} points ({len(apart)} seeds)")
    return Verdict(shown, "; ".join(said)) if said else None


def _flatter(rows: list[Measurement]) -> Verdict | None:
    said, shown = [], False
    for rule in rules_of(rows):
        for loss in _of(rows, rule):
            ratios, lower = [], True
            for key in ("sharpness", "relative_sharpness", "eigenvalue", "norm"):
                values = matched(rows, rule, loss, PLAIN, key)
                mean, half = interval(values)
                lower &= key in ("eigenvalue", "norm") or (mean + half < 0 and len(values) >= _FEWEST_SEEDS)
                ratios.append(f"{math.exp(mean):.2f} ({math.exp(mean - half):.2f} to {math.exp(mean + half):.2f})")
            shown |= lower
            said.append(
                f"{rule} {loss}: sharpness {ratios[0]}, relative {ratios[1]}, eigenvalue {ratios[2]}, "
                f"norm {ratios[3]} of plain's"
            )
    return Verdict(shown, "; ".join(said)) if said else None


def _transfers(rows: list[Measurement]) -> Verdict | None:
    said, shown = [], False
    places = {OTHER_NETWORK: at(1, OTHER_NETWORK), OTHER_DATA: at(1, OTHER_DATA), "2x": at(2), "10x": at(10)}
    for rule in rules_of(rows):
        for loss in _of(rows, rule):
            parts, all_better = [], True
            for name, pick in places.items():
                apart = differences(rows, rule, loss, PLAIN, pick, "accuracy")
                if not apart:
                    continue
                mean, half = interval(apart)
                all_better &= mean > half and len(apart) >= _FEWEST_SEEDS
                parts.append(f"{name} {with_interval(100 * mean, 100 * half, 2)}")
            shown |= all_better
            said.append(f"{rule} {loss}: {', '.join(parts)}")
    return Verdict(shown, f"points of accuracy more than plain: {'; '.join(said)}") if said else None


def _held_out(rows: list[Measurement]) -> Verdict | None:
    said, shown = [], False
    for rule in rules_of(rows):
        if not {HELD_OUT, "sam"} <= set(losses_of(rows, rule)):
            continue
        apart = differences(rows, rule, HELD_OUT, "sam", at(1), "test_loss")
        mean, half = interval(apart)
        seconds = [
            statistics.mean(row["seconds"] for row in those(rows, what="learned", rule=rule, loss=loss))
            for loss in (HELD_OUT, "sam")
        ]
        plain = interval(differences(rows, rule, HELD_OUT, PLAIN, at(1), "test_loss"))
        cheap = seconds[0] <= 1.05 * seconds[1]
        shown |= mean + half < 0 and cheap and len(apart) >= _FEWEST_SEEDS
        said.append(
            f"{rule}: test NLL {with_interval(mean, half)} against SAM in {seconds[0]:.0f} s of meta-training against "
            f"{seconds[1]:.0f}, {with_interval(*plain)} against plain ({len(apart)} seeds)"
        )
    return Verdict(shown, "; ".join(said)) if said else None


def _adamw(rows: list[Measurement]) -> Verdict | None:
    if not those(rows, what="other", rule="adamw"):
        return None
    tuned = statistics.mean(row["accuracy"] for row in chosen(rows, "adamw", at(1)))
    said, shown = [], False
    for rule in rules_of(rows):
        for loss in losses_of(rows, rule):
            own = by_seed(rows, rule, loss, at(1), "accuracy")
            longer = [row for row in those(rows, what="learned", rule=rule, loss=loss) if at(2)(row)]
            lost = diverged(longer, rows)
            behind = statistics.mean(own.values()) - tuned
            good = behind >= -_POINT and lost == 0
            shown |= good and len(longer) >= 25
            said.append(f"{rule} {loss} {100 * behind:+.2f}, {lost} of {len(longer)} diverged at 2x")
    rate = chosen_rate(rows, "adamw", at(1))
    return Verdict(shown, f"points against AdamW at {rate:g}, {100 * tuned:.2f} %: {'; '.join(said)}")


def _cost(rows: list[Measurement]) -> Verdict | None:
    found = those(rows, what="cost")
    if not found:
        return None
    cost = found[0]
    forms = ("mlp", "lstm")
    steps = {(name, rule): cost[f"{name}/{rule}"] / cost[f"{name}/adam"] for name in ("small", "cnn") for rule in forms}
    whole = {
        rule: (cost["cnn/gradient"] + cost[f"cnn/{rule}"]) / (cost["cnn/gradient"] + cost["cnn/adam"]) for rule in forms
    }
    shown = max(steps["small", "mlp"], steps["cnn", "mlp"]) <= _ADAM_STEPS and whole["mlp"] <= _WHOLE_STEPS
    said = [
        f"{rule} {steps['small', rule]:.1f} Adam steps on a perceptron of 15,910 weights, {steps['cnn', rule]:.1f} on "
        f"`cnn`, whose training step takes {whole[rule]:.2f} times as long"
        for rule in forms
    ]
    return Verdict(shown, "; ".join(said))


CLAIMS = (
    Claim("accuracy", "SAM, GSAM or GAM in the meta-loss beat the plain one in test accuracy", _accuracy),
    Claim("flatter", "they lead to flatter minima, at equal training loss, by both measures", _flatter),
    Claim("transfer", "that carries over to other networks, other data and longer trainings", _transfers),
    Claim("held-out", "held-out data in the meta-loss beat SAM in it, at no more compute", _held_out),
    Claim("adamw", "a learned optimizer is as good as AdamW tuned over five rates", _adamw),
    Claim("cost", "the small network costs at most 15 Adam steps, and 2 training steps of `cnn`", _cost),
)
"""In the order of the results page."""
