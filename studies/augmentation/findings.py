"""What the measurements of the augmentation study say, in words and numbers."""

from __future__ import annotations

import statistics

from crossreg.studies.augmentation.problem import ESTIMATORS
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

__all__ = ["findings", "mean_of", "median_of", "numbers", "of_method", "text_of"]

_UNITS = {"shift": " px", "rotation": "°"}


def median_of(rows: list[Measurement], key: str) -> float:
    """Return the median of one column."""
    return statistics.median(row[key] for row in rows)


def mean_of(rows: list[Measurement], key: str) -> float:
    """Return the mean of one column."""
    return statistics.mean(row[key] for row in rows)


def text_of(magnitudes: list[dict[str, float]]) -> str:
    """Return the median of each magnitude over seeds, and its range: `shift 2.1 px (1.9–2.4)`."""
    parts = []
    for kind in magnitudes[0]:
        values = [found[kind] for found in magnitudes]
        text = f"{kind} {_short(statistics.median(values))}{_UNITS.get(kind, '')}"
        parts.append(text if max(values) == min(values) else f"{text} ({_short(min(values))}–{_short(max(values))})")
    return ", ".join(parts) or "–"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def ratios(rows: list[Measurement], method: str, kind: str) -> list[float]:
    """Return learned over planted magnitudes of a kind, of all runs of a method in which some was planted."""
    mine = of_method(rows, "planted", method)
    return [row["magnitudes"][kind] / row["planted"][kind] for row in mine if row["planted"][kind]]


def findings(rows: list[Measurement]) -> list[str]:
    """Return a sentence or two on each estimator and on each of the two ways to go wrong."""
    return [*_on_planted(rows), *_on_six_and_nine(rows), *_on_background(rows)]


def _on_planted(rows: list[Measurement]) -> list[str]:
    none = of_method(rows, "planted", "none")
    if not none:
        return []
    planted = [row for row in none if any(row["planted"].values())]
    given = of_method(rows, "planted", "the planted magnitudes")
    said = [
        f"Planted shifts and rotations: without augmentation test accuracy is {mean_of(planted, 'test'):.1f} % and "
        f"{mean_of(planted, 'gap'):.1f} points below that on train; with the planted magnitudes given "
        f"{mean_of(given, 'test'):.1f} % and {mean_of(given, 'gap'):.1f} points."
    ]
    for method in ESTIMATORS:
        mine = [row for row in of_method(rows, "planted", method) if any(row["planted"].values())]
        empty = [row for row in of_method(rows, "planted", method) if not any(row["planted"].values())]
        shift, turn = (ratios(rows, method, kind) for kind in ("shift", "rotation"))
        within = sum(2 / 3 <= ratio <= 1.5 for ratio in (*shift, *turn))
        said.append(
            f"{method}: {mean_of(mine, 'test'):.1f} % and {mean_of(mine, 'gap'):.1f} points; learned over planted "
            f"{statistics.median(shift):.2f} for shift ({min(shift):.2f}–{max(shift):.2f}) and "
            f"{statistics.median(turn):.2f} for rotation ({min(turn):.2f}–{max(turn):.2f}), {within} of "
            f"{len(shift) + len(turn)} within a factor of 1.5; where nothing was planted "
            f"{text_of([row['magnitudes'] for row in empty])}, held-out loss {mean_of(empty, 'reg_loss'):.3f}; "
            f"{mean_of(mine, 'seconds'):.0f} s a run."
        )
    without = [row for row in none if not any(row["planted"].values())]
    said.append(
        f"Where nothing was planted, training without augmentation has a held-out loss of "
        f"{mean_of(without, 'reg_loss'):.3f}: an estimator with a much lower one has found augmentation that helps the "
        "held-out loss, though none was planted."
    )
    return said


def _on_six_and_nine(rows: list[Measurement]) -> list[str]:
    mine = those(rows, part="6 and 9")
    if not mine:
        return []
    by_method = {method: those(mine, method=method) for (method,) in groups(mine, "method")}
    fixed = {method: found for method, found in by_method.items() if method.startswith("fixed")}
    best = min(fixed, key=lambda method: mean_of(fixed[method], "reg_loss"))
    last = list(fixed)[-1]
    worse = mean_of(fixed[last], "reg_loss") / mean_of(fixed[best], "reg_loss")
    learned = {method: found for method, found in by_method.items() if "from" in method}
    ends = "; ".join(
        f"{method}: {text_of([row['magnitudes'] for row in found])}, held-out loss {mean_of(found, 'reg_loss'):.4f}"
        for method, found in learned.items()
    )
    verdict = "detected" if worse > 2 else "not detected"
    return [
        f"6 and 9 under rotation, {verdict}: the held-out loss with the rotation {last} is "
        f"{mean_of(fixed[last], 'reg_loss'):.4f}, {worse:.1f} times that of the best fixed one ({best}), and test "
        f"accuracy {mean_of(fixed[last], 'test'):.1f} % against {mean_of(fixed[best], 'test'):.1f} %. Learned, it "
        f"leaves 180° by itself ({ends}). A magnitude that keeps falling from where it was set says that it confuses "
        "classes; one that is fixed says nothing, until the held-out loss is compared over several."
    ]


def _on_background(rows: list[Measurement]) -> list[str]:
    mine = those(rows, part="background")
    if not mine:
        return []
    alike, shifted = (those(mine, detects=detects) for detects in (False, True))
    parts = []
    for method in dict.fromkeys(row["method"] for row in mine):
        if method == "none":
            continue
        before, after = of_method(alike, "background", method), of_method(shifted, "background", method)
        parts.append(
            f"{method}: {text_of([row['magnitudes'] for row in before])} with reg like train, test accuracy "
            f"{mean_of(before, 'test'):.1f} %; {text_of([row['magnitudes'] for row in after])} with the shifted reg, "
            f"{mean_of(after, 'test'):.1f} %"
        )
    plain, probe = of_method(alike, "background", "none"), of_method(shifted, "background", "none")
    fall = mean_of(plain, "reg") - mean_of(probe, "reg")
    verdict = "detected" if fall > 10 else "not detected"
    return [
        f"A spurious background, {verdict} by a small shifted set alone: without augmentation accuracy is "
        f"{mean_of(plain, 'reg'):.1f} % on held-out images like those of training and {mean_of(plain, 'test'):.1f} % "
        f"on test; a few held-out images whose brightness is random show it ({mean_of(probe, 'reg'):.1f} %, "
        f"{fall:.1f} points lower). {'; '.join(parts)}. Held-out data that share the defect of the training data "
        "reward what exploits it: no estimator can see that. A set without the defect can be learned from, if one "
        "of the kinds of augmentation undoes it."
    ]


def numbers(rows: list[Measurement]) -> dict[str, float]:
    """Return what is recorded in MLflow, by metric name."""
    found = {}
    for method in ESTIMATORS:
        mine = [row for row in of_method(rows, "planted", method) if any(row["planted"].values())]
        if mine:
            key = method.lower()
            for kind in ("shift", "rotation"):
                found[f"{key}/{kind}_ratio_median"] = statistics.median(ratios(rows, method, kind))
            found[f"{key}/test"], found[f"{key}/gap"] = mean_of(mine, "test"), mean_of(mine, "gap")
    for method, key in (("none", "none"), ("the planted magnitudes", "given")):
        mine = [row for row in of_method(rows, "planted", method) if any(row["planted"].values())]
        if mine:
            found[f"{key}/test"], found[f"{key}/gap"] = mean_of(mine, "test"), mean_of(mine, "gap")
    turned = [row for row in rows if row["part"] == "6 and 9" and "from" in row["method"]]
    if turned:
        found["six_and_nine/rotation_max"] = max(row["magnitudes"]["rotation"] for row in turned)
    for detects, key in ((False, "alike"), (True, "shifted")):
        mine = [row for row in of_method(rows, "background", "none") if row["detects"] is detects]
        if mine:
            found |= {f"background/{key}_{split}": mean_of(mine, split) for split in ("reg", "test")}
    return found


def of_method(rows: list[Measurement], part: str, method: str) -> list[Measurement]:
    """Return the measurements of one method in one part of the study."""
    return those(rows, part=part, method=method)
