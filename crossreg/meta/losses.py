"""What meta-training lowers: the loss where inner steps arrive, how sharp it is there, on their data or on others.

A meta-loss gives a value and a slope in the weights theta it is taken at, the direction in which meta-training would
have the weights moved. Of `train` and `held-out` the slope is the gradient of the value. Of the others it is what their
authors define: SAM's is the gradient at the worst point, without following how that moves; GSAM's is no gradient of
any function, and its value is the sum of the two losses that it trades off.

    f: the loss of a batch, g its gradient, r the radius
    train      f(theta)                     g
    sam        f(theta + r g/|g|)           gradient there
    gsam       sam's + alpha (sam's - f)    sam's, less alpha times the part of g that is orthogonal to it
    gam        f(theta) + weight R,         R = r |g(theta + r h/|h|)|,  h the gradient of |g|: a Hessian-vector product

Each on the batch of the inner step, or, as `held-out`, `sam-held-out`, ..., on examples that inner steps never see:
cross-regularization, one level up.

Source: the three in the meta-loss: arXiv:2510.08968, whose radii and weights are not public; what is here is ours. SAM:
Foret et al. 2021, arXiv:2010.01412, equations 2 and 3. GSAM: Zhuang et al. 2022, arXiv:2203.08065, algorithm 1. GAM:
Zhang et al. 2023, arXiv:2303.03108, equation 4 and algorithm 1. Held-out data there: `meta_loss_split` in
google/learned_optimization.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.func import grad, grad_and_value

from crossreg.core.errors import UserError, nearest

__all__ = ["META_LOSSES", "Function", "MetaLoss", "hessian_vector_product", "meta_loss", "worst_gradient_norm"]

Function = Callable[[Tensor], Tensor]
"""A scalar of weights `[P]`, that `torch.func` can differentiate."""

_TINY = 1e-12


@dataclass(frozen=True)
class MetaLoss:
    """A meta-loss.

    Attributes:
        kind: "train", "sam", "gsam" or "gam".
        held_out: taken on examples that inner steps never see.
        radius: of the neighbourhood, in the Euclidean norm of all weights.
        alpha: of gsam: weight of the orthogonal part.
        weight: of gam: of the worst norm of the gradient.

    Raises:
        UserError: a radius or weight that is not positive.
    """

    kind: str = "train"
    held_out: bool = False
    radius: float = 0.05
    alpha: float = 0.4
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("radius", "weight"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} of the meta-loss is {getattr(self, name)}; it must be positive")

    @property
    def name(self) -> str:
        """As flags have it."""
        if self.kind == "train":
            return "held-out" if self.held_out else "train"
        return f"{self.kind}-held-out" if self.held_out else self.kind

    def __call__(self, f: Function, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value, a scalar, and the slope `[P]`, at theta `[P]`."""
        slope, value = grad_and_value(f)(theta)
        if self.kind == "train":
            return value, slope
        if self.kind == "gam":
            worst, upward = worst_gradient_norm(f, theta, self.radius)
            return value + self.weight * worst, slope + self.weight * upward
        steepest = slope / (slope.norm() + _TINY)
        there, worst = grad_and_value(f)(theta + self.radius * steepest)
        if self.kind == "sam":
            return worst, there
        along = (slope @ there) / (there @ there + _TINY) * there
        return worst + self.alpha * (worst - value), there - self.alpha * (slope - along)


def worst_gradient_norm(f: Function, theta: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Return GAM's first-order flatness, `radius` times the largest norm of the gradient within it, and its gradient.

    Args:
        f: the function.
        theta: `[P]`.
        radius: Euclidean.

    Returns:
        A scalar, and its gradient `[P]` at the worst point, to first order in where that lies.
    """

    def norm_and_gradient(at: Tensor) -> tuple[Tensor, Tensor]:
        slope = grad(f)(at)
        norm = slope.norm()
        return norm, hessian_vector_product(f, at, slope / (norm + _TINY))

    _, upward = norm_and_gradient(theta)
    norm, curved = norm_and_gradient(theta + radius * upward / (upward.norm() + _TINY))
    return radius * norm, radius * curved


def hessian_vector_product(f: Function, theta: Tensor, vector: Tensor) -> Tensor:
    """Return the Hessian of a function at theta `[P]` times a vector `[P]`: a backward pass through the gradient."""
    return grad(lambda at: grad(f)(at) @ vector.detach())(theta)


META_LOSSES = ("train", "held-out", *(f"{kind}{end}" for kind in ("sam", "gsam", "gam") for end in ("", "-held-out")))
"""Every meta-loss by its name."""


def meta_loss(name: str, radius: float = 0.05) -> MetaLoss:
    """Return a meta-loss by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in META_LOSSES:
        raise UserError(
            f"no meta-loss is called {name!r}{nearest(name, META_LOSSES)}; there are {', '.join(META_LOSSES)}"
        )
    held_out = name.endswith("held-out")
    return MetaLoss(name.removesuffix("held-out").rstrip("-") or "train", held_out, radius)
