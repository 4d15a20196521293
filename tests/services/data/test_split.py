"""The split: disjoint, complete, stratified, seeded."""

from __future__ import annotations

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, default_reg_size, load_data
from crossreg.services.data.split import Indices, _require_disjoint, make_indices

CLASSES = ("a", "b", "c")
Y = np.repeat([0, 1, 2], [100, 200, 700])


def indices_of(y=Y, classes=CLASSES, own_test=False, **config):
    return make_indices(y, classes, DataConfig(name="any", **config), own_test=own_test)


def rows(load, split):
    """Examples carry their row number as the only feature, so content identifies them."""
    return set(getattr(load, split).x[:, 0].astype(int).tolist())


@pytest.mark.parametrize(
    ("num_train", "expected"),
    [(0, 0), (8, 2), (150, 37), (500, 100), (2_000, 200), (50_000, 5_000), (1_000_000, 5_000)],
)
def test_default_reg_size(num_train, expected):
    assert default_reg_size(num_train) == expected


@pytest.mark.parametrize("seed", range(5))
def test_splits_are_disjoint_and_complete_by_content(npz, seed):
    data = load_data(DataConfig(name=npz(x=np.arange(1000.0), y=Y), seed=seed))
    train, reg, test = (rows(data, split) for split in ("train", "reg", "test"))
    assert (len(train), len(reg), len(test)) == (700, 100, 200)
    assert train | reg | test == set(range(1000))
    for split in (data.train, data.reg, data.test):
        np.testing.assert_array_equal(split.y, Y[split.x[:, 0].astype(int)])


@pytest.mark.parametrize("seed", range(5))
def test_every_split_keeps_the_class_proportions(seed):
    indices = indices_of(seed=seed, reg_share=0.25)
    assert np.bincount(Y[indices.test]).tolist() == [20, 40, 140]
    assert np.bincount(Y[indices.reg]).tolist() == [20, 40, 140]
    assert np.bincount(Y[indices.train]).tolist() == [60, 120, 420]


def test_counts_that_do_not_divide_differ_by_one_at_most():
    y = np.repeat(np.arange(10), 33)
    for part in vars(indices_of(y, tuple("abcdefghij"), reg_share=0.15)).values():
        counts = np.bincount(y[part], minlength=10)
        assert counts.max() - counts.min() <= 2
        assert counts.min() >= 1


def test_splits_are_shuffled_not_in_order_of_class():
    indices = indices_of()
    for part in (indices.train, indices.reg, indices.test):
        assert len(set(Y[part[:40]].tolist())) == 3


def test_the_seed_alone_decides():
    first, same, other = indices_of(seed=3), indices_of(seed=3), indices_of(seed=4)
    for part in ("train", "reg", "test"):
        np.testing.assert_array_equal(getattr(first, part), getattr(same, part))
        assert set(getattr(first, part).tolist()) != set(getattr(other, part).tolist())


@pytest.mark.parametrize("limit", [None, 400])
def test_without_a_reg_split_train_is_the_union_and_test_the_same(limit):
    whole = indices_of(limit=limit, reg_share=0)
    assert len(whole.reg) == 0
    for share in (None, 0.1, 0.5):
        split = indices_of(limit=limit, reg_share=share)
        assert set(whole.train.tolist()) == {*split.train.tolist(), *split.reg.tolist()}
        np.testing.assert_array_equal(whole.test, split.test)


def test_limit_counts_train_and_reg_and_leaves_test_whole():
    indices = indices_of(limit=100, reg_share=0.2)
    assert (len(indices.train), len(indices.reg), len(indices.test)) == (80, 20, 200)
    assert np.bincount(Y[np.concatenate([indices.train, indices.reg])]).tolist() == [10, 20, 70]


@pytest.mark.parametrize("limit", [799, 800])
def test_limit_may_leave_out_fewer_examples_than_there_are_classes(limit):
    indices = indices_of(limit=limit)
    assert len(indices.train) + len(indices.reg) == limit


def test_own_test_split_leaves_everything_for_training():
    indices = indices_of(own_test=True, reg_share=0.1)
    assert indices.test is None
    assert sorted([*indices.train, *indices.reg]) == list(range(1000))


def test_regression_is_shuffled_plainly():
    y = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    indices = indices_of(y, ())
    assert sorted(np.concatenate([indices.train, indices.reg, indices.test]).tolist()) == list(range(50))
    assert (np.diff(y[indices.train, 0]) < 0).any()


@pytest.mark.parametrize(
    ("y", "config", "message"),
    [
        (Y, {"limit": 801}, "limit=801 is more than the 800 training examples"),
        (Y, {"limit": 2}, "limit=2 takes 2 of 800 examples; at least 3 (one"),
        (Y, {"reg_share": 0.001}, "reg_share=0.001 takes 1 of 800"),
        (Y, {"test_share": 0.001}, "test_share=0.001 takes 1 of 1000"),
        (Y, {"limit": 8}, "the default reg_share takes 2 of 8"),
        (np.repeat([0, 1, 2], [10, 10, 1]), {}, "class 'c' has 1 training example;"),
        (np.repeat([0, 1, 2], [10, 990, 2]), {"limit": 20, "reg_share": 0}, "class 'a' has no example left"),
    ],
)
def test_too_few_examples_are_refused(y, config, message):
    with pytest.raises(UserError) as error:
        indices_of(y, **config)
    assert message in str(error.value)


def test_too_few_examples_for_regression_are_refused():
    with pytest.raises(UserError, match=r"takes 0 of 2 examples; at least 1 needed"):
        indices_of(np.zeros((3, 1), np.float32), ())


def test_an_overlap_would_be_caught(monkeypatch):
    def leaky(self, pool, size, *args):
        return pool[:size], pool[size - 1 :]

    monkeypatch.setattr("crossreg.services.data.split._Draw.__call__", leaky)
    with pytest.raises(RuntimeError, match="overlap"):
        indices_of(np.arange(999) % 3, reg_share=0)
    with pytest.raises(RuntimeError, match="overlap"):
        indices_of(np.arange(999) % 3, own_test=True)


def test_a_group_in_two_splits_is_a_bug_that_is_found() -> None:
    rows = Indices(np.array([0, 1]), np.array([2]), np.array([3]))
    _require_disjoint(rows, None)
    _require_disjoint(rows, np.array(["a", "a", "b", "c"]))
    with pytest.raises(RuntimeError, match="the splits overlap"):
        _require_disjoint(rows, np.array(["a", "b", "b", "c"]))
