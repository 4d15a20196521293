from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from crossreg import Classification, Cost, inject_noise
from crossreg.models import registry
from crossreg.training import compute
from crossreg.training.compute import measure_flops


def test_costs_add_up() -> None:
    one, two = Cost(examples=3, flops=5), Cost(examples=1, backward_examples=2, worker_seconds=0.5)
    assert one + two == Cost(examples=4, backward_examples=2, flops=5, worker_seconds=0.5)
    assert (one + two) - two == one
    assert 3 * two.examples == (two * 3).examples
    assert (one * 3).flops == 15


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0].mean(1)


def model(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    series = (10, 16)
    if name == "encoder":
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return nn.Sequential(encoder, nn.Flatten(), nn.Linear(160, 3)), series
    if name == "attention":
        return nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), Attention(), nn.Linear(8, 3)), series
    shape = {"mlp": (20,), "cnn": (3, 16, 16), "wide_resnet": (3, 16, 16)}.get(name, series)
    options = {"depth": 10, "width": 1} if name == "wide_resnet" else {}
    return registry.build(name, input_shape=shape, num_outputs=3, **options), shape


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "wide_resnet", "cnn1d", "lstm", "gru", "transformer", "encoder", "attention"]
)
def test_flops_are_the_same_computed_and_traced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small model they are counted on the CPU, whose fused kernels torch's counter does not know."""
    made, shape = model(name)
    noisy = inject_noise(made)
    batch = torch.randn(4, *shape), torch.tensor([0, 1, 2, 0])
    stream, before = torch.get_rng_state(), {key: value.clone() for key, value in noisy.state_dict().items()}
    computed = measure_flops(noisy, Classification(), *batch, 3)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[key]) for key, value in noisy.state_dict().items())
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()
    monkeypatch.setattr(compute, "SMALL", (0, 0))
    assert computed == measure_flops(noisy, Classification(), *batch, 3)
    assert all(math.isfinite(flops) and flops > 0 for flops in computed.values())
