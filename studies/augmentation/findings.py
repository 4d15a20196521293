"""What the rows of the augmentation study say, in words, numbers and a figure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from studies.augmentation.problem import ESTIMATORS
from studies.study import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "findings", "median_of", "numbers", "text_of"]

_UNITS = {"shift": " px", "rotation": "°"}


def median_of(rows: list[Row], key: str) -> float:
    """Return the median of one column."""
    return statistics.median(row[key] for row in rows)


def mean_of(rows: list[Row], key: str) -> float:
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


def ratios(rows: list[Row], method: str, kind: str) -> list[float]:
    """Return learned over planted magnitudes where some of the kind was planted."""
    mine = _of(rows, "planted", method)
    return [row["magnitudes"][kind] / row["planted"][kind] for row in mine if row["planted"][kind]]


def findings(rows: list[Row]) -> list[str]:
    """Return a sentence or two on each estimator and each failure."""
    return [*_on_planted(rows), *_on_six_and_nine(rows), *_on_background(rows)]


def _on_planted(rows: list[Row]) -> list[str]:
    none = _of(rows, "planted", "none")
    if not none:
        return []
    planted = [row for row in none if any(row["planted"].values())]
    given = _of(rows, "planted", "the planted magnitudes")
    said = [
        f"Planted shifts and rotations: without augmentation test accuracy is {mean_of(planted, 'test'):.1f} % and "
        f"{mean_of(planted, 'gap'):.1f} points below that on train; with the planted magnitudes given "
        f"{mean_of(given, 'test'):.1f} % and {mean_of(given, 'gap'):.1f} points."
    ]
    for method in ESTIMATORS:
        mine = [row for row in _of(rows, "planted", method) if any(row["planted"].values())]
        empty = [row for row in _of(rows, "planted", method) if not any(row["planted"].values())]
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


def _on_six_and_nine(rows: list[Row]) -> list[str]:
    mine = [row for row in rows if row["part"] == "6 and 9"]
    if not mine:
        return []
    fixed = {m: _of(mine, "6 and 9", m) for m in dict.fromkeys(row["method"] for row in mine) if m.startswith("fixed")}
    best = min(fixed, key=lambda m: mean_of(fixed[m], "reg_loss"))
    last = list(fixed)[-1]
    worse = mean_of(fixed[last], "reg_loss") / mean_of(fixed[best], "reg_loss")
    learned = {m: _of(mine, "6 and 9", m) for m in dict.fromkeys(row["method"] for row in mine) if "from" in m}
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


def _on_background(rows: list[Row]) -> list[str]:
    mine = [row for row in rows if row["part"] == "background"]
    if not mine:
        return []
    alike, shifted = ([row for row in mine if row["detects"] is detects] for detects in (False, True))
    parts = []
    for method in dict.fromkeys(row["method"] for row in mine):
        if method == "none":
            continue
        before, after = _of(alike, "background", method), _of(shifted, "background", method)
        parts.append(
            f"{method}: {text_of([row['magnitudes'] for row in before])} with reg like train, test accuracy "
            f"{mean_of(before, 'test'):.1f} %; {text_of([row['magnitudes'] for row in after])} with the shifted reg, "
            f"{mean_of(after, 'test'):.1f} %"
        )
    plain, probe = _of(alike, "background", "none"), _of(shifted, "background", "none")
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


def numbers(rows: list[Row]) -> dict[str, float]:
    """Return what is recorded, by metric name."""
    found = {}
    for method in ESTIMATORS:
        mine = [row for row in _of(rows, "planted", method) if any(row["planted"].values())]
        if mine:
            key = method.replace(", ", "_").replace(" ", "_").lower()
            for kind in ("shift", "rotation"):
                found[f"{key}/{kind}_ratio_median"] = statistics.median(ratios(rows, method, kind))
            found[f"{key}/test"], found[f"{key}/gap"] = mean_of(mine, "test"), mean_of(mine, "gap")
    for method, key in (("none", "none"), ("the planted magnitudes", "given")):
        mine = [row for row in _of(rows, "planted", method) if any(row["planted"].values())]
        if mine:
            found[f"{key}/test"], found[f"{key}/gap"] = mean_of(mine, "test"), mean_of(mine, "gap")
    turned = [row for row in rows if row["part"] == "6 and 9" and "from" in row["method"]]
    if turned:
        found["six_and_nine/rotation_max"] = max(row["magnitudes"]["rotation"] for row in turned)
    for detects, key in ((False, "alike"), (True, "shifted")):
        mine = [row for row in _of(rows, "background", "none") if row["detects"] is detects]
        if mine:
            found[f"background/{key}_reg"], found[f"background/{key}_test"] = (
                mean_of(mine, "reg"),
                mean_of(mine, "test"),
            )
    return found


def draw(rows: list[Row]) -> Figure:
    """Draw learned against planted shifts and rotations, held-out loss against rotation, and accuracies."""
    from services.style import new_figure, plain

    figure = new_figure(11, 8)
    (shift, turn), (upside, background) = figure.subplots(2, 2)
    _draw_planted(shift, rows, "shift", "pixels")
    _draw_planted(turn, rows, "rotation", "degrees")
    shift.legend(fontsize=8, frameon=False)
    _draw_turns(upside, rows)
    _draw_background(background, rows)
    for axes in (shift, turn, upside, background):
        plain(axes)
    return figure


_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7")
_MARKERS = ("o", "s", "^", "D")


def _draw_planted(axes: Axes, rows: list[Row], kind: str, unit: str) -> None:
    largest = max((row["planted"][kind] for row in rows if row["part"] == "planted"), default=1.0)
    for place, (method, colour, marker) in enumerate(zip(ESTIMATORS, _COLOURS, _MARKERS, strict=True)):
        mine = _of(rows, "planted", method)
        axes.plot(
            [row["planted"][kind] + 0.012 * (place - 1.5) * largest for row in mine],
            [row["magnitudes"][kind] for row in mine],
            marker, color=colour, markersize=5, alpha=0.75, linestyle="none", label=method,
        )  # fmt: skip
    axes.plot([0, largest], [0, largest], color="0.4", linewidth=0.8, linestyle=":", label="as planted")
    axes.set(xlabel=f"planted {kind}, {unit}", ylabel=f"learned {kind}, {unit}")


def _draw_turns(axes: Axes, rows: list[Row]) -> None:
    mine = [row for row in rows if row["part"] == "6 and 9"]
    fixed = [row for row in mine if row["method"].startswith("fixed")]
    turns = sorted({row["magnitudes"]["rotation"] for row in fixed})
    axes.plot(
        turns, [mean_of([r for r in fixed if r["magnitudes"]["rotation"] == t], "reg_loss") for t in turns],
        "o-", color="0.35", label="fixed (mean)",
    )  # fmt: skip
    for method, colour, marker in zip(ESTIMATORS, _COLOURS, _MARKERS, strict=True):
        found = [row for row in mine if row["method"].startswith(f"{method}, from")]
        if found:
            axes.plot(
                [row["magnitudes"]["rotation"] for row in found], [row["reg_loss"] for row in found],
                marker, color=colour, linestyle="none", label=f"{method}, from 180°",
            )  # fmt: skip
    axes.set(xlabel="6 and 9: rotation, degrees", ylabel="held-out loss", yscale="log")
    axes.legend(fontsize=8, frameon=False)


def _draw_background(axes: Axes, rows: list[Row]) -> None:
    mine = [row for row in rows if row["part"] == "background"]
    names = list(dict.fromkeys((row["setting"], row["method"]) for row in mine))
    for offset, key, colour in ((-0.2, "reg", "#56B4E9"), (0.2, "test", "#E69F00")):
        heights = [mean_of([row for row in mine if (row["setting"], row["method"]) == name], key) for name in names]
        places = [place + offset for place in range(len(names))]
        axes.bar(places, heights, 0.38, color=colour, label=f"{key} accuracy, %")
    labels = [f"{method.replace(', ', chr(10))}\n{setting.partition(' images')[0]}" for setting, method in names]
    axes.set_xticks(range(len(names)), labels, fontsize=7)
    axes.set(ylabel="spurious background: accuracy, %")
    axes.set_ylim(0, 112)
    axes.legend(fontsize=8, frameon=False, ncol=2, loc="upper right")


def _of(rows: list[Row], part: str, method: str) -> list[Row]:
    return [row for row in rows if row["part"] == part and row["method"] == method]
