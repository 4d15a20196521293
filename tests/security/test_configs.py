"""Settings that are wrong, in a file or as flags: exit code 2, one message that names them, nothing left."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from crossreg.services.data import DataConfig
from crossreg.services.training.config import OptimizerConfig, Placement, RhoConfig, TrainConfig
from tests.security.throwing import EXAMPLES, Shell, throw

TRAIN = ["train", "--data", "digits", "--config", "wrong.yaml"]

_no_number = st.sampled_from(["many", "", "1e", [], {}, [1], {"a": 1}, float("nan"), float("inf"), -float("inf"), True])
_odd_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def _fields(prefix: str, kind: type[BaseModel]) -> list[tuple[str, st.SearchStrategy[Any]]]:
    """Return what is wrong for every field of a configuration, by its path."""
    wrong = []
    for name, field in kind.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        if int in kinds:
            bad = _no_number | st.integers(max_value=-1) | st.integers(min_value=2**63) | st.just(0.5)
        elif float in kinds:
            bad = _no_number | st.floats(max_value=-1e-3, allow_nan=False)
        elif kinds == {bool}:
            bad = st.sampled_from(["maybe", 2, -1, [], {}, 0.5, None])
        elif str in kinds or field.annotation is Path:
            bad = st.sampled_from([5, 0.5, [], {}, ["a"], {"a": 1}])
        elif any(isinstance(choice, str) for choice in kinds):
            bad = _odd_text.map(lambda text: f"no {text}") | st.sampled_from([5, [], {}, 0.5])
        else:
            bad = st.sampled_from(["text", 5, 0.5, True])
        if prefix + name != "data.name":  # given on the command line
            wrong.append((prefix + name, bad))
    return wrong


REGULARIZERS = [
    [[1]], [{}], {1: 1}, 5, {"l3": 1}, {"l2": "x"}, {"l2": float("nan")}, {"l2": -1}, {"noise": {"learn": 1}},
    {"noise": {"start": -1}}, {"noise": {"where": 5}}, {"noise": {"a": "x"}}, {"noise/0": 1},
    {"weight_decay": {"learn": True}}, {"noise": {"learn": False, "start": 1}},
]  # fmt: skip

_MAPPINGS = ("data", "rho", "optimizer", "regularizers", "stopping", "model_options")  # below, each on its own

_WRONG = [
    *[(path, bad) for path, bad in _fields("", TrainConfig) if path not in _MAPPINGS],
    *_fields("data.", DataConfig),
    *_fields("rho.", RhoConfig),
    *_fields("optimizer.", OptimizerConfig),
    *_fields("placement.", Placement),
    *[(name, st.sampled_from([5, "text", [1], True])) for name in ("rho", "optimizer", "placement", "tracking")],
    *[("tracking.tags", st.sampled_from([5, "text", {"a": 5}, {"a": None}]))],
    *[("tracking.experiment", st.sampled_from([5, "", "a\nb", "a\0b", "a\x1b[2Jb", "e" * 501, []]))],
    ("regularizers", st.sampled_from(REGULARIZERS)),
    ("stopping", st.sampled_from([{"patience": "x"}, {"patience": 0}, {"a": 1}, {"patience": math.inf}, [1], "x"])),
    *[("model_options", st.sampled_from([{1: 2}, {"width": "x"}, {"width": -1}, {"width": 1.5}, {"none": 1}, [1]]))],
    *[
        (
            "model",
            st.sampled_from(["", ":", "a:b:c", "../x:y", "os:path.", "a b:c", "no\nsuch", "/etc/passwd", "x" * 500]),
        )
    ],
]

_unknown = st.tuples(
    st.sampled_from(["", "data.", "rho.", "optimizer.", "placement.", "tracking."]),
    _odd_text.map(lambda text: "x" + text.replace(".", "")),
    st.none() | st.integers() | st.text(max_size=5),
).map(lambda parts: (parts[0] + parts[1], parts[2]))
_wrong = st.sampled_from(_WRONG).flatmap(lambda pair: st.tuples(st.just(pair[0]), pair[1]))


def _nested(path: str, value: Any) -> dict[str, Any]:
    section, _, name = path.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def _leaves(value: Any) -> list[str]:
    return [str(leaf) for leaf in value.values()] if isinstance(value, dict) else [str(value)]


def test_a_wrong_or_unknown_setting_is_named(shell: Shell) -> None:
    def write(case: tuple[str, Any]) -> None:
        path, value = case
        Path("wrong.yaml").write_text(yaml.safe_dump(_nested(path, value), allow_unicode=True))
        section, _, name = path.rpartition(".")
        shell.refuses(*TRAIN, naming=(name, repr(name)[1:-1], section or name, *_leaves(value)))

    throw("settings", _wrong | _unknown, write)


def _bomb(levels: int, width: int) -> bytes:
    lines = ["a0: &a0 [" + "x," * width + "x]"]
    lines += [f"a{i}: &a{i} [" + f"*a{i - 1}," * width + f"*a{i - 1}]" for i in range(1, levels)]
    return "\n".join(lines).encode()


_files = st.one_of(
    st.binary(min_size=1, max_size=60).map(lambda raw: b"\xff\xfe" + raw),  # no UTF-8
    st.integers(25, 1500).map(lambda depth: b"epochs: " + b"[" * depth + b"]" * depth),
    st.integers(25, 1500).map(lambda depth: b"epochs: " + b"{a: " * depth + b"}" * depth),
    st.builds(_bomb, st.integers(6, 40), st.integers(8, 30)),
    st.sampled_from([b"epochs: &e [*e]", b"data: &d {name: digits, more: *d}", b"a: &a {b: *a}"]),
    st.sampled_from(["os.system", "subprocess.Popen", "builtins.eval", "builtins.open"]).map(
        lambda name: f"epochs: !!python/object/apply:{name} ['touch pwned', 'w']".encode()
    ),
    st.sampled_from(
        [b"a: [", b"a: {", b"'", b"a: b: c", b"\ta: 1", b"? [a]\n: 1", b"epochs: 2001-99-99", b"a: *b", b"%"]
    ),
    st.integers(4301, 9000).map(lambda digits: b"seed: " + b"9" * digits),
    st.sampled_from([b"- 1", b"5", b"text", b"1: 2", b"true", b"null: 1", b"a\0b: 1", b"{[]: 1}", b"!!binary x: 1"]),
    st.just(b"# " + b"x" * 2**20),
)


def test_a_file_that_is_none_of_settings_is_refused(shell: Shell) -> None:
    def write(raw: bytes) -> None:
        Path("wrong.yaml").write_bytes(raw)
        shell.refuses(*TRAIN, naming=("wrong.yaml",))

    throw("yaml", _files, write)


_TRAVERSAL = ["../../x", "/no/such/place", "..", "a/../../b", "~nobody-here/x", "x" * 5000, "a\0b", "`touch pwned`"]
_number = st.sampled_from(["many", "", "nan", "-1", "1.5.2", "0x", "1e", "--", "$(id)", "\n", "9" * 30])
_FLAGS: dict[str, list[tuple[str, st.SearchStrategy[str]]]] = {
    "train --data digits": [
        *[(f"--{name}", _number) for name in ("epochs", "steps", "batch-size", "workers", "interval", "samples")],
        *[(f"--{name}", st.sampled_from(["nan", "inf", "-1", "x", ""])) for name in ("lr", "reg-share")],
        *[(f"--{name}", _odd_text.map(lambda text: "no" + text)) for name in ("optimizer", "augment", "model")],
        *[
            (f"--{name}", _odd_text.map(lambda text: "no" + text))
            for name in ("learn", "fix", "stop", "estimator", "target")
        ],
        ("--resume", st.sampled_from(_TRAVERSAL)),
        ("--config", st.sampled_from(_TRAVERSAL)),
        (
            "--storage-path",
            st.sampled_from(["/dev/null/x", "a\0b", "~nobody-here/x", "x" * 5000, "no://x", "s3://k:pw@b"]),
        ),
        ("--experiment", st.sampled_from(["", "a\nb", "a\0b", "\x1b[31m", "e" * 501])),
    ],
    "train": [("--data", st.sampled_from(_TRAVERSAL)), ("--data", _odd_text.map(lambda text: "no such " + text))],
    "train --data cifar10": [("--data-root", st.sampled_from(_TRAVERSAL))],
    "compare --data digits --model mlp": [
        *[(f"--{name}", _number) for name in ("population", "seeds", "evaluations", "limit", "budget")],
        *[
            (f"--{name}", _odd_text.map(lambda text: "no" + text))
            for name in ("methods", "unit", "select-on", "budget")
        ],
        ("--resume", st.sampled_from(_TRAVERSAL)),
        ("--storage-path", st.sampled_from(["/dev/null/x", "a\0b", "~nobody-here/x", "memory://x", "s3://k:pw@b"])),
    ],
    "replay": [("--run", st.sampled_from(_TRAVERSAL))],
    "replay --run 0123456789abcdef0123456789abcdef": [
        ("--seeds", _number),
        ("--mode", _odd_text.map(lambda text: "no" + text)),
    ],
    "reproduce ridge": [
        *[(f"--{name}", _number) for name in ("seeds", "workers")],
        ("--folder", st.sampled_from(["/dev/null/x", "a\0b", "~nobody-here/x", "x" * 5000])),
        ("--data", st.sampled_from(_TRAVERSAL)),
    ],
    "reproduce": [("", _odd_text.map(lambda text: "no" + text))],
    "ui": [("--port", st.sampled_from(["-1", "65536", "x", "", "9" * 30]))],
    "sync": [("", st.sampled_from(_TRAVERSAL))],
}


def test_a_wrong_flag_is_named(shell: Shell) -> None:
    cases = st.sampled_from([(command, *pair) for command, pairs in _FLAGS.items() for pair in pairs]).flatmap(
        lambda case: st.tuples(st.just(case[0]), st.just(case[1]), case[2])
    )

    def run(case: tuple[str, str, str]) -> None:
        command, flag, value = case
        name = flag.removeprefix("--").replace("-", "_")
        shell.refuses(
            *command.split(),
            *([flag] if flag else []),
            value,
            naming=(
                flag or value,
                name,
                name.replace("_", " "),
                value,
                repr(value)[1:60],
                value[:90],
                Path(value).name,
            ),
        )

    throw("flags", cases, run)


def test_random_words_run_no_command(shell: Shell) -> None:
    throw("text", st.lists(_odd_text.map(lambda text: "z" + text), min_size=1, max_size=4), lambda w: shell.refuses(*w))


SECRET = "hunter2-correct-horse"
_secret = st.sampled_from(
    [SECRET, f"{SECRET}/x", f"12/{SECRET}", f"@{SECRET}", f"a b{SECRET}", f"\t{SECRET}", f"'{SECRET}", f"/{SECRET}"]
)
_addresses = st.tuples(
    st.sampled_from(["ftp", "postgres", "postgresql", "http", "https", "mysql", "s3", "file", "x+y", "sqlite", ""]),
    _secret,
    st.sampled_from(["", "[::1", "h:port", "h:99999999", " ", "h h", "h\n", ":5", "/", "?password=" + SECRET]),
    st.sampled_from(["train --data digits", "compare --data digits --model mlp", "ui", "sync spool", "replay --run x"]),
)


def test_an_address_that_is_none_is_refused_without_its_password(shell: Shell) -> None:
    Path("spool").mkdir()
    Path("spool/run.json").write_text('{"uri": "sqlite:///none.db", "run_id": "x", "experiment_id": "0"}')

    def run(case: tuple[str, str, str, str]) -> None:
        scheme, password, host, command = case
        message = shell.refuses(*command.split(), "--tracking-uri", f"{scheme}://ann:{password}@{host}")
        assert SECRET not in message

    throw("addresses", _addresses, run)


@pytest.mark.parametrize("raw", [b"epochs: -1", _bomb(30, 9)])
def test_the_program_itself_says_so_too(raw: bytes, tmp_path: Path) -> None:
    """A process of its own: nothing printed at exit, the code that the shell sees."""
    Path(tmp_path, "wrong.yaml").write_bytes(raw)
    command = [sys.executable, "-m", "crossreg.jobs.cli", *TRAIN]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CROSSREG_CACHE": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["wrong.yaml"]


def test_more_than_500_are_thrown_in_all() -> None:
    assert sum(EXAMPLES.values()) >= 500
