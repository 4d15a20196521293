"""A comparison from start to end, seen from the process the user started."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossreg.core.errors import UserError, nearest
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.comparison.method import Method
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.report import Context, Summary, write_report
from crossreg.services.comparison.run_jobs import Job
from crossreg.services.comparison.session import ComparisonDisplay, check_placed, make_conditions, session
from crossreg.services.data import describe, in_lines
from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.services.tracking.environment import environment_params, environment_tags
from crossreg.services.training.check import check
from crossreg.services.training.config import Placement
from crossreg.services.training.describe import command, slug
from crossreg.services.training.explain import unit_of
from crossreg.services.training.runtime import available_cpus
from crossreg.services.training.storage import RunFolder, new_name

__all__ = ["Comparison", "compare", "jobs_of"]


@dataclass
class Comparison:
    """What a finished comparison hands back.

    Attributes:
        run_id: the parent MLflow run.
        outcomes: one a method, budget and seed.
        summary: the numbers of the report.
        report: path of `report.html`.
        ui_command: opens the MLflow UI on the runs.
        url: page of the parent run, where MLflow is a server.
    """

    run_id: str
    outcomes: list[Outcome]
    summary: Summary
    report: Path
    ui_command: str
    url: str | None


def jobs_of(config: CompareConfig, methods: Mapping[str, Method]) -> list[Job]:
    """Return every method on every seed under every budget that it takes.

    Args:
        config: what is compared.
        methods: all that there are, by name.

    Raises:
        UserError: no such method.
    """
    for name in config.methods:
        if name not in methods:
            raise UserError(f"unknown method {name!r}{nearest(name, methods)}; allowed are {', '.join(methods)}")
    first = config.training.seed
    return [
        Job(methods[name], budget, seed)
        for seed in range(first, first + config.seeds)
        for name in config.methods
        for budget in methods[name].budgets(config.budgets)
    ]


def compare(
    config: CompareConfig,
    methods: Mapping[str, Method],
    placement: Placement,
    tracking: TrackingConfig,
    *,
    folder: RunFolder | None = None,
    display: ComparisonDisplay | None = None,
) -> Comparison:
    """Compare methods, record all of it, and write the report.

    Args:
        config: what is compared.
        methods: all methods that there are, by name.
        placement: where; `workers` is what a trial reserves in CPUs.
        tracking: which MLflow.
        folder: of an earlier comparison to go on with.
        display: shows progress.

    Raises:
        UserError: something given is wrong; found before anything is written.
        TrainingError: a trial ended without a result.
        TrainingInterruptedError: stopped by the user; the message says how to go on.
    """
    display = display or ComparisonDisplay()
    jobs = jobs_of(config, methods)
    storage_path = check_placed(placement)
    display.phase(f"loading {config.training.data.name}")
    conditions = make_conditions(config.training, config.population, config.unit, config.select_on)
    config = config.model_copy(update={"training": conditions.config})
    _check_all(config, conditions, jobs, display)
    experiment = slug(config.training)
    started = time.time()
    with session(
        conditions,
        placement,
        tracking,
        folder or RunFolder(storage_path, new_name(f"{experiment}-compare")),
        kind="compare",
        params=config.model_dump(mode="json", exclude_none=True),
        tags={"crossreg.compare": config.model_dump_json(exclude_defaults=True)},
        note=_note(config),
        display=display,
    ) as running:
        typed = running.folder / "command.txt"  # a comparison that goes on was set up by the first
        if not typed.exists():
            typed.write_text(command())
        outcomes = running.run_jobs(jobs)
        display.phase("writing the report")
        context = _context(config, conditions, started, time.time() - started, typed.read_text())
        report = write_report(outcomes, context, running.folder / "report")
        _record_report(running.parent, running.folder / "report", outcomes)
    parent = running.parent
    return Comparison(parent.run_id, outcomes, report.summary, report.html, parent.ui_command, parent.comparison_url)


def _record_report(parent: Tracker, folder: Path, outcomes: list[Outcome]) -> None:
    """Keep the report and the outcomes with the parent run."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            parent.artifact(str(path.relative_to(folder)), path.read_bytes())
    plain = [json.loads(outcome.model_dump_json(exclude={"curve", "examples"})) for outcome in outcomes]
    parent.artifact_json(plain, "outcomes.json")


def _check_all(config: CompareConfig, conditions: Conditions, jobs: list[Job], display: ComparisonDisplay) -> None:
    """Find what would fail later, and say what every job may spend."""
    amounts = {}
    first = config.training.seed
    if config.select_on == "accuracy" and conditions.data(first).task != "classification":
        raise UserError(f"select_on is 'accuracy', but {config.training.data.name} has no classes; use 'nll'")
    for job in jobs:
        if job.seed == first:
            check(conditions.reference(job.seed), conditions.data(job.seed))
        budget = conditions.budget(job.budget, job.seed)
        amounts[job] = budget.amount
        if job.seed == first and not (config.unit == "worker_seconds" and job.method.searches):
            run = job.method.run(conditions, job.seed, budget)
            next(run)
            run.close()
    if config.unit == "worker_seconds" and not any(job.method.is_reference for job in jobs):
        raise UserError("a budget in worker_seconds is measured on the cross-regularized run; add it to --methods")
    for line in in_lines(describe(conditions.data(first))):
        display.note(line)
    what = "searched and learned" if conditions.config.learned else "crossreg finds its length; searched"
    display.note(f"model: {conditions.config.model}; {what}: {', '.join(conditions.space)}")
    display.plan(amounts, "flops" if config.unit == "worker_seconds" else config.unit)


def _context(config: CompareConfig, conditions: Conditions, started: float, seconds: float, typed: str) -> Context:
    tags, made_on = environment_tags(), environment_params()
    first = config.training.seed
    data = conditions.data(first)
    return Context(
        title=f"{config.training.model} on {Path(config.training.data.name).name}",
        command=typed,
        commit=tags.get("git.sha", "unknown") + (" (modified)" if tags.get("git.dirty") == "true" else ""),
        machine={
            "system": f"{made_on['platform.system']}, {platform.machine()}",
            "CPUs": str(available_cpus()),
            "CPUs a trial": "1",
        },
        versions={key.removeprefix("version."): value for key, value in made_on.items() if key.startswith("version.")},
        model=config.training.model,
        data=Path(config.training.data.name).name,
        data_fingerprints={seed: conditions.data(seed).fingerprint for seed in range(first, first + config.seeds)},
        num_train=len(data.train),
        num_reg=len(data.reg),
        num_test=len(data.test),
        population=config.population,
        unit=config.unit,
        select_on=config.select_on,
        samples=config.training.final_samples,
        rmse_unit="" if (unit := unit_of(data)) is None else unit.standardized,
        seconds=seconds,
        started=started,
    )


def _note(config: CompareConfig) -> str:
    training = config.training
    return (
        f"Comparison of **{', '.join(config.methods)}** for `{training.model}` on `{training.data.name}`, "
        f"{config.seeds} seeds, population {config.population}, budgets {', '.join(config.budgets)}. "
        f"The report is the artifact `report.html`.\n\n    {command()}"
    )
