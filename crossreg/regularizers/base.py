"""What a hyperparameter is, and what a regularizer is; the one place that converts between rho and natural units.

`rho` is the unconstrained tensor that an optimizer moves, the *value* the number that it stands for:

    scale "log"      value = exp(rho)               a step of the optimizer is a step in relative size
    scale "logit"    value = 1 / (1 + exp(-rho))    a share between 0 and 1
    scale "linear"   value = rho

On the logarithmic scale a noise scale stays positive, crosses 0.01 to 10 in as many steps as it takes to come back, and
does not bounce around zero. The comparison that decided it is in `docs/method/noise.md`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError, nearest, quoted
from crossreg.core.modules import unwrap

__all__ = [
    "Hyperparameter",
    "Regularizer",
    "RhoModule",
    "Scale",
    "part_name",
    "read_all",
    "rho_from_sigma",
    "rho_hyperparameters",
    "rho_parameters",
    "sigma_from_rho",
]

Scale = Literal["log", "linear", "logit"]

# exp(rho) stays finite in float32 however far an optimizer is pushed
_RHO_LIMIT = 16.0
# what may be set, by scale: within the limit of rho
_BOUNDS: dict[Scale, tuple[float, float]] = {
    "log": (1e-7, 1e7),
    "linear": (-math.inf, math.inf),
    "logit": (1e-7, 1 - 1e-7),
}


def part_name(index: int, layer: str) -> str:
    """Return the part of a hyperparameter's name that says which layer: `00_norm1`.

    It is numbered, since names sort alphabetically where they are shown, and is made of what names of metrics may hold
    in MLflow (letters, digits, `_`, `-`, `.`, space and colon) and of at most 200 characters: two layers may then be
    called alike but for the number.
    """
    kept = re.sub(r"[^\w\-. :]|\.(?=\.)", "_", layer)
    return f"{index:02d}_{kept if len(kept) <= 200 else f'{kept[:98]}-{kept[-98:]}'}"


def sigma_from_rho(rho: Tensor) -> Tensor:
    """Return the positive scale exp(rho), of the same shape; rho is limited to +-16 (sigma 1e-7 to 9e6)."""
    return rho.clamp(-_RHO_LIMIT, _RHO_LIMIT).exp()


def rho_from_sigma(sigma: float | Tensor) -> Tensor:
    """Return the logarithm of a positive scale; the inverse of `sigma_from_rho` within its limits."""
    return torch.as_tensor(sigma, dtype=torch.get_default_dtype()).log().clamp(-_RHO_LIMIT, _RHO_LIMIT)


@dataclass(frozen=True, eq=False)
class Hyperparameter:
    """A number that regularizes a training: what it is and, in a live training, where it is.

    It has one name everywhere: in flags, configuration files, search spaces, schedules, reports and, below
    `regularizers/`, among MLflow's metrics. One that has a value a layer or a weight is a hyperparameter for each, with
    the part behind a slash: `noise/00_norm1`.

    Attributes:
        name: see above.
        help: one line.
        unit: of the value.
        default: where it starts, or stays, if nothing is said; None leaves it what the model makes it.
        range: what a search looks through.
        scale: on which a search looks and an optimizer moves it.
        direct: whether the held-out loss depends on it with theta held fixed; if not, only an estimator that follows
            theta's response can learn it.
        learned_by_rho: whether there is a rho; one without is set, and never learned.
        bounds: values that may be set; by default all that the scale has.
        rho: the parameter of a live training that holds it; shared by the parts of one regularizer where it is one
            tensor.
    """

    name: str
    help: str
    unit: str
    default: float | None
    range: tuple[float, float]
    scale: Scale = "log"
    direct: bool = False
    learned_by_rho: bool = True
    bounds: tuple[float, float] | None = None
    rho: nn.Parameter | None = field(default=None, repr=False)
    _read: Callable[[], Tensor | float] | None = field(default=None, repr=False)
    _write: Callable[[float], None] | None = field(default=None, repr=False)

    @property
    def base(self) -> str:
        """The name without its part: that of the regularizer."""
        return self.name.partition("/")[0]

    @property
    def value(self) -> float:
        """The value in use, in natural units; the mean where it holds several (a sigma a unit)."""
        return float(self.read())

    def read(self) -> Tensor | float:
        """Return the value in use without waiting for its device: a scalar tensor, detached, or a number.

        Raises:
            RuntimeError: it is the description, of no live training.
        """
        if self._read is None:
            raise RuntimeError(f"{self.name} is not of a live training; see `crossreg.regularizers.hyperparameters`")
        return self._read()

    def set(self, value: float) -> None:
        """Set it, in place; a rho that an optimizer holds goes on from there.

        Raises:
            UserError: a value out of bounds.
            RuntimeError: it is the description, of no live training.
        """
        self.check(value)
        if self._write is None:
            raise RuntimeError(f"{self.name} is not of a live training; see `crossreg.regularizers.hyperparameters`")
        self._write(float(value))

    def check(self, value: float) -> None:
        """Refuse a value that cannot be set.

        Raises:
            UserError: names it and the bounds.
        """
        low, high = self.bounds or _BOUNDS[self.scale]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UserError(f"{self.name} is {value!r}; it must lie in {low:g}..{high:g} ({self.unit})")

    def natural(self, rho: Tensor) -> Tensor:
        """Return values for rho, of the same shape; differentiable."""
        if self.scale == "log":
            return sigma_from_rho(rho)
        return rho.clamp(-_RHO_LIMIT, _RHO_LIMIT).sigmoid() if self.scale == "logit" else rho

    def unconstrained(self, value: float | Tensor) -> Tensor:
        """Return rho for values, the inverse of `natural` within its limits."""
        tensor = torch.as_tensor(value, dtype=torch.get_default_dtype())
        if self.scale == "linear":
            return tensor
        odds = tensor if self.scale == "log" else tensor / (1 - tensor)
        return odds.log().clamp(-_RHO_LIMIT, _RHO_LIMIT)

    def at(self, position: float) -> float:
        """Return the value at a position in 0..1 of the range, on the scale; a uniform position is a fair draw."""
        low, high = (float(self.unconstrained(torch.tensor(end, dtype=torch.float64))) for end in self.range)
        rho = torch.tensor(low + position * (high - low), dtype=torch.float64)
        return min(max(float(self.natural(rho)), self.range[0]), self.range[1])

    def position(self, value: float) -> float:
        """Return where in 0..1 of the range a value lies; the inverse of `at` within the range."""
        low, high, rho = (float(self.unconstrained(torch.tensor(x, dtype=torch.float64))) for x in (*self.range, value))
        return min(max((rho - low) / (high - low), 0.0), 1.0)

    def perturbed(self, value: float, factor: float) -> float:
        """Return the value times a factor (its odds times a factor, where it is a share), within the range."""
        if self.scale == "logit":
            odds = factor * value / (1 - value)
            value = odds / (1 + odds)
        else:
            value = factor * value
        return min(max(value, self.range[0]), self.range[1])

    def of_rho(self, rho: nn.Parameter, part: str | None = None, index: int | None = None) -> Hyperparameter:
        """Return the one of a live training that rho holds.

        Args:
            rho: of any shape; it is read as the mean of its values and set as a whole.
            part: behind the slash of its name.
            index: of the one element of rho that is meant.
        """

        def read() -> Tensor:
            return self.natural(rho.detach() if index is None else rho.detach()[index]).mean()

        def write(value: float) -> None:
            with torch.no_grad():
                (rho if index is None else rho[index]).fill_(float(self.unconstrained(value)))

        return self.live(read, write, part, rho)

    def live(
        self,
        read: Callable[[], Tensor | float],
        write: Callable[[float], None],
        part: str | None = None,
        rho: nn.Parameter | None = None,
    ) -> Hyperparameter:
        """Return the one of a live training that is read and set so."""
        name = f"{self.name}/{part}" if part else self.name
        return replace(self, name=name, rho=rho, _read=read, _write=write)


class RhoModule(nn.Module):
    """A module whose own parameters are regularization parameters: learned on held-out data, never by theta.

    Attributes:
        direct: whether the held-out loss depends on them with theta fixed; if not, only an estimator that follows
            theta's response can learn them.
    """

    direct = True

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return what its parameters stand for; by default a positive number each, under the name of the class."""
        name = type(self).__name__.lower()
        plain = Hyperparameter(name, f"rho of {type(self).__name__}", "its own", None, (1e-6, 1e3), direct=self.direct)
        return [plain.of_rho(rho) for rho in self.parameters(recurse=False)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # weights saved before the model was given this load strictly: a missing rho keeps its present value
        for name, rho in self.named_parameters(recurse=False):
            state_dict.setdefault(prefix + name, rho.detach())
        super()._load_from_state_dict(state_dict, prefix, *args)


def _strings(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


@dataclass(frozen=True, eq=False)
class Regularizer:
    """A way to regularize that can be asked for by name; see `crossreg.regularizers.registry`.

    Attributes:
        hyperparameter: its description; its name is the regularizer's.
        attach: `attach(model, value, **options)` gives a model the regularizer, in place; a value of None is the
            default.
        remove: takes it out of a model again, in place.
        options: arguments of `attach` beside the value, with what they may be: a `Literal`, or `Where`.
        exported: it stays in a model that is exported, because predictions need it.
        find: lists the hyperparameter of a live model and optimizer, where no `RhoModule` does.
        changes_images: it is for images, and alters them.
        default_with: the default with some options, where they decide it.
    """

    hyperparameter: Hyperparameter
    attach: Callable[..., object]
    remove: Callable[[nn.Module], object]
    options: Mapping[str, Any] = field(default_factory=dict)
    exported: bool = False
    find: Callable[[nn.Module, torch.optim.Optimizer | None], list[Hyperparameter]] | None = None
    changes_images: bool = False
    default_with: Callable[[Mapping[str, Any]], float | None] | None = None

    @property
    def name(self) -> str:
        """As it is asked for."""
        return self.hyperparameter.name

    def check_options(self, given: Mapping[str, Any]) -> None:
        """Refuse an option that it does not have, or a value that this one may not be.

        Raises:
            UserError: with the option and what is allowed.
        """
        for option, value in given.items():
            if option not in self.options:
                allowed = f"its options are {', '.join(self.options)}" if self.options else "it has no options"
                raise UserError(f"{self.name} has no option {quoted(option)}{nearest(option, self.options)}; {allowed}")
            choices = get_args(self.options[option])
            if get_origin(self.options[option]) is not Literal:
                if not (isinstance(value, str) or callable(value) or _strings(value)):
                    raise UserError(f"{self.name}.{option} is {quoted(value)}; it is a pattern of names, or several")
            elif value not in choices:
                raise UserError(f"{self.name}.{option} is {quoted(value)}; it is one of {', '.join(choices)}")

    def default(self, options: Mapping[str, Any]) -> float | None:
        """Return where it starts, or stays, if nothing is said; None leaves it what the model makes it."""
        return self.default_with(options) if self.default_with else self.hyperparameter.default


def rho_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every regularization parameter, learned or not, by its name in `model.named_parameters()`."""
    return {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, module in unwrap(model).named_modules()
        if isinstance(module, RhoModule)
        for name, parameter in module.named_parameters(recurse=False)
    }


def rho_hyperparameters(model: nn.Module) -> dict[str, Hyperparameter]:
    """Return the hyperparameters of a model that have a rho, by name; of equal names the next is `l2_1`."""
    found: dict[str, Hyperparameter] = {}
    for module in unwrap(model).modules():
        for one in module.hyperparameters() if isinstance(module, RhoModule) else ():
            name, count = one.name, 0
            while name in found:
                count += 1
                name = f"{one.name}_{count}"
            found[name] = one if name == one.name else replace(one, name=name)
    return found


def read_all(hyperparameters: Mapping[str, Hyperparameter] | Iterable[Hyperparameter]) -> dict[str, float]:
    """Return values by name, with one transfer from the device instead of one each."""
    ones = list(hyperparameters.values() if isinstance(hyperparameters, Mapping) else hyperparameters)
    said = [one.read() for one in ones]
    tensors = [value.double() for value in said if isinstance(value, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return {
        one.name: next(numbers) if isinstance(value, Tensor) else float(value)
        for one, value in zip(ones, said, strict=True)
    }
