"""Seeds and random states: deriving independent streams, replaying a draw, saving and restoring every generator."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = [
    "derive_seed",
    "forked_rng",
    "generator_states",
    "kept_rng_state",
    "rng_state",
    "seed_device",
    "seed_everything",
    "set_generator_states",
    "set_rng_state",
]


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part, e.g. `derive_seed(seed, "reg", epoch)`."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), Python's `random` and, where it is loaded, NumPy's global generator."""
    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


@contextmanager
def forked_rng(device: torch.device) -> Iterator[None]:
    """Run a block whose random draws on the CPU and `device` leave the global generators as they were."""
    devices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the default generators of the CPU and of `device`, and no others."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def generator_states(device: torch.device) -> list[torch.Tensor]:
    """Return the states of the default generators of the CPU and of `device`; cheap enough for every step."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def set_generator_states(device: torch.device, states: list[torch.Tensor]) -> None:
    """Restore what `generator_states` returned, so that the next draws are the same again."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def rng_state() -> dict[str, Any]:
    """Return the states of all generators as plain values and tensors (loadable with `weights_only=True`)."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = (
            name,
            [int(key) for key in keys],
            *(float(r) if isinstance(r, float) else int(r) for r in rest),
        )
    return state


@contextmanager
def kept_rng_state() -> Iterator[None]:
    """Put all generators back to where they were at the end of a block, which may seed them."""
    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned; the CUDA state only where there is a GPU."""
    torch.set_rng_state(state["torch"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    if "numpy" in state:
        import numpy as np

        name, keys, *rest = state["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
