"""How a model is called with a batch, and which of its outputs is the prediction."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from crossreg.core.errors import UserError

__all__ = ["Arguments", "arguments", "call", "inputs_and_target", "main_output"]

_TARGETS = ("labels", "label", "targets", "target", "y")
_OUTPUTS = ("logits", "out")  # of transformers; of torchvision's segmentation


class Arguments(tuple[Any, ...]):
    """Inputs of a batch `(x, mask, y)`: what a model is called with, by position."""

    __slots__ = ()


def inputs_and_target(batch: Any) -> tuple[Any, Tensor]:
    """Return the inputs and the target of a batch.

    Args:
        batch: `(inputs, target)`; `(x, mask, ..., target)`, whose inputs are arguments of the model; or a dictionary
            that holds the target as "labels", "label", "targets", "target" or "y", the rest being arguments by name.

    Raises:
        UserError: it is none of these.
    """
    inputs: Any
    if isinstance(batch, Mapping):
        named = [key for key in _TARGETS if key in batch]
        if len(named) != 1:
            raise UserError(
                f"a batch has the keys {', '.join(map(str, batch))}, {'several' if named else 'none'} of which may be "
                f"the target; call it one of {', '.join(_TARGETS)}, or give batches (inputs, target)"
            )
        inputs, target = {key: value for key, value in batch.items() if key != named[0]}, batch[named[0]]
    elif isinstance(batch, list | tuple) and len(batch) > 1:
        *first, target = batch
        inputs = first[0] if len(first) == 1 else Arguments(first)
    else:
        size = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
        raise UserError(
            f"a batch is a {type(batch).__name__}{size}; it must be (inputs, target), (x, mask, target) or a "
            "dictionary with the target in it"
        )
    if not isinstance(target, Tensor):
        raise UserError(f"the target of a batch is a {type(target).__name__}; it must be a tensor")
    return inputs, target


def call(model: nn.Module, inputs: Any) -> Any:
    """Return the model's output for the inputs of a batch, however they come; see `arguments`."""
    args, kwargs = arguments(model, inputs)
    return model(*args, **kwargs)


def arguments(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a model is called with, by position and by name, for the inputs of a batch.

    A dictionary goes in by name where `forward` has parameters of these names, a tuple by position where `forward`
    takes no single argument; `Arguments` always do; all else is one argument.
    """
    if isinstance(inputs, Arguments):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping) and all(isinstance(key, str) for key in inputs) and _binds(model, **inputs):
        return (), dict(inputs)
    if isinstance(inputs, list | tuple) and not _binds(model, inputs) and _binds(model, *inputs):
        return tuple(inputs), {}
    return (inputs,), {}


def _binds(model: nn.Module, *args: Any, **kwargs: Any) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def main_output(output: Any) -> Tensor:
    """Return the prediction among a model's outputs.

    That is the output itself; "logits" or "out" of a dictionary or an object of named outputs; the first of a tuple.
    What a model returns beside it, such as auxiliary classifiers, plays no part.

    Raises:
        UserError: there is no such tensor.
    """
    if isinstance(output, Tensor):
        return output
    found: Any = None
    for name in _OUTPUTS:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if found is not None:
            break
    if found is None and isinstance(output, list | tuple) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        keys = f" with the keys {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise UserError(
            f"the model returns a {type(output).__name__}{keys}; it must return a tensor, a tuple whose first element "
            f"is one, or a dictionary or object with {' or '.join(map(repr, _OUTPUTS))}"
        )
    return found
