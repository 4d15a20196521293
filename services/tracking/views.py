"""Views of an experiment's runs: which columns, charts and groups MLflow's page shows, opened by a link.

MLflow shows runs without scores until somebody saves a view. Views are tags of the experiment, so they can be saved
for everybody; the page opens none by itself, so links to them stand in the experiment's description.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from crossreg.core import metrics
from crossreg.services.style import HyperparameterAxis, by_regularizer
from crossreg.services.tracking.uri import WORKFLOW

__all__ = ["MEAN", "SCORES", "link", "save_view_of_comparison", "save_views"]

SCORES, MEAN = "scores", "mean"
"""Views that every experiment has."""

_TAG = "mlflow.sharedViewState."
_DESCRIPTION = "mlflow.note.content"
_SECTIONS = ("test", "regularizers", "reg", "train", "theta", "usage", "Model metrics", "System metrics")
"""Of charts, in this order; MLflow's own is that of the alphabet. It adds others, and shows these if they are empty."""
_COLUMNS = [
    *[f"metrics.`{key}`" for key in metrics.scores("test", dict.fromkeys(("accuracy", "nll", "ece", "rmse"), 0.0))],
    "tags.`method`",
    "tags.`seed`",
]
"""Those that no run has are not shown."""
_MOST_LINES = 24
"""Of a chart; of more parts they are evenly spaced, with the first and the last."""
_MOST_HIDDEN = 60  # a view has at most 20,000 characters
_log = logging.getLogger(__name__)


def save_views(client: Any, experiment_id: str, learned: Iterable[str] = ()) -> None:
    """Save the views of an experiment, and links to them as its description where it has none.

    What people look at is not worth a run: where the store refuses, or is away, there are none.

    Args:
        client: an `MlflowClient`.
        experiment_id: which experiment.
        learned: names of hyperparameters; the parts of each regularizer get one chart together. Without any, views
            that are there already stay as they are.
    """
    charts = _charts_of_parts(learned)
    page = partial(link, experiment_id)
    links = {
        "table": page(SCORES),
        "charts": page(SCORES, charts=True),
        "mean over seeds": page(MEAN, charts=True),
    }
    # the list of experiments shows the beginning, and no links
    description = "Runs with what they scored and learned: "
    wanted = {
        _TAG + SCORES: _named("Scores", 2, _view(charts)),
        _TAG + MEAN: _named("Mean over seeds", 1, _view(charts, search="tags.kind != 'trial'", grouped=True)),
        _DESCRIPTION: description + " · ".join(f"[{name}]({address})" for name, address in links.items()),
    }
    try:
        present = client.get_experiment(experiment_id).tags
        for tag, value in wanted.items():
            if tag not in present or (charts and tag != _DESCRIPTION and present[tag] != value):
                client.set_experiment_tag(experiment_id, tag, value)
    except Exception as error:
        _log.debug("no views of experiment %s: %s", experiment_id, error)


def save_view_of_comparison(client: Any, experiment_id: str, run_id: str, learned: Iterable[str] = ()) -> None:
    """Save the view of a comparison, its methods as mean and band over seeds, under the id of its run.

    Args:
        client: an `MlflowClient`.
        experiment_id: which experiment.
        run_id: of the comparison.
        learned: names of hyperparameters.
    """
    search = f"tags.comparison = '{run_id}' and tags.kind = 'method'"
    # without a name, so that the menu of views does not fill with comparisons
    view = json.dumps(_view(_charts_of_parts(learned), search=search, grouped=True))
    try:
        client.set_experiment_tag(experiment_id, _TAG + run_id, view)
    except Exception as error:
        _log.debug("no view of comparison %s: %s", run_id, error)


def link(experiment_id: str, view: str, *, charts: bool = False) -> str:
    """Return the page of a view, relative to where MLflow is.

    Args:
        experiment_id: of which experiment.
        view: `SCORES`, `MEAN`, or the run id of a comparison.
        charts: open it as charts, not as a table.
    """
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs{WORKFLOW}&viewStateShareKey={view}{mode}"


def _named(name: str, place: int, view: Mapping[str, Any]) -> str:
    """Return a view as MLflow lists it in its menu, the highest place first, as it takes the place for a time."""
    return json.dumps({"name": name, "createdAt": place, "updatedAt": place, "state": json.dumps(view)})


def _view(charts: Sequence[Mapping[str, Any]], search: str = "", *, grouped: bool = False) -> dict[str, Any]:
    by_group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "group"}]}
    return {
        "selectedColumns": _COLUMNS,
        "searchFilter": search,
        "groupBy": by_group if grouped else None,
        # MLflow adds a chart for every metric that has none
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": name, "name": name, "display": True} for name in _SECTIONS],
        "isAccordionReordered": True,
    }


def _charts_of_parts(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return a chart of each regularizer that has several parts, such as the noise of every layer."""
    charts: list[dict[str, Any]] = []
    for base, parts in by_regularizer(names).items():
        if len(parts) == 1:
            continue
        keys = [metrics.hyperparameter(name) for name in parts]
        most = min(len(keys), _MOST_LINES)
        shown = [keys[round(place * (len(keys) - 1) / (most - 1))] for place in range(most)]
        chart = {"type": "LINE", "metricSectionId": "regularizers", "xAxisKey": "step"}
        charts.append(
            chart
            | {"uuid": base, "metricKey": keys[0], "selectedMetricKeys": shown}
            | {"scaleType": "log" if HyperparameterAxis.of(base).logarithmic else "linear", "lineSmoothness": 0}
            | {"useGlobalXaxisKey": True, "yAxisKey": "metric", "runsCountToCompare": 10}
        )
        # the chart that MLflow would make of each, taken away
        charts += [chart | {"uuid": key, "metricKey": key, "deleted": True} for key in keys[1:_MOST_HIDDEN]]
    return charts
