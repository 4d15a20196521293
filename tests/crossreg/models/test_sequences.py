"""Networks for sequences: what follows an end counts nowhere, and they learn by every estimator."""

import pytest
import torch
from torch import nn

from crossreg import inject_noise
from crossreg.models import build

NAMES = ["cnn1d", "lstm", "gru", "transformer"]
NAN = float("nan")


def network(name: str, length: int = 29) -> nn.Module:
    torch.manual_seed(0)
    return build(name, input_shape=(3, length), num_outputs=5, dropout=0.2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noisy", [False, True])
def test_what_follows_an_end_changes_nothing(name: str, noisy: bool) -> None:
    model = network(name)
    if noisy:
        inject_noise(model)
    model.eval()
    x = torch.randn(7, 3, 20)
    lengths = [20, 13, 7, 4, 3, 2, 1]
    for row, length in enumerate(lengths):
        x[row, :, length:] = NAN
    found = model(x)
    longer = torch.cat([x, torch.full((7, 3, 13), NAN)], 2)
    alone = torch.cat([model(x[row : row + 1, :, :length]) for row, length in enumerate(lengths)])
    torch.testing.assert_close(model(longer), found)
    torch.testing.assert_close(alone, found)


@pytest.mark.parametrize("name", NAMES)
def test_padded_sequences_train(name: str) -> None:
    """Which of two halves is larger, in sequences of 4 to 20 steps."""
    model = build(name, input_shape=(1, 20), num_outputs=2)
    x = torch.randn(128, 1, 20)
    y = torch.arange(128) % 2
    for row in range(128):
        length = 4 + row % 17
        x[row, 0, : length // 2] += 2 * (2 * y[row] - 1)
        x[row, :, length:] = NAN
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        optimizer.step()
    assert float((model.eval()(x).argmax(1) == y).float().mean()) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_exist(name: str) -> None:
    """What `unrolled` and `implicit` take."""
    model = network(name)
    x = torch.randn(4, 3, 12)
    x[0, :, 5:] = NAN
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(model(x).square().sum(), parameters, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters, allow_unused=True)  # type: ignore[arg-type]
    assert any(g is not None and float(g.abs().sum()) > 0 for g in second)


@pytest.mark.parametrize("name", NAMES)
def test_noise_and_dropout_have_places(name: str) -> None:
    model = network(name)
    assert any(isinstance(module, nn.Dropout) for module in model.modules())
    x = torch.randn(2, 3, 29)
    inject_noise(model, initial_sigma=0.5)
    model.train()
    assert not torch.equal(model(x), model(x))


def test_a_recurrent_network_knows_the_order_of_steps() -> None:
    for name in NAMES:
        model = network(name).eval()
        x = torch.randn(1, 3, 29)
        assert not torch.allclose(model(x), model(x.flip(2)), atol=1e-4), name
