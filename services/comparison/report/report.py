"""The report of a comparison as files: one HTML page that needs nothing else, the same in Markdown, the figures."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossreg.services.comparison.report.context import Context
from crossreg.services.comparison.report.figures import CAPTIONS, draw
from crossreg.services.comparison.report.groups import group_outcomes
from crossreg.services.comparison.report.numbers import UNIT_NAMES, duration
from crossreg.services.comparison.report.summary import Summary, summarize
from crossreg.services.comparison.report.tables import tables

if TYPE_CHECKING:
    from crossreg.services.comparison.outcome import Outcome

__all__ = ["Report", "write_report"]

_DPI = 140


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        html: `report.html`, with the figures in it.
        markdown: `report.md`, which refers to them.
        figures: the PNG files, by the figure's name; one that has nothing to show is not there.
        summary: the numbers.
    """

    html: Path
    markdown: Path
    figures: dict[str, Path]
    summary: Summary


def write_report(outcomes: Sequence[Outcome], context: Context, folder: Path) -> Report:
    """Write `report.html`, `report.md` and `figures/*.png`, over earlier ones.

    Args:
        outcomes: one for every method, budget and seed.
        context: what the comparison was.
        folder: created where missing.

    Raises:
        UserError: no outcome, or two for one method, budget and seed.
    """
    summary = summarize(outcomes, context)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    drawn = draw(group_outcomes(outcomes), summary)
    for name in CAPTIONS:
        path = folder / "figures" / f"{name}.png"
        path.unlink(missing_ok=True)  # of an earlier report that had more to show
        if name in drawn:
            drawn[name].savefig(path, dpi=_DPI)
            paths[name] = path
    figures = [
        {
            "name": name,
            "caption": CAPTIONS[name].format(reference=context.reference, unit=UNIT_NAMES[context.unit]),
            "data": base64.b64encode(path.read_bytes()).decode(),
        }
        for name, path in paths.items()
    ]
    page = {
        "summary": summary,
        "context": context,
        "tables": tables(summary),
        "opening": next((figure for figure in figures if figure["name"] == "verdict"), None),
        "figures": [figure for figure in figures if figure["name"] != "verdict"],
        "facts": _facts(context),
    }
    html, markdown = folder / "report.html", folder / "report.md"
    html.write_text(_render("report.html.j2", page), encoding="utf-8")
    markdown.write_text(_render("report.md.j2", page), encoding="utf-8")
    return Report(html, markdown, paths, summary)


def _facts(context: Context) -> list[tuple[str, str]]:
    """Return what was run and where, as pairs of name and text; what is not known is left out."""
    pairs: list[tuple[str, Any]] = [
        ("model", context.model),
        ("data", context.data),
        ("examples", f"{context.num_train:,} train, {context.num_reg:,} reg, {context.num_test:,} test"),
        ("population", context.population),
        ("budgets in", context.unit),
        ("commit", context.commit),
        ("started", f"{datetime.fromtimestamp(context.started, UTC):%Y-%m-%d %H:%M} UTC" if context.started else ""),
        ("took", duration(context.seconds) if context.seconds else ""),
        ("machine", ", ".join(f"{name} {value}" for name, value in context.machine.items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in context.versions.items())),
        ("data fingerprints", ", ".join(f"{name}: {value}" for name, value in context.data_fingerprints.items())),
    ]
    return [(name, str(value)) for name, value in pairs if str(value)]


def _render(template: str, page: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    return environment.get_template(template).render(page)


def _markdown(text: Any) -> str:
    """Escape what Markdown would take for markup, also in a table's cell, and put it on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
