"""What the numbers say, in sentences: who won, by how much, whether it can be told, at what compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossreg.services.comparison.report.context import Context
from crossreg.services.comparison.report.estimates import FEWEST_SEEDS, Difference
from crossreg.services.comparison.report.numbers import amount, factor, interval, score_name
from crossreg.services.comparison.report.rows import Row

__all__ = [
    "SCALED",
    "at_compute",
    "comparison",
    "compute_to_target_sentence",
    "counted",
    "diverged",
    "join",
    "phrase",
    "verdict",
    "verdicts",
]

SCALED = ("nll", "ece")
"""Scores that temperature scaling changes and that are shown after it."""


def verdict(rows: Sequence[Row], reference: Row) -> str:
    """Return whom the reference beats, who beats it and who cannot be told from it, by the scores that decide.

    These are accuracy, and NLL after temperature scaling where there is one, so that calibration alone wins nothing;
    for a regression RMSE.
    """
    others = [row for row in rows if not row.is_reference and row.differences]
    said = []
    for score, words in (("accuracy", "accuracy"), ("rmse", "RMSE"), ("nll", "NLL")):
        found: dict[str, list[str]] = {}
        for row in others:
            paired = row.scaled_differences.get(score) if score == "nll" else row.differences.get(score)
            if paired is None or not paired.values:
                continue
            found.setdefault(paired.verdict, []).append(row.label)
        leads = {"wins": "wins against", "loses": "loses against", "undecided": "cannot be told from"}
        parts = [f"{lead} {join(found[one])}" for one, lead in leads.items() if one in found]
        if parts:
            said.append(f"on {words}{' after temperature scaling' if score == 'nll' else ''} it {join(parts)}")
    if said:
        return f"{reference.method}, at one run's compute: {'; '.join(said)}."
    if any(paired.values for row in others for paired in row.differences.values()):
        return f"Too few seeds for a verdict: {counted(max(len(row.seeds) for row in rows))}."
    return ""


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
    seeds = counted(num) if num >= FEWEST_SEEDS else f"{counted(num)}: no interval"
    intro = f"Against {row.label} ({at_compute(row, name)}; {seeds})"
    parts = [f"{intro}: {verdicts(name, spoken)}.", _after_scaling(row, reference), diverged(row)]
    return " ".join(part for part in parts if part)


def counted(seeds: int) -> str:
    """Return a number of seeds in words."""
    return {1: "one seed", 2: "two seeds"}.get(seeds, f"{seeds} seeds")


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
        "few seeds": f"{name} is ",
    }
    return "; ".join(leads[verdict] + join(phrases) for verdict, phrases in found.items())


def phrase(name: str, score: str, paired: Difference) -> str:
    """Return one score's part of a comparison with the reference, whose name is given."""
    mean, low, high = paired.advantage(score)
    size, on = amount(score, mean, paired), f"on {score_name(score)}"
    lead = "better" if mean > 0 else "worse"
    if paired.verdict == "few seeds":
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
    """Say what the reference needed until it would have returned as good a model as a search."""
    found, name = row.compute_to_target, context.reference
    if found is None or not found.num_seeds:
        return ""
    on = f"{score_name(found.score)} on the regularization split"
    if not found.fractions:
        return f"{name} never came to stay as good as {row.label} by {on} ({found.counted})."
    short = [
        f"{'worse' if value > 0 else 'better'} by {_size(score, abs(value))} on test {score_name(score)}"
        for score, value in found.behind.items()
        if value
    ]
    then = f", and was then {join(short)}" if short else ""
    return (
        f"By {on} {name} was as good as {row.label}, and stayed so, after {factor(found.mean)} of the compute of "
        f"{row.label} ({found.counted}){then}."
    )


def _size(score: str, value: float) -> str:
    return f"{100 * value:.2f} points" if score == "accuracy" else f"{value:.3f}"


def join(words: Sequence[str]) -> str:
    """Return words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
