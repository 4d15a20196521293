"""Training on data that Ray Data reads from disk, on one Ray for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from PIL import Image

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, Dataset, Part, load_data
from crossreg.services.data import stream as stream_module
from crossreg.services.data import streamed as streamed_module
from crossreg.services.tracking import TrackingConfig
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.check import check
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.driver import FinishedTraining, train
from crossreg.services.training.feed import StreamError, feed
from crossreg.services.training.resolve import resolve
from crossreg.services.training.runtime import start_ray
from crossreg.training.trainer import Trainer

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    torch.set_num_threads(1)
    start_ray(Placement(), reading=True)
    yield
    ray.shutdown()


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write grey images, of which a piece holds 40."""
    monkeypatch.setattr(stream_module, "PIECE_BYTES", 40 * 64)
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(200):
            pixels = rng.integers(0, 156, (8, 8), dtype=np.uint8) + np.uint8(40 * label)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index:03}.png")
    return str(tmp_path / "images")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a table of row groups of 50 rows."""
    monkeypatch.setattr(stream_module, "WINDOW_BYTES", 4 * 3 * 100)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=600), "b": rng.normal(size=600), "c": rng.choice(["x", "y"], 600)})
    frame.assign(y=frame.a * 2 + rng.normal(size=600)).to_parquet(tmp_path / "rows.parquet", row_group_size=50)
    return str(tmp_path / "rows.parquet")


def config_of(name: str, stream: bool = True, **settings: Any) -> TrainConfig:
    target = {"target": "y"} if name.endswith(".parquet") else {}
    return TrainConfig.model_validate(
        {
            "model": "mlp",
            "model_options": {"hidden": 8, "linear_skip": False},
            "data": {"name": name, "stream": stream, **target},
            "evaluations": 2,
            **settings,
        }
    )


def loaded(config: TrainConfig) -> Dataset:
    return load_data(config.data, may_stream=True)


def trainer(config: TrainConfig) -> Trainer:
    data = loaded(config)
    return build_trainer(resolve(config, data), data, torch.device("cpu"))


def weights(trained: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("kind", ["images", "rows"])
def test_tasks_yield_the_pieces_in_their_order(request: pytest.FixtureRequest, kind: str) -> None:
    stream = loaded(config_of(request.getfixturevalue(kind))).stream
    assert stream is not None
    pieces = list(stream.train.pieces(Part(3, 2, 1, 16)))
    assert len(pieces) > 3
    found = list(feed(stream.train, 16, 3, lambda y: y)(2, 1))
    np.testing.assert_array_equal(torch.cat([x for x, _ in found]), np.concatenate([one.read() for one in pieces]))
    np.testing.assert_array_equal(torch.cat([y for _, y in found]), np.concatenate([one.y for one in pieces]))


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("schedule", ["found", pytest.param("cosine", marks=pytest.mark.thorough)])
def test_images_are_trained_on_as_in_memory(images: str, schedule: str) -> None:
    """To the bit: the order is the same, and few images are all looked at before."""
    settings = {"optimizer": {"schedule": schedule}, "steps": 90, "batch_size": 40, "ensemble": 2}
    streamed, memory = (trainer(config_of(images, stream, **settings)) for stream in (True, False))
    streamed.fit(), memory.fit()
    assert_equal(weights(streamed), weights(memory))
    if schedule == "found":
        assert streamed.course is not None
        assert streamed.course.merged


@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize("kind", [pytest.param("images", marks=pytest.mark.thorough), "rows"])
def test_a_training_goes_on_in_the_middle_of_an_epoch_to_the_bit(request: pytest.FixtureRequest, kind: str) -> None:
    config = config_of(request.getfixturevalue(kind), optimizer={"schedule": "cosine"}, steps=40, batch_size=16)
    straight = trainer(config)
    assert 1 < len(straight.train) < 40
    straight.fit()
    begun = trainer(config)
    begun.start()
    begun.advance(len(begun.train) + 5)
    state = begun.state_dict()  # random states, which the next trainer sets anew, among it
    resumed = trainer(config)
    resumed.load_state_dict(state)
    resumed.fit()
    assert_equal(weights(resumed), weights(straight))


@pytest.mark.usefixtures("_ray")
def test_an_unreadable_image_is_named(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_module, "SAMPLE_BYTES", 1)
    monkeypatch.setattr(streamed_module, "FEWEST_SAMPLED", 20)
    config = config_of(images, steps=40, batch_size=16, optimizer={"schedule": "cosine"})
    begun = trainer(config)
    data = loaded(config)
    assert data.stream is not None
    bad = data.stream.train.files[int(data.stream.train.rows[-1])]  # type: ignore[attr-defined]
    Path(bad).write_bytes(b"no image")
    with pytest.raises(StreamError, match=f"{bad}: cannot be read as an image"):
        begun.fit()


@pytest.mark.usefixtures("_ray")
@pytest.mark.thorough
def test_a_run_says_that_it_streams_and_goes_on_so(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(rows, steps=60)
    where = Placement(workers=1, storage_path=str(tmp_path / "runs"))
    done: FinishedTraining = train(config, where, TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    data = loaded(config)
    assert resolve(config, data).data.stream
    assert f"trained on {data.num_train} examples" in done.explanation[0]
    assert done.test["rmse"] < 1


def test_what_a_stream_cannot_do_is_refused(images: str) -> None:
    config = config_of(images, regularizers={"l2": {}}, steps=20)
    data = loaded(config)
    with pytest.raises(UserError, match="l2 would be learned by the unrolled gradient, which takes training examples"):
        check(resolve(config, data), data)
    memory = config.model_copy(update={"data": DataConfig(name=images)})
    data = loaded(memory)
    resolved = resolve(memory, data)
    check(resolved, data)
    assert resolved.data.stream is False  # decided once: a run that goes on does not look at free memory again
