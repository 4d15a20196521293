"""Evaluating the chosen one of a search on all test examples."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from crossreg.core.random import kept_rng_state
from crossreg.services.data import Dataset
from crossreg.services.search.search import TrialResult
from crossreg.services.search.spec import Record, TrialSpec
from crossreg.services.search.trial import States, Trial, read_predictions
from crossreg.services.training.result import Predictions, predictions_of

__all__ = ["final_evaluation"]

PATIENCE = 5.0
"""Seconds that the CPUs of trials that have just ended are waited for."""


def final_evaluation(trial: TrialResult, chosen: Record) -> tuple[dict[str, dict[str, float]], Predictions]:
    """Return scores and predictions of a state by split, on whole splits with the final number of draws.

    Members of a search, and trials that a stopping rule ended, have been evaluated on a part of the test split; the one
    that was chosen is evaluated here, with the CPUs of one machine that are free. Others have been already, and so an
    interval that is not a trial's last.

    Args:
        trial: the trial that reached the state.
        chosen: its record.
    """
    evaluated = trial.spec.config.final_test and chosen.last
    if evaluated or chosen.state != trial.final.state:
        return chosen.scores, read_predictions(trial.states, chosen.state)
    if isinstance(trial.data, Dataset):
        with kept_rng_state():
            return _evaluate(trial.spec, trial.data, trial.states.folder, chosen.state, torch.get_num_threads())
    import ray

    threads, others = _free_cpus()
    if not others and "RAY_ADDRESS" not in os.environ:
        # on this machine, and nothing beside it: this process has already loaded what a worker would have to load
        before = torch.get_num_threads()
        try:
            return _evaluate(trial.spec, ray.get(trial.data), trial.states.folder, chosen.state, threads)
        finally:
            torch.set_num_threads(before)
    task = ray.remote(num_cpus=threads)(_evaluate)
    scores, predictions = ray.get(task.remote(trial.spec, trial.data, trial.states.folder, chosen.state, threads))
    return scores, predictions


def _free_cpus() -> tuple[int, bool]:
    """Return the CPUs of the largest machine, or as many as are free after a moment, and whether others hold some.

    Asking for all would wait for ever: Ray 2.60 sometimes never gives a CPU back when the last trials of a search end
    on a busy machine, and on a shared cluster somebody else may hold one.
    """
    import ray

    largest = max(1, int(max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])))
    until = time.monotonic() + PATIENCE
    while (free := int(ray.available_resources().get("CPU", 0))) < largest and time.monotonic() < until:
        time.sleep(0.1)
    return max(1, min(free, largest)), free < largest


def _evaluate(
    spec: TrialSpec, data: Dataset, folder: Path, state: str, threads: int
) -> tuple[dict[str, dict[str, float]], Any]:
    torch.set_num_threads(threads)
    trial = Trial(spec, {spec.digest: spec}, {spec.data: data}, States(folder), keep=None)
    trainer = trial.trainer_at(state)
    trainer.finish()
    return {split: result.scores for split, result in trainer.evaluated.items()}, predictions_of(trainer)
