"""Cross-regularization for PyTorch: learn a model's regularization from held-out data while it trains.

model = inject_noise(model)
regularizer = CrossRegularizer(model, "classification", reg_loader)
optimizer = torch.optim.AdamW(regularizer.theta)
for x, y in train_loader:
    loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
    regularizer.step()
"""

from crossreg import calibration, metrics, models
from crossreg.batches import Batches, Preprocess, augmentation
from crossreg.training.checkpoint import SaveCheckpoint, load_checkpoint, save_checkpoint
from crossreg.training.compute import Ledger
from crossreg.training.diagnostics import Diagnosis, Diagnostics
from crossreg.core.distributed import data_parallel, process_group
from crossreg.core.errors import UserError
from crossreg.estimators import T1T2, Estimator, Implicit, Unrolled, direct_gradient
from crossreg.prediction.evaluation import Evaluation, evaluate
from crossreg.regularizers.augmentation import Augmentation, learn_augmentation
from crossreg.regularizers.levels import learn_levels
from crossreg.losses import Classification, GaussianRegression, Likelihood, Loss
from crossreg.regularizers.noise import Noise, inject_noise, remove_noise, sampling, sigmas
from crossreg.regularizers.norms import learn_norms
from crossreg.regularizers.penalties import L1, L2, Penalty, Smoothness, Term, penalize, training_loss
from crossreg.prediction.predict import Prediction, predict
from crossreg.regularizer import CrossRegularizer, RhoUpdate
from crossreg.core.rho import learned, temperature
from crossreg.regularizers.targets import LabelSmoothing, LossTemperature
from crossreg.training.trainer import Callback, Trainer

__version__ = "0.1.0"

__all__ = [
    "L1",
    "L2",
    "T1T2",
    "Augmentation",
    "Batches",
    "Callback",
    "Classification",
    "CrossRegularizer",
    "Diagnosis",
    "Diagnostics",
    "Estimator",
    "Evaluation",
    "GaussianRegression",
    "Implicit",
    "LabelSmoothing",
    "Ledger",
    "Likelihood",
    "Loss",
    "LossTemperature",
    "Noise",
    "Penalty",
    "Prediction",
    "Preprocess",
    "RhoUpdate",
    "SaveCheckpoint",
    "Smoothness",
    "Term",
    "Trainer",
    "Unrolled",
    "UserError",
    "augmentation",
    "calibration",
    "data_parallel",
    "direct_gradient",
    "evaluate",
    "inject_noise",
    "learn_augmentation",
    "learn_levels",
    "learn_norms",
    "learned",
    "load_checkpoint",
    "metrics",
    "models",
    "penalize",
    "predict",
    "process_group",
    "remove_noise",
    "sampling",
    "save_checkpoint",
    "sigmas",
    "temperature",
    "training_loss",
]
