"""The metric keys, the same in the library, Ray, MLflow and every report."""

from __future__ import annotations

__all__ = [
    "COMPUTE_BACKWARD_EXAMPLES",
    "COMPUTE_EXAMPLES",
    "COMPUTE_FLOPS",
    "COMPUTE_PEAK_MEMORY",
    "COMPUTE_WORKER_SECONDS",
    "EPOCH",
    "LEARNING_RATE",
    "PERFORMANCE_EXAMPLES_PER_SECOND",
    "TEMPERATURE",
    "learned",
    "scores",
    "sigma",
]

EPOCH = "epoch"
LEARNING_RATE = "theta/learning_rate"
TEMPERATURE = "rho/temperature"
COMPUTE_EXAMPLES = "compute/examples"
COMPUTE_BACKWARD_EXAMPLES = "compute/backward_examples"
COMPUTE_FLOPS = "compute/flops"
COMPUTE_WORKER_SECONDS = "compute/worker_seconds"
COMPUTE_PEAK_MEMORY = "compute/peak_memory_bytes"
PERFORMANCE_EXAMPLES_PER_SECOND = "performance/examples_per_second"


def scores(split: str, values: dict[str, float]) -> dict[str, float]:
    """Prefix scores with their split: `{"accuracy": .9}` of `"test"` becomes `{"test/accuracy": .9}`."""
    return {f"{split}/{name}": value for name, value in values.items()}


def learned(name: str) -> str:
    """Return the key of what is learned beside noise: `rho/l2`, `rho/shift`."""
    return f"rho/{name}"


def sigma(index: int, layer: str) -> str:
    """Return the key of one layer's noise scale; the index sorts layers by depth where names sort alphabetically."""
    return f"sigma/{index:02d}_{layer}"
