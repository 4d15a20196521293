"""What a normal number costs on a CPU, drawn and read from the bank, and what autograd keeps of a draw.

*Time*: of four million float32 values, on one thread, medians of alternating rounds; the floor is the multiply-add that
puts them on the activation. *Memory*: the bytes that autograd keeps of one draw in a rho step, to those of a training
step, weights left out; what `Direct(graphs=K)` holds K times.

    python -m benchmarks.drawing
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crossreg.regularizers.noise
from crossreg import inject_noise, sampling
from crossreg.models import build
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.normal import _bank, _drawn, standard_normal_like

VALUES, CHUNK, ROUNDS = 1 << 22, 1 << 15, 15
MODELS = ("mlp", "cnn", "resnet18", "vgg16", "wide_resnet")


@contextmanager
def drawn_afresh() -> Iterator[None]:
    """Draw every number for a while, instead of reading the bank."""
    crossreg.regularizers.noise.standard_normal_like = _drawn
    try:
        yield
    finally:
        crossreg.regularizers.noise.standard_normal_like = standard_normal_like


def times() -> dict[str, float]:
    """Return median seconds by what is done."""
    x, eps, sigma = torch.randn(VALUES), torch.randn(VALUES), torch.tensor(0.1)
    small = torch.randn(2 * CHUNK)

    def chunks() -> Tensor:
        out = torch.empty_like(x)
        places = torch.randint(0, CHUNK, (VALUES // CHUNK,)).tolist()
        for k, place in enumerate(places):
            part = slice(k * CHUNK, (k + 1) * CHUNK)
            torch.addcmul(x[part], sigma, small[place : place + CHUNK], out=out[part])
        return out

    parts: dict[str, Callable[[], object]] = {
        "`torch.randn`": lambda: torch.randn(VALUES),
        "`torch.rand`, the generator alone": lambda: torch.rand(VALUES),
        "a multiply-add, `x + sigma * eps`": lambda: torch.addcmul(x, sigma, eps),
        "the same, `eps` a window of the bank": lambda: torch.addcmul(x, sigma, standard_normal_like(x)),
        f"the same in chunks of {CHUNK:,} of a bank of {2 * CHUNK:,}": chunks,
    }
    found: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(ROUNDS + 1):
        for name, run in parts.items():
            began = time.perf_counter()
            run()
            if turn:  # the first warms up
                found[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in found.items()}


def kept_bytes(run: Callable[[], object], model: nn.Module) -> int:
    """Return the bytes that autograd keeps of a pass, but for weights, statistics and the bank."""
    known = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers(), _bank())}
    kept: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        output = run()
    del output  # until here, so that no address is used twice
    return sum(kept.values())


def graph_ratio(name: str, rows: int = 16) -> float:
    """Return the bytes kept of a draw in a rho step, where rho alone gets a gradient, to those of a training step."""
    shape = (28 * 28,) if name == "mlp" else (3, 32, 32)
    model = inject_noise(build(name, input_shape=shape, num_outputs=10))
    x, y = torch.randn(rows, *shape), torch.randint(0, 10, (rows,))
    theta = kept_bytes(lambda: F.cross_entropy(model(x), y), model)
    model.requires_grad_(False)
    for rho in rho_parameters(model).values():
        rho.requires_grad_(True)
    with sampling(model, learning=True):
        return kept_bytes(lambda: model(x), model) / theta


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    print(f"{VALUES:,} values, torch {torch.__version__}\n\n| | ms |\n|---|---|")
    for name, seconds in times().items():
        print(f"| {name} | {1e3 * seconds:.1f} |")
    print("\n| network | bytes kept of a draw, to a training step's |\n|---|---|")
    for name in MODELS:
        print(f"| `{name}` | {graph_ratio(name):.2f} |", flush=True)


if __name__ == "__main__":
    main()
