from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(24, 8, generator=generator), torch.randint(0, 3, (24,), generator=generator)


def small_model(norm: str = "batch", dtype: torch.dtype = torch.float32) -> nn.Sequential:
    kinds = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(8, 16), kinds[norm](16), nn.ReLU(), nn.Linear(16, 12), kinds[norm](12), nn.ReLU(), nn.Linear(12, 3)
    )
    return model.to(dtype)
