"""What the numbers say, in sentences: who won, by how much, whether it can be told, at what compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from services.comparison.report.compute_to_target import ComputeToTarget
from services.comparison.report.context import Context
from services.comparison.report.estimates import Difference
from services.comparison.report.numbers import amount, factor, interval, score_name
from services.comparison.report.rows import Row

__all__ = ["SCALED", "at_compute", "comparison", "compute_to_target_sentence", "diverged", "join", "phrase", "verdicts"]

SCALED = ("nll", "ece")
"""Scores that temperature scaling changes and that are shown after it."""


def comparison(row: Row, reference: Row) -> str:
    """Return what the reference wins and loses against a method, and at what compute.

    Args:
        row: the method's numbers.
        reference: the reference's.
    """
    name = reference.method
    spoken = {score: paired for score, paired in row.differences.items() if score != "brier" and paired.values}
    if not spoken:
        gone = " ".join(text for text in (diverged(row), diverged(reference)) if text)
        return f"Against {row.label}: nothing can be said. {gone or 'They share no seed.'}"
    num = max(len(paired.values) for paired in spoken.values())
    seeds = "one seed: no interval" if num == 1 else f"{num} seeds"
    intro = f"Against {row.label} ({at_compute(row, name)}; {seeds})"
    parts = [f"{intro}: {verdicts(name, spoken)}.", _after_scaling(row, reference), diverged(row)]
    return " ".join(part for part in parts if part)


def at_compute(row: Row, name: str) -> str:
    """Return how much compute a method used, as a multiple of the reference's, whose name is given."""
    if math.isnan(row.compute_ratio):
        return "unknown compute"
    return f"{factor(row.compute_ratio)} times the compute of {name}"


def verdicts(name: str, differences: Mapping[str, Difference]) -> str:
    """Return in what the reference wins, in what it loses, and where that cannot be told.

    Args:
        name: the reference's.
        differences: to it, by score; each has values.
    """
    found: dict[str, list[str]] = {}
    for score, paired in differences.items():
        found.setdefault(paired.verdict, []).append(phrase(name, score, paired))
    num = max(len(paired.values) for paired in differences.values())
    leads = {
        "wins": f"{name} wins ",
        "loses": f"{name} loses ",
        "undecided": f"no difference can be told from {num} seeds ",
        "one seed": f"{name} is ",
    }
    return "; ".join(leads[verdict] + join(phrases) for verdict, phrases in found.items())


def phrase(name: str, score: str, paired: Difference) -> str:
    """Return one score's part of a comparison with the reference, whose name is given."""
    mean, low, high = paired.advantage(score)
    size, on = amount(score, mean, paired), f"on {score_name(score)}"
    lead = "better" if mean > 0 else "worse"
    if paired.verdict == "one seed":
        return f"{lead} {on} by {size}" if mean else f"equal {on}"
    if paired.verdict == "undecided":
        average = f"{name} {lead} by {size} on average" if mean else "equal on average"
        return f"{on} ({average}, 95 % interval of the lead {interval(score, low, high, paired)}, includes zero)"
    low, high = (low, high) if paired.verdict == "wins" else (-high, -low)
    return f"{on} by {size} (95 % interval {interval(score, low, high, paired)}, excludes zero)"


def _after_scaling(row: Row, reference: Row) -> str:
    """Say what is left of it after temperature scaling of both."""
    found = {score: row.scaled_differences[score] for score in SCALED if score in row.scaled_differences}
    known = {score: paired for score, paired in found.items() if paired.values}
    if known:
        return f"After temperature scaling of both: {verdicts(reference.method, known)}."
    without = [one.label for one in (row, reference) if not any(one.scaled[score].values for score in found)]
    if len(without) != 1:  # none at all: a regression
        return ""
    return f"Temperature scaling cannot be compared: {without[0]} has kept no split to fit a temperature on."


def diverged(row: Row) -> str:
    """Say on which seeds a method diverged; nothing if on none."""
    if not row.diverged:
        return ""
    seeds = join([str(seed) for seed in row.diverged])
    if len(row.diverged) == len(row.seeds):
        return f"{row.label} diverged on every seed ({seeds}) and has no scores."
    return (
        f"{row.label} diverged on {len(row.diverged)} of {len(row.seeds)} seeds "
        f"({seeds}), which no mean or difference of scores includes."
    )


def compute_to_target_sentence(row: Row, context: Context) -> str:
    """Say what the reference needed to be as good as a search was at its end."""
    told = "; ".join(_target(found) for found in row.compute_to_target if found.num_seeds)
    label = row.label
    lead = f"To be as good as {label} at its end, {context.reference} needed this fraction of the compute of {label}"
    return f"{lead}: {told}." if told else ""


def _target(found: ComputeToTarget) -> str:
    at = factor(found.mean) if found.fractions else "never"
    return f"{found.split} {score_name(found.score)} {at} ({found.counted})"


def join(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
