"""Cross-regularization for PyTorch: learn a model's regularization from held-out data while it trains.

model = inject_noise(model)
regularizer = CrossRegularizer(model, "classification", reg_loader)
optimizer = torch.optim.AdamW(regularizer.theta)
for x, y in train_loader:
    loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
    regularizer.step()

PyTorch is loaded with the first name that is used, so that command lines answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossreg import models
    from crossreg.batches import Batches, Preprocess, augmentation
    from crossreg.core import metrics
    from crossreg.core.distributed import data_parallel, process_group
    from crossreg.core.errors import UserError
    from crossreg.estimators import T1T2, Direct, Estimator, Implicit, Unrolled
    from crossreg.losses import Classification, GaussianRegression, Likelihood, Loss, MultiLabel
    from crossreg.prediction import calibration
    from crossreg.prediction.evaluation import Evaluation, EvaluationPlan, evaluate
    from crossreg.prediction.predict import Prediction, predict
    from crossreg.regularizer import CrossRegularizer, RhoUpdate
    from crossreg.regularizers.augmentation import Augmentation, learn_augmentation
    from crossreg.regularizers.base import Hyperparameter
    from crossreg.regularizers.levels import learn_levels
    from crossreg.regularizers.noise import Noise, inject_noise, remove_noise, sampling, sigmas
    from crossreg.regularizers.norms import learn_norms
    from crossreg.regularizers.penalties import L1, L2, Penalty, Smoothness, Term, penalize, training_loss
    from crossreg.regularizers.registry import get_hyperparameters, hyperparameters, set_hyperparameters
    from crossreg.regularizers.targets import LabelSmoothing, LossTemperature
    from crossreg.regularizers.temperature import learn_temperature, temperature
    from crossreg.training.callback import Callback, Stop
    from crossreg.training.checkpoint import SaveCheckpoint, load_checkpoint, save_checkpoint
    from crossreg.training.compute import Cost, Ledger
    from crossreg.training.diagnostics import Diagnosis, Diagnostics
    from crossreg.training.stopping import Patience, StopByRule, StoppingRule
    from crossreg.training.trainer import Trainer

__version__ = "0.2.0"

_HOMES = {
    "batches": ("Batches", "Preprocess", "augmentation"),
    "core.distributed": ("data_parallel", "process_group"),
    "core.errors": ("UserError",),
    "estimators": ("Direct", "Estimator", "Implicit", "T1T2", "Unrolled"),
    "losses": ("Classification", "GaussianRegression", "Likelihood", "Loss", "MultiLabel"),
    "prediction.evaluation": ("Evaluation", "EvaluationPlan", "evaluate"),
    "prediction.predict": ("Prediction", "predict"),
    "regularizer": ("CrossRegularizer", "RhoUpdate"),
    "regularizers.augmentation": ("Augmentation", "learn_augmentation"),
    "regularizers.base": ("Hyperparameter",),
    "regularizers.levels": ("learn_levels",),
    "regularizers.noise": ("Noise", "inject_noise", "remove_noise", "sampling", "sigmas"),
    "regularizers.norms": ("learn_norms",),
    "regularizers.penalties": ("L1", "L2", "Penalty", "Smoothness", "Term", "penalize", "training_loss"),
    "regularizers.registry": ("get_hyperparameters", "hyperparameters", "set_hyperparameters"),
    "regularizers.targets": ("LabelSmoothing", "LossTemperature"),
    "regularizers.temperature": ("learn_temperature", "temperature"),
    "training.callback": ("Callback", "Stop"),
    "training.checkpoint": ("SaveCheckpoint", "load_checkpoint", "save_checkpoint"),
    "training.compute": ("Cost", "Ledger"),
    "training.diagnostics": ("Diagnosis", "Diagnostics"),
    "training.stopping": ("Patience", "StopByRule", "StoppingRule"),
    "training.trainer": ("Trainer",),
}
_MODULES = {"calibration": "prediction.calibration", "metrics": "core.metrics", "models": "models"}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "L1",
    "L2",
    "T1T2",
    "Augmentation",
    "Batches",
    "Callback",
    "Classification",
    "Cost",
    "CrossRegularizer",
    "Diagnosis",
    "Diagnostics",
    "Direct",
    "Estimator",
    "Evaluation",
    "EvaluationPlan",
    "GaussianRegression",
    "Hyperparameter",
    "Implicit",
    "LabelSmoothing",
    "Ledger",
    "Likelihood",
    "Loss",
    "LossTemperature",
    "MultiLabel",
    "Noise",
    "Patience",
    "Penalty",
    "Prediction",
    "Preprocess",
    "RhoUpdate",
    "SaveCheckpoint",
    "Smoothness",
    "Stop",
    "StopByRule",
    "StoppingRule",
    "Term",
    "Trainer",
    "Unrolled",
    "UserError",
    "augmentation",
    "calibration",
    "data_parallel",
    "evaluate",
    "get_hyperparameters",
    "hyperparameters",
    "inject_noise",
    "learn_augmentation",
    "learn_levels",
    "learn_norms",
    "learn_temperature",
    "load_checkpoint",
    "metrics",
    "models",
    "penalize",
    "predict",
    "process_group",
    "remove_noise",
    "sampling",
    "save_checkpoint",
    "set_hyperparameters",
    "sigmas",
    "temperature",
    "training_loss",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
