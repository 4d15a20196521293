"""What regularizes a training: one file a kind, one list of all in `registry`."""

from crossreg.regularizers.base import Hyperparameter, Regularizer, RhoModule
from crossreg.regularizers.registry import (
    REGISTRY,
    attach,
    description,
    get_hyperparameters,
    hyperparameters,
    regularizer,
    remove,
    set_hyperparameters,
)

__all__ = [
    "REGISTRY",
    "Hyperparameter",
    "Regularizer",
    "RhoModule",
    "attach",
    "description",
    "get_hyperparameters",
    "hyperparameters",
    "regularizer",
    "remove",
    "set_hyperparameters",
]
