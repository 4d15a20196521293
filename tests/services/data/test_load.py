"""Names, configuration, scikit-learn's datasets, and what an import costs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.datasets import load_diabetes, load_digits

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, known, load_data


@pytest.mark.parametrize(
    ("name", "num", "input_shape", "num_outputs", "task"),
    [
        ("digits", 1797, (1, 8, 8), 10, "classification"),
        ("breast-cancer", 569, (30,), 2, "classification"),
        ("wine", 178, (13,), 3, "classification"),
        ("iris", 150, (4,), 3, "classification"),
        ("diabetes", 442, (10,), 1, "regression"),
    ],
)
def test_bundled(name, num, input_shape, num_outputs, task):
    data = load_data(DataConfig(name=name))
    assert (data.name, data.input_shape, data.num_outputs, data.task) == (
        name,
        input_shape,
        num_outputs,
        task,
    )
    assert len(data.train) + len(data.reg) + len(data.test) == num
    assert len(data.test) == round(0.2 * num)
    assert len(data.classes) == (num_outputs if task == "classification" else 0)


def test_digits_are_images_of_the_right_class():
    data, bunch = load_data(DataConfig(name="digits")), load_digits()
    assert (data.train.x.min(), data.train.x.max(), data.train.x.dtype) == (0, 255, np.uint8)
    label_of = {image.tobytes(): label for image, label in zip(bunch.images, bunch.target, strict=True)}
    restored = np.rint(data.train.x[:, 0] / 255 * 16)
    assert [label_of[image.tobytes()] for image in restored] == data.train.y.tolist()


def test_diabetes_keeps_features_with_their_targets_and_raw_units():
    data = load_data(DataConfig(name="diabetes"))
    x, y = load_diabetes(return_X_y=True, scaled=False)
    target_of = dict(zip(map(tuple, x.astype(np.float32).tolist()), y.tolist(), strict=True))
    assert [target_of[tuple(row)] for row in data.test.x.tolist()] == data.test.y[:, 0].tolist()


def test_every_known_name_has_a_description():
    assert {"digits", "diabetes", "cifar10", "fashion-mnist"} <= set(known())
    assert all(known().values())


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("cifar", ["unknown dataset 'cifar'", "did you mean 'cifar1", "breast-cancer", ".parquet"]),
        ("nothing/here", ["nothing/here: no such file or folder", "looked for /"]),
        ("gone.npz", ["gone.npz: no such file or folder"]),
    ],
)
def test_unknown_names(name, messages):
    with pytest.raises(UserError) as error:
        load_data(DataConfig(name=name))
    for message in messages:
        assert message in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "data.txt").write_text("1 2 3")
    with pytest.raises(UserError, match=r"data\.txt: cannot load a file ending in '\.txt'; allowed: \.npz"):
        load_data(DataConfig(name=str(tmp_path / "data.txt")))


def test_a_target_is_refused_where_it_has_no_meaning():
    with pytest.raises(UserError, match="target='price' is for tables"):
        load_data(DataConfig(name="digits", target="price"))


def test_messages_of_the_split_name_the_data():
    with pytest.raises(UserError, match="iris: limit=500 is more than the 120"):
        load_data(DataConfig(name="iris", limit=500))


def test_a_known_name_comes_before_a_folder(tmp_path, monkeypatch, write_images):
    write_images(tmp_path / "iris", {"setosa": 10, "virginica": 10})
    monkeypatch.chdir(tmp_path)
    assert load_data(DataConfig(name="iris")).input_shape == (4,)
    assert load_data(DataConfig(name="./iris")).input_shape == (3, 6, 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reg_share": -0.1},
        {"reg_share": 0.51},
        {"reg_share": float("nan")},
        {"test_share": 0},
        {"test_share": 0.9},
        {"limit": 0},
        {"limit": -5},
        {"seed": -1},
        {"name": ""},
        {"batch": 3},
    ],
)
def test_the_configuration_is_checked_at_construction(wrong):
    with pytest.raises(ValidationError) as error:
        DataConfig(**{"name": "digits"} | wrong)
    (key, value), (found,) = next(iter(wrong.items())), error.value.errors()
    assert found["loc"] == (key,)
    assert repr(found["input"]) == repr(value)


def test_the_edges_of_the_configuration_are_allowed():
    for edge in ({"reg_share": 0}, {"reg_share": 0.5}, {"test_share": 0.89}, {"limit": 1}):
        DataConfig(name="digits", **edge)


def test_the_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        DataConfig(name="digits").seed = 1


def test_importing_loads_no_library_of_a_loader():
    names = {"torchvision", "sklearn", "pandas", "PIL", "ray", "mlflow"}
    code = f"import sys, crossreg.services.data; print({names} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    assert out.strip() == "set()"
