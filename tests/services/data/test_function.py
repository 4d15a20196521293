"""Data that a function of one's own returns."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, Dataset, describe, load_data

CODE = """
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

SHIFT = 0.0
rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3))
Y = np.arange(60) % 2

def arrays():
    return X + SHIFT, Y

def tensors():
    return torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)

def lists():
    return X.tolist(), ["yes" if y else "no" for y in Y]

def splits():
    return {"train": (X[:40], Y[:40]), "reg": (X[40:50], Y[40:50]), "test": (X[50:], Y[50:])}

def named():
    return {"x": X, "y": Y, "person": np.arange(60) // 4}

def frame():
    columns = {"a": X[:, 0], "city": ["Bonn", "Köln", "Ulm"] * 20, "sold": X[:, 1] * 10}
    return pd.DataFrame(columns, index=range(100, 160))

class Pictures(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index >= 40:
            raise IndexError(index)
        return Image.fromarray(np.full((9, 8, 3), index, np.uint8)), index % 2

def dataset():
    return Pictures()

def pair():
    tested = TensorDataset(torch.ones(7, 3).double(), torch.ones(7).long())
    return TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), tested

class Endless(IterableDataset):
    def __iter__(self):
        yield 1, 2

def endless():
    return Endless()

def nothing():
    return None

def three():
    return X, Y, X

def frames():
    return frame(), frame()

def other_split():
    return {"train": (X, Y), "holdout": (X, Y)}

def unequal():
    return {"train": (X, Y), "test": (X[:, :2], Y)}

def ragged():
    return [[1.0], [1.0, 2.0]], [0, 1]

def raises():
    raise RuntimeError("no disk")

class Odd(Pictures):
    def __getitem__(self, index):
        return np.zeros(3 if index != 5 else 4), 0

def odd():
    return Odd()

class Unlabelled(Pictures):
    def __getitem__(self, index):
        return np.zeros(3)

def unlabelled():
    return Unlabelled()
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the functions to a module in the working directory, under a name that no other test uses."""
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    return name


def load(module: str, function: str, **settings: object) -> Dataset:
    return load_data(DataConfig.model_validate({"name": f"{module}:{function}", **settings}))


@pytest.mark.parametrize("function", ["arrays", "tensors"])
def test_arrays_are_read_as_those_of_a_file(module, function, tmp_path):
    found = load(module, function)
    own = sys.modules[module]
    np.savez(tmp_path / "data.npz", x=own.X, y=own.Y)
    assert found.fingerprint == load_data(DataConfig(name=str(tmp_path / "data.npz"))).fingerprint
    assert found.name == f"{module}:{function}"


def test_text_in_lists_is_classes(module):
    found = load(module, "lists")
    assert found.classes == ("no", "yes")
    assert found.train.x.dtype == np.float32


def test_splits_of_its_own_are_kept(module):
    found = load(module, "splits")
    own = sys.modules[module]
    np.testing.assert_array_equal(found.test.x, own.X[50:].astype(np.float32))
    assert sorted(map(tuple, found.reg.x)) == sorted(map(tuple, own.X[40:50].astype(np.float32)))
    assert len(found.train) == 40


def test_arrays_of_other_names_split_it(module):
    found = load(module, "named", split_by="person")
    persons = {tuple(row): person for row, person in
               zip(sys.modules[module].X.astype(np.float32), np.arange(60) // 4, strict=True)}  # fmt: skip
    held = [{persons[tuple(row)] for row in split.x} for split in (found.train, found.reg, found.test)]
    assert held[0] | held[1] | held[2] == set(range(15))
    assert sum(map(len, held)) == 15


def test_a_frame_is_read_as_a_table(module):
    found = load(module, "frame", target="sold")
    assert found.task == "regression"
    assert [one["name"] for one in describe(found)["features"]] == ["a", "city"]


def test_a_dataset_is_stacked(module):
    found = load(module, "dataset")
    assert found.input_shape == (3, 9, 8)
    assert found.train.x.dtype == np.uint8
    values = np.concatenate([split.x[:, 0, 0, 0] for split in (found.train, found.reg, found.test)])
    labels = np.concatenate([split.y for split in (found.train, found.reg, found.test)])
    assert sorted(values) == list(range(40))
    np.testing.assert_array_equal(values % 2, labels)


def test_of_a_pair_of_datasets_the_second_is_the_test_split(module):
    found = load(module, "pair")
    np.testing.assert_array_equal(found.test.x, np.ones((7, 3), np.float32))


def test_the_fingerprint_covers_the_content(module):
    first = load(module, "arrays").fingerprint
    assert load(module, "arrays").fingerprint == first
    sys.modules[module].SHIFT = 1e-3
    assert load(module, "arrays").fingerprint != first


@pytest.mark.parametrize(
    ("function", "settings", "said"),
    [
        ("nothing", {}, "returned a NoneType; expected arrays"),
        ("three", {}, "a tuple of ndarray, ndarray, ndarray; expected arrays"),
        ("frames", {}, "return a single DataFrame"),
        ("endless", {}, "a Endless, which does not say how many items it has; expected .* a map-style torch Dataset"),
        ("other_split", {}, "a split 'holdout'; allowed are train, reg and test"),
        ("unequal", {}, r"one example of test has shape \(2,\), and of train \(3,\)"),
        ("ragged", {}, "x is a list that is no array"),
        ("raises", {}, "the function failed: RuntimeError: no disk"),
        ("odd", {}, r"item 5 of the Dataset is float64 \(4,\), and item 0 is float64 \(3,\)"),
        ("unlabelled", {}, r"item 0 of the Dataset is a ndarray; items must be pairs \(x, y\)"),
        ("arrayz", {}, "has no 'arrayz', did you mean 'arrays'|arrays"),
        ("arrays", {"target": "y"}, "for functions that return a DataFrame only"),
        ("frame", {"target": "sold", "keys": {"x": "a"}}, "for functions that return arrays only"),
        ("arrays", {"image_size": 8}, "for image folders only"),
        ("frame", {}, "which column is the target"),
        ("arrays", {"split_by": "person"}, "no array 'person' to split by"),
    ],
)
def test_what_is_refused(module, function, settings, said):
    with pytest.raises(UserError, match=said):
        load(module, function, **settings)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(UserError, match="importing missing_data failed"):
        load_data(DataConfig(name="missing_data:load"))
