"""Members of a population as actors would train them, one after another, or all at once by `torch.func.vmap`.

Each member has a learning rate, a weight decay and a noise scale of its own, as in population-based training, and sees
the same rows. Actors are reckoned at their best: each of the two cores trains half of the members, without a start or a
message. As one, the members' weights are stacked and AdamW's steps are taken with a rate a member, on both cores. First
it is checked that both come to the same weights (in float64, noise off, which they draw differently). Times are taken
with noise, which is drawn number by number under `vmap` where actors have a bank of them, and without.

    python -m benchmarks.population
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from crossreg import inject_noise
from crossreg.models import build

MEMBERS, ROWS, STEPS = 8, 128, 20
SCENES: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("mlp", (64,), {"hidden": 64}),
    ("mlp", (784,), {}),
    ("cnn", (3, 16, 16), {"width": 16}),
)
_BETAS, _EPS = (0.9, 0.999), 1e-8


def members(
    model: str, shape: tuple[int, ...], options: dict[str, Any], sigma: float | None, dtype: torch.dtype
) -> list[nn.Module]:
    """Return networks with different weights, and noise unless sigma is None."""
    torch.manual_seed(0)
    found = [build(model, input_shape=shape, num_outputs=10, **options).to(dtype) for _ in range(MEMBERS)]
    if sigma is not None:
        for index, one in enumerate(found):
            inject_noise(one, initial_sigma=sigma * (1 + index), temperature=False)
    return found


def rates() -> tuple[Tensor, Tensor]:
    """Return a learning rate and a weight decay for each member."""
    return torch.logspace(-4, -2, MEMBERS), torch.logspace(-3, -1, MEMBERS)


def one_after_another(own: Sequence[nn.Module], x: Tensor, y: Tensor) -> None:
    """Take the steps of every member in place, with an AdamW of its own."""
    for member, lr, decay in zip(own, *rates(), strict=True):
        weights = [p for p in member.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=float(lr), weight_decay=float(decay))
        for rows, targets in zip(x, y, strict=True):
            F.cross_entropy(member(rows), targets).backward()
            optimizer.step()
            optimizer.zero_grad()


def as_one(own: Sequence[nn.Module], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the members' weights, stacked, after the same steps taken together."""
    base = copy.deepcopy(own[0]).train()
    stacked, buffers = stack_module_state(list(own))
    rho = {name: value for name, value in stacked.items() if name.endswith("rho")}
    theta = {name: value.detach().clone() for name, value in stacked.items() if name not in rho}
    first, second = ({name: torch.zeros_like(value) for name, value in theta.items()} for _ in range(2))

    def loss(weights: dict[str, Tensor], fixed: dict[str, Tensor], rows: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, (weights, fixed), (rows,)), targets)

    gradient = vmap(grad(loss), in_dims=(0, 0, None, None), randomness="different")
    for step, (rows, targets) in enumerate(zip(x, y, strict=True), start=1):
        found = gradient(theta, buffers | {name: one.detach() for name, one in rho.items()}, rows, targets)
        for name, value in theta.items():
            lr, decay = (one.to(value).view(-1, *[1] * (value.ndim - 1)) for one in rates())
            value.mul_(1 - lr * decay)
            first[name].lerp_(found[name], 1 - _BETAS[0])
            second[name].mul_(_BETAS[1]).addcmul_(found[name], found[name], value=1 - _BETAS[1])
            scale = (second[name] / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPS)
            value.sub_(lr / (1 - _BETAS[0] ** step) * first[name] / scale)
    return theta


def difference(model: str, shape: tuple[int, ...], options: dict[str, Any]) -> float:
    """Return the largest relative difference of a member's weights by the two ways, in float64 without noise."""
    own = members(model, shape, options, None, torch.float64)
    x, y = torch.randn(5, ROWS, *shape, dtype=torch.float64), torch.randint(0, 10, (5, ROWS))
    together = as_one(copy.deepcopy(own), x, y)
    one_after_another(own, x, y)
    apart = {name: torch.stack([dict(one.named_parameters())[name] for one in own]) for name in together}
    return max(
        float((apart[name].detach() - value).abs().max() / value.abs().max()) for name, value in together.items()
    )


def measure(
    model: str, shape: tuple[int, ...], options: dict[str, Any], sigma: float | None, rounds: int = 3
) -> dict[str, float]:
    """Return seconds for a step of all members: on two actors, and as one.

    Args:
        model: network.
        shape: of an example.
        options: of the network.
        sigma: smallest standard deviation of the noise; None for no noise.
        rounds: of both in turn; the fastest counts.
    """
    own = members(model, shape, options, sigma, torch.float32)
    x, y = torch.randn(STEPS, ROWS, *shape), torch.randint(0, 10, (STEPS, ROWS))
    times: dict[str, list[float]] = {"actors": [], "as one": []}
    for _ in range(rounds):
        torch.set_num_threads(1)
        began = time.perf_counter()
        one_after_another(copy.deepcopy(own), x, y)
        times["actors"].append((time.perf_counter() - began) / STEPS / 2)
        torch.set_num_threads(2)
        began = time.perf_counter()
        as_one(copy.deepcopy(own), x, y)
        times["as one"].append((time.perf_counter() - began) / STEPS)
        torch.set_num_threads(1)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{MEMBERS} members, batch {ROWS}\n")
    print("| network | difference | noise | two actors, ms a step | as one, ms | times as fast as one |")
    print("|---|---|---|---|---|---|")
    for scene in SCENES:
        apart = difference(*scene)
        for sigma in (0.05, None):
            found = measure(*scene, sigma)
            actors, one = (1e3 * found[name] for name in ("actors", "as one"))
            print(f"| {scene[0]} {scene[1]} {scene[2] or ''} | {apart:.0e} | {sigma or 'none'} | {actors:.1f} "
                  f"| {one:.1f} | {actors / one:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
