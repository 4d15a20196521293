"""`crossreg predict`: what it writes, scores and says, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from crossreg.jobs import cli
from crossreg.prediction import calibration
from crossreg.prediction.export import load_exported
from crossreg.services.data import load_data
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.publish import export_training
from crossreg.services.training.resolve import resolve

ROOT = Path(__file__).resolve().parents[2]
PEOPLE, NEW = ROOT / "examples" / "people.csv", ROOT / "examples" / "new_people.csv"


def train(folder: Path, data: dict[str, Any]) -> Path:
    config = TrainConfig.model_validate({"data": data, "steps": 40, "model_options": {"hidden": 16}, "model": "mlp"})
    loaded = load_data(config.data)
    resolved = resolve(config, loaded)
    trainer = build_trainer(resolved, loaded, torch.device("cpu"))
    trainer.fit()
    export_training(resolved, loaded, trainer.model, folder)
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("people"), {"name": str(PEOPLE), "target": "renewed"})


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("diabetes"), {"name": "diabetes"})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("digits"), {"name": "digits"})


def run(*arguments: Any, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["crossreg", "predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert int(stop.value.code or 0) == code


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_row_an_input_is_written_and_scored(
    kind: str, people: Path, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    output = tmp_path / f"answers.{kind}"
    run(people, "--data", NEW, "--output", output, "--json", monkeypatch=monkeypatch)
    told = json.loads(capfd.readouterr().out)
    answers = pd.read_parquet(output) if kind == "parquet" else pd.read_csv(output)
    rows = pd.read_csv(NEW)
    expected = load_exported(people)(rows)
    assert list(answers) == ["label", "probability_no", "probability_yes"]
    np.testing.assert_allclose(answers.iloc[:, 1:].to_numpy(), expected, atol=1e-6)
    right = torch.from_numpy((rows["renewed"] == "yes").to_numpy().astype(np.int64))
    assert told["scores"] == pytest.approx(calibration.score(torch.from_numpy(expected), right).as_dict(), rel=1e-5)
    assert (told["examples"], told["output"], told["notes"], told["warnings"]) == (20, str(output), [], [])


def test_without_output_the_rows_are_on_stdout(people: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    rows = pd.read_csv(NEW).drop(columns="renewed").assign(city="Atlantis", more=1)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    run(people, "--data", tmp_path / "rows.csv", monkeypatch=monkeypatch)
    said = capfd.readouterr()
    assert len(said.out.splitlines()) == 21
    assert "note: not used, for training's table did not have 'more'" in said.err
    assert "'city' has values that training never saw in 20 rows (all 'Atlantis' in row 1)" in said.err
    assert "scores" not in said.err
    run(people, "--data", tmp_path / "rows.csv", "--json", monkeypatch=monkeypatch)
    told = json.loads(capfd.readouterr().out)
    assert len(told["predictions"]) == 20
    assert told["scores"] == {}


def test_a_regression_gives_mean_and_deviation(diabetes: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progress"})
    frame.loc[:2, "progress"] = np.nan
    frame.to_csv(tmp_path / "rows.csv", index=False)
    run(diabetes, "--data", tmp_path / "rows.csv", "--target", "progress", "--json", monkeypatch=monkeypatch)
    told = json.loads(capfd.readouterr().out)
    found = pd.DataFrame(told["predictions"])
    assert list(found) == ["mean", "std"]
    assert (found["std"] > 1).all()  # in the target's units: the learned noise of an observation
    error = (found["mean"] - frame["progress"]).dropna()
    assert told["scores"] == {"rmse": pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)}
    assert told["notes"] == ["3 of 442 rows have no right answer and are not scored"]
    output = tmp_path / "answers.csv"
    arguments = ("--data", tmp_path / "rows.csv", "--target", "progress", "--output", output)
    run(diabetes, *arguments, monkeypatch=monkeypatch)
    said = capfd.readouterr()
    assert f"442 predictions written to {output}" in said.out
    assert f"scores: RMSE {told['scores']['rmse']:.4g} (in units of the target, whose standard deviation is" in said.out
    assert "RMSE" not in said.err
    frame.assign(bmi=1000 * frame["bmi"]).to_csv(tmp_path / "grams.csv", index=False)
    run(diabetes, "--data", tmp_path / "grams.csv", "--output", output, monkeypatch=monkeypatch)
    assert "warning: column 'bmi': " in capfd.readouterr().err


def test_images_below_class_folders_are_named_and_scored(
    digits: Path, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    data = load_data(TrainConfig.model_validate({"data": {"name": "digits"}}).data)
    for row in range(12):
        folder = tmp_path / "images" / data.classes[data.test.y[row]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.test.x[row, 0]).save(folder / f"{row}.png")
    (tmp_path / "images" / "notes.txt").write_text("x")
    run(digits, "--data", tmp_path / "images", "--json", monkeypatch=monkeypatch)
    told = json.loads(capfd.readouterr().out)
    expected = load_exported(digits)(data.test.x[:12])
    for one in told["predictions"]:
        label, name = Path(one["file"]).parts
        assert data.classes[data.test.y[int(Path(name).stem)]] == label
        found = [one[f"probability_{digit}"] for digit in range(10)]
        np.testing.assert_allclose(found, expected[int(Path(name).stem)], atol=1e-5)
    assert 0 <= told["scores"]["accuracy"] <= 1
    assert told["notes"] == ["1 files are no images that can be read, and were skipped: 1 .txt"]
    one = next((tmp_path / "images").rglob("0.png"))
    run(digits, "--data", one, "--json", monkeypatch=monkeypatch)
    assert len(json.loads(capfd.readouterr().out)["predictions"]) == 1


def write(folder: Path, name: str, **changes: Any) -> Path:
    frame = pd.read_csv(NEW)
    frame.assign(**changes).drop(columns=[key for key, value in changes.items() if value is None]).to_csv(
        folder / name, index=False
    )
    return folder / name


def test_what_is_refused(people: Path, digits: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    image = tmp_path / "big.png"
    Image.new("L", (9, 8)).save(image)
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 5), np.uint8))
    np.savez(tmp_path / "named.npz", images=np.zeros((3, 1, 8, 8), np.uint8))
    cases: list[tuple[list[Any], str]] = [
        ([people, "--data", "nope.csv"], "nope.csv: no such file"),
        ([people, "--data", write(tmp_path, "no_age.csv", age=None)], "no_age.csv: column 'age' is missing"),
        (
            [people, "--data", write(tmp_path, "old.csv", age="old")],
            "old.csv: column 'age' holds 'old' in row 1 (20 such",
        ),
        (
            [people, "--data", write(tmp_path, "t.csv", renewed="maybe")],
            "the right answer in row 1 is 'maybe'; the model's classes",
        ),
        ([people, "--data", NEW, "--target", "renwed"], "no column 'renwed'"),
        ([people, "--data", NEW, "--output", tmp_path / "a.xlsx"], "allowed are .csv, .parquet"),
        ([people, "--data", NEW, "--output", tmp_path / "no" / "a.csv"], "there is no folder"),
        ([people, "--data", tmp_path], "is a folder; this model takes rows of a table"),
        ([people, "--data", tmp_path / "x.npz"], "an array of numbers cannot hold column 'city' (category)"),
        ([digits, "--data", NEW], "is a table; this model takes arrays (.npz, .npy) of shape (N, 1, 8, 8), or images"),
        ([digits, "--data", tmp_path / "x.npz"], "x.npz: inputs have shape (1, 5); this model takes (N, 1, 8, 8)"),
        ([digits, "--data", tmp_path / "named.npz"], "no array 'x'; found images; name it with --keys x=NAME"),
        ([digits, "--data", image], "big.png: is 9x8 pixels, but the model takes 8x8"),
        ([tmp_path, "--data", NEW], "the folder holds no exported model"),
        (["models:/nobody@champion", "--data", NEW, "--tracking-uri", f"sqlite:///{tmp_path}/m.db"], "no model"),
        (["nobody", "--data", NEW], "is no model's URI; allowed are"),
    ]
    for arguments, message in cases:
        run(*arguments, monkeypatch=monkeypatch, code=2)
        said = capfd.readouterr()
        assert message in said.err, message
        assert said.out == ""


def test_answers_are_read_as_the_target_was(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    draw = np.random.default_rng(0)
    rows = [f"{draw.random():.3f};{int(v):,}".replace(".", "§").replace(",", ".").replace("§", ",") + ",50" for v in
            draw.integers(3000, 9000, 90)]  # fmt: skip
    (tmp_path / "preise.csv").write_text("a;preis\n" + "\n".join(rows) + "\n")
    model = train(tmp_path / "model", {"name": str(tmp_path / "preise.csv"), "target": "preis"})
    (tmp_path / "neu.csv").write_text("a;preis\n0,5;5.600\n0,7;4.000\n")
    run(model, "--data", tmp_path / "neu.csv", "--json", monkeypatch=monkeypatch)
    assert json.loads(capfd.readouterr().out)["scores"]["rmse"] < 4000  # thousands, not 5.6 and 4
    percent = "a,y\n" + "1.5,10 %\n2.5,20 %\n3.5,10 %\n" * 30
    (tmp_path / "percent.csv").write_text(percent)
    model = train(tmp_path / "classes", {"name": str(tmp_path / "percent.csv"), "target": "y"})
    run(model, "--data", tmp_path / "percent.csv", "--json", monkeypatch=monkeypatch)
    assert json.loads(capfd.readouterr().out)["scores"]["accuracy"] > 0.3


def test_right_answers_of_other_shapes(digits: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    x = np.zeros((4, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "bytes.npz", x=x, y=np.array([b"1", b"2", b"3", b"1"]))
    run(digits, "--data", tmp_path / "bytes.npz", "--json", monkeypatch=monkeypatch)
    assert "accuracy" in json.loads(capfd.readouterr().out)["scores"]
    for y, message in (
        (np.eye(10)[:4], "a class is one value: pass one-hot"),
        (np.zeros((4, 2, 2)), "y has shape (4, 2, 2)"),
    ):
        np.savez(tmp_path / "odd.npz", x=x, y=y)
        run(digits, "--data", tmp_path / "odd.npz", monkeypatch=monkeypatch, code=2)
        assert message in capfd.readouterr().err


def test_other_names_of_arrays(digits: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    data = load_data(TrainConfig.model_validate({"data": {"name": "digits"}}).data)
    np.savez(tmp_path / "named.npz", images=data.test.x[:30], digit=data.test.y[:30])
    run(digits, "--data", tmp_path / "named.npz", "--keys", "x=images,y=digit", "--json", monkeypatch=monkeypatch)
    told = json.loads(capfd.readouterr().out)
    assert len(told["predictions"]) == 30
    assert set(told["scores"]) == {"accuracy", "nll", "brier", "ece"}


def test_an_output_that_cannot_be_written_leaves_the_earlier_one(
    people: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from crossreg.services.prediction import writing

    output = tmp_path / "answers.csv"
    output.write_text("earlier")
    monkeypatch.setattr(pd.DataFrame, "to_csv", _full)
    with pytest.raises(Exception, match="cannot be written: No space left"):
        writing.write(pd.DataFrame({"a": [1]}), output)
    assert output.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [output]


def _full(*arguments: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")
