"""One page of verdicts over the experiments of the source paper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from crossreg.services.tracking.environment import environment_params, environment_tags
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.run import Reproduced

__all__ = ["page"]


def page(found: Sequence[Reproduced], folder: Path) -> str:
    """Return the page in Markdown: outcomes, then of each experiment its claims beside the paper's, and its table.

    Args:
        found: experiments that have been run.
        folder: where the page will be, to which links are relative.

    Raises:
        TypeError: a study that is no experiment of the paper.
    """
    about = environment_params()
    commit = environment_tags().get("git.sha", "unknown")[:7]
    machine = f"{about['platform.cpu_count']} CPU cores, {about['platform.machine']}"
    versions = ", ".join(
        f"{name} {about[f'version.{name}']}" for name in ("torch", "ray") if f"version.{name}" in about
    )
    lines = [
        "# The source paper's experiments, run again",
        "",
        f"Commit {commit}, {machine}, {versions}. An experiment is *reproduced* where all of the paper's claims were "
        "seen, *partly* where some were. Intervals are of 95 %, over seeds. Claims without a number of the paper's are "
        "this project's own.",
        "",
        f"    crossreg reproduce all --scale {_experiment(found[0]).scale}",
        "",
        "| experiment | outcome | the paper's claims seen |",
        "|---|---|---|",
        *(_outcome(one) for one in found),
    ]
    for one in found:
        lines += ["", *_section(one, folder)]
    return "\n".join(lines) + "\n"


def _experiment(one: Reproduced) -> Experiment:
    if not isinstance(one.study, Experiment):
        raise TypeError(f"{one.study.name} is no experiment of the paper")
    return one.study


def _outcome(one: Reproduced) -> str:
    study = _experiment(one)
    judged = [(claim, verdict) for claim in study.claims if claim.source and (verdict := claim.judge(one.rows))]
    seen = sum(verdict.shown for _, verdict in judged)
    count = f"{seen} of {len(judged)}" if judged else "–"
    return f"| [{study.name}](#{study.name}) | {study.outcome(one.rows)} | {count} |"


def _section(one: Reproduced, folder: Path) -> list[str]:
    study = _experiment(one)
    claims = [
        f"| {claim.text} | {claim.source or '–'} | {verdict.evidence} | {'yes' if verdict.shown else 'no'} |"
        for claim in study.claims
        if (verdict := claim.judge(one.rows)) is not None
    ]
    headings = list(study.columns.values())
    table = ["| " + " | ".join(row[key] for key in study.columns) + " |" for row in one.table]
    return [
        f"## {study.name}",
        "",
        f"{study.summary[0].upper()}{study.summary[1:]}.",
        "",
        f"    crossreg reproduce {study.name} --scale {study.scale} --seeds {one.seeds}",
        "",
        "Not as in the paper:",
        "",
        *(f"- {one}" for one in study.deviations),
        "",
        "| claim | paper | here | seen |",
        "|---|---|---|---|",
        *claims,
        "",
        f"![{study.summary}]({os.path.relpath(one.figure, folder)})",
        "",
        "| " + " | ".join(headings) + " |",
        "|---" * len(headings) + "|",
        *table,
    ]
