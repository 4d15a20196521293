"""What noise and the rho step cost, as ratios to the plain training step and to their own floor.

The floor of a rho step is its arithmetic: 2K - 1 forward and K backward passes without weight gradients, timed by
themselves without noise. Everything is timed in alternation in one process; medians are printed.

    python -m benchmarks.rho_step --model cnn --samples 3
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from crossreg import CrossRegularizer, inject_noise
from crossreg.models import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    device = torch.device(a.device)
    shape = (784,) if a.model == "mlp" else (3, 32, 32)
    plain = build(a.model, input_shape=shape, num_outputs=10).to(device)
    noisy = inject_noise(copy.deepcopy(plain))
    x = torch.randn(a.batch, *shape, device=device)
    y = torch.randint(0, 10, (a.batch,), device=device)
    regularizer = CrossRegularizer(noisy, "classification", [(x, y)], interval=1, samples=a.samples)

    def theta(model: torch.nn.Module) -> None:
        model.train()
        F.cross_entropy(model(x), y).backward()
        model.zero_grad()

    frozen = copy.deepcopy(plain).eval().requires_grad_(False)
    inputs = x.clone().requires_grad_()

    def floor() -> None:
        with torch.no_grad():
            for _ in range(a.samples - 1):
                frozen(x)
        for _ in range(a.samples):
            torch.autograd.grad(F.cross_entropy(frozen(inputs), y), inputs)

    parts: dict[str, Callable[[], object]] = {
        "theta step without noise": lambda: theta(plain),
        "theta step with noise": lambda: theta(noisy),
        "rho step": regularizer.update,
        "floor of the rho step": floor,
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for index in range(a.rounds + 1):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if index:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in times.items()}
    base = median["theta step without noise"]
    print(f"{a.model}, batch {a.batch}, K = {a.samples}, {device}, {a.threads} threads, torch {torch.__version__}\n")
    print("| | ms | to a plain theta step |\n|---|---|---|")
    for name, value in median.items():
        print(f"| {name} | {1e3 * value:.1f} | {value / base:.2f} |")
    print(f"\nrho step to its floor: {median['rho step'] / median['floor of the rho step']:.2f}")
    share = median["rho step"] / 30 / (median["theta step with noise"] + median["rho step"] / 30)
    print(f"share of the rho step in training at r = 30: {share:.1%}")


if __name__ == "__main__":
    main()
