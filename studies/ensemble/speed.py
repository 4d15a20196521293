"""Networks one after the other, and as one by `torch.func.vmap`: the same steps, and how long they take."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from crossreg.models import build

__all__ = ["vmapped_against_looped"]

_MEMBERS, _ROWS, _STEPS, _REPEATS = 8, 32, 50, 3
_FEATURES, _CLASSES = 64, 10


def vmapped_against_looped() -> dict[str, float]:
    """Return how far weights and statistics are apart after the same steps, and how many times as fast vmap is.

    Eight `mlp`s as the product builds them, on two threads; the fastest of three times each.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(0)
        members = [build("mlp", input_shape=(_FEATURES,), num_outputs=_CLASSES) for _ in range(_MEMBERS)]
        x = torch.randn(_STEPS, _MEMBERS, _ROWS, _FEATURES)
        y = torch.randint(0, _CLASSES, (_STEPS, _MEMBERS * _ROWS))
        runs = [(_looped(members, x, y), _vmapped(members, x, y)) for _ in range(_REPEATS)]
    finally:
        torch.set_num_threads(threads)
    looped, vmapped = (min(seconds for seconds, _ in some) for some in zip(*runs, strict=True))
    one, other = (state for _, state in runs[0])
    numbers = [name for name, value in one.items() if value.is_floating_point()]
    apart = max(float((one[name] - other[name]).abs().max()) for name in numbers)
    return {"difference": apart, "ratio": looped / vmapped, "looped": looped, "vmapped": vmapped}


def _steps(forward: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], x: Tensor, y: Tensor) -> float:
    # plain steps: Adam divides by gradients near zero, which makes rounding as large as a step
    optimizer = torch.optim.SGD(parameters, lr=1e-2, momentum=0.9)
    began = time.perf_counter()
    for rows, targets in zip(x, y, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(forward(rows).flatten(0, 1), targets).backward()
        optimizer.step()
    return time.perf_counter() - began


def _looped(members: list[nn.Module], x: Tensor, y: Tensor) -> tuple[float, dict[str, Tensor]]:
    own = copy.deepcopy(members)
    parameters = [one for member in own for one in member.parameters()]

    def forward(rows: Tensor) -> Tensor:
        return torch.stack([member(part) for member, part in zip(own, rows, strict=True)])

    seconds = _steps(forward, parameters, x, y)
    states = [member.state_dict() for member in own]
    return seconds, {name: torch.stack([state[name] for state in states]) for name in states[0]}


def _vmapped(members: list[nn.Module], x: Tensor, y: Tensor) -> tuple[float, dict[str, Tensor]]:
    parameters, buffers = stack_module_state(copy.deepcopy(members))
    base = copy.deepcopy(members[0])
    each = vmap(lambda p, b, rows: functional_call(base, (p, b), (rows,)), randomness="different")
    seconds = _steps(lambda rows: each(parameters, buffers, rows), list(parameters.values()), x, y)
    return seconds, {name: one.detach() for name, one in {**parameters, **buffers}.items()}
