"""Data files that are damaged, hostile or of no use: refused by name, before their size is allocated or code runs."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from PIL import Image

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, load_data
from tests.security.throwing import Shell, everything, refused, throw

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


class Payload:
    """Creates the file `pwned` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, ("pwned", "w"))


def refuses(name: str | Path, **options: Any) -> str:
    before = everything(Path.cwd())
    with pytest.raises(UserError) as caught:
        load_data(DataConfig(name=str(name), **options))
    assert everything(Path.cwd()) == before
    assert not Path("pwned").exists()
    message = str(caught.value)
    refused(message, (Path(name).name,))
    return message


def _bytes(write: Callable[[Any], None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


NPY = _bytes(lambda f: np.save(f, X))
NPZ = _bytes(lambda f: np.savez(f, x=X, y=Y))
PARQUET = _bytes(lambda f: pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "target": Y}).to_parquet(f))
PNG = _bytes(lambda f: Image.fromarray(RNG.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(f, "png"))


def header(shape: tuple[int, ...], descr: str = "<f4", version: int = 1) -> bytes:
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w", compression) as made:
            for name, content in members.items():
                made.writestr(name.replace("__", "/") + ".npy", content)

    return _bytes(write)


def pickled(value: Any) -> bytes:
    return _bytes(lambda f: np.save(f, np.array([value] * 40, dtype=object), allow_pickle=True))


_huge = st.integers(2**38, 2**60)
_bad_arrays = st.one_of(
    st.integers(0, len(NPY) - 1).map(lambda end: NPY[:end]),
    st.binary(max_size=80),
    st.builds(lambda n, v: header((n, 3), version=v) + b"\0" * 64, _huge, st.sampled_from([1, 2])),
    st.builds(lambda n: header((n, n, n)) + b"\0" * 64, _huge),
    st.integers(1, 30).map(lambda n: header((-n, 3)) + b"\0" * 64),
    st.sampled_from(
        [pickled(Payload()), pickled({"a": 1}), pickle.dumps(Payload()), header((40,), "|O") + pickle.dumps(Payload())]
    ),
    st.sampled_from(["<M8[s]", "|S5", "<c8", "<U4", "|V8", "nonsense", "<f4' + 1 + '"]).map(
        lambda d: header((40,), d) + b"\1" * 400
    ),
    st.integers(0, 9).map(lambda v: b"\x93NUMPY" + bytes([v, 9]) + NPY[8:]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]).map(
        lambda bad: _bytes(lambda f: np.save(f, np.full((40, 3), bad)))
    ),
    st.sampled_from([(0, 3), (40, 0), (), (39, 3)]).map(
        lambda shape: _bytes(lambda f: np.save(f, np.zeros(shape, np.float32)))
    ),
)


def test_a_bad_array_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "y.npy", Y)

    def load(raw: bytes) -> None:
        (folder / "x.npy").write_bytes(raw)
        refuses(folder / "x.npy")

    throw("arrays", _bad_arrays, load)


_bad_archives = st.one_of(
    st.integers(0, len(NPZ) - 1).map(lambda end: NPZ[:end]),
    st.binary(max_size=200),
    st.integers(30, 300).map(lambda at: NPZ[:at] + bytes([NPZ[at] ^ 0xFF]) + NPZ[at + 1 :]),
    st.sampled_from(
        [
            archive(x=pickled(Payload()), y=NPY),
            archive(x=NPY, y=pickled(Payload())),
            archive(x=pickle.dumps(Payload()), y=NPY),
        ]
    ),
    st.builds(lambda n, how: archive(how, x=header((n,)) + b"\0" * 4096, y=NPY), _huge, st.sampled_from([0, 8])),
    st.sampled_from(["..__..__x", "..__x", "__etc__x", "a__..__..__x"]).map(
        lambda name: archive(**{name: NPY, "y": NPY})
    ),
    st.sampled_from([archive(), archive(x=NPY), archive(y=NPY), archive(x=NPY, y=NPY, x_test=NPY)]),
    st.integers(0, 39).map(lambda rows: _bytes(lambda f: np.savez(f, x=X[:rows], y=Y))),
    st.integers(0, 3).map(lambda label: _bytes(lambda f: np.savez(f, x=X, y=np.full(40, label)))),
    st.tuples(st.integers(0, 39), st.integers(0, 2)).map(
        lambda at: _bytes(lambda f: np.savez(f, x=_with(X, at, np.nan), y=Y))
    ),
)


def _with(array: np.ndarray, at: tuple[int, int], value: float) -> np.ndarray:
    changed = array.copy()
    changed[at] = value
    return changed


def test_a_bad_archive_is_refused(tmp_path: Path) -> None:
    def load(raw: bytes) -> None:
        Path("data.npz").write_bytes(raw)
        refuses("data.npz")

    throw("archives", _bad_archives, load)


def test_what_a_header_declares_is_not_allocated(tmp_path: Path) -> None:
    """A member that says it is eight terabytes, in the directory of the archive too."""
    raw = bytearray(archive(x=header((2**41,)) + b"\0" * 64, y=NPY))
    Path("data.npz").write_bytes(raw)
    tracemalloc.start()
    try:
        assert "8,796,093,022,208 bytes" in refuses("data.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_zip_bomb_is_refused_by_what_it_would_take(tmp_path: Path) -> None:
    """Deflate takes zeros a thousand to one; what the directory declares is a table of five terabytes."""
    size = 5 * 2**40
    raw = bytearray(archive(zipfile.ZIP_DEFLATED, x=header((size // 4,)) + b"\0" * 2**20, y=NPY))
    directory = raw.index(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 8, size + 200)  # ZIP64: the size does not fit into 32 bits
    name = struct.unpack_from("<H", raw, directory + 28)[0]
    struct.pack_into("<I", raw, directory + 24, 0xFFFFFFFF)
    struct.pack_into("<H", raw, directory + 30, len(extra))
    raw[directory + 46 + name : directory + 46 + name] = extra
    end = raw.rindex(b"PK\x05\x06")
    struct.pack_into("<I", raw, end + 12, struct.unpack_from("<I", raw, end + 12)[0] + len(extra))
    Path("data.npz").write_bytes(raw)
    assert "GiB of memory are free" in refuses("data.npz")


CSV = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "target": Y}).to_csv(index=False)
_bad_csv = st.one_of(
    st.binary(min_size=1, max_size=100).map(lambda raw: b"a,target\n\xff" + raw),
    st.sampled_from(
        [
            b"",
            b"\n\n",
            b"target\n1\n",
            b"a,target\n",
            b"a,a,target\n1,2,0\n",
            b",target\n1,0\n",
            b"\0\0\0",
            b'a,"target\n1,2',
        ]
    ),
    st.integers(1, 40).map(lambda row: _line(row, "1,2,3,4,0")),  # more fields than names
    st.integers(1, 40).map(lambda row: _line(row, "1")),  # fewer: missing values
    st.tuples(st.integers(1, 40), st.sampled_from(["nan,1,0", "inf,1,0", "-inf,1,0", "1e400,1,0", "1,,0", ",,"])).map(
        lambda c: _line(*c)
    ),
    st.just(CSV.replace("target", "wanted").encode()),
    st.just("\n".join(["a,b", *("1,2,0" for _ in range(40))]).replace("a,b", "a,target").encode()),
    st.just(("a,target\n" + "\n".join(f"name{i},{i % 2}" for i in range(1200))).encode()),
    st.just(("a,target\n" + "1,0\n" * 40).encode()),
)
_bad_parquet = st.one_of(
    st.integers(0, len(PARQUET) - 1).map(lambda end: PARQUET[:end]),
    st.binary(max_size=80).map(lambda raw: b"PAR1" + raw + b"PAR1"),
    st.integers(1, 2**31 - 1).map(lambda size: PARQUET[:-8] + struct.pack("<I", size | 1 << 30) + b"PAR1"),
    st.integers(1, 4).map(lambda back: PARQUET[:-back] + b"\xff" + PARQUET[len(PARQUET) - back + 1 :]),
    st.sampled_from(["nan", "inf"]).map(lambda bad: _parquet(a=[float(bad)] * 40, target=Y)),
    st.sampled_from([_ := [[1, 2]] * 40, [b"x"] * 40, [{"a": 1}] * 40, [None] * 40]).map(
        lambda c: _parquet(a=c, target=Y)
    ),
    st.sampled_from([{"a": []}, {"target": Y}, {"a": X[:, 0]}, {"a": pd.to_timedelta(Y), "target": Y}]).map(
        lambda c: _parquet(**c)
    ),
)


def _line(row: int, text: str) -> bytes:
    lines = CSV.splitlines()
    lines[row] = text
    return "\n".join(lines).encode()


def _parquet(**columns: Any) -> bytes:
    return _bytes(lambda f: pd.DataFrame(columns).to_parquet(f))


def test_a_bad_table_is_refused(tmp_path: Path) -> None:
    tables = st.tuples(st.just("t.csv"), _bad_csv) | st.tuples(st.just("t.parquet"), _bad_parquet)

    def load(case: tuple[str, bytes]) -> None:
        name, raw = case
        Path(name).write_bytes(raw)
        refuses(name)

    throw("tables", tables, load)


def test_a_table_of_a_few_kilobytes_and_terabytes_of_rows_is_refused(tmp_path: Path) -> None:
    from pyarrow import parquet

    written = parquet.read_metadata(io.BytesIO(PARQUET))
    assert written.num_rows == 40
    # thrift writes num_rows of the footer as a varint: 40 is 0x50; ten million million rows take six bytes
    start = len(PARQUET) - 8 - struct.unpack("<I", PARQUET[-8:-4])[0]
    footer = PARQUET[start:-8]
    at = footer.index(b"\x16\x50")
    value, varint = 2 * 10**13, b""
    while value:
        varint += bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
        value >>= 7
    footer = footer[: at + 1] + varint + footer[at + 2 :]
    Path("t.parquet").write_bytes(PARQUET[:start] + footer + struct.pack("<I", len(footer)) + b"PAR1")
    refuses("t.parquet")


def _png(width: int, height: int, content: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(pwned) (w) file closefile\nshowpage\n"
_bad_images = st.one_of(
    st.integers(0, len(PNG) - 20).map(lambda end: PNG[:end]),
    st.binary(max_size=100),
    st.sampled_from(
        [b"BM", b"GIF89a", b"\xff\xd8\xff\xe0", b"II*\0", b"RIFF\0\0\0\0WEBP", b"P6 9999999 9999999 255\n"]
    ).map(lambda magic: magic + b"\0" * 40),
    st.integers(1, 7).map(lambda size: _png(size, size, b"\0" * 100)),  # another size than the others
    st.tuples(st.integers(20_000, 2**31 - 1), st.integers(20_000, 2**31 - 1)).map(lambda size: _png(*size)),
    st.just(_POSTSCRIPT),
    st.just(_bytes(lambda f: Image.new("I;16", (8, 8)).save(f, "png"))),
)


def test_a_bad_image_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for index in range(4):
            Path("pets", name, f"{index}.png").write_bytes(PNG)

    def load(raw: bytes) -> None:
        Path("pets/cat/1.png").write_bytes(raw)
        assert "1.png" in refuses("pets")

    throw("images", _bad_images, load)


def test_images_that_fit_one_by_one_but_not_together_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for index in range(3000):
            Path("pets", name, f"{index}.png").write_bytes(_png(9000, 9000))
    assert "memory are free" in refuses("pets")


@pytest.mark.parametrize("kind", ["pipe", "loop", "gone", "folder", "eps", "device"])
def test_what_is_no_plain_image_is_refused(kind: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        Path("pets", name, "0.png").write_bytes(PNG)
    odd = Path("pets/cat/1.png")
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "loop":
        odd.symlink_to(odd.absolute())
    elif kind == "gone":
        odd.symlink_to("nowhere.png")
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    elif kind == "folder":
        shutil.rmtree("pets/dog")
        Path("pets/dog/1.png").mkdir(parents=True)
    else:
        shutil.rmtree("pets/dog")
        Path("pets/dog").mkdir(parents=True)
        Path("pets/dog/1.eps").write_bytes(_POSTSCRIPT)
    refuses("pets")


@pytest.mark.parametrize("name", ["data.csv", "data.npz", "x.npy", "data.parquet"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(name)
    assert "neither a file nor a folder" in refuses(name)
    Path(name).unlink()
    Path(name).mkdir()
    refuses(name)


def test_the_command_refuses_them_alike(shell: Shell) -> None:
    Path("data.npz").write_bytes(archive(x=pickled(Payload()), y=NPY))
    assert "Python objects" in shell.refuses("train", "--data", "data.npz", naming=("data.npz",))
    Path("data.csv").write_bytes(b"a,target\n\xff\xfe")
    shell.refuses("compare", "--data", "data.csv", "--model", "mlp", naming=("data.csv",))
    assert not Path("pwned").exists()
