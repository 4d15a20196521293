"""Numbers as text."""

from __future__ import annotations

import math

from crossreg.services.comparison.report.estimates import Difference, Estimate

__all__ = [
    "DASH",
    "NBSP",
    "UNIT_NAMES",
    "amount",
    "brackets",
    "budget_name",
    "column_name",
    "duration",
    "factor",
    "interval",
    "mean",
    "memory",
    "quantity",
    "score_name",
    "signed",
    "times",
]

DASH = "–"
NBSP = "\u00a0"
UNIT_NAMES = {"flops": "FLOP", "examples": "examples", "worker_seconds": "worker-seconds"}

_SCORE_NAMES = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE", "brier": "Brier score", "rmse": "RMSE"}
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def score_name(score: str) -> str:
    """Return how a score is written in a sentence."""
    return _SCORE_NAMES.get(score, score)


def column_name(score: str) -> str:
    """Return how a score is written above a column: `accuracy %`, `Brier score`."""
    name = score_name(score)
    return f"{name} %" if score == "accuracy" else name[:1].upper() + name[1:]


def budget_name(budget: str) -> str:
    """Return how a budget is written: a factor with a sign that it is one."""
    return budget if budget in ("matched", "full") else f"{budget}×"


def mean(score: str, estimate: Estimate) -> str:
    """Return a mean and half its interval's width: `82.31 ± 0.42`, accuracy in percent."""
    if not estimate.values:
        return DASH
    scale, digits = _scale(score), _digits(score, estimate)
    text = _fixed(scale * estimate.mean, digits)
    return text if math.isnan(estimate.low) else f"{text} ±{NBSP}{_fixed(scale * estimate.half_width, digits)}"


def signed(score: str, estimate: Estimate) -> str:
    """Return a difference with its sign: `+1.20`, accuracy in points."""
    if not estimate.values:
        return DASH
    return _fixed(_scale(score) * estimate.mean, _digits(score, estimate), sign=True)


def brackets(score: str, estimate: Estimate) -> str:
    """Return an interval in brackets: `[0.40, 2.00]`; nothing where there is none."""
    if math.isnan(estimate.low):
        return ""
    scale, digits = _scale(score), _digits(score, estimate)
    return f"[{_fixed(scale * estimate.low, digits)},{NBSP}{_fixed(scale * estimate.high, digits)}]"


def amount(score: str, value: float, estimate: Estimate) -> str:
    """Return the size of a difference: `1.20 points`, `0.031`.

    Args:
        score: the score's name.
        value: the difference.
        estimate: where it comes from, which says how many digits mean something.
    """
    text = _fixed(abs(_scale(score) * value), _digits(score, estimate))
    return f"{text} points" if score == "accuracy" else text


def interval(score: str, low: float, high: float, estimate: Estimate) -> str:
    """Return an interval in words: `0.40 to 2.00`."""
    scale, digits = _scale(score), _digits(score, estimate)
    return f"{_fixed(scale * low, digits)} to {_fixed(scale * high, digits)}"


def quantity(value: float, unit: str) -> str:
    """Return an amount of compute: `1.23 TFLOP`, `4.5 M examples`, `812 worker-seconds`."""
    if not math.isfinite(value):
        return DASH
    name = UNIT_NAMES.get(unit, unit)
    if unit == "worker_seconds":
        return f"{_significant(value)} {name}"
    for size, prefix in _PREFIXES:
        # 999.7 of a unit would round to 1000 of it
        if value >= 0.9995 * size:
            return f"{_significant(value / size)} {prefix}{'' if unit == 'flops' else ' '}{name}"
    return f"{_significant(value)} {name}"


def factor(value: float) -> str:
    """Return a multiple to three significant digits: `7.98`."""
    return _significant(value) if math.isfinite(value) else DASH


def times(value: float) -> str:
    """Return a multiple in a table: `7.98×`."""
    return f"{_significant(value)}×" if math.isfinite(value) else DASH


def duration(seconds: float) -> str:
    """Return a time: `41 s`, `2 min 05 s`, `3 h 02 min`."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 100:
        return f"{_significant(seconds)} s"
    whole = round(seconds)
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(num_bytes: float) -> str:
    """Return bytes: `512 MiB`, `1.23 GiB`; a dash where they were not measured."""
    if not math.isfinite(num_bytes) or num_bytes <= 0:
        return DASH
    unit, name = (2**30, "GiB") if num_bytes >= 1000 * 2**20 else (2**20, "MiB")
    return f"{_significant(num_bytes / unit)} {name}"


def _scale(score: str) -> float:
    return 100.0 if score == "accuracy" else 1.0


def _digits(score: str, estimate: Estimate) -> int:
    """Return decimals: two for percent and three for others, up to two more where the interval is that narrow."""
    base = 2 if score == "accuracy" else 3
    size = estimate.half_width if math.isfinite(estimate.half_width) else abs(estimate.mean)
    # an interval that excludes zero must not look as if it ended there
    apart = isinstance(estimate, Difference) and estimate.excludes_zero
    ends = (abs(estimate.low), abs(estimate.high)) if apart else ()
    sizes = [_scale(score) * value for value in (size, *ends) if math.isfinite(value) and value > 0]
    return min(max([base, *(-math.floor(math.log10(value)) for value in sizes)]), base + 2)


def _fixed(value: float, digits: int, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _significant(value: float) -> str:
    if value == 0:
        return "0"
    rounded = float(f"{value:.2e}")  # first, as 0.9996 has the digits of 1.00
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"
