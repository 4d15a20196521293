from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from crossreg import (
    L2,
    T1T2,
    Augmentation,
    Batches,
    CrossRegularizer,
    Implicit,
    Trainer,
    Unrolled,
    UserError,
    get_hyperparameters,
    inject_noise,
    learn_augmentation,
    penalize,
    predict,
)
from crossreg.estimators import Direct
from crossreg.estimators.hypergradient import theta_of
from crossreg.losses import Loss, as_loss
from crossreg.regularizers.augmentation import KINDS, warp
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw, sampling, set_draw, stochastic
from tests.crossreg.estimators.minima import settle


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 2, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def splits(rows: int = 12) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Smooth images of three classes, so that a warp changes little at a time."""
    generator = torch.Generator().manual_seed(2)

    def split() -> tuple[Tensor, Tensor]:
        coarse = torch.randn(rows, 1, 3, 3, generator=generator, dtype=torch.float64)
        fine = nn.functional.interpolate(coarse, size=(6, 6), mode="bilinear", align_corners=True)
        return fine, torch.randint(0, 3, (rows,), generator=generator)

    return split(), split()


def each(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_whole_shift_moves_pixels_and_repeats_the_edge(images: Tensor) -> None:
    moved = warp(images, shift=each(2, 1).expand(3, 2))
    torch.testing.assert_close(moved[..., 1:, 2:], images[..., :-1, :-2])
    torch.testing.assert_close(moved[..., 1:, 0], images[..., :-1, 0])
    torch.testing.assert_close(moved[..., 0, 2:], images[..., 0, :-2])
    half = warp(images, shift=each(0.5, 0).expand(3, 2))
    torch.testing.assert_close(half[..., 1:], (images[..., 1:] + images[..., :-1]) / 2)


def test_quarter_turns_are_exact_and_each_image_has_its_own(images: Tensor) -> None:
    square = images[..., :6]
    turned = warp(square, rotation=each(90, 180, -90))
    for index, quarters in enumerate((1, 2, -1)):
        torch.testing.assert_close(turned[index], square[index].rot90(quarters, (1, 2)))
    torch.testing.assert_close(warp(images, rotation=each(180, 180, 180)), images.flip((2, 3)))


def test_shear_moves_rows_and_scale_enlarges() -> None:
    column, row = torch.meshgrid(*[torch.arange(9, dtype=torch.float64) - 4] * 2, indexing="xy")
    ramp = torch.stack([column, row])[None]
    slanted = warp(ramp, shear=each(45))
    inner = (slice(None), slice(None), slice(2, 7), slice(3, 6))
    torch.testing.assert_close(slanted[inner][:, 0], (ramp[:, 0] - ramp[:, 1])[inner[1:]])
    torch.testing.assert_close(slanted[inner][:, 1], ramp[inner][:, 1])
    torch.testing.assert_close(warp(ramp, scale=each(math.log(2))), ramp / 2)


def test_transforms_compose_to_one_that_is_undone_in_the_opposite_order() -> None:
    row, column = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    smooth = torch.exp(-((row - 18) ** 2 + (column - 26) ** 2) / 40).double().view(1, 1, 40, 50)
    kinds: dict[str, Tensor] = {"scale": each(0.2), "shear": each(10), "rotation": each(25), "shift": each(3, -2)[None]}
    step = smooth
    for kind, value in kinds.items():
        step = warp(step, **{kind: value})
    torch.testing.assert_close(warp(smooth, **kinds), step, atol=0.02, rtol=0)


def test_brightness_contrast_and_noise_are_what_they_say(images: Tensor) -> None:
    def changed(kind: str, size: float, sign: float = 1.0) -> Tensor:
        torch.manual_seed(5)
        layer = Augmentation({kind: size}).double()
        layer.sign = sign
        found: Tensor = layer(images)
        return found

    difference = changed("brightness", 0.5) - images
    torch.testing.assert_close(difference, difference[:, :1, :1, :1].expand_as(images))
    assert 0 < float(difference.abs().max()) <= 0.5
    contrasted, mean = changed("contrast", 0.5), images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(contrasted.mean((1, 2, 3), keepdim=True), mean)
    factor = (contrasted - mean) / (images - mean)
    torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(images))
    assert float(factor.log().abs().max()) <= 0.5
    noisy = changed("input_noise", 2.0) - images
    torch.testing.assert_close(changed("input_noise", 2.0, -1.0) - images, -noisy)
    assert 1.5 < float(noisy.std()) < 2.5


def test_draws_are_of_the_size_that_is_learned() -> None:
    ramp = (torch.arange(100.0) - 49.5).expand(2000, 1, 3, 100)
    moved = Augmentation({"shift": 4.0})(ramp)[:, 0, 1, 50] - 0.5
    assert 3.9 < float(moved.abs().max()) <= 4.0001
    assert float(moved.var()) == pytest.approx(16 / 3, rel=0.1)


def test_an_antithetic_pair_goes_opposite_ways(images: Tensor) -> None:
    model = learn_augmentation(nn.Sequential(nn.Identity()).double(), {"shift": 1.0}, predict=True)
    ramp = torch.arange(8.0).double().expand(3, 1, 6, 8)
    with sampling(model):
        outputs = []
        for sign in (1.0, -1.0):
            set_draw(model, Draw(3, sign), torch.device("cpu"))
            outputs.append(model(ramp))
    centre = (slice(None), slice(None), slice(2, 4), slice(2, 6))
    torch.testing.assert_close((outputs[0] + outputs[1])[centre], 2 * ramp[centre])
    assert not torch.allclose(outputs[0], outputs[1])


def test_it_draws_in_training_and_in_predictions_where_asked(images: Tensor) -> None:
    for predicts in (False, True):
        model = learn_augmentation(nn.Sequential(nn.Flatten(), nn.Linear(96, 3)).double(), ["shift"], predicts)
        assert not torch.equal(model(images), model(images))
        model.eval()
        torch.testing.assert_close(model(images), model(images))
        assert bool((predict(model, images, 4).spread > 0).any()) is predicts


def test_weights_keep_their_names_and_copies_draw(images: Tensor) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(96, 3)).double()
    old = copy.deepcopy(plain.state_dict())
    model = learn_augmentation(plain, {"rotation": 10.0, "shift": 2.0})
    added = set(model.state_dict()) - set(old)
    assert added == {"learned_augmentation.0.rho_shift", "learned_augmentation.0.rho_rotation"}
    assert {model.state_dict()[name].dtype for name in added} == {torch.float64}
    model.load_state_dict(old, strict=True)
    assert get_hyperparameters(model) == pytest.approx({"shift": 2.0, "rotation": 10.0})
    twins = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)))
    for twin in twins:
        for rho in rho_parameters(twin).values():
            rho.data += 1
        assert len(stochastic(twin)) == 1
        assert not torch.equal(twin(images), twin(images))
    assert get_hyperparameters(model)["shift"] == pytest.approx(2.0)
    zero = {name: torch.zeros_like(value) for name, value in model.named_parameters() if "rho" not in name}
    assert not functional_call(model, zero, (images,)).any()
    assert "rotation=10" in repr(model)
    assert list(theta_of(model)) == ["1.weight", "1.bias"]


def test_wrappers_augment_too(images: Tensor, tmp_path: Path) -> None:
    model = learn_augmentation(nn.Sequential(nn.Flatten(), nn.Linear(96, 3)).double(), ["shift"])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert not torch.equal(wrapped(images), wrapped(images))
        wrapped(images).sum().backward()
    finally:
        dist.destroy_process_group()
    assert [name for name, p in model.named_parameters() if p.grad is None] == ["learned_augmentation.0.rho_shift"]
    compiled = torch.compile(model, backend="eager")
    assert not torch.equal(compiled(images), compiled(images))


def test_half_precision_keeps_its_dtype_and_shapes_alone_will_do() -> None:
    layer = Augmentation()
    assert layer.kinds == tuple(KINDS)
    assert layer(torch.rand(2, 1, 5, 5).bfloat16()).dtype == torch.bfloat16
    assert layer.to("meta")(torch.rand(2, 1, 5, 5, device="meta")).shape == (2, 1, 5, 5)


START = {
    "shift": 0.4, "rotation": 8.0, "shear": 7.0, "scale": 0.1, "brightness": 0.4, "contrast": 0.3, "input_noise": 0.2
}  # fmt: skip


def magnitudes(model: nn.Module) -> list[nn.Parameter]:
    """Return the rho of every kind."""
    return [rho for name, rho in rho_parameters(model).items() if name.startswith("learned_augmentation.0.rho_")]


def differences(rho: list[nn.Parameter], value: Callable[[], float], step: float = 1e-6) -> Tensor:
    found = []
    for parameter in rho:
        sides = []
        for side in (step, -step):
            parameter.data += side
            sides.append(value())
            parameter.data -= side
        found.append((sides[0] - sides[1]) / (2 * step))
    return torch.tensor(found, dtype=torch.float64)


def loss_under(model: nn.Module, loss: Loss, weights: dict[str, Tensor], x: Tensor, y: Tensor, draw: Draw) -> Tensor:
    set_draw(model, draw, torch.device("cpu"))
    return loss(functional_call(model, weights, (x,)), y)


def test_the_direct_gradient_equals_finite_differences() -> None:
    (x, y), _ = splits()
    model, loss = learn_augmentation(net(), START, predict=True), as_loss("classification")
    rho = magnitudes(model)
    draws = [Draw(1), Draw(1, -1.0), Draw(2)]
    _, gradients = Direct().gradient(model, loss, x, y, rho, draws)
    found = torch.stack(gradients)

    def value() -> float:
        return float(Direct().gradient(model, loss, x, y, rho, draws)[0])

    assert len(found) == len(KINDS)
    torch.testing.assert_close(found, differences(rho, value), rtol=1e-5, atol=1e-8)
    assert (found != 0).all()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("predicts", [False, True])
def test_unrolled_equals_finite_differences_through_its_steps(steps: int, predicts: bool) -> None:
    (x, y), (reg_x, reg_y) = splits()
    model, loss = learn_augmentation(net(), START, predict=predicts), as_loss("classification")
    rho, theta = magnitudes(model), theta_of(model)
    draws = [Draw(1), Draw(1, -1.0)]
    sgd = torch.optim.SGD(theta.values(), lr=0.3)
    estimator = Unrolled(Batches(x, y, len(x), shuffle=False), sgd, steps)
    _, gradients = estimator.gradient(model, loss, reg_x, reg_y, rho, draws)
    found = torch.stack(gradients)

    def value() -> float:
        weights: dict[str, Tensor] = {name: w.detach().clone().requires_grad_() for name, w in theta.items()}
        model.train()
        for step in range(steps):
            training = loss_under(model, loss, weights, x, y, draws[step % 2])
            slopes = torch.autograd.grad(training, list(weights.values()))
            weights = {
                name: (w - 0.3 * g).detach().requires_grad_()
                for (name, w), g in zip(weights.items(), slopes, strict=True)
            }
        with sampling(model), torch.no_grad():
            logs = []
            for draw in draws:
                set_draw(model, draw, torch.device("cpu"))
                logs.append(functional_call(model, weights, (reg_x,)).log_softmax(1))
            mean = torch.stack(logs).exp().mean(0).log()
        return float(nn.functional.nll_loss(mean, reg_y))

    torch.testing.assert_close(found, differences(rho, value), rtol=1e-4, atol=1e-8)
    assert (found != 0).all()


def test_t1_t2_equals_finite_differences_of_the_step() -> None:
    (x, y), (reg_x, reg_y) = splits()
    model, loss = learn_augmentation(net(), START), as_loss("classification")
    rho, theta = magnitudes(model), theta_of(model)
    estimator = T1T2(Batches(x, y, len(x), shuffle=False))
    _, gradients = estimator.gradient(model, loss, reg_x, reg_y, rho, [Draw(1)])
    slopes = torch.autograd.grad(loss(model.eval()(reg_x), reg_y), list(theta.values()))
    model.train()

    def value() -> float:
        training = loss_under(model, loss, dict(theta), x, y, Draw(1))
        steps = torch.autograd.grad(training, list(theta.values()))
        return -float(sum((s * v).sum() for s, v in zip(steps, slopes, strict=True)))

    torch.testing.assert_close(torch.stack(gradients), differences(rho, value), rtol=1e-4, atol=1e-8)


def test_implicit_equals_finite_differences_of_minima_found_again() -> None:
    train, (reg_x, reg_y) = splits()
    model = learn_augmentation(net(), {"shift": 0.4, "rotation": 8.0, "brightness": 0.4, "input_noise": 0.2})
    penalize(model, L2(0.05), "*")  # for curvature everywhere
    loss, draws = as_loss("classification"), [Draw(1), Draw(2)]
    rho = magnitudes(model)

    def value() -> float:
        settle(model, loss, train, draws)
        with torch.no_grad():
            return float(loss(model.eval()(reg_x), reg_y))

    settle(model, loss, train, draws)
    estimator = Implicit(Batches(*train, len(train[1]), shuffle=False), solver="cg", terms=1000, tolerance=1e-12)
    _, gradients = estimator.gradient(model, loss, reg_x, reg_y, rho, draws)
    torch.testing.assert_close(torch.stack(gradients), differences(rho, value, 1e-5), rtol=1e-5, atol=1e-8)


def test_a_run_learns_it_and_theta_does_not_train_it() -> None:
    train, reg = splits(24)
    model = learn_augmentation(inject_noise(nn.Sequential(net(), nn.LayerNorm(3).double())), ["shift", "brightness"])
    before = get_hyperparameters(model)
    estimator = Unrolled(Batches(*train, 24, seed=1))
    regularizer = CrossRegularizer(model, "classification", [reg], 2, 2, estimator=estimator)
    assert len(regularizer.theta) == 6
    estimator.optimizer = torch.optim.SGD(regularizer.theta, lr=0.1)
    trainer = Trainer(
        model, "classification", estimator.optimizer, Batches(*train, 24), regularizer=regularizer, steps=4
    )
    trainer.fit()
    after = get_hyperparameters(model)
    assert all(after[kind] != before[kind] for kind in ("shift", "brightness"))
    assert not any(module.learning or module.forced for module in stochastic(model))


class Two(nn.Module):
    def forward(self, x: Tensor | None = None) -> Tensor | None:
        return x


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: learn_augmentation(net(), ["rotate"]), "unknown augmentation 'rotate'; did you mean 'rotation'"),
        (lambda: learn_augmentation(net(), []), "no kind of augmentation"),
        (lambda: learn_augmentation(net(), {"shift": 0.0}), "magnitude of 'shift' is 0.0; it must be a positive"),
        (lambda: learn_augmentation(net(), {"shift": math.inf}), "must be a positive finite number"),
        (lambda: learn_augmentation(learn_augmentation(net(), "shift"), "input_noise"), "already"),
        (lambda: learn_augmentation(nn.DataParallel(net())), "wrapped model"),
        (lambda: learn_augmentation(net())(torch.zeros(2, 36).double()), r"given is \(2, 36\) float64"),
        (lambda: learn_augmentation(net())(torch.zeros(2, 1, 6, 6).byte()), "uint8"),
        (lambda: learn_augmentation(Two())(x=torch.zeros(2, 1, 6, 6)), "first positional argument"),
        (
            lambda: CrossRegularizer(learn_augmentation(net()), "classification", [1]),
            "does not depend on shift, rotation, .* with the weights held fixed",
        ),
    ],
)
def test_mistakes_are_named(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()


def test_the_direct_gradient_may_learn_what_predictions_average_over() -> None:
    _, reg = splits()
    model = learn_augmentation(net(), {"shift": 0.5}, predict=True)
    regularizer = CrossRegularizer(model, "classification", [reg], 1, 2)
    update = regularizer.update()
    assert update.applied
    assert get_hyperparameters(model)["shift"] != 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_warp_and_gradients() -> None:
    (x, y), (reg_x, reg_y) = splits()
    turned = warp(x, rotation=x.new_full((len(x),), 20.0), shift=x.new_full((len(x), 2), 0.7))
    x, y, reg_x, reg_y = (t.cuda() for t in (x, y, reg_x, reg_y))
    there = warp(x, rotation=x.new_full((len(x),), 20.0), shift=x.new_full((len(x), 2), 0.7))
    torch.testing.assert_close(there.cpu(), turned)
    model, loss = learn_augmentation(net().cuda(), START), as_loss("classification")
    rho, theta = magnitudes(model), theta_of(model)
    train = Batches(x, y, len(x), shuffle=False, device="cuda")
    sgd = torch.optim.SGD(theta.values(), lr=0.3)
    for estimator in (Unrolled(train, sgd, 2), Implicit(train, sgd), T1T2(train)):
        _, gradients = estimator.gradient(model, loss, reg_x, reg_y, rho, [Draw(1), Draw(1, -1.0)])
        gradient = torch.stack(gradients)
        assert gradient.is_cuda
        assert bool(gradient.isfinite().all())
        assert bool((gradient != 0).all())
