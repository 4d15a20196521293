"""torchvision's datasets, from small files in their real formats."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.io
import torchvision

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, load_data

RNG = np.random.default_rng(0)
NUM = {"train": 60, "test": 20}


def labels(num):
    return np.arange(num) % 10


def write_mnist(root, folder="FashionMNIST", size=28):
    """Write IDX files: a magic number, the dimensions as big-endian integers, then bytes."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    written = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        x = RNG.integers(0, 256, (NUM[part], size, size), dtype=np.uint8)
        header = np.array([0x0803, *x.shape], dtype=">i4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + x.tobytes())
        header = np.array([0x0801, len(x)], dtype=">i4").tobytes()
        y = labels(len(x)).astype(np.uint8)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + y.tobytes())
        written[part] = x
    return written


def write_cifar(root, monkeypatch):
    cifar = torchvision.datasets.CIFAR10
    folder = root / cifar.base_folder
    folder.mkdir()
    written = {}
    for part, file in (("train", "data_batch_1"), ("test", "test_batch")):
        x = RNG.integers(0, 256, (NUM[part], 3, 32, 32), dtype=np.uint8)
        batch = {"data": x.reshape(len(x), -1), "labels": labels(len(x)).tolist()}
        (folder / file).write_bytes(pickle.dumps(batch))
        written[part] = x
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    # The checksums are those of the real files.
    monkeypatch.setattr(cifar, "train_list", [("data_batch_1", None)])
    monkeypatch.setattr(cifar, "test_list", [("test_batch", None)])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": None})
    return written


def write_svhn(root, monkeypatch):
    written = {}
    for part in ("train", "test"):
        x = RNG.integers(0, 256, (NUM[part], 3, 32, 32), dtype=np.uint8)
        y = np.where(labels(len(x)) == 0, 10, labels(len(x)))  # the files say 10 for the digit 0
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": x.transpose(2, 3, 1, 0), "y": y[:, None]})
        written[part] = x
    files = {part: ("", f"{part}_32x32.mat", None) for part in ("train", "test")}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", files)
    return written


def check(data, written, channels, size):
    assert data.input_shape == (channels, size, size)
    assert (data.test.x.dtype, data.test.y.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(data.test.x.reshape(-1), written["test"].reshape(-1))
    np.testing.assert_array_equal(data.test.y, labels(NUM["test"]))
    label_of = {x.tobytes(): y for x, y in zip(written["train"], labels(NUM["train"]), strict=True)}
    for split in (data.train, data.reg):
        assert [label_of.pop(x.tobytes()) for x in split.x] == split.y.tolist()
    assert label_of == {}


@pytest.mark.parametrize("inside", [False, True])
def test_fashion_mnist(tmp_path, inside):
    written = write_mnist(tmp_path)
    root = tmp_path / "FashionMNIST" if inside else tmp_path
    data = load_data(DataConfig(name="fashion-mnist", root=root))
    check(data, written, 1, 28)
    assert data.classes[:2] == ("T-shirt/top", "Trouser")


def test_cifar10(tmp_path, monkeypatch):
    written = write_cifar(tmp_path, monkeypatch)
    data = load_data(DataConfig(name="cifar10", root=tmp_path))
    check(data, written, 3, 32)
    assert data.classes == tuple(f"c{i}" for i in range(10))


def test_svhn(tmp_path, monkeypatch):
    written = write_svhn(tmp_path, monkeypatch)
    data = load_data(DataConfig(name="svhn", root=tmp_path))
    check(data, written, 3, 32)
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("svhn", "train_32x32.mat"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_missing_data_say_where_they_were_looked_for(tmp_path, name, place):
    with pytest.raises(UserError) as error:
        load_data(DataConfig(name=name, root=tmp_path))
    for part in (name, str(tmp_path / place), "--download", "--data-root"):
        assert part in str(error.value)


def test_damaged_files_are_refused(tmp_path):
    write_mnist(tmp_path)
    file = tmp_path / "FashionMNIST/raw/t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"fashion-mnist: incomplete or damaged files at .*FashionMNIST/raw"):
        load_data(DataConfig(name="fashion-mnist", root=tmp_path))


def test_a_failed_download_is_told(tmp_path, monkeypatch):
    def offline(self):
        raise RuntimeError("Error downloading train-images: network is unreachable")

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", offline)
    with pytest.raises(UserError, match=r"fashion-mnist: could not download .*network is unreachable"):
        load_data(DataConfig(name="fashion-mnist", root=tmp_path, download=True))
