"""What noise and the rho step cost, as ratios to the plain training step and to their own floor.

A step is forward, backward and AdamW on a batch. The floor of a rho step is its arithmetic as the paper has it, 2K - 1
forward and K backward passes without weight gradients and without noise; what the draws have in common is done once, so
that less is possible. Everything is timed in turns in one process; medians are compared.

    python -m benchmarks.rho_step --model cnn --samples 3
    python -m benchmarks.rho_step --model cnn --profile
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.drawing import drawn_afresh
from crossreg import CrossRegularizer, Direct, inject_noise
from crossreg.models import build

INTERVAL = 30
TURN = 0.2
"""Seconds that a part is repeated for before the next has its turn."""
SHAPES = {"mlp": (28 * 28,)}

Parts = dict[str, Callable[[], object]]


def parts(model: str, batch: int, samples: int, device: torch.device) -> Parts:
    """Return what is timed, by name."""
    shape = SHAPES.get(model, (3, 32, 32))
    torch.manual_seed(0)
    plain = build(model, input_shape=shape, num_outputs=10).to(device)
    x, y = torch.randn(batch, *shape, device=device), torch.randint(0, 10, (batch,), device=device)
    if x.ndim == 4:  # as a training has them
        plain, x = plain.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    noisy = inject_noise(copy.deepcopy(plain))
    loader = [(x, y)]
    regularizer = CrossRegularizer(noisy, "classification", loader, interval=1, samples=samples)
    graphs = CrossRegularizer(
        copy.deepcopy(noisy), "classification", loader, interval=1, samples=samples, estimator=Direct(graphs=samples)
    )

    def theta(model: torch.nn.Module) -> Callable[[], None]:
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-6)

        def step() -> None:
            model.train()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    noisy_step = theta(noisy)

    def drawn() -> None:
        with drawn_afresh():
            noisy_step()

    frozen = copy.deepcopy(plain).eval().requires_grad_(False)
    inputs = x.clone().requires_grad_()

    def floor() -> None:
        with torch.no_grad():
            for _ in range(samples - 1):
                frozen(x)
        for _ in range(samples):
            torch.autograd.grad(F.cross_entropy(frozen(inputs), y), inputs)

    return {
        "plain step": theta(plain),
        "noisy step": noisy_step,
        "noisy step, drawn": drawn,
        "rho step": regularizer.update,
        "rho step, K graphs": graphs.update,
        "floor of the rho step": floor,
    }


def measure(
    model: str, batch: int = 128, samples: int = 3, rounds: int = 7, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Return the median seconds of each part, and "whole / plain": a training that learns noise to one without."""
    device = torch.device(device)

    def timed(run: Callable[[], object], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    timed_parts = parts(model, batch, samples, device)
    for run in timed_parts.values():
        run()  # warms up
    # as in a training, a step follows one of its kind, whose weights the caches still hold
    repeats = {name: max(1, round(TURN / timed(run, 1))) for name, run in timed_parts.items()}
    times: dict[str, list[float]] = {name: [] for name in timed_parts}
    for _ in range(rounds):
        for name, run in timed_parts.items():
            times[name].append(timed(run, repeats[name]))
    found = {name: statistics.median(values) for name, values in times.items()}
    return found | {"whole / plain": (found["noisy step"] + found["rho step"] / INTERVAL) / found["plain step"]}


def profile(model: str, batch: int, samples: int, device: torch.device) -> None:
    """Print where the time of a plain step, a noisy one and a rho step goes, by operation."""
    for name, run in parts(model, batch, samples, device).items():
        if name in ("plain step", "noisy step", "rho step"):
            run()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
                for _ in range(3):
                    run()
            print(f"{name}\n{found.key_averages().table(sort_by='self_cpu_time_total', row_limit=12)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.profile:
        profile(a.model, a.batch, a.samples, torch.device(a.device))
        return
    found = measure(a.model, a.batch, a.samples, a.rounds, a.device)
    whole = found.pop("whole / plain")
    print(f"{a.model}, batch {a.batch}, K = {a.samples}, {a.device}, {a.threads} threads, torch {torch.__version__}\n")
    print("| | ms | to a plain step |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {1e3 * value:.1f} | {value / found['plain step']:.2f} |")
    print(f"\nrho step to its floor: {found['rho step'] / found['floor of the rho step']:.2f}")
    print(f"training with a rho step every {INTERVAL} to one without: {whole:.3f}")


if __name__ == "__main__":
    main()
