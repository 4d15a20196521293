"""A meta-training from start to end, seen from the process the user started.

The driver holds the rule, averages what the actors send, and keeps a state on disk from which the next one goes on. A
lost actor costs what was done since the last state, and no more.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import crossreg
from crossreg.core import metrics
from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from crossreg.meta import MetaPlan, MetaTrainer, meta_loss, tasks_of_slots
from crossreg.optimizers import About, save_rule, update_rule
from crossreg.services.meta_training.config import MetaTrainConfig
from crossreg.services.meta_training.figure import meta_loss_figure
from crossreg.services.meta_training.state import MetaState, load_state, save_state, state_path
from crossreg.services.meta_training.tasks import TaskData, load_tasks
from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.services.tracking.environment import environment_tags
from crossreg.services.training.config import Placement
from crossreg.services.training.driver import closing
from crossreg.services.training.errors import TrainingError
from crossreg.services.training.progress import ProgressLine
from crossreg.services.training.runtime import start_ray

__all__ = ["MetaTrained", "meta_train", "plan_of"]

_log = logging.getLogger(__name__)

_KEEP_SECONDS = 20.0
_MOST_LOSSES = 5
"""Times in a row that actors may be lost without an iteration between."""


@dataclass(frozen=True)
class MetaTrained:
    """What a meta-training made.

    Attributes:
        path: the optimizer file.
        about: what it says of itself.
        meta_loss: mean logarithm of the meta-loss over the last tenth of the iterations.
        first: the same over the first tenth.
        diverged: share of windows in which an inner training was ended for its loss, over the last tenth.
        seconds: of this process, without starting Ray.
        run_id: MLflow run.
        ui_command: opens the MLflow UI on its store.
    """

    path: str
    about: About
    meta_loss: float
    first: float
    diverged: float
    seconds: float
    run_id: str
    ui_command: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return asdict(self)


def plan_of(config: MetaTrainConfig) -> MetaPlan:
    """Return what the library needs to know."""
    return MetaPlan(
        meta_loss(config.meta_loss, config.radius),
        horizon=config.horizon,
        iterations=config.iterations,
        window=config.window,
        trainings=config.trainings,
        estimator=config.estimator or ("gradient" if config.rule == "lstm" else "nres"),
        lr=config.lr,
        sigma=config.sigma,
        inner_lr=config.inner_lr,
        weight_decay=config.weight_decay,
        spread=config.spread,
        emphasis=config.emphasis,
        seed=config.seed,
    )


def meta_train(
    config: MetaTrainConfig, out: Path, placement: Placement, tracking: TrackingConfig, line: ProgressLine
) -> MetaTrained:
    """Meta-train an update rule on Ray and write it, or go on with a meta-training that was stopped.

    Args:
        config: what to meta-train.
        out: the optimizer file; its state is beside it until it is done.
        placement: of `workers` actors, with a core or a GPU each.
        tracking: which MLflow.
        line: shows progress.

    Raises:
        UserError: something given is wrong, or a state of other settings is there.
        TrainingError: it started and did not end well.
    """
    out = local_path(out, "optimizer file").absolute()
    if out.is_dir():
        raise UserError(f"{str(out)!r} is a folder; name the optimizer file in it, e.g. {out / 'learned.safetensors'}")
    before = _before(config, out)
    if before is None and out.exists():
        raise UserError(f"{str(out)!r} is there already; remove it or name another file")
    line.phase("loading the tasks")
    tasks, plan = load_tasks(config), plan_of(config)
    tasks_of_slots(plan, len(tasks))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {str(out.parent)!r}: {error.strerror}") from error
    line.phase("starting Ray")
    start_ray(placement)
    line.phase("opening the MLflow run")
    spool = out.with_name(f"{out.name}.tracking")
    tracker = Tracker.start(
        tracking,
        experiment="meta-train",
        run_name=f"{config.rule}-{config.meta_loss}-s{config.seed}",
        params=config.model_dump(mode="json"),
        tags={"kind": "meta-train", "method": config.meta_loss, "seed": str(config.seed)},
        spool_dir=spool,
        resume_run_id=before.run_id if before else None,
        system_interval=None,
    )
    with closing(tracker, f"go on by the same command, from {state_path(out)}"):
        found = _run(config, plan, tasks, out, placement, tracker, line, before)
    if tracker.finish("FINISHED"):  # it has, and says whether all has arrived
        shutil.rmtree(spool, ignore_errors=True)
    return found


def _before(config: MetaTrainConfig, out: Path) -> MetaState | None:
    """Return the state to go on from.

    Raises:
        UserError: it cannot be read, or is of other settings.
    """
    path = state_path(out)
    if not path.exists():
        return None
    state = load_state(path)
    old, new = json.loads(state.config), json.loads(config.model_dump_json())
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        name = changed[0]
        raise UserError(
            f"{str(path)!r} is of a meta-training with {name} {old.get(name)!r}, and this one has {new[name]!r}; give "
            "the same settings to go on, or remove it to begin anew"
        )
    return state


def _run(
    config: MetaTrainConfig,
    plan: MetaPlan,
    tasks: list[TaskData],
    out: Path,
    placement: Placement,
    tracker: Tracker,
    line: ProgressLine,
    before: MetaState | None,
) -> MetaTrained:
    from crossreg.services.meta_training.crew import ActorLostError, Crew

    trainer = MetaTrainer(update_rule(config.rule), plan)
    crew = Crew(tasks, config.rule, plan, placement.workers, placement.gpu)
    line.note(f"run: {tracker.url or tracker.run_id}")
    for task in tasks:
        line.note(f"task: {task.name}, {len(task.x):,} examples of {'x'.join(map(str, task.x.shape[1:]))}")
    if before is not None:
        trainer.load_state_dict(before.trainer)
        line.note(f"note: going on from iteration {trainer.iteration} of {state_path(out)}")
    state = before
    started, kept, lost, need, told = time.monotonic(), time.monotonic(), 0, True, trainer.iteration
    begun_at = trainer.iteration

    def keep() -> MetaState:
        found = MetaState(config.model_dump_json(), tracker.run_id, trainer.state_dict(), crew.state())
        tracker.flush()  # before the state: what goes on after it must not find a gap before it
        save_state(found, state_path(out))
        return found

    line.phase("starting the actors")
    while trainer.iteration < plan.iterations:
        try:
            if need:
                crew.start(state.inner if state else None)
                line.phase(f"meta-training on {crew.size} actor{'s' if crew.size > 1 else ''}")
                need = False
                if lost == 0 and trainer.iteration == begun_at:
                    started = time.monotonic()
                if state is None:
                    state = keep()
            weights = {name: one.detach() for name, one in trainer.weights.items()}
            seen, gradients = crew.run(weights, trainer.iteration)
            lost = 0
        except ActorLostError as error:
            lost += 1
            if lost > _MOST_LOSSES:
                raise TrainingError(
                    f"actors were lost {lost} times in a row: {error}; the same command goes on from {state_path(out)}"
                ) from error
            if state is not None:
                trainer.load_state_dict(state.trainer)
            else:
                trainer = MetaTrainer(update_rule(config.rule), plan)
            need = True
            line.note(f"an actor was lost; going on from iteration {trainer.iteration}: {error}")
            _log.warning("an actor was lost", extra={"iteration": trainer.iteration})
            continue
        values = trainer.update(seen, gradients)
        tracker.record(values, trainer.iteration)
        done, elapsed = trainer.iteration, time.monotonic() - started
        line.count(done, plan.iterations)
        if done - told >= plan.iterations / 10:
            told = done
            loss = values.get(metrics.META_LOSS, math.nan)
            left = elapsed / max(done - begun_at, 1) * (plan.iterations - done)
            line.note(
                f"{done / plan.iterations:.0%}  iteration {done}  log meta-loss {loss:.3f}"
                f"  {values[metrics.META_DIVERGED]:.0%} diverged  {left:.0f} s left"
            )
        if done == plan.iterations or time.monotonic() - kept >= _KEEP_SECONDS:
            try:
                state, kept = keep(), time.monotonic()
            except ActorLostError:
                continue  # the next iteration says so
            need = crew.room() != crew.size and done < plan.iterations
    crew.stop()
    return _finish(config, plan, trainer, out, tracker, time.monotonic() - started)


def _finish(
    config: MetaTrainConfig, plan: MetaPlan, trainer: MetaTrainer, out: Path, tracker: Tracker, seconds: float
) -> MetaTrained:
    rule = update_rule(config.rule)
    about = About(
        config.horizon,
        rule.lr if config.inner_lr is None else config.inner_lr,
        config.meta_loss,
        config.tasks,
        config.seed,
        config.iterations,
        crossreg.__version__,
        environment_tags().get("git.sha", ""),
    )
    learned = trainer.learned(about)
    save_rule(learned, out)
    state_path(out).unlink(missing_ok=True)
    tracker.artifact("optimizer.safetensors", out.read_bytes())
    history = tracker.history()
    tracker.figure("meta_loss", meta_loss_figure(history))
    _, losses = history.get(metrics.META_LOSS, ([], []))
    tenth = max(1, len(losses) // 10)
    diverged = history[metrics.META_DIVERGED][1][-tenth:]
    first, last = (sum(some) / max(len(some), 1) for some in (losses[:tenth], losses[-tenth:]))
    tracker.set_tags({"optimizer.digest": learned.digest})
    tracker.set_note(
        f"Meta-trained {config.rule} rule, {config.iterations} iterations, meta-loss {config.meta_loss}: its mean "
        f"logarithm went from {first:.3f} to {last:.3f}. Use it with `crossreg train --optimizer learned:{out.name}`."
    )
    return MetaTrained(
        str(out), about, last, first, sum(diverged) / len(diverged), seconds, tracker.run_id, tracker.ui_command
    )
