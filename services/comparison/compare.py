"""A comparison from start to end, seen from the process the user started."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from baselines import METHODS, method
from services.comparison.run_jobs import Job
from services.comparison.method import Study
from services.comparison.session import Display, check_placed, make_study, session
from crossreg.core.errors import UserError
from services.comparison.report import Context, Summary, write_report
from services.search.budget import Budget, Unit
from services.search.outcome import Outcome
from services.tracking import TrackingConfig
from services.tracking.environment import environment_tags
from services.training.assemble import check
from services.training.config import Placement, TrainConfig
from services.training.describe import command, slug
from services.training.runtime import available_cpus
from services.training.storage import RunFolder, new_name

__all__ = ["CompareConfig", "Comparison", "compare"]


class CompareConfig(BaseModel):
    """What is compared.

    Attributes:
        training: the cross-regularized run; every method trains the same model on the same splits.
        methods: names of `baselines.METHODS`.
        population: trials of a search.
        seeds: how many seeds, from the training's on.
        budgets: compute of a search: "matched" (that of one cross-regularized run), "full" (population times
            that), or a factor.
        unit: what budgets are counted in.
        select_on: the regularization split's score that searches choose by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainConfig
    methods: tuple[str, ...] = ("crossreg", "none", "pbt")
    population: int = Field(default=8, ge=2, le=10_000)
    seeds: int = Field(default=3, ge=1, le=10_000)
    budgets: tuple[str, ...] = ("matched", "full")
    unit: Unit = "flops"
    select_on: Literal["nll", "accuracy"] = "nll"

    @model_validator(mode="after")
    def _check(self) -> CompareConfig:
        for name in self.methods:
            method(name)
        for name, values in (("methods", self.methods), ("budgets", self.budgets)):
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} is {','.join(values)!r}; give at least one, each once")
        for budget in self.budgets:
            Budget.factor_of(budget, self.population)
        if self.training.method != "crossreg":
            raise UserError(f"method is {self.training.method!r}; a comparison is set up with --methods")
        if not self.training.noise.on:
            raise UserError("noise is off, but a comparison is over noise scales; leave out --no-noise")
        if self.training.learn and "crossreg-refit" in self.methods:
            raise UserError(
                f"crossreg-refit replays noise scales alone, not {', '.join(self.training.learn)}; leave out one of "
                "the two"
            )
        return self

    @property
    def jobs(self) -> list[Job]:
        """Every method on every seed under every budget that it takes."""
        first = self.training.seed
        return [
            Job(METHODS[name], budget, seed)
            for seed in range(first, first + self.seeds)
            for name in self.methods
            for budget in METHODS[name].budgets(self.budgets)
        ]


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


def compare(
    config: CompareConfig,
    placement: Placement,
    tracking: TrackingConfig,
    *,
    folder: RunFolder | None = None,
    display: Display | None = None,
) -> Comparison:
    """Compare methods, record all of it, and write the report.

    Args:
        config: what is compared.
        placement: where; `workers` is what a trial reserves in CPUs.
        tracking: which MLflow.
        folder: of an earlier comparison to go on with.
        display: shows progress.

    Raises:
        UserError: something given is wrong; found before anything is written.
        TrainingError: a trial ended without a result.
        TrainingInterruptedError: stopped by the user; the message says how to go on.
    """
    display = display or Display()
    storage_path = check_placed(placement)
    study = make_study(config.training, config.population, config.unit, config.select_on)
    display.phase(f"loading {config.training.data.name}")
    _check_all(config, study, display)
    experiment = slug(config.training)
    started = time.time()
    with session(
        study,
        placement,
        tracking,
        folder or RunFolder(storage_path, new_name(f"{experiment}-compare")),
        kind="compare",
        params=config.model_dump(mode="json"),
        tags={"crossreg.compare": config.model_dump_json(exclude_defaults=True)},
        note=_note(config),
        display=display,
    ) as running:
        typed = running.folder / "command.txt"  # a comparison that goes on was set up by the first
        if not typed.exists():
            typed.write_text(command())
        outcomes = running.run_jobs(config.jobs)
        display.phase("writing the report")
        context = _context(config, study, started, time.time() - started, typed.read_text())
        report = write_report(outcomes, context, running.folder / "report")
        for path in sorted((running.folder / "report").rglob("*")):
            if path.is_file():
                running.parent.artifact(str(path.relative_to(running.folder / "report")), path.read_bytes())
        plain = [json.loads(outcome.model_dump_json(exclude={"curve"})) for outcome in outcomes]
        running.parent.artifact_json(plain, "outcomes.json")
    parent = running.parent
    return Comparison(parent.run_id, outcomes, report.summary, report.html, parent.ui_command, parent.url)


def _check_all(config: CompareConfig, study: Study, display: Display) -> None:
    """Find what would fail later, and say what every job may spend."""
    amounts = {}
    if config.select_on == "accuracy" and study.data(config.training.seed).task != "classification":
        raise UserError(f"select_on is 'accuracy', but {config.training.data.name} has no classes; use 'nll'")
    for job in config.jobs:
        if job.seed == config.training.seed:
            check(study.reference(job.seed), study.data(job.seed), 1)
        budget = study.budget(job.budget, job.seed)
        amounts[job] = budget.amount
        if job.seed == config.training.seed and not (config.unit == "worker_seconds" and job.method.searches):
            run = job.method.run(study, job.seed, budget)
            next(run)
            run.close()
    if config.unit == "worker_seconds" and "crossreg" not in config.methods:
        raise UserError("a budget in worker_seconds is measured on the cross-regularized run; add it to --methods")
    display.plan(amounts, "flops" if config.unit == "worker_seconds" else config.unit)


def _context(config: CompareConfig, study: Study, started: float, seconds: float, typed: str) -> Context:
    tags = environment_tags()
    first = config.training.seed
    data = study.data(first)
    return Context(
        title=f"{config.training.model} on {Path(config.training.data.name).name}",
        command=typed,
        commit=tags.get("git.sha", "unknown") + (" (modified)" if tags.get("git.dirty") == "true" else ""),
        machine={
            "system": f"{tags['platform.system']}, {platform.machine()}",
            "CPUs": str(available_cpus()),
            "CPUs a trial": "1",
        },
        versions={key.removeprefix("version."): value for key, value in tags.items() if key.startswith("version.")},
        model=config.training.model,
        data=Path(config.training.data.name).name,
        data_fingerprints={seed: study.data(seed).fingerprint for seed in range(first, first + config.seeds)},
        num_train=len(data.train),
        num_reg=len(data.reg),
        num_test=len(data.test),
        population=config.population,
        unit=config.unit,
        select_on=config.select_on,
        samples=config.training.final_samples,
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
