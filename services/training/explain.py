"""A finished training in sentences: what came of it, why it ended, what it cost, what looks wrong, what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossreg.inputs import Table
from crossreg.services.data import Dataset
from crossreg.services.data.units import TargetUnit
from crossreg.services.training.evidence import evidence
from crossreg.services.training.resolve import ResolvedConfig, says_nothing
from crossreg.services.training.result import TrainingResult
from crossreg.services.training.simple import better_than

__all__ = ["EXPLANATION", "divergence", "explain", "unit_of"]

EXPLANATION = "explanation.md"
"""The artifact that keeps it."""

_MEASURED = ("mlp", "cnn")
"""Networks of the study that have a name here."""
_PARTS = 3
"""Of what has more parts than that, not each is told."""
_FAR, _ERRORS = 1.5, 4.0
"""How many times larger one split's loss is than another's, and by how many standard errors at least (those of an
exponential distribution, about as wide as losses are), that are no longer alike."""


def explain(
    config: ResolvedConfig,
    data: Dataset,
    result: TrainingResult,
    simple: Mapping[str, dict[str, float]],
    diagnoses: Sequence[str] = (),
    starts: Mapping[str, float] | None = None,
) -> list[str]:
    """Return the sentences, the most important first.

    Args:
        config: what was trained.
        data: on what.
        result: what came of it.
        simple: scores of simple models on the same splits, by name.
        diagnoses: failure signatures that were seen.
        starts: where what was learned started, by name.
    """
    unit = unit_of(data)
    return [
        _reached(config, data, result, unit),
        *_apart(result, unit),
        _length(config, result),
        _regularized(config, result, starts or {}),
        *_searched(config, data),
        f"It cost {result.cost.examples:,.0f} forward passes of an example and {result.cost.flops:.3g} FLOPs in "
        f"{result.cost.worker_seconds:.0f} worker-seconds.",
        *_doubts(data, result, simple, diagnoses, unit),
    ]


def divergence(result: TrainingResult, losses: tuple[Sequence[int], Sequence[float]]) -> str:
    """Return where a training left the numbers, in words; empty where what it predicts can be scored.

    Args:
        result: what came of it.
        losses: steps and values of `train/loss`.
    """
    if all(math.isfinite(value) for value in result.test.values()):
        return ""
    since = next((step for step, loss in zip(*losses, strict=True) if not math.isfinite(loss)), None)
    return f"its loss is not a number{'' if since is None else f' from step {since:,} on'}"


def unit_of(data: Dataset) -> TargetUnit | None:
    """Return the unit of an RMSE on these data; None where there is none."""
    if data.target_std is None:
        return None
    return TargetUnit(data.target_std.tolist(), data.inputs.target if isinstance(data.inputs, Table) else "")


def _reached(config: ResolvedConfig, data: Dataset, result: TrainingResult, unit: TargetUnit | None) -> str:
    sharing = "share their weights and " if config.ensemble_style == "shared" else ""
    networks = "One network" if config.ensemble == 1 else f"{config.ensemble} networks that {sharing}predict as one"
    trained = f"{networks} ({config.model}), trained on {data.num_train:,} examples,"
    test, rows = result.test, f"{len(data.test):,} test examples"
    s, es = ("s", "es") if config.ensemble == 1 else ("", "")
    if divergence(result, ((), ())):
        return f"{trained} diverged: what they predict for {rows} is not a number."
    if "accuracy" in test:
        return f"{trained} get{s} {test['accuracy']:.1%} of {rows} right; NLL {test['nll']:.3f}, ECE {test['ece']:.3f}."
    if unit is not None and "rmse" in test:
        return f"{trained} reach{es} RMSE {unit.own(test['rmse'])} on {rows} ({unit.text})."
    scores = ", ".join(f"{name} {value:.3f}" for name, value in test.items())
    return f"{trained} reach{es} {scores} on {rows}."


def _apart(result: TrainingResult, unit: TargetUnit | None) -> list[str]:
    """Return what the networks of an ensemble reach alone, and how much they differ."""
    if not result.networks:
        return []
    key = "accuracy" if "accuracy" in result.networks[0] else "rmse"
    values = sorted(one[key] for one in result.networks)
    if unit is None:
        alone = f"{values[0]:.1%} to {values[-1]:.1%}"
        apart = f"two of them differ on {result.disagreement:.1%} of examples"
    else:
        alone = f"RMSE {unit.own(values[0])} to {unit.own(values[-1])}"
        apart = f"two of them differ by {unit.own(result.disagreement)}"
    errors = f", errors correlate by {result.error_correlation:.2f}" if math.isfinite(result.error_correlation) else ""
    return [f"Its networks reach {alone} alone; {apart}{errors}."]


def _length(config: ResolvedConfig, result: TrainingResult) -> str:
    if result.stopped:
        return f"Length: {result.stopped}."
    return f"Length: all {config.steps:,} steps that it was given."


def _regularized(config: ResolvedConfig, result: TrainingResult, starts: Mapping[str, float]) -> str:
    values = result.regularizers
    fitted = ("temperature",) if config.finds_length else ()
    learned = _changes([name for name in result.learned if name in values and name not in fitted], starts, values)
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


def _changes(names: Sequence[str], starts: Mapping[str, float], ends: Mapping[str, float]) -> list[str]:
    """Return from where to where each went; of one that has many parts, one a layer, between which values they end."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.partition("/")[0], []).append(name)
    said = []
    for base, those in parts.items():
        if len(those) > _PARTS:
            last = sorted(ends[name] for name in those)
            first = sorted(starts[name] for name in those if name in starts)
            start = f" {_range(first)} →" if first else ""
            said.append(f"{base}{start} {_range(last)} ({len(those)} of them)")
        else:
            said += [
                f"{name} {starts[name]:.3g} → {ends[name]:.3g}" if name in starts else f"{name} {ends[name]:.3g}"
                for name in those
            ]
    return said


def _range(values: Sequence[float]) -> str:
    low, high = f"{values[0]:.3g}", f"{values[-1]:.3g}"
    return low if low == high else f"{low} to {high}"


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
    if not low / 2 <= data.num_train <= 2 * high:
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
    data: Dataset,
    result: TrainingResult,
    simple: Mapping[str, dict[str, float]],
    diagnoses: Sequence[str],
    unit: TargetUnit | None,
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
        one, other = (f"{loss:.3f}" if unit is None or key == "nll" else unit.own(loss) for loss in (test, held))
        said.append(
            f"Note: {key.upper()} is {one} on the test split and {other} on what was "
            "held out of the training data: they are not alike. Persons or recordings that are in several rows are "
            "kept in one split by --split-by, rows in time by --time-order."
        )
    if 0 < len(data.reg) < 100:
        said.append(f"Note: {len(data.reg)} held-out examples are few to decide by; more seeds show how sure this is.")
    return said
