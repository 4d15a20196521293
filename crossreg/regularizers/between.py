"""Terms between the members of an ensemble: how alike their predictions are, or how well their average does.

    C1 = 1/M [ sum_m loss(f_m, y)  +  w sum_{i<j} D(f_i, f_j) ],       D = 1/2 |f_i - f_j|^2, or 1 - cosine

    consistency    w > 0: members are pulled together
    diversity      w = -d / M: they are pushed apart. Of numbers, loss + 1/M sum D is that of the average alone
                   (the ambiguity decomposition), so d = 1 is joint training of the average and more has no minimum
    joint          (1 - beta) times the members' mean loss, beta times the loss of their average

All members see the same rows, since on others there is nothing to compare; see `crossreg.models.Ensemble`. The held-out
loss has no such term, so only an estimator that follows theta's response can learn it.

Sources: Krogh and Vedelsby 1995, NeurIPS 7 (decomposition); Liu and Yao 1999, Neural Networks 12:1399 and Brown et al.
2005, JMLR 6:1621 (negative correlation); Jeffares et al. 2023, arXiv:2301.11323 (joint training, and how members
collude in it).
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.core.modules import unwrap
from crossreg.losses import as_loss
from crossreg.models.ensemble import Ensemble
from crossreg.regularizers.base import Hyperparameter, Regularizer
from crossreg.regularizers.penalties import Term, penalize, terms, without_terms

__all__ = ["BETWEEN", "Between", "Consistency", "Diversity", "Joint"]

Measure = Literal["squared", "cosine", "negative-correlation"]
On = Literal["probabilities", "outputs"]
Weight = Literal["fixed", "gap"]

_CONSISTENCY = Hyperparameter(
    "consistency",
    help="pulls the predictions of an ensemble's networks together; weight of their distance in the training loss",
    unit="loss a unit of distance",
    default=0.1,
    range=(0.01, 10.0),
)
_DIVERSITY = Hyperparameter(
    "diversity",
    help="pushes the predictions of an ensemble's networks apart; of numbers 1 is joint training of their average",
    unit="share of 1/M, the most that squared error allows",
    default=0.2,
    range=(0.01, 0.99),
    scale="logit",
)
_JOINT = Hyperparameter(
    "joint",
    help="share of the loss of an ensemble's average in the training loss, beside the mean loss of its networks",
    unit="share",
    default=0.2,
    range=(0.01, 0.99),
    scale="logit",
)


class Between(Term):
    """A term of an ensemble's training loss that looks at all of its members together.

    Args:
        value: of its hyperparameter, where it starts.
    """

    between = True
    hyperparameter: Hyperparameter

    def __init__(self, value: float | None = None) -> None:
        super().__init__()
        start = self.hyperparameter.default if value is None else value
        assert start is not None
        self.hyperparameter.check(start)
        self.rho = nn.Parameter(self.hyperparameter.unconstrained(start), requires_grad=False)

    @property
    def value(self) -> Tensor:
        """What rho stands for, a scalar."""
        return self.hyperparameter.natural(self.rho)

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the weight."""
        return [self.hyperparameter.of_rho(self.rho)]


class _Alike(Between):
    """A measure of how alike predictions are.

    Args:
        value: its weight.
        measure: "squared": half the squared difference of two, summed over classes, averaged over outputs; "cosine":
            one minus the cosine of the angle between them; "negative-correlation": half the squared difference to the
            average, which is taken for a constant.
        on: probabilities, or the networks' outputs; None takes those of a classifier, and numbers as they are.
        weight: "fixed", or "gap": times the difference of two networks' losses, at most 1, which pulls (or pushes)
            where one is better than the other and leaves equals alone.
    """

    sign = 1.0

    def __init__(
        self,
        value: float | None = None,
        measure: Measure = "squared",
        on: On | None = None,
        weight: Weight = "fixed",
    ) -> None:
        super().__init__(value)
        self.measure, self.on, self.weight = measure, on, weight

    def added(self, model: nn.Module, output: Tensor, target: Tensor) -> Tensor:
        """Return what is added to the mean loss of the members, a scalar.

        Args:
            model: the ensemble.
            output: of its members, `[M, B, ...]`.
            target: `[B, ...]`.
        """
        inner = unwrap(model)
        assert isinstance(inner, Ensemble)
        members = len(output)
        classes = inner.task == "classification"
        seen = output.softmax(2) if classes and self.on != "outputs" else output
        if self.measure == "negative-correlation":
            distance = _half_squared(seen, seen.mean(0, keepdim=True).detach(), classes).sum() / members
            return self.sign * self.value.to(distance) * distance
        total = torch.zeros((), dtype=output.dtype, device=output.device)
        loss = as_loss(inner.task)
        for i, j in itertools.combinations(range(members), 2):
            distance = self._distance(seen[i], seen[j], classes)
            if self.weight == "gap":
                distance = distance * (loss(output[i], target) - loss(output[j], target)).abs().clamp(max=1.0)
            total = total + distance
        return self.sign * self.scaled(members).to(total) * total / members

    def scaled(self, members: int) -> Tensor:
        """Return the weight of a pair's distance, positive."""
        return self.value

    def _distance(self, one: Tensor, other: Tensor, classes: bool) -> Tensor:
        if self.measure == "cosine":
            return (1 - F.cosine_similarity(one, other, dim=1)).mean()
        return _half_squared(one[None], other[None], classes)[0]


class Consistency(_Alike):
    """Pulls members together."""

    hyperparameter = _CONSISTENCY


class Diversity(_Alike):
    """Pushes members apart, as far as the loss has a minimum."""

    hyperparameter = _DIVERSITY
    sign = -1.0

    def scaled(self, members: int) -> Tensor:
        """Return the weight of a pair's distance: of squared ones a share of the most that there may be."""
        return self.value if self.measure == "cosine" else self.value / members


class Joint(Between):
    """Trains members for their average."""

    hyperparameter = _JOINT

    def added(self, model: nn.Module, output: Tensor, target: Tensor) -> Tensor:
        """Return beta times (loss of the average - mean loss of the members), a scalar.

        Args:
            model: the ensemble.
            output: of its members, `[M, B, ...]`.
            target: `[B, ...]`.
        """
        inner = unwrap(model)
        assert isinstance(inner, Ensemble)
        loss = as_loss(inner.task)
        alone = torch.stack([loss(one, target) for one in output]).mean()
        together = loss(inner.average(output), target)
        return self.value.to(together) * (together - alone)


def _half_squared(ones: Tensor, others: Tensor, classes: bool) -> Tensor:
    """Return half the squared differences, a mean over rows for each of the first axis: `[M]`."""
    squares = 0.5 * (ones - others).square()
    return squares.sum(2).mean(1) if classes else squares.flatten(1).mean(1)


def _regularizer(kind: type[Between], options: dict[str, Any]) -> Regularizer:
    def attach(model: nn.Module, value: float | None, **given: Any) -> None:
        inner = unwrap(model)
        if not isinstance(inner, Ensemble) or inner.count < 2:
            raise UserError(f"{kind.hyperparameter.name} is between networks, and there is one; give --ensemble")
        term = kind(value, **given)
        squares = isinstance(term, Diversity) and term.measure != "cosine"
        if squares and inner.task == "classification" and term.on == "outputs":
            raise UserError(
                "diversity of a classifier's outputs has no weight for which the loss has a minimum: cross-entropy "
                "grows as outputs do, and this as their squares; take on: probabilities, or measure: cosine"
            )
        inner.together = True
        penalize(model, term)

    def remove(model: nn.Module) -> None:
        without_terms(model, kind)
        inner = unwrap(model)
        if isinstance(inner, Ensemble):
            inner.together = any(term.between for term in terms(inner))

    return Regularizer(kind.hyperparameter, attach, remove, options)


BETWEEN: tuple[Regularizer, ...] = (
    _regularizer(Diversity, {"measure": Measure, "on": On, "weight": Weight}),
    _regularizer(
        Consistency,
        {"measure": Literal[tuple(one for one in get_args(Measure) if one != "negative-correlation")], "on": On,
         "weight": Weight},
    ),
    _regularizer(Joint, {}),
)  # fmt: skip
"""What is between the members of an ensemble."""
