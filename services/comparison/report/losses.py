"""Where the reference loses, and what else a reader must know."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossreg.services.comparison.report.context import Context
from crossreg.services.comparison.report.estimates import FEWEST_SEEDS, Difference
from crossreg.services.comparison.report.findings import SCALED, at_compute, counted, diverged, join
from crossreg.services.comparison.report.numbers import UNIT_NAMES, amount, factor, interval, score_name
from crossreg.services.comparison.report.rows import Row

__all__ = ["how_to_read", "losses", "notes"]

CHEAPER = 0.95
"""A method that uses less than this share of the reference's compute counts as cheaper."""


def losses(rows: Sequence[Row], reference: Row | None) -> list[str]:
    """Return in what the reference is worse, one line each; the first says so if that is nothing.

    Args:
        rows: all methods' numbers.
        reference: the reference's; None where it was not run.
    """
    if reference is None:
        return []
    others = [row for row in rows if not row.is_reference]
    if not others:
        return ["There is nothing to compare with."]
    gone = diverged(reference)
    decided = [f"Divergence: {gone}"] if gone else []
    undecided = []
    for row in others:
        lost, behind = [], []
        for score, after, paired in _differences(row):
            mean, low, high = paired.advantage(score)
            what, size = f"{score_name(score)}{after}", amount(score, mean, paired)
            if paired.verdict == "loses":
                lost.append(f"{what} by {size} (95 % interval {interval(score, -high, -low, paired)})")
            elif mean < 0:
                behind.append(f"{what} ({size})")
        if lost:
            decided.append(f"Against {row.label} ({at_compute(row, reference.method)}): {join(lost)}.")
        if behind:
            undecided.append(f"{row.label} in {join(behind)}")
        decided += _cheaper(row)
    lines = decided or ["In nothing measured here."]
    if undecided:
        lines = decided or ["In nothing that can be told from zero."]
        behind_in = "; against ".join(undecided)
        lines.append(f"Behind on average, without an interval that excludes zero: against {behind_in}.")
    return lines


def _differences(row: Row) -> list[tuple[str, str, Difference]]:
    """Return the differences that have values: score, what to add to its name, difference."""
    raw = [(score, "", paired) for score, paired in row.differences.items()]
    kept = [score for score in SCALED if score in row.scaled_differences]
    scaled = [(score, " after temperature scaling", row.scaled_differences[score]) for score in kept]
    return [(score, after, paired) for score, after, paired in raw + scaled if paired.values]


def _cheaper(row: Row) -> list[str]:
    """Say so where a method needs less compute and no difference shows it to be worse."""
    found = [paired for _, _, paired in _differences(row)]
    if not row.compute_ratio < CHEAPER or not found:
        return []
    if any(paired.verdict in ("wins", "few seeds") for paired in found):
        return []
    return [f"Compute: {row.label} used {factor(row.compute_ratio)} times as much, and nothing tells it to be worse."]


def notes(rows: Sequence[Row], reference: Row | None, context: Context) -> list[str]:
    """Return what limits the numbers, such as a missing reference, one seed, divergence, trials that failed."""
    found = []
    if reference is None:
        found.append(f"{context.reference} was not run, so there are no paired differences to it.")
    most = max(len(row.seeds) for row in rows)
    if most < FEWEST_SEEDS:
        words = counted(most)
        found.append(
            f"{words[:1].upper()}{words[1:]}: no intervals, and nothing here tells a difference from chance; "
            f"--seeds {FEWEST_SEEDS} or more, with --resume, adds to what was run."
        )
    found += [text for row in rows if (text := diverged(row))]
    found += [f"Of the trials of {row.label}, {row.failed} ended by an error, and lost." for row in rows if row.failed]
    if reference is not None:
        for row in rows:
            shared = [seed for seed in row.seeds if seed in reference.seeds]
            if len(shared) < len(row.seeds):
                found.append(f"{row.label} is compared on the {len(shared)} of its seeds that {reference.label} has.")
    if any(math.isnan(row.compute.mean) for row in rows):
        found.append(f"For some methods the compute in {context.unit} is not known.")
    return found


def how_to_read(context: Context) -> str:
    """Return the paragraph on what was held equal and what the words of the tables mean."""
    rmse = f", RMSE {context.rmse_unit}" if context.rmse_unit else ""
    draws = f"{context.samples} draws" if context.samples else "the same number of draws"
    return (
        "All methods of a seed share the splits and, but for what a method is about, the optimizer of the weights, its "
        f"schedule and the evaluation; where {context.reference} finds its length, the others train one network over a "
        "cosine schedule. The trials of a search differ in initial weights and order of examples. "
        f"Budget “matched” is the compute of one {context.reference} run, counted in {UNIT_NAMES[context.unit]} over "
        "all trials with everything they do, also what selection evaluates and trials that lost (of a run that finds "
        "its length, the most that it may cost); "
        f"“full” is {context.population} times that, the size of the population; a number is such a factor. "
        f"Searches choose by {score_name(context.select_on)} on the regularization split. At test every noisy method "
        f"averages {draws} of the noise. Accuracy is in percent, NLL in nats an example, ECE of 15 bins of equal "
        f"width{rmse}; "
        "accuracy is better when larger, every other score when smaller. “Scaled” is after one temperature was "
        "fitted on the regularization split; a method that trains on that split has none left and shows a dash. "
        "± and brackets are the 95 % interval of the mean (Student's t): the variance over seeds, and that over test "
        "examples where seeds share a test split, are added; where seeds draw overlapping test splits, the variance "
        "over seeds is enlarged for that; differences are paired by seed and by test example. "
        "Intervals are one by one, not corrected for how many there are: of twenty true zeros about one would be "
        "excluded by chance."
    )
