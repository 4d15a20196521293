"""How good predicted probabilities are: scores, calibration error, temperature scaling.

Every function computes in float64 and without gradients: these are measurements, not losses to train on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from crossreg.core.errors import UserError

__all__ = [
    "TEMPERATURE_PRIOR",
    "TEMPERATURE_RANGE",
    "Reliability",
    "Scores",
    "accuracy",
    "apply_temperature",
    "brier",
    "ece",
    "example_scores",
    "fit_deviation",
    "fit_temperature",
    "log_probabilities",
    "nll",
    "reliability",
    "score",
    "temperature_scaled",
]

TEMPERATURE_RANGE = (0.01, 100.0)
TEMPERATURE_PRIOR = 0.5
"""Standard deviation of log T before any example is seen: beyond 0.37 to 2.7 it takes more than a few to believe it."""
_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Scores of class probabilities; accuracy in 0..1 is better when larger, the others when smaller."""

    accuracy: float
    nll: float
    brier: float
    ece: float

    def as_dict(self) -> dict[str, float]:
        """Return the scores by name, as `crossreg.core.metrics.scores` takes them."""
        return asdict(self)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: the mean confidence and the accuracy of the predictions in each of B bins.

    Attributes:
        confidence: `[B]` float64 in 0..1, NaN in an empty bin.
        accuracy: `[B]` float64 in 0..1, NaN in an empty bin.
        count: `[B]` int64, the number of predictions.
        edges: `[B + 1]` float64, never decreasing; bin b holds edges[b] < confidence <= edges[b + 1], and the
            first bin also its lower edge.
        ece: The expected calibration error over these bins, in 0..1.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor
    edges: Tensor
    ece: float

    def as_dict(self) -> dict[str, Any]:
        """Return the diagram as plain values by name."""
        columns = {name: getattr(self, name).tolist() for name in ("confidence", "accuracy", "count", "edges")}
        return {**columns, "ece": self.ece}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Reliability:
        """Return the diagram that `as_dict` made plain."""
        columns = {name: torch.tensor(plain[name]) for name in ("confidence", "accuracy", "count", "edges")}
        return cls(**columns, ece=plain["ece"])


def score(probabilities: Tensor, targets: Tensor) -> Scores:
    """Return accuracy, NLL, Brier score and ECE (15 bins of equal width).

    Args:
        probabilities: `[N, C]` floating point, rows summing to 1; averaged over samples if there are several.
        targets: `[N]` integers in 0..C-1.

    Raises:
        UserError: Shapes, types or values are not those above.
    """
    p, t = _checked(probabilities, targets)
    diagram = _reliability(p, t, probabilities.dtype, bins=15, adaptive=False)
    return Scores(_accuracy(p, t), _nll(p, t, probabilities.dtype), _brier(p, t), diagram.ece)


def accuracy(probabilities: Tensor, targets: Tensor) -> float:
    """Return the share of examples whose most probable class is the target; a tie goes to the first.

    Arguments and errors are those of `score`.
    """
    return _accuracy(*_checked(probabilities, targets))


def nll(probabilities: Tensor, targets: Tensor) -> float:
    """Return the mean over examples of -log p(target), in nats.

    A probability that underflowed to zero counts as the smallest normal number of its dtype (87 nats in
    float32): one rounding error must not make the mean infinite. Arguments and errors are those of `score`.
    """
    return _nll(*_checked(probabilities, targets), probabilities.dtype)


def brier(probabilities: Tensor, targets: Tensor) -> float:
    """Return the Brier score in 0..2: squared error summed over classes, mean over examples.

    The error is the distance to the one-hot target. For two classes it is twice the one-column score that
    scikit-learn gives by default. Arguments and errors are those of `score`.

    Source:
        Brier 1950, Monthly Weather Review 78(1).
    """
    return _brier(*_checked(probabilities, targets))


def ece(probabilities: Tensor, targets: Tensor, bins: int = _BINS, adaptive: bool = False) -> float:
    """Return the expected calibration error in 0..1.

    It is the mean over examples of |accuracy - confidence| of the bin an example falls in. The value depends
    on the bins: compare only values with the same `bins` and `adaptive`. Arguments, errors and source are
    those of `reliability`.
    """
    return reliability(probabilities, targets, bins, adaptive).ece


def reliability(probabilities: Tensor, targets: Tensor, bins: int = _BINS, adaptive: bool = False) -> Reliability:
    """Return the reliability diagram of the most probable class.

    Args:
        probabilities: `[N, C]` floating point, rows summing to 1.
        targets: `[N]` integers in 0..C-1.
        bins: Number of bins, at least 1.
        adaptive: Bins of equal mass (sizes differ by one at most, but equal confidences share a bin) in place
            of bins of equal width on 0..1.

    Returns:
        The diagram, on the CPU.

    Raises:
        UserError: Shapes, types or values are not those above.

    Source:
        Naeini et al. 2015, AAAI; Guo et al. 2017, arXiv:1706.04599, eq. 3 (bins closed on the right). Equal
        mass: Nguyen & O'Connor 2015, arXiv:1508.05154, sec. 3.
    """
    if not isinstance(bins, int) or isinstance(bins, bool) or bins < 1:
        raise UserError(f"bins must be a positive integer, not {bins!r}")
    p, t = _checked(probabilities, targets)
    return _reliability(p, t, probabilities.dtype, bins, adaptive)


def example_scores(probabilities: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return each example's part in every score, float64 `[N]` on the CPU: their means are the scores.

    An example's part in the ECE is its confidence less its correctness, or the opposite, as its bin is over- or
    underconfident. Arguments and errors are those of `score`.
    """
    p, t = _checked(probabilities, targets)
    target = p.gather(1, t[:, None])
    confidence, predicted = p.max(dim=1)
    correct = (predicted == t).double()
    gap = (correct - confidence).cpu()
    index = torch.bucketize(confidence.cpu(), _edges(probabilities.dtype, _BINS)[1:-1])
    sign = torch.bincount(index, weights=gap, minlength=_BINS).sign()
    return {
        "accuracy": correct.cpu(),
        "nll": -target[:, 0].clamp(min=torch.finfo(probabilities.dtype).tiny).log().cpu(),
        "brier": (p.square().sum(dim=1) - target.square()[:, 0] + (1 - target[:, 0]).square()).cpu(),
        "ece": sign[index] * gap,
    }


def fit_temperature(logits: Tensor, targets: Tensor, prior: float | None = None) -> float:
    """Return the temperature T that minimizes the NLL of softmax(logits / T).

    The NLL is convex in 1 / T, so this is the only minimum: Newton's method on the slope in log(1 / T),
    halving a bracket where a Newton step would leave it. Where the NLL keeps falling up to an end of
    `TEMPERATURE_RANGE` (0.01 to 100), as towards 0 when every target already has the largest logit, that end
    is returned; 1.0 where T makes no difference.

    Args:
        logits: `[N, C]` floating point, or log-probabilities, such as those of a mean over samples; -inf
            counts as the log of the dtype's smallest normal number below the row's largest.
        targets: `[N]` integers in 0..C-1. Examples neither trained on nor used for the final score.
        prior: Standard deviation of log T around 0 before any example is seen; None knows nothing, and where few
            examples are all right T then falls to its end.

    Raises:
        UserError: Shapes, types or values are not those above.

    Source:
        Guo et al. 2017, arXiv:1706.04599, sec. 4.2; with a prior the mode of the posterior.
    """
    _check_table(logits, targets)
    z = _double(logits)
    if bool(((z.isnan() | (z == math.inf)).any(dim=1) | (z == -math.inf).all(dim=1)).any()):
        raise UserError("logits hold NaN, +inf or a row of only -inf; check the model's outputs")
    z = z - z.amax(dim=1, keepdim=True)
    z = torch.where(z == -math.inf, math.log(torch.finfo(logits.dtype).tiny), z)
    z_target = z.gather(1, _labels(targets, z)[:, None]).mean()
    pull = 0.0 if prior is None else 1 / (len(z) * prior**2)  # of the prior, beside a mean over the examples

    def slope(u: float) -> tuple[float, float]:
        """Return d NLL / d beta and its derivative by u, where u = log(beta) and beta = 1 / T."""
        p = torch.softmax(z * math.exp(u), dim=1)
        mean = (p * z).sum(dim=1, keepdim=True)
        variance = (p * (z - mean).square()).sum(dim=1).mean()
        towards_one = pull * math.exp(-u)
        value = float(mean.mean() - z_target) + u * towards_one
        return value, math.exp(u) * float(variance) + (1 - u) * towards_one

    smallest, largest = TEMPERATURE_RANGE
    u, low, high = 0.0, -math.log(largest), -math.log(smallest)
    if slope(u)[0] == 0:
        return 1.0
    # the ends are looked at first: near them the slope can round to zero, which would pass for a minimum
    if slope(high)[0] <= 0:
        return smallest
    if slope(low)[0] >= 0:
        return largest
    for _ in range(100):
        value, derivative = slope(u)
        low, high = (low, u) if value > 0 else (u, high)
        step = u - value / derivative if derivative > 0 else math.nan
        new = step if low < step < high else (low + high) / 2
        if abs(new - u) < 1e-12:
            break
        u = new
    return math.exp(-u)


def fit_deviation(rmse: float, count: int, prior: float) -> float:
    """Return the standard deviation of an observation, given errors and how large it is likely to be.

    The mode of the posterior of log s, where errors are normal with deviation s and log s is, before any is seen, with
    deviation `prior` around 0: of few errors that happen to be small it is not believed that all will be.

    Args:
        rmse: root mean square of the errors, in units of which 1 is likely.
        count: of the errors, at least 1.
        prior: positive.
    """
    low, high = -20.0, 20.0  # of u = log s; the slope grows with u
    for _ in range(100):
        u = (low + high) / 2
        slope = count * (1 - rmse**2 * math.exp(-2 * u)) + u / prior**2
        low, high = (low, u) if slope > 0 else (u, high)
    return math.exp((low + high) / 2)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / temperature) over the last dimension.

    Args:
        logits: `[..., C]` floating point, or log-probabilities, which are normalized again.
        temperature: A positive number; above 1 it lowers the confidence. The most probable class stays the
            same.

    Returns:
        Probabilities with the shape, dtype and device of the logits.

    Raises:
        UserError: The temperature is not a positive number.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise UserError(f"temperature must be a positive number, not {temperature}")
    return torch.softmax(_double(logits) / temperature, dim=-1).to(logits)


def temperature_scaled(
    probabilities: Tensor, targets: Tensor, held_out: Tensor, held_out_targets: Tensor
) -> tuple[Scores, float]:
    """Fit a temperature on held-out predictions, and return it with the scores of others that it was applied to.

    Args:
        probabilities: `[N, C]`, of the examples to score; averaged over draws where there are any.
        targets: `[N]` class indices.
        held_out: `[M, C]`, of the examples to fit the temperature on.
        held_out_targets: `[M]`.
    """
    temperature = fit_temperature(log_probabilities(held_out), held_out_targets, TEMPERATURE_PRIOR)
    return score(apply_temperature(log_probabilities(probabilities), temperature), targets), temperature


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return logarithms of probabilities, where one that underflowed to 0 counts as the dtype's smallest normal number.

    Temperatures are fitted to these and applied to them.
    """
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def _accuracy(p: Tensor, t: Tensor) -> float:
    return float((p.argmax(dim=1) == t).double().mean())


def _nll(p: Tensor, t: Tensor, dtype: torch.dtype) -> float:
    return -float(p.gather(1, t[:, None]).clamp(min=torch.finfo(dtype).tiny).log().mean())


def _brier(p: Tensor, t: Tensor) -> float:
    target = p.gather(1, t[:, None])
    return float((p.square().sum(dim=1) - target.square()[:, 0] + (1 - target[:, 0]).square()).mean())


def _reliability(p: Tensor, t: Tensor, dtype: torch.dtype, bins: int, adaptive: bool) -> Reliability:
    confidence, predicted = p.max(dim=1)
    # on the CPU, where summing into bins gives the same bits every time
    confidence, correct = confidence.cpu(), (predicted == t).double().cpu()
    if adaptive:
        ordered = confidence.sort().values
        last = (torch.arange(bins + 1) * len(ordered) + bins - 1) // bins - 1
        edges = ordered[last.clamp(min=0)]
    else:
        edges = _edges(dtype, bins)
    # the inner edges alone: a confidence of exactly 0 or 1, or 1 + rounding, falls in the first or last bin
    index = torch.bucketize(confidence, edges[1:-1])
    count = torch.bincount(index, minlength=bins)
    confidence = torch.bincount(index, weights=confidence, minlength=bins) / count
    accuracy = torch.bincount(index, weights=correct, minlength=bins) / count
    error = float(((accuracy - confidence).abs().nan_to_num() * count).sum() / len(index))
    return Reliability(confidence, accuracy, count, edges, error)


def _edges(dtype: torch.dtype, bins: int) -> Tensor:
    # rounded as the confidences were, so that 0.2 in float32 lies on the edge 0.2 and not above it
    return (torch.arange(bins + 1, dtype=torch.float64) / bins).to(dtype).double()


def _checked(probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the float64 probabilities and int64 targets on one device, or refuse them."""
    _check_table(probabilities, targets)
    p = _double(probabilities)
    low, high = float(p.min()), float(p.max())  # NaN if any value is
    # half precision gets a row's sum right to a percent, single precision to far below a thousandth
    tolerance = 1e-3 if torch.finfo(probabilities.dtype).bits >= 32 else 1e-2
    if math.isnan(low) or low < 0 or high > 1 + tolerance:
        raise UserError(
            f"probabilities must lie in 0..1; the smallest is {low:g}, the largest {high:g}. Are they logits?"
        )
    sums = p.sum(dim=1)
    worst = int((sums - 1).abs().argmax())
    if abs(float(sums[worst]) - 1) > tolerance:
        raise UserError(f"every row of probabilities must sum to 1; row {worst} sums to {float(sums[worst]):g}")
    return p, _labels(targets, p)


def _check_table(values: Tensor, targets: Tensor) -> None:
    given = f"given are {tuple(values.shape)} {values.dtype} and {tuple(targets.shape)} {targets.dtype}"
    if values.dim() != 2 or values.shape[:1] != targets.shape or values.shape[0] == 0 or values.shape[1] < 2:
        raise UserError(
            f"scores take values [N, C] and targets [N] with N >= 1 examples and C >= 2 classes; {given}. "
            "For one probability p of two classes give the columns 1 - p and p"
        )
    if not values.is_floating_point() or targets.is_floating_point() or targets.is_complex():
        raise UserError(f"scores take floating-point values and integer targets; {given}")


def _labels(targets: Tensor, values: Tensor) -> Tensor:
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= values.shape[1]:
        raise UserError(
            f"targets must lie in 0..{values.shape[1] - 1}, one of the {values.shape[1]} classes; "
            f"they span {low}..{high}"
        )
    return targets.detach().to(values.device, torch.int64)


def _double(values: Tensor) -> Tensor:
    # Apple's GPUs have no float64
    device = torch.device("cpu") if values.device.type == "mps" else values.device
    return values.detach().to(device, torch.float64)
