"""Checkpoints and exported models that are damaged, hostile or of something else: refused, and nothing in them runs."""

from __future__ import annotations

import copy
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save as to_safetensors

from crossreg.batches import Preprocess
from crossreg.core.errors import UserError
from crossreg.models import build
from crossreg.prediction.export import export_model, load_exported
from crossreg.regularizers.noise import inject_noise
from crossreg.services.data import load_data
from crossreg.services.tracking import sync
from crossreg.services.training.assemble import checkpoint_identity
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import resolve
from crossreg.services.training.storage import read_checkpoint
from crossreg.training.checkpoint import load_checkpoint, save_checkpoint
from tests.security.throwing import Shell, everything, refused, throw


class Payload:
    """Creates the file `pwned` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, ("pwned", "w"))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refuses(what: Callable[[], Any], naming: tuple[str, ...] = ()) -> str:
    before = everything(Path.cwd())
    with pytest.raises(UserError) as caught:
        what()
    assert everything(Path.cwd()) == before
    assert not Path("pwned").exists()
    refused(str(caught.value), naming)
    return str(caught.value)


def _saved(content: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


STATE = {"step": 3, "model": {"w": torch.zeros(4, 4)}, "rng": [1, 2]}
ABOUT = {"model": "mlp", "data": "0123456789abcdef"}
WHOLE = _saved({"format": 2, "identity": ABOUT, "state": STATE})


def _flipped(at: int) -> bytes:
    return WHOLE[:at] + bytes([WHOLE[at] ^ 1]) + WHOLE[at + 1 :]


def _repacked(change: Callable[[str, bytes], bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """Return the checkpoint with its members changed: a well-formed archive of damaged content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as old, zipfile.ZipFile(buffer, "w", how) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return buffer.getvalue()


_contents = st.sampled_from(
    [
        {"format": 3, "identity": ABOUT, "state": STATE},
        {"format": "2", "identity": ABOUT, "state": STATE},
        {"format": None, "identity": ABOUT, "state": STATE},
        {"identity": ABOUT, "state": STATE},
        {"format": 2, "state": STATE},
        {"format": 2, "identity": ABOUT},
        {"format": 2, "identity": 5, "state": STATE},
        {"format": 2, "identity": ABOUT, "state": 5},
        {"format": 2, "identity": [1], "state": STATE},
        {"format": 2, "identity": ABOUT, "state": torch.zeros(3)},
        {"format": 2, "identity": {**ABOUT, "model": "cnn"}, "state": STATE},
        {"format": 2, "identity": {}, "state": STATE},
        {"format": 2, "identity": {**ABOUT, "data": "f" * 16}, "state": STATE},
        {"format": 2, "identity": {**ABOUT, "data": None}, "state": STATE},
        {"format": 2, "identity": {**ABOUT, "data": torch.zeros(3)}, "state": STATE},
        {"format": torch.zeros(2), "identity": ABOUT, "state": STATE},
        {},
        [],
        None,
        5,
        "text",
        torch.zeros(3),
        {"model": torch.zeros(3)},
        {"format": 2, "identity": ABOUT, "state": {}},
        {"format": 2, "identity": ABOUT, "state": {"step": "3"}},
        {"format": 2, "identity": ABOUT, "state": {"step": -1}},
        {"format": 2, "identity": ABOUT, "state": {"step": torch.zeros(2)}},
    ]
)
_hostile = st.sampled_from(
    [
        Payload(),
        {"format": 2, "identity": Payload(), "state": STATE},
        {"format": 2, "identity": ABOUT, "state": {"step": Payload()}},
    ]
)
_bad_checkpoints = st.one_of(
    st.integers(0, len(WHOLE) - 1).map(lambda end: WHOLE[:end]),
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda raw: b"PK\x03\x04" + raw),
    st.builds(_saved, _contents, st.booleans()),
    st.builds(_saved, _hostile, st.booleans()),
    _hostile.flatmap(lambda what: st.integers(0, 5).map(lambda protocol: pickle.dumps(what, protocol))),
    st.binary(max_size=60).map(lambda raw: _repacked(lambda name, old: raw if name.endswith("data.pkl") else old)),
    st.integers(0, 60).map(lambda end: _repacked(lambda name, old: old[:end] if name.endswith("data/0") else old)),
    st.integers(0, 150).map(
        lambda at: _flipped(WHOLE.index(b"format") + at)
    ),  # in values, which the archive's sums cover
    # a tensor of an exabyte on a storage of 64 bytes
    st.just(
        _repacked(
            lambda name, old: old.replace(b"K\x04K\x04\x86", b"\x8a\x08" + struct.pack("<q", 2**58) + b"K\x04\x86")
        )
    ),
    st.just(_repacked(lambda name, old: b"\0" * 2**22 if name.endswith("data.pkl") else old, zipfile.ZIP_DEFLATED)),
)


def test_a_bad_checkpoint_is_refused(tmp_path: Path) -> None:
    assert (
        _repacked(lambda name, old: old.replace(b"K\x04K\x04\x86", b"")) != WHOLE
    )  # the sizes are where they are sought

    def load(raw: bytes) -> None:
        Path("checkpoint.pt").write_bytes(raw)
        refuses(lambda: read_checkpoint(str(tmp_path / "checkpoint.pt"), **ABOUT), ("checkpoint.pt",))

    throw("checkpoints", _bad_checkpoints, load)


def test_a_good_checkpoint_loads(tmp_path: Path) -> None:
    Path("checkpoint.pt").write_bytes(WHOLE)
    assert read_checkpoint(str(tmp_path), **ABOUT)["step"] == load_checkpoint(tmp_path, **ABOUT)["step"] == 3


@pytest.mark.parametrize("place", ["a\0b", "x" * 5000, "~nobody-here/x", "no/such/place", "."])
def test_a_place_without_checkpoint_is_refused(place: str) -> None:
    for load in (load_checkpoint, read_checkpoint, load_exported):
        refuses(lambda load=load: load(place))  # type: ignore[misc]


def test_keys_in_a_checkpoints_address_are_refused() -> None:
    assert "hunter2" not in refuses(lambda: read_checkpoint("s3://key:hunter2@bucket/checkpoint.pt"))


_resumed = st.sampled_from(
    [
        lambda state: state["step"].bit_length() and state | {"step": 10**9},
        lambda state: {key: value for key, value in state.items() if key != "step"},
        lambda state: state | {"step": True},
        lambda state: state | {"step": 1.5},
    ]
) | st.sampled_from(["model", "model_options", "regularizers", "data", "precision", "optimizer", "rho"])


def test_the_command_refuses_to_go_on_from_a_bad_checkpoint(shell: Shell) -> None:
    config = TrainConfig.model_validate({"model": "mlp", "data": {"name": "digits"}})
    data = load_data(config.data)
    described = checkpoint_identity(resolve(config, data), data)

    def resume(case: Any) -> None:
        state, says = copy.deepcopy(STATE), dict(described)
        if isinstance(case, str):
            says[case] = "another"
        else:
            state = case(state)
        save_checkpoint(state, shell.folder / "given", **says)
        shell.refuses(
            "train", "--data", "digits", "--model", "mlp", "--resume", "given/checkpoint.pt", naming=("given",)
        )

    throw("resumed", _resumed | st.binary(max_size=9).map(lambda raw: lambda state: {"step": raw.hex()}), resume)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = inject_noise(build("mlp", input_shape=(4,), num_outputs=3, hidden=8, depth=2))
    folder = tmp_path_factory.mktemp("exported")
    export_model(
        model,
        Preprocess(torch.zeros(4), torch.ones(4)),
        folder,
        name="mlp",
        input_shape=(4,),
        num_outputs=3,
        options={"hidden": 8, "depth": 2},
        regularizers={"noise": {}, "temperature": {}},
        classes=("a", "b", "c"),
    )
    assert load_exported(folder)(np.zeros((2, 4), np.float32)).shape == (2, 3)
    return folder


_DESCRIPTIONS = [
    {"format": 3},
    {"members": 0},
    {"members": 2},
    {"members": 2**40},
    {"members": "1"},
    {"members": None},
    {"inputs": {"kind": "array"}},
    {"inputs": {"kind": "table", "columns": [], "ignored": [], "target": ""}},
    {"inputs": {"kind": "table", "columns": [{"kind": "number", "name": 1}], "ignored": [], "target": ""}},
    {"format": "2"},
    {"format": None},
    {"model": 5},
    {"model": "resnet19"},
    {"model": "../../x"},
    {"model": "/etc/passwd"},
    {"model": "no.such:thing"},
    {"model": "os:system"},
    {"model": "builtins:open"},
    {"model": None},
    {"model": ["mlp"]},
    {"model": "cnn"},
    {"options": None},
    {"options": [1]},
    {"options": {"hidden": 2**40}},
    {"options": {"hidden": 2**62, "depth": 2}},
    {"options": {"depth": 10**12}},
    {"options": {"hidden": -1}},
    {"options": {"hidden": "8"}},
    {"options": {"none": 1}},
    {"options": {"hidden": 9, "depth": 2}},
    {"options": {"hidden": 8, "depth": 3}},
    {"options": {"input_shape": [3]}},
    {"options": {"name": "x"}},
    {"input_shape": []},
    {"input_shape": [2**40]},
    {"input_shape": [-4]},
    {"input_shape": "4"},
    {"input_shape": [4.0]},
    {"input_shape": None},
    {"input_shape": [5]},
    {"input_shape": [[4]]},
    {"num_outputs": 2**45},
    {"num_outputs": 0},
    {"num_outputs": "3"},
    {"num_outputs": 4},
    {"num_outputs": None},
    {"regularizers": 5},
    {"regularizers": [1]},
    {"regularizers": {"none": {}}},
    {"regularizers": {"noise": {"none": 1}}},
    {"regularizers": {"noise": {"granularity": "room"}}},
    {"regularizers": {"noise": 5}},
    {"regularizers": None},
    {"task": "magic"},
    {"task": 5},
    {"task": None},
    {"classes": 5},
    {"classes": ["a"]},
    {"classes": [[1], 2, 3]},
    {"classes": None},
    {"target": 5},
    {"target": [1]},
    {"target": [["a"], ["b"]]},
    {"target": [[1, 2], [1]]},
    {"target": {"a": 1}},
]


def _changed(change: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(content | change))

    return write


def _without(key: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        del content[key]
        (folder / "model.json").write_text(json.dumps(content))

    return write


def _file(name: str, make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(make((folder / name).read_bytes())) and None


def _weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from safetensors.torch import load

        raw = (folder / "weights.safetensors").read_bytes()
        (folder / "weights.safetensors").write_bytes(to_safetensors(change(load(raw))))

    return write


_KEYS = ["format", "model", "options", "input_shape", "num_outputs", "regularizers", "task", "classes", "target"]
_bad_exports = st.one_of(
    st.sampled_from(_DESCRIPTIONS).map(_changed),
    st.sampled_from(_KEYS).map(_without),
    st.binary(max_size=60).map(lambda raw: _file("model.json", lambda old: b"\xff" + raw)),
    st.sampled_from(
        [b"", b"5", b"[]", b"null", b"{}", b'{"a": NaN}', b"[" * 100_000, b'{"a":' * 50_000, b"1" * 9000]
    ).map(lambda raw: _file("model.json", lambda old: raw)),
    st.integers(0, 900).map(lambda end: _file("weights.safetensors", lambda old: old[:end])),
    st.binary(max_size=80).map(lambda raw: _file("weights.safetensors", lambda old: raw)),
    st.integers(2**20, 2**63).map(
        lambda size: _file("weights.safetensors", lambda old: struct.pack("<Q", size) + old[8:])
    ),
    st.just(_file("weights.safetensors", lambda old: pickle.dumps(Payload()))),
    st.sampled_from(["[8,4]", "[8,8]"]).map(
        lambda shape: _file("weights.safetensors", lambda old: old.replace(shape.encode(), b"[9,9]"))
    ),
    st.just(_weights(lambda tensors: {})),
    st.sampled_from(["model.linear1.weight", "preprocess.mean", "preprocess.std"]).flatmap(
        lambda key: st.sampled_from(
            [
                _weights(lambda t: {name: value for name, value in t.items() if name != key}),
                _weights(lambda t: t | {key: torch.zeros(7, 7)}),
                _weights(lambda t: t | {key: torch.full_like(t[key], float("nan"))}),
                _weights(lambda t: t | {key: t[key].to(torch.int32)}),
                _weights(lambda t: t | {"model.none": torch.zeros(1)}),
            ]
        )
    ),
)


def test_a_bad_exported_model_is_refused(exported: Path, tmp_path: Path) -> None:
    files = {name: (exported / name).read_bytes() for name in ("model.json", "weights.safetensors")}
    folder = tmp_path / "model"
    folder.mkdir()

    def load(damage: Callable[[Path], None]) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        damage(folder)
        refuses(lambda: load_exported(folder), (str(folder),))

    throw("exported", _bad_exports, load)


_LINES = [
    b"5",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b"\0" * 50,
    b'{"metrics": 5, "step": 1, "time": 1}',
    b'{"metrics": {"a": "x"}}',
    b'{"metrics": {"a": 1}, "step": "x", "time": 1}',
    b'{"tags": 5}',
    b'{"status": 5}',
    b'{"metrics": {"../a": 1}, "step": 1, "time": 1}',
    b"[" * 5000,
]
_records = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"{}", b"[]", b"5", b'{"uri": 5}', b'{"uri": "ftp://x", "run_id": "x", "experiment_id": "0"}', b"[" * 100_000]
    ),
    st.sampled_from(["../../x", "x" * 5000, "", "a\0b", "x" * 32]).map(
        lambda run: json.dumps({"uri": "sqlite:///none.db", "run_id": run, "experiment_id": "0"}).encode()
    ),
)


def test_a_bad_spool_folder_is_refused() -> None:
    Path("spool").mkdir()

    def send(case: tuple[bytes, bytes]) -> None:
        record, line = case
        Path("spool/run.json").write_bytes(record)
        Path("spool/spool.jsonl").write_bytes(line + b"\n")
        refuses(lambda: sync(Path("spool"), timeout=1))

    throw("spools", st.tuples(_records, st.sampled_from(_LINES)), send)


def test_a_record_that_is_a_folder_is_refused() -> None:
    Path("spool/run.json").mkdir(parents=True)
    refuses(lambda: sync(Path("spool")), ("run.json",))
