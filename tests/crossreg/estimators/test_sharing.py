"""What is the same for all draws is done once, and the gradient stays what it was, to the last bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import crossreg.estimators.direct
from crossreg import L2, inject_noise, learn_temperature, penalize
from crossreg.estimators import Direct
from crossreg.estimators.sharing import shared_between_passes
from crossreg.losses import as_loss
from crossreg.models.ensemble import Ensemble
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw
from tests.crossreg.conftest import small_model

DRAWS = [Draw(3, 1.0), Draw(3, -1.0), Draw(8, 1.0)]
PASSES = 5


class Counted(nn.Linear):
    """Counts what it does."""

    done: ClassVar[Counter[int]] = Counter()

    def forward(self, x: Tensor) -> Tensor:
        Counted.done[self.in_features] += 1
        return super().forward(x)


def gradients(model: nn.Module, x: Any, y: Tensor, graphs: int = 1) -> list[Tensor]:
    rho = [rho for name, rho in rho_parameters(model).items() if "penalty" not in name]
    value, found = Direct(graphs).gradient(model, as_loss("classification"), x, y, rho, DRAWS)
    return [value, *found]


def without_sharing(monkeypatch: pytest.MonkeyPatch, run: Callable[[], list[Tensor]]) -> list[Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(crossreg.estimators.direct, "shared_between_passes", lambda *_: nullcontext())
        return run()


class Residual(nn.Module):
    """A block whose input is used again after the noise, and changed in place there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = Counted(8, 8), nn.LayerNorm(8), Counted(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        noisy = self.norm(h)
        h += noisy
        return self.last(h)


class Functional(nn.Module):
    """Changes what a module answered, in place, before the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = Counted(8, 9), nn.LayerNorm(9), Counted(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x).mul_(2).relu_()))


class DrawsItself(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


def body() -> nn.Module:
    return nn.Sequential(Counted(8, 16), nn.ReLU(inplace=True), nn.Sequential(Counted(16, 10), nn.Tanh()))


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[int, int]]] = {
    "a first layer": (
        lambda: nn.Sequential(Counted(8, 16), nn.BatchNorm1d(16), nn.ReLU(), Counted(16, 3)),
        {8: 1, 16: 5},
    ),
    "a body and a head": (
        lambda: nn.Sequential(
            nn.Sequential(Counted(8, 6), nn.Tanh()), Counted(6, 10), nn.LayerNorm(10), Counted(10, 3)
        ),
        {8: 1, 6: 1, 10: 5},
    ),
    "an activation in place": (lambda: nn.Sequential(body(), nn.LayerNorm(10), Counted(10, 3)), {8: 1, 16: 1, 10: 5}),
    "changed in place after the noise": (Residual, {8: 5 * 2}),
    "changed in place before it": (Functional, {8: 5, 9: 5}),
    "draws by itself": (
        lambda: nn.Sequential(DrawsItself(), Counted(8, 16), nn.LayerNorm(16), Counted(16, 3)),
        {8: 5, 16: 5},
    ),
    "members of an ensemble": (
        lambda: Ensemble(
            [nn.Sequential(Counted(8, 16), nn.LayerNorm(16), Counted(16, 3)) for _ in range(2)], "classification"
        ),
        {8: 2, 16: 10},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_draws_have_in_common_is_done_once_and_changes_nothing(
    name: str, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, expected = MODELS[name]
    torch.manual_seed(0)
    model = inject_noise(build(), initial_sigma=0.5).eval()
    plain = without_sharing(monkeypatch, lambda: gradients(model, *batch))
    Counted.done.clear()
    shared = gradients(model, *batch)
    assert dict(Counted.done) == expected
    assert all(torch.equal(a, b) for a, b in zip(plain, shared, strict=True))
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_that_never_draws_runs_once(batch: tuple[Tensor, Tensor]) -> None:
    model = learn_temperature(nn.Sequential(nn.Sequential(Counted(8, 16), nn.ReLU(), Counted(16, 3))))
    Counted.done.clear()
    gradients(model, *batch)
    assert dict(Counted.done) == {8: 1, 16: 1}


def test_more_graphs_are_fewer_passes_and_the_same_gradient(batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(nn.Sequential(nn.LayerNorm(8), Counted(8, 3)), initial_sigma=0.5)
    found = []
    for graphs, passes in ((1, 5), (2, 4), (3, 3), (9, 3)):
        Counted.done.clear()
        found.append(gradients(model, *batch, graphs=graphs))
        assert Counted.done[8] == passes == Direct(graphs).passes(3)[0]
    assert all(torch.equal(a, b) for one in found[1:] for a, b in zip(found[0], one, strict=True))


def test_nothing_is_shared_where_weights_are_differentiated(batch: tuple[Tensor, Tensor]) -> None:
    model = penalize(inject_noise(nn.Sequential(Counted(8, 16), nn.LayerNorm(16), Counted(16, 3))), L2(0.1))
    everything = list(model.parameters())
    Counted.done.clear()
    Direct().gradient(model, as_loss("classification"), *batch, everything, DRAWS)
    assert Counted.done[8] == PASSES


def test_a_patched_module_is_left_alone(batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(small_model())
    own = model[0].forward
    model[0].forward = lambda x: own(x)
    with shared_between_passes(model, batch[0], list(rho_parameters(model).values())):
        assert [name for name, one in model.named_modules() if "forward" in vars(one)] == ["0"]


def test_an_error_leaves_the_model_as_it_was(batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(small_model())
    with pytest.raises(RuntimeError):
        gradients(model, torch.randn(4, 7), batch[1][:4])
    assert not any("forward" in vars(module) for module in model.modules())
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    assert not hooks
