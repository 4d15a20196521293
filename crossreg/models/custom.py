"""A model made by the user's own function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from crossreg.core.calling import main_output
from crossreg.core.errors import UserError
from crossreg.core.imports import import_function

__all__ = ["build", "takes"]

EXPECTED = "function(input_shape=..., num_outputs=..., **options) returning a torch.nn.Module"


def build(name: str, input_shape: tuple[int, ...], num_outputs: int, options: dict[str, Any]) -> nn.Module:
    """Import `package.module:function` (see `crossreg.core.imports`), and call it.

    Args:
        name: `package.module:function`; a class of module works too.
        input_shape: Shape of one example.
        num_outputs: Width of the last layer.
        options: Further keyword arguments of the function.

    Raises:
        UserError: It cannot be imported, does not take these arguments, fails, or returns something else; the
            exception behind it is chained.
    """
    function = _load(name)
    arguments = {"input_shape": input_shape, "num_outputs": num_outputs, **options}
    _check_signature(name, function, arguments)
    try:
        model = function(**arguments)
    except UserError:
        raise
    except Exception as error:  # the user's code may raise anything
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UserError(f"model {name!r} failed when called with {given}: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"model {name!r} returned {type(model).__name__}; expected {EXPECTED}")
    _check_weights(name, model)
    if not model.training:  # modules of a model that trains may be in evaluation mode, and stay there
        model.train()
    model.register_forward_hook(_only_main_output)
    return model


def _check_weights(name: str, model: nn.Module) -> None:
    lazy = [one for one, weight in model.named_parameters() if nn.parameter.is_lazy(weight)]
    if lazy:
        raise UserError(
            f"model {name!r} has weights of unknown size ({', '.join(lazy[:5])}{', ...' if len(lazy) > 5 else ''}); in "
            "your function, call it with torch.zeros(2, *input_shape) once before you return it, or use modules that "
            "are not lazy"
        )
    count = sum(1 for _ in model.parameters())
    if count and not any(weight.requires_grad for weight in model.parameters()):
        raise UserError(
            f"all {count} weights of model {name!r} are frozen (requires_grad is False), so nothing would be trained; "
            "leave at least its last layer free"
        )


def _only_main_output(model: nn.Module, args: Any, output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        model.returns = type(output).__name__  # type: ignore[assignment]  # for whoever wants to say so
    return main_output(output)


def takes(name: str, option: str) -> bool:
    """Say whether a function has a parameter of this name.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return option in inspect.signature(_load(name)).parameters
    except (TypeError, ValueError):  # some compiled functions have none to look at
        return False


def _load(name: str) -> Callable[..., Any]:
    return import_function(name, "model", EXPECTED)


def _check_signature(name: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some compiled functions have none to look at
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(arguments)
        raise UserError(
            f"model {name!r} has the signature {signature} and cannot be called with {given}: {error}; "
            f"expected {EXPECTED}"
        ) from error
