"""A finished training in sentences: what came of it, why it ended, what it cost, what looks wrong, what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossreg.services.data import Dataset
from crossreg.services.training.evidence import evidence
from crossreg.services.training.resolve import ResolvedConfig, says_nothing
from crossreg.services.training.result import TrainingResult
from crossreg.services.training.simple import better_than

__all__ = ["EXPLANATION", "explain"]

EXPLANATION = "explanation.md"
"""The artifact that keeps it."""

_MEASURED = ("mlp", "cnn")
"""Networks of the study that have a name here."""
_FAR, _ERRORS = 1.5, 4.0
"""How many times larger one split's loss is than another's, and by how many standard errors at least (those of an
exponential distribution, about as wide as losses are), that are no longer alike."""


def explain(
    config: ResolvedConfig,
    data: Dataset,
    result: TrainingResult,
    simple: Mapping[str, dict[str, float]],
    diagnoses: Sequence[str] = (),
) -> list[str]:
    """Return the sentences, the most important first.

    Args:
        config: what was trained.
        data: on what.
        result: what came of it.
        simple: scores of simple models on the same splits, by name.
        diagnoses: failure signatures that were seen.
    """
    return [
        _reached(config, data, result),
        *_apart(result),
        _length(config, result),
        _regularized(config, result),
        *_searched(config, data),
        f"It cost {result.cost.examples:,.0f} forward passes of an example and {result.cost.flops:.3g} FLOPs in "
        f"{result.cost.worker_seconds:.0f} worker-seconds.",
        *_doubts(data, result, simple, diagnoses),
    ]


def _reached(config: ResolvedConfig, data: Dataset, result: TrainingResult) -> str:
    sharing = "share their weights and " if config.ensemble_style == "shared" else ""
    networks = "One network" if config.ensemble == 1 else f"{config.ensemble} networks that {sharing}predict as one"
    trained = f"{networks} ({config.model}), trained on {len(data.train):,} examples,"
    test, rows = result.test, f"{len(data.test):,} test examples"
    if "accuracy" in test:
        return f"{trained} get {test['accuracy']:.1%} of {rows} right; NLL {test['nll']:.3f}, ECE {test['ece']:.3f}."
    if data.target_std is not None and len(data.target_std) == 1 and "rmse" in test:
        unit = float(data.target_std[0])
        own = f"{test['rmse'] * unit:.4g}"
        return f"{trained} are off by {own} on {rows} (RMSE; {test['rmse']:.3f} of the target's standard deviation)."
    scores = ", ".join(f"{name} {value:.3f}" for name, value in test.items())
    return f"{trained} reach {scores} on {rows}."


def _apart(result: TrainingResult) -> list[str]:
    """Return what the networks of an ensemble reach alone, and how much they differ."""
    if not result.networks:
        return []
    key = "accuracy" if "accuracy" in result.networks[0] else "rmse"
    values = sorted(one[key] for one in result.networks)
    if key == "accuracy":
        alone = f"{values[0]:.1%} to {values[-1]:.1%}"
        apart = f"two of them differ on {result.disagreement:.1%} of examples"
    else:
        alone = f"RMSE {values[0]:.3f} to {values[-1]:.3f}"
        apart = f"two of them differ by {result.disagreement:.3f} of the target's standard deviation"
    errors = f", errors correlate by {result.error_correlation:.2f}" if math.isfinite(result.error_correlation) else ""
    return [f"Its networks reach {alone} alone; {apart}{errors}."]


def _length(config: ResolvedConfig, result: TrainingResult) -> str:
    if result.stopped:
        return f"Length: {result.stopped}."
    return f"Length: all {config.steps:,} steps that it was given."


def _regularized(config: ResolvedConfig, result: TrainingResult) -> str:
    values = result.regularizers
    fitted = ("temperature",) if config.finds_length else ()
    learned = [f"{name} {values[name]:.3g}" for name in result.learned if name in values and name not in fitted]
    fixed = [
        f"{name} {values[name]:.3g}"
        for name, one in config.regularizers.items()
        if not one.learn and name in values and name not in fitted
    ]
    nothing = "nothing beside the length was learned" if config.finds_length else "nothing was learned"
    parts = [f"learned: {', '.join(learned)}" if learned else nothing]
    if fixed:
        parts.append(f"fixed: {', '.join(fixed)}")
    if config.finds_length and "temperature" in values and "accuracy" in result.test:
        way = "over" if values["temperature"] > 1 else "under"
        parts.append(
            f"output temperature {values['temperature']:.2f}, fitted on held-out data (without it predictions would be "
            f"{way}confident)"
        )
    return f"Regularization: {'; '.join(parts)}."


def _searched(config: ResolvedConfig, data: Dataset) -> list[str]:
    """Return what a tuned search would probably have given, and how sure that is."""
    if not config.finds_length:
        return []
    known = evidence()
    search = f"a random search of {known.trials} trainings, at about {known.compute:.0f} times this compute,"
    leads = known.leads.get("regression" if data.task == "regression" else "classification")
    ask = "`crossreg compare` with the same data answers it"
    if leads is None or not says_nothing(config, data):
        return [f"What {search} would have given is known of runs without flags alone; {ask}."]
    if config.model not in _MEASURED:
        return [f"What {search} would have given was measured with {' and '.join(_MEASURED)} alone; {ask}."]
    low, high = known.examples
    if not low / 2 <= len(data.train) <= 2 * high:
        return [f"What {search} would have given was measured with {low:,} to {high:,} training examples alone; {ask}."]
    unit = "% of RMSE" if data.task == "regression" else "points of accuracy"
    return [
        f"Against {search} runs like this one led by {leads.mean:+.2g} {unit} on average, {leads.worst:+.2g} to "
        f"{leads.best:+.2g} on single data sets ({leads.pairs} of them, {known.seeds} seeds each; level or better on "
        f"{leads.won}), and by {leads.untouched_mean:+.2g} on the {leads.untouched} that had no part in choosing its "
        f"defaults. It would probably give {_or_more(leads.untouched_mean, data)} here; {ask}."
    ]


def _or_more(lead: float, data: Dataset) -> str:
    """Return what a search gives where runs like this one lead by so much on average."""
    return "more" if lead < (-1.0 if data.task == "regression" else -0.5) else "about the same"


def _doubts(
    data: Dataset, result: TrainingResult, simple: Mapping[str, dict[str, float]], diagnoses: Sequence[str]
) -> list[str]:
    """Return what looks wrong, with what to do about it."""
    said = [f"Note: {text}" for text in diagnoses]
    best = dict(result.test)
    if result.test_scaled:
        best["nll"] = min(best["nll"], result.test_scaled["nll"])
    for name in better_than(best, dict(simple)):
        said.append(
            f"Note: {name}, trained on the same splits in seconds, is better than this; use it, or find out why."
        )
    key = "nll" if "accuracy" in result.test else "rmse"
    held, test = result.reg.get(key, math.nan), result.test.get(key, math.nan)
    if test > _FAR * held > 0 and test - held > _ERRORS * held / math.sqrt(len(data.reg)):
        said.append(
            f"Note: {key.upper()} is {test:.3f} on the test split and {held:.3f} on what was "
            "held out of the training data: they are not alike. Persons or recordings that are in several rows are "
            "kept in one split by --split-by, rows in time by --time-order."
        )
    if 0 < len(data.reg) < 100:
        said.append(f"Note: {len(data.reg)} held-out examples are few to decide by; more seeds show how sure this is.")
    return said
