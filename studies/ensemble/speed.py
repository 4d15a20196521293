"""Networks one after the other, and as one by `torch.func.vmap`: the same steps, and how long they take.

`python -m crossreg.studies.ensemble.speed --device cuda` prints a table.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from crossreg.models import build

__all__ = ["vmapped_against_looped"]

_MEMBERS, _ROWS, _STEPS, _REPEATS = 8, 32, 50, 3
_CLASSES = 10


def vmapped_against_looped(
    model: str = "mlp", shape: tuple[int, ...] = (64,), members: int = _MEMBERS, device: str = "cpu", **options: Any
) -> dict[str, float]:
    """Return how far weights and statistics are apart after the same steps, and how many times as fast vmap is.

    Networks as the product builds them; on a CPU on two threads. The fastest of three times each.

    Args:
        model: their kind.
        shape: of one example.
        members: how many.
        device: where.
        options: of the networks.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(0)
        networks = [build(model, input_shape=shape, num_outputs=_CLASSES, **options) for _ in range(members)]
        networks = [network.to(device) for network in networks]
        x = torch.randn(_STEPS, members, _ROWS, *shape).to(device)
        y = torch.randint(0, _CLASSES, (_STEPS, members * _ROWS)).to(device)
        runs = [(_looped(networks, x, y), _vmapped(networks, x, y)) for _ in range(_REPEATS)]
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
    _wait(x)
    began = time.perf_counter()
    for rows, targets in zip(x, y, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(forward(rows).flatten(0, 1), targets).backward()
        optimizer.step()
    _wait(x)
    return time.perf_counter() - began


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


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


_SCENES: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("mlp", (64,), {}),
    ("mlp", (28 * 28,), {"norm": "layer"}),
    ("cnn", (3, 32, 32), {}),
    ("cnn1d", (6, 100), {}),
    ("transformer", (6, 100), {}),
)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="where: cpu or cuda")
    device = parser.parse_args().device
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}")
    print("| networks | difference | looped, ms a step | vmapped, ms a step | times as fast |\n|---|---|---|---|---|")
    for model, shape, options in _SCENES:
        for members in (4, 8):
            try:
                found = vmapped_against_looped(model, shape, members, device, **options)
            except (RuntimeError, NotImplementedError) as error:
                print(f"| {members} {model} {shape} | {str(error).splitlines()[0]} | | | |")
                continue
            looped, vmapped = (1000 * found[key] / _STEPS for key in ("looped", "vmapped"))
            print(
                f"| {members} {model} {shape} | {found['difference']:.0e} | {looped:.2f} | {vmapped:.2f} "
                f"| {found['ratio']:.2f} |"
            )


if __name__ == "__main__":
    _main()
