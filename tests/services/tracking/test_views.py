"""The views that a stock MLflow finds in an experiment's tags, in the form in which its page reads them."""

import json

from crossreg.services.tracking import views
from crossreg.services.tracking.views import MEAN, SCORES

NOISE = [f"noise/{place:02d}_norm{place}" for place in range(80)]


def saved(client, tracker):
    """The views by their names, and what else is told of the experiment."""
    tags = client.get_experiment(tracker.experiment_id).tags
    found = {
        key.removeprefix("mlflow.sharedViewState."): json.loads(text) for key, text in tags.items() if "View" in key
    }
    return {key: json.loads(view["state"]) if "state" in view else view for key, view in found.items()}, tags


def test_an_experiment_has_views_with_scores_and_links_to_them(begin, client):
    tracker = begin()
    tracker.save_views()
    found, tags = saved(client, tracker)
    assert {"metrics.`test/accuracy`", "metrics.`test/rmse`"} <= set(found[SCORES]["selectedColumns"])
    assert found[SCORES]["groupBy"] is None
    assert found[MEAN]["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "group"}]
    for view in (SCORES, MEAN):
        assert f"(#/experiments/{tracker.experiment_id}/runs?" in tags["mlflow.note.content"]
        assert f"viewStateShareKey={view}" in tags["mlflow.note.content"]


def test_what_people_wrote_stays_and_a_run_without_noise_takes_no_chart_away(begin, client, tmp_path):
    tracker = begin()
    client.set_experiment_tag(tracker.experiment_id, "mlflow.note.content", "mine")
    tracker.save_views(["temperature", *NOISE[:3]])
    begin(spool_dir=tmp_path / "another").save_views()
    tracker.save_views(["temperature"])
    found, tags = saved(client, tracker)
    assert tags["mlflow.note.content"] == "mine"
    (chart,) = [chart for chart in found[SCORES]["compareRunCharts"] if not chart.get("deleted")]
    assert chart["selectedMetricKeys"] == [f"regularizers/{name}" for name in NOISE[:3]]
    assert chart["scaleType"] == "log"


def test_a_deep_network_has_a_readable_chart_in_a_view_that_the_store_takes(begin, client):
    tracker = begin()
    tracker.save_views(NOISE)
    found, _ = saved(client, tracker)
    shown = found[SCORES]["compareRunCharts"][0]["selectedMetricKeys"]
    assert len(shown) == 24
    assert (shown[0], shown[-1]) == (f"regularizers/{NOISE[0]}", f"regularizers/{NOISE[-1]}")


def test_a_comparison_has_a_page_of_its_methods(begin, client):
    tracker = begin()
    tracker.show_comparison(NOISE[:2])
    view = saved(client, tracker)[0][tracker.run_id]
    assert view["searchFilter"] == f"tags.comparison = '{tracker.run_id}' and tags.kind = 'method'"
    assert view["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "group"}]
    assert tracker.comparison_url is None  # the store is no server
    assert f"viewStateShareKey={tracker.run_id}&compareRunsMode=CHART" in tracker.comparison_page


def test_a_store_that_keeps_no_views_stops_no_run(caplog):
    class ReadOnly:
        def get_experiment(self, experiment_id):
            raise PermissionError(experiment_id)

    with caplog.at_level("DEBUG", logger=views.__name__):
        views.save_views(ReadOnly(), "1")
    assert "no views of experiment 1" in caplog.text
