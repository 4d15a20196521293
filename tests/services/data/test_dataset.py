"""Fingerprint, moments and shapes of a loaded dataset."""

from __future__ import annotations

import numpy as np
import pytest

from crossreg.services.data import DataConfig, Split, fingerprint, load_data
from crossreg.services.data.moments import CHUNK, moments

X = np.random.default_rng(0).integers(0, 256, (200, 3, 4, 4), dtype=np.uint8)
Y = np.arange(200) % 4


def load(npz, x=X, y=Y, **config):
    return load_data(DataConfig(name=npz(x=x, y=y), **config))


def test_fingerprint_is_the_same_every_time(npz):
    first = load(npz).fingerprint
    assert first == load(npz).fingerprint
    assert len(first) == 16
    assert int(first, 16) > 0


def test_fingerprint_does_not_depend_on_the_machine():
    split = Split(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 0]))
    swapped = Split(split.x.astype(">f4"), split.y.astype(">i8"))
    expected = "2567c3f7e6754ea9"  # computed with hashlib and struct from the documented layout
    assert fingerprint("classification", ("a", "b"), 0, [split]) == expected
    assert fingerprint("classification", ("a", "b"), 0, [swapped]) == expected


def test_fingerprint_changes_with_anything(npz):
    pixel, label = X.copy(), Y.copy()
    pixel[17, 2, 3, 3] ^= 1
    label[17] = (label[17] + 1) % 4
    found = [
        load(npz).fingerprint,
        load(npz, x=pixel).fingerprint,
        load(npz, y=label).fingerprint,
        load(npz, y=np.array(["a", "b", "c", "d"])[Y]).fingerprint,
        load(npz, seed=1).fingerprint,
        load(npz, reg_share=0.2).fingerprint,
        load(npz, reg_share=0).fingerprint,
        load(npz, test_share=0.3).fingerprint,
        load(npz, limit=100).fingerprint,
    ]
    assert len(set(found)) == len(found)


def test_an_example_in_the_test_split_counts_too(npz):
    other = X[:20].copy()
    other[0, 0, 0, 0] ^= 1
    config = DataConfig(name=npz(x=X, y=Y, x_test=X[:20], y_test=Y[:20]))
    first = load_data(config).fingerprint
    npz(x=X, y=Y, x_test=other, y_test=Y[:20])
    assert load_data(config).fingerprint != first


def test_images_have_moments_per_channel_of_the_train_split_alone(npz):
    x = X.copy()
    x[:, 1] = 51
    data = load(npz, x=x)
    assert (data.train.x.dtype, data.train.y.dtype) == (np.uint8, np.int64)
    assert data.input_shape == (3, 4, 4)
    assert data.num_outputs == 4
    stored = data.train.x.astype(float)
    assert (data.mean.dtype, data.std.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(data.mean, stored.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std[[0, 2]], stored[:, [0, 2]].std(axis=(0, 2, 3)), rtol=1e-6)
    assert data.std[1] == 1
    assert abs(data.mean[0] - x[:, 0].mean()) > 1e-4


def test_regression_standardises_the_target_by_the_train_split(npz):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(120, 5)), rng.normal(3, 10, size=(120, 2))
    data = load(npz, x=x, y=y)
    assert (data.task, data.classes, data.num_outputs, data.input_shape) == ("regression", (), 2, (5,))
    assert (data.train.x.dtype, data.train.y.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(data.target_mean, data.train.y.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(data.target_std, data.train.y.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(data.std, data.train.x.std(axis=0), rtol=1e-5)


def test_classification_has_no_target_moments(npz):
    data = load(npz)
    assert data.target_mean is None
    assert data.target_std is None


def test_moments_over_several_chunks():
    x = np.random.default_rng(0).normal(5, 2, (CHUNK + 7, 3, 2)).astype(np.float32)
    x[:, 1] = 0.1  # has no exact binary form
    mean, std = moments(x)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], x[:, [0, 2]].std(axis=(0, 2), dtype=np.float64), rtol=1e-6)
    assert std[1] == 1
    bytes_ = np.random.default_rng(0).integers(0, 256, (CHUNK + 7, 2, 3), dtype=np.uint8)
    mean, std = moments(bytes_)
    np.testing.assert_allclose(mean, bytes_.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, bytes_.std(axis=(0, 2)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_constant_never_gets_a_tiny_spread(dtype):
    values = np.arange(256) if dtype == np.uint8 else np.random.default_rng(0).lognormal(0, 20, 256)
    assert (moments(np.tile(values.astype(dtype), (5_003, 1)))[1] == 1).all()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_small_and_large_features_are_not_taken_for_constant(scale):
    x = (np.array([[1.0], [2.0], [3.0]]) * scale).astype(np.float32)
    np.testing.assert_allclose(moments(x)[1], [scale * np.sqrt(2 / 3)], rtol=1e-5)
