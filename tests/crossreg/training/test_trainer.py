from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crossreg import (
    Batches,
    Callback,
    Classification,
    CrossRegularizer,
    EvaluationPlan,
    Preprocess,
    SaveCheckpoint,
    Trainer,
    UserError,
    augmentation,
    inject_noise,
    load_checkpoint,
    save_checkpoint,
)
from crossreg.training.unused import unused_parameters
from tests.crossreg.conftest import small_model


def data(rows: int = 96, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator)
    return x, x[:, :3].argmax(1)


def trainer(steps: int = 40, callbacks: tuple[Callback, ...] = (), **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(small_model(), nn.Dropout(0.1))
    inject_noise(model)
    train, reg, test = (Batches(*data(rows, seed), 16, seed=seed, drop_last=True) for rows, seed in
                        ((96, 1), (32, 2), (48, 3)))  # fmt: skip
    regularizer = CrossRegularizer(model, "classification", reg, interval=3)
    optimizer = torch.optim.AdamW(regularizer.theta, lr=5e-3)
    return Trainer(
        model,
        "classification",
        optimizer,
        train,
        regularizer=regularizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        steps=steps,
        evaluation=EvaluationPlan(splits={"reg": reg, "test": test}, every=10),
        log_every=4,
        callbacks=callbacks,
        **options,
    )


class Stop(Callback):
    def __init__(self, step: int, directory: Path) -> None:
        self.step, self.directory = step, directory

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            save_checkpoint(trainer.state_dict(), self.directory, model="small")
            raise InterruptedError


class Record(Callback):
    def __init__(self) -> None:
        self.values: list[tuple[int, dict[str, float]]] = []

    def on_metrics(self, trainer: Trainer, values: dict[str, float]) -> None:
        self.values.append((trainer.step, values))


@pytest.mark.parametrize("stop", [1, 17, 30])
def test_resume_is_exact_in_weights_sigma_optimizers_and_metrics(stop: int, tmp_path: Path) -> None:
    whole_record, resumed_record = Record(), Record()
    whole = trainer(callbacks=(whole_record,))
    whole.fit()
    with pytest.raises(InterruptedError):
        trainer(callbacks=(Stop(stop, tmp_path),)).fit()
    torch.manual_seed(99)
    resumed = trainer(callbacks=(resumed_record,))
    resumed.load_state_dict(load_checkpoint(tmp_path, model="small"))
    resumed.fit()
    a, b = whole.state_dict(), resumed.state_dict()
    clock = ("worker_seconds", "seconds", "latest")
    assert_equal({k: v for k, v in a.items() if k not in clock}, {k: v for k, v in b.items() if k not in clock})

    clocks = ("usage/worker_seconds", "usage/peak_memory_bytes")

    def rows(record: Record) -> list[tuple[int, dict[str, float]]]:
        timeless = ((s, {k: v for k, v in m.items() if k not in clocks}) for s, m in record.values)
        return [(s, m) for s, m in timeless if s > stop]

    assert rows(resumed_record) == rows(whole_record)
    assert len(rows(whole_record)) >= 3


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b or (a != a and b != b)


def test_training_learns_and_reports_under_the_agreed_keys() -> None:
    record = Record()
    run = trainer(steps=120, callbacks=(record,))
    latest = run.fit()
    assert latest["test/accuracy"] > 0.6
    assert {"train/loss", "train/accuracy", "reg/loss", "test/nll", "test/ece", "test/brier",
            "regularizers/noise/00_0.1", "regularizers/noise/01_0.4", "regularizers/temperature",
            "usage/examples", "usage/flops", "epoch"} <= set(latest)  # fmt: skip
    assert [s for s, m in record.values if "reg/loss" in m] == list(range(3, 121, 3))
    assert [s for s, m in record.values if "test/nll" in m] == list(range(10, 121, 10))


def test_ledger_adds_up_against_a_hand_count() -> None:
    run = trainer(steps=12)
    run.fit()
    assert run.ledger is not None
    k, batch = 3, 16
    forward = 2 * (8 * 16 + 16 * 12 + 12 * 3)
    assert run.ledger.flops_per_example["forward"] == forward
    # backward: weight gradients everywhere, input gradients everywhere but in the first layer
    assert run.ledger.flops_per_example["theta"] == 3 * forward - 2 * 8 * 16
    # 2K - 1 forward passes, and as many backward as there are draws, both of the layers after the first noise; the
    # layer before it once
    after = forward - 2 * 8 * 16
    assert run.ledger.flops_per_example["rho"] * (2 * k - 1) == 2 * 8 * 16 + (2 * k - 1) * after + k * after
    evaluations = 3 * (32 + 48) + 16 * (32 + 48)  # at step 10 with 3 draws, at the end with 16
    assert run.ledger.examples == {"theta": 12 * batch, "rho": 4 * (2 * k - 1) * batch, "report": evaluations}
    assert run.ledger.backward == {"theta": 12 * batch, "rho": 4 * k * batch}


def test_regularization_rows_never_reach_theta() -> None:
    """With poisoned regularization rows, weights only change through the noise; without noise not at all."""
    first, second = trainer(steps=2), trainer(steps=2)
    assert second.regularizer is not None
    second.regularizer.reg_loader.x.fill_(1e3)  # type: ignore[attr-defined]
    first.fit()
    second.fit()  # interval 3: no rho step yet
    assert_equal(dict(first.model.state_dict()), dict(second.model.state_dict()))


def test_batches_cover_every_row_once_an_epoch_in_a_new_order() -> None:
    x = torch.arange(50)
    batches = Batches(x, x, 8, seed=3)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        parts = [part for part, _ in batches]
        assert len(parts) == len(batches) == 7
        epochs.append(torch.cat(parts))
    assert not torch.equal(epochs[0], epochs[1])
    assert all(torch.equal(e.sort().values, x) for e in epochs)
    batches.set_epoch(0)
    assert torch.equal(torch.cat([p for p, _ in batches.starting_at(3)]), epochs[0][24:])
    assert sum(len(p) for p, _ in Batches(x, x, 8, drop_last=True)) == 48


def test_batches_of_shapes_alone_stay_without_data() -> None:
    x, y = torch.empty(10, 3, device="meta"), torch.empty(10, device="meta", dtype=torch.long)
    batches = list(Batches(x, y, 4, seed=1, device="meta"))
    assert [(tuple(a.shape), tuple(b.shape)) for a, b in batches] == [((4, 3), (4,)), ((4, 3), (4,)), ((2, 3), (2,))]
    assert all(part.is_meta for pair in batches for part in pair)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_preprocess_standardizes_numbers_of_any_type_alike(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (200, 3, 4, 4), dtype=torch.uint8)
    real = images.float()
    mean, std = real.mean((0, 2, 3)), real.std((0, 2, 3))
    out = Preprocess(mean, std)(images.to(dtype))
    torch.testing.assert_close(out, (real - mean.view(3, 1, 1)) / std.view(3, 1, 1), rtol=1e-4, atol=1e-5)


def test_augmentation_moves_and_flips_pixels_and_repeats_with_the_seed() -> None:
    x = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).repeat(64, 2, 1, 1)
    for name in ("flip", "crop-flip"):
        function = augmentation(name)
        assert function is not None
        out, again = (function(x, torch.Generator().manual_seed(0)) for _ in range(2))
        assert torch.equal(out, again)
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert torch.equal(out[:, 0], out[:, 1])  # channels move together
        flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(out, x, strict=True)]
        assert any(flipped)
        kept = out[out > 0].unique()
        assert set(kept.tolist()) <= set(range(1, 65))
    assert augmentation("none") is None
    with pytest.raises(UserError, match="'mixup'.*crop-flip"):
        augmentation("mixup")


def test_checkpoint_opens_with_weights_only_and_refuses_what_it_is_not(tmp_path: Path) -> None:
    trainer(steps=4, callbacks=(SaveCheckpoint(tmp_path, 2, model="small"),)).fit()
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    assert content["state"]["step"] == 4
    with pytest.raises(UserError, match="model 'small', this run has 'vgg16'"):
        load_checkpoint(path, model="vgg16")
    with pytest.raises(UserError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "missing.pt")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a complete crossreg checkpoint"):
            load_checkpoint(path)


def test_saving_over_a_checkpoint_never_leaves_a_broken_one(tmp_path: Path) -> None:
    save_checkpoint({"step": 1}, tmp_path)

    class Unsaveable:
        def __reduce__(self) -> Any:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint({"step": Unsaveable()}, tmp_path)
    assert load_checkpoint(tmp_path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains(dtype: torch.dtype) -> None:
    latest = trainer(steps=80, autocast=dtype).fit()
    assert math.isfinite(latest["train/loss"])
    assert latest["test/accuracy"] > 0.5


def test_regression_learns_its_observation_noise() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2000, 4, generator=generator)
    y = x @ torch.tensor([[1.0], [-1.0], [0.5], [0.0]]) + 0.5 * torch.randn(2000, 1, generator=generator)
    model = inject_noise(nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 1)))
    train, reg, test = (
        Batches(x[a:b], y[a:b], 100, drop_last=True) for a, b in ((0, 1000), (1000, 1500), (1500, 2000))
    )
    regularizer = CrossRegularizer(model, "regression", reg, interval=5)
    optimizer = torch.optim.AdamW(regularizer.theta, lr=1e-2)
    plan = EvaluationPlan(splits={"test": test})
    run = Trainer(model, "regression", optimizer, train, regularizer=regularizer, epochs=60, evaluation=plan)
    latest = run.fit()
    assert latest["regularizers/temperature"] == pytest.approx(0.5, abs=0.12)
    assert latest["test/rmse"] < 0.62
    assert latest["test/nll"] == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.25), abs=0.2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Batches(torch.zeros(3), torch.zeros(2), 1), "3 rows and y has 2"),
        (lambda: Batches(torch.zeros(0), torch.zeros(0), 1), "0 rows"),
        (lambda: Batches(torch.zeros(3), torch.zeros(3), 0), "batch size is 0"),
        (lambda: Batches(torch.zeros(3), torch.zeros(3), 4, drop_last=True), "batch size is 4.*only 3"),
        (lambda: trainer(steps=0), "0 steps"),
        (lambda: Trainer(small_model(), "classification", None, None, epochs=1, steps=1), "give one"),  # type: ignore
    ],
)
def test_mistakes_are_named(wrong: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()


def test_what_was_frozen_stays_in_evaluation_mode() -> None:
    model = small_model()
    model[1].eval()  # its statistics are to stay; the noise after it draws all the same
    inject_noise(model, initial_sigma=0.5)
    model[0].requires_grad_(False)
    train, reg = Batches(*data(96, 1), 16), Batches(*data(32, 2), 16)
    regularizer = CrossRegularizer(model, "classification", reg, interval=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training = Trainer(
        model, "classification", torch.optim.AdamW(regularizer.theta), train, regularizer=regularizer, steps=9
    )
    training.fit()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert not changed & {"0.weight", "0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert {"1.weight", "1.noise.rho", "4.running_mean", "6.weight"} <= changed
    assert model[1].noise.training
    assert not model[1].training


def test_parameters_that_play_no_part_are_named() -> None:
    model = small_model()
    model[2].spare = nn.Linear(2, 2)
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    x, y = data(8)
    assert unused_parameters(model.eval(), Classification(), x, y) == ["2.spare.weight", "2.spare.bias"]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert torch.get_rng_state().equal(state)
    assert not model.training
