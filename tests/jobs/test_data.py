"""`crossreg data` says how data were read, and what cannot be read is refused before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossreg.jobs import cli

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = ROOT / "examples" / "people.csv"


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["crossreg", "data", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert int(stop.value.code or 0) == code


def described(*arguments: str, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> dict[str, Any]:
    run(*arguments, "--json", monkeypatch=monkeypatch)
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_a_table_is_described(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    found = described(str(PEOPLE), "--target", "renewed", monkeypatch=monkeypatch, capfd=capfd)
    kinds = {one["name"]: one["kind"] for one in found["features"]}
    assert kinds == {
        "age": "number", "city": "category", "smoker": "boolean", "joined": "date", "income": "number",
        "customer id": "dropped",
    }  # fmt: skip
    blank = sum(line.split(",")[1] == "" for line in PEOPLE.read_text().splitlines())
    assert next(one["missing"] for one in found["features"] if one["name"] == "age") == blank
    assert found["task"] == "classification"
    assert {label: sum(counts.values()) for label, counts in found["classes"].items()} == {
        "no": PEOPLE.read_text().count(",no\n"), "yes": PEOPLE.read_text().count(",yes\n")
    }  # fmt: skip
    assert sum(found["splits"].values()) == 600
    assert found["input_shape"] == [13]
    assert found["skipped"] == {}
    assert found["duplicates"] == {"reg": 0, "test": 0}
    assert found["notes"] == ["column 'income' is read with ',' between thousands"]
    run(str(PEOPLE), "--target", "renewed", monkeypatch=monkeypatch)
    out = capfd.readouterr().out
    assert "customer id  dropped            all its values are different, as names and ids are" in out
    assert "note: column 'income'" in out


def test_images_are_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for label in ("cat", "dog"):
        folder = tmp_path / "pets" / label
        folder.mkdir(parents=True)
        for index in range(10):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        (folder / "again.png").write_bytes((folder / "0.png").read_bytes())
        (folder / "raw.heic").write_bytes(b"x")
    found = described(str(tmp_path / "pets"), monkeypatch=monkeypatch, capfd=capfd)
    assert found["skipped"] == {".heic": 2}
    assert (found["features"], found["input_shape"], found["input_dtype"]) == ([], [3, 8, 8], "uint8")
    # found by looking at each pair of the splits
    from crossreg.services.data import DataConfig, load_data

    data = load_data(DataConfig(name=str(tmp_path / "pets")))
    train, reg, test = ([row.tobytes() for row in split.x] for split in (data.train, data.reg, data.test))
    doubled = {"reg": sum(row in train for row in reg), "test": sum(row in train + reg for row in test)}
    assert found["duplicates"] == doubled


def test_a_regression_is_described(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    found = described("diabetes", monkeypatch=monkeypatch, capfd=capfd)
    assert found["classes"] == {}
    assert [one["name"] for one in found["features"]] == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert 100 < found["target"][0]["mean"] < 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.csv"], "nope.csv: no such file or folder"),
        (["digit"], "unknown dataset 'digit'; did you mean 'digits'?"),
        ([str(PEOPLE)], "which column is the target?"),
        ([str(PEOPLE), "--target", "renewd"], "no column 'renewd'; did you mean 'renewed'?"),
        ([str(PEOPLE), "--target", "renewed", "--kind", "age"], "--kind 'age' is not of the form NAME=VALUE"),
        ([str(PEOPLE), "--target", "renewed", "--kind", "age=colour"], "kinds.age is 'colour'"),
        ([str(PEOPLE), "--target", "renewed", "--drop", "ages"], "--drop names 'ages'; did you mean 'age'?"),
        (
            [str(PEOPLE), "--target", "renewed", "--split-by", "city", "--time-order", "joined"],
            "splits are made in one way",
        ),
        (["iris", "--image-size", "8"], "image_size=8 is for image folders only"),
        (["digits", "--keys", "z=a"], "keys names 'z'; allowed are x, y, x_test, y_test"),
    ],
)
@pytest.mark.parametrize("command", ["data", "train", "compare"])
def test_what_cannot_be_read_is_refused_and_nothing_written(
    command: str, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    given = [command, *arguments] if command == "data" else [command, "--data", *arguments]
    monkeypatch.setattr(sys, "argv", ["crossreg", *given])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    said = capfd.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["data"], ["train", "--data"], ["compare", "--data"]])
def test_bad_data_are_refused_before_anything_heavy_is_imported(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,label\n" + "1,u\n" * 20 + "x,v\n")
    code = f"""
import sys
sys.argv = ["crossreg", *{command!r}, "bad.csv"]
from crossreg.jobs import cli
try:
    cli.main()
finally:
    print([name for name in ("torch._dynamo", "ray", "mlflow", "sklearn") if name in sys.modules])
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "column 'a' holds numbers but for 'x' in data row 21" in done.stderr
    assert done.stdout.strip() == "[]"
