"""Small problems whose minimum of the training objective, and so the true gradient in rho, is found to many digits.

The true gradient in rho is a central difference: rho is moved a little either way, theta is taken to the minimum anew,
and the two held-out losses there are compared.

For that the minimum has to be isolated, which a penalty sees to: without one, a network that separates its training
data has no minimum. The penalty has to include the weights of normalization layers: if it left them out, the weights
before such a layer would have no minimum.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossreg import Loss
from crossreg.core.random import forked_rng
from crossreg.estimators import Direct
from crossreg.estimators.hypergradient import theta_of, training_gradient, training_mode_with_rho_grad
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw, noise_layers, set_draw
from crossreg.regularizers.penalties import Objective
from crossreg.studies.batch import Batch

__all__ = ["HypergradientProblem"]

_ACCURACY = 1e-11  # of the training objective's gradient at a minimum


@dataclass(frozen=True)
class HypergradientProblem:
    """A model at the minimum of its training objective, in float64.

    Attributes:
        model: theta is at the minimum.
        loss: on both splits, see `crossreg.losses`.
        train: what theta trains on.
        reg: what rho is learned on, with as many rows.
        names: parameters whose gradient is in question, by their names in the model; other rho of the model are
            constant.
        draws: draws of the noise; both the training objective and the held-out loss are averaged over them.
        sparse: it is a linear regression with an L1 penalty, some of whose weights are exactly 0 at the minimum.
    """

    model: nn.Module
    loss: Loss
    train: Batch
    reg: Batch
    names: list[str]
    draws: list[Draw]
    sparse: bool = False

    def orders(self) -> list[list[Draw]]:
        """Return the draws in several orders, each of which starts with another pair.

        An estimator takes only the first one or two draws for the training objective. In a training they are new ones
        in every update, so what counts is its mean over these orders.
        """
        return [self.draws[start:] + self.draws[:start] for start in range(0, len(self.draws), 2)]

    @property
    def rho(self) -> list[nn.Parameter]:
        """The parameters that the gradient is taken in."""
        parameters = rho_parameters(self.model)
        return [parameters[name] for name in self.names]

    def settle(self) -> None:
        """Take theta to the minimum of the training objective, from where it is."""
        if self.sparse:
            self._lasso()
        else:
            self._descend()
            self._newton()
            if any(float(w.detach().norm()) < 1e-3 for w in theta_of(self.model).values() if w.ndim > 1):
                raise ArithmeticError("the minimum is a network that sees nothing")

    def held_out(self) -> float:
        """Return the loss on the reg split, of the prediction averaged over the draws."""
        return float(Direct().gradient(self.model, self.loss, *self.reg, [], self.draws)[0])

    def hessian(self) -> Tensor:
        """Return the second derivative of the training objective in theta, `[n, n]`."""
        weights = list(theta_of(self.model).values())
        with self._slope() as slope:
            unit = torch.eye(len(slope), dtype=slope.dtype)
            columns = torch.autograd.grad(slope, weights, unit, is_grads_batched=True, materialize_grads=True)
        return torch.cat([column.flatten(1) for column in columns], 1)

    def truth(self, h: float = 1e-4) -> Tensor:
        """Return central differences of the held-out loss, theta at its minimum on either side, `[n]`."""
        found = []
        inverse = None if self.sparse else self._inverse()
        for name, parameter in zip(self.names, self.rho, strict=True):
            for index in range(parameter.numel()):
                sides = []
                for side in (h, -h):
                    twin = copy.deepcopy(self)
                    rho_parameters(twin.model)[name].data.view(-1)[index] += side
                    twin._lasso() if self.sparse else twin._newton(inverse)
                    sides.append(twin.held_out())
                found.append((sides[0] - sides[1]) / (2 * h))
        return torch.tensor(found, dtype=torch.float64)

    @contextmanager
    def _slope(self) -> Iterator[Tensor]:
        """Provide the gradient of the training objective in theta, `[n]`, which can be differentiated again."""
        with forked_rng(self.train[1].device), training_mode_with_rho_grad(self.model, []):
            theta = theta_of(self.model)
            slopes = training_gradient(self.model, self.loss, *self.train, theta, self.draws)
            pairs = zip(theta.values(), slopes, strict=True)
            yield _flat([torch.zeros_like(weight) if slope is None else slope for weight, slope in pairs])

    def _descend(self) -> None:
        theta = list(theta_of(self.model).values())
        objective = Objective(self.model.train(), self.loss)
        solver = torch.optim.LBFGS(
            theta, max_iter=500, history_size=50, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            values = []
            for draw in self.draws:
                set_draw(self.model, draw, self.train[1].device)
                values.append(objective(*self.train))
            value = torch.stack(values).mean()
            value.backward()
            return value

        with forked_rng(self.train[1].device):
            solver.step(closure)
        solver.zero_grad()
        for layer in noise_layers(self.model).values():
            layer.sign = 1.0

    def _newton(self, inverse: Tensor | None = None, steps: int = 50) -> None:
        """Take Newton steps to the minimum, to more digits than a line search can tell apart.

        A step costs little with the inverse of an earlier Hessian, so that is replaced only once steps stop helping.
        """
        theta, before = list(theta_of(self.model).values()), math.inf
        for _ in range(steps):
            with self._slope() as slope:
                right = slope.detach()
            size = float(right.abs().max())
            stuck = size > 0.1 * before
            if size < _ACCURACY and (stuck or size == 0):
                return
            if inverse is None or stuck:
                inverse = self._inverse()
            before = size
            for weight, change in zip(theta, (inverse @ right).split([p.numel() for p in theta]), strict=True):
                weight.data -= change.view_as(weight)
        raise ArithmeticError("no minimum of the training objective was found")

    def _inverse(self) -> Tensor:
        """Return the Hessian's inverse, without directions of no curvature.

        Those change nothing: where a weight is a norm times a direction, the length of the vector of the direction.
        """
        values, vectors = torch.linalg.eigh(self.hessian())
        if float(values[0]) < -1e-6 * float(values[-1]):
            raise ArithmeticError("this is no minimum of the training objective")
        kept = values > 1e-7 * values[-1]
        return vectors[:, kept] / values[kept] @ vectors[:, kept].T

    def _lasso(self) -> None:
        """Find which weights are 0 by soft thresholding, then the others in closed form."""
        x, y = self.train
        (weight,) = theta_of(self.model).values()
        strength = float(rho_parameters(self.model)[self.names[0]].exp())
        gram, moment = x.T @ x / len(x), x.T @ y[:, 0] / len(x)
        step = 1 / float(torch.linalg.eigvalsh(gram)[-1])
        w = weight.data[0].clone()
        for _ in range(5000):
            moved = w - step * (gram @ w - moment)
            w = moved.sign() * (moved.abs() - step * strength).clamp_min(0)
        kept = w != 0
        w[kept] = torch.linalg.solve(gram[kept][:, kept], moment[kept] - strength * w[kept].sign())
        slack = strength - (gram @ w - moment)[~kept].abs()
        if not (len(slack) and kept.any() and float(slack.min()) > 1e-3 * strength):
            raise ArithmeticError("the weights that are 0 are not settled here")
        weight.data = w[None]


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])
