"""Functions of the user: where they are looked for, and what is said of names that others have too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crossreg.core.errors import UserError
from crossreg.core.imports import hidden_by, import_function


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def package(folder: Path, text: str = "") -> Path:
    folder.mkdir()
    (folder / "__init__.py").write_text(text)
    return folder


def test_the_working_directory_is_looked_at_last(here: Path) -> None:
    (here / "queue.py").write_text("raise RuntimeError('not this one')")
    (here / "mine.py").write_text("import queue\ndef made(): return queue.Queue")
    assert import_function("mine:made", "data", "a function")().__module__ == "queue"
    assert sys.path[-1] == str(here)


@pytest.mark.parametrize("name", ["jobs", "services", "baselines", "studies"])
def test_names_of_our_folders_are_free(here: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # in a test the checkout itself is on the path; installed, it is there under its own name alone
    root = Path(__file__).resolve().parents[3]
    monkeypatch.setattr(sys, "path", [one for one in sys.path if Path(one or ".").resolve() != root])
    monkeypatch.delitem(sys.modules, name, raising=False)
    (package(here / name) / "payments.py").write_text("def pay(): return 3")
    assert import_function(f"{name}.payments:pay", "model", "a function")() == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json.nets:net", r"importing json.nets failed: .*The installed 'json' \(.*\) hides the one in the working"),
        ("json:net", r"json \(.*\) has no 'net'\. The installed 'json' \(.*\) hides the one in .*: rename yours"),
        ("jsn:net", "importing jsn failed: .*It must be installed or lie under the working directory"),
    ],
)
def test_an_installed_package_that_hides_ones_own_is_named(here: Path, name: str, message: str) -> None:
    (package(here / "json", "def net(): pass") / "nets.py").write_text("def net(): pass")
    with pytest.raises(UserError, match=message):
        import_function(name, "model", "a function")


def test_what_would_be_hidden_is_found(here: Path) -> None:
    package(here / "crossreg")
    package(here / "unheard_of")
    (here / "json.py").write_text("")
    (here / "torch").mkdir()  # no package: an installed one comes before it
    assert hidden_by(here) == {"crossreg": here / "crossreg", "json": here / "json.py"}
    assert hidden_by(Path(__file__).resolve().parents[3]) == {}
