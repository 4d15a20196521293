from __future__ import annotations

from pathlib import Path

import pytest

from crossreg import UserError
from crossreg.services.training.storage import RunFolder, check_storage, new_name


def test_local_paths_become_absolute_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_storage("deep/runs") == str(tmp_path / "deep" / "runs")
    assert list(tmp_path.iterdir()) == []


def test_remote_storage_goes_through_pyarrow_or_fsspec(tmp_path: Path) -> None:
    """`local://` is a scheme that only fsspec knows, so it goes the way of every fsspec store."""
    uri = f"local://{tmp_path}/bucket"
    assert check_storage(uri) == uri
    folder = RunFolder(uri, "a-run")
    arguments = folder.storage()
    assert arguments["name"] == "a-run"
    with arguments["storage_filesystem"].open_output_stream(f"{arguments['storage_path']}/x") as stream:
        stream.write(b"there")
    assert (tmp_path / "bucket" / "x").read_bytes() == b"there"
    assert [path.name for path in (tmp_path / "bucket").iterdir()] == ["x"]
    assert folder.location == f"{uri}/a-run"
    assert RunFolder.at(folder.location).name == "a-run"


@pytest.mark.parametrize("uri", ["gopher://x/y", "local:///dev/null/x"])
def test_storage_that_cannot_be_used_is_named(uri: str) -> None:
    with pytest.raises(UserError, match=uri):
        check_storage(uri)


def test_names_of_runs_differ() -> None:
    assert new_name("a") != new_name("a")


def test_names_of_folders_are_of_characters_that_ray_takes() -> None:
    assert new_name("käfer-cnn-s0").startswith("kafer-cnn-s0-")
    assert new_name("データ-cnn-s0").isascii()
