"""What several passes of one batch have in common, done once: everything before the noise.

All draws of a rho step are given the same rows with the same weights, so a layer that no draw has reached yet answers
each of them alike: the first layer and its normalization, or a whole pretrained body with noise in its head alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crossreg.core.random import generator_states
from crossreg.regularizers.noise import stochastic
from crossreg.regularizers.temperature import Temperature

__all__ = ["shared_between_passes"]


class _Answer(NamedTuple):
    """What a module answered: both with the versions of their tensors, which change when a tensor does in place."""

    given: tuple[Any, ...]
    versions: tuple[int, ...]
    output: Tensor
    version: int


@contextmanager
def shared_between_passes(model: nn.Module, inputs: Any, rho: Collection[Tensor]) -> Iterator[None]:
    """Let a submodule that is given what it was given in an earlier pass answer what it answered.

    That is so for what depends on the inputs alone: nothing that draws, and nothing after it. Forward hooks run in
    every pass. Where rho is anywhere but in what draws or the temperature, and in models that are compiled or have
    been patched, nothing is shared.

    Args:
        model: in evaluation mode, its weights as they are until the end.
        inputs: what it is going to be given, every time: a tensor, or several in a list, tuple or dictionary.
        rho: what is differentiated by.
    """
    if not (_apart(model, rho) and _plain(model)):
        yield
        return
    passes = _Passes(inputs)
    drawing = stochastic(model)
    hooks = [one.register_forward_pre_hook(passes.drew) for one in drawing]
    others = {model, *drawing}
    modules = [one for one in model.modules() if one not in others]
    for module in modules:
        module.forward = passes.answering(module, module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.forward
        for hook in hooks:
            hook.remove()


class _Passes:
    """Keeps what modules answered to what is the same in every pass."""

    def __init__(self, inputs: Any) -> None:
        values = (
            inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, list | tuple) else [inputs]
        )
        self._draws = 0
        self._common = {id(one): one for one in values if isinstance(one, Tensor)}
        self._answers: list[tuple[nn.Module, _Answer]] = []

    def drew(self, *_: Any) -> None:
        """Note that something draws."""
        self._draws += 1

    def answering(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return a module's forward that answers from what is kept where it can."""

        def answer(*args: Any, **kwargs: Any) -> Any:
            given = (*args, *kwargs.keys(), *kwargs.values())
            tensors = [one for one in given if isinstance(one, Tensor)]
            if not tensors or not all(id(one) in self._common for one in tensors):
                return forward(*args, **kwargs)
            for kept in [kept for of, kept in self._answers if of is module]:
                if _same(kept, given):
                    return kept.output
            draws, before, inner = self._draws, _state(tensors[0]), len(self._answers)
            output = forward(*args, **kwargs)
            drew = self._draws > draws or not torch.equal(_state(tensors[0]), before)
            if not drew and isinstance(output, Tensor):
                # of what it consists of nothing will be asked again
                del self._answers[inner:]
                versions = tuple(one._version for one in tensors)
                self._answers.append((module, _Answer(given, versions, output, output._version)))
                self._common[id(output)] = output
            return output

        return answer


def _same(kept: _Answer, given: tuple[Any, ...]) -> bool:
    """Say whether a module is given what it was given when it answered, and neither has changed since."""
    tensors = [one for one in given if isinstance(one, Tensor)]
    return (
        len(given) == len(kept.given)
        and all(a is b or (not isinstance(a, Tensor) and a == b) for a, b in zip(given, kept.given, strict=True))
        and tuple(one._version for one in tensors) == kept.versions
        and kept.output._version == kept.version
    )


def _state(x: Tensor) -> Tensor:
    return generator_states(x.device)[-1]


def _apart(model: nn.Module, rho: Collection[Tensor]) -> bool:
    """Say whether rho is in what draws, or the temperature, alone."""
    own = {id(p) for one in (*stochastic(model), *_temperatures(model)) for p in one.parameters()}
    return {id(one) for one in rho} <= own


def _temperatures(model: nn.Module) -> list[Temperature]:
    return [one for one in model.modules() if isinstance(one, Temperature)]


def _plain(model: nn.Module) -> bool:
    """Say whether every module runs its class's own `forward`, in Python."""
    compiled = any(isinstance(one, torch.jit.ScriptModule) or hasattr(one, "_orig_mod") for one in model.modules())
    return not compiled and not any("forward" in vars(one) for one in model.modules())
