"""What is claimed about calibration, by the paper and here."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from crossreg.studies.claims import Claim, Verdict, interval
from crossreg.studies.paired import all_above, all_below, differences, said_of
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

__all__ = ["CLAIMS", "MARGIN", "corrupted_mean"]

MARGIN = 0.01
"""Of ECE: what is worse by less counts as as good."""
OURS, PAPERS = "cross-reg", "noise alone"
_CLEAN = {"reg": "clean"}
_EARLY = 0.2  # of the training: what the end of a curve is compared with
Judge = Callable[[list[Measurement]], Verdict | None]


def corrupted_mean(key: str) -> Callable[[Measurement], float]:
    """Return what gives the mean of a score over corruptions and severities."""
    return lambda row: statistics.mean(look[key] for look in row["shift"])


def _against(rows: list[Measurement], arm: str, other: str, value: Any) -> list[float]:
    return differences(rows, {"arm": arm, **_CLEAN}, {"arm": other, **_CLEAN}, value)


def _far_below_raw(arm: str) -> Judge:
    def judge(rows: list[Measurement]) -> Verdict | None:
        apart = _against(rows, arm, "none", "ece")
        if not apart:
            return None
        mine, raw = (statistics.mean(row["ece"] for row in those(rows, arm=one, **_CLEAN)) for one in (arm, "none"))
        mean, half = interval(apart)
        return Verdict(mean + half < 0 and mine < raw / 2, f"ECE {mine:.3f}, raw {raw:.3f}, {said_of(apart)}")

    return judge


def _like_ensemble(arm: str) -> Judge:
    return lambda rows: all_below({"ECE against the ensemble": _against(rows, arm, "ensemble", "ece")}, MARGIN)


def _below_temperature(arm: str) -> Judge:
    return lambda rows: all_below({"ECE against temperature scaling": _against(rows, arm, "temperature", "ece")})


def _more_accurate(arm: str) -> Judge:
    return lambda rows: all_above(
        {"points against raw": _against(rows, arm, "none", lambda row: 100 * row["accuracy"])}, digits=1
    )


def _falls(arm: str) -> Judge:
    def judge(rows: list[Measurement]) -> Verdict | None:
        changes = [_change(row) for row in those(rows, arm=arm, **_CLEAN)]
        if not changes:
            return None
        raw = [_change(row) for row in those(rows, arm="none", **_CLEAN)]
        mean, half = interval(changes)
        beside = f"; raw {said_of(raw)}" if raw else ""
        return Verdict(mean + half < 0, f"ECE changes by {said_of(changes)} after a fifth of the training{beside}")

    return judge


def _change(row: Measurement) -> float:
    """Return by how much ECE changes from a fifth of the training to its end."""
    curve = row["curve"]
    early = next(look for look in curve if look["step"] >= _EARLY * curve[-1]["step"])
    return float(curve[-1]["test/ece"] - early["test/ece"])


def _spoils(reg: str, *arms: str) -> Judge:
    """Judge whether a regularization split that is not like the test split makes calibration worse."""
    return lambda rows: all_above(
        {
            f"ECE of {arm} rises by": differences(rows, {"arm": arm, "reg": reg}, {"arm": arm, **_CLEAN}, "ece")
            for arm in arms
        }
    )


def _leads_scaled(rows: list[Measurement]) -> Verdict | None:
    others = [arm for arm in ("none", "fixed noise", "MC dropout") if those(rows, arm=arm, **_CLEAN)]
    verdict = all_below({f"against {arm}": _against(rows, OURS, arm, "nll_scaled") for arm in others})
    ensemble = _against(rows, OURS, "ensemble", "nll_scaled")
    if verdict is None or not ensemble:
        return verdict
    return Verdict(verdict.shown, f"{verdict.evidence}; against five networks {said_of(ensemble)}")


def _beats_dropout(rows: list[Measurement]) -> Verdict | None:
    keys = {"NLL": "nll", "ECE": "ece"}
    return all_below({said: _against(rows, OURS, "MC dropout", key) for said, key in keys.items()})


def _under_shift(other: str) -> Judge:
    def judge(rows: list[Measurement]) -> Verdict | None:
        keys = {"NLL": "nll", "ECE": "ece"}
        return all_below({said: _against(rows, OURS, other, corrupted_mean(key)) for said, key in keys.items()})

    return judge


def _both(name: str, text: str, judge: Callable[[str], Judge], source: str) -> tuple[Claim, Claim]:
    """Return a claim of the paper, judged by its method, and the same of the default."""
    return (
        Claim(name, f"learned noise {text}", judge(PAPERS), source),
        Claim(f"{name} with temperature", f"our default, which learns a temperature too, {text}", judge(OURS)),
    )


CLAIMS: tuple[Claim, ...] = (
    *_both("online", "calibrates while it trains: ECE far below raw", _far_below_raw, "ECE .163 raw, .038 cross-reg"),
    *_both("ensemble", f"is no worse than a deep ensemble, within {MARGIN} of ECE", _like_ensemble, ".038 and .030"),
    *_both("temperature", "has a lower ECE than temperature scaling", _below_temperature, ".038 and .057"),
    *_both("accuracy", "is more accurate than raw", _more_accurate, "79.5 % and 67.4 %"),
    *_both("falls", "lowers its ECE as it trains", _falls, "it falls"),
    *_both(
        "shifted",
        "is badly calibrated where the regularization split is not like the test split (blurred)",
        lambda arm: _spoils("blurred", arm),
        "named as a failure, no number",
    ),
    Claim("shifted, scaling", "temperature scaling is badly calibrated there too", _spoils("blurred", "temperature")),
    Claim(
        "flipped",
        "one wrong label in five of the regularization split spoils cross-reg and temperature scaling alike",
        _spoils("20 % flipped", OURS, "temperature"),
    ),
    Claim("scaled", "with all of them scaled, cross-reg has the lowest NLL of single networks", _leads_scaled),
    Claim("dropout", "cross-reg has lower NLL and ECE than MC dropout", _beats_dropout),
    Claim(
        "corrupted",
        "on corrupted images cross-reg has lower NLL and ECE than temperature scaling",
        _under_shift("temperature"),
    ),
    Claim(
        "corrupted, dropout",
        "on corrupted images cross-reg has lower NLL and ECE than MC dropout",
        _under_shift("MC dropout"),
    ),
    Claim(
        "corrupted, ensemble",
        "on corrupted images cross-reg has lower NLL and ECE than the ensemble",
        _under_shift("ensemble"),
    ),
)
