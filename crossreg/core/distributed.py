"""Running on one process or many: the same code in a plain script, under torchrun and in a Ray Train worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from crossreg.core.modules import unwrap

__all__ = ["broadcast_buffers", "data_parallel", "gather_rows", "process_group", "rank", "world_size"]


def rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def process_group(backend: str | None = None) -> Iterator[None]:
    """Join the process group that torchrun describes in the environment, for the duration of a block.

    Does nothing where there is one already (a Ray Train worker) or none is described (a plain script).

    Args:
        backend: "nccl" or "gloo"; None takes NCCL where there is a GPU.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend or ("nccl" if torch.cuda.is_available() else "gloo"))
    try:
        yield
    finally:
        dist.destroy_process_group()


def data_parallel(model: nn.Module, find_unused: bool = False) -> nn.Module:
    """Return the model wrapped in `DistributedDataParallel` where several processes train, else the model itself.

    Args:
        model: on its device.
        find_unused: the loss does not depend on some parameters, for which ranks are not to wait.
    """
    if world_size() == 1:
        return model
    device = next(model.parameters()).device
    ids = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=find_unused)


def broadcast_buffers(model: nn.Module) -> None:
    """Give every rank rank 0's buffers (running statistics), so that all evaluate the same model."""
    if world_size() > 1:
        for buffer in unwrap(model).buffers():
            dist.broadcast(buffer, src=0)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, concatenated in rank order; ranks may hold different numbers of rows."""
    world = world_size()
    if world == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    longest = int(max(counts))
    padded = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows
    gathered = [torch.zeros_like(padded) for _ in range(world)]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: int(n)] for part, n in zip(gathered, counts, strict=True)])
