"""A model made by the user's own function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

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
    return model


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
