"""Which map from rho to sigma, and which optimizer of rho? A problem whose best sigma is known and moves.

A frozen linear classifier sees layer-normalized inputs with noise; labels are drawn from its own prediction
averaged over noise of scale sigma*: 30 for the first half, 0.05 for the second. The regularization loss is smallest
near sigma*, lower where K is small (found on a grid first). Sigma starts at 0.01. For every pair of map and
optimizer the table says how many updates sigma needed to come within a factor of 1.5 of the first best, how many to
fall back below 0.1, how much it bounced (standard deviation of log sigma over the last quarter of the first half),
and the smallest sigma.

    python -m benchmarks.rho_travel
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARAMETRIZATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[float], float]]] = {
    "exp": (torch.exp, math.log),
    "softplus": (F.softplus, lambda s: math.log(math.expm1(s))),
    "square": (torch.square, math.sqrt),
    "sigma, clamped at 1e-4": (lambda r: r.clamp_min(1e-4), lambda s: s),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam .1 (.9, .999)": functools.partial(torch.optim.Adam, lr=0.1),
    "Adam .1 (.9, .9)": functools.partial(torch.optim.Adam, lr=0.1, betas=(0.9, 0.9)),
    "Adam .2 (.9, .9)": functools.partial(torch.optim.Adam, lr=0.2, betas=(0.9, 0.9)),
    "Adam .05 (.9, .9)": functools.partial(torch.optim.Adam, lr=0.05, betas=(0.9, 0.9)),
    "RMSprop .1 (.9)": functools.partial(torch.optim.RMSprop, lr=0.1, alpha=0.9),
    "SGD 1 (.9)": functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9),
    "SGD 10 (.9)": functools.partial(torch.optim.SGD, lr=10.0, momentum=0.9),
    "Rprop": functools.partial(torch.optim.Rprop, lr=0.1, step_sizes=(1e-3, 0.5)),
}


HIGH = 30.0


def best_sigma(samples: int, antithetic: bool) -> float:
    """Return the sigma with the smallest loss at sigma* = HIGH, on a grid; few draws K move it below sigma*."""
    grid = torch.logspace(-2, 2, 41).tolist()
    losses = []
    for sigma in grid:
        problem = Problem(0, antithetic)
        losses.append(sum(float(problem.loss(torch.tensor(sigma), HIGH, samples)) for _ in range(100)))
    return grid[losses.index(min(losses))]


class Problem:
    """The frozen classifier; `loss(sigma)` is the loss of a K-average on a fresh batch labelled under sigma*."""

    def __init__(self, seed: int, antithetic: bool, features: int = 32, classes: int = 10, weight: float = 1.0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.weight = weight * self.randn(features, classes) / math.sqrt(features)
        self.features, self.antithetic = features, antithetic

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def probabilities(self, x: Tensor, sigma: Tensor, samples: int) -> Tensor:
        eps = self.randn(samples, *x.shape)
        if self.antithetic:
            eps[samples // 2 :] = -eps[: samples - samples // 2]
        h = x + sigma * eps
        return torch.softmax(h @ self.weight, -1).mean(0)

    def loss(self, sigma: Tensor, target_sigma: float, samples: int, batch: int = 128) -> Tensor:
        x = nn.functional.layer_norm(self.randn(batch, self.features), (self.features,))
        with torch.no_grad():
            y = torch.multinomial(
                self.probabilities(x, torch.tensor(target_sigma), 64), 1, generator=self.generator
            ).squeeze(1)
        return F.nll_loss(self.probabilities(x, sigma, samples).log(), y)


def travel(
    parametrization: str, optimizer: str, updates: int, samples: int, antithetic: bool, best: float, seed: int
) -> dict[str, float]:
    to_sigma, to_rho = PARAMETRIZATIONS[parametrization]
    problem = Problem(seed, antithetic)
    rho = torch.tensor(to_rho(0.01), requires_grad=True)
    step = OPTIMIZERS[optimizer]([rho])
    path = []
    for update in range(updates):
        step.zero_grad()
        problem.loss(to_sigma(rho), HIGH if update < updates // 2 else 0.05, samples).backward()
        step.step()
        path.append(float(to_sigma(rho.detach())))
    half = updates // 2
    first = next((i for i, s in enumerate(path[:half], 1) if s > best / 1.5), math.inf)
    back = next((i for i, s in enumerate(path[half:], 1) if s < 0.1), math.inf)
    settled = torch.tensor(path[half * 3 // 4 : half]).clamp_min(1e-9).log()
    return {
        "up": first,
        "back": back,
        "bounce": float(settled.std()),
        "smallest": min(path),
        "largest": max(path),
        "last": path[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=400, help="rho updates (default 400: 12,000 steps at r = 30)")
    parser.add_argument(
        "--samples", type=int, default=32, help="K; few draws bias the best sigma downwards (default 32)"
    )
    parser.add_argument("--antithetic", action="store_true", help="draw noise in pairs of opposite sign")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    best = best_sigma(arguments.samples, arguments.antithetic)
    print(f"K = {arguments.samples}, antithetic {arguments.antithetic}: the first half's best sigma is {best:.3g}\n")
    names = ["map", "optimizer", "updates to the best", "updates back to 0.1", "bounce of log sigma"]
    print("| " + " | ".join([*names, "smallest sigma", "largest sigma", "last sigma"]) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for parametrization in PARAMETRIZATIONS:
        for optimizer in OPTIMIZERS:
            rows = [
                travel(
                    parametrization,
                    optimizer,
                    arguments.updates,
                    arguments.samples,
                    arguments.antithetic,
                    best,
                    seed,
                )
                for seed in range(arguments.seeds)
            ]
            median = {key: sorted(row[key] for row in rows)[len(rows) // 2] for key in rows[0]}
            cells = [f"{median[k]:.3g}" for k in ("up", "back", "bounce", "smallest", "largest", "last")]
            print(
                f"| {parametrization} | {optimizer} | " + " | ".join(cells).replace("inf", "never") + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
