from __future__ import annotations

import base64
import itertools
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from crossreg.core.errors import UserError
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.report import Report, write_report
from tests.services.comparison.report.conftest import NAN, context, cost, diagram, noise, outcome, point, scores

VOID = {"meta", "img", "br", "hr", "link", "input"}
EVIL = "<script>alert('&')</script>|_*"


class Page(HTMLParser):
    """A page's text, what it would load, and whether its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.loads, self.tags, self.open, self.cells = "", [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.text += data
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def both(seeds: int = 3, other: str = "pbt", **changes: Any) -> list[Outcome]:
    found = []
    for seed in range(seeds):
        curve = [point(1e11 * k, scores(nll=1 / k), scores(0.5 + 0.03 * k, 1 / k), 10 * k) for k in range(1, 11)]
        bins = diagram({12: 0.7, 14: 0.9}, {12: 300, 14: 700})
        shared = {"curve": curve, "reliability": bins}
        found.append(outcome(seed=seed, test=scores(0.8 + 0.01 * seed), schedule=[(0, noise(0.1, 1.0))], **shared))
        fields = {"cost": cost(8e12), "trials": 2, "members": [[(0, noise(0.2, 2.0))], [(0, noise(0.5, 3.0))]]}
        found.append(outcome(other, "full", seed, schedule=[(0, noise(0.2, 2.0))], **(shared | fields | changes)))
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report") / "deep" / "er"
    return write_report(both(), context(started=0.1, versions={"torch": "2.15"}), folder)


def test_the_page_needs_nothing_but_itself_and_parses(report: Report) -> None:
    page = Page(report.html.read_text())
    assert [load[:22] for load in page.loads] == ["data:image/png;base64,"] * 5
    for load, path in zip(page.loads, report.figures.values(), strict=True):
        assert base64.b64decode(load.partition(",")[2]) == path.read_bytes()
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_page_and_markdown_hold_numbers_sentences_and_context(report: Report) -> None:
    page, markdown = Page(report.html.read_text()), report.markdown.read_text()
    plain = markdown.replace("\\", "").replace("\u00a0", " ")
    assert 0 < page.text.index(report.summary.verdict) < page.text.index("Where crossreg loses")
    for text in [
        report.summary.verdict,
        *report.summary.sentences,
        *report.summary.losses,
        *report.summary.notes,
        report.summary.how_to_read,
    ]:
        assert text in page.text
        assert text in plain
    assert "crossreg compare --model cnn --data fashion-mnist" in page.text
    assert "    crossreg compare --model cnn --data fashion-mnist\n" in markdown
    for text in ("81.00 ± 2.48", "1970-01-01 00:00 UTC", "torch 2.15", "40ccde4"):
        assert text in page.text.replace("\u00a0", " ")
        assert text in plain


def test_markdown_refers_to_the_figures_beside_it(report: Report) -> None:
    named = re.findall(r"!\[\w+\]\(([^)]+)\)", report.markdown.read_text())
    assert named == [
        f"figures/{name}.png" for name in ("verdict", "compute", "differences", "schedules", "reliability")
    ]
    assert [report.markdown.parent / name for name in named] == list(report.figures.values())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in report.figures.values())


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_header(tmp_path: Path) -> None:
    lines = write_report(both(1, other=EVIL), context(), tmp_path).markdown.read_text().splitlines()
    tables = [list(block) for is_row, block in itertools.groupby(lines, lambda line: line.startswith("|")) if is_row]
    assert len(tables) == 4
    for table in tables:
        assert table[1].startswith("|---|---|---:|")
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_names_are_escaped(tmp_path: Path) -> None:
    given = context(title="<b>bold</b>", command="run <i> & go", machine={"<u>": "</p>"})
    report = write_report(both(1, other=EVIL), given, tmp_path)
    text = report.html.read_text()
    page = Page(text)
    assert not {"script", "b", "i", "u"} & set(page.tags)
    assert EVIL in page.cells
    assert "<b>bold</b>" in page.text
    assert "run <i> & go" in page.text
    assert "<script" not in text
    assert re.search(r"(?<!\\)<", report.markdown.read_text().replace("    run <i> & go", "")) is None


def test_a_report_says_by_the_numbers_who_wins(tmp_path: Path) -> None:
    report = write_report(both(test=scores(0.9)), context(), tmp_path)
    text = report.html.read_text()
    assert 'class="loses">crossreg loses' in text
    assert 'class="wins"' not in text


def test_one_method_makes_a_report_without_a_comparison(tmp_path: Path) -> None:
    report = write_report([each for each in both(1) if each.method == "crossreg"], context(commit=""), tmp_path)
    page = Page(report.html.read_text())
    assert "population" in page.text
    assert "commit" not in page.text  # what is not known is left out
    assert list(report.figures) == ["compute", "schedules", "reliability"]
    assert "There is no comparison with crossreg to put into words." in page.text
    assert "There is nothing to compare with." in page.text


def test_outcomes_that_all_diverged_still_make_a_report(tmp_path: Path) -> None:
    lost = {"test": NAN, "test_scaled": {}, "temperature": math.nan, "reg": NAN, "curve": [], "reliability": {}}
    outcomes = [each.model_copy(update=lost) for each in both(2)]
    report = write_report(outcomes, context(), tmp_path)
    assert list(report.figures) == ["schedules"]
    assert "crossreg diverged on every seed (0 and 1) and has no scores." in Page(report.html.read_text()).text


def test_a_figure_that_has_nothing_to_show_any_more_is_removed(tmp_path: Path) -> None:
    write_report(both(1), context(), tmp_path)
    report = write_report([outcome(test={"nll": 1.0, "rmse": 2.0}, test_scaled={})], context(), tmp_path)
    assert list(report.figures) == ["compute"]
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["compute.png"]


def test_nothing_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to report"):
        write_report([], context(), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_importing_it_loads_neither_ray_nor_mlflow_nor_matplotlib() -> None:
    unwanted = ["ray", "mlflow", "matplotlib", "pandas", "sklearn", "scipy"]
    code = f"import sys, crossreg.services.comparison.report; print([m for m in {unwanted!r} if m in sys.modules])"
    root = Path(__file__).resolve().parents[4]
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
