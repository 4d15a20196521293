from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg import (
    Classification,
    CrossRegularizer,
    GaussianRegression,
    Loss,
    UserError,
    inject_noise,
    predict,
    reference,
    sigmas,
)
from crossreg.estimators import Direct
from crossreg.regularizer import antithetic_draws, rho_optimizer
from crossreg.regularizers.base import rho_from_sigma, rho_parameters, sigma_from_rho
from crossreg.regularizers.noise import Draw, noise_layers
from crossreg.regularizers.temperature import temperature
from tests.crossreg.conftest import small_model

DRAWS = [Draw(11), Draw(11, -1.0), Draw(12), Draw(12, -1.0), Draw(13)]


class BrierOfAverage(Loss):
    """A user's own loss: squared error of averaged probabilities."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self.of_draws(self.predict(output, torch.ones(()))[None], target)

    def per_draw(self, output: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        return self.predict(output, temperature)

    def of_draws(self, draws: Tensor, target: Tensor) -> Tensor:
        return (draws.mean(0) - F.one_hot(target, draws.shape[-1])).square().sum(1).mean()

    def predict(self, output: Tensor, temperature: Tensor) -> Tensor:
        return torch.softmax(output / temperature, 1)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("granularity", ["layer", "unit"])
@pytest.mark.parametrize("form", ["additive", "multiplicative"])
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_replayed_gradient_equals_one_graph(
    norm: str, granularity: str, form: str, samples: int, batch: tuple[Tensor, Tensor]
) -> None:
    model = inject_noise(small_model(norm, torch.float64), granularity, form, 0.6)  # type: ignore[arg-type]
    model.output_temperature[0].rho.data.fill_(0.3)
    x, y = batch[0].double(), batch[1]
    rho = rho_parameters(model)
    value, gradients = Direct().gradient(model, Classification(), x, y, list(rho.values()), DRAWS[:samples])
    expected = reference.rho_gradient(model, x, y, DRAWS[:samples])
    torch.testing.assert_close(value, reference.rho_loss(model, x, y, DRAWS[:samples]).detach())
    for gradient, (name, one_graph) in zip(gradients, expected.items(), strict=True):
        assert one_graph.any(), name
        torch.testing.assert_close(gradient, one_graph, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", [Classification(), GaussianRegression(), BrierOfAverage()])
def test_gradient_equals_finite_differences(loss: Loss, batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(small_model("layer", torch.float64), "unit", initial_sigma=0.5)
    x, y = batch[0].double(), batch[1]
    target = torch.randn(24, 3, dtype=torch.float64) if isinstance(loss, GaussianRegression) else y
    rho = rho_parameters(model)
    _, gradients = Direct().gradient(model, loss, x, target, list(rho.values()), DRAWS)
    step = 1e-5
    for (name, parameter), gradient in zip(rho.items(), gradients, strict=True):
        for index in range(min(parameter.numel(), 3)):
            values = []
            for side in (step, -step):
                parameter.data.view(-1)[index] += side
                values.append(Direct().gradient(model, loss, x, target, [parameter], DRAWS)[0])
                parameter.data.view(-1)[index] -= side
            slope = (values[0] - values[1]) / (2 * step)
            torch.testing.assert_close(
                gradient.view(-1)[index], slope, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_rho_step_leaves_theta_statistics_modes_and_random_state(batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(small_model())
    model[0].weight.requires_grad_(False)  # somebody's frozen layer stays frozen
    regularizer = CrossRegularizer(model, "classification", [batch], interval=1)
    theta = [p.clone() for p in regularizer.theta]
    buffers = [b.clone() for b in model.buffers()]
    flags = [p.requires_grad for p in model.parameters()]
    before, state = sigmas(model), torch.get_rng_state()
    update = regularizer.step()
    assert update is not None
    assert update.applied
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(theta, regularizer.theta, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert all(float(before[name]) != float(value) for name, value in sigmas(model).items())
    assert model.training


def test_theta_is_everything_but_rho() -> None:
    plain = small_model()
    names = {name for name, _ in plain.named_parameters()}
    model = inject_noise(plain)
    theta = {id(p) for p in CrossRegularizer(model, "classification", [0]).theta}
    assert {name for name, p in model.named_parameters() if id(p) in theta} == names


def test_update_comes_every_interval_and_walks_round_the_loader(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    model = inject_noise(small_model())
    regularizer = CrossRegularizer(model, "classification", [(x[:12], y[:12]), (x[12:], y[12:])], interval=3)
    updates = [regularizer.step() for _ in range(15)]
    assert [i for i, update in enumerate(updates, 1) if update] == [3, 6, 9, 12, 15]
    assert regularizer.updates == 5


def test_other_held_out_data_come_with_the_next_update_and_from_their_start(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    before = [(x[:12], y[:12]), (x[12:], y[12:])]
    regularizer = CrossRegularizer(inject_noise(small_model()), "classification", before, interval=1)
    assert [regularizer.update().examples for _ in range(3)] == [12, 12, 12]
    regularizer.go_on_with([(x[:4], y[:4]), (x[:8], y[:8])])
    assert [regularizer.update().examples for _ in range(3)] == [4, 8, 4]
    with pytest.raises(UserError, match="no batch"):
        regularizer.go_on_with([])


def test_training_with_fast_path_follows_the_reference(batch: tuple[Tensor, Tensor]) -> None:
    """Alternate both steps with plain gradient descent, once with the library and once with the literal twin."""
    x, y = batch[0].double(), batch[1]
    fast, slow = (inject_noise(small_model("batch", torch.float64), initial_sigma=0.4) for _ in range(2))
    regularizer = CrossRegularizer(fast, "classification", [(x[12:], y[12:])], interval=2, samples=3, seed=7)
    regularizer.optimizer = torch.optim.SGD(regularizer.rho.values(), lr=0.5)
    theta = torch.optim.SGD(regularizer.theta, lr=0.1)
    for step in range(1, 21):
        reference.theta_step(slow, x[:12], y[:12], seed=step, eta_theta=0.1)
        fast.train()
        torch.manual_seed(step)
        F.cross_entropy(fast(x[:12]), y[:12]).backward()
        theta.step()
        theta.zero_grad()
        if regularizer.step():
            draws = antithetic_draws(3, 7, "rho", step // 2, 0)
            reference.rho_step(slow, x[12:], y[12:], draws, eta_rho=0.5)
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_antithetic_draws_come_in_pairs() -> None:
    draws = antithetic_draws(5, 0, "rho", 1)
    assert [draw.sign for draw in draws] == [1, -1, 1, -1, 1]
    assert [draws[0].seed == draws[1].seed, draws[2].seed == draws[3].seed, draws[1].seed == draws[2].seed] == [
        True,
        True,
        False,
    ]


def test_temperature_is_learned_only_when_asked_and_never_in_the_theta_step(batch: tuple[Tensor, Tensor]) -> None:
    for names in (None, ["noise"]):
        model = inject_noise(small_model())
        regularizer = CrossRegularizer(model, "classification", [batch], interval=1, learn=names)
        regularizer.step()
        learn = names is None
        assert (float(temperature(model)) != 1.0) is learn
        assert ("output_temperature.0.rho" in regularizer.rho) is learn
    model.train()
    torch.manual_seed(0)
    first = model(batch[0])
    model.output_temperature[0].rho.data.fill_(2.0)
    torch.manual_seed(0)
    assert torch.equal(model(batch[0]), first)


def test_overconfident_model_gets_a_temperature_and_noise() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = torch.randint(0, 3, (256,))  # nothing to learn: confidence can only hurt
    model = inject_noise(small_model("layer"))
    model[6].weight.data.mul_(20)
    regularizer = CrossRegularizer(model, "classification", [(x, y)], interval=1, samples=4)
    losses = [u.loss for _ in range(60) if (u := regularizer.step())]
    assert losses[-1] < 0.6 * losses[0]
    assert float(temperature(model)) > 1.5
    assert max(float(s) for s in sigmas(model).values()) > 0.2


def test_sigma_travels_from_a_hundredth_beyond_ten_and_back_without_bouncing() -> None:
    """A noisy pull of relative size, towards 20 and then towards 0.01; 100 updates are 3,000 steps at r = 30."""
    generator = torch.Generator().manual_seed(0)
    rho = nn.Parameter(rho_from_sigma(0.01))
    optimizer = rho_optimizer([rho], lr=0.1)
    path = []
    for update in range(260):
        goal = math.log(20.0 if update < 130 else 0.01)
        optimizer.zero_grad()
        ((rho - goal) ** 2 + rho * torch.randn((), generator=generator)).backward()
        optimizer.step()
        path.append(float(sigma_from_rho(rho.detach())))
    assert max(path[:100]) > 10
    assert min(path[130:230]) < 0.02
    settled = torch.tensor(path[110:130]).log()
    assert settled.diff().abs().max() < 0.12  # no step beyond the step size
    assert settled.std() < 0.25


def test_state_continues_exactly(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    loader = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 24, 8)]

    def run(steps: int, state: tuple[dict, dict] | None = None) -> tuple[dict, dict]:
        model = inject_noise(small_model())
        regularizer = CrossRegularizer(model, "classification", loader, interval=2)
        if state:
            model.load_state_dict(state[0])
            regularizer.load_state_dict(state[1])
        for _ in range(steps):
            regularizer.step()
        return model.state_dict(), regularizer.state_dict()

    whole = run(22)
    resumed = run(13, run(9))
    assert all(torch.equal(resumed[0][name], value) for name, value in whole[0].items())
    assert {k: v for k, v in resumed[1].items() if k != "optimizer"} == {
        k: v for k, v in whole[1].items() if k != "optimizer"
    }


def test_a_batch_that_is_not_finite_leaves_rho(batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(small_model())
    before = sigmas(model)
    update = CrossRegularizer(model, "classification", [(batch[0] * math.nan, batch[1])], interval=1).step()
    assert update is not None
    assert not update.applied
    assert sigmas(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rho_step_under_autocast_points_where_float32_points(dtype: torch.dtype, batch: tuple[Tensor, Tensor]) -> None:
    found = {}
    for autocast in (None, dtype):
        model = inject_noise(small_model("layer"), initial_sigma=0.5)
        regularizer = CrossRegularizer(model, "classification", [batch], interval=1, samples=4)
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            update = regularizer.step()
        assert update is not None
        assert update.applied
        found[autocast] = torch.cat([g.reshape(-1).float() for g in update.gradients.values()])
    assert F.cosine_similarity(found[None], found[dtype], dim=0) > 0.97


def test_regression_average_is_a_mixture() -> None:
    draws = torch.tensor([[-1.0], [3.0]])
    target = torch.tensor([3.0])
    loss = GaussianRegression()
    kept = torch.stack([loss.per_draw(d[:, None], target, torch.tensor(0.5)) for d in draws])
    density = torch.distributions.Normal(draws[:, 0], 0.5).log_prob(target).exp().mean()
    torch.testing.assert_close(loss.of_draws(kept, target), -density.log())


def test_classification_survives_confidence_beyond_float_range() -> None:
    logits = torch.tensor([[0.0, 500.0], [500.0, 0.0]], requires_grad=True)
    loss = Classification()
    kept = torch.stack([loss.per_draw(logits, torch.tensor([0, 0]), torch.ones(()))] * 2)
    value = loss.of_draws(kept, torch.tensor([0, 0]))
    value.backward()
    assert value.item() == pytest.approx(250)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_predict_averages_probabilities_and_gives_their_spread(batch: tuple[Tensor, Tensor]) -> None:
    model = inject_noise(small_model(), initial_sigma=0.8)
    model.output_temperature[0].rho.data.fill_(rho_from_sigma(2.0))
    result = predict(model, batch[0], 5, seed=3)
    assert torch.equal(predict(model, batch[0], 5, seed=3).mean, result.mean)
    assert not torch.equal(predict(model, batch[0], 5, seed=4).mean, result.mean)
    torch.testing.assert_close(result.mean.sum(1), torch.ones(24))
    from crossreg import sampling

    with sampling(model), torch.no_grad():
        torch.manual_seed(3)
        draws = torch.stack([torch.softmax(model(batch[0]) / 2, 1) for _ in range(5)])
    torch.testing.assert_close(result.mean, draws.mean(0))
    torch.testing.assert_close(result.spread, draws.std(0))
    assert model.training
    assert not predict(small_model(), batch[0], 5).spread.any()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda m: CrossRegularizer(small_model(), "classification", [0]), "nothing to learn"),
        (lambda m: CrossRegularizer(m, "classification", [0], interval=0), "interval is 0"),
        (lambda m: CrossRegularizer(m, "classification", [0], samples=0), "samples is 0"),
        (lambda m: CrossRegularizer(m, "classification", [0], lr=-1), "lr is -1"),
        (lambda m: CrossRegularizer(m, "classification", []), "yields no batch"),
        (lambda m: CrossRegularizer(m, "classification", iter([]), interval=1).step(), "yields no batch"),
        (lambda m: CrossRegularizer(m, nn.L1Loss(), [0]), "L1Loss.*subclass of crossreg.Loss"),
        (lambda m: predict(m, torch.zeros(2, 8), 0), "samples is 0"),
    ],
)
def test_mistakes_are_named(wrong: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong(inject_noise(small_model()))  # type: ignore[operator]


def test_memory_of_replay_does_not_grow_with_samples() -> None:
    """Count the bytes that autograd saves at any one time: one draw's worth, however many draws."""
    model = inject_noise(nn.Sequential(nn.Linear(32, 256), nn.LayerNorm(256), nn.ReLU(), nn.Linear(256, 3)))
    x, y = torch.randn(64, 32), torch.randint(0, 3, (64,))
    rho = list(rho_parameters(model).values())

    def peak(samples: int) -> int:
        alive = highest = 0

        class Saved:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal alive, highest
                self.tensor, self.size = tensor, tensor.numel()
                alive += self.size
                highest = max(highest, alive)

            def __del__(self) -> None:
                nonlocal alive
                alive -= self.size

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            Direct().gradient(model, Classification(), x, y, rho, [Draw(k) for k in range(samples)])
        return highest

    assert peak(16) < 1.2 * peak(1)
    assert peak(1) > 64 * 256
    assert all(not noise.learning for noise in noise_layers(model).values())
