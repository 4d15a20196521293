"""What is exported predicts what was trained, from raw inputs, whichever way one asks: over every kind of data."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from crossreg.prediction.export import load_exported
from crossreg.services.data import Dataset, load_data
from crossreg.services.prediction import open_model, predict_file
from crossreg.services.serving.inputs import from_image, from_json
from crossreg.services.tracking import TrackingConfig
from crossreg.services.tracking.model import save_model
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.publish import export_training
from crossreg.services.training.resolve import resolve

RNG = np.random.default_rng(0)
N, TEST = 90, 12


@dataclass
class Case:
    """Data in a file, and the raw test inputs in their order.

    Attributes:
        path: what is trained on.
        raw: test inputs as a caller has them: an array, a DataFrame, or paths of image files.
        file: holds them for `crossreg predict`.
        options: of the data.
        model: trained; None takes what fits the data.
    """

    path: Path
    raw: Any
    file: Path
    options: dict[str, Any]
    model: str | None = None


def arrays(x: np.ndarray, **options: Any) -> Callable[[Path], Case]:
    def write(folder: Path) -> Case:
        y = RNG.normal(size=N) * 5 + 1.7e9 if options.pop("regression", False) else np.arange(N) % 3
        path, file = folder / "data.npz", folder / "test.npz"
        np.savez(path, x=x[TEST:], y=y[TEST:], x_test=x[:TEST], y_test=y[:TEST])
        np.savez(file, x=x[:TEST], y=y[:TEST])
        return Case(
            path, x[:TEST], file, {key: value for key, value in options.items() if key != "model"}, options.get("model")
        )

    return write


def table(kind: str, **columns: Any) -> Callable[[Path], Case]:
    def write(folder: Path) -> Case:
        frame = pd.DataFrame(
            {
                "when": [str(np.datetime64("2024-01-01") + day) for day in range(N)],
                "smoker": np.arange(N) % 4 == 0,
                "age": np.where(np.arange(N) % 7 == 0, np.nan, 20 + np.arange(N) % 50),
                "city": [("Köln", "Bonn", None)[row % 3] for row in range(N)],
                "since": pd.date_range("2001-01-01", periods=N, freq="17h").astype(str),
                "label": columns.get("label", np.where(np.arange(N) % 3 == 0, "yes", "no")),
            }
        )
        path, file = folder / f"data.{kind}", folder / f"test.{kind}"
        for part, place in ((frame, path), (frame.tail(TEST), file)):
            part.to_parquet(place) if kind == "parquet" else part.to_csv(place, index=False)
        raw = pd.read_csv(file) if kind == "csv" else frame.tail(TEST).reset_index(drop=True)
        return Case(path, raw, file, {"time_order": "when", "test_share": TEST / N})

    return write


def pictures(folder: Path, size: tuple[int, int] = (8, 8), **options: Any) -> Case:
    for split, count in (("train", 13), ("test", 2)):
        for label in ("cat", "dog", "emu"):
            (folder / "images" / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / label / f"{index}.png")
    test = folder / "images" / "test"
    return Case(folder / "images", sorted(test.rglob("*.png")), test, options)


CASES: dict[str, Callable[[Path], Case]] = {
    "float images": arrays(RNG.random((N, 1, 8, 8)).astype(np.float32)),
    "float images, channels last": arrays(RNG.random((N, 8, 8, 3))),
    "int16 images": arrays(RNG.integers(-500, 500, (N, 1, 8, 8)).astype(np.int16)),
    "uint8 images": arrays(RNG.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)),
    "uint8 images, channels last": arrays(RNG.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)),
    "grey uint8 images": arrays(RNG.integers(0, 256, (N, 8, 8), dtype=np.uint8)),
    "flat bytes": arrays(RNG.integers(0, 256, (N, 16), dtype=np.uint8)),
    "floats with an offset": arrays(RNG.normal(size=(N, 4)) + np.array([0, 1.7e9, 0, -1e8])),
    "whole numbers": arrays(RNG.integers(0, 9, (N, 5))),
    "tokens": arrays(RNG.integers(0, 9, (N, 5)), model="tests.services.prediction.tokens:model"),
    "not standardized": arrays(RNG.normal(size=(N, 4)), raw=True),
    "regression": arrays(RNG.normal(size=(N, 4)), regression=True),
    "one number": arrays(RNG.normal(size=N)),
    "csv": table("csv"),
    "parquet": table("parquet"),
    "regression of a table": table("csv", label=RNG.normal(size=N) + 1e6),
    "image files": pictures,
    "image files brought to a size": lambda folder: pictures(folder, (9, 12), image_size=8),
}


@pytest.mark.parametrize("name", CASES)
def test_every_way_of_asking_gives_trainings_own_predictions(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "cache"))
    case = CASES[name](tmp_path)
    data, expected = trained(case, tmp_path / "model")
    exported = load_exported(tmp_path / "model")
    asked = {"predict": from_file(case, tmp_path), "server": from_server(case, exported)}
    if not isinstance(case.raw, list):
        asked |= {"library": exported(case.raw), "pyfunc": from_pyfunc(case, data, tmp_path)}
    for way, found in asked.items():
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-6, err_msg=way)


def trained(case: Case, folder: Path) -> tuple[Dataset, np.ndarray]:
    """Train a little, without noise, export, and return the data and the test predictions of the training itself."""
    model = {} if case.model is None else {"model": case.model}
    given = {"data": {"name": str(case.path), **case.options}, "regularizers": {}, "steps": 6, "epochs": 1} | model
    config = TrainConfig.model_validate(given)
    data = load_data(config.data)
    assert len(data.test) == (6 if isinstance(case.raw, list) else TEST)
    resolved = resolve(config, data)
    trainer = build_trainer(resolved, data, torch.device("cpu"))
    trainer.fit()
    mean = trainer.evaluated["test"].mean.double().numpy()
    if data.task == "regression":
        assert data.target_std is not None
        mean = mean * data.target_std + data.target_mean
    export_training(resolved, data, trainer.model, folder)
    return data, mean


def numbers(frame: pd.DataFrame) -> np.ndarray:
    """Return what is predicted, without labels, deviations and file names."""
    names = [name for name in frame if name.startswith(("probability_", "mean"))]
    return frame[names].to_numpy(np.float64)


def from_file(case: Case, folder: Path) -> np.ndarray:
    trusted = () if case.model is None else (case.model,)
    found = predict_file(open_model(str(folder / "model"), TrackingConfig(), trusted), case.file, batch_size=5)
    assert found.warnings == []
    assert set(found.scores) in ({"accuracy", "nll", "brier", "ece"}, {"rmse"})
    return numbers(found.frame)


def from_pyfunc(case: Case, data: Dataset, folder: Path) -> np.ndarray:
    from mlflow import pyfunc

    save_model(folder / "model", data.example, folder / "logged")
    answer = pyfunc.load_model(str(folder / "logged")).predict(case.raw)
    return numbers(answer) if isinstance(answer, pd.DataFrame) else np.asarray(answer)


def from_server(case: Case, exported: Any) -> np.ndarray:
    """Return the predictions of what a server reads from requests' bodies."""
    if isinstance(case.raw, list):
        bodies = [path.read_bytes() for path in case.raw]
        x = np.concatenate([from_image(body, "image/png", exported, False) for body in bodies])
    elif isinstance(case.raw, pd.DataFrame):
        rows = case.raw.drop(columns=["label", "when"]).to_json(orient="records")
        x = from_json(f'{{"rows": {rows}}}'.encode(), exported, TEST, [])
    else:
        x = from_json(json.dumps({"inputs": case.raw.tolist()}).encode(), exported, TEST, [])
    mean: np.ndarray = exported.predict(x)[0]
    return mean


def test_image_bytes_are_what_arrays_of_them_are(tmp_path: Path, monkeypatch: Any) -> None:
    """A picture sent as a file and as numbers gets one answer."""
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "cache"))
    case = pictures(tmp_path)
    trained(case, tmp_path / "model")
    exported = load_exported(tmp_path / "model")
    body = case.raw[0].read_bytes()
    with Image.open(io.BytesIO(body)) as image:
        pixels = np.asarray(image).transpose(2, 0, 1)
    sent = exported.predict(from_image(body, "image/png", exported, False))[0]
    for dtype in (np.uint8, np.int64, np.float32, np.float64):
        np.testing.assert_allclose(exported(pixels[None].astype(dtype)), sent, atol=1e-6)
