"""A regularizer that the project does not have: weight matrices are pulled towards orthogonal rows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from crossreg.regularizers.penalties import L2, Penalty, term_regularizer

__all__ = ["ORTHOGONALITY"]


class Orthogonality(Penalty):
    """The squared distance of W W' from the unit matrix, for every weight as a matrix of rows W."""

    hyperparameter = replace(
        L2.hyperparameter,
        name="orthogonality",
        help="strength of the squared distance of the weights' rows from orthonormal ones",
        default=1e-3,
        range=(1e-5, 1e-1),
    )

    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        """Return it of every tensor."""
        rows = [weight.flatten(1) for weight in weights]
        return [(row @ row.T - torch.eye(len(row)).to(row)).square().sum() for row in rows]


ORTHOGONALITY = term_regularizer(Orthogonality, Orthogonality.hyperparameter)
